/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/page_pool.h"

#include "base/assert.h"

#include <errno.h>
#include <sys/mman.h>

static qn_status take_device(qn_page_pool *pool, const qn_kv_place *place, uint32_t n_pages,
                             size_t size_bytes, qn_error *err)
{
    void *base = NULL;
    const qn_status status = qn_gpu_alloc(&base, place->gpu, size_bytes, "cache", err);
    if (status == QN_OK) {
        pool->kv =
            (qn_kv){.layout = &pool->layout, .base = base, .n_pages = n_pages, .place = *place};
        qn_kv_clear(&pool->kv, base, size_bytes);
    }
    return status;
}

qn_status qn_page_pool_init(qn_page_pool *pool, const qn_config *config, const qn_kv_place *place,
                            qn_kv_dtype dtype, uint32_t n_pages, bool with_mtp, qn_error *err)
{
    QN_ASSERT(n_pages > 0);
    *pool = (qn_page_pool){0};
    qn_kv_layout_init(&pool->layout, config, dtype, with_mtp);
    size_t size_bytes;
    if (__builtin_mul_overflow(pool->layout.page_bytes, n_pages, &size_bytes)) {
        size_bytes = SIZE_MAX; /* refused by mmap, and by any GPU */
    }
    if (place != NULL && place->gpu != NULL) {
        return take_device(pool, place, n_pages, size_bytes, err);
    }
    void *const base = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) {
        return qn_fail(
            err, QN_E_NOMEM, errno, __func__,
            "cache: no memory for %zu bytes, room for %u pages of %d positions expected: "
            "a smaller --context or another --kv-dtype needs less",
            size_bytes, n_pages, (int)QN_PAGE_TOKENS);
    }
    pool->kv = (qn_kv){.layout = &pool->layout, .base = base, .n_pages = n_pages};
    return QN_OK;
}

void qn_page_pool_deinit(qn_page_pool *pool)
{
    if (pool->kv.place.gpu != NULL) {
        (void)!qn_gpu_wait(pool->kv.place.stream, NULL); /* what is queued may still write there */
        qn_gpu_free(pool->kv.place.gpu, pool->kv.base);
    } else if (pool->kv.base != NULL) {
        (void)munmap(pool->kv.base, pool->kv.n_pages * pool->layout.page_bytes);
    }
    *pool = (qn_page_pool){0};
}

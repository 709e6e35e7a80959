/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/page_pool.h"

#include "base/assert.h"

#include <errno.h>
#include <sys/mman.h>

qn_status qn_page_pool_init(qn_page_pool *pool, const qn_config *config, qn_kv_dtype dtype,
                            uint32_t n_tokens, bool with_mtp, qn_error *err)
{
    *pool = (qn_page_pool){0};
    qn_kv_layout_init(&pool->layout, config, dtype, with_mtp);
    const uint32_t n_pages = (n_tokens - 1) / QN_PAGE_TOKENS + 1;
    size_t size_bytes;
    if (__builtin_mul_overflow(pool->layout.page_bytes, n_pages, &size_bytes)) {
        size_bytes = SIZE_MAX; /* refused by mmap */
    }
    void *const base = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) {
        return qn_fail(err, QN_E_NOMEM, errno, __func__,
                       "cache: no memory for %zu bytes, room for %u positions expected: a smaller "
                       "--context or another --kv-dtype needs less",
                       size_bytes, n_tokens);
    }
    pool->kv = (qn_kv){.layout = &pool->layout, .base = base, .n_pages = n_pages};
    return QN_OK;
}

void qn_page_pool_deinit(qn_page_pool *pool)
{
    if (pool->kv.base != NULL) {
        (void)munmap(pool->kv.base, pool->kv.n_pages * pool->layout.page_bytes);
    }
    *pool = (qn_page_pool){0};
}

int32_t qn_page_pool_take(qn_page_pool *pool)
{
    QN_ASSERT(pool->n_used < pool->kv.n_pages);
    return (int32_t)pool->n_used++;
}

uint64_t qn_page_pool_used_bytes(const qn_page_pool *pool)
{
    return (uint64_t)pool->n_used * pool->layout.page_bytes;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/page_sums.h"

#include "base/assert.h"
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#define XXH_INLINE_ALL /* nothing to link */
#include <xxhash.h>

/* In steps: published, and the device did not give its bytes. */
static const uint64_t k_unread = UINT64_MAX;

qn_status qn_page_sums_init(qn_page_sums *sums, const qn_kv *kv, qn_error *err)
{
    *sums = (qn_page_sums){.kv = kv};
    sums->sums = calloc((size_t)kv->n_pages * kv->layout->n_components, sizeof *sums->sums);
    sums->steps = calloc(kv->n_pages, sizeof *sums->steps);
    if (kv->place.gpu != NULL) {
        sums->bytes = malloc(kv->layout->page_bytes);
    }
    if (sums->sums == NULL || sums->steps == NULL ||
        (sums->bytes == NULL && kv->place.gpu != NULL)) {
        qn_page_sums_deinit(sums);
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "checksums: no memory for %u pages",
                       kv->n_pages);
    }
    return QN_OK;
}

void qn_page_sums_deinit(qn_page_sums *sums)
{
    free(sums->sums);
    free(sums->steps);
    free(sums->bytes);
    *sums = (qn_page_sums){0};
}

size_t qn_page_sums_bytes(const qn_page_sums *sums)
{
    const qn_kv *const kv = sums->kv;
    if (kv == NULL) {
        return 0;
    }
    return kv->n_pages * (kv->layout->n_components * sizeof *sums->sums + sizeof *sums->steps) +
           (sums->bytes != NULL ? kv->layout->page_bytes : 0);
}

/* Checksum of one component of a page; fails where a GPU does not give its bytes. */
static qn_status sum_of(uint64_t *sum, const qn_page_sums *sums, uint32_t page,
                        uint32_t i_component, qn_error *err)
{
    const qn_kv *const kv = sums->kv;
    const qn_kv_component *const c = &kv->layout->components[i_component];
    const uint8_t *const base = kv->base + (size_t)kv->n_pages * c->offset_bytes;
    const uint8_t *bytes = base + (size_t)page * c->page_bytes;
    if (sums->bytes != NULL) {
        const qn_status status = qn_kv_read(kv, sums->bytes, bytes, c->page_bytes, err);
        if (status < 0) {
            return status;
        }
        bytes = sums->bytes;
    }
    *sum = XXH3_64bits(bytes, c->page_bytes);
    return QN_OK;
}

qn_status qn_page_sums_publish(qn_page_sums *sums, uint32_t page, uint64_t i_step, qn_error *err)
{
    qn_status status = QN_OK;
    const uint32_t n = sums->kv->layout->n_components;
    QN_ASSERT(page < sums->kv->n_pages);
    QN_ASSERT(i_step > 0);
    for (uint32_t i = 0; i < n && status == QN_OK; i++) {
        status = sum_of(&sums->sums[(size_t)page * n + i], sums, page, i, err);
    }
    sums->steps[page] = status == QN_OK ? i_step : k_unread;
    return status;
}

void qn_page_sums_forget(qn_page_sums *sums, uint32_t page)
{
    QN_ASSERT(page < sums->kv->n_pages);
    sums->steps[page] = 0;
}

qn_status qn_page_sums_check(const qn_page_sums *sums, uint32_t page, uint32_t published,
                             uint64_t i_step, qn_error *err)
{
    static const char *const kinds[] = {
        [QN_KV_LATENT] = "latent", [QN_KV_INDEX_KEY] = "index key", [QN_KV_HIDDEN] = "hidden"};
    const uint32_t n = sums->kv->layout->n_components;
    QN_ASSERT(page < sums->kv->n_pages);
    QN_ASSERT(published < sums->kv->n_pages);
    if (sums->steps[published] == 0) {
        qn_log(QN_LOG_ERROR, "page %u: shared in step %" PRIu64 ", published before expected",
               published, i_step);
        abort();
    }
    for (uint32_t i = 0; i < n && sums->steps[published] != k_unread; i++) {
        const qn_kv_component *const c = &sums->kv->layout->components[i];
        uint64_t seen = 0;
        const qn_status status = sum_of(&seen, sums, page, i, err);
        if (status < 0) {
            return status;
        }
        const uint64_t expected = sums->sums[(size_t)published * n + i];
        if (seen != expected) {
            qn_log(QN_LOG_ERROR,
                   "page %u: component %u (%s of layer %u) has checksum %016" PRIx64
                   " in step %" PRIu64 ", %016" PRIx64 " expected, with which step %" PRIu64
                   " published page %u",
                   page, i, kinds[c->kind], c->i_layer, seen, i_step, expected,
                   sums->steps[published], published);
            abort();
        }
    }
    return QN_OK;
}

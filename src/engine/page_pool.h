/* SPDX-License-Identifier: Apache-2.0 */
/** @file page_pool.h  The cache's bytes: one mapping that fills with real memory as it is used. */
#ifndef QN_ENGINE_PAGE_POOL_H
#define QN_ENGINE_PAGE_POOL_H
#include "model/kv.h"

/** Pages are taken in ascending order and given back all at once. */
typedef struct qn_page_pool {
    qn_kv_layout layout; /**< What a page holds. */
    qn_kv kv;            /**< The pages; kv.base is owned. */
    uint32_t n_used;     /**< Pages taken. */
} qn_page_pool;

/**
 * Reserve addresses for the pages of @p n_tokens positions.  The struct may not move afterwards.
 *
 * @param with_mtp  pages have rows of the MTP layer too
 * Returns  QN_OK; QN_E_NOMEM that says how many bytes were asked
 */
QN_MUST_CHECK qn_status qn_page_pool_init(qn_page_pool *pool, const qn_config *config,
                                          qn_kv_dtype dtype, uint32_t n_tokens, bool with_mtp,
                                          qn_error *err);

/** Unmap.  Accepts an all-zero pool. */
void qn_page_pool_deinit(qn_page_pool *pool);

/** The next page's id; there must be one. */
int32_t qn_page_pool_take(qn_page_pool *pool);

/** Bytes of the pages taken. */
uint64_t qn_page_pool_used_bytes(const qn_page_pool *pool);
#endif

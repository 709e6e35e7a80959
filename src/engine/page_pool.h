/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file page_pool.h  The cache's bytes: one mapping that fills with real memory as it is used, or
 * one block of a GPU.
 */
#ifndef QN_ENGINE_PAGE_POOL_H
#define QN_ENGINE_PAGE_POOL_H
#include "model/kv.h"

/**
 * Pages 0 .. kv.n_pages - 1 of whoever opens it, who also says what each is used for.  There is one
 * attention group, so a page's index is its id (base/page.h).
 */
typedef struct qn_page_pool {
    qn_kv_layout layout; /**< What a page holds. */
    qn_kv kv;            /**< The pages; kv.base is owned. */
} qn_page_pool;

/**
 * Reserve addresses for @p n_pages pages, at least 1, all bytes 0.  The struct may not move
 * afterwards.
 *
 * @param place     whose memory it is, borrowed; NULL: the host's
 * @param with_mtp  pages have rows of the MTP layer too
 * Returns  QN_OK; QN_E_NOMEM that says how many bytes were asked; QN_E_DEVICE
 */
QN_MUST_CHECK qn_status qn_page_pool_init(qn_page_pool *pool, const qn_config *config,
                                          const qn_kv_place *place, qn_kv_dtype dtype,
                                          uint32_t n_pages, bool with_mtp, qn_error *err);

/** Give the memory back.  Accepts an all-zero pool. */
void qn_page_pool_deinit(qn_page_pool *pool);
#endif

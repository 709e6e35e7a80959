/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file page_sums.h  Checksums of published pages: one for each component, taken when a page is
 * published and compared when it is shared.  A page that does not hold what was published stops the
 * process: every answer that used it would be a lie.
 */
#ifndef QN_ENGINE_PAGE_SUMS_H
#define QN_ENGINE_PAGE_SUMS_H
#include "model/kv.h"

/** Sums of all pages of a cache.  All-zero is closed. */
typedef struct qn_page_sums {
    const qn_kv *kv; /**< Borrowed while it is open. */
    uint64_t *sums;  /**< [n_pages][n_components]; owned, as the next. */
    uint64_t *steps; /**< [n_pages] step that published the page; 0: none; UINT64_MAX: one in
                          which the page could not be read, so that nothing compares it. */
    uint8_t *bytes;  /**< Of a component of a page that a GPU has; NULL: the host has them. */
} qn_page_sums;

/** Returns QN_OK; QN_E_NOMEM */
QN_MUST_CHECK qn_status qn_page_sums_init(qn_page_sums *sums, const qn_kv *kv, qn_error *err);

/** Release; accepts an all-zero one. */
void qn_page_sums_deinit(qn_page_sums *sums);

/** Bytes of the sums; 0 of an all-zero one. */
size_t qn_page_sums_bytes(const qn_page_sums *sums);

/**
 * A page is published in step @p i_step, at least 1: its bytes stay as they are now.
 * Returns  QN_OK; QN_E_DEVICE: it could not be read, and is not compared
 */
QN_MUST_CHECK qn_status qn_page_sums_publish(qn_page_sums *sums, uint32_t page, uint64_t i_step,
                                             qn_error *err);

/** A page is given to a sequence that writes it. */
void qn_page_sums_forget(qn_page_sums *sums, uint32_t page);

/**
 * Abort, naming page, component and step, unless @p page holds the bytes with which @p published
 * was published.  They are two where a sequence's own page is exchanged for a shared one.
 * Returns  QN_OK; QN_E_DEVICE: it could not be read, which says nothing about its bytes
 */
QN_MUST_CHECK qn_status qn_page_sums_check(const qn_page_sums *sums, uint32_t page,
                                           uint32_t published, uint64_t i_step, qn_error *err);
#endif

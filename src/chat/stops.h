/* SPDX-License-Identifier: Apache-2.0 */
/** @file stops.h  Finds the texts that end an answer, while the answer comes in pieces. */
#ifndef QN_CHAT_STOPS_H
#define QN_CHAT_STOPS_H
#include "quern/quern.h"

#include "base/str.h"

/** One stop text and how much of it the answer ends with. */
typedef struct qn_chat_stop {
    uint32_t len;       /**< Bytes, 1 to QN_STOP_BYTES_MAX. */
    uint32_t n_matched; /**< So many of its first bytes are the last ones of the answer. */
    char text[QN_STOP_BYTES_MAX];
    /** [i]: the longest text, shorter than i + 1 bytes, that the first i + 1 bytes begin and end
     * with. */
    uint16_t border[QN_STOP_BYTES_MAX];
} qn_chat_stop;

/** All stop texts of a request.  Caller's storage, 48 KiB; all-zero has none.  No allocation. */
typedef struct qn_chat_stops {
    size_t n_stops;
    const qn_chat_stop *held;  /**< The stop text that the answer ends with most bytes of. */
    size_t n_held;             /**< So many: they are held back. */
    const qn_chat_stop *found; /**< The one that ended the answer; NULL: none yet. */
    qn_chat_stop stops[QN_STOPS_MAX];
} qn_chat_stops;

/**
 * @param texts  [n_texts] copied
 * Returns  QN_OK; QN_E_INVAL for more than QN_STOPS_MAX texts, or naming one that is empty, longer
 *          than QN_STOP_BYTES_MAX or not UTF-8
 */
QN_MUST_CHECK qn_status qn_chat_stops_init(qn_chat_stops *stops, const char *const *texts,
                                           size_t n_texts, qn_error *err);

/**
 * The next piece of the answer, whole characters.
 *
 * The stop text that is complete first ends the answer; of several that are complete at the same
 * byte the longest does, so that none of them is left in the answer.
 *
 * @param[out] out  what is certain to be before any stop text, in two pieces of whole characters,
 *                  each of which may be empty; borrowed from @p stops and @p text
 * Returns  true when a stop text is complete: the answer ends behind @p out and nothing may be
 *          fed any more
 */
QN_MUST_CHECK bool qn_chat_stops_feed(qn_chat_stops *stops, qn_str text, qn_str out[2]);

/**
 * The answer is over, or something stands between this text and the next: what was held back,
 * borrowed from @p stops; empty behind a stop text.  What is fed then begins anew.
 */
qn_str qn_chat_stops_end(qn_chat_stops *stops);
#endif

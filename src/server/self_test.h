/* SPDX-License-Identifier: Apache-2.0 */
/** @file self_test.h  Questions that an engine answers before anybody else asks: they warm it up,
 * and a model that cannot answer is found out. */
#ifndef QN_SERVER_SELF_TEST_H
#define QN_SERVER_SELF_TEST_H
#include "server/backend.h"
#include "server/board.h"

/**
 * Have @p backend, which must be idle, answer prompts of one token, of more than a page, and
 * several at once, greedily; then all of them again, from its cache and with drafts.  Every token
 * has to be of the vocabulary, text of whole characters, and the second answers the first ones,
 * where the model is deterministic.  The cache is empty afterwards.
 *
 * @param board  told of each step; NULL: nobody
 * Returns  QN_OK; QN_E_FORMAT naming what was seen; the error of a request or a step
 */
QN_MUST_CHECK qn_status self_test_run(const server_backend *backend, server_board *board,
                                      qn_error *err);
#endif

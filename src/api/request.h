/* SPDX-License-Identifier: Apache-2.0 */
/** @file request.h  What a caller asks of a session or an engine, checked field by field. */
#ifndef QN_API_REQUEST_H
#define QN_API_REQUEST_H
#include "quern/quern.h"

#include "engine/generator.h"

/**
 * Check @p request against @p model and a context of @p n_context positions, and fill @p out.
 *
 * @param[out] out       points into @p request and @p stop_ids; wants_prompt_logits is left alone
 * @param[out] stop_ids  [QN_SAMPLER_STOPS_MAX]
 * Returns  QN_OK; QN_E_INVAL naming the field
 */
QN_MUST_CHECK qn_status qn_request_check(qn_generator_request *out, int32_t *stop_ids,
                                         const qn_model *model, const qn_request *request,
                                         size_t n_context, qn_error *err);

/**
 * Check the fields that are for engines alone.
 * Returns  QN_OK; QN_E_INVAL naming the field
 */
QN_MUST_CHECK qn_status qn_request_check_queueing(const qn_request *request, qn_error *err);
#endif

/* SPDX-License-Identifier: Apache-2.0 */
/** @file body.h  The JSON around a prompt: what all bodies of a workload begin and end with. */
#ifndef QN_BENCH_BODY_H
#define QN_BENCH_BODY_H
#include "client.h"
#include "dataset.h"

typedef struct bench_bodies {
    qn_buf head; /**< {"model":...,  with all members but the prompt and the length. */
    bench_api api;
    const char *length_name; /**< "max_tokens", or "max_completion_tokens" where extra has it. */
    uint32_t n_output;       /**< As extra has it; 0: each request's own. */
    bool is_exact;           /**< ignore_eos is asked for. */
} bench_bodies;

/**
 * @param extra  JSON object whose members take the place of ours, but for "prompt", "messages" and
 *               "stream"; NULL: none
 * Returns  QN_OK; QN_E_INVAL naming the member of extra; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status bench_bodies_init(bench_bodies *out, bench_api api, const char *model,
                                          bool ignores_eos, const char *extra, qn_error *err);
void bench_bodies_deinit(bench_bodies *bodies);

/** What stands between the head and a prompt of this form: "\"prompt\":\"". */
const char *bench_bodies_before(const bench_bodies *bodies, bench_prompt_form form);

/** Append what stands behind it, to the end.  @p n_output 0: no length.  QN_E_NOMEM. */
QN_MUST_CHECK qn_status bench_bodies_end(qn_buf *out, const bench_bodies *bodies,
                                         bench_prompt_form form, uint32_t n_output, qn_error *err);
#endif

/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/accept.h"

#include "base/assert.h"

qn_status qn_accept_rows(uint32_t *n_emitted, uint32_t *n_accepted, qn_sampler *sampler,
                         const qn_accept_args *args, qn_error *err)
{
    QN_ASSERT(!args->is_pinned || args->n_forced <= args->n_drafts);
    *n_emitted = 0;
    *n_accepted = 0;
    bool goes_on = true;
    for (uint32_t j = 0; j <= args->n_drafts && goes_on; j++) {
        const float *const logits = args->logits + (size_t)j * args->n_vocab;
        const bool is_forced = args->is_pinned && j < args->n_forced;
        int32_t token = is_forced ? args->drafts[j] : -1;
        if (!is_forced) {
            const qn_status status =
                qn_sampler_draw(&token, sampler, logits, args->position + j, err);
            if (status != QN_OK) {
                return status;
            }
        }
        const bool is_accepted =
            is_forced || (!args->is_pinned && j < args->n_drafts && token == args->drafts[j]);
        qn_sampler_commit(sampler, token);
        *n_emitted += 1;
        *n_accepted += is_accepted ? 1 : 0;
        goes_on = args->emit(args->context, token, logits) && is_accepted;
    }
    return QN_OK;
}

uint32_t qn_accept_forced(uint64_t n_steps, double acceptance_length, uint32_t n_drafts)
{
    QN_ASSERT(acceptance_length >= 1.0);
    const double k = (double)n_steps;
    const double n = (double)(uint64_t)((k + 1.0) * acceptance_length + 1e-6) -
                     (double)(uint64_t)(k * acceptance_length + 1e-6) - 1.0;
    return n < (double)n_drafts ? (uint32_t)n : n_drafts;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "eval/solve.h"

#include "base/clock.h"
#include "base/json_doc.h"
#include "base/rng.h"
#include "base/try.h"

enum { REPLY_BYTES_MAX = 1 << 30 };

void qn_reply_init(qn_reply *reply)
{
    *reply = (qn_reply){.finish = QN_FINISH_ERROR};
    qn_buf_init(&reply->text, REPLY_BYTES_MAX);
    qn_buf_init(&reply->reasoning, REPLY_BYTES_MAX);
    qn_buf_init(&reply->calls, REPLY_BYTES_MAX);
}

void qn_reply_deinit(qn_reply *reply)
{
    qn_buf_deinit(&reply->text);
    qn_buf_deinit(&reply->reasoning);
    qn_buf_deinit(&reply->calls);
}

static void clear(qn_reply *reply)
{
    qn_buf_clear(&reply->text);
    qn_buf_clear(&reply->reasoning);
    qn_buf_clear(&reply->calls);
    reply->finish = QN_FINISH_ERROR;
    reply->ids_hash = 0;
    reply->failure = (qn_error){0};
}

/* One more call in a list that stays closed. */
static qn_status take_call(qn_buf *calls, const qn_event *event, qn_error *err)
{
    qn_status status = QN_OK;
    if (calls->len > 0) {
        calls->len--; /* the bracket */
    }
    QN_TRY(status, qn_buf_append_printf(calls, err, "%s", calls->len > 0 ? ", " : "["), fail);
    QN_TRY(status, qn_buf_append_printf(calls, err, "{\"name\": "), fail);
    const qn_str name = {.ptr = event->name, .len = event->name_len};
    QN_TRY(status, qn_json_quote_append(calls, name, err), fail);
    QN_TRY(status, qn_buf_append_printf(calls, err, ", \"arguments\": "), fail);
    QN_TRY(status, qn_buf_append(calls, event->text, event->len, err), fail);
    QN_TRY(status, qn_buf_append(calls, "}]", 2, err), fail);
fail:
    return status;
}

static qn_status take(qn_reply *reply, const qn_event *event, qn_error *err)
{
    switch (event->kind) {
    case QN_EVENT_TEXT: return qn_buf_append(&reply->text, event->text, event->len, err);
    case QN_EVENT_REASONING: return qn_buf_append(&reply->reasoning, event->text, event->len, err);
    case QN_EVENT_TOOL_CALL: return take_call(&reply->calls, event, err);
    case QN_EVENT_TOKEN:
        reply->ids_hash = qn_rng_mix(reply->ids_hash ^ (uint64_t)(event->token.token + 1));
        break;
    case QN_EVENT_END: reply->finish = event->finish; break;
    case QN_EVENT_WARNING:
    case QN_EVENT_CALL_BEGIN:
    case QN_EVENT_CALL_PIECE:
    case QN_EVENT_PROMPT_TOKEN: break;
    }
    return QN_OK;
}

void qn_reply_take(void *reply, const qn_event *event)
{
    qn_reply *const r = reply;
    if (r->failure.status == QN_OK) {
        (void)!take(r, event, &r->failure);
    }
}

/* ------------------------------------------------------------------------------------- a problem
 */

/* An error of a problem names its place. */
static qn_status at_problem(qn_status status, const qn_error *why, const qn_task_set *set,
                            uint32_t i_problem, qn_error *err)
{
    const qn_problem *const problem = &set->problems[i_problem];
    return qn_fail(err, status, why->sys, why->where, "%.250s: line %u: %s",
                   set->files[problem->i_file].path, problem->line, why->text);
}

/* What goes wrong with an answer is the model's doing, or that of the settings, not the file's. */
static qn_status of_model(qn_status status, const qn_error *why, const qn_model *model,
                          const qn_task_set *set, uint32_t i_problem, qn_error *err)
{
    const qn_problem *const problem = &set->problems[i_problem];
    return qn_fail(err, status, why->sys, why->where, "%.200s: %s (answering %.200s: line %u)",
                   qn_model_get_info(model)->name, why->text, set->files[problem->i_file].path,
                   problem->line);
}

qn_status qn_problem_encode(int32_t **ids, size_t *n_ids, const qn_model *model,
                            const qn_chat_options *chat, const qn_task_set *set, uint32_t i_problem,
                            qn_error *err)
{
    const qn_problem *const problem = &set->problems[i_problem];
    const uint32_t n_context = qn_model_get_info(model)->n_context_max;
    qn_chat_options options = *chat;
    qn_error why = {0};
    options.tools_json = problem->tools.ptr;
    options.tools_len = problem->tools.len;
    qn_status status = qn_chat_encode(ids, n_ids, model, &options, problem->messages.ptr,
                                      problem->messages.len, &why);
    if (status == QN_OK && *n_ids >= n_context) {
        status = qn_fail(&why, QN_E_FORMAT, 0, __func__,
                         "messages: %zu tokens, fewer than the context of %u expected", *n_ids,
                         n_context);
        qn_free(*ids);
        *ids = NULL;
    }
    return status < 0 ? at_problem(status, &why, set, i_problem, err) : QN_OK;
}

static qn_status step_to_end(qn_session *session, const qn_asking *asking, qn_error *err)
{
    qn_status status = QN_OK;
    while (status == QN_OK) {
        status = qn_session_step(session, err);
        if (status == QN_OK && !asking->goes_on(asking->context)) {
            return qn_fail(err, QN_E_CANCELLED, 0, __func__,
                           "eval: interrupted, expected to go on");
        }
    }
    return status == QN_AGAIN ? QN_OK : status;
}

static qn_status judge(qn_outcome *out, const qn_reply *reply, const qn_session *session,
                       const qn_problem *problem, qn_error *err)
{
    const qn_session_stats stats = qn_session_get_stats(session);
    const qn_said said = {.text = qn_buf_view(&reply->text),
                          .calls = qn_buf_view(&reply->calls),
                          .letters = problem->letters};
    if (reply->failure.status < 0) {
        *err = reply->failure;
        return err->status;
    }
    *out = (qn_outcome){
        .n_prompt_tokens = stats.n_prompt_tokens,
        .n_tokens = stats.n_generated_tokens,
        .n_reasoning_tokens = stats.n_reasoning_tokens,
        .n_steps = stats.n_steps,
        .n_step_tokens = stats.n_step_tokens,
        .ids_hash = reply->ids_hash,
        .is_done = true,
        .is_cut = reply->finish == QN_FINISH_LENGTH,
    };
    return qn_score_reply(&out->is_right, problem->score,
                          (qn_str){problem->answer, problem->answer_len}, &said, err);
}

qn_status qn_problem_solve(qn_outcome *out, qn_reply *reply, qn_session *session,
                           const qn_model *model, const qn_asking *asking, const qn_task_set *set,
                           uint32_t i_problem, qn_error *err)
{
    const qn_problem *const problem = &set->problems[i_problem];
    const uint64_t start_ns = qn_clock_ns();
    int32_t *ids = NULL;
    size_t n_ids = 0;
    qn_sampling sampling = asking->sampling;
    sampling.seed = qn_rng_u64(sampling.seed, i_problem, 0);
    qn_status status = qn_problem_encode(&ids, &n_ids, model, &asking->chat, set, i_problem, err);
    if (status < 0) {
        return status;
    }
    const qn_request request = {.ids = ids,
                                .n_ids = n_ids,
                                .sampling = &sampling,
                                .tools_json = problem->tools.ptr,
                                .tools_len = problem->tools.len,
                                .max_tokens = asking->max_tokens,
                                .draft_tokens = asking->draft_tokens};
    qn_error why = {0};
    clear(reply);
    QN_TRY(status, qn_session_submit(session, &request, &why), fail);
    QN_TRY(status, step_to_end(session, asking, &why), fail);
    QN_TRY(status, judge(out, reply, session, problem, &why), fail);
    out->seconds = qn_clock_seconds(start_ns, qn_clock_ns());
fail:
    qn_free(ids);
    return status < 0 ? of_model(status, &why, model, set, i_problem, err) : QN_OK;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "answer.h"

#include "progress.h"

#include <stdlib.h>

void cli_answer_open(cli_answer *answer)
{
    *answer = (cli_answer){.calls = json_array(), .finish = QN_FINISH_ERROR};
    answer->has_lost = answer->calls == NULL;
    for (int i = 0; i < CLI_N_PARTS; i++) {
        answer->streams[i] = open_memstream(&answer->texts[i], &answer->lens[i]);
        answer->has_lost |= answer->streams[i] == NULL;
    }
}

/* The arguments are a string, so that numbers keep their text. */
static void take_call(cli_answer *answer, const qn_event *event, const char *prefix)
{
    char id[128];
    (void)snprintf(id, sizeof id, "%s%zu", prefix, json_array_size(answer->calls));
    json_t *const call =
        json_pack("{ss, ss, s{so, so}}", "id", id, "type", "function", "function", "name",
                  json_stringn(event->name_len > 0 ? event->name : "", event->name_len),
                  "arguments", json_stringn(event->text, event->len));
    answer->has_lost |= json_array_append_new(answer->calls, call) != 0;
}

void cli_answer_take(cli_answer *answer, const qn_event *event, const char *prefix)
{
    const int part = event->kind == QN_EVENT_REASONING ? CLI_REASONING : CLI_TEXT_PART;
    switch (event->kind) {
    case QN_EVENT_REASONING:
    case QN_EVENT_TEXT:
        answer->has_lost |= answer->streams[part] == NULL ||
                            fwrite(event->text, 1, event->len, answer->streams[part]) != event->len;
        break;
    case QN_EVENT_TOOL_CALL: take_call(answer, event, prefix); break;
    case QN_EVENT_END: answer->finish = event->finish; break;
    case QN_EVENT_WARNING:
    case QN_EVENT_CALL_BEGIN:
    case QN_EVENT_CALL_PIECE:
    case QN_EVENT_PROMPT_TOKEN:
    case QN_EVENT_TOKEN: break;
    }
}

qn_status cli_answer_finish(cli_answer *answer, qn_error *err)
{
    for (int i = 0; i < CLI_N_PARTS; i++) {
        if (answer->streams[i] != NULL) {
            answer->has_lost |= fclose(answer->streams[i]) != 0;
        }
        answer->streams[i] = NULL;
    }
    return answer->has_lost ? qn_fail(err, QN_E_NOMEM, 0, __func__, "answer: no memory to keep it")
                            : QN_OK;
}

void cli_answer_close(cli_answer *answer)
{
    qn_error ignored = {0};
    (void)!cli_answer_finish(answer, &ignored);
    json_decref(answer->calls);
    for (int i = 0; i < CLI_N_PARTS; i++) {
        free(answer->texts[i]);
    }
    *answer = (cli_answer){0};
}

qn_status cli_answer_follow(qn_session *session, const cli_follower *follower, bool is_quiet,
                            qn_error *err)
{
    cli_progress progress;
    qn_status status = QN_OK;
    cli_progress_begin(&progress, "prompt", "tokens", 1, is_quiet);
    while (status == QN_OK) {
        status = qn_session_step(session, err);
        const qn_session_stats stats = qn_session_get_stats(session);
        if (stats.n_generated_tokens == 0 && status == QN_OK) {
            (void)cli_progress_show(&progress, stats.n_computed_tokens, stats.n_prompt_tokens);
        } else {
            cli_progress_end(&progress);
        }
        for (qn_event event; qn_session_poll(&event, session);) {
            follower->event(follower->context, &event);
        }
        follower->between(follower->context);
    }
    cli_progress_end(&progress);
    return status == QN_AGAIN ? QN_OK : status;
}

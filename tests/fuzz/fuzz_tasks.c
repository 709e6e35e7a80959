/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a task file; each answer then judges itself, and the whole input as a reply. */
#include "base/assert.h"
#include "base/json_doc.h"
#include "eval/task.h"

/* libFuzzer sets the name. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes); /* NOLINT */

/* The calls that a model would have made to be right: the answer, in a list. */
static void append_calls(qn_buf *calls, qn_str answer)
{
    qn_json_kind kind;
    QN_ASSERT(qn_json_scan(answer, &kind));
    const bool is_list = kind == QN_JSON_ARRAY;
    QN_ASSERT(qn_buf_append(calls, "[", is_list ? 0 : 1, NULL) == QN_OK);
    QN_ASSERT(qn_buf_append(calls, answer.ptr, answer.len, NULL) == QN_OK);
    QN_ASSERT(qn_buf_append(calls, "]", is_list ? 0 : 1, NULL) == QN_OK);
}

static void check_problem(const qn_problem *p, qn_str input)
{
    const qn_str answer = {p->answer, p->answer_len};
    qn_buf calls;
    bool is_right = false;
    qn_error err = {0};
    qn_buf_init(&calls, 1 << 30);
    if (p->score == QN_SCORE_TOOL_CALL) {
        append_calls(&calls, answer);
    }
    const qn_said same = {.text = answer, .calls = qn_buf_view(&calls)};
    const qn_said other = {.text = input, .calls = input, .letters = p->letters};
    QN_ASSERT(qn_score_check(p->score, answer, "answer", &err) == QN_OK);
    QN_ASSERT(qn_score_reply(&is_right, p->score, answer, &same, &err) == QN_OK);
    /* An exact answer may be a block of code, of which a reply's inside counts. */
    QN_ASSERT(is_right || p->score == QN_SCORE_EXACT || p->score == QN_SCORE_JSON);
    QN_ASSERT(qn_score_reply(&is_right, p->score, answer, &other, &err) == QN_OK);
    qn_buf_deinit(&calls);
}

static void check_set(const qn_task_set *set, qn_str input)
{
    uint64_t n_problems = 0;
    for (uint32_t i = 0; i < set->n_tasks; i++) {
        QN_ASSERT(set->tasks[i].name[0] != '\0');
        n_problems += set->tasks[i].n_problems;
    }
    QN_ASSERT(n_problems == set->n_problems);
    for (uint32_t i = 0; i < set->n_problems; i++) {
        const qn_problem *const p = &set->problems[i];
        qn_json_kind kind;
        QN_ASSERT(p->i_task < set->n_tasks && p->i_file < set->n_files && p->line > 0);
        QN_ASSERT(qn_json_scan(p->messages, &kind) && kind == QN_JSON_ARRAY);
        QN_ASSERT(p->tools.len == 0 || qn_json_scan(p->tools, &kind));
        check_problem(p, input);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) /* NOLINT */
{
    char *const exact = malloc(n_bytes > 0 ? n_bytes : 1); /* so that an overread shows */
    QN_ASSERT(exact != NULL);
    if (n_bytes > 0) {
        memcpy(exact, data, n_bytes);
    }
    const qn_str input = {exact, n_bytes};
    qn_task_set set = {0};
    qn_error err = {0};
    if (qn_task_set_add(&set, "F", input, 0, &err) == QN_OK) {
        QN_ASSERT(set.n_problems > 0);
        check_set(&set, input);
    } else {
        QN_ASSERT(strncmp(err.text, "F: ", 3) == 0);
    }
    qn_task_set_deinit(&set);
    free(exact);
    return 0;
}

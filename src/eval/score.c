/* SPDX-License-Identifier: Apache-2.0 */
#include "eval/score.h"

#include "base/json_doc.h"
#include "base/try.h"
#include "eval/choice.h"
#include "eval/number.h"

const char *const qn_score_names[QN_N_SCORES] = {
    [QN_SCORE_EXACT] = "exact", [QN_SCORE_NUMBER] = "number",       [QN_SCORE_CHOICE] = "choice",
    [QN_SCORE_JSON] = "json",   [QN_SCORE_TOOL_CALL] = "tool_call",
};

qn_score qn_score_of_task(qn_str task)
{
    static const struct {
        const char *task;
        qn_score score;
    } known[] = {
        {"arithmetic", QN_SCORE_NUMBER}, {"word_problem", QN_SCORE_NUMBER},
        {"needle", QN_SCORE_NUMBER},     {"gsm8k", QN_SCORE_NUMBER},
        {"choice", QN_SCORE_CHOICE},     {"gpqa", QN_SCORE_CHOICE},
        {"extract", QN_SCORE_JSON},      {"tool_call", QN_SCORE_TOOL_CALL},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (qn_str_equal(task, qn_str_of(known[i].task))) {
            return known[i].score;
        }
    }
    return QN_SCORE_EXACT;
}

/* ---------------------------------------------------------------------------------------- text */

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static qn_str trim(qn_str text)
{
    while (text.len > 0 && is_space(text.ptr[text.len - 1])) {
        text.len--;
    }
    while (text.len > 0 && is_space(*text.ptr)) {
        text.ptr++;
        text.len--;
    }
    return text;
}

/* Where @p word begins in @p text; NULL: nowhere. */
static const char *find(qn_str text, const char *word)
{
    return text.len > 0 ? memmem(text.ptr, text.len, word, strlen(word)) : NULL;
}

static qn_str from(qn_str text, const char *at)
{
    return (qn_str){.ptr = at, .len = (size_t)(text.ptr + text.len - at)};
}

/* What counts of a reply: what stands in its one block of code, or all of it where there is none,
 * or more than one. */
static qn_str essence(qn_str text)
{
    static const char fence[] = "```";
    const char *const open = find(text, fence);
    const qn_str behind = open != NULL ? from(text, open + 3) : (qn_str){0};
    const char *const line_end = find(behind, "\n"); /* "```json" */
    const qn_str inside = line_end != NULL ? from(text, line_end) : (qn_str){0};
    const char *const close = find(inside, fence);
    if (close == NULL || find(from(text, close + 3), fence) != NULL) {
        return trim(text);
    }
    return trim((qn_str){.ptr = line_end, .len = (size_t)(close - line_end)});
}

/* ---------------------------------------------------------------------------------------- JSON */

static bool is_same_value(const qn_json_node *a, const qn_json_node *b);

/* The value in @p object of the key that @p key is a string of; NULL: none. */
static const qn_json_node *look_up(const qn_json_node *object, const qn_json_node *key)
{
    const qn_json_node *candidate = object + 1;
    for (uint32_t i = 0; i < object->n_children; i++, candidate = qn_json_after(candidate + 1)) {
        if (qn_json_string_compare(candidate, key) == 0) {
            return candidate + 1;
        }
    }
    return NULL;
}

static bool is_same_list(const qn_json_node *a, const qn_json_node *b)
{
    const qn_json_node *x = a + 1;
    const qn_json_node *y = b + 1;
    for (uint32_t i = 0; i < a->n_children; i++, x = qn_json_after(x), y = qn_json_after(y)) {
        if (!is_same_value(x, y)) {
            return false;
        }
    }
    return true;
}

/* @p a has no key twice, so as many members that all are in @p b are all of @p b. */
static bool is_same_object(const qn_json_node *a, const qn_json_node *b)
{
    const qn_json_node *key = a + 1;
    for (uint32_t i = 0; i < a->n_children; i++, key = qn_json_after(key + 1)) {
        const qn_json_node *const value = look_up(b, key);
        if (value == NULL || !is_same_value(key + 1, value)) {
            return false;
        }
    }
    return true;
}

static bool is_same_number(qn_str a, qn_str b)
{
    qn_decimal x;
    qn_decimal y;
    return qn_decimal_last(&x, a) && qn_decimal_last(&y, b) && qn_decimal_equal(&x, &y);
}

static bool is_same_value(const qn_json_node *a, const qn_json_node *b)
{
    if (a->kind != b->kind || a->n_children != b->n_children) {
        return false;
    }
    switch (a->kind) {
    case QN_JSON_NUMBER: return is_same_number(a->text, b->text);
    case QN_JSON_STRING: return qn_json_string_compare(a, b) == 0;
    case QN_JSON_ARRAY: return is_same_list(a, b);
    case QN_JSON_OBJECT: return is_same_object(a, b);
    case QN_JSON_NULL:
    case QN_JSON_FALSE:
    case QN_JSON_TRUE: break;
    }
    return true;
}

/* Is {"name", "arguments"} all that a call should be? */
static bool is_call(const qn_json_node *node)
{
    const qn_json_node *const name = qn_json_member(node, "name");
    const qn_json_node *const arguments = qn_json_member(node, "arguments");
    return name != NULL && name->kind == QN_JSON_STRING && arguments != NULL &&
           arguments->kind == QN_JSON_OBJECT && node->n_children == 2;
}

static bool is_calls(const qn_json_node *node)
{
    if (node->kind != QN_JSON_ARRAY) {
        return is_call(node);
    }
    const qn_json_node *call = node + 1;
    for (uint32_t i = 0; i < node->n_children; i++, call = qn_json_after(call)) {
        if (!is_call(call)) {
            return false;
        }
    }
    return true;
}

/* One call may be expected without a list around it. */
static bool is_same_calls(const qn_json_node *expected, const qn_json_node *calls)
{
    if (expected->kind == QN_JSON_OBJECT) {
        return calls->n_children == 1 && is_same_value(expected, calls + 1);
    }
    return is_same_value(expected, calls);
}

static qn_status compare_json(bool *is_right, qn_score score, qn_str answer, qn_str said,
                              qn_error *err)
{
    qn_json_doc expected = {0};
    qn_json_doc seen = {0};
    qn_status status = QN_OK;
    QN_TRY(status, qn_json_doc_open(&expected, answer, "answer", err), fail);
    status = qn_json_doc_open_lax(&seen, said, "reply", err);
    if (status == QN_OK) {
        *is_right = score == QN_SCORE_JSON ? is_same_value(expected.nodes, seen.nodes)
                                           : is_same_calls(expected.nodes, seen.nodes);
    } else if (status == QN_E_FORMAT) { /* a model may write what it likes */
        status = QN_OK;
    }
fail:
    qn_json_doc_close(&expected);
    qn_json_doc_close(&seen);
    return status;
}

/* -------------------------------------------------------------------------------------- scores */

static qn_status check_json(qn_score score, qn_str answer, const char *what, qn_error *err)
{
    qn_json_doc doc;
    qn_status status = qn_json_doc_open(&doc, answer, what, err);
    if (status == QN_OK && score == QN_SCORE_TOOL_CALL && !is_calls(doc.nodes)) {
        char seen[64];
        qn_json_node_show(seen, sizeof seen, doc.nodes);
        status = qn_fail(err, QN_E_FORMAT, 0, __func__,
                         "%s: %s, {\"name\": TEXT, \"arguments\": OBJECT} or a list of such "
                         "expected",
                         what, seen);
    }
    qn_json_doc_close(&doc);
    return status;
}

qn_status qn_score_check(qn_score score, qn_str answer, const char *what, qn_error *err)
{
    qn_decimal number;
    const int shown = answer.len < 40 ? (int)answer.len : 40;
    switch (score) {
    case QN_SCORE_EXACT: break;
    case QN_SCORE_NUMBER:
        return qn_decimal_last(&number, answer)
                   ? QN_OK
                   : qn_fail(err, QN_E_FORMAT, 0, __func__, "%s: \"%.*s\", a number expected", what,
                             shown, answer.ptr);
    case QN_SCORE_CHOICE:
        return qn_choice_of(answer, 0) != 0
                   ? QN_OK
                   : qn_fail(err, QN_E_FORMAT, 0, __func__,
                             "%s: \"%.*s\", a letter A to Z expected", what, shown, answer.ptr);
    case QN_SCORE_JSON:
    case QN_SCORE_TOOL_CALL: return check_json(score, answer, what, err);
    }
    return QN_OK;
}

/* An answer that is none of the letters says that those are no choices. */
static bool is_same_choice(qn_str answer, qn_str said, uint32_t letters)
{
    const int expected = qn_choice_of(answer, 0);
    const bool is_offered = (letters >> (expected - 'A') & 1) != 0;
    return expected == qn_choice_of(said, is_offered ? letters : 0);
}

qn_status qn_score_reply(bool *is_right, qn_score score, qn_str answer, const qn_said *said,
                         qn_error *err)
{
    const qn_str text = said->text.len > 0 ? said->text : qn_str_of("");
    *is_right = false;
    switch (score) {
    case QN_SCORE_EXACT: *is_right = qn_str_equal(trim(answer), essence(text)); break;
    case QN_SCORE_NUMBER: *is_right = is_same_number(answer, text); break;
    case QN_SCORE_CHOICE: *is_right = is_same_choice(answer, text, said->letters); break;
    case QN_SCORE_JSON: return compare_json(is_right, score, answer, essence(text), err);
    case QN_SCORE_TOOL_CALL:
        return compare_json(is_right, score, answer,
                            said->calls.len > 0 ? said->calls : qn_str_of("[]"), err);
    }
    return QN_OK;
}

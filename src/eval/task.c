/* SPDX-License-Identifier: Apache-2.0 */
#include "eval/task.h"

#include "base/file.h"
#include "base/json_doc.h"
#include "base/try.h"
#include "eval/choice.h"

#include <errno.h>

enum { WHAT_BYTES = 300 };

/* A line while it is read. */
typedef struct line {
    qn_task_set *set;
    const qn_json_node *object;
    char what[WHAT_BYTES]; /* "FILE: line N" */
    uint32_t n_max;
    qn_problem problem;
    qn_error *err;
} line;

/* ----------------------------------------------------------------------------------- the arrays */

/* Room for one more element in an array that doubles. */
static qn_status grow(void **array, uint32_t n, uint32_t *capacity, size_t element_bytes,
                      qn_error *err)
{
    if (n < *capacity) {
        return QN_OK;
    }
    const uint32_t more = *capacity == 0 ? 16 : 2 * *capacity;
    void *const moved = realloc(*array, more * element_bytes);
    if (moved == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "tasks: no memory");
    }
    *array = moved;
    *capacity = more;
    return QN_OK;
}

void qn_task_set_deinit(qn_task_set *set)
{
    for (uint32_t i = 0; i < set->n_problems; i++) {
        free(set->problems[i].answer);
    }
    for (uint32_t i = 0; i < set->n_files; i++) {
        qn_buf_deinit(&set->files[i].text);
        free(set->files[i].path);
    }
    free(set->problems);
    free(set->tasks);
    free(set->files);
    *set = (qn_task_set){0};
}

/* --------------------------------------------------------------------------------------- fields */

/* "FILE: line N: FIELD: SEEN, EXPECTED expected". */
static qn_status refuse(const line *l, const char *field, const char *expected)
{
    char seen[64];
    qn_json_node_show(seen, sizeof seen, qn_json_member(l->object, field));
    return qn_fail(l->err, QN_E_FORMAT, 0, __func__, "%s: %s: %s, %s expected", l->what, field,
                   seen, expected);
}

/* Messages: each an object with a role.  What else is wrong the prompt format finds. */
static qn_status take_messages(line *l)
{
    const qn_json_node *const messages = qn_json_member(l->object, "messages");
    if (messages == NULL || messages->kind != QN_JSON_ARRAY || messages->n_children == 0) {
        return refuse(l, "messages", "a list of messages");
    }
    l->problem.messages = messages->text;
    return QN_OK;
}

/* Append what a message's content says: a text, or those of a list of parts. */
static qn_status append_content(qn_buf *out, const qn_json_node *content, qn_error *err)
{
    qn_status status = QN_OK;
    if (content != NULL && content->kind == QN_JSON_STRING) {
        return qn_json_string_append(out, content, err);
    }
    if (content == NULL || content->kind != QN_JSON_ARRAY) {
        return QN_OK;
    }
    const qn_json_node *part = content + 1;
    for (uint32_t i = 0; i < content->n_children && status == QN_OK; i++) {
        const qn_json_node *const text = qn_json_member(part, "text");
        const bool is_text = text != NULL && text->kind == QN_JSON_STRING;
        status = is_text ? qn_json_string_append(out, text, err) : QN_OK;
        part = qn_json_after(part);
    }
    return status;
}

/* What the last message of a user offers, where a letter is asked for. */
static qn_status take_letters(line *l)
{
    const qn_json_node *const messages = qn_json_member(l->object, "messages");
    const qn_json_node *question = NULL;
    qn_status status = QN_OK;
    qn_buf text;
    qn_buf_init(&text, QN_TASK_FILE_BYTES_MAX);
    if (l->problem.score != QN_SCORE_CHOICE) {
        return QN_OK;
    }
    const qn_json_node *message = messages + 1;
    for (uint32_t i = 0; i < messages->n_children; i++, message = qn_json_after(message)) {
        if (qn_json_string_is(qn_json_member(message, "role"), qn_str_of("user"))) {
            question = qn_json_member(message, "content");
        }
    }
    QN_TRY(status, append_content(&text, question, l->err), fail);
    l->problem.letters = qn_choices_offered(qn_buf_view(&text));
fail:
    qn_buf_deinit(&text);
    return status;
}

static qn_status take_tools(line *l)
{
    const qn_json_node *const tools = qn_json_member(l->object, "tools");
    if (tools != NULL && tools->kind != QN_JSON_ARRAY && tools->kind != QN_JSON_NULL) {
        return refuse(l, "tools", "a list of tools");
    }
    l->problem.tools = tools != NULL && tools->n_children > 0 ? tools->text : (qn_str){.ptr = NULL};
    return QN_OK;
}

/* Of a string what stands between the quotes, as written. */
static qn_status take_id(line *l)
{
    const qn_json_node *const id = qn_json_member(l->object, "id");
    if (id != NULL && id->kind != QN_JSON_STRING && id->kind != QN_JSON_NUMBER) {
        return refuse(l, "id", "a string or a number");
    }
    l->problem.id = id != NULL ? id->text : (qn_str){.ptr = NULL};
    if (id != NULL && id->kind == QN_JSON_STRING) {
        l->problem.id = (qn_str){.ptr = id->text.ptr + 1, .len = id->text.len - 2};
    }
    return QN_OK;
}

/* May it stand in a table on a terminal? */
static bool is_name(qn_str name)
{
    size_t i = 0;
    while (i < name.len && (uint8_t)name.ptr[i] >= ' ' && name.ptr[i] != '\x7f') {
        i++;
    }
    return i == name.len && name.len > 0 && name.len <= QN_TASK_NAME_BYTES_MAX;
}

/* The task by its name, added where it is new. */
static qn_status take_task(line *l)
{
    qn_task_set *const set = l->set;
    qn_status status = QN_OK;
    qn_buf name;
    qn_buf_init(&name, QN_TASK_FILE_BYTES_MAX);
    const qn_json_node *const node = qn_json_member(l->object, "task");
    if (node != NULL && node->kind == QN_JSON_STRING) {
        QN_TRY(status, qn_json_string_append(&name, node, l->err), fail);
    }
    if (!is_name(qn_buf_view(&name))) {
        status = refuse(l, "task", "a name of 1 to 64 bytes without control characters");
        goto fail;
    }
    uint32_t i = 0;
    while (i < set->n_tasks && !qn_str_equal(qn_str_of(set->tasks[i].name), qn_buf_view(&name))) {
        i++;
    }
    if (i == QN_TASKS_MAX) {
        status = qn_fail(l->err, QN_E_FORMAT, 0, __func__,
                         "%s: task: another than the %d before, at most so many expected", l->what,
                         QN_TASKS_MAX);
        goto fail;
    }
    if (i == set->n_tasks) {
        QN_TRY(status,
               grow((void **)&set->tasks, i, &set->tasks_capacity, sizeof *set->tasks, l->err),
               fail);
        set->tasks[i] = (qn_task){.n_problems = 0};
        memcpy(set->tasks[i].name, name.ptr, name.len);
        set->n_tasks++;
    }
    l->problem.i_task = i;
fail:
    qn_buf_deinit(&name);
    return status;
}

static qn_status take_score(line *l)
{
    const qn_json_node *const node = qn_json_member(l->object, "score");
    l->problem.score = qn_score_of_task(qn_str_of(l->set->tasks[l->problem.i_task].name));
    if (node == NULL || node->kind == QN_JSON_NULL) {
        return QN_OK;
    }
    for (int i = 0; i < QN_N_SCORES; i++) {
        if (qn_json_string_is(node, qn_str_of(qn_score_names[i]))) {
            l->problem.score = (qn_score)i;
            return QN_OK;
        }
    }
    return refuse(l, "score", "exact, number, choice, json or tool_call");
}

/* A string's text, or the JSON of another value, such as a number or an object. */
static qn_status take_answer(line *l)
{
    const qn_json_node *const node = qn_json_member(l->object, "answer");
    qn_status status = QN_OK;
    char what[WHAT_BYTES + 16];
    qn_buf answer;
    qn_buf_init(&answer, QN_TASK_FILE_BYTES_MAX);
    if (node == NULL || node->kind == QN_JSON_NULL) {
        return refuse(l, "answer", "what is right");
    }
    if (node->kind == QN_JSON_STRING) {
        QN_TRY(status, qn_json_string_append(&answer, node, l->err), fail);
    } else {
        QN_TRY(status, qn_buf_append(&answer, node->text.ptr, node->text.len, l->err), fail);
    }
    if (answer.len == 0) {
        status = refuse(l, "answer", "a text that is not empty");
        goto fail;
    }
    (void)snprintf(what, sizeof what, "%s: answer", l->what);
    QN_TRY(status, qn_score_check(l->problem.score, qn_buf_view(&answer), what, l->err), fail);
    l->problem.answer = answer.ptr;
    l->problem.answer_len = answer.len;
    return QN_OK;

fail:
    qn_buf_deinit(&answer);
    return status;
}

/* ---------------------------------------------------------------------------------------- lines */

/* Keep the problem unless there are enough of its task; takes its answer. */
static qn_status keep(line *l)
{
    qn_task_set *const set = l->set;
    qn_task *const task = &set->tasks[l->problem.i_task];
    qn_status status = QN_OK;
    if (l->n_max > 0 && task->n_problems == l->n_max) {
        free(l->problem.answer);
        return QN_OK;
    }
    if (set->n_problems == QN_PROBLEMS_MAX) {
        status = qn_fail(l->err, QN_E_FORMAT, 0, __func__,
                         "%s: a problem too many, at most %d expected", l->what, QN_PROBLEMS_MAX);
        goto fail;
    }
    QN_TRY(status,
           grow((void **)&set->problems, set->n_problems, &set->problems_capacity,
                sizeof *set->problems, l->err),
           fail);
    set->problems[set->n_problems++] = l->problem;
    task->n_problems++;
    return QN_OK;

fail:
    free(l->problem.answer);
    return status;
}

/* Open a line's JSON.  Its only line is one of a file: "F: line 7, column 3" of "line 1". */
static qn_status open_line(qn_json_doc *doc, const line *l, qn_str text)
{
    static const char of_json[] = ": line 1, ";
    qn_error why = {0};
    const qn_status status = qn_json_doc_open(doc, text, l->what, &why);
    const char *const place = strstr(why.text, of_json);
    if (status == QN_OK) {
        return QN_OK;
    }
    return qn_fail(l->err, status, why.sys, why.where, "%s%s%s", l->what,
                   place != NULL ? ", " : ": ", place != NULL ? place + strlen(of_json) : why.text);
}

static qn_status read_line(line *l, qn_str text)
{
    qn_status status = QN_OK;
    qn_json_doc doc;
    QN_TRY(status, open_line(&doc, l, text), fail);
    l->object = doc.nodes;
    if (doc.nodes->kind != QN_JSON_OBJECT) {
        char seen[64];
        qn_json_node_show(seen, sizeof seen, doc.nodes);
        status =
            qn_fail(l->err, QN_E_FORMAT, 0, __func__, "%s: %s, an object expected", l->what, seen);
        goto fail;
    }
    QN_TRY(status, take_task(l), fail);
    QN_TRY(status, take_messages(l), fail);
    QN_TRY(status, take_tools(l), fail);
    QN_TRY(status, take_id(l), fail);
    QN_TRY(status, take_score(l), fail);
    QN_TRY(status, take_letters(l), fail);
    QN_TRY(status, take_answer(l), fail);
    QN_TRY(status, keep(l), fail);
fail:
    qn_json_doc_close(&doc);
    return status;
}

static bool is_blank(qn_str text)
{
    size_t i = 0;
    while (i < text.len && (text.ptr[i] == ' ' || text.ptr[i] == '\t' || text.ptr[i] == '\r')) {
        i++;
    }
    return i == text.len;
}

/* The lines of the last file. */
static qn_status read_lines(qn_task_set *set, uint32_t n_max, qn_error *err)
{
    const qn_task_file *const file = &set->files[set->n_files - 1];
    const char *at = file->text.len > 0 ? file->text.ptr : "";
    const char *const end = at + file->text.len;
    uint32_t number = 0;
    bool has_problem = false;
    while (at < end) {
        const char *const newline = memchr(at, '\n', (size_t)(end - at));
        const qn_str text = {.ptr = at, .len = (size_t)((newline != NULL ? newline : end) - at)};
        at += text.len + 1;
        number++;
        if (is_blank(text)) {
            continue;
        }
        line l = {.set = set,
                  .n_max = n_max,
                  .problem = {.i_file = set->n_files - 1, .line = number},
                  .err = err};
        (void)snprintf(l.what, sizeof l.what, "%.250s: line %u", file->path, number);
        const qn_status status = read_line(&l, text);
        if (status < 0) {
            return status;
        }
        has_problem = true;
    }
    return has_problem ? QN_OK
                       : qn_fail(err, QN_E_FORMAT, 0, __func__,
                                 "%.250s: no problem, a JSON object a line expected", file->path);
}

/* A new last file, whose text is still empty. */
static qn_status add_file(qn_task_set *set, const char *path, qn_error *err)
{
    const qn_status status =
        grow((void **)&set->files, set->n_files, &set->files_capacity, sizeof *set->files, err);
    if (status < 0) {
        return status;
    }
    qn_task_file *const file = &set->files[set->n_files];
    *file = (qn_task_file){.path = strdup(path)};
    if (file->path == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "tasks: no memory");
    }
    qn_buf_init(&file->text, QN_TASK_FILE_BYTES_MAX);
    set->n_files++;
    return QN_OK;
}

static qn_status read_file(qn_task_set *set, uint32_t n_max, qn_error *err)
{
    qn_task_file *const file = &set->files[set->n_files - 1];
    qn_sha256_hex(file->sha256, qn_buf_view(&file->text));
    return read_lines(set, n_max, err);
}

qn_status qn_task_set_load(qn_task_set *set, const char *path, uint32_t n_max, qn_error *err)
{
    qn_status status = QN_OK;
    QN_TRY(status, add_file(set, path, err), fail);
    QN_TRY(status, qn_file_read(&set->files[set->n_files - 1].text, path, err), fail);
    QN_TRY(status, read_file(set, n_max, err), fail);
fail:
    return status;
}

qn_status qn_task_set_add(qn_task_set *set, const char *path, qn_str text, uint32_t n_max,
                          qn_error *err)
{
    qn_status status = QN_OK;
    QN_TRY(status, add_file(set, path, err), fail);
    QN_TRY(status, qn_buf_append(&set->files[set->n_files - 1].text, text.ptr, text.len, err),
           fail);
    QN_TRY(status, read_file(set, n_max, err), fail);
fail:
    return status;
}

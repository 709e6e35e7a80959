/* SPDX-License-Identifier: Apache-2.0 */
#include "dataset.h"

#include "base/json.h"
#include "base/try.h"

#include <errno.h>
#include <math.h>

enum { WHAT_BYTES = 300 };
#define TIME_MAX_S 1e9

/* A file while it is read. */
typedef struct reader {
    bench_dataset *set;
    bench_file_form form;
    const char *path;
    const char *at, *end;
    uint32_t line;            /* that at stands on, from 1 */
    double first_ms, last_ms; /* timestamps */
    qn_error *err;
} reader;

/* A record while it is read. */
typedef struct record {
    reader *reader;
    const qn_json_node *object;
    char what[WHAT_BYTES]; /* "PATH: line N" */
    bench_entry entry;
} record;

/* --------------------------------------------------------------------------------------- fields */

static qn_status refuse_value(const record *r, const char *field, const qn_json_node *value,
                              const char *expected)
{
    char seen[64];
    qn_json_node_show(seen, sizeof seen, value);
    return qn_fail(r->reader->err, QN_E_FORMAT, 0, __func__, "%s: %s: %s, %s expected", r->what,
                   field, seen, expected);
}

static qn_status refuse(const record *r, const char *field, const char *expected)
{
    return refuse_value(r, field, qn_json_member(r->object, field), expected);
}

/* A member that is there and not null; else NULL. */
static const qn_json_node *member(const record *r, const char *field)
{
    const qn_json_node *const value = qn_json_member(r->object, field);
    return value == NULL || value->kind == QN_JSON_NULL ? NULL : value;
}

/* A number's value; false where it is none, or not finite. */
static bool number_of(double *out, const qn_json_node *node)
{
    char text[64];
    if (node == NULL || node->kind != QN_JSON_NUMBER || node->text.len >= sizeof text) {
        return false;
    }
    memcpy(text, node->text.ptr, node->text.len);
    text[node->text.len] = '\0';
    *out = strtod(text, NULL);
    return isfinite(*out);
}

/* A whole number of a range; false where it is none. */
static bool whole_of(double *out, const qn_json_node *node, double min, double max)
{
    return number_of(out, node) && *out >= min && *out <= max && *out == floor(*out);
}

static qn_status take_length(uint32_t *out, const record *r, const char *field)
{
    double value = 0.0;
    if (!whole_of(&value, qn_json_member(r->object, field), 1.0, BENCH_LENGTH_MAX)) {
        return refuse(r, field, "a number of tokens, 1 to 10000000,");
    }
    *out = (uint32_t)value;
    return QN_OK;
}

/* Ids of blocks by the hash of their text: they may be numbers of any size, or strings. */
static qn_status take_hashes(record *r)
{
    bench_dataset *const set = r->reader->set;
    const qn_json_node *const list = member(r, "hash_ids");
    const uint32_t n_max = (r->entry.n_input - 1) / BENCH_BLOCK_TOKENS + 1;
    r->entry.first_hash = set->n_hashes;
    if (list == NULL) {
        return QN_OK;
    }
    if (list->kind != QN_JSON_ARRAY) {
        return refuse(r, "hash_ids", "a list of ids");
    }
    if (list->n_children > n_max) {
        return qn_fail(r->reader->err, QN_E_FORMAT, 0, __func__,
                       "%s: hash_ids: %u blocks of %d, at most the %u of input_length %u expected",
                       r->what, list->n_children, BENCH_BLOCK_TOKENS, n_max, r->entry.n_input);
    }
    while (set->n_hashes + list->n_children > set->hashes_capacity) {
        const uint64_t capacity = set->hashes_capacity == 0 ? 256 : 2 * set->hashes_capacity;
        uint64_t *const hashes = realloc(set->hashes, capacity * sizeof *hashes);
        if (hashes == NULL) {
            return qn_fail(r->reader->err, QN_E_NOMEM, ENOMEM, __func__, "%s: no memory", r->what);
        }
        set->hashes = hashes;
        set->hashes_capacity = capacity;
    }
    const qn_json_node *item = list + 1;
    for (uint32_t i = 0; i < list->n_children; i++, item = qn_json_after(item)) {
        if (item->kind != QN_JSON_NUMBER && item->kind != QN_JSON_STRING) {
            return refuse_value(r, "hash_ids", item, "an id");
        }
        set->hashes[set->n_hashes++] = qn_str_hash(item->text);
    }
    r->entry.n_hashes = list->n_children;
    return QN_OK;
}

static qn_status take_ids(record *r, const char *field, const qn_json_node *list)
{
    const qn_json_node *item = list + 1;
    if (list->kind != QN_JSON_ARRAY || list->n_children == 0 ||
        list->n_children > BENCH_LENGTH_MAX) {
        return refuse(r, field, "a list of token ids");
    }
    for (uint32_t i = 0; i < list->n_children; i++, item = qn_json_after(item)) {
        double id = 0.0;
        if (!whole_of(&id, item, 0.0, INT32_MAX)) {
            return refuse_value(r, field, item, "a token id");
        }
    }
    r->entry.form = BENCH_PROMPT_IDS;
    r->entry.prompt = list->text;
    r->entry.n_input = list->n_children;
    return QN_OK;
}

static qn_status take_messages(record *r, const qn_json_node *list)
{
    const qn_json_node *item = list + 1;
    if (list->kind != QN_JSON_ARRAY || list->n_children == 0) {
        return refuse(r, "messages", "a list of messages");
    }
    for (uint32_t i = 0; i < list->n_children; i++, item = qn_json_after(item)) {
        if (item->kind != QN_JSON_OBJECT) {
            return refuse_value(r, "messages", item, "a message");
        }
    }
    r->entry.form = BENCH_PROMPT_MESSAGES;
    r->entry.prompt = list->text;
    return QN_OK;
}

static qn_status take_prompt(record *r)
{
    static const char *const fields[] = {"prompt", "messages", "ids", "input_length"};
    const qn_json_node *values[4];
    uint32_t n = 0;
    for (uint32_t i = 0; i < 4; i++) {
        values[i] = member(r, fields[i]);
        n += i < 3 && values[i] != NULL ? 1 : 0; /* traces tell the length of a prompt, too */
    }
    if (n > 1 || (n == 0 && values[3] == NULL)) {
        return qn_fail(r->reader->err, QN_E_FORMAT, 0, __func__,
                       "%s: prompt, messages, ids, input_length: %s, one of them expected", r->what,
                       n > 1 ? "several" : "none");
    }
    if (values[0] != NULL && values[0]->kind == QN_JSON_STRING) {
        r->entry.form = BENCH_PROMPT_TEXT;
        r->entry.prompt = values[0]->text;
        return values[0]->text.len > 2 ? QN_OK : refuse(r, "prompt", "a text that is not empty");
    }
    if (values[0] != NULL && values[0]->kind != QN_JSON_ARRAY) {
        return refuse(r, "prompt", "a text or a list of token ids");
    }
    if (values[0] != NULL || values[2] != NULL) {
        const uint32_t i = values[0] != NULL ? 0 : 2;
        return take_ids(r, fields[i], values[i]);
    }
    if (values[1] != NULL) {
        return take_messages(r, values[1]);
    }
    r->entry.form = BENCH_PROMPT_LENGTH;
    const qn_status status = take_length(&r->entry.n_input, r, "input_length");
    return status == QN_OK ? take_hashes(r) : status;
}

/* The first that is there; vLLM writes one, Mooncake another. */
static qn_status take_output(record *r)
{
    static const char *const fields[] = {"output_length", "output_tokens", "max_tokens"};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        if (member(r, fields[i]) != NULL) {
            return take_length(&r->entry.n_output, r, fields[i]);
        }
    }
    return QN_OK;
}

static qn_status take_time(record *r)
{
    reader *const file = r->reader;
    double ms = 0.0;
    r->entry.at_s = (double)NAN;
    if (file->form != BENCH_FILE_TRACE) {
        return QN_OK;
    }
    if (!number_of(&ms, qn_json_member(r->object, "timestamp"))) {
        return refuse(r, "timestamp", "milliseconds");
    }
    const bool is_first = file->set->n_entries == 0;
    if (!is_first && ms < file->last_ms) {
        return qn_fail(file->err, QN_E_FORMAT, 0, __func__,
                       "%s: timestamp: %.17g, at least the %.17g before it expected", r->what, ms,
                       file->last_ms);
    }
    file->first_ms = is_first ? ms : file->first_ms;
    file->last_ms = ms;
    r->entry.at_s = (ms - file->first_ms) * 1e-3;
    if (!(r->entry.at_s <= TIME_MAX_S)) {
        return refuse(r, "timestamp", "at most 1e9 s behind the first");
    }
    return QN_OK;
}

/* ------------------------------------------------------------------------------------- ShareGPT */

static bool is_asker(const qn_json_node *turn)
{
    const qn_json_node *const from = qn_json_member(turn, "from");
    return qn_json_string_is(from, qn_str_of("human")) ||
           qn_json_string_is(from, qn_str_of("user"));
}

/* The first question and what follows it; *is_there where both are texts. */
static qn_status take_conversation(bool *is_there, record *r)
{
    const qn_json_node *const list = qn_json_member(r->object, "conversations");
    const qn_json_node *asked = NULL;
    *is_there = false;
    r->entry.at_s = (double)NAN;
    if (list == NULL || list->kind != QN_JSON_ARRAY) {
        return refuse(r, "conversations", "a list of turns");
    }
    const qn_json_node *turn = list + 1;
    for (uint32_t i = 0; i < list->n_children; i++, turn = qn_json_after(turn)) {
        const qn_json_node *const value = qn_json_member(turn, "value");
        if (value == NULL || value->kind != QN_JSON_STRING) {
            return refuse_value(r, "conversations: value", value, "a text");
        }
        if (asked != NULL) {
            r->entry.prompt = asked->text;
            r->entry.answer = value->text;
            *is_there = true;
            return QN_OK;
        }
        asked = is_asker(turn) ? value : NULL;
    }
    return QN_OK;
}

/* -------------------------------------------------------------------------------------- records */

static qn_status keep(const record *r)
{
    bench_dataset *const set = r->reader->set;
    if (set->n_entries == set->capacity) {
        const uint64_t capacity = set->capacity == 0 ? 64 : 2 * set->capacity;
        bench_entry *const entries = realloc(set->entries, capacity * sizeof *entries);
        if (entries == NULL) {
            return qn_fail(r->reader->err, QN_E_NOMEM, ENOMEM, __func__, "%s: no memory", r->what);
        }
        set->entries = entries;
        set->capacity = capacity;
    }
    set->entries[set->n_entries++] = r->entry;
    return QN_OK;
}

/* Parse a record.  Lines of an error count from the record's first. */
static qn_status open_record(qn_json_doc *doc, const record *r, qn_str text)
{
    qn_error why = {0};
    unsigned line = 0;
    int n_read = 0;
    const qn_status status = qn_json_doc_open(doc, text, "", &why);
    if (status == QN_E_FORMAT && sscanf(why.text, ": line %u%n", &line, &n_read) == 1) {
        return qn_fail(r->reader->err, status, 0, why.where, "%s: line %u%s", r->reader->path,
                       r->entry.line + line - 1, why.text + n_read);
    }
    return status == QN_OK
               ? QN_OK
               : qn_fail(r->reader->err, status, why.sys, why.where, "%s%s", r->what, why.text);
}

static qn_status read_record(reader *file, qn_str text)
{
    record r = {.reader = file, .entry.line = file->line};
    qn_json_doc doc = {0};
    qn_status status = QN_OK;
    bool is_there = true;
    (void)snprintf(r.what, sizeof r.what, "%.250s: line %u", file->path, file->line);
    QN_TRY(status, open_record(&doc, &r, text), fail);
    r.object = doc.nodes;
    if (doc.nodes->kind != QN_JSON_OBJECT) {
        char seen[64];
        qn_json_node_show(seen, sizeof seen, doc.nodes);
        status = qn_fail(file->err, QN_E_FORMAT, 0, __func__, "%s: %s, an object expected", r.what,
                         seen);
        goto fail;
    }
    if (file->form == BENCH_FILE_SHAREGPT) {
        QN_TRY(status, take_conversation(&is_there, &r), fail);
    } else {
        QN_TRY(status, take_prompt(&r), fail);
        QN_TRY(status, take_output(&r), fail);
        QN_TRY(status, take_time(&r), fail);
    }
    file->set->n_skipped += is_there ? 0 : 1;
    if (is_there) {
        QN_TRY(status, keep(&r), fail);
    }
fail:
    qn_json_doc_close(&doc);
    return status;
}

/* White space, which may have lines. */
static void skip_space(reader *file)
{
    for (; file->at < file->end && strchr(" \t\r\n", *file->at) != NULL && *file->at != '\0';
         file->at++) {
        file->line += *file->at == '\n' ? 1 : 0;
    }
}

static uint32_t count_lines(qn_str text)
{
    uint32_t n = 0;
    for (size_t i = 0; i < text.len; i++) {
        n += text.ptr[i] == '\n' ? 1 : 0;
    }
    return n;
}

/* The element of a list that begins here: up to its comma, or the list's end.  By brackets and
 * quotes alone, since a whole file of conversations has more values than are parsed at once; what
 * is in it the parser judges. */
static qn_str take_element(reader *file)
{
    const char *const begin = file->at;
    const char *c = begin;
    uint32_t depth = 0;
    bool is_string = false;
    for (; c < file->end; c++) {
        if (is_string) {
            is_string = *c != '"';
            c += *c == '\\' && c + 1 < file->end ? 1 : 0;
        } else if (*c == '"') {
            is_string = true;
        } else if (*c == '{' || *c == '[') {
            depth++;
        } else if (depth == 0 && (*c == ',' || *c == ']')) {
            break;
        } else if (*c == '}' || *c == ']') {
            depth -= depth > 0 ? 1 : 0;
        }
    }
    file->at = c;
    return (qn_str){.ptr = begin, .len = (size_t)(c - begin)};
}

static qn_str take_line(reader *file)
{
    const char *const begin = file->at;
    const char *const newline = memchr(begin, '\n', (size_t)(file->end - begin));
    file->at = newline != NULL ? newline : file->end;
    return (qn_str){.ptr = begin, .len = (size_t)(file->at - begin)};
}

/* Behind an element: a comma with another behind it, or the end of the list and of the file. */
static qn_status end_element(reader *file, bool *is_last)
{
    const char *expected = NULL;
    skip_space(file);
    *is_last = file->at == file->end || *file->at == ']';
    if (file->at == file->end) {
        expected = "',' or ']' behind it";
    } else {
        file->at++;
        skip_space(file);
        expected = *is_last && file->at < file->end ? "the end behind ']'" : NULL;
    }
    return expected == NULL ? QN_OK
                            : qn_fail(file->err, QN_E_FORMAT, 0, __func__,
                                      "%.250s: line %u: %s, %s expected", file->path, file->line,
                                      file->at == file->end ? "the end" : "more", expected);
}

/* A line, or an element of the list with the comma behind it. */
static qn_status read_next(reader *file, bool is_list, bool *is_last)
{
    const qn_str text = is_list ? take_element(file) : take_line(file);
    qn_status status = read_record(file, text);
    file->line += count_lines(text);
    if (status == QN_OK && is_list) {
        status = end_element(file, is_last);
    }
    skip_space(file);
    return status;
}

static qn_status read_records(reader *file, bool is_list, uint64_t n_max)
{
    bool is_last = is_list && file->at < file->end && *file->at == ']';
    qn_status status = QN_OK;
    while (status == QN_OK && !is_last && file->at < file->end &&
           (n_max == 0 || file->set->n_entries < n_max)) {
        status = read_next(file, is_list, &is_last);
    }
    if (status == QN_OK && file->set->n_entries == 0) {
        status = qn_fail(file->err, QN_E_FORMAT, 0, __func__, "%.250s: no request, %s expected",
                         file->path,
                         file->form == BENCH_FILE_SHAREGPT ? "conversations with an answer"
                                                           : "a JSON object a line");
    }
    return status;
}

qn_status bench_dataset_read(bench_dataset *out, bench_file_form form, qn_str text,
                             const char *path, uint64_t n_max, qn_error *err)
{
    static const char mark[] = "\xef\xbb\xbf";
    const size_t n_skipped = qn_str_begins(text, mark) ? strlen(mark) : 0;
    const char *const begin = text.len > 0 ? text.ptr : "";
    reader file = {.set = out,
                   .form = form,
                   .path = path,
                   .at = begin + n_skipped,
                   .end = begin + text.len,
                   .line = 1,
                   .err = err};
    skip_space(&file);
    const bool is_list = form == BENCH_FILE_SHAREGPT && file.at < file.end && *file.at == '[';
    if (is_list) {
        file.at++;
        skip_space(&file);
    }
    return read_records(&file, is_list, n_max);
}

void bench_dataset_deinit(bench_dataset *dataset)
{
    free(dataset->entries);
    free(dataset->hashes);
    *dataset = (bench_dataset){0};
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "answer.h"

#include "base/json_doc.h"
#include "base/try.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>

/* The first fault stands; what follows is not read. */
QN_PRINTF(3, 4)
static void fault(bench_answer *answer, bench_end kind, const char *format, ...)
{
    if (answer->fault != BENCH_DONE) {
        return;
    }
    va_list args;
    va_start(args, format);
    (void)vsnprintf(answer->message, sizeof answer->message, format, args);
    va_end(args);
    answer->fault = kind;
}

/* Malformed: what an event has at @p where. */
static void odd_value(bench_answer *answer, const char *where, const qn_json_node *seen,
                      const char *expected)
{
    char shown[48];
    qn_json_node_show(shown, sizeof shown, seen);
    fault(answer, BENCH_MALFORMED, "event %llu: %s: %s, %s expected",
          (unsigned long long)answer->n_events, where, shown, expected);
}

static bool is_kind(const qn_json_node *node, qn_json_kind kind)
{
    return node != NULL && node->kind == kind;
}

static bool is_absent(const qn_json_node *node)
{
    return node == NULL || node->kind == QN_JSON_NULL;
}

/* -------------------------------------------------------------------------------------- tokens */

/* Some text of the answer, or null; a string that is not empty brought tokens. */
static qn_status take_text(bench_answer *answer, const char *where, const qn_json_node *text,
                           qn_error *err)
{
    enum { N_QUOTES = 2 };
    if (is_absent(text)) {
        return QN_OK;
    }
    if (text->kind != QN_JSON_STRING) {
        odd_value(answer, where, text, "a string");
        return QN_OK;
    }
    if (text->text.len <= N_QUOTES) {
        return QN_OK;
    }
    answer->has_tokens = true;
    return answer->record->call.keeps_text ? qn_json_string_append(&answer->text, text, err)
                                           : QN_OK;
}

static qn_status take_function(bench_answer *answer, const qn_json_node *function, qn_error *err)
{
    qn_status status = QN_OK;
    QN_TRY(status, take_text(answer, "function.name", qn_json_member(function, "name"), err), done);
    QN_TRY(status,
           take_text(answer, "function.arguments", qn_json_member(function, "arguments"), err),
           done);
done:
    return status;
}

/* A part of a message of chat. */
static qn_status take_delta(bench_answer *answer, const qn_json_node *delta, qn_error *err)
{
    qn_status status = QN_OK;
    /* Some servers send thinking under both of its names. */
    const qn_json_node *thinking = qn_json_member(delta, "reasoning_content");
    thinking = is_absent(thinking) ? qn_json_member(delta, "reasoning") : thinking;
    QN_TRY(status, take_text(answer, "reasoning", thinking, err), done);
    QN_TRY(status, take_text(answer, "content", qn_json_member(delta, "content"), err), done);
    QN_TRY(status, take_text(answer, "refusal", qn_json_member(delta, "refusal"), err), done);
    QN_TRY(status, take_function(answer, qn_json_member(delta, "function_call"), err), done);
    const qn_json_node *const calls = qn_json_member(delta, "tool_calls");
    if (is_absent(calls)) {
        return QN_OK;
    }
    if (calls->kind != QN_JSON_ARRAY) {
        odd_value(answer, "tool_calls", calls, "a list");
        return QN_OK;
    }
    const qn_json_node *call = calls + 1;
    for (uint32_t i = 0; i < calls->n_children; i++, call = qn_json_after(call)) {
        QN_TRY(status, take_function(answer, qn_json_member(call, "function"), err), done);
    }
done:
    return status;
}

static qn_status take_finish(bench_answer *answer, const qn_json_node *finish, qn_error *err)
{
    if (is_absent(finish)) {
        return QN_OK;
    }
    if (finish->kind != QN_JSON_STRING) {
        odd_value(answer, "finish_reason", finish, "a string");
        return QN_OK;
    }
    qn_buf name = {.bytes_max = BENCH_EVENT_BYTES_MAX};
    const qn_status status = qn_json_string_append(&name, finish, err);
    if (status == QN_OK && name.len > 0) {
        bench_record *const record = answer->record;
        (void)snprintf(record->finish, sizeof record->finish, "%s", name.ptr);
        qn_text_clean(record->finish); /* it may have been cut within a character */
    }
    qn_buf_deinit(&name);
    return status;
}

static qn_status take_choice(bench_answer *answer, const qn_json_node *choice, qn_error *err)
{
    qn_status status = QN_OK;
    if (answer->api == BENCH_CHAT) {
        const qn_json_node *delta = qn_json_member(choice, "delta");
        delta = delta == NULL ? qn_json_member(choice, "message") : delta;
        if (!is_kind(delta, QN_JSON_NULL) && !is_kind(delta, QN_JSON_OBJECT)) {
            odd_value(answer, "choices[].delta", delta, "an object");
            return QN_OK;
        }
        QN_TRY(status, take_delta(answer, delta, err), done);
    } else {
        const qn_json_node *const text = qn_json_member(choice, "text");
        if (text == NULL) {
            odd_value(answer, "choices[].text", text, "a string");
        }
        QN_TRY(status, take_text(answer, "choices[].text", text, err), done);
    }
    status = take_finish(answer, qn_json_member(choice, "finish_reason"), err);
done:
    return status;
}

/* The event brought tokens. */
static qn_status note_chunk(bench_answer *answer, qn_error *err)
{
    bench_record *const record = answer->record;
    if (record->n_chunks == answer->chunks_max) {
        enum { CHUNKS_MIN = 64 };
        const uint32_t n = answer->chunks_max > 0 ? answer->chunks_max * 2 : CHUNKS_MIN;
        double *const more = realloc(record->chunk_s, n * sizeof *more);
        if (more == NULL) {
            return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "answer: no memory for %u chunks", n);
        }
        record->chunk_s = more;
        answer->chunks_max = n;
    }
    record->chunk_s[record->n_chunks++] = answer->at_s;
    if (record->n_chunks == 1) {
        record->first_s = answer->at_s;
    }
    record->last_s = answer->at_s;
    return QN_OK;
}

/* --------------------------------------------------------------------------------------- usage */

/* Fault @p answer's usage where nothing was wrong with it so far. */
QN_PRINTF(2, 3)
static void fault_usage(bench_answer *answer, const char *format, ...)
{
    if (answer->usage_fault[0] != '\0') {
        return;
    }
    va_list args;
    va_start(args, format);
    (void)vsnprintf(answer->usage_fault, sizeof answer->usage_fault, format, args);
    va_end(args);
}

/* A number of tokens; false where there is none. */
static bool take_count(bench_answer *answer, uint32_t *out, const qn_json_node *object,
                       const char *key)
{
    const qn_json_node *const node = qn_json_member(object, key);
    if (is_absent(node)) {
        return false;
    }
    uint64_t value = 0;
    bool is_whole = node->kind == QN_JSON_NUMBER;
    for (size_t i = 0; i < node->text.len && is_whole; i++) {
        const char c = node->text.ptr[i];
        is_whole = c >= '0' && c <= '9' && value <= UINT32_MAX;
        value = value * 10 + (uint64_t)(c - '0');
    }
    if (!is_whole || value > UINT32_MAX) {
        char shown[32];
        qn_json_node_show(shown, sizeof shown, node);
        fault_usage(answer, "%s: %s, a whole number expected", key, shown);
        return false;
    }
    *out = (uint32_t)value;
    return true;
}

/* Of several the last one counts: some servers send one with each chunk. */
static void take_usage(bench_answer *answer, const qn_json_node *usage)
{
    bench_record *const record = answer->record;
    answer->usage_fault[0] = '\0';
    record->has_usage = true;
    if (usage->kind != QN_JSON_OBJECT) {
        fault_usage(answer, "usage: no object");
        return;
    }
    record->n_prompt = record->n_output = record->n_cached = record->n_reasoning = 0;
    if (!take_count(answer, &record->n_prompt, usage, "prompt_tokens")) {
        fault_usage(answer, "prompt_tokens: nothing, a whole number expected");
    }
    if (!take_count(answer, &record->n_output, usage, "completion_tokens")) {
        fault_usage(answer, "completion_tokens: nothing, a whole number expected");
    }
    uint32_t n_total = 0;
    const uint64_t n_sum = (uint64_t)record->n_prompt + record->n_output;
    if (take_count(answer, &n_total, usage, "total_tokens") && n_total != n_sum) {
        fault_usage(answer, "total_tokens: %u, prompt and completion are %llu", n_total,
                    (unsigned long long)n_sum);
    }
    const qn_json_node *const of_prompt = qn_json_member(usage, "prompt_tokens_details");
    const qn_json_node *const of_output = qn_json_member(usage, "completion_tokens_details");
    record->has_cached = take_count(answer, &record->n_cached, of_prompt, "cached_tokens");
    if (record->n_cached > record->n_prompt) {
        fault_usage(answer, "cached_tokens: %u of a prompt of %u", record->n_cached,
                    record->n_prompt);
    }
    (void)take_count(answer, &record->n_reasoning, of_output, "reasoning_tokens");
    if (record->n_reasoning > record->n_output) {
        fault_usage(answer, "reasoning_tokens: %u of a completion of %u", record->n_reasoning,
                    record->n_output);
    }
}

/* What llama.cpp's server tells beside, or instead of, the details of usage. */
static void take_timings(bench_answer *answer, const qn_json_node *timings)
{
    bench_record *const record = answer->record;
    uint32_t n = 0;
    if (record->has_usage && !record->has_cached && take_count(answer, &n, timings, "cache_n") &&
        n <= record->n_prompt) {
        record->n_cached = n;
        record->has_cached = true;
    }
}

/* Does the usage that came fit the request and what came?  Where not, usage_fault says so. */
static void check_usage(bench_answer *answer)
{
    const bench_record *const record = answer->record;
    const uint32_t n_output = record->n_output;
    const uint32_t n_asked = record->call.n_output;
    if (n_output == 0 && record->n_chunks > 0) {
        fault_usage(answer, "completion_tokens: 0, and text came in %u chunks", record->n_chunks);
    }
    if (n_asked > 0 && n_output > n_asked) {
        fault_usage(answer, "completion_tokens: %u, at most %u were asked for", n_output, n_asked);
    }
    if (record->call.is_exact && strcmp(record->finish, "length") == 0 && n_output != n_asked) {
        fault_usage(answer, "completion_tokens: %u with finish_reason length, %u expected",
                    n_output, n_asked);
    }
}

/* -------------------------------------------------------------------------------------- events */

/* An error in an answer, or in the body of a refusal: its own words. */
static qn_status show_error(char *out, size_t out_bytes, const qn_json_node *object,
                            const char *text, qn_error *err)
{
    const qn_json_node *node = qn_json_member(object, "error");
    node = is_absent(node) ? object : node;
    for (int depth = 0; depth < 2 && is_kind(node, QN_JSON_OBJECT); depth++) {
        const qn_json_node *const message = qn_json_member(node, "message");
        node = message != NULL ? message : qn_json_member(node, "detail");
    }
    if (!is_kind(node, QN_JSON_STRING)) {
        (void)snprintf(out, out_bytes, "%s", text);
        return QN_OK;
    }
    qn_buf words = {.bytes_max = BENCH_EVENT_BYTES_MAX};
    const qn_status status = qn_json_string_append(&words, node, err);
    (void)snprintf(out, out_bytes, "%s", words.len > 0 ? words.ptr : text);
    qn_buf_deinit(&words);
    return status;
}

static bool tells_error(const qn_json_node *object)
{
    return !is_absent(qn_json_member(object, "error")) ||
           qn_json_string_is(qn_json_member(object, "object"), qn_str_of("error"));
}

static qn_status take_choices(bench_answer *answer, const qn_json_node *choices, qn_error *err)
{
    qn_status status = QN_OK;
    if (choices->kind != QN_JSON_ARRAY) {
        odd_value(answer, "choices", choices, "a list");
        return QN_OK;
    }
    const qn_json_node *choice = choices + 1;
    for (uint32_t i = 0; i < choices->n_children && status == QN_OK; i++) {
        status = take_choice(answer, choice, err);
        choice = qn_json_after(choice);
    }
    return status;
}

/* One parsed event of ours. */
static qn_status take_object(bench_answer *answer, const qn_json_node *object, qn_error *err)
{
    qn_status status = QN_OK;
    answer->has_tokens = false;
    const qn_json_node *const choices = qn_json_member(object, "choices");
    const qn_json_node *const usage = qn_json_member(object, "usage");
    if (choices == NULL && is_absent(usage)) {
        if (!answer->is_named) { /* else it is one beside those of the API, such as "ping" */
            odd_value(answer, "choices", choices, "a list");
        }
        return QN_OK;
    }
    if (choices != NULL && choices->kind != QN_JSON_NULL) {
        QN_TRY(status, take_choices(answer, choices, err), done);
    }
    if (usage != NULL && usage->kind != QN_JSON_NULL) {
        take_usage(answer, usage);
    }
    take_timings(answer, qn_json_member(object, "timings"));
    if (answer->has_tokens && answer->fault == BENCH_DONE) {
        status = note_chunk(answer, err);
    }
done:
    return status;
}

/* "[DONE]", and blanks behind it. */
static bool is_done_mark(qn_str data)
{
    while (data.len > 0 && data.ptr[data.len - 1] == ' ') {
        data.len--;
    }
    return qn_str_equal(data, qn_str_of("[DONE]"));
}

/* The four digits of "\\u1234" at @p at; -1: it is none. */
static int escaped_unit(const char *at, const char *end)
{
    int unit = 0;
    if (end - at < 6 || at[0] != '\\' || at[1] != 'u') {
        return -1;
    }
    for (int i = 2; i < 6; i++) {
        const char c = (char)(at[i] | 0x20);
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) {
            return -1;
        }
        unit = unit * 16 + (c <= '9' ? c - '0' : c - 'a' + 10);
    }
    return unit;
}

/* Escapes that stand for no character (NUL, half a pair) become U+FFFD: our parser refuses them,
 * and models of random weights write them.  Returns how many there were. */
static size_t mend_escapes(char *text, size_t len)
{
    static const char replacement[] = {'\\', 'u', 'f', 'f', 'f', 'd'};
    size_t n = 0;
    const char *const end = text + len;
    for (char *at = text; (at = memchr(at, '\\', (size_t)(end - at))) != NULL && end - at >= 2;) {
        const int unit = escaped_unit(at, end);
        const int next = unit >= 0xd800 && unit < 0xdc00 ? escaped_unit(at + 6, end) : -1;
        if (next >= 0xdc00 && next < 0xe000) {
            at += 12;
        } else if (unit == 0 || (unit >= 0xd800 && unit < 0xe000)) {
            memcpy(at, replacement, sizeof replacement);
            n++;
        } else {
            at += 2;
        }
    }
    return n;
}

static qn_status parse(qn_json_doc *doc, qn_buf *data, qn_error *err)
{
    const qn_status status = qn_json_doc_open_lax(doc, qn_buf_view(data), "data", err);
    return status == QN_E_FORMAT && mend_escapes(data->ptr, data->len) > 0
               ? qn_json_doc_open_lax(doc, qn_buf_view(data), "data", err)
               : status;
}

/* The data of one event.  Where it is the last and the stream ended within it, a text that is no
 * JSON is not there. */
static qn_status take_event(bench_answer *answer, bool may_be_cut, qn_error *err)
{
    qn_json_doc doc = {0};
    qn_error parse_err;
    parse_err.text[0] = '\0';
    const qn_str data = qn_buf_view(&answer->data);
    answer->n_events++;
    answer->n_fresh++;
    if (is_done_mark(data)) {
        answer->is_done = true;
        answer->done_s = answer->at_s;
        return QN_OK;
    }
    qn_status status = parse(&doc, &answer->data, &parse_err);
    if (status == QN_E_NOMEM) {
        return qn_fail(err, status, ENOMEM, __func__, "%s", parse_err.text);
    }
    const bool is_object = status == QN_OK && is_kind(doc.nodes, QN_JSON_OBJECT);
    if (answer->is_error || (is_object && tells_error(doc.nodes))) {
        char words[BENCH_MESSAGE_BYTES];
        status = show_error(words, sizeof words, doc.nodes, data.ptr, err);
        fault(answer, BENCH_FAILED, "%s", words[0] != '\0' ? words : "an error without words");
    } else if (status != QN_OK && !may_be_cut) {
        fault(answer, BENCH_MALFORMED, "event %llu: %s", (unsigned long long)answer->n_events,
              parse_err.text);
        status = QN_OK;
    } else if (status != QN_OK) {
        status = QN_OK;
    } else if (!is_object) {
        odd_value(answer, "data", doc.nodes, "an object");
    } else {
        status = take_object(answer, doc.nodes, err);
    }
    qn_json_doc_close(&doc);
    return status;
}

/* An empty line: the event is whole.  One without data is none. */
static qn_status end_event(bench_answer *answer, bool may_be_cut, qn_error *err)
{
    qn_status status = QN_OK;
    if (answer->has_data && answer->data.len > 0) {
        status = take_event(answer, may_be_cut, err);
    }
    answer->has_data = answer->is_named = answer->is_error = false;
    qn_buf_clear(&answer->data);
    return status;
}

/* --------------------------------------------------------------------------------------- lines */

static bool has_room(bench_answer *answer, const qn_buf *buf, size_t n_bytes)
{
    const bool fits = n_bytes < buf->bytes_max - buf->len;
    if (!fits) {
        fault(answer, BENCH_MALFORMED, "event %llu: longer than %d MB",
              (unsigned long long)answer->n_events + 1, BENCH_EVENT_BYTES_MAX >> 20);
    }
    return fits;
}

/* Append where there is room for it, else it is a fault. */
static qn_status append(bench_answer *answer, qn_buf *buf, qn_str bytes, qn_error *err)
{
    return has_room(answer, buf, bytes.len) ? qn_buf_append(buf, bytes.ptr, bytes.len, err) : QN_OK;
}

/* A line of data: lines of one event are joined. */
static qn_status take_data(bench_answer *answer, qn_str value, qn_error *err)
{
    const qn_str joint = {"\n", answer->has_data ? 1 : 0};
    answer->has_data = true;
    const qn_status status = append(answer, &answer->data, joint, err);
    return status == QN_OK ? append(answer, &answer->data, value, err) : status;
}

/* The first line that is no field of an event: what came may be no stream at all. */
static void note_odd_line(bench_answer *answer, qn_str line)
{
    if (!answer->has_odd_line) {
        const size_t n_max = sizeof answer->odd_line - 1;
        answer->has_odd_line = true;
        (void)snprintf(answer->odd_line, sizeof answer->odd_line, "%.*s",
                       (int)(line.len < n_max ? line.len : n_max), line.ptr);
        qn_text_clean(answer->odd_line);
    }
}

/* A line without its end; it may be empty. */
static qn_status take_line(bench_answer *answer, qn_str line, qn_error *err)
{
    if (line.len == 0) {
        return end_event(answer, false, err);
    }
    const char *const colon = memchr(line.ptr, ':', line.len);
    const qn_str name = {line.ptr, colon != NULL ? (size_t)(colon - line.ptr) : line.len};
    qn_str value = {line.ptr + line.len, 0};
    if (colon != NULL) {
        const size_t n_skipped = name.len + 1 < line.len && colon[1] == ' ' ? 2 : 1;
        value = (qn_str){colon + n_skipped, line.len - name.len - n_skipped};
    }
    if (qn_str_equal(name, qn_str_of("data"))) {
        return take_data(answer, value, err);
    }
    if (qn_str_equal(name, qn_str_of("event"))) {
        answer->is_named = value.len > 0;
        answer->is_error = qn_str_equal(value, qn_str_of("error"));
    } else if (name.len > 0 && !qn_str_equal(name, qn_str_of("id")) &&
               !qn_str_equal(name, qn_str_of("retry"))) {
        note_odd_line(answer, line);
    }
    return QN_OK;
}

/* The last part of a line, which may be all of it. */
static qn_status end_line(bench_answer *answer, qn_str part, qn_error *err)
{
    if (answer->line.len == 0) {
        return take_line(answer, part, err);
    }
    qn_status status = append(answer, &answer->line, part, err);
    if (status == QN_OK) {
        status = take_line(answer, qn_buf_view(&answer->line), err);
    }
    qn_buf_clear(&answer->line);
    return status;
}

static bool is_over(const bench_answer *answer)
{
    return answer->is_done || answer->fault != BENCH_DONE;
}

static qn_status feed_lines(bench_answer *answer, const char *bytes, size_t n_bytes, qn_error *err)
{
    qn_status status = QN_OK;
    const char *const end = bytes + n_bytes;
    if (answer->skips_lf && *bytes == '\n') {
        bytes++;
    }
    answer->skips_lf = false;
    while (bytes < end && status == QN_OK && !is_over(answer)) {
        const char *c = bytes;
        while (c < end && *c != '\n' && *c != '\r') {
            c++;
        }
        const qn_str part = {bytes, (size_t)(c - bytes)};
        if (c == end) {
            return append(answer, &answer->line, part, err);
        }
        status = end_line(answer, part, err);
        bytes = c + 1;
        if (*c == '\r') {
            answer->skips_lf = bytes == end;
            bytes += bytes < end && *bytes == '\n' ? 1 : 0;
        }
    }
    return status;
}

/* What the body is shows in its first byte behind a byte order mark and blanks.  Returns how many
 * bytes these take. */
static size_t find_form(bench_answer *answer, const char *bytes, size_t n_bytes)
{
    static const char bom[] = "\xef\xbb\xbf";
    size_t at = 0;
    while (at < n_bytes && answer->n_bom < sizeof bom - 1 && bytes[at] == bom[answer->n_bom]) {
        answer->n_bom++;
        at++;
    }
    if (at < n_bytes) {
        answer->n_bom = sizeof bom - 1; /* none begins behind another byte */
    }
    while (at < n_bytes && strchr(" \t\r\n", bytes[at]) != NULL && bytes[at] != '\0') {
        at++;
    }
    if (at < n_bytes) {
        answer->form = bytes[at] == '{' ? BENCH_FORM_WHOLE : BENCH_FORM_EVENTS;
    }
    return at;
}

void bench_answer_begin(bench_answer *answer, bench_api api, bench_record *record)
{
    const qn_buf line = answer->line;
    const qn_buf data = answer->data;
    const qn_buf text = answer->text;
    *answer = (bench_answer){.record = record, .api = api};
    answer->line = line;
    answer->data = data;
    answer->text = text;
    answer->line.bytes_max = answer->data.bytes_max = BENCH_EVENT_BYTES_MAX;
    answer->text.bytes_max = BENCH_ANSWER_BYTES_MAX;
    qn_buf_clear(&answer->line);
    qn_buf_clear(&answer->data);
    qn_buf_clear(&answer->text);
    record->first_s = record->last_s = record->end_s = (double)NAN;
}

qn_status bench_answer_feed(bench_answer *answer, int status_of_http, const char *bytes,
                            size_t n_bytes, double at_s, qn_error *err)
{
    qn_status status = QN_OK;
    answer->at_s = at_s;
    answer->n_fresh = 0;
    answer->n_bytes += n_bytes;
    if (status_of_http != 200) {
        answer->form = BENCH_FORM_REFUSAL;
    }
    if (answer->n_bytes > BENCH_ANSWER_BYTES_MAX) {
        if (!answer->is_done) {
            fault(answer, BENCH_MALFORMED, "answer: longer than %d MB",
                  BENCH_ANSWER_BYTES_MAX >> 20);
        }
        return QN_AGAIN;
    }
    if (answer->form == BENCH_FORM_UNKNOWN) {
        const size_t n_skipped = find_form(answer, bytes, n_bytes);
        bytes += n_skipped;
        n_bytes -= n_skipped;
    }
    if (n_bytes > 0 && answer->form == BENCH_FORM_EVENTS) {
        status = feed_lines(answer, bytes, n_bytes, err);
    } else if (answer->form == BENCH_FORM_WHOLE && !is_over(answer)) {
        status = append(answer, &answer->data, (qn_str){bytes, n_bytes}, err);
    } else if (answer->form == BENCH_FORM_REFUSAL && answer->data.len < BENCH_REFUSAL_BYTES_MAX) {
        const size_t n_left = BENCH_REFUSAL_BYTES_MAX - answer->data.len;
        status = qn_buf_append(&answer->data, bytes, n_bytes < n_left ? n_bytes : n_left, err);
    }
    if (status == QN_OK && answer->fault != BENCH_DONE) {
        return QN_AGAIN;
    }
    return status;
}

/* ----------------------------------------------------------------------------------------- end */

/* What has come by a clean end, and has no end of its own. */
static qn_status take_rest(bench_answer *answer, qn_error *err)
{
    qn_status status = QN_OK;
    if (is_over(answer)) {
        return QN_OK;
    }
    if (answer->form == BENCH_FORM_WHOLE) {
        status = take_event(answer, false, err);
        answer->is_done = answer->fault == BENCH_DONE;
        answer->done_s = answer->at_s;
    } else if (answer->form == BENCH_FORM_EVENTS) {
        status = answer->line.len > 0 ? end_line(answer, (qn_str){0}, err) : QN_OK;
        status = status == QN_OK ? end_event(answer, true, err) : status;
    }
    return status;
}

/* A status other than 200. */
static qn_status end_refused(bench_answer *answer, int status_of_http, qn_error *err)
{
    enum { RATE_LIMITED = 429, CLIENT_MIN = 400, SERVER_MIN = 500 };
    bench_record *const record = answer->record;
    record->end = status_of_http == RATE_LIMITED ? BENCH_RATE_LIMITED
                  : status_of_http >= SERVER_MIN ? BENCH_SERVER
                  : status_of_http >= CLIENT_MIN ? BENCH_REFUSED
                                                 : BENCH_OTHER;
    qn_json_doc doc = {0};
    char words[BENCH_MESSAGE_BYTES] = "";
    const qn_str body = qn_buf_view(&answer->data);
    qn_status status = QN_OK;
    if (body.len > 0) {
        status = qn_json_doc_open_lax(&doc, body, "body", NULL);
        if (status != QN_E_NOMEM) {
            status = show_error(words, sizeof words, doc.nodes, body.ptr, err);
        } else {
            (void)qn_fail(err, status, ENOMEM, __func__, "body: no memory to parse it");
        }
    }
    (void)snprintf(record->message, sizeof record->message, "status %d%s%.*s", status_of_http,
                   words[0] != '\0' ? ": " : "", (int)sizeof record->message - 20, words);
    qn_json_doc_close(&doc);
    return status;
}

QN_PRINTF(3, 4)
static void end_as(bench_record *record, bench_end end, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(record->message, sizeof record->message, format, args);
    va_end(args);
    record->end = end;
}

/* Everything came: is it an answer?  Rules 5 to 8. */
static void judge(bench_answer *answer)
{
    bench_record *const record = answer->record;
    const bool has_finish = record->finish[0] != '\0';
    const bool is_whole = answer->is_done || (has_finish && record->has_usage);
    if (answer->n_events == 0 && answer->has_odd_line) {
        end_as(record, BENCH_MALFORMED, "body: '%s', events expected", answer->odd_line);
    } else if (is_whole && record->n_chunks == 0) {
        end_as(record, BENCH_EMPTY, "no token came in %llu events%s%s",
               (unsigned long long)answer->n_events, has_finish ? ", finish_reason " : "",
               record->finish);
    } else if (!has_finish) {
        end_as(record, BENCH_CUT, "no finish_reason came in %llu events%s",
               (unsigned long long)answer->n_events,
               answer->is_done ? " before [DONE]" : ", nor [DONE]");
    } else if (!is_whole) {
        end_as(record, BENCH_CUT, "finish_reason %s came, but neither usage nor [DONE]",
               record->finish);
    } else {
        if (record->has_usage) {
            check_usage(answer);
        }
        record->end = answer->usage_fault[0] != '\0' ? BENCH_USAGE : BENCH_DONE;
        end_as(record, record->end, "%s", answer->usage_fault);
    }
}

qn_status bench_answer_end(bench_answer *answer, bench_end how, int status_of_http,
                           const char *message, double now_s, qn_error *err)
{
    bench_record *const record = answer->record;
    qn_status status = QN_OK;
    record->status = status_of_http;
    if (how == BENCH_DONE && status_of_http == 200) {
        status = take_rest(answer, err);
    }
    record->end_s = answer->is_done ? answer->done_s : now_s;
    if (how == BENCH_CANCELLED || status != QN_OK) {
        end_as(record, BENCH_CANCELLED, "the run ended before");
    } else if (status_of_http != 0 && status_of_http != 200) {
        status = end_refused(answer, status_of_http, err);
    } else if (answer->fault != BENCH_DONE) {
        end_as(record, answer->fault, "%s", answer->message);
    } else if (how != BENCH_DONE && !answer->is_done) {
        end_as(record, how, "%s", message);
    } else {
        judge(answer);
    }
    qn_text_clean(record->message);
    if (answer->text.len > 0) {
        record->text = answer->text.ptr; /* handed over */
        qn_buf_init(&answer->text, 0);
    }
    return status;
}

void bench_answer_deinit(bench_answer *answer)
{
    qn_buf_deinit(&answer->line);
    qn_buf_deinit(&answer->data);
    qn_buf_deinit(&answer->text);
}

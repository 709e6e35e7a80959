/* SPDX-License-Identifier: Apache-2.0 */
/* Two layers.  The lower one turns ids or text into whole characters and control tokens; the upper
 * one sorts those into parts and tool calls.  An open call keeps everything as it was written, so
 * that one that turns out malformed comes out as text. */
#include "chat/parser.h"

#include "base/assert.h"
#include "base/try.h"
#include "chat/schema.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>

enum {
    CHUNK_BYTES = 1024, /* made whole characters at once */
    /* Escapes double the usual text at most; what stands around a value is shorter in JSON. */
    JSON_BYTES_MAX = 2 * QN_CHAT_CALL_BYTES_MAX,
    SHOWN_BYTES = 64, /* of the model's words in a warning */
};

/* ------------------------------------------------------------------------------ control tokens */

typedef enum control {
    THINK,
    THINK_END,
    CALL,
    CALL_END,
    KEY,
    KEY_END,
    VALUE,
    VALUE_END,
    SPECIAL, /* all others, which print nothing; in text these five */
    N_MARKERS = SPECIAL,
    N_CONTROLS = SPECIAL + 5,
} control;

/* '<' only begins a name, and no name begins another one: where one breaks off, none has begun
 * inside it, and where one is complete, there is no longer one. */
static const char *const names[N_CONTROLS] = {
    "<think>",    "</think>",      "<tool_call>",     "</tool_call>",  "<arg_key>",
    "</arg_key>", "<arg_value>",   "</arg_value>",    "<|endoftext|>", "<|system|>",
    "<|user|>",   "<|assistant|>", "<|observation|>",
};

/* ------------------------------------------------------------------------------------- the state
 */

/* Where in a tool call the answer is. */
typedef enum place {
    OUTSIDE,
    IN_NAME,
    BETWEEN, /* behind an argument */
    IN_KEY,
    BEHIND_KEY,
    IN_VALUE,
    N_PLACES,
} place;

/* Bytes of the call. */
typedef struct span {
    uint32_t begin;
    uint32_t len;
} span;

struct qn_chat_parser {
    const qn_tokenizer *tokenizer; /* borrowed */
    qn_chat_tools *tools;          /* owned; NULL: unknown */
    qn_event_fn *fn;
    void *context;
    int32_t ids[N_MARKERS]; /* -1 where the tokenizer has none */
    qn_event_kind part;     /* of text: REASONING or TEXT */
    uint64_t n_reasoning;
    uint64_t n_calls;
    control held;          /* feed_text() holds back ... */
    uint32_t n_held;       /* ... so many bytes of its name */
    qn_utf8_stream stream; /* holds back part of a character */
    place place;
    uint64_t n_call_ids; /* ids of the open call, where it stands in the reasoning */
    char *call;          /* [QN_CHAT_CALL_BYTES_MAX] owned; the open call as written */
    uint32_t call_len;
    uint32_t word_begin; /* in call, behind the last marker */
    span name;           /* as written; empty while it is not complete */
    struct {
        span key;
        span value;
    } arguments[QN_CHAT_CALL_ARGUMENTS_MAX];
    uint32_t n_arguments;
    char *json; /* [JSON_BYTES_MAX] owned; arguments of the call that is complete */
    size_t json_len;
    bool json_is_full; /* something did not fit */
};

static qn_str view(const qn_chat_parser *p, span s)
{
    return (qn_str){.ptr = p->call + s.begin, .len = s.len};
}

static qn_str view_trimmed(const qn_chat_parser *p, span s)
{
    return qn_chat_trim(view(p, s));
}

/* For "%.*s". */
static int shown(qn_str text)
{
    return (int)(text.len < SHOWN_BYTES ? text.len : SHOWN_BYTES);
}

/* ---------------------------------------------------------------------------------------- events
 */

static void emit(const qn_chat_parser *p, qn_event_kind kind, const char *text, size_t len)
{
    const qn_event event = {.kind = kind, .text = text, .len = len};
    p->fn(p->context, &event);
}

QN_PRINTF(2, 3) static void warn(const qn_chat_parser *p, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    qn_text_clean(text); /* words of the model may have been cut inside a character */
    emit(p, QN_EVENT_WARNING, text, strlen(text));
}

/* The call is text after all, in the part where it was opened. */
static void give_up(qn_chat_parser *p, const char *seen, const char *expected)
{
    const qn_str name = view_trimmed(p, p->name);
    warn(p, "tool call%s%.*s: %s, %s expected", name.len > 0 ? " " : "", shown(name), name.ptr,
         seen, expected);
    emit(p, p->part, p->call, p->call_len);
    p->place = OUTSIDE;
    p->n_reasoning += p->n_call_ids;
    p->n_call_ids = 0;
}

/* What may follow in each place; white space may stand in all. */
static const char *const expected_in[N_PLACES] = {
    [IN_NAME] = "<arg_key> or </tool_call>",
    [BETWEEN] = "<arg_key> or </tool_call>",
    [IN_KEY] = "</arg_key>",
    [BEHIND_KEY] = "<arg_value>",
    [IN_VALUE] = "</arg_value>",
};

static void give_up_at(qn_chat_parser *p, const char *seen)
{
    give_up(p, seen, expected_in[p->place]);
}

/* ------------------------------------------------------------------------------ arguments to JSON
 */

static void put(qn_chat_parser *p, const char *bytes, size_t n_bytes)
{
    if (n_bytes > JSON_BYTES_MAX - p->json_len) {
        p->json_is_full = true;
        return;
    }
    memcpy(p->json + p->json_len, bytes, n_bytes);
    p->json_len += n_bytes;
}

static void put_string(qn_chat_parser *p, qn_str text)
{
    static const char special[] = "\"\\\b\f\n\r\t";
    static const char *const escapes[] = {"\\\"", "\\\\", "\\b", "\\f", "\\n", "\\r", "\\t"};
    put(p, "\"", 1);
    for (size_t i = 0; i < text.len; i++) {
        const char c = text.ptr[i];
        const char *const at = c != '\0' ? strchr(special, c) : NULL;
        if (at != NULL) {
            put(p, escapes[at - special], 2);
        } else if (c == '\0') {
            put(p, "\xef\xbf\xbd", 3); /* U+FFFD: most readers of JSON refuse a NUL */
        } else if ((uint8_t)c < 0x20) {
            char escape[8];
            (void)snprintf(escape, sizeof escape, "\\u%04x", c);
            put(p, escape, 6);
        } else {
            put(p, &c, 1);
        }
    }
    put(p, "\"", 1);
}

static void put_arguments(qn_chat_parser *p, const qn_json_node *tool)
{
    p->json_len = 0;
    p->json_is_full = false;
    put(p, "{", 1);
    for (uint32_t i = 0; i < p->n_arguments; i++) {
        const qn_str key = view_trimmed(p, p->arguments[i].key);
        const uint32_t kinds = qn_chat_tool_kinds(tool, key);
        const qn_chat_value value = qn_chat_value_read(view(p, p->arguments[i].value), kinds);
        if (!value.fits) {
            const qn_str name = view_trimmed(p, p->name);
            char expected[96];
            qn_chat_kinds_show(expected, sizeof expected, kinds);
            warn(p, "tool call %.*s: %.*s: %.*s, %s expected", shown(name), name.ptr, shown(key),
                 key.ptr, shown(value.text), value.text.ptr, expected);
        }
        put(p, ", ", i > 0 ? 2 : 0);
        put_string(p, key);
        put(p, ": ", 2);
        if (value.is_json) {
            put(p, value.text.ptr, value.text.len);
        } else {
            put_string(p, value.text);
        }
    }
    put(p, "}", 1);
}

/* An argument whose name is another one's, or empty: what to say of it, NULL where there is none.
 */
static const char *find_bad_key(const qn_chat_parser *p)
{
    for (uint32_t i = 0; i < p->n_arguments; i++) {
        const qn_str key = view_trimmed(p, p->arguments[i].key);
        if (key.len == 0) {
            return "an argument without a name";
        }
        for (uint32_t k = 0; k < i; k++) {
            if (qn_str_equal(key, view_trimmed(p, p->arguments[k].key))) {
                return "an argument given twice";
            }
        }
    }
    return NULL;
}

/* Could it be a function's name?  Prose and JSON, which a model may write in the place of a call,
 * have white space, quotes or brackets. */
static bool is_name(qn_str name)
{
    static const char never[] = " \"'`(){}[]<>,;=";
    for (size_t i = 0; i < name.len; i++) {
        if ((uint8_t)name.ptr[i] <= ' ' || strchr(never, name.ptr[i]) != NULL) {
            return false;
        }
    }
    return name.len > 0;
}

/* Behind </tool_call>. */
static void finish_call(qn_chat_parser *p)
{
    const qn_str name = view_trimmed(p, p->name);
    const char *const bad_key = find_bad_key(p);
    if (!is_name(name)) {
        give_up(p, name.len > 0 ? "no function's name" : "no name", "one");
        return;
    }
    if (bad_key != NULL) {
        give_up(p, bad_key, "one name for each");
        return;
    }
    const qn_json_node *const tool = p->tools != NULL ? qn_chat_tools_find(p->tools, name) : NULL;
    if (p->tools != NULL && tool == NULL) {
        warn(p, "tool call %.*s: no such tool, one of those offered expected", shown(name),
             name.ptr);
    }
    put_arguments(p, tool);
    if (p->json_is_full) {
        give_up(p, "too long as JSON", "at most 2 MiB");
        return;
    }
    const qn_event event = {.kind = QN_EVENT_TOOL_CALL,
                            .text = p->json,
                            .len = p->json_len,
                            .name = name.ptr,
                            .name_len = name.len};
    p->fn(p->context, &event);
    p->n_calls++;
    p->n_call_ids = 0;
    p->place = OUTSIDE;
    p->part = QN_EVENT_TEXT; /* GLM may call a tool without closing its reasoning first */
}

/* ----------------------------------------------------------------------------- parts and calls */

/* Add to the open call what was written.  False, and it is given up, where there is no room. */
static bool keep(qn_chat_parser *p, const char *text, size_t len)
{
    const bool is_name = p->place == IN_NAME || p->place == IN_KEY;
    const size_t n_left = QN_CHAT_CALL_BYTES_MAX - p->call_len;
    const size_t n_name_left =
        is_name ? QN_CHAT_CALL_NAME_BYTES_MAX - (p->call_len - p->word_begin) : SIZE_MAX;
    if (len > n_left && n_left <= n_name_left) {
        give_up(p, "too long", "at most 1 MiB");
        return false;
    }
    if (len > n_name_left) {
        give_up(p, "more than 256 bytes of a name", expected_in[p->place]);
        return false;
    }
    memcpy(p->call + p->call_len, text, len);
    p->call_len += (uint32_t)len;
    return true;
}

/* Whole characters.  What is said of a call depends on the first byte that is wrong, wherever the
 * answer is cut. */
static void on_text(qn_chat_parser *p, const char *text, size_t len)
{
    size_t n_good = len;
    if (p->place == BETWEEN || p->place == BEHIND_KEY) {
        n_good -= qn_chat_trim_left((qn_str){text, len}).len;
    }
    if (p->place != OUTSIDE && keep(p, text, n_good)) {
        if (n_good < len) {
            give_up_at(p, "text");
        }
        text += n_good;
        len -= n_good;
    }
    if (len > 0) {
        emit(p, p->part, text, len);
    }
}

static void open_call(qn_chat_parser *p)
{
    const size_t len = strlen(names[CALL]);
    memcpy(p->call, names[CALL], len);
    p->call_len = p->word_begin = (uint32_t)len;
    p->name = (span){0};
    p->n_arguments = 0;
    p->place = IN_NAME;
}

/* A control token while no call is open. */
static void on_control_outside(qn_chat_parser *p, control c)
{
    const bool is_reasoning = p->part == QN_EVENT_REASONING;
    if (c == THINK && !is_reasoning) {
        p->part = QN_EVENT_REASONING;
    } else if (c == THINK_END && is_reasoning) {
        p->part = QN_EVENT_TEXT;
    } else if (c == CALL) {
        if (is_reasoning) {
            warn(p, "reasoning: <tool_call>, </think> expected before it");
        }
        open_call(p);
    } else if (c < N_MARKERS) {
        const control before = c == THINK ? THINK_END : c == THINK_END ? THINK : CALL;
        warn(p, "%s: %s, %s expected before it", is_reasoning ? "reasoning" : "text", names[c],
             names[before]);
        emit(p, p->part, names[c], strlen(names[c]));
    }
}

/* The place behind a marker; OUTSIDE where it does not belong. */
static place place_behind(place before, control c)
{
    switch (c) {
    case KEY: return before == IN_NAME || before == BETWEEN ? IN_KEY : OUTSIDE;
    case KEY_END: return before == IN_KEY ? BEHIND_KEY : OUTSIDE;
    case VALUE: return before == BEHIND_KEY ? IN_VALUE : OUTSIDE;
    case VALUE_END: return before == IN_VALUE ? BETWEEN : OUTSIDE;
    default: return OUTSIDE;
    }
}

/* A marker that belongs here: the word before it is complete. */
static void go_on(qn_chat_parser *p, control c, place next)
{
    const span word = {.begin = p->word_begin, .len = p->call_len - p->word_begin};
    if (p->place == IN_NAME) {
        p->name = word;
    } else if (p->place == IN_KEY) {
        p->arguments[p->n_arguments].key = word;
    } else if (p->place == IN_VALUE) {
        p->arguments[p->n_arguments++].value = word;
    }
    p->place = next;
    p->word_begin = p->call_len; /* the marker is no word */
    if (!keep(p, names[c], strlen(names[c]))) {
        emit(p, p->part, names[c], strlen(names[c]));
        return;
    }
    p->word_begin = p->call_len;
    if (next == OUTSIDE) {
        finish_call(p);
    }
}

/* A marker that has no place here is text; one that has a meaning outside is taken at it. */
static void on_control_in_call(qn_chat_parser *p, control c)
{
    const bool is_end = c == CALL_END && (p->place == IN_NAME || p->place == BETWEEN);
    const place next = place_behind(p->place, c);
    if (c == SPECIAL) {
        give_up_at(p, "a special token");
    } else if (next == OUTSIDE && !is_end) {
        give_up_at(p, names[c]);
        if (c <= CALL) {
            on_control_outside(p, c);
        } else {
            emit(p, p->part, names[c], strlen(names[c]));
        }
    } else if (next == IN_KEY && p->n_arguments == QN_CHAT_CALL_ARGUMENTS_MAX) {
        give_up(p, "more than 256 arguments", "</tool_call>");
        emit(p, p->part, names[c], strlen(names[c]));
    } else {
        go_on(p, c, next);
    }
}

/* ------------------------------------------------------------------ characters and control tokens
 */

static void take_bytes(qn_chat_parser *p, const char *bytes, size_t n_bytes)
{
    char text[QN_UTF8_GROWTH * CHUNK_BYTES + 12];
    while (n_bytes > 0) {
        const size_t n = n_bytes < CHUNK_BYTES ? n_bytes : CHUNK_BYTES;
        on_text(p, text, qn_utf8_stream_feed(&p->stream, bytes, n, text));
        bytes += n;
        n_bytes -= n;
    }
}

static void take_control(qn_chat_parser *p, control c)
{
    char rest[12];
    on_text(p, rest, qn_utf8_stream_end(&p->stream, rest)); /* no character crosses a border */
    if (p->place == OUTSIDE) {
        on_control_outside(p, c);
    } else {
        on_control_in_call(p, c);
    }
}

/* What feed_text() holds back is no name. */
static void release_held(qn_chat_parser *p)
{
    const size_t n = p->n_held;
    p->n_held = 0;
    take_bytes(p, names[p->held], n);
}

/* Does @p byte go on in a name that begins with what is held back?  Then it is held back too. */
static bool hold(qn_chat_parser *p, char byte)
{
    for (control c = 0; c < N_CONTROLS; c++) {
        if (strncmp(names[c], names[p->held], p->n_held) == 0 && names[c][p->n_held] == byte) {
            p->held = c;
            p->n_held++;
            return true;
        }
    }
    return false;
}

void qn_chat_parser_feed_text(qn_chat_parser *p, qn_str text)
{
    size_t at = 0;
    while (at < text.len) {
        if (p->n_held == 0) {
            const char *const begin = text.ptr + at;
            const char *const name = memchr(begin, '<', text.len - at);
            const size_t n = name != NULL ? (size_t)(name - begin) : text.len - at;
            take_bytes(p, begin, n);
            at += n;
        }
        if (at < text.len && hold(p, text.ptr[at])) {
            at++;
        } else {
            release_held(p);
        }
        if (p->n_held > 0 && names[p->held][p->n_held] == '\0') {
            p->n_held = 0;
            take_control(p, p->held < SPECIAL ? p->held : SPECIAL);
        }
    }
}

static void take_id(qn_chat_parser *p, int32_t id)
{
    for (control c = 0; c < N_MARKERS; c++) {
        if (id >= 0 && id == p->ids[c]) {
            take_control(p, c);
            return;
        }
    }
    if (p->tokenizer == NULL) {
        char text[16];
        take_bytes(p, text, (size_t)snprintf(text, sizeof text, "<%" PRId32 ">", id));
    } else if (qn_tokenizer_is_special(p->tokenizer, id)) {
        take_control(p, SPECIAL);
    } else {
        const qn_str bytes = qn_tokenizer_bytes(p->tokenizer, id);
        take_bytes(p, bytes.ptr, bytes.len);
    }
}

void qn_chat_parser_feed(qn_chat_parser *p, int32_t id)
{
    const bool was_reasoning = p->part == QN_EVENT_REASONING;
    const uint64_t n_calls = p->n_calls;
    release_held(p);
    take_id(p, id);
    if (was_reasoning && p->place != OUTSIDE) {
        p->n_call_ids++; /* of the reasoning if the call turns out malformed */
    } else if (was_reasoning && p->n_calls == n_calls) {
        p->n_reasoning++;
    }
}

void qn_chat_parser_end(qn_chat_parser *p)
{
    char rest[12];
    release_held(p);
    on_text(p, rest, qn_utf8_stream_end(&p->stream, rest));
    if (p->place != OUTSIDE) {
        give_up_at(p, "the end of the answer");
    }
}

/* ------------------------------------------------------------------------------------ open, close
 */

/* Does the answer begin as reasoning? */
static bool is_thinking(const qn_chat_parser *p, const int32_t *prompt, size_t n_prompt)
{
    for (size_t i = n_prompt; i > 0 && p->ids[THINK] >= 0; i--) {
        if (prompt[i - 1] == p->ids[THINK] || prompt[i - 1] == p->ids[THINK_END]) {
            return prompt[i - 1] == p->ids[THINK];
        }
    }
    return false;
}

qn_status qn_chat_parser_open(qn_chat_parser **out, const qn_tokenizer *tokenizer,
                              const qn_parser_options *options, qn_error *err)
{
    qn_status status = QN_OK;
    *out = NULL;
    if (options->fn == NULL) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "parser: no function, one for events expected");
    }
    qn_chat_parser *p = calloc(1, sizeof *p);
    if (p == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "parser: no memory");
    }
    p->tokenizer = tokenizer;
    p->fn = options->fn;
    p->context = options->context;
    for (control c = 0; c < N_MARKERS; c++) {
        p->ids[c] = tokenizer != NULL ? qn_tokenizer_added_id(tokenizer, qn_str_of(names[c])) : -1;
    }
    p->part =
        is_thinking(p, options->prompt, options->n_prompt) ? QN_EVENT_REASONING : QN_EVENT_TEXT;
    p->call = malloc(QN_CHAT_CALL_BYTES_MAX);
    p->json = malloc(JSON_BYTES_MAX);
    if (p->call == NULL || p->json == NULL) {
        status = qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "parser: no memory for a tool call");
        goto fail;
    }
    if (options->tools_json != NULL) {
        const qn_str json = {.ptr = options->tools_json, .len = options->tools_len};
        QN_TRY(status, qn_chat_tools_open(&p->tools, json, err), fail);
    }
    *out = p;
    return QN_OK;

fail:
    qn_chat_parser_close(&p);
    return status;
}

void qn_chat_parser_close(qn_chat_parser **parser)
{
    if (parser == NULL || *parser == NULL) {
        return;
    }
    qn_chat_tools_close(&(*parser)->tools);
    free((*parser)->call);
    free((*parser)->json);
    free(*parser);
    *parser = NULL;
}

uint64_t qn_chat_parser_n_reasoning(const qn_chat_parser *p)
{
    return p->n_reasoning;
}

uint64_t qn_chat_parser_n_calls(const qn_chat_parser *p)
{
    return p->n_calls;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Two layers.  The lower one turns ids or text into whole characters and control tokens; the upper
 * one sorts those into parts and tool calls.  An open call keeps everything as it was written, so
 * that one that turns out malformed comes out as text.  Where calls are streamed a call has begun
 * once its name is complete.  From then on its JSON only grows, what has grown is told, and what is
 * malformed ends it. */
#include "chat/parser.h"

#include "base/assert.h"
#include "base/mapping.h"
#include "base/try.h"
#include "chat/schema.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>

enum {
    CHUNK_BYTES = 1024, /* made whole characters at once */
    /* Escapes double the usual text at most; what stands around a value is shorter in JSON. */
    JSON_BYTES_MAX = 2 * QN_CHAT_CALL_BYTES_MAX,
    /* What was told cannot be given up: the longest escape has six bytes. */
    STREAMED_JSON_BYTES_MAX = 6 * QN_CHAT_CALL_BYTES_MAX,
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

/* What is known of the value being written, of a call that has begun. */
typedef enum value_state {
    UNDECIDED, /* white space so far: a string or something else */
    AS_STRING, /* its text goes on in the JSON as it comes */
    AS_WHOLE,  /* it counts when it is complete */
    DROPPED,   /* its name is a wrong one */
} value_state;

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
    char *json; /* [json_bytes_max] owned; arguments of the call that has begun or is complete */
    size_t json_bytes_max;
    size_t json_len;
    bool json_is_full;        /* something did not fit */
    bool streams;             /* calls come in pieces */
    bool is_begun;            /* the open call was told of */
    size_t n_told;            /* bytes of json that were told of it */
    const qn_json_node *tool; /* the one it calls; NULL: unknown */
    value_state value;
    uint32_t kinds;        /* that the value may have */
    uint32_t n_value_read; /* bytes of it that were looked at */
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

static void end_begun_call(qn_chat_parser *p);

/* The call ends here if it was told of, else it is text after all, in the part where it was opened.
 */
static void give_up(qn_chat_parser *p, const char *seen, const char *expected)
{
    const qn_str name = view_trimmed(p, p->name);
    warn(p, "tool call%s%.*s: %s, %s expected", name.len > 0 ? " " : "", shown(name), name.ptr,
         seen, expected);
    if (p->is_begun) {
        end_begun_call(p);
        return;
    }
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
    if (n_bytes > p->json_bytes_max - p->json_len) {
        p->json_is_full = true;
        return;
    }
    memcpy(p->json + p->json_len, bytes, n_bytes);
    p->json_len += n_bytes;
}

/* A string's text. */
static void put_escaped(qn_chat_parser *p, qn_str text)
{
    static const char special[] = "\"\\\b\f\n\r\t";
    static const char *const escapes[] = {"\\\"", "\\\\", "\\b", "\\f", "\\n", "\\r", "\\t"};
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
}

static void put_string(qn_chat_parser *p, qn_str text)
{
    put(p, "\"", 1);
    put_escaped(p, text);
    put(p, "\"", 1);
}

/* A key, and what stands around it. */
static void put_key(qn_chat_parser *p, qn_str key)
{
    put(p, ", ", p->json_len > 1 ? 2 : 0);
    put_string(p, key);
    put(p, ": ", 2);
}

/* The argument @p i, whose value is complete. */
static void put_argument(qn_chat_parser *p, uint32_t i)
{
    const qn_str key = view_trimmed(p, p->arguments[i].key);
    const uint32_t kinds = qn_chat_tool_kinds(p->tool, key);
    const qn_chat_value value = qn_chat_value_read(view(p, p->arguments[i].value), kinds);
    if (!value.fits) {
        const qn_str name = view_trimmed(p, p->name);
        char expected[96];
        qn_chat_kinds_show(expected, sizeof expected, kinds);
        warn(p, "tool call %.*s: %.*s: %.*s, %s expected", shown(name), name.ptr, shown(key),
             key.ptr, shown(value.text), value.text.ptr, expected);
    }
    put_key(p, key);
    if (value.is_json) {
        put(p, value.text.ptr, value.text.len);
    } else {
        put_string(p, value.text);
    }
}

/* Where the argument @p i has no name, or that of one before: what to say of it, else NULL. */
static const char *check_key(const qn_chat_parser *p, uint32_t i)
{
    const qn_str key = view_trimmed(p, p->arguments[i].key);
    if (key.len == 0) {
        return "an argument without a name";
    }
    for (uint32_t k = 0; k < i; k++) {
        if (qn_str_equal(key, view_trimmed(p, p->arguments[k].key))) {
            return "an argument given twice";
        }
    }
    return NULL;
}

static const char *find_bad_key(const qn_chat_parser *p)
{
    const char *bad = NULL;
    for (uint32_t i = 0; i < p->n_arguments && bad == NULL; i++) {
        bad = check_key(p, i);
    }
    return bad;
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

/* The name is complete, and it is one: which tool, and where its JSON begins. */
static void find_tool(qn_chat_parser *p)
{
    const qn_str name = view_trimmed(p, p->name);
    p->tool = p->tools != NULL ? qn_chat_tools_find(p->tools, name) : NULL;
    if (p->tools != NULL && p->tool == NULL) {
        warn(p, "tool call %.*s: no such tool, one of those offered expected", shown(name),
             name.ptr);
    }
    p->json_len = 0;
    p->json_is_full = false;
    put(p, "{", 1);
}

/* The JSON is complete. */
static void tell_call(qn_chat_parser *p)
{
    const qn_str name = view_trimmed(p, p->name);
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

/* Behind </tool_call> of a call that was not told of. */
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
    find_tool(p);
    for (uint32_t i = 0; i < p->n_arguments; i++) {
        put_argument(p, i);
    }
    put(p, "}", 1);
    if (p->json_is_full) {
        give_up(p, "too long as JSON", "at most 2 MiB");
        return;
    }
    tell_call(p);
}

/* -------------------------------------------------------------------------- calls that are told of
 * while they come */

static void begin_call(qn_chat_parser *p)
{
    const qn_str name = view_trimmed(p, p->name);
    find_tool(p);
    p->is_begun = true;
    p->n_told = 0;
    const qn_event event = {.kind = QN_EVENT_CALL_BEGIN, .name = name.ptr, .name_len = name.len};
    p->fn(p->context, &event);
}

/* What has grown. */
static void tell_piece(qn_chat_parser *p)
{
    QN_ASSERT(!p->json_is_full);
    if (p->json_len > p->n_told) {
        emit(p, QN_EVENT_CALL_PIECE, p->json + p->n_told, p->json_len - p->n_told);
        p->n_told = p->json_len;
    }
}

/* Its name is complete. */
static void begin_value(qn_chat_parser *p)
{
    const qn_str key = view_trimmed(p, p->arguments[p->n_arguments].key);
    const char *const bad = check_key(p, p->n_arguments);
    p->kinds = qn_chat_tool_kinds(p->tool, key);
    p->value = UNDECIDED;
    p->n_value_read = 0;
    if (bad != NULL) {
        const qn_str name = view_trimmed(p, p->name);
        warn(p, "tool call %.*s: %.*s: %s, one name for each expected", shown(name), name.ptr,
             shown(key), key.ptr, bad);
        p->value = DROPPED;
    }
}

/* Is it a string?  What else it may be shows by its first character that is no white space. */
static void decide_value(qn_chat_parser *p, qn_str text)
{
    const qn_str word = qn_chat_trim_left(text);
    if (p->kinds == QN_CHAT_STRING ||
        (word.len > 0 && qn_chat_value_is_string(word.ptr[0], p->kinds))) {
        p->value = AS_STRING;
        p->n_value_read = 0;
        put_key(p, view_trimmed(p, p->arguments[p->n_arguments].key));
        put(p, "\"", 1);
    } else if (word.len > 0) {
        p->value = AS_WHOLE;
    }
}

/* More of the value has come. */
static void stream_value(qn_chat_parser *p)
{
    const uint32_t value_len = p->call_len - p->word_begin;
    if (p->value == UNDECIDED) {
        const span unread = {p->word_begin + p->n_value_read, value_len - p->n_value_read};
        p->n_value_read = value_len;
        decide_value(p, view(p, unread));
    }
    if (p->value == AS_STRING) {
        const span unread = {p->word_begin + p->n_value_read, value_len - p->n_value_read};
        p->n_value_read = value_len;
        put_escaped(p, view(p, unread));
        tell_piece(p);
    }
}

/* It is complete: the last argument. */
static void end_value(qn_chat_parser *p)
{
    if (p->value == AS_STRING) {
        put(p, "\"", 1);
    } else if (p->value != DROPPED) {
        put_argument(p, p->n_arguments - 1);
    }
    p->value = DROPPED; /* there is none */
    tell_piece(p);
}

/* A string that is open ends here too; another value that is not complete is left out. */
static void end_begun_call(qn_chat_parser *p)
{
    put(p, "\"", p->value == AS_STRING ? 1 : 0);
    put(p, "}", 1);
    tell_piece(p);
    p->is_begun = false;
    p->value = DROPPED;
    tell_call(p);
}

/* The marker @p c, which belongs here, was taken; the place is the one behind it. */
static void stream_marker(qn_chat_parser *p, control c)
{
    if (!p->is_begun && p->n_arguments == 0 && (c == KEY || c == CALL_END) &&
        is_name(view_trimmed(p, p->name))) {
        begin_call(p);
    } else if (p->is_begun && c == VALUE) {
        begin_value(p);
        stream_value(p);
    } else if (p->is_begun && c == VALUE_END) {
        end_value(p);
    }
}

/* ----------------------------------------------------------------------------- parts and calls */

/* Bytes that the name being written may still have. */
static size_t name_room(const qn_chat_parser *p)
{
    const bool is_name = p->place == IN_NAME || p->place == IN_KEY;
    return is_name ? QN_CHAT_CALL_NAME_BYTES_MAX - (p->call_len - p->word_begin) : SIZE_MAX;
}

/* Bytes that the open call may still have here. */
static size_t room(const qn_chat_parser *p)
{
    const size_t n_left = QN_CHAT_CALL_BYTES_MAX - p->call_len;
    return n_left < name_room(p) ? n_left : name_room(p);
}

static void give_up_full(qn_chat_parser *p)
{
    if (name_room(p) < QN_CHAT_CALL_BYTES_MAX - p->call_len) {
        give_up(p, "more than 256 bytes of a name", expected_in[p->place]);
    } else {
        give_up(p, "too long", "at most 1 MiB");
    }
}

static void keep(qn_chat_parser *p, const char *text, size_t len)
{
    memcpy(p->call + p->call_len, text, len);
    p->call_len += (uint32_t)len;
}

/* Whole characters in a call: bytes of it, and if these are not all it was given up.  What is said
 * of a call depends on the first character that is wrong, wherever the answer is cut. */
static size_t take_in_call(qn_chat_parser *p, const char *text, size_t len)
{
    const size_t n_room = room(p);
    size_t n_good = len;
    if (p->place == BETWEEN || p->place == BEHIND_KEY) {
        n_good -= qn_chat_trim_left((qn_str){text, len}).len;
    }
    size_t n_kept = n_good < n_room ? n_good : n_room;
    while (n_kept < n_good && n_kept > 0 && ((uint8_t)text[n_kept] & 0xc0) == 0x80) {
        n_kept--; /* not within a character */
    }
    keep(p, text, n_kept);
    if (p->is_begun && p->place == IN_VALUE) {
        stream_value(p);
    }
    if (n_kept < n_good) {
        give_up_full(p);
    } else if (n_good < len) {
        give_up_at(p, "text");
    }
    return n_kept;
}

/* Whole characters. */
static void on_text(qn_chat_parser *p, const char *text, size_t len)
{
    const size_t n_of_call = p->place != OUTSIDE ? take_in_call(p, text, len) : 0;
    if (len > n_of_call) {
        emit(p, p->part, text + n_of_call, len - n_of_call);
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
    if (room(p) < strlen(names[c])) {
        give_up_full(p);
        emit(p, p->part, names[c], strlen(names[c]));
        return;
    }
    keep(p, names[c], strlen(names[c]));
    p->word_begin = p->call_len;
    if (p->streams) {
        stream_marker(p, c);
    }
    if (next == OUTSIDE && p->is_begun) {
        end_begun_call(p);
    } else if (next == OUTSIDE) {
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
    if (was_reasoning && p->n_calls == n_calls) { /* else a call has ended with it */
        *(p->place != OUTSIDE ? &p->n_call_ids    /* of the reasoning if the call is malformed */
                              : &p->n_reasoning) += 1;
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
    p->streams = options->streams_calls;
    p->value = DROPPED;
    p->json_bytes_max = p->streams ? STREAMED_JSON_BYTES_MAX : JSON_BYTES_MAX;
    p->call = qn_mapping_alloc(QN_CHAT_CALL_BYTES_MAX);
    p->json = qn_mapping_alloc(p->json_bytes_max);
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
    qn_mapping_free((*parser)->call, QN_CHAT_CALL_BYTES_MAX);
    qn_mapping_free((*parser)->json, (*parser)->json_bytes_max);
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

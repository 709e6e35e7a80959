/* SPDX-License-Identifier: Apache-2.0 */
#include "chat/schema.h"

#include "base/try.h"
#include "chat/chat.h"

#include <errno.h>

enum {
    /* Members and elements looked at for one argument, and schemas inside each other: a $ref may
     * lead in circles. */
    STEPS_MAX = 10000,
    DEPTH_MAX = 64,
    KEY_BYTES_MAX = 256, /* of one key in a $ref, and of the '/' before it */
};

struct qn_chat_tools {
    qn_json_doc doc;
    size_t len;
    char text[]; /* [len] what doc borrows */
};

/* --------------------------------------------------------------------------------------- tools */

qn_status qn_chat_tools_open(qn_chat_tools **out, qn_str json, qn_error *err)
{
    qn_status status = QN_OK;
    *out = NULL;
    qn_chat_tools *tools = calloc(1, sizeof *tools + json.len);
    if (tools == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "tools: no memory for %zu bytes",
                       json.len);
    }
    tools->len = json.len;
    if (json.len > 0) {
        memcpy(tools->text, json.ptr, json.len);
    }
    QN_TRY(status, qn_json_doc_open(&tools->doc, (qn_str){tools->text, json.len}, "tools", err),
           fail);
    QN_TRY(status, qn_chat_tools_check(tools->doc.nodes, err), fail);
    *out = tools;
    return QN_OK;

fail:
    qn_chat_tools_close(&tools);
    return status;
}

void qn_chat_tools_close(qn_chat_tools **tools)
{
    if (tools == NULL || *tools == NULL) {
        return;
    }
    qn_json_doc_close(&(*tools)->doc);
    free(*tools);
    *tools = NULL;
}

const qn_json_node *qn_chat_tools_find(const qn_chat_tools *tools, qn_str name)
{
    const qn_json_node *tool = tools->doc.nodes + 1;
    for (uint32_t i = 0; i < tools->doc.nodes->n_children; i++, tool = qn_json_after(tool)) {
        if (qn_json_string_is(qn_json_member(qn_chat_tool_function(tool), "name"), name)) {
            return tool;
        }
    }
    return NULL;
}

/* --------------------------------------------------------------------------------------- kinds */

/* One argument's schema being read. */
typedef struct search {
    const qn_json_node *root; /* what "#" means */
    uint32_t n_left;          /* of STEPS_MAX */
    uint32_t depth;           /* of the schema being read */
} search;

static uint32_t kinds_of_schema(search *s, const qn_json_node *schema);

static bool take_step(search *s)
{
    if (s->n_left == 0) {
        return false;
    }
    s->n_left--;
    return true;
}

/* 5, 5.0, 50e-1: the last digit other than 0 stands before the point. */
static bool is_whole(qn_str number)
{
    int64_t n_digits = 0;        /* of the mantissa */
    int64_t n_significant = 0;   /* of them, up to the last that is not 0 */
    int64_t n_before_point = -1; /* of them; -1: no point yet */
    int64_t exponent = 0;
    size_t i = 0;
    for (; i < number.len && (number.ptr[i] | 0x20) != 'e'; i++) {
        if (number.ptr[i] == '.') {
            n_before_point = n_digits;
        } else if (number.ptr[i] != '-') {
            n_digits++;
            n_significant = number.ptr[i] != '0' ? n_digits : n_significant;
        }
    }
    const bool is_negative = i + 1 < number.len && number.ptr[i + 1] == '-';
    for (; i < number.len; i++) {
        const bool is_digit = number.ptr[i] >= '0' && number.ptr[i] <= '9';
        if (is_digit && exponent < INT64_MAX / 100) {
            exponent = exponent * 10 + (number.ptr[i] - '0');
        }
    }
    n_before_point = n_before_point < 0 ? n_digits : n_before_point;
    return n_significant <= n_before_point + (is_negative ? -exponent : exponent) ||
           n_significant == 0;
}

static uint32_t kind_of(qn_json_kind kind, qn_str text)
{
    switch (kind) {
    case QN_JSON_NULL: return QN_CHAT_NULL;
    case QN_JSON_FALSE:
    case QN_JSON_TRUE: return QN_CHAT_BOOLEAN;
    case QN_JSON_NUMBER: return is_whole(text) ? QN_CHAT_INTEGER : QN_CHAT_FRACTION;
    case QN_JSON_STRING: return QN_CHAT_STRING;
    case QN_JSON_ARRAY: return QN_CHAT_ARRAY;
    case QN_JSON_OBJECT: return QN_CHAT_OBJECT;
    }
    return 0;
}

static const struct {
    const char *name;
    uint32_t kinds;
} types[] = {
    {"string", QN_CHAT_STRING},   {"number", QN_CHAT_NUMBER}, {"integer", QN_CHAT_INTEGER},
    {"boolean", QN_CHAT_BOOLEAN}, {"array", QN_CHAT_ARRAY},   {"object", QN_CHAT_OBJECT},
    {"null", QN_CHAT_NULL},
};
enum { N_TYPES = sizeof types / sizeof types[0] };

/* "type": its name; a type that nobody knows may be anything */
static uint32_t kinds_of_type(search *s, const qn_json_node *type)
{
    (void)s;
    for (size_t i = 0; i < N_TYPES; i++) {
        if (qn_json_string_is(type, qn_str_of(types[i].name))) {
            return types[i].kinds;
        }
    }
    return QN_CHAT_ANY;
}

static uint32_t kinds_of_value(search *s, const qn_json_node *value)
{
    (void)s;
    return kind_of(value->kind, value->text);
}

typedef uint32_t kinds_fn(search *s, const qn_json_node *node);

/* What any element of a list permits. */
static uint32_t kinds_of_any(search *s, const qn_json_node *list, kinds_fn *kinds_of)
{
    uint32_t kinds = 0;
    const qn_json_node *node = list + 1;
    if (list->kind != QN_JSON_ARRAY) {
        return QN_CHAT_ANY;
    }
    for (uint32_t i = 0; i < list->n_children && take_step(s); i++, node = qn_json_after(node)) {
        kinds |= kinds_of(s, node);
    }
    return kinds;
}

static uint32_t kinds_of_all(search *s, const qn_json_node *list)
{
    uint32_t kinds = QN_CHAT_ANY;
    const qn_json_node *node = list + 1;
    if (list->kind != QN_JSON_ARRAY) {
        return QN_CHAT_ANY;
    }
    for (uint32_t i = 0; i < list->n_children && take_step(s); i++, node = qn_json_after(node)) {
        kinds &= kinds_of_schema(s, node);
    }
    return kinds;
}

static const qn_json_node *find_member(search *s, const qn_json_node *object, qn_str key)
{
    const qn_json_node *node = object + 1;
    if (object->kind != QN_JSON_OBJECT) {
        return NULL;
    }
    for (uint32_t i = 0; i < object->n_children && take_step(s); i++) {
        if (qn_json_string_is(node, key)) {
            return node + 1;
        }
        node = qn_json_after(node + 1);
    }
    return NULL;
}

/* One key of a JSON pointer (RFC 6901): ~1 is '/', ~0 is '~'.  Bytes written, at most as read. */
static size_t unescape(char *out, qn_str segment)
{
    size_t len = 0;
    for (size_t i = 0; i < segment.len; i++) {
        out[len] = segment.ptr[i];
        if (segment.ptr[i] == '~' && i + 1 < segment.len) {
            out[len] = segment.ptr[++i] == '1' ? '/' : '~';
        }
        len++;
    }
    return len;
}

/* "$ref": "#/$defs/NAME", within the parameters */
static uint32_t kinds_of_ref(search *s, const qn_json_node *ref)
{
    const qn_json_node *target = s->root;
    const size_t len = ref->text.len;
    if (ref->kind != QN_JSON_STRING || len < 3 || ref->text.ptr[1] != '#' ||
        memchr(ref->text.ptr, '\\', len) != NULL) {
        return QN_CHAT_ANY;
    }
    qn_str path = {ref->text.ptr + 2, len - 3}; /* without quotes and '#' */
    while (path.len > 0 && target != NULL) {
        char key[KEY_BYTES_MAX];
        const char *const slash = memchr(path.ptr + 1, '/', path.len - 1);
        const size_t n = slash != NULL ? (size_t)(slash - path.ptr) : path.len;
        if (path.ptr[0] != '/' || n > sizeof key) {
            return QN_CHAT_ANY;
        }
        target =
            find_member(s, target, (qn_str){key, unescape(key, (qn_str){path.ptr + 1, n - 1})});
        path = (qn_str){path.ptr + n, path.len - n};
    }
    return target != NULL ? kinds_of_schema(s, target) : QN_CHAT_ANY;
}

/* What one keyword of a schema permits. */
static uint32_t kinds_of_keyword(search *s, const qn_json_node *key, const qn_json_node *value)
{
    const bool is_list = value->kind == QN_JSON_ARRAY;
    if (qn_json_string_is(key, qn_str_of("type"))) {
        return is_list ? kinds_of_any(s, value, kinds_of_type) : kinds_of_type(s, value);
    }
    if (qn_json_string_is(key, qn_str_of("enum"))) {
        return kinds_of_any(s, value, kinds_of_value);
    }
    if (qn_json_string_is(key, qn_str_of("const"))) {
        return kinds_of_value(s, value);
    }
    if (qn_json_string_is(key, qn_str_of("anyOf")) || qn_json_string_is(key, qn_str_of("oneOf"))) {
        return kinds_of_any(s, value, kinds_of_schema);
    }
    if (qn_json_string_is(key, qn_str_of("allOf"))) {
        return kinds_of_all(s, value);
    }
    if (qn_json_string_is(key, qn_str_of("$ref"))) {
        return kinds_of_ref(s, value);
    }
    return QN_CHAT_ANY;
}

static uint32_t kinds_of_schema(search *s, const qn_json_node *schema)
{
    uint32_t kinds = QN_CHAT_ANY;
    bool is_nullable = false; /* OpenAPI 3.0's word for one more type */
    const qn_json_node *key = schema + 1;
    if (schema->kind != QN_JSON_OBJECT || s->depth == DEPTH_MAX) {
        return QN_CHAT_ANY;
    }
    s->depth++;
    for (uint32_t i = 0; i < schema->n_children && take_step(s); i++) {
        kinds &= kinds_of_keyword(s, key, key + 1);
        is_nullable = is_nullable || (qn_json_string_is(key, qn_str_of("nullable")) &&
                                      key[1].kind == QN_JSON_TRUE);
        key = qn_json_after(key + 1);
    }
    s->depth--;
    return kinds | (is_nullable ? QN_CHAT_NULL : 0);
}

uint32_t qn_chat_tool_kinds(const qn_json_node *tool, qn_str argument)
{
    const qn_json_node *const parameters =
        tool != NULL ? qn_json_member(qn_chat_tool_function(tool), "parameters") : NULL;
    const qn_json_node *const properties = qn_json_member(parameters, "properties");
    search s = {.root = parameters, .n_left = STEPS_MAX};
    const qn_json_node *const schema =
        properties != NULL ? find_member(&s, properties, argument) : NULL;
    if (schema == NULL) {
        return QN_CHAT_ANY;
    }
    s.n_left = STEPS_MAX;
    const uint32_t kinds = kinds_of_schema(&s, schema);
    return kinds != 0 && s.n_left > 0 ? kinds : QN_CHAT_ANY;
}

/* -------------------------------------------------------------------------------------- values */

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

qn_str qn_chat_trim_left(qn_str text)
{
    while (text.len > 0 && is_space(text.ptr[0])) {
        text.ptr++;
        text.len--;
    }
    return text;
}

qn_str qn_chat_trim(qn_str text)
{
    text = qn_chat_trim_left(text);
    while (text.len > 0 && is_space(text.ptr[text.len - 1])) {
        text.len--;
    }
    return text;
}

/* Python's names of JSON's literals; where a string is permitted too they are words like others. */
static qn_str from_python(qn_str word, uint32_t kinds)
{
    static const struct {
        const char *python;
        const char *json;
        uint32_t kind;
    } words[] = {
        {"True", "true", QN_CHAT_BOOLEAN},
        {"False", "false", QN_CHAT_BOOLEAN},
        {"None", "null", QN_CHAT_NULL},
    };
    for (size_t i = 0; i < sizeof words / sizeof words[0] && (kinds & QN_CHAT_STRING) == 0; i++) {
        if ((kinds & words[i].kind) != 0 && qn_str_equal(word, qn_str_of(words[i].python))) {
            return qn_str_of(words[i].json);
        }
    }
    return word;
}

qn_chat_value qn_chat_value_read(qn_str written, uint32_t kinds)
{
    const qn_chat_value string = {.text = written, .fits = (kinds & QN_CHAT_STRING) != 0};
    if (kinds == QN_CHAT_STRING) {
        return string;
    }
    qn_json_kind kind = QN_JSON_NULL;
    const qn_str text = from_python(qn_chat_trim(written), kinds);
    const bool is_json = qn_json_scan(text, &kind);
    const uint32_t others = kinds & ~(uint32_t)QN_CHAT_STRING;
    const bool fits = is_json && (kind_of(kind, text) & others) != 0;
    if (fits || (is_json && !string.fits)) {
        return (qn_chat_value){.text = text, .is_json = true, .fits = fits};
    }
    return string;
}

bool qn_chat_value_is_string(char first, uint32_t kinds)
{
    uint32_t others = 0; /* kinds, but for strings, whose JSON may begin so */
    switch (first) {
    case '{': others = QN_CHAT_OBJECT; break;
    case '[': others = QN_CHAT_ARRAY; break;
    case 't':
    case 'f': others = QN_CHAT_BOOLEAN; break;
    case 'n': others = QN_CHAT_NULL; break;
    default: others = first == '-' || (first >= '0' && first <= '9') ? QN_CHAT_NUMBER : 0; break;
    }
    return (kinds & QN_CHAT_STRING) != 0 && (kinds & others) == 0;
}

void qn_chat_kinds_show(char *out, size_t out_bytes, uint32_t kinds)
{
    size_t len = 0;
    out[0] = '\0';
    kinds |= (kinds & QN_CHAT_FRACTION) != 0 ? QN_CHAT_INTEGER : 0; /* together a number */
    for (size_t i = 0; i < N_TYPES; i++) {
        if (types[i].kinds == (kinds & types[i].kinds) && len < out_bytes) {
            len += (size_t)snprintf(out + len, out_bytes - len, "%s%s", len > 0 ? " or " : "",
                                    types[i].name);
            kinds &= ~types[i].kinds; /* a number is no integer beside */
        }
    }
}

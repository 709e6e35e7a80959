/* SPDX-License-Identifier: Apache-2.0 */
/* JSON text to libjansson's values (RFC 8259).  Its own json_loadb() is not used for text from
 * outside, because 2.14 reports a failed allocation inside a string as a syntax error and drops the
 * byte for which its token buffer could not grow. */
#include "base/json.h"

#include "base/buf.h"

#include <errno.h>
#include <locale.h>
#include <math.h>

enum {
    NUMBER_BYTES = 128, /* the longest number that is read */
};

typedef struct parser {
    const char *begin;
    const char *next;
    const char *end;
    const char *what;  /* names the text in errors */
    qn_buf word;       /* the string read last */
    uint32_t depth;    /* of the value being read */
    uint32_t n_values; /* begun so far */
    qn_error *err;
} parser;

static qn_status parse_value(parser *p, json_t **out);

/* "WHAT: line, column: seen, expected" at p->next */
static qn_status refuse(const parser *p, const char *expected)
{
    size_t line = 1;
    const char *line_begin = p->begin;
    for (const char *at = p->begin; at < p->next; at++) {
        if (*at == '\n') {
            line++;
            line_begin = at + 1;
        }
    }
    char seen[16] = "the end";
    if (p->next < p->end && *p->next == '\0') {
        (void)snprintf(seen, sizeof seen, "a NUL");
    } else if (p->next < p->end) {
        (void)snprintf(seen, sizeof seen, "'%c'", *p->next);
    }
    return qn_fail(p->err, QN_E_FORMAT, 0, "qn_json_parse",
                   "%s: line %zu, column %zu: %s, %s expected", p->what, line,
                   (size_t)(p->next - line_begin) + 1, seen, expected);
}

static qn_status no_memory(const parser *p)
{
    return qn_fail(p->err, QN_E_NOMEM, ENOMEM, "qn_json_parse", "%s: no memory to parse it",
                   p->what);
}

/* The next byte; 0 at the end, which no rule of the grammar accepts. */
static char peek(const parser *p)
{
    if (p->next == p->end) {
        return '\0';
    }
    return *p->next;
}

static void skip_space(parser *p)
{
    while (peek(p) == ' ' || peek(p) == '\t' || peek(p) == '\n' || peek(p) == '\r') {
        p->next++;
    }
}

static qn_status parse_literal(parser *p, const char *word, json_t *value, json_t **out)
{
    const size_t len = strlen(word);
    if ((size_t)(p->end - p->next) < len || memcmp(p->next, word, len) != 0) {
        return refuse(p, "a value");
    }
    p->next += len;
    *out = value;
    return QN_OK;
}

/* At least one digit; moves on behind the last. */
static bool skip_digits(parser *p)
{
    const char *const before = p->next;
    while (peek(p) >= '0' && peek(p) <= '9') {
        p->next++;
    }
    return p->next > before;
}

/* -?int frac? exp?  *is_whole where there is neither frac nor exp. */
static bool skip_number(parser *p, bool *is_whole)
{
    const char *const before = p->next;
    p->next += peek(p) == '-' ? 1 : 0;
    const bool starts_in_zero = peek(p) == '0';
    const char *const digits = p->next;
    if (!skip_digits(p)) {
        return false;
    }
    if (starts_in_zero && p->next > digits + 1) {
        p->next = digits + 1;
        return false;
    }
    *is_whole = true;
    if (peek(p) == '.') {
        p->next++;
        *is_whole = false;
        if (!skip_digits(p)) {
            return false;
        }
    }
    if (peek(p) == 'e' || peek(p) == 'E') {
        p->next++;
        *is_whole = false;
        p->next += peek(p) == '+' || peek(p) == '-' ? 1 : 0;
        if (!skip_digits(p)) {
            return false;
        }
    }
    if (p->next - before >= NUMBER_BYTES) {
        p->next = before;
        return false;
    }
    return true;
}

static qn_status parse_number(parser *p, json_t **out)
{
    const char *const before = p->next;
    bool is_whole = false;
    if (!skip_number(p, &is_whole)) {
        return refuse(p, "a digit of a number of at most 127 characters");
    }
    char text[NUMBER_BYTES] = {0};
    memcpy(text, before, (size_t)(p->next - before));
    char *const point = strchr(text, '.');
    if (point != NULL) {
        *point = localeconv()->decimal_point[0]; /* strtod() reads what the locale writes */
    }
    errno = 0;
    const long long whole = is_whole ? strtoll(text, NULL, 10) : 0;
    const double real = is_whole ? 0.0 : strtod(text, NULL);
    if ((is_whole && errno == ERANGE) || isinf(real)) {
        p->next = before;
        return refuse(p, "a number within range");
    }
    *out = is_whole ? json_integer(whole) : json_real(real);
    return *out == NULL ? no_memory(p) : QN_OK;
}

static qn_status append(parser *p, const char *bytes, size_t n_bytes)
{
    return qn_buf_append(&p->word, bytes, n_bytes, NULL) < 0 ? no_memory(p) : QN_OK;
}

/* The four digits behind \u */
static bool parse_hex(parser *p, uint32_t *out)
{
    *out = 0;
    for (int i = 0; i < 4; i++, p->next++) {
        static const char digits[] = "0123456789abcdef0123456789ABCDEF";
        const char *const digit = peek(p) == '\0' ? NULL : strchr(digits, peek(p));
        if (digit == NULL) {
            return false;
        }
        *out = *out << 4 | (uint32_t)((digit - digits) % 16);
    }
    return true;
}

/* Behind "\u": one code point, perhaps as a pair of surrogates. */
static qn_status parse_unicode(parser *p)
{
    uint32_t code = 0;
    uint32_t low = 0;
    if (!parse_hex(p, &code)) {
        return refuse(p, "a hexadecimal digit");
    }
    if (code >= 0xd800 && code < 0xdc00) {
        const bool has_low = p->end - p->next >= 2 && memcmp(p->next, "\\u", 2) == 0;
        p->next += has_low ? 2 : 0;
        if (!has_low || !parse_hex(p, &low) || low < 0xdc00 || low > 0xdfff) {
            return refuse(p, "the second half of a surrogate pair before it");
        }
        code = 0x10000 + ((code - 0xd800) << 10 | (low - 0xdc00));
    } else if ((code >= 0xdc00 && code < 0xe000) || code == 0) {
        return refuse(p, "a character other than NUL or half a pair before it");
    }
    char out[4];
    const uint32_t len = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (uint32_t i = len - 1; i > 0; i--, code >>= 6) {
        out[i] = (char)(0x80 | (code & 0x3f));
    }
    static const uint8_t first[] = {0, 0, 0xc0, 0xe0, 0xf0};
    out[0] = (char)(first[len] | code);
    return append(p, out, len);
}

/* Behind the backslash. */
static qn_status parse_escape(parser *p)
{
    static const char letters[] = "\"\\/bfnrt";
    static const char meanings[] = "\"\\/\b\f\n\r\t";
    if (peek(p) == 'u') {
        p->next++;
        return parse_unicode(p);
    }
    const char *const letter = peek(p) == '\0' ? NULL : strchr(letters, peek(p));
    if (letter == NULL) {
        return refuse(p, "one of \"\\/bfnrtu");
    }
    p->next++;
    return append(p, &meanings[letter - letters], 1);
}

/* A string into p->word. */
static qn_status parse_string(parser *p)
{
    if (peek(p) != '"') {
        return refuse(p, "a string");
    }
    p->next++;
    qn_buf_clear(&p->word);
    qn_status status = append(p, "", 0);
    while (status == QN_OK && peek(p) != '"') {
        if (peek(p) == '\\') {
            p->next++;
            status = parse_escape(p);
            continue;
        }
        const char *const piece = p->next;
        while (p->next < p->end && *p->next != '"' && *p->next != '\\') {
            const size_t len = qn_utf8_len((const uint8_t *)p->next, (size_t)(p->end - p->next));
            if (len == 0 || (uint8_t)*p->next < 0x20) {
                return refuse(p, "UTF-8 without control characters");
            }
            p->next += len;
        }
        if (p->next == p->end) {
            return refuse(p, "\" behind the string");
        }
        status = append(p, piece, (size_t)(p->next - piece));
    }
    p->next += status == QN_OK ? 1 : 0;
    return status;
}

/* Behind an element: takes ',' or @p close; *is_last where it was @p close. */
static qn_status parse_separator(parser *p, char close, bool *is_last)
{
    skip_space(p);
    *is_last = peek(p) == close;
    if (!*is_last && peek(p) != ',') {
        return refuse(p, close == ']' ? "',' or ']'" : "',' or '}'");
    }
    p->next++;
    return QN_OK;
}

/* One value behind '[' or ','. */
static qn_status parse_element(parser *p, json_t *array)
{
    json_t *value = NULL;
    const qn_status status = parse_value(p, &value);
    if (status == QN_OK && json_array_append_new(array, value) != 0) {
        return no_memory(p);
    }
    return status;
}

/* One "key": value behind '{' or ','. */
static qn_status parse_member(parser *p, json_t *object)
{
    skip_space(p);
    const char *const at_key = p->next;
    qn_status status = parse_string(p);
    if (status < 0) {
        return status;
    }
    if (json_object_get(object, p->word.ptr) != NULL) {
        p->next = at_key;
        return refuse(p, "a key that is not in the object already");
    }
    char *const key = strdup(p->word.ptr);
    if (key == NULL) {
        return no_memory(p);
    }
    skip_space(p);
    json_t *value = NULL;
    if (peek(p) != ':') {
        status = refuse(p, "':'");
    } else {
        p->next++;
        status = parse_value(p, &value);
    }
    if (status == QN_OK && json_object_set_new_nocheck(object, key, value) != 0) {
        status = no_memory(p);
    }
    free(key);
    return status;
}

/* A list or an object: @p parse_item reads each item. */
static qn_status parse_items(parser *p, json_t *container, char close,
                             qn_status (*parse_item)(parser *p, json_t *container), json_t **out)
{
    if (container == NULL) {
        return no_memory(p);
    }
    p->next++;
    skip_space(p);
    bool is_last = peek(p) == close;
    p->next += is_last ? 1 : 0;
    qn_status status = QN_OK;
    while (status == QN_OK && !is_last) {
        status = parse_item(p, container);
        if (status == QN_OK) {
            status = parse_separator(p, close, &is_last);
        }
    }
    if (status < 0) {
        json_decref(container);
        return status;
    }
    *out = container;
    return QN_OK;
}

static qn_status parse_nested(parser *p, json_t **out)
{
    switch (peek(p)) {
    case '{': return parse_items(p, json_object(), '}', parse_member, out);
    case '[': return parse_items(p, json_array(), ']', parse_element, out);
    case 't': return parse_literal(p, "true", json_true(), out);
    case 'f': return parse_literal(p, "false", json_false(), out);
    case 'n': return parse_literal(p, "null", json_null(), out);
    case '"': {
        const qn_status status = parse_string(p);
        if (status == QN_OK) {
            *out = json_stringn_nocheck(p->word.ptr, p->word.len);
        }
        return status == QN_OK && *out == NULL ? no_memory(p) : status;
    }
    default: break;
    }
    const bool is_number = peek(p) == '-' || (peek(p) >= '0' && peek(p) <= '9');
    return is_number ? parse_number(p, out) : refuse(p, "a value");
}

static qn_status parse_value(parser *p, json_t **out)
{
    skip_space(p);
    if (p->depth >= QN_JSON_DEPTH_MAX) {
        return refuse(p, "fewer levels of nesting");
    }
    if (p->n_values++ >= QN_JSON_VALUES_MAX) {
        char expected[32];
        (void)snprintf(expected, sizeof expected, "at most %d values", QN_JSON_VALUES_MAX);
        return refuse(p, expected);
    }
    p->depth++;
    const qn_status status = parse_nested(p, out);
    p->depth--;
    return status;
}

qn_status qn_json_parse(json_t **out, qn_str text, const char *what, qn_error *err)
{
    *out = NULL;
    if (text.len == 0) {
        text.ptr = "";
    }
    parser p = {
        .begin = text.ptr,
        .next = text.ptr,
        .end = text.ptr + text.len,
        .what = what,
        .err = err,
    };
    qn_buf_init(&p.word, text.len);
    json_t *value = NULL;
    qn_status status = parse_value(&p, &value);
    if (status == QN_OK) {
        skip_space(&p);
        if (p.next < p.end) {
            status = refuse(&p, "nothing behind the value");
        }
    }
    qn_buf_deinit(&p.word);
    if (status < 0) {
        json_decref(value);
        return status;
    }
    *out = value;
    return QN_OK;
}

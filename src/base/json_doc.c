/* SPDX-License-Identifier: Apache-2.0 */
/* JSON text to nodes (RFC 8259), and nodes to text.  qn_json_scan() is the same walk over the text
 * that keeps nothing, so the rules exist once. */
#include "base/json_doc.h"

#include "base/try.h"

#include <errno.h>

/* A key of an object, while its keys are compared. */
typedef struct member_key {
    uint64_t hash; /* spares most comparisons of bytes */
    const qn_json_node *node;
} member_key;

/* A walk over the text. */
typedef struct walk {
    qn_str text;
    const char *next;
    const char *end;
    const char *what;  /* names the text in errors */
    qn_json_doc *doc;  /* NULL: nothing is kept */
    uint32_t capacity; /* nodes there is room for */
    member_key *keys;  /* of one object; owned */
    uint32_t keys_capacity;
    uint32_t depth;    /* of the value being read */
    uint32_t n_values; /* begun so far */
    bool lets_keys_repeat;
    qn_error *err;
} walk;

static qn_status walk_value(walk *w);

qn_status qn_json_refuse(qn_str text, const char *at, const char *what, const char *expected,
                         qn_error *err)
{
    size_t line = 1;
    const char *line_begin = text.ptr;
    if (err == NULL) {
        return QN_E_FORMAT; /* so that a scan does not count lines */
    }
    for (const char *c = text.ptr; c < at; c++) {
        if (*c == '\n') {
            line++;
            line_begin = c + 1;
        }
    }
    char seen[16] = "the end";
    if (at < text.ptr + text.len && *at == '\0') {
        (void)snprintf(seen, sizeof seen, "a NUL");
    } else if (at < text.ptr + text.len) {
        (void)snprintf(seen, sizeof seen, "'%c'", *at);
    }
    return qn_fail(err, QN_E_FORMAT, 0, __func__, "%s: line %zu, column %zu: %s, %s expected", what,
                   line, (size_t)(at - line_begin) + 1, seen, expected);
}

static qn_status refuse(const walk *w, const char *expected)
{
    return qn_json_refuse(w->text, w->next, w->what, expected, w->err);
}

static qn_status no_memory(const walk *w)
{
    return qn_fail(w->err, QN_E_NOMEM, ENOMEM, __func__, "%s: no memory to parse it", w->what);
}

/* -------------------------------------------------------------------------------------- lexing */

/* The next byte; 0 at the end, which no rule of the grammar accepts. */
static char peek(const walk *w)
{
    if (w->next == w->end) {
        return '\0';
    }
    return *w->next;
}

static void skip_space(walk *w)
{
    while (peek(w) == ' ' || peek(w) == '\t' || peek(w) == '\n' || peek(w) == '\r') {
        w->next++;
    }
}

static qn_status walk_literal(walk *w, const char *word)
{
    const size_t len = strlen(word);
    if ((size_t)(w->end - w->next) < len || memcmp(w->next, word, len) != 0) {
        return refuse(w, "a value");
    }
    w->next += len;
    return QN_OK;
}

/* At least one digit; moves on behind the last. */
static qn_status walk_digits(walk *w)
{
    const char *const before = w->next;
    while (peek(w) >= '0' && peek(w) <= '9') {
        w->next++;
    }
    return w->next > before ? QN_OK : refuse(w, "a digit");
}

/* -?int frac? exp? */
static qn_status walk_number(walk *w)
{
    qn_status status = QN_OK;
    w->next += peek(w) == '-' ? 1 : 0;
    const char *const digits = w->next;
    QN_TRY(status, walk_digits(w), fail);
    if (*digits == '0' && w->next > digits + 1) {
        w->next = digits + 1;
        return refuse(w, "a digit that does not follow a leading 0");
    }
    if (peek(w) == '.') {
        w->next++;
        QN_TRY(status, walk_digits(w), fail);
    }
    if (peek(w) == 'e' || peek(w) == 'E') {
        w->next++;
        w->next += peek(w) == '+' || peek(w) == '-' ? 1 : 0;
        QN_TRY(status, walk_digits(w), fail);
    }
fail:
    return status;
}

/* The four digits behind \u; NULL, or what was expected at *next. */
static const char *read_hex(const char **next, const char *end, uint32_t *out)
{
    static const char digits[] = "0123456789abcdef0123456789ABCDEF";
    *out = 0;
    for (int i = 0; i < 4; i++, (*next)++) {
        const char *const digit = *next == end || **next == '\0' ? NULL : strchr(digits, **next);
        if (digit == NULL) {
            return "a hexadecimal digit";
        }
        *out = *out << 4 | (uint32_t)((digit - digits) % 16);
    }
    return NULL;
}

/* Behind "\u": one code point, perhaps as a pair of surrogates.  As read_hex(). */
static const char *read_code(const char **next, const char *end, uint32_t *code)
{
    uint32_t low = 0;
    const char *expected = read_hex(next, end, code);
    if (expected != NULL) {
        return expected;
    }
    if (*code >= 0xd800 && *code < 0xdc00) {
        const bool has_low = end - *next >= 2 && memcmp(*next, "\\u", 2) == 0;
        *next += has_low ? 2 : 0;
        if (!has_low || read_hex(next, end, &low) != NULL || low < 0xdc00 || low > 0xdfff) {
            return "the second half of a surrogate pair before it";
        }
        *code = 0x10000 + ((*code - 0xd800) << 10 | (low - 0xdc00));
    } else if ((*code >= 0xdc00 && *code < 0xe000) || *code == 0) {
        return "a character other than NUL or half a pair before it";
    }
    return NULL;
}

/* Behind a backslash: the bytes that the escape stands for.  As read_hex(). */
static const char *read_escape(const char **next, const char *end, char out[4], size_t *len)
{
    static const char letters[] = "\"\\/bfnrt";
    static const char meanings[] = "\"\\/\b\f\n\r\t";
    if (*next < end && **next == 'u') {
        uint32_t code = 0;
        (*next)++;
        const char *const expected = read_code(next, end, &code);
        *len = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
        static const uint8_t first[] = {0, 0, 0xc0, 0xe0, 0xf0};
        for (size_t i = *len - 1; i > 0; i--, code >>= 6) {
            out[i] = (char)(0x80 | (code & 0x3f));
        }
        out[0] = (char)(first[*len] | code);
        return expected;
    }
    const char *const letter = *next == end || **next == '\0' ? NULL : strchr(letters, **next);
    if (letter == NULL) {
        return "one of \"\\/bfnrtu";
    }
    (*next)++;
    out[0] = meanings[letter - letters];
    *len = 1;
    return NULL;
}

static qn_status walk_string(walk *w)
{
    if (peek(w) != '"') {
        return refuse(w, "a string");
    }
    w->next++;
    while (w->next < w->end && *w->next != '"') {
        if (*w->next == '\\') {
            char out[4];
            size_t len = 0;
            w->next++;
            const char *const expected = read_escape(&w->next, w->end, out, &len);
            if (expected != NULL) {
                return refuse(w, expected);
            }
            continue;
        }
        const size_t len = qn_utf8_len((const uint8_t *)w->next, (size_t)(w->end - w->next));
        if (len == 0 || (uint8_t)*w->next < 0x20) {
            return refuse(w, "UTF-8 without control characters");
        }
        w->next += len;
    }
    if (w->next == w->end) {
        return refuse(w, "\" behind the string");
    }
    w->next++;
    return QN_OK;
}

/* --------------------------------------------------------------------------------------- nodes */

/* A node that begins at w->next; *index is its place. */
static qn_status begin_node(walk *w, qn_json_kind kind, uint32_t *index)
{
    *index = 0;
    if (w->doc == NULL) {
        return QN_OK;
    }
    if (w->doc->n_nodes == w->capacity) {
        const uint32_t capacity = w->capacity == 0 ? 16 : 2 * w->capacity;
        qn_json_node *const nodes = realloc(w->doc->nodes, capacity * sizeof *nodes);
        if (nodes == NULL) {
            return no_memory(w);
        }
        w->doc->nodes = nodes;
        w->capacity = capacity;
    }
    *index = w->doc->n_nodes++;
    w->doc->nodes[*index] = (qn_json_node){.text.ptr = w->next, .kind = kind};
    return QN_OK;
}

static void end_node(walk *w, uint32_t index, uint32_t n_children)
{
    if (w->doc != NULL) {
        qn_json_node *const node = &w->doc->nodes[index];
        node->text.len = (size_t)(w->next - node->text.ptr);
        node->n_children = n_children;
        node->n_nodes = w->doc->n_nodes - index;
    }
}

/* Take from the inside of a string: a run of bytes, or what an escape stands for (in @p room). */
static qn_str take_piece(qn_str *rest, char room[4])
{
    const char *next = rest->ptr;
    const char *const end = rest->ptr + rest->len;
    qn_str piece = {.ptr = room};
    if (rest->len > 0 && *next == '\\') {
        next++;
        (void)read_escape(&next, end, room, &piece.len); /* was read before */
    } else {
        const char *const escape = memchr(next, '\\', rest->len);
        next = escape != NULL ? escape : end;
        piece = (qn_str){.ptr = rest->ptr, .len = (size_t)(next - rest->ptr)};
    }
    *rest = (qn_str){.ptr = next, .len = (size_t)(end - next)};
    return piece;
}

static qn_str inside(const qn_json_node *string)
{
    return (qn_str){.ptr = string->text.ptr + 1, .len = string->text.len - 2};
}

int qn_json_string_compare(const qn_json_node *x, const qn_json_node *y)
{
    char rooms[2][4];
    qn_str a_rest = inside(x);
    qn_str b_rest = inside(y);
    qn_str a = {0};
    qn_str b = {0};
    for (;;) {
        a = a.len == 0 ? take_piece(&a_rest, rooms[0]) : a;
        b = b.len == 0 ? take_piece(&b_rest, rooms[1]) : b;
        const size_t len = a.len < b.len ? a.len : b.len;
        const int order = len == 0 ? (a.len > 0) - (b.len > 0) : memcmp(a.ptr, b.ptr, len);
        if (order != 0 || len == 0) {
            return order;
        }
        a = (qn_str){.ptr = a.ptr + len, .len = a.len - len};
        b = (qn_str){.ptr = b.ptr + len, .len = b.len - len};
    }
}

/* Of what a string stands for, by FNV-1a. */
static uint64_t hash_string(const qn_json_node *string)
{
    char room[4];
    uint64_t hash = 14695981039346656037ULL;
    for (qn_str rest = inside(string); rest.len > 0;) {
        const qn_str piece = take_piece(&rest, room);
        for (size_t i = 0; i < piece.len; i++) {
            hash = (hash ^ (uint8_t)piece.ptr[i]) * 1099511628211ULL;
        }
    }
    return hash;
}

static bool is_same_key(const member_key *x, const member_key *y)
{
    return x->hash == y->hash && qn_json_string_compare(x->node, y->node) == 0;
}

/* For qsort(): equal keys stand together, in the order of the text. */
static int compare_keys(const void *a, const void *b)
{
    const member_key *const x = a;
    const member_key *const y = b;
    if (x->hash != y->hash) {
        return x->hash < y->hash ? -1 : 1;
    }
    const int order = qn_json_string_compare(x->node, y->node);
    return order != 0 ? order : (x->node > y->node) - (x->node < y->node);
}

/* Sorted and not in a table of hashes, since an enemy can choose keys that collide. */
static qn_status refuse_duplicates(walk *w, uint32_t index, uint32_t n_members)
{
    if (w->doc == NULL || w->lets_keys_repeat || n_members < 2) {
        return QN_OK;
    }
    if (n_members > w->keys_capacity) {
        member_key *const keys = realloc(w->keys, n_members * sizeof *keys);
        if (keys == NULL) {
            return no_memory(w);
        }
        w->keys = keys;
        w->keys_capacity = n_members;
    }
    const qn_json_node *node = w->doc->nodes + index + 1;
    for (uint32_t i = 0; i < n_members; i++, node = qn_json_after(node + 1)) {
        w->keys[i] = (member_key){.hash = hash_string(node), .node = node};
    }
    qsort(w->keys, n_members, sizeof *w->keys, compare_keys);
    for (uint32_t i = 1; i < n_members; i++) {
        if (is_same_key(&w->keys[i - 1], &w->keys[i])) {
            w->next = w->keys[i].node->text.ptr;
            return refuse(w, "a key that is not in the object already");
        }
    }
    return QN_OK;
}

/* ------------------------------------------------------------------------------------- walking */

/* The key of a member and its colon. */
static qn_status walk_key(walk *w)
{
    qn_status status = QN_OK;
    uint32_t index = 0;
    skip_space(w);
    QN_TRY(status, begin_node(w, QN_JSON_STRING, &index), fail);
    QN_TRY(status, walk_string(w), fail);
    end_node(w, index, 0);
    skip_space(w);
    if (peek(w) != ':') {
        return refuse(w, "':'");
    }
    w->next++;
fail:
    return status;
}

/* Behind an item: takes ',' or @p close; *is_last where it was @p close. */
static qn_status walk_separator(walk *w, char close, bool *is_last)
{
    skip_space(w);
    *is_last = peek(w) == close;
    if (!*is_last && peek(w) != ',') {
        return refuse(w, close == ']' ? "',' or ']'" : "',' or '}'");
    }
    w->next++;
    return QN_OK;
}

/* The items of a list or an object, both brackets included. */
static qn_status walk_items(walk *w, char close, uint32_t *n_items)
{
    w->next++;
    skip_space(w);
    bool is_last = peek(w) == close;
    w->next += is_last ? 1 : 0;
    qn_status status = QN_OK;
    for (; !is_last && status == QN_OK; (*n_items)++) {
        status = close == '}' ? walk_key(w) : QN_OK;
        status = status == QN_OK ? walk_value(w) : status;
        status = status == QN_OK ? walk_separator(w, close, &is_last) : status;
    }
    return status;
}

static qn_status walk_kind(walk *w, qn_json_kind kind, uint32_t *n_children)
{
    switch (kind) {
    case QN_JSON_NULL: return walk_literal(w, "null");
    case QN_JSON_FALSE: return walk_literal(w, "false");
    case QN_JSON_TRUE: return walk_literal(w, "true");
    case QN_JSON_NUMBER: return walk_number(w);
    case QN_JSON_STRING: return walk_string(w);
    case QN_JSON_ARRAY: return walk_items(w, ']', n_children);
    case QN_JSON_OBJECT: return walk_items(w, '}', n_children);
    }
    return refuse(w, "a value");
}

/* By its first byte; false where no value begins so. */
static bool kind_of(char first, qn_json_kind *kind)
{
    static const char firsts[] = "nft-\"[{"; /* in the order of qn_json_kind */
    const bool is_digit = first >= '0' && first <= '9';
    const char *const at = first == '\0' ? NULL : strchr(firsts, is_digit ? '-' : first);
    *kind = at == NULL ? QN_JSON_NULL : (qn_json_kind)(at - firsts);
    return at != NULL;
}

static qn_status walk_value(walk *w)
{
    qn_status status = QN_OK;
    qn_json_kind kind = QN_JSON_NULL;
    uint32_t index = 0;
    uint32_t n_children = 0;
    skip_space(w);
    if (!kind_of(peek(w), &kind)) {
        return refuse(w, "a value");
    }
    if (w->depth >= QN_JSON_DEPTH_MAX) {
        return refuse(w, "fewer levels of nesting");
    }
    if (w->n_values++ >= QN_JSON_VALUES_MAX) {
        char expected[32];
        (void)snprintf(expected, sizeof expected, "at most %d values", QN_JSON_VALUES_MAX);
        return refuse(w, expected);
    }
    w->depth++;
    QN_TRY(status, begin_node(w, kind, &index), fail);
    QN_TRY(status, walk_kind(w, kind, &n_children), fail);
    end_node(w, index, n_children);
    if (kind == QN_JSON_OBJECT) {
        QN_TRY(status, refuse_duplicates(w, index, n_children), fail);
    }
    w->depth--;
fail:
    return status;
}

/* One value that fills the text. */
static qn_status walk_text(walk *w, qn_str text)
{
    w->text = (qn_str){.ptr = text.len > 0 ? text.ptr : "", .len = text.len};
    w->next = w->text.ptr;
    w->end = w->text.ptr + w->text.len;
    const qn_status status = walk_value(w);
    if (status < 0) {
        return status;
    }
    skip_space(w);
    return w->next == w->end ? QN_OK : refuse(w, "nothing behind the value");
}

static qn_status open_doc(walk *w, qn_str text)
{
    *w->doc = (qn_json_doc){0};
    const qn_status status = walk_text(w, text);
    free(w->keys);
    if (status < 0) {
        qn_json_doc_close(w->doc);
    }
    return status;
}

qn_status qn_json_doc_open(qn_json_doc *out, qn_str text, const char *what, qn_error *err)
{
    walk w = {.what = what, .doc = out, .err = err};
    return open_doc(&w, text);
}

qn_status qn_json_doc_open_lax(qn_json_doc *out, qn_str text, const char *what, qn_error *err)
{
    walk w = {.what = what, .doc = out, .lets_keys_repeat = true, .err = err};
    return open_doc(&w, text);
}

void qn_json_doc_close(qn_json_doc *doc)
{
    free(doc->nodes);
    *doc = (qn_json_doc){0};
}

bool qn_json_scan(qn_str text, qn_json_kind *kind)
{
    walk w = {.what = "", .depth = 1}; /* of what it is to be put into */
    if (walk_text(&w, text) != QN_OK) {
        return false;
    }
    w.next = w.text.ptr;
    skip_space(&w);
    qn_json_kind seen = QN_JSON_NULL;
    (void)kind_of(peek(&w), &seen);
    if (kind != NULL) {
        *kind = seen;
    }
    return true;
}

/* ----------------------------------------------------------------------------------- reading */

const qn_json_node *qn_json_member(const qn_json_node *object, const char *key)
{
    if (object == NULL || object->kind != QN_JSON_OBJECT) {
        return NULL;
    }
    const qn_json_node *at = object + 1;
    for (uint32_t i = 0; i < object->n_children; i++, at = qn_json_after(at + 1)) {
        if (qn_json_string_is(at, qn_str_of(key))) {
            return at + 1;
        }
    }
    return NULL;
}

bool qn_json_string_is(const qn_json_node *node, qn_str bytes)
{
    char room[4];
    if (node == NULL || node->kind != QN_JSON_STRING) {
        return false;
    }
    for (qn_str rest = inside(node); rest.len > 0;) {
        const qn_str piece = take_piece(&rest, room);
        if (piece.len > bytes.len || memcmp(piece.ptr, bytes.ptr, piece.len) != 0) {
            return false;
        }
        bytes = (qn_str){.ptr = bytes.ptr + piece.len, .len = bytes.len - piece.len};
    }
    return bytes.len == 0;
}

qn_status qn_json_string_append(qn_buf *out, const qn_json_node *string, qn_error *err)
{
    char room[4];
    qn_status status = QN_OK;
    for (qn_str rest = inside(string); rest.len > 0 && status == QN_OK;) {
        const qn_str piece = take_piece(&rest, room);
        status = qn_buf_append(out, piece.ptr, piece.len, err);
    }
    return status;
}

/* One piece of a string with the escapes that Python writes: the shortest, and no others. */
static qn_status append_escaped(qn_buf *out, qn_str piece, qn_error *err)
{
    static const char bytes[] = "\"\\\b\f\n\r\t";
    static const char letters[] = "\"\\bfnrt";
    if (piece.len != 1 || ((uint8_t)*piece.ptr >= 0x20 && strchr("\"\\", *piece.ptr) == NULL)) {
        return qn_buf_append(out, piece.ptr, piece.len, err); /* runs hold nothing to escape */
    }
    const char *const at = strchr(bytes, *piece.ptr);
    return at != NULL ? qn_buf_append_printf(out, err, "\\%c", letters[at - bytes])
                      : qn_buf_append_printf(out, err, "\\u%04x", (unsigned)*piece.ptr);
}

static qn_status append_python_string(qn_buf *out, const qn_json_node *string, qn_error *err)
{
    char room[4];
    qn_status status = qn_buf_append(out, "\"", 1, err);
    for (qn_str rest = inside(string); rest.len > 0 && status == QN_OK;) {
        status = append_escaped(out, take_piece(&rest, room), err);
    }
    return status == QN_OK ? qn_buf_append(out, "\"", 1, err) : status;
}

qn_status qn_json_quote_append(qn_buf *out, qn_str bytes, qn_error *err)
{
    qn_status status = qn_buf_append(out, "\"", 1, err);
    for (size_t i = 0; i < bytes.len && status == QN_OK;) {
        const size_t len = qn_utf8_len((const uint8_t *)bytes.ptr + i, bytes.len - i);
        const bool is_good = len > 0 && bytes.ptr[i] != '\0';
        status = append_escaped(
            out, is_good ? (qn_str){bytes.ptr + i, len} : qn_str_of("\xef\xbf\xbd"), err);
        i += is_good ? len : 1;
    }
    return status == QN_OK ? qn_buf_append(out, "\"", 1, err) : status;
}

/* What stands between the brackets. */
static qn_status append_python_items(qn_buf *out, const qn_json_node *node, qn_error *err)
{
    qn_status status = QN_OK;
    const bool is_object = node->kind == QN_JSON_OBJECT;
    const qn_json_node *child = node + 1;
    for (uint32_t i = 0; i < node->n_children && status == QN_OK; i++) {
        status = qn_buf_append(out, ", ", i > 0 ? 2 : 0, err);
        if (is_object && status == QN_OK) {
            status = append_python_string(out, child++, err);
            status = status == QN_OK ? qn_buf_append(out, ": ", 2, err) : status;
        }
        status = status == QN_OK ? qn_json_python_append(out, child, err) : status;
        child = qn_json_after(child);
    }
    return status;
}

qn_status qn_json_python_append(qn_buf *out, const qn_json_node *node, qn_error *err)
{
    qn_status status = QN_OK;
    const char *brackets = node->kind == QN_JSON_OBJECT ? "{}" : "[]";
    if (node->kind == QN_JSON_STRING) {
        return append_python_string(out, node, err);
    }
    if (node->kind < QN_JSON_STRING) {
        return qn_buf_append(out, node->text.ptr, node->text.len, err);
    }
    QN_TRY(status, qn_buf_append(out, brackets, 1, err), fail);
    QN_TRY(status, append_python_items(out, node, err), fail);
    QN_TRY(status, qn_buf_append(out, brackets + 1, 1, err), fail);
fail:
    return status;
}

void qn_json_node_show(char *out, size_t out_bytes, const qn_json_node *node)
{
    if (node == NULL) {
        (void)snprintf(out, out_bytes, "nothing");
    } else if (node->kind == QN_JSON_ARRAY || node->kind == QN_JSON_OBJECT) {
        (void)snprintf(out, out_bytes, "%s", node->kind == QN_JSON_ARRAY ? "a list" : "an object");
    } else {
        const int len = node->text.len < 42 ? (int)node->text.len : 42;
        (void)snprintf(out, out_bytes, "%.*s", len, node->text.ptr);
    }
}

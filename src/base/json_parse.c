/* SPDX-License-Identifier: Apache-2.0 */
/* Nodes to libjansson's values.  Its own json_loadb() is not used for text from outside, because
 * 2.14 reports a failed allocation inside a string as a syntax error and drops the byte for which
 * its token buffer could not grow. */
#include "base/json.h"

#include "base/try.h"

#include <errno.h>
#include <locale.h>
#include <math.h>

enum {
    NUMBER_BYTES = 128, /* the longest number that is read */
};

typedef struct builder {
    qn_str text;
    const char *what; /* names the text in errors */
    qn_buf word;      /* the string read last */
    qn_error *err;
} builder;

static qn_status build_value(builder *b, const qn_json_node *node, json_t **out);

static qn_status no_memory(const builder *b)
{
    return qn_fail(b->err, QN_E_NOMEM, ENOMEM, "qn_json_parse", "%s: no memory to parse it",
                   b->what);
}

static qn_status build_number(builder *b, const qn_json_node *node, json_t **out)
{
    char text[NUMBER_BYTES] = {0};
    if (node->text.len >= sizeof text) {
        return qn_json_refuse(b->text, node->text.ptr, b->what,
                              "a number of at most 127 characters", b->err);
    }
    memcpy(text, node->text.ptr, node->text.len);
    const bool is_whole = strpbrk(text, ".eE") == NULL;
    char *const point = strchr(text, '.');
    if (point != NULL) {
        *point = localeconv()->decimal_point[0]; /* strtod() reads what the locale writes */
    }
    errno = 0;
    const long long whole = is_whole ? strtoll(text, NULL, 10) : 0;
    const double real = is_whole ? 0.0 : strtod(text, NULL);
    if ((is_whole && errno == ERANGE) || isinf(real)) {
        return qn_json_refuse(b->text, node->text.ptr, b->what, "a number within range", b->err);
    }
    *out = is_whole ? json_integer(whole) : json_real(real);
    return *out == NULL ? no_memory(b) : QN_OK;
}

/* A string into b->word, which is NUL-terminated and holds no other NUL. */
static qn_status read_string(builder *b, const qn_json_node *node)
{
    qn_buf_clear(&b->word);
    const bool is_read = qn_buf_append(&b->word, "", 0, NULL) == QN_OK &&
                         qn_json_string_append(&b->word, node, NULL) == QN_OK;
    return is_read ? QN_OK : no_memory(b);
}

/* Children of @p node into @p container, which was just made. */
static qn_status build_items(builder *b, const qn_json_node *node, json_t *container, json_t **out)
{
    const bool is_object = node->kind == QN_JSON_OBJECT;
    *out = container;
    if (container == NULL) {
        return no_memory(b);
    }
    const qn_json_node *child = node + 1;
    for (uint32_t i = 0; i < node->n_children; i++, child = qn_json_after(child)) {
        json_t *value = NULL; /* in part where building it fails */
        const qn_json_node *const key = child;
        child += is_object ? 1 : 0;
        qn_status status = build_value(b, child, &value);
        if (status == QN_OK && is_object) {
            status = read_string(b, key);
        }
        if (status < 0) {
            json_decref(value);
            return status;
        }
        const int failed = is_object ? json_object_set_new_nocheck(container, b->word.ptr, value)
                                     : json_array_append_new(container, value);
        if (failed != 0) {
            return no_memory(b);
        }
    }
    return QN_OK;
}

/* *out is what there is of the value, also on failure. */
static qn_status build_value(builder *b, const qn_json_node *node, json_t **out)
{
    switch (node->kind) {
    case QN_JSON_NULL: *out = json_null(); break;
    case QN_JSON_FALSE: *out = json_false(); break;
    case QN_JSON_TRUE: *out = json_true(); break;
    case QN_JSON_NUMBER: return build_number(b, node, out);
    case QN_JSON_STRING: {
        const qn_status status = read_string(b, node);
        if (status < 0) {
            return status;
        }
        *out = json_stringn_nocheck(b->word.ptr, b->word.len);
        return *out == NULL ? no_memory(b) : QN_OK;
    }
    case QN_JSON_ARRAY: return build_items(b, node, json_array(), out);
    case QN_JSON_OBJECT: return build_items(b, node, json_object(), out);
    }
    return QN_OK;
}

qn_status qn_json_parse(json_t **out, qn_str text, const char *what, qn_error *err)
{
    qn_status status = QN_OK;
    builder b = {.text = text, .what = what, .err = err};
    qn_json_doc doc = {0};
    *out = NULL;
    qn_buf_init(&b.word, text.len);
    QN_TRY(status, qn_json_doc_open(&doc, text, what, err), fail);
    QN_TRY(status, build_value(&b, doc.nodes, out), fail);
fail:
    if (status < 0) {
        json_decref(*out);
        *out = NULL;
    }
    qn_buf_deinit(&b.word);
    qn_json_doc_close(&doc);
    return status;
}

/* SPDX-License-Identifier: Apache-2.0 */
/** @file json_doc.h  JSON that keeps its text: nodes over the source, nothing converted. */
#ifndef QN_BASE_JSON_DOC_H
#define QN_BASE_JSON_DOC_H
#include "base/buf.h"

enum {
    QN_JSON_DEPTH_MAX = 512, /**< Levels of nesting that are read. */
    /** Values that are read.  The largest file known to us, the header of GLM-5.2-FP8's 118,629
     * tensors in one shard, has 950,000, a tokenizer.json 1,100,000. */
    QN_JSON_VALUES_MAX = 1500000,
};

/** What a value is. */
typedef enum qn_json_kind {
    QN_JSON_NULL,
    QN_JSON_FALSE,
    QN_JSON_TRUE,
    QN_JSON_NUMBER,
    QN_JSON_STRING,
    QN_JSON_ARRAY,
    QN_JSON_OBJECT,
} qn_json_kind;

/**
 * A value.  Its children follow it in the array of nodes: an array's elements, or an object's keys
 * (strings) each with its value behind it.  So the first child of a node is node + 1, and the node
 * behind a subtree is node + node->n_nodes.
 */
typedef struct qn_json_node {
    qn_str text;         /**< As written, a string with its quotes; borrowed from the source. */
    uint32_t n_children; /**< Elements or members. */
    uint32_t n_nodes;    /**< Of the subtree, this one included. */
    qn_json_kind kind;
} qn_json_node;

/** A parsed text.  All-zero is closed. */
typedef struct qn_json_doc {
    qn_json_node *nodes; /**< [n_nodes] owned; the first is the value that fills the text. */
    uint32_t n_nodes;
} qn_json_doc;

/**
 * Parse one JSON value that fills @p text, which is borrowed until the document is closed.  RFC
 * 8259, and duplicate keys, broken UTF-8, NUL characters, nesting beyond QN_JSON_DEPTH_MAX and
 * more than QN_JSON_VALUES_MAX values are errors.  Numbers may have any size and precision.
 *
 * @param what  names the input in errors, such as "DIR/config.json"
 * Returns  QN_OK; QN_E_FORMAT with line and column; QN_E_NOMEM; *out is closed on failure
 */
QN_MUST_CHECK qn_status qn_json_doc_open(qn_json_doc *out, qn_str text, const char *what,
                                         qn_error *err);
/** The same, but keys may repeat, as in what a model wrote. */
QN_MUST_CHECK qn_status qn_json_doc_open_lax(qn_json_doc *out, qn_str text, const char *what,
                                             qn_error *err);
/** Free the nodes; closing twice is fine. */
void qn_json_doc_close(qn_json_doc *doc);

/**
 * Is @p text one JSON value, with white space around it or none, that may be put into an object?
 * By the rules above, but that keys may repeat.  Then *kind (if not NULL) is its kind.  Allocates
 * nothing.
 */
bool qn_json_scan(qn_str text, qn_json_kind *kind);

/** The node behind this one and its children: the next element, or the key of the next member. */
static inline const qn_json_node *qn_json_after(const qn_json_node *node)
{
    return node + node->n_nodes;
}

/** The value of a key; NULL where @p object (may be NULL) is no object or lacks the key. */
const qn_json_node *qn_json_member(const qn_json_node *object, const char *key);

/** Is @p node (may be NULL) a string, once its escapes are undone of exactly these bytes? */
bool qn_json_string_is(const qn_json_node *node, qn_str bytes);

/** Bytewise order of what two strings stand for, 0 where they are the same. */
int qn_json_string_compare(const qn_json_node *x, const qn_json_node *y);

/** Append the bytes that a string stands for.  QN_E_NOMEM. */
QN_MUST_CHECK qn_status qn_json_string_append(qn_buf *out, const qn_json_node *string,
                                              qn_error *err);
/**
 * Append a value as Python's json.dumps(value, ensure_ascii=False) prints it: ", " and ": "
 * between items, few escapes.  Only numbers, which keep their text, can differ.  QN_E_NOMEM.
 */
QN_MUST_CHECK qn_status qn_json_python_append(qn_buf *out, const qn_json_node *node, qn_error *err);

/**
 * Append a JSON string of @p bytes, in which what is no UTF-8, or NUL, becomes U+FFFD: qn_json_*
 * reads it.  QN_E_NOMEM.
 */
QN_MUST_CHECK qn_status qn_json_quote_append(qn_buf *out, qn_str bytes, qn_error *err);

/** "nothing" for NULL, "an object", "a list"; the text of a scalar, cut: for an error message. */
void qn_json_node_show(char *out, size_t out_bytes, const qn_json_node *node);

/** QN_E_FORMAT "WHAT: line L, column C: SEEN, EXPECTED expected" for what stands at @p at. */
QN_MUST_CHECK qn_status qn_json_refuse(qn_str text, const char *at, const char *what,
                                       const char *expected, qn_error *err);
#endif

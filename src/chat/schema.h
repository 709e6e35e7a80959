/* SPDX-License-Identifier: Apache-2.0 */
/** @file schema.h  Tools that a model may call: their names, and what their arguments may be. */
#ifndef QN_CHAT_SCHEMA_H
#define QN_CHAT_SCHEMA_H
#include "base/json_doc.h"

/** Kinds of JSON values, as a set. */
enum {
    QN_CHAT_NULL = 1 << 0,
    QN_CHAT_BOOLEAN = 1 << 1,
    QN_CHAT_INTEGER = 1 << 2,  /**< A whole number, written as 5, 5.0 or 5e0. */
    QN_CHAT_FRACTION = 1 << 3, /**< Any other number. */
    QN_CHAT_STRING = 1 << 4,
    QN_CHAT_ARRAY = 1 << 5,
    QN_CHAT_OBJECT = 1 << 6,
    QN_CHAT_NUMBER = QN_CHAT_INTEGER | QN_CHAT_FRACTION,
    QN_CHAT_ANY = (1 << 7) - 1,
};

/** The tools of a request.  Opaque, immutable after open. */
typedef struct qn_chat_tools qn_chat_tools;

/**
 * @param[out] out  owned by the caller; NULL on failure
 * @param json      a JSON array of tools in OpenAI form (copied)
 * Returns  QN_OK; QN_E_FORMAT "tools[i].field: SEEN, EXPECTED"; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_chat_tools_open(qn_chat_tools **out, qn_str json, qn_error *err);
/** Release; sets *tools to NULL; accepts NULL. */
void qn_chat_tools_close(qn_chat_tools **tools);

/** A tool by name, the first of several, borrowed until close; NULL: there is none. */
const qn_json_node *qn_chat_tools_find(const qn_chat_tools *tools, qn_str name);

/**
 * Kinds that @p tool (may be NULL) permits for an argument: by type, enum, const, anyOf, oneOf,
 * allOf, nullable and $ref within the parameters.  QN_CHAT_ANY where nothing is known, where the
 * schema permits nothing, and where finding out takes too long.  Allocates nothing.
 */
uint32_t qn_chat_tool_kinds(const qn_json_node *tool, qn_str argument);

/** How the text of an argument is passed on. */
typedef struct qn_chat_value {
    qn_str text;  /**< JSON, or the bytes of a string; borrowed from what was read or static. */
    bool is_json; /**< Otherwise it becomes a JSON string. */
    bool fits;    /**< Its kind is one of those permitted. */
} qn_chat_value;

/**
 * What the text of an argument means where @p kinds are permitted.  Models write strings as they
 * are and everything else as JSON, so "5" in quotes is a string of three characters.
 *
 * - One JSON value of a permitted kind other than string is passed with its own text, so numbers
 *   keep every digit.  Python's True, False and None count as JSON's where those are permitted.
 * - Otherwise, where a string is permitted, it is one, byte for byte.
 * - Otherwise it does not fit, and is passed as JSON if it is JSON, else as a string.
 *
 * Allocates nothing.
 */
qn_chat_value qn_chat_value_read(qn_str written, uint32_t kinds);

/**
 * Is a value a string, whatever follows, whose first character other than white space is @p first?
 * The answer of qn_chat_value_read() before the value is complete.
 */
bool qn_chat_value_is_string(char first, uint32_t kinds);

/** "integer or null": @p kinds for a message. */
void qn_chat_kinds_show(char *out, size_t out_bytes, uint32_t kinds);

/** Without white space (blank, tab, line feed, carriage return) at its begin. */
qn_str qn_chat_trim_left(qn_str text);
/** Without white space at both ends. */
qn_str qn_chat_trim(qn_str text);
#endif

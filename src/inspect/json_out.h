/* SPDX-License-Identifier: Apache-2.0 */
/** @file json_out.h  JSON text, written member by member; a failure is remembered until the end. */
#ifndef QN_INSPECT_JSON_OUT_H
#define QN_INSPECT_JSON_OUT_H
#include "base/buf.h"

/** All-zero but text is ready. */
typedef struct qn_json_out {
    qn_buf text;   /**< Owned; its maximum bounds the whole. */
    bool is_first; /**< Nothing stands in the open list or object. */
    bool has_lost; /**< Something found no memory: the text is not to be used. */
} qn_json_out;

void qn_json_out_init(qn_json_out *out);
void qn_json_out_deinit(qn_json_out *out);

/** Open a list or an object, '[' or '{'; @p key is NULL in a list and at the root. */
void qn_json_out_open(qn_json_out *out, const char *key, char bracket);
/** Close it, by ']' or '}'. */
void qn_json_out_close(qn_json_out *out, char bracket);

/** Values.  In a text what is no UTF-8 becomes U+FFFD; a NULL one is null. */
void qn_json_out_text(qn_json_out *out, const char *key, const char *value);
void qn_json_out_str(qn_json_out *out, const char *key, qn_str value);
void qn_json_out_u64(qn_json_out *out, const char *key, uint64_t value);
void qn_json_out_real(qn_json_out *out, const char *key, double value);
void qn_json_out_bool(qn_json_out *out, const char *key, bool value);
void qn_json_out_null(qn_json_out *out, const char *key);
/** The number, or null where it @p is_known not. */
void qn_json_out_maybe(qn_json_out *out, const char *key, bool is_known, uint64_t value);
#endif

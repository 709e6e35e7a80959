/* SPDX-License-Identifier: Apache-2.0 */
/** @file json.h  JSON from outside as libjansson's values, with errors that name file and key. */
#ifndef QN_BASE_JSON_H
#define QN_BASE_JSON_H
#include "quern/status.h"

#include "base/json_doc.h"

#include <jansson.h>
#include <stdint.h>

/**
 * Parse one JSON value that fills @p text, as qn_json_doc_open() does, and numbers out of range are
 * errors too.  A hostile text of QN_JSON_VALUES_MAX values takes about 2 s and 350 MB.
 *
 * @param[out] out  owned by the caller (json_decref); NULL on failure
 * @param what      names the input in errors, such as "DIR/config.json"
 * Returns  QN_OK; QN_E_FORMAT with line and column; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_json_parse(json_t **out, qn_str text, const char *what, qn_error *err);

/** Read a whole file of at most @p bytes_max and parse it.  QN_E_NOT_FOUND when it is missing. */
QN_MUST_CHECK qn_status qn_json_load(json_t **out, const char *path, size_t bytes_max,
                                     qn_error *err);

/**
 * Fetch object[key] with the type and range asked for.  Errors read
 * "WHAT: key: SEEN, EXPECTED".  A key that is missing is QN_E_FORMAT.
 * Integers written as 8.0 or 8e0 are accepted where they are whole.
 */
QN_MUST_CHECK qn_status qn_json_get_u64(uint64_t *out, const json_t *object, const char *key,
                                        uint64_t min, uint64_t max, const char *what,
                                        qn_error *err);
QN_MUST_CHECK qn_status qn_json_get_f64(double *out, const json_t *object, const char *key,
                                        double min, double max, const char *what, qn_error *err);
QN_MUST_CHECK qn_status qn_json_get_bool(bool *out, const json_t *object, const char *key,
                                         const char *what, qn_error *err);

/** object[key] for figures and tables: NAN where it is no number, "" where it is no text. */
double qn_json_number(const json_t *object, const char *key);
const char *qn_json_text(const json_t *object, const char *key);

/** "a string", "an object", "null", "nothing" for NULL: a type's name for an error message. */
const char *qn_json_type_name(const json_t *value);

/** Short text of a value for an error message: a scalar itself, else the type's name. */
void qn_json_show(char *out, size_t out_bytes, const json_t *value);

/** A whole number, also written as 8.0 or 8e0?  Then *out is its value. */
bool qn_json_to_integer(int64_t *out, const json_t *value);
#endif

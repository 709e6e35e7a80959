/* SPDX-License-Identifier: Apache-2.0 */
/** @file fields.h  What stands in a result: checked once as a whole, then read without care. */
#ifndef QN_REPORT_FIELDS_H
#define QN_REPORT_FIELDS_H
#include "quern/quern.h"

#include <jansson.h>

/** A field that a report reads.  It may lack, and be null. */
typedef struct field {
    const char *path; /**< "server.model", "runs[].label": of every element, "a.*": every member. */
    json_type type;   /**< JSON_REAL: any number; JSON_TRUE: true or false. */
} field;

/**
 * Has every field the type it should have?
 * Returns  QN_OK; QN_E_FORMAT "result: runs[2].label: 7, expected text"
 */
QN_MUST_CHECK qn_status fields_check(const json_t *result, const field *fields, size_t n_fields,
                                     qn_error *err);

/** The value at a path of names between dots; NULL where it lacks or is null. */
const json_t *field_at(const json_t *object, const char *path);

/** A number there, else NaN. */
double field_number(const json_t *object, const char *path);

/** Text there, else NULL. */
const char *field_text(const json_t *object, const char *path);

/** Text there, else @p otherwise. */
const char *field_text_or(const json_t *object, const char *path, const char *otherwise);

/** Is there true? */
bool field_is_true(const json_t *object, const char *path);

/** Number @p i of a list there, else NaN. */
double field_number_of(const json_t *list, size_t i);
#endif

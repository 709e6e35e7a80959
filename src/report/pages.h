/* SPDX-License-Identifier: Apache-2.0 */
/** @file pages.h  The reports, one for each kind of result, and what they have in common. */
#ifndef QN_REPORT_PAGES_H
#define QN_REPORT_PAGES_H
#include "report/fields.h"
#include "report/sheet.h"

#include <math.h>

/** A kind of result. */
typedef struct page {
    const char *format;  /**< As the result says. */
    const field *fields; /**< [n_fields] what is read, checked before. */
    size_t n_fields;
    /** Title for the browser. */
    void (*title)(char *out, size_t out_bytes, const json_t *result);
    void (*write)(sheet *s, const json_t *result);
} page;

extern const page page_serve;    /**< quern-bench-serve/1 */
extern const page page_compare;  /**< quern-bench-compare/1 */
extern const page page_engine;   /**< quern-bench-engine/1 */
extern const page page_kernels;  /**< quern-bench-kernels/1 */
extern const page page_eval;     /**< quern-eval/1 */
extern const page page_quantize; /**< quern-quantize/1 */

/** "unknown" weights are not trained ones: badges that say loudly what is not real. */
void page_badge_weights(sheet *s, const char *weights);
void page_badge_acceptance(sheet *s, const char *acceptance);

/** Quantization as a title has it: "none" is "unquantized". */
const char *page_quantization(const json_t *object, const char *path);

/** A value in text: itself where it is text, a number, true or false; JSON of what is larger.  Goes
 * out as a fact unless it lacks. */
void page_fact(sheet *s, const char *name, const json_t *object, const char *path);

/**
 * A copy of a result in which a server says what its user noted of it (--note) where it did not
 * tell itself; the sources say so.  Owned by the caller (json_decref); NULL without memory.
 */
json_t *page_with_notes(const json_t *result);

/** What was typed, where the result has it. */
void page_command(sheet *s, const json_t *result);

/** "tool" and "date_utc" as facts. */
void page_made_by(sheet *s, const json_t *result);

/** All of a part of the result, folded away. */
void page_folded(sheet *s, const char *heading, const json_t *value);
#endif

/* SPDX-License-Identifier: Apache-2.0 */
/** @file compare_parts.h  What the files of compare share. */
#ifndef QN_BENCH_COMPARE_PARTS_H
#define QN_BENCH_COMPARE_PARTS_H
#include "base/json.h"
#include "compare.h"

/** Equal values: 1 is 1.0, and what is missing is null. */
bool compare_is_same(const json_t *x, const json_t *y);

/**
 * Read a result of its texts.
 *
 * @param requests  NULL: there are none
 * @param result_name, requests_name  in errors
 * Returns  as compare_open()
 */
QN_MUST_CHECK qn_status compare_parse(compare_side *out, qn_str result, const char *result_name,
                                      const qn_str *requests, const char *requests_name,
                                      qn_error *err);

/**
 * Is a run one of those that are compared?  Of a search only the confirmations that held: trials
 * end once they are lost, and so are no figures.
 */
bool compare_takes(const compare_side *side, const json_t *run);

/** Did a search find where the limit is? */
bool compare_has_knee(const compare_side *side);

/** Were prompts of the same id the same?  The salt that is not drawn tells. */
bool compare_has_same_prompts(const compare_side *a, const compare_side *b);

/** The run that a result speaks of first. */
const json_t *compare_headline(const compare_side *side);

/** Are two runs repeats of the same load? */
bool compare_is_same_load(const json_t *x, const json_t *y);

/** "2.4 requests/s", with a word where it was a confirmation. */
void compare_label(char *out, size_t out_bytes, const json_t *run);

/**
 * Append to @p differences {"kind", "field", "a", "b"} of all that keeps two results from being
 * compared, and to @p warnings what a reader must know beside.  false: no memory.
 */
bool compare_check(json_t *differences, json_t *warnings, const compare_side *a,
                   const compare_side *b);

/** QN_E_INVAL naming the differences that @p options do not allow; QN_OK where there are none. */
QN_MUST_CHECK qn_status compare_refuse(const json_t *differences, const compare_options *options,
                                       qn_error *err);

/**
 * One of "runs" of compare.json: the load of two runs.
 *
 * @param run_a, run_b  any of its repeats
 * Returns  QN_OK; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status compare_load(json_t **out, const compare_side *a, const json_t *run_a,
                                     const compare_side *b, const json_t *run_b,
                                     const bootstrap_options *options, qn_error *err);
#endif

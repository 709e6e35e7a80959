/* SPDX-License-Identifier: Apache-2.0 */
/** @file price.h  What tokens cost on a machine of a known price, and how fast one has to be to
 * meet a published result. */
#ifndef QN_BENCH_PRICE_H
#define QN_BENCH_PRICE_H
#include "quern/quern.h"

#include <jansson.h>

/** Price profiles and published results: data/prices.json and data/references.json, built in, or
 * files of the same form. */
typedef struct bench_data {
    json_t *prices;     /**< owned: list of profiles */
    json_t *references; /**< owned: list of published results, none of them measured by us */
} bench_data;

/**
 * Every record is checked: fields, dates, sources, units.
 *
 * @param prices, references  files; NULL: the ones built in
 * Returns  QN_OK; QN_E_FORMAT naming file, record and field; QN_E_NOT_FOUND, QN_E_IO; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status bench_data_open(bench_data *out, const char *prices, const char *references,
                                        qn_error *err);
/** Free both; closing twice is fine. */
void bench_data_close(bench_data *data);

/**
 * "cost" of a run: for the accelerator chosen, $ per million output and total tokens under each
 * profile, tokens/s per kW, and the output rates at which it breaks even with each reference that
 * has a headline: as many tokens per $ under the same profile, and as many per kW ("profile":
 * "power").
 *
 * @param accelerator  of the data, in any case of letters; NULL: "cost" is null
 * @param output_per_s, total_per_s  of all accelerators together
 * Returns  QN_OK; QN_E_INVAL for an accelerator that no profile has, naming those that are there;
 *          QN_E_NOMEM
 */
QN_MUST_CHECK qn_status bench_cost_json(json_t **out, const bench_data *data,
                                        const char *accelerator, uint32_t n_accelerators,
                                        double output_per_s, double total_per_s, qn_error *err);
#endif

/* SPDX-License-Identifier: Apache-2.0 */
/** @file serve.h  The parts of the report of a bench of a server. */
#ifndef QN_REPORT_SERVE_H
#define QN_REPORT_SERVE_H
#include "report/pages.h"

/** The run that the first line speaks of; NULL: there is none. */
const json_t *serve_headline(const json_t *result);

/** Its words: "2.4 requests/s". */
const char *serve_label(const json_t *run);

/** A hit rate so far from that by construction is another: more than the rest of a page. */
#define SERVE_HITS_APART 0.05

/** Are all lengths others than those of the workload's name? */
bool serve_is_scaled(const json_t *result);

/** Was a published result measured on this workload, as far as its words tell? */
bool serve_is_alike(const json_t *result, const char *workload);

/** Did a search end this trial, since its limit was lost?  It is no failure. */
bool serve_was_cut(const json_t *run);

/** Plots by rate, of latencies, over time. */
void serve_plots(sheet *s, const json_t *result);
/** Percentiles of the headline's run. */
void serve_latencies(sheet *s, const json_t *result);
/** What the server told of each run, energy, cost. */
void serve_by_run(sheet *s, const json_t *result);
/** How the highest rate was found. */
void serve_knee(sheet *s, const json_t *result);
/** What other hit rates and no speculation do. */
void serve_sensitivity(sheet *s, const json_t *result);
/** Ends of requests that were no success. */
void serve_errors(sheet *s, const json_t *result);
/** $ and joules. */
void serve_cost(sheet *s, const json_t *result);
/** What others published, with sources. */
void serve_references(sheet *s, const json_t *result);
/** Each known objection with the figure that answers it. */
void serve_answers(sheet *s, const json_t *result);
#endif

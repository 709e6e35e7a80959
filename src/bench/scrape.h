/* SPDX-License-Identifier: Apache-2.0 */
/** @file scrape.h  Prometheus's text format, read sample by sample.  Pure; anything may come. */
#ifndef QN_BENCH_SCRAPE_H
#define QN_BENCH_SCRAPE_H
#include "base/str.h"

/** One sample: slices of the page. */
typedef struct scrape_sample {
    qn_str name;
    qn_str labels; /**< What stands between the braces; empty without any. */
    double value;  /**< May be NaN or infinite. */
} scrape_sample;

/** Where a page has been read to. */
typedef struct scrape {
    qn_str rest;
    size_t n_samples; /**< That were read. */
    size_t n_broken;  /**< Lines that are neither samples nor comments. */
} scrape;

/** Begin with a page, borrowed until the last sample was used. */
void scrape_init(scrape *page, qn_str text);

/** The next sample; false behind the last.  Timestamps and exemplars are passed over, and so is a
 * line that is broken, which is counted. */
bool scrape_next(scrape *page, scrape_sample *sample);

/** The next label of @p rest, which begins as a sample's labels; the value as it was written. */
bool scrape_label_next(qn_str *rest, qn_str *name, qn_str *value);

/** The value of a label, its escapes undone, cut to @p out_bytes; false where there is none. */
bool scrape_label(char *out, size_t out_bytes, const scrape_sample *sample, const char *name);
#endif

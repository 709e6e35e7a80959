/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file prometheus.h  Prometheus's text format: families of samples, and histograms.
 *
 * Source   Prometheus, "Exposition formats", text format 0.0.4
 */
#ifndef QN_SERVER_PROMETHEUS_H
#define QN_SERVER_PROMETHEUS_H
#include "server/writer.h"

/** A label and its value, of any bytes.  A name of NULL ends a list. */
typedef struct prom_label {
    const char *name;
    const char *value;
} prom_label;

/** Begin a family: its HELP and TYPE.  @p type is "counter", "gauge" or "histogram". */
void prom_family(server_writer *page, const char *name, const char *type, const char *help);

/** A sample of the family @p name, which gets @p suffix.  @p labels: NULL: none. */
void prom_sample(server_writer *page, const char *name, const char *suffix,
                 const prom_label *labels, double value);

enum { PROM_BOUNDS_MAX = 40 };

/** Upper bounds of buckets, rising. */
typedef struct prom_bounds {
    double values[PROM_BOUNDS_MAX];
    size_t n;
} prom_bounds;

/** Values counted by bucket.  All-zero is empty. */
typedef struct prom_histogram {
    uint64_t n_in[PROM_BOUNDS_MAX + 1]; /**< By the first bound that is not below; then others. */
    double sum;
} prom_histogram;

/** Count @p value, @p n_times.  What is no number counts as 0. */
void prom_observe(prom_histogram *histogram, const prom_bounds *bounds, double value,
                  uint64_t n_times);

/**
 * The samples of a histogram's family.
 * @param shown  which of @p bounds become buckets; each must be one of them
 */
void prom_histogram_samples(server_writer *page, const char *name, const prom_label *labels,
                            const prom_histogram *histogram, const prom_bounds *bounds,
                            const prom_bounds *shown);
#endif

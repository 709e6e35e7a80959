/* SPDX-License-Identifier: Apache-2.0 */
#include "server/prometheus.h"

#include "base/assert.h"

#include <math.h>

static void put_number(server_writer *page, double value)
{
    if (isnan(value)) {
        writer_put(page, "NaN");
    } else if (isinf(value)) {
        writer_put(page, value > 0.0 ? "+Inf" : "-Inf");
    } else if (page->status == QN_OK) {
        page->status = qn_buf_append_real(page->out, value, 15, page->err);
    }
}

/* A bound as clients in Python and Go write it: 1.0, 0.5, 1000.0. */
static void put_bound(server_writer *page, double bound)
{
    put_number(page, bound);
    if (isfinite(bound) && bound == floor(bound)) {
        writer_put(page, ".0");
    }
}

/* The value of a label: three characters are escaped, and bytes that are no UTF-8 are replaced. */
static void put_escaped(server_writer *page, const char *value)
{
    const size_t n_bytes = strlen(value);
    for (size_t at = 0; at < n_bytes;) {
        const size_t len = qn_utf8_len((const uint8_t *)value + at, n_bytes - at);
        switch (value[at]) {
        case '\\': writer_put(page, "\\\\"); break;
        case '"': writer_put(page, "\\\""); break;
        case '\n': writer_put(page, "\\n"); break;
        default:
            writer_put_bytes(page, len > 0 ? (qn_str){value + at, len} : qn_str_of("?"));
            break;
        }
        at += len > 0 ? len : 1;
    }
}

/* Labels and, where @p bound is not NULL, that of a bucket. */
static void put_labels(server_writer *page, const prom_label *labels, const double *bound)
{
    const char *separator = "{";
    for (; labels != NULL && labels->name != NULL; labels++) {
        writer_put(page, separator);
        writer_put(page, labels->name);
        writer_put(page, "=\"");
        put_escaped(page, labels->value);
        writer_put(page, "\"");
        separator = ",";
    }
    if (bound != NULL) {
        writer_put(page, separator);
        writer_put(page, "le=\"");
        put_bound(page, *bound);
        writer_put(page, "\"");
        separator = ",";
    }
    writer_put(page, separator[0] == ',' ? "}" : "");
}

static void put_sample(server_writer *page, const char *name, const char *suffix,
                       const prom_label *labels, const double *bound, double value)
{
    writer_put(page, name);
    writer_put(page, suffix);
    put_labels(page, labels, bound);
    writer_put(page, " ");
    put_number(page, value);
    writer_put(page, "\n");
}

void prom_family(server_writer *page, const char *name, const char *type, const char *help)
{
    const char *const words[] = {"# HELP ", name, " ", help, "\n# TYPE ", name, " ", type, "\n"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        writer_put(page, words[i]);
    }
}

void prom_sample(server_writer *page, const char *name, const char *suffix,
                 const prom_label *labels, double value)
{
    put_sample(page, name, suffix, labels, NULL, value);
}

void prom_observe(prom_histogram *histogram, const prom_bounds *bounds, double value,
                  uint64_t n_times)
{
    const double counted = isfinite(value) ? value : 0.0;
    size_t i_bucket = 0;
    while (i_bucket < bounds->n && counted > bounds->values[i_bucket]) {
        i_bucket++;
    }
    histogram->n_in[i_bucket] += n_times;
    histogram->sum += counted * (double)n_times;
}

void prom_histogram_samples(server_writer *page, const char *name, const prom_label *labels,
                            const prom_histogram *histogram, const prom_bounds *bounds,
                            const prom_bounds *shown)
{
    const double infinite = (double)INFINITY;
    uint64_t n = 0;
    size_t i_shown = 0;
    for (size_t i = 0; i < bounds->n; i++) {
        n += histogram->n_in[i];
        if (i_shown < shown->n && bounds->values[i] == shown->values[i_shown]) {
            put_sample(page, name, "_bucket", labels, &bounds->values[i], (double)n);
            i_shown++;
        }
    }
    QN_ASSERT(i_shown == shown->n);
    n += histogram->n_in[bounds->n];
    put_sample(page, name, "_bucket", labels, &infinite, (double)n);
    put_sample(page, name, "_sum", labels, NULL, histogram->sum);
    put_sample(page, name, "_count", labels, NULL, (double)n);
}

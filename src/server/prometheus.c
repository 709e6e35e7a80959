/* SPDX-License-Identifier: Apache-2.0 */
#include "server/prometheus.h"

#include "base/assert.h"

#include <math.h>

static void put(prom_page *page, const char *bytes, size_t n_bytes)
{
    if (page->status == QN_OK) {
        page->status = qn_buf_append(page->out, bytes, n_bytes, page->err);
    }
}

static void put_text(prom_page *page, const char *text)
{
    put(page, text, strlen(text));
}

static void put_number(prom_page *page, double value)
{
    if (isnan(value)) {
        put_text(page, "NaN");
    } else if (isinf(value)) {
        put_text(page, value > 0.0 ? "+Inf" : "-Inf");
    } else if (page->status == QN_OK) {
        page->status = qn_buf_append_real(page->out, value, 15, page->err);
    }
}

/* A bound as clients in Python and Go write it: 1.0, 0.5, 1000.0. */
static void put_bound(prom_page *page, double bound)
{
    put_number(page, bound);
    if (isfinite(bound) && bound == floor(bound)) {
        put_text(page, ".0");
    }
}

/* The value of a label: three characters are escaped, and bytes that are no UTF-8 are replaced. */
static void put_escaped(prom_page *page, const char *value)
{
    const size_t n_bytes = strlen(value);
    for (size_t at = 0; at < n_bytes;) {
        const size_t len = qn_utf8_len((const uint8_t *)value + at, n_bytes - at);
        switch (value[at]) {
        case '\\': put_text(page, "\\\\"); break;
        case '"': put_text(page, "\\\""); break;
        case '\n': put_text(page, "\\n"); break;
        default: put(page, len > 0 ? value + at : "?", len > 0 ? len : 1); break;
        }
        at += len > 0 ? len : 1;
    }
}

/* Labels and, where @p bound is not NULL, that of a bucket. */
static void put_labels(prom_page *page, const prom_label *labels, const double *bound)
{
    const char *separator = "{";
    for (; labels != NULL && labels->name != NULL; labels++) {
        put_text(page, separator);
        put_text(page, labels->name);
        put_text(page, "=\"");
        put_escaped(page, labels->value);
        put_text(page, "\"");
        separator = ",";
    }
    if (bound != NULL) {
        put_text(page, separator);
        put_text(page, "le=\"");
        put_bound(page, *bound);
        put_text(page, "\"");
        separator = ",";
    }
    put_text(page, separator[0] == ',' ? "}" : "");
}

static void put_sample(prom_page *page, const char *name, const char *suffix,
                       const prom_label *labels, const double *bound, double value)
{
    put_text(page, name);
    put_text(page, suffix);
    put_labels(page, labels, bound);
    put_text(page, " ");
    put_number(page, value);
    put_text(page, "\n");
}

void prom_family(prom_page *page, const char *name, const char *type, const char *help)
{
    const char *const words[] = {"# HELP ", name, " ", help, "\n# TYPE ", name, " ", type, "\n"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        put_text(page, words[i]);
    }
}

void prom_sample(prom_page *page, const char *name, const char *suffix, const prom_label *labels,
                 double value)
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

void prom_histogram_samples(prom_page *page, const char *name, const prom_label *labels,
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

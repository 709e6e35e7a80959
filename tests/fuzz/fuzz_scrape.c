/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a page of /metrics: samples are slices of it, and what is read of them makes JSON.
 */
#include "base/assert.h"
#include "bench/metrics.h"
#include "bench/scrape.h"

#include <math.h>

/* libFuzzer sets the name. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes); /* NOLINT */

static void check_samples(qn_str text)
{
    scrape page;
    scrape_sample sample;
    char value[16];
    scrape_init(&page, text);
    while (scrape_next(&page, &sample)) {
        QN_ASSERT(sample.name.len > 0 && sample.name.ptr >= text.ptr);
        QN_ASSERT(sample.name.ptr + sample.name.len <= text.ptr + text.len);
        QN_ASSERT(sample.labels.len == 0 ||
                  sample.labels.ptr + sample.labels.len < text.ptr + text.len);
        if (scrape_label(value, sizeof value, &sample, "position")) {
            QN_ASSERT(strlen(value) < sizeof value);
        }
    }
    QN_ASSERT(page.rest.len == 0);
}

static void check_metrics(qn_str text)
{
    static metrics_run run;
    bench_figures begin;
    bench_figures end;
    const size_t n_half = text.len / 2;
    bench_figures_read(&begin, (qn_str){text.ptr, n_half});
    bench_figures_read(&end, (qn_str){text.ptr + n_half, text.len - n_half});
    for (size_t i = 0; i < BENCH_N_FIGURES; i++) {
        QN_ASSERT(isnan(end.of[i]) || end.of[i] >= 0);
    }
    metrics_init(&run);
    metrics_note(&run, METRICS_BEGIN, 0, &begin, "");
    metrics_note(&run, METRICS_END, 1, &end, "");
    json_t *const json = metrics_json(&run);
    QN_ASSERT(json != NULL);
    const json_t *const rate = json_object_get(json, "hit_rate");
    QN_ASSERT(json_is_null(rate) || json_number_value(rate) >= 0);
    json_decref(json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) /* NOLINT */
{
    char *const exact = malloc(n_bytes > 0 ? n_bytes : 1); /* so that an overread shows */
    QN_ASSERT(exact != NULL);
    if (n_bytes > 0) {
        memcpy(exact, data, n_bytes);
    }
    check_samples((qn_str){exact, n_bytes});
    check_metrics((qn_str){exact, n_bytes});
    free(exact);
    return 0;
}

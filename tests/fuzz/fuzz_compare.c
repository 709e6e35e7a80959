/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a result and, behind a NUL, its requests: compared with itself, every ratio that
 * there is is 1. */
#include "base/assert.h"
#include "bench/compare_parts.h"

#include <math.h>
#include <stdlib.h>

/* libFuzzer sets the name. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes); /* NOLINT */

static void check(const json_t *comparison)
{
    static const char *const metrics[] = {"ttft_ms", "tpot_ms", "e2el_ms"};
    const json_t *run;
    size_t i;
    json_array_foreach(json_object_get(comparison, "runs"), i, run)
    {
        const json_t *const latency = json_object_get(run, "latency");
        QN_ASSERT(json_object_size(latency) == 3);
        for (size_t k = 0; k < 3; k++) {
            const json_t *const ratio =
                json_object_get(json_object_get(latency, metrics[k]), "ratio");
            const double low = qn_json_number(ratio, "low");
            QN_ASSERT(ratio == NULL || qn_json_number(ratio, "value") == 1.0);
            QN_ASSERT(isnan(low) || low == 1.0);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) /* NOLINT */
{
    compare_options options = {.command = "x", .bootstrap = {40, 0.95, 1}};
    compare_side side = {.path = "x"};
    json_t *comparison = NULL;
    qn_error err = {0};
    char *const exact = malloc(n_bytes > 0 ? n_bytes : 1); /* so that an overread shows */
    QN_ASSERT(exact != NULL);
    if (n_bytes > 0) {
        memcpy(exact, data, n_bytes);
    }
    const char *const end = n_bytes > 0 ? memchr(exact, '\0', n_bytes) : NULL;
    const size_t len = end == NULL ? n_bytes : (size_t)(end - exact);
    const qn_str requests = {exact + len + 1, end == NULL ? 0 : n_bytes - len - 1};
    for (int kind = 0; kind < COMPARE_N_KINDS; kind++) {
        options.allows[kind] = true;
    }
    if (compare_parse(&side, (qn_str){exact, len}, "result", end == NULL ? NULL : &requests,
                      "requests", &err) == QN_OK) {
        QN_ASSERT(compare_json(&comparison, &side, &side, &options, &err) == QN_OK);
        check(comparison);
    } else {
        QN_ASSERT(err.text[0] != '\0');
    }
    json_decref(comparison);
    compare_close(&side);
    free(exact);
    return 0;
}

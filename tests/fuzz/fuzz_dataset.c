/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a file of requests: the first byte says of which form. */
#include "base/assert.h"
#include "base/json_doc.h"
#include "bench/dataset.h"

#include <math.h>

/* libFuzzer sets the name. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes); /* NOLINT */

static bool has_kind(qn_str json, qn_json_kind expected)
{
    qn_json_kind kind;
    return qn_json_scan(json, &kind) && kind == expected;
}

static void check_entry(const bench_dataset *set, const bench_entry *e, bench_file_form form)
{
    static const qn_json_kind kinds[] = {QN_JSON_STRING, QN_JSON_ARRAY, QN_JSON_ARRAY};
    QN_ASSERT(e->line > 0);
    QN_ASSERT(e->n_output <= BENCH_LENGTH_MAX);
    QN_ASSERT((form == BENCH_FILE_TRACE) == (e->at_s >= 0.0));
    QN_ASSERT(form != BENCH_FILE_SHAREGPT || has_kind(e->answer, QN_JSON_STRING));
    if (e->form == BENCH_PROMPT_LENGTH) {
        QN_ASSERT(e->n_input > 0 && e->n_input <= BENCH_LENGTH_MAX);
        QN_ASSERT(e->n_hashes == 0 || (e->n_hashes - 1) * BENCH_BLOCK_TOKENS < e->n_input);
        QN_ASSERT(e->first_hash + e->n_hashes <= set->n_hashes);
        return;
    }
    QN_ASSERT(e->n_hashes == 0);
    QN_ASSERT(has_kind(e->prompt, kinds[e->form]));
    QN_ASSERT((e->form == BENCH_PROMPT_IDS) == (e->n_input > 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) /* NOLINT */
{
    if (n_bytes == 0) {
        return 0;
    }
    const bench_file_form form = (bench_file_form)(data[0] % 3);
    char *const exact = malloc(n_bytes > 1 ? n_bytes - 1 : 1); /* so that an overread shows */
    QN_ASSERT(exact != NULL);
    memcpy(exact, data + 1, n_bytes - 1);
    bench_dataset set = {0};
    qn_error err = {0};
    if (bench_dataset_read(&set, form, (qn_str){exact, n_bytes - 1}, "F", 0, &err) == QN_OK) {
        QN_ASSERT(set.n_entries > 0);
        for (uint64_t i = 0; i < set.n_entries; i++) {
            check_entry(&set, &set.entries[i], form);
        }
    } else {
        QN_ASSERT(strncmp(err.text, "F: ", 3) == 0);
    }
    bench_dataset_deinit(&set);
    free(exact);
    return 0;
}

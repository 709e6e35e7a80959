/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as the body of an answer: it ends in one way, with a message where it failed, the same
 * in one piece and in any others. */
#include "base/assert.h"
#include "bench/answer.h"

/* libFuzzer sets the name. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes); /* NOLINT */

/* In pieces whose lengths the bytes themselves give; 0: in one. */
static void read_body(bench_record *record, bench_api api, const uint8_t *data, size_t n_bytes,
                      size_t n_piece)
{
    bench_answer answer = {0};
    qn_status status = QN_OK;
    *record = (bench_record){.call = {.n_output = 2, .keeps_text = true}};
    bench_answer_begin(&answer, api, record);
    for (size_t at = 0; at < n_bytes && status == QN_OK;) {
        const size_t n_left = n_bytes - at;
        const size_t n_wanted = n_piece == 0 ? n_left : 1 + data[at] % n_piece;
        const size_t n = n_wanted < n_left ? n_wanted : n_left;
        char *const exact = malloc(n); /* so that an overread shows */
        QN_ASSERT(exact != NULL);
        memcpy(exact, data + at, n);
        status = bench_answer_feed(&answer, 200, exact, n, 1, NULL);
        QN_ASSERT(status >= 0);
        free(exact);
        at += n;
    }
    QN_ASSERT(bench_answer_end(&answer, BENCH_DONE, 200, "", 2, NULL) == QN_OK);
    bench_answer_deinit(&answer);
}

static void check(const bench_record *record)
{
    QN_ASSERT(record->end < BENCH_N_ENDS && record->end != BENCH_CANCELLED);
    QN_ASSERT((record->end == BENCH_DONE) == (record->message[0] == '\0'));
    QN_ASSERT(qn_utf8_is_valid(qn_str_of(record->message)));
    QN_ASSERT(qn_utf8_is_valid(qn_str_of(record->finish)));
    QN_ASSERT(record->end != BENCH_DONE || (record->n_chunks > 0 && record->finish[0] != '\0'));
    QN_ASSERT((record->n_chunks > 0) == (record->first_s == 1));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) /* NOLINT */
{
    for (int api = BENCH_COMPLETIONS; api <= BENCH_CHAT; api++) {
        bench_record whole;
        read_body(&whole, (bench_api)api, data, n_bytes, 0);
        check(&whole);
        for (size_t n_piece = 1; n_piece <= 16; n_piece += 15) {
            bench_record cut;
            read_body(&cut, (bench_api)api, data, n_bytes, n_piece);
            QN_ASSERT(cut.end == whole.end && strcmp(cut.message, whole.message) == 0);
            QN_ASSERT(cut.n_chunks == whole.n_chunks && cut.n_output == whole.n_output);
            QN_ASSERT(strcmp(cut.finish, whole.finish) == 0);
            QN_ASSERT((cut.text == NULL) == (whole.text == NULL));
            QN_ASSERT(cut.text == NULL || strcmp(cut.text, whole.text) == 0);
            free(cut.chunk_s);
            free(cut.text);
        }
        free(whole.chunk_s);
        free(whole.text);
    }
    return 0;
}

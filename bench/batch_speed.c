/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Speed of decoding many sequences at once, of prompts that a file gives.
 *
 *     bench_batch_speed --prompts FILE.json [OPTIONS] MODEL
 *
 * FILE.json is [[id, ...], ...], a sequence for each prompt.  Options: --decode N tokens of each
 * sequence and repeat (default 32), --repeats N (default 3, after one that is not counted),
 * --threads N, --draft none|auto|1 ... 8 (default none).
 *
 * Prompts are computed first, under a cache_salt each so that no two share a page; then all are
 * asked again and begin together.  Answers are greedy and go on after stop tokens.  With drafts
 * some sequences are faster than others: a repeat is over when all together have their tokens.
 * Prints one JSON object.
 */
#include "quern/quern.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { REPEATS_MAX = 99, SEQUENCES_MAX = QN_ENGINE_SEQUENCES_MAX };

typedef struct bench {
    qn_model *model;
    qn_engine *engine;
    qn_sampling sampling;
    int32_t *ids[SEQUENCES_MAX]; /* owned */
    size_t n_ids[SEQUENCES_MAX];
    size_t n_sequences, n_ids_max, n_decode, n_repeats;
    int draft;
} bench;

static void fail(const char *text)
{
    (void)fprintf(stderr, "batch_speed: error: %s\n", text);
    exit(1);
}

static double now_s(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void read_prompts(bench *b, const char *path)
{
    json_error_t where;
    json_t *const prompts = json_load_file(path, 0, &where);
    b->n_sequences = json_array_size(prompts);
    if (b->n_sequences < 1 || b->n_sequences > SEQUENCES_MAX) {
        fail(prompts == NULL ? where.text : "--prompts: 1 to 1024 expected");
    }
    for (size_t i = 0; i < b->n_sequences; i++) {
        const json_t *const prompt = json_array_get(prompts, i);
        b->n_ids[i] = json_array_size(prompt);
        b->ids[i] = calloc(b->n_ids[i] + 1, sizeof(int32_t));
        if (b->n_ids[i] < 1 || b->ids[i] == NULL) {
            fail("--prompts: lists of ids expected");
        }
        for (size_t k = 0; k < b->n_ids[i]; k++) {
            b->ids[i][k] = (int32_t)json_integer_value(json_array_get(prompt, k));
        }
        b->n_ids_max = b->n_ids[i] > b->n_ids_max ? b->n_ids[i] : b->n_ids_max;
    }
    json_decref(prompts);
}

static void submit_all(bench *b, uint32_t n_tokens)
{
    qn_error err = {0};
    uint64_t id = 0;
    for (size_t i = 0; i < b->n_sequences; i++) {
        char salt[16];
        (void)snprintf(salt, sizeof salt, "%zu", i);
        const qn_request request = {.ids = b->ids[i],
                                    .n_ids = b->n_ids[i],
                                    .sampling = &b->sampling,
                                    .max_tokens = n_tokens,
                                    .draft_tokens = b->draft,
                                    .cache_salt = salt,
                                    .cache_salt_len = strlen(salt),
                                    .ignore_eos = true};
        if (qn_engine_submit(&id, b->engine, &request, &err) != QN_OK) {
            fail(err.text);
        }
    }
}

/* One step; returns tokens drawn, and counts the ends. */
static size_t step(bench *b, size_t *n_ended)
{
    qn_error err = {0};
    qn_event event;
    uint64_t id = 0;
    size_t n_tokens = 0;
    if (qn_engine_step(b->engine, &err) != QN_OK) {
        fail(err.text);
    }
    while (qn_engine_poll(&id, &event, b->engine)) {
        n_tokens += event.kind == QN_EVENT_TOKEN;
        *n_ended += event.kind == QN_EVENT_END;
    }
    return n_tokens;
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void measure(bench *b, uint32_t n_tokens_max)
{
    double rates[REPEATS_MAX + 1];
    size_t n_ended = 0;
    for (submit_all(b, 1); n_ended < b->n_sequences;) {
        (void)step(b, &n_ended);
    }
    submit_all(b, n_tokens_max);
    n_ended = 0;
    qn_engine_stats before = qn_engine_get_stats(b->engine);
    do { /* until a step has no part in a prompt */
        (void)step(b, &n_ended);
    } while (qn_engine_get_stats(b->engine).decode_s <= before.decode_s);
    before = qn_engine_get_stats(b->engine);
    for (size_t i = 0; i <= b->n_repeats; i++) {
        const double start = now_s();
        size_t n_tokens = 0;
        while (n_tokens < b->n_sequences * b->n_decode) {
            n_tokens += step(b, &n_ended);
        }
        rates[i] = (double)n_tokens / (now_s() - start);
    }
    const qn_engine_stats after = qn_engine_get_stats(b->engine);
    if (n_ended > 0 || after.n_preempted > 0) {
        fail(n_ended > 0 ? "a sequence ended before the others" : "a sequence lost its pages");
    }
    qsort(rates + 1, b->n_repeats, sizeof *rates, compare);
    const qn_model_info *const info = qn_model_get_info(b->model);
    const double n_steps = (double)(after.n_steps - before.n_steps);
    (void)printf("{\"sequences\": %zu, \"tokens_per_s\": %.2f, \"min_tokens_per_s\": %.2f, "
                 "\"max_tokens_per_s\": %.2f, \"tokens_per_step\": %.2f, \"compute\": \"%s\", "
                 "\"kernels\": \"%s\", \"kv_dtype\": \"%s\", \"threads\": %u}\n",
                 b->n_sequences, rates[1 + b->n_repeats / 2], rates[1], rates[b->n_repeats],
                 (double)(after.n_generated_tokens - before.n_generated_tokens) / n_steps,
                 info->compute, info->kernels, info->kv_dtype, info->n_threads);
}

static int parse_draft(const char *text)
{
    if (strcmp(text, "none") == 0 || strcmp(text, "auto") == 0) {
        return text[0] == 'n' ? QN_DRAFT_NONE : QN_DRAFT_AUTO;
    }
    if (text[0] < '1' || text[0] > '0' + QN_DRAFT_TOKENS_MAX || text[1] != '\0') {
        fail("--draft: none, auto or 1 to 8 expected");
    }
    return text[0] - '0';
}

/* Room for the answers and, with drafts, for sequences twice as fast as the mean. */
static void open_all(bench *b, const char *name, size_t n_threads, uint32_t n_tokens_max)
{
    qn_error err = {0};
    const qn_model_options model = {.tokenizer_optional = true, .n_threads = (uint32_t)n_threads};
    const qn_engine_options engine = {.n_sequences = (uint32_t)b->n_sequences,
                                      .context_tokens = (uint32_t)b->n_ids_max + n_tokens_max + 1,
                                      .no_mtp = b->draft == QN_DRAFT_NONE};
    if (qn_model_open(&b->model, name, &model, &err) != QN_OK ||
        qn_engine_open(&b->engine, b->model, &engine, &err) != QN_OK) {
        fail(err.text);
    }
    b->sampling = qn_model_get_info(b->model)->sampling;
    b->sampling.temperature = 0.0F;
}

int main(int argc, char **argv)
{
    bench b = {.n_decode = 32, .n_repeats = 3, .draft = QN_DRAFT_NONE};
    const char *prompts = NULL;
    size_t n_threads = 0;
    int at = 1;
    for (; at + 1 < argc && strncmp(argv[at], "--", 2) == 0; at += 2) {
        size_t *const to = strcmp(argv[at], "--decode") == 0    ? &b.n_decode
                           : strcmp(argv[at], "--repeats") == 0 ? &b.n_repeats
                           : strcmp(argv[at], "--threads") == 0 ? &n_threads
                                                                : NULL;
        if (to != NULL) {
            *to = strtoul(argv[at + 1], NULL, 10);
        } else if (strcmp(argv[at], "--draft") == 0) {
            b.draft = parse_draft(argv[at + 1]);
        } else if (strcmp(argv[at], "--prompts") == 0) {
            prompts = argv[at + 1];
        } else {
            break;
        }
    }
    if (at + 1 != argc || prompts == NULL || b.n_decode < 1 || b.n_repeats < 1 ||
        b.n_repeats > REPEATS_MAX) {
        (void)fprintf(
            stderr,
            "usage: bench_batch_speed --prompts FILE.json [--decode N] [--repeats N (1 to "
            "%d)] [--threads N] [--draft none|auto|N] MODEL\n",
            REPEATS_MAX);
        return 2;
    }
    read_prompts(&b, prompts);
    const uint32_t n_tokens_max = (uint32_t)((b.n_repeats + 1) * b.n_decode * 2 + 64);
    open_all(&b, argv[at], n_threads, n_tokens_max);
    measure(&b, n_tokens_max);
    qn_engine_close(&b.engine);
    qn_model_close(&b.model);
    for (size_t i = 0; i < b.n_sequences; i++) {
        free(b.ids[i]);
    }
    return 0;
}

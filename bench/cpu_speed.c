/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Speed of one model without speculation: tokens/s of a prompt's part and of decoding, at a depth.
 *
 *     bench_cpu_speed [OPTIONS] MODEL
 *
 * Options: --depth N tokens that are in the cache already (default 0), --prefill N tokens of the
 * prompt that follow them (default 0: not measured), --decode N tokens to generate (default 0),
 * --repeats N (default 5, after one that is not counted), --threads N,
 * --compute auto|f32|bf16|int8.
 *
 * Prints a JSON object a line for each of the two, the median first.  The ids are the same
 * arithmetic sequence that bench/peer.py feeds; an answer is greedy and goes on after stop tokens.
 */
#include "quern/quern.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { REPEATS_MAX = 99 };

typedef struct bench {
    qn_model *model;
    qn_session *session;
    qn_sampling sampling;
    int32_t *ids; /* [n_depth + n_prefill + 1] */
    size_t n_depth, n_prefill, n_decode, n_repeats;
} bench;

static void fail(const char *text)
{
    (void)fprintf(stderr, "cpu_speed: error: %s\n", text);
    exit(1);
}

/* Ids i_from to i_to - 1, others at each repeat: what the session knows is not computed again. */
static void fill(bench *b, size_t i_from, size_t i_to, size_t i_repeat)
{
    const size_t n_vocab = qn_model_get_info(b->model)->n_vocab;
    for (size_t i = i_from; i < i_to; i++) {
        b->ids[i] = (int32_t)((i * 7919 + i_repeat * 104729 + 1) % n_vocab);
    }
}

/* Run a request to its end. */
static qn_session_stats answer(bench *b, size_t n_ids, size_t n_tokens)
{
    qn_error err = {0};
    qn_event event;
    const qn_request request = {.ids = b->ids,
                                .n_ids = n_ids,
                                .sampling = &b->sampling,
                                .max_tokens = (uint32_t)n_tokens,
                                .prompt_only = n_tokens == 0,
                                .draft_tokens = QN_DRAFT_NONE,
                                .ignore_eos = true};
    qn_status status = qn_session_submit(b->session, &request, &err);
    while (status == QN_OK) {
        status = qn_session_step(b->session, &err);
        while (qn_session_poll(&event, b->session)) {
        }
    }
    if (status < 0) {
        fail(err.text);
    }
    return qn_session_get_stats(b->session);
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* The object of one measurement; sorts the rates. */
static void print(const bench *b, const char *what, size_t n_tokens, double *rates)
{
    const qn_model_info *const info = qn_model_get_info(b->model);
    struct rusage usage = {0};
    (void)getrusage(RUSAGE_SELF, &usage);
    qsort(rates, b->n_repeats, sizeof *rates, compare);
    (void)printf("{\"what\": \"%s\", \"depth\": %zu, \"tokens\": %zu, \"tokens_per_s\": %.2f, "
                 "\"min_tokens_per_s\": %.2f, \"max_tokens_per_s\": %.2f, \"compute\": \"%s\", "
                 "\"kernels\": \"%s\", \"kv_dtype\": \"%s\", \"threads\": %u, "
                 "\"peak_rss_bytes\": %llu}\n",
                 what, b->n_depth, n_tokens, rates[b->n_repeats / 2], rates[0],
                 rates[b->n_repeats - 1], info->compute, info->kernels, info->kv_dtype,
                 info->n_threads, (unsigned long long)usage.ru_maxrss * 1024);
    (void)fflush(stdout);
}

static void measure(bench *b)
{
    double rates[REPEATS_MAX + 1];
    fill(b, 0, b->n_depth + 1, 0);
    if (b->n_depth > 0) {
        (void)answer(b, b->n_depth, 0);
    }
    /* Decoding comes first: it is what the bandwidth measured just before is compared with.  A
     * prompt of depth + 1 tokens: the last one is computed again each time. */
    for (size_t i = 0; i <= b->n_repeats && b->n_decode > 0; i++) {
        const qn_session_stats s = answer(b, b->n_depth + 1, b->n_decode + 1);
        rates[i] = (double)b->n_decode / s.decode_s;
    }
    if (b->n_decode > 0) {
        print(b, "decode", b->n_decode, rates + 1);
    }
    for (size_t i = 0; i <= b->n_repeats && b->n_prefill > 0; i++) {
        fill(b, b->n_depth, b->n_depth + b->n_prefill, i + 1);
        const qn_session_stats s = answer(b, b->n_depth + b->n_prefill, 0);
        rates[i] = (double)(s.n_prompt_tokens - s.n_cached_tokens) / s.prefill_s;
    }
    if (b->n_prefill > 0) {
        print(b, "prefill", b->n_prefill, rates + 1);
    }
}

static qn_compute parse_compute(const char *name)
{
    static const char *const names[] = {"auto", "f32", "bf16", "int8"};
    for (int i = 0; i < 4; i++) {
        if (strcmp(name, names[i]) == 0) {
            return (qn_compute)i;
        }
    }
    fail("--compute: auto, f32, bf16 or int8 expected");
    return QN_COMPUTE_AUTO;
}

int main(int argc, char **argv)
{
    bench b = {.n_repeats = 5};
    qn_model_options options = {.tokenizer_optional = true};
    qn_error err = {0};
    size_t n_threads = 0;
    int at = 1;
    for (; at + 1 < argc && strncmp(argv[at], "--", 2) == 0; at += 2) {
        size_t *const to = strcmp(argv[at], "--depth") == 0     ? &b.n_depth
                           : strcmp(argv[at], "--prefill") == 0 ? &b.n_prefill
                           : strcmp(argv[at], "--decode") == 0  ? &b.n_decode
                           : strcmp(argv[at], "--repeats") == 0 ? &b.n_repeats
                           : strcmp(argv[at], "--threads") == 0 ? &n_threads
                                                                : NULL;
        if (strcmp(argv[at], "--compute") == 0) {
            options.compute = parse_compute(argv[at + 1]);
        } else if (to != NULL) {
            *to = strtoul(argv[at + 1], NULL, 10);
        } else {
            break;
        }
    }
    if (at + 1 != argc || b.n_repeats < 1 || b.n_repeats > REPEATS_MAX) {
        (void)fprintf(stderr,
                      "usage: bench_cpu_speed [--depth N] [--prefill N] [--decode N] "
                      "[--repeats N (1 to %d)] [--threads N] [--compute MODE] MODEL\n",
                      REPEATS_MAX);
        return 2;
    }
    options.n_threads = (uint32_t)n_threads;
    const size_t n_ids = b.n_depth + b.n_prefill + 1;
    const qn_session_options room = {.context_tokens = (uint32_t)(n_ids + b.n_decode + 1)};
    b.ids = calloc(n_ids, sizeof *b.ids);
    if (b.ids == NULL || qn_model_open(&b.model, argv[at], &options, &err) < 0 ||
        qn_session_open(&b.session, b.model, &room, &err) < 0) {
        fail(b.ids == NULL ? "no memory" : err.text);
    }
    b.sampling = qn_model_get_info(b.model)->sampling;
    b.sampling.temperature = 0.0F;
    measure(&b);
    qn_session_close(&b.session);
    qn_model_close(&b.model);
    free(b.ids);
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "bench_engine.h"

#include "engine_options.h"
#include "progress.h"
#include "report.h"
#include "speed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Room for drafts behind the last token of a sequence. */
enum { ROOM_TOKENS = QN_DRAFT_TOKENS_MAX + 1 };

/* A sequence of the request that is being measured. */
typedef struct sequence {
    int32_t *ids; /* [bench.length] owned */
    uint64_t id;
    bool has_begun; /* its first token is there */
} sequence;

typedef struct bench {
    const bench_settings *settings;
    qn_model *model;
    qn_engine *engine;
    sequence *sequences; /* [n_sequences] of the largest batch */
    uint32_t n_sequences, length;
    cli_progress progress;
    uint64_t n_done, n_rounds;
} bench;

/* One repeat of one cell. */
typedef struct round_result {
    double prefill, decode, step_ms; /* decode: 0 where there was no such step */
    uint64_t n_steps, n_tokens;      /* steps in which all answered, and what they brought */
} round_result;

/* ------------------------------------------------------------------------------------- prompts */

static uint64_t draw(uint64_t *state, uint64_t n)
{
    *state = *state * 6364136223846793005ULL + 1442695040888963407ULL; /* Knuth's MMIX */
    return (*state >> 33) % n;
}

/* Plain English of at least @p n_bytes, another for each seed; owned by the caller (free). */
static char *make_text(uint64_t seed, size_t n_bytes, size_t *len)
{
    static const char *const names[] = {"Quinn", "Kira", "Ravi", "Nora", "Omar", "Lena", "Tomas"};
    static const char *const things[] = {"apples", "cookies", "books",  "pencils",
                                         "stamps", "shells",  "marbles"};
    enum { N_NAMES = sizeof names / sizeof *names, N_THINGS = sizeof things / sizeof *things };
    char *text = NULL;
    uint64_t state = seed * 7919 + 1;
    FILE *const out = open_memstream(&text, len);
    for (size_t n = 0; out != NULL && n < n_bytes && !ferror(out);) {
        const unsigned n_given = (unsigned)draw(&state, 50);
        const unsigned n_had = n_given + (unsigned)draw(&state, 50);
        const char *const giver = names[draw(&state, N_NAMES)];
        const int n_written =
            fprintf(out, "%s has %u %s and gives %u of them to %s. Then %s has %u left. ", giver,
                    n_had, things[draw(&state, N_THINGS)], n_given, names[draw(&state, N_NAMES)],
                    giver, n_had - n_given);
        n += n_written > 0 ? (size_t)n_written : n_bytes;
    }
    const bool is_written = out != NULL && fclose(out) == 0;
    if (!is_written) {
        free(text);
    }
    return is_written ? text : NULL;
}

/* Ids of such a text; random ones where there is no tokenizer. */
static qn_status make_prompt(const bench *b, sequence *s, uint64_t seed, qn_error *err)
{
    const qn_model_info *const info = qn_model_get_info(b->model);
    qn_status status = QN_OK;
    size_t n_ids = 0;
    uint64_t state = seed;
    if (!info->has_tokenizer) {
        s->ids = malloc(b->length * sizeof *s->ids);
        for (uint32_t i = 0; s->ids != NULL && i < b->length; i++) {
            s->ids[i] = (int32_t)draw(&state, info->n_vocab);
        }
        return s->ids != NULL ? QN_OK : qn_fail(err, QN_E_NOMEM, 0, __func__, "prompts: no memory");
    }
    for (size_t n_bytes = b->length; status == QN_OK && n_ids < b->length; n_bytes *= 2) {
        size_t len = 0;
        char *const text = make_text(seed, n_bytes, &len);
        qn_free(s->ids);
        s->ids = NULL;
        status = text == NULL
                     ? qn_fail(err, QN_E_NOMEM, 0, __func__, "prompts: no memory")
                     : qn_encode(&s->ids, &n_ids, b->model, text, len, QN_CONTROL_AS_TEXT, err);
        free(text);
    }
    return status;
}

static qn_status make_prompts(bench *b, qn_error *err)
{
    qn_status status = QN_OK;
    b->sequences = calloc(b->n_sequences, sizeof *b->sequences);
    if (b->sequences == NULL) {
        return qn_fail(err, QN_E_NOMEM, 0, __func__, "prompts: no memory");
    }
    for (uint32_t i = 0; status == QN_OK && i < b->n_sequences; i++) {
        status = make_prompt(b, &b->sequences[i], i + 1, err);
    }
    return status;
}

/* --------------------------------------------------------------------------------------- rounds */

static qn_status submit(bench *b, sequence *s, const qn_request *like, uint32_t n_ids,
                        qn_error *err)
{
    qn_sampling sampling = qn_model_get_info(b->model)->sampling;
    qn_request request = *like;
    sampling.temperature = 0.0F;
    request.sampling = &sampling;
    request.ids = s->ids;
    request.n_ids = n_ids;
    request.ignore_eos = true;
    s->has_begun = false;
    qn_error why = {0};
    const qn_status status = qn_engine_submit(&s->id, b->engine, &request, &why);
    if (status == QN_AGAIN) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "--batch: the queue is full, expected room for it");
    }
    return status < 0
               ? qn_fail(err, status, 0, __func__, "--context and --prompt-tokens: %s", why.text)
               : status;
}

/* What the events of a step say. */
typedef struct step_events {
    uint64_t n_tokens, n_begun, n_ended;
} step_events;

/* Has it got its first token now? */
static bool mark_begun(bench *b, uint64_t id)
{
    for (uint32_t i = 0; i < b->n_sequences; i++) {
        if (b->sequences[i].id == id && !b->sequences[i].has_begun) {
            b->sequences[i].has_begun = true;
            return true;
        }
    }
    return false;
}

static qn_status read_events(bench *b, step_events *seen, qn_error *err)
{
    qn_event event;
    uint64_t id = 0;
    *seen = (step_events){0};
    while (qn_engine_poll(&id, &event, b->engine)) {
        if (event.kind == QN_EVENT_TOKEN) {
            seen->n_tokens++;
            seen->n_begun += mark_begun(b, id);
        } else if (event.kind == QN_EVENT_END) {
            seen->n_ended++;
        }
        if (event.finish == QN_FINISH_ERROR && event.error != NULL) {
            *err = *event.error;
            return event.error->status;
        }
    }
    return QN_OK;
}

/* Steps until nothing is left, and the seconds they took. */
static qn_status run_out(bench *b, double *seconds, qn_error *err)
{
    const double begun_s = cli_now_s();
    qn_status status = QN_OK;
    while (status == QN_OK) {
        step_events seen;
        if (!cli_progress_show(&b->progress, b->n_done, b->n_rounds)) {
            return qn_fail(err, QN_E_CANCELLED, 0, __func__,
                           "bench: interrupted, expected to be measured");
        }
        const qn_status stepped = qn_engine_step(b->engine, err);
        status = stepped < 0 ? stepped : read_events(b, &seen, err);
        if (stepped == QN_AGAIN) {
            break;
        }
    }
    *seconds = cli_now_s() - begun_s;
    return status;
}

/* Prompts of all sequences up to a length, and nothing drawn.  Returns tokens computed a second. */
static qn_status prefill(bench *b, uint32_t n_sequences, uint32_t n_ids, double *rate,
                         qn_error *err)
{
    const qn_request request = {.prompt_only = true};
    const qn_engine_stats before = qn_engine_get_stats(b->engine);
    qn_status status = QN_OK;
    double seconds = 0.0;
    for (uint32_t i = 0; status == QN_OK && i < n_sequences && n_ids > 0; i++) {
        status = submit(b, &b->sequences[i], &request, n_ids, err);
    }
    if (status == QN_OK) {
        status = run_out(b, &seconds, err);
    }
    const qn_engine_stats after = qn_engine_get_stats(b->engine);
    *rate = cli_rate((double)(after.n_prompt_tokens - before.n_prompt_tokens) -
                         (double)(after.n_cached_tokens - before.n_cached_tokens),
                     seconds);
    return status;
}

/* Only steps count at whose beginning every sequence has begun to answer and none has ended. */
static qn_status decode(bench *b, bench_cell *cell, round_result *out, qn_error *err)
{
    uint64_t n_begun = 0;
    double seconds = 0.0;
    step_events seen = {0};
    while (seen.n_ended == 0) {
        if (!cli_progress_show(&b->progress, b->n_done, b->n_rounds)) {
            return qn_fail(err, QN_E_CANCELLED, 0, __func__,
                           "bench: interrupted, expected to be measured");
        }
        const bool counts = n_begun == cell->n_sequences;
        const double begun_s = cli_now_s();
        qn_status status = qn_engine_step(b->engine, err);
        const double step_s = cli_now_s() - begun_s;
        const qn_engine_stats stats = qn_engine_get_stats(b->engine);
        cell->peak_pages =
            stats.n_pages_used > cell->peak_pages ? stats.n_pages_used : cell->peak_pages;
        const qn_status read = read_events(b, &seen, err);
        if (status != QN_OK || read < 0) {
            return status < 0 ? status : read;
        }
        n_begun += seen.n_begun;
        if (counts) {
            seconds += step_s;
            out->n_steps++;
            out->n_tokens += seen.n_tokens;
        }
    }
    out->decode = cli_rate((double)out->n_tokens, seconds);
    out->step_ms = cli_rate(seconds * 1e3, (double)out->n_steps);
    for (uint32_t i = 0; i < cell->n_sequences; i++) {
        qn_engine_cancel(b->engine, b->sequences[i].id);
    }
    return run_out(b, &seconds, err);
}

static qn_status run_round(bench *b, bench_cell *cell, round_result *out, qn_error *err)
{
    const bench_settings *const s = b->settings;
    const uint32_t length = cell->context + s->n_prompt;
    double ignored = 0.0;
    *out = (round_result){0};
    for (uint32_t i = 1; i < cell->n_sequences && s->shares_prefix; i++) {
        memcpy(b->sequences[i].ids, b->sequences[0].ids, cell->context * sizeof(int32_t));
    }
    qn_engine_flush(b->engine);
    qn_status status =
        prefill(b, s->shares_prefix ? 1 : cell->n_sequences, cell->context, &ignored, err);
    if (status == QN_OK) {
        status = prefill(b, cell->n_sequences, length, &out->prefill, err);
    }
    const qn_request request = {.max_tokens = s->n_output,
                                .draft_tokens = cell->depth,
                                .acceptance_length =
                                    cell->is_synthetic ? s->acceptance_length : 0.0F};
    for (uint32_t i = 0; status == QN_OK && i < cell->n_sequences; i++) {
        status = submit(b, &b->sequences[i], &request, length, err);
    }
    if (status == QN_OK) {
        status = decode(b, cell, out, err);
    }
    b->n_done++;
    return status;
}

/* ---------------------------------------------------------------------------------------- cells */

static int compare(const void *x, const void *y)
{
    const double a = *(const double *)x;
    const double b = *(const double *)y;
    return (a > b) - (a < b);
}

static bench_figure figure_of(double *values, size_t n)
{
    qsort(values, n, sizeof *values, compare);
    const double median = n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2.0;
    return (bench_figure){median, cli_rate(values[n - 1] - values[0], median)};
}

/* The first round warms up and is not counted. */
static qn_status run_cell(bench *b, bench_cell *cell, qn_error *err)
{
    double prefills[BENCH_REPEATS_MAX];
    double decodes[BENCH_REPEATS_MAX];
    double steps[BENCH_REPEATS_MAX];
    uint64_t n_steps = 0;
    uint64_t n_tokens = 0;
    const uint32_t n = b->settings->n_repeats;
    cell->has_decode = true;
    for (uint32_t i = 0; i <= n; i++) {
        round_result round;
        const qn_status status = run_round(b, cell, &round, err);
        if (status < 0) {
            return status;
        }
        if (i > 0) {
            prefills[i - 1] = round.prefill;
            decodes[i - 1] = round.decode;
            steps[i - 1] = round.step_ms;
            n_steps += round.n_steps;
            n_tokens += round.n_tokens;
            cell->has_decode &= round.n_steps > 0;
        }
    }
    cell->prefill = figure_of(prefills, n);
    cell->decode = figure_of(decodes, n);
    cell->step_ms = figure_of(steps, n);
    cell->acceptance_length = cli_rate((double)n_tokens, (double)n_steps * cell->n_sequences);
    return QN_OK;
}

/* An engine of its own for each depth: without drafts its pages are smaller. */
static qn_status run_depth(bench *b, int depth, bench_cell *cells, qn_error *err)
{
    const bench_settings *const s = b->settings;
    const cli_engine from = {.n_sequences = b->n_sequences,
                             .n_step_rows = s->n_step_rows,
                             .context = (uint64_t)b->length + s->n_output + ROOM_TOKENS,
                             .page_cache = s->page_cache};
    qn_engine_options options;
    int ignored = 0;
    qn_status status = cli_engine_fill(&options, &ignored, &from, err);
    options.no_mtp = depth == QN_DRAFT_NONE;
    if (status == QN_OK) {
        status = qn_engine_open(&b->engine, b->model, &options, err);
    }
    for (size_t i = 0; status == QN_OK && i < s->n_contexts * s->n_batches; i++) {
        bench_cell *const cell = &cells[i];
        cell->context = s->contexts[i / s->n_batches];
        cell->n_sequences = s->batches[i % s->n_batches];
        cell->depth = depth;
        cell->is_synthetic = s->acceptance_length > 0.0F && depth != QN_DRAFT_NONE;
        status = run_cell(b, cell, err);
    }
    qn_engine_close(&b->engine);
    return status;
}

static uint32_t largest(const uint32_t *list, size_t n)
{
    uint32_t most = 0;
    for (size_t i = 0; i < n; i++) {
        most = list[i] > most ? list[i] : most;
    }
    return most;
}

qn_status bench_engine(bench_cell **cells, size_t *n_cells, qn_model *model,
                       const bench_settings *settings, qn_error *err)
{
    const bench_settings *const s = settings;
    const size_t n_each = s->n_contexts * s->n_batches;
    const uint32_t n_max = qn_model_get_info(model)->n_context_max;
    bench b = {.settings = s, .model = model};
    b.n_sequences = largest(s->batches, s->n_batches);
    b.length = largest(s->contexts, s->n_contexts) + s->n_prompt;
    b.n_rounds = s->n_depths * n_each * (s->n_repeats + 1);
    if ((uint64_t)b.length + s->n_output + ROOM_TOKENS > n_max) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "--context: %u with prompt and output, expected at most the model's %u",
                       b.length + s->n_output + ROOM_TOKENS, n_max);
    }
    *n_cells = s->n_depths * n_each;
    if (*n_cells == 0 || b.n_sequences == 0) {
        return qn_fail(err, QN_E_INVAL, 0, __func__, "--batch: nothing, expected a number");
    }
    *cells = calloc(*n_cells, sizeof **cells);
    if (*cells == NULL) {
        return qn_fail(err, QN_E_NOMEM, 0, __func__, "bench: no memory");
    }
    qn_status status = make_prompts(&b, err);
    cli_progress_begin(&b.progress, "bench", "rounds", 1, s->is_quiet);
    for (size_t i = 0; status == QN_OK && i < s->n_depths; i++) {
        status = run_depth(&b, s->depths[i], *cells + i * n_each, err);
    }
    cli_progress_end(&b.progress);
    for (uint32_t i = 0; b.sequences != NULL && i < b.n_sequences; i++) {
        qn_free(b.sequences[i].ids);
    }
    free(b.sequences);
    return status;
}

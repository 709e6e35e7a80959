/* SPDX-License-Identifier: Apache-2.0 */
#include "gpumodel/compare.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/cpu.h"
#include "model/internal.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_SEQS = 2, REPORTS_MAX = 6, SEED = 7 };

/* --------------------------------------------------------------------------------------- device
 */

qn_status gm_device_load(gm_device *out, qn_gpu *gpu, const qn_gpu_module_image *modules,
                         size_t n_modules, qn_error *err)
{
    *out = (gm_device){.gpu = gpu};
    const qn_status status = qn_gpu_kernels_open(&out->kernels, gpu, modules, n_modules, err);
    if (status < 0) {
        gm_device_close(out);
    }
    return status;
}

qn_status gm_device_open(gm_device *out, const char *name, qn_error *err)
{
    qn_gpu *gpu = NULL;
    *out = (gm_device){0};
    const qn_status status = qn_gpu_open(&gpu, name, err);
    return status < 0 ? status : gm_device_load(out, gpu, qn_gpu_modules, qn_gpu_n_modules, err);
}

void gm_device_close(gm_device *device)
{
    qn_gpu_kernels_close(&device->kernels);
    qn_gpu_close(&device->gpu);
}

/* ---------------------------------------------------------------------------------------- model
 */

/* A model with a cache of its own. */
typedef struct side {
    qn_kernels kernels;
    qn_pool *pool;
    qn_checkpoint *checkpoint;
    qn_glm *glm;
    qn_kv_layout layout;
    qn_kv kv;
} side;

static void *make(size_t n, size_t size)
{
    void *const p = calloc(n + 1, size);
    QN_ASSERT(p != NULL);
    return p;
}

static void side_close(side *s)
{
    if (s->kv.place.gpu != NULL) {
        qn_gpu_free(s->kv.place.gpu, s->kv.base);
    } else {
        free(s->kv.base);
    }
    qn_glm_close(&s->glm);
    qn_checkpoint_close(&s->checkpoint);
    qn_pool_close(&s->pool);
}

static uint32_t table_pages(const gm_case *c)
{
    return c->n_positions / QN_PAGE_TOKENS + 1;
}

/* Stale bytes (NaN patterns) show every row that is read before it is written. */
static qn_status open_cache(side *s, const gm_case *c, qn_kv_dtype dtype, qn_error *err)
{
    const uint32_t n_pages = N_SEQS * table_pages(c);
    qn_kv_layout_init(&s->layout, c->config, dtype, qn_glm_has_mtp(s->glm));
    const size_t n_bytes = n_pages * s->layout.page_bytes;
    void *base = NULL;
    s->kv = (qn_kv){.layout = &s->layout, .n_pages = n_pages, .place = *qn_glm_kv_place(s->glm)};
    if (s->kv.place.gpu == NULL) {
        base = make(n_bytes, 1);
        memset(base, 0xff, n_bytes);
    } else {
        const qn_status status = qn_gpu_alloc(&base, s->kv.place.gpu, n_bytes, "cache", err);
        if (status < 0) {
            return status;
        }
        qn_gpu_fill(s->kv.place.stream, base, 0xff, n_bytes);
    }
    s->kv.base = base;
    return QN_OK;
}

/* On the GPU, or where device is NULL on the CPU. */
static qn_status side_open(side *s, const gm_case *c, const gm_device *device, qn_compute compute,
                           qn_kv_dtype dtype, uint32_t n_rows, qn_error *err)
{
    qn_status status = QN_OK;
    *s = (side){0};
    qn_kernels_init(&s->kernels, qn_cpu_flags());
    status = qn_pool_open(&s->pool, 0, err);
    const qn_glm_options options = {.kernels = &s->kernels,
                                    .pool = s->pool,
                                    .compute = compute,
                                    .n_rows_max = n_rows,
                                    .gpu = device != NULL ? device->gpu : NULL,
                                    .gpu_kernels = device != NULL ? device->kernels : NULL,
                                    .is_deterministic = !c->is_free,
                                    .rules = c->rules};
    if (status == QN_OK && c->dir == NULL) {
        status = qn_glm_open_dummy(&s->glm, c->config, SEED, &options, err);
    } else if (status == QN_OK) {
        status = qn_checkpoint_open(&s->checkpoint, c->dir, err);
        if (status == QN_OK) {
            status = qn_glm_open(&s->glm, c->config, s->checkpoint, &options, err);
        }
    }
    if (status == QN_OK) {
        status = open_cache(s, c, dtype, err);
    }
    if (status == QN_OK && device != NULL && c->scratch_bytes > 0) {
        QN_ASSERT(c->scratch_bytes < s->glm->gpu->ws.scratch_bytes);
        s->glm->gpu->ws.scratch_bytes = c->scratch_bytes;
        s->glm->gpu->ws.n_logit_rows = 2;
    }
    if (status < 0) {
        side_close(s);
    }
    return status;
}

/* ----------------------------------------------------------------------------------------- runs
 */

/* All that a run says of sequence 0; layers are those of the trunk and the MTP layer. */
typedef struct trace {
    uint32_t n_layers; /* with the MTP layer */
    float *hidden;     /* [n_layers + 1][n_positions][n_embd] the embedding, then every layer */
    int32_t *experts;  /* [n_layers][n_positions][n_used] */
    float *router;     /* [n_layers][n_positions][n_experts] scores */
    int32_t *sets;     /* [n_layers][n_positions][n_topk] */
    float *scores;     /* [n_layers][n_positions][n_positions] of the indexer; NAN: none */
    float *out;        /* [2][n_positions][n_embd] after the norm of the trunk, of MTP */
    float *logits;     /* [2][n_positions][n_vocab] likewise */
} trace;

/* A run under way. */
typedef struct run {
    const gm_case *c;
    side *s;
    trace *t;
    const trace *follow; /* its choices are taken; NULL: own ones are kept */
    gm_outcome *outcome; /* NULL without follow */
    uint32_t n_wrong;
    uint32_t first;    /* row of the batch that is sequence 0's first */
    uint32_t n_rows;   /* of it */
    uint32_t position; /* of that row */
} run;

static trace trace_init(const gm_case *c)
{
    const qn_config *const f = c->config;
    const uint32_t n_layers = f->n_layers + 1;
    const size_t n = c->n_positions;
    trace t = {.n_layers = n_layers};
    t.hidden = make((n_layers + 1) * n * f->n_embd, sizeof *t.hidden);
    t.experts = make(n_layers * n * f->n_experts_used, sizeof *t.experts);
    t.router = make(n_layers * n * f->n_experts, sizeof *t.router);
    t.sets = make(n_layers * n * f->index_topk, sizeof *t.sets);
    t.scores = make(n_layers * n * n, sizeof *t.scores);
    t.out = make(2 * n * f->n_embd, sizeof *t.out);
    t.logits = make(2 * n * f->n_vocab, sizeof *t.logits);
    return t;
}

static void trace_deinit(trace *t)
{
    free(t->hidden);
    free(t->experts);
    free(t->router);
    free(t->sets);
    free(t->scores);
    free(t->out);
    free(t->logits);
}

__attribute__((format(printf, 2, 3))) static void report(run *r, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (r->n_wrong++ < REPORTS_MAX) {
        (void)fprintf(stderr, "%s: ", r->c->name);
        (void)vfprintf(stderr, format, args);
        (void)fprintf(stderr, "\n");
    }
    va_end(args);
}

/* Place of a row of the batch among [n_layers][n_positions] rows; false: not of sequence 0. */
static bool find_row(const run *r, int32_t i_layer, uint32_t i_row, size_t *at)
{
    if (i_row < r->first || i_row - r->first >= r->n_rows) {
        return false;
    }
    *at = (size_t)i_layer * r->c->n_positions + r->position + (i_row - r->first);
    return true;
}

static void see_hidden(void *context, int32_t i_layer, const float *x)
{
    run *const r = context;
    const size_t n_embd = r->c->config->n_embd;
    const size_t at = (size_t)(i_layer + 1) * r->c->n_positions + r->position;
    memcpy(r->t->hidden + at * n_embd, x + r->first * n_embd, r->n_rows * n_embd * sizeof *x);
}

static bool holds(const int32_t *list, uint32_t n, int32_t value)
{
    uint32_t i = 0;
    while (i < n && list[i] != value) {
        i++;
    }
    return i < n;
}

/* What is chosen of a row. */
typedef struct choice {
    const char *what;
    int32_t i_layer;
    uint32_t position;
    uint32_t n;
    const float *scores; /* of the run that is followed */
    float gap_max;
} choice;

/*
 * Own choices beside those of the run that is followed, whose scores are given: what only one of
 * them has taken must score alike.
 */
static void compare_choice(run *r, const choice *c, const int32_t *own, const int32_t *theirs)
{
    const uint32_t n = c->n;
    float least = INFINITY; /* of what they alone have taken */
    float most = -INFINITY; /* of what is ours alone */
    r->outcome->n_choices += n;
    for (uint32_t i = 0; i < n; i++) {
        if (!holds(own, n, theirs[i])) {
            least = fminf(least, c->scores[theirs[i]]);
        }
        if (!holds(theirs, n, own[i])) {
            most = fmaxf(most, c->scores[own[i]]);
            r->outcome->n_other_choices++;
        }
    }
    if (isfinite(least) && !(least - most <= c->gap_max)) {
        report(r,
               "%s of layer %d at position %u: another choice at a gap of %g, at most %g expected",
               c->what, c->i_layer, c->position, (double)(least - most), (double)c->gap_max);
    }
}

static void see_router(void *context, int32_t i_layer, uint32_t i_row, int32_t *experts,
                       const float *scores)
{
    run *const r = context;
    const qn_config *const c = r->c->config;
    const uint32_t n = c->n_experts_used;
    size_t at = 0;
    if (!find_row(r, i_layer, i_row, &at)) {
        return;
    }
    if (r->follow == NULL) {
        memcpy(r->t->experts + at * n, experts, n * sizeof *experts);
        memcpy(r->t->router + at * c->n_experts, scores, c->n_experts * sizeof *scores);
        return;
    }
    const choice router = {.what = "router",
                           .i_layer = i_layer,
                           .position = r->position + (i_row - r->first),
                           .n = n,
                           .scores = r->follow->router + at * c->n_experts,
                           .gap_max = 0.05F};
    compare_choice(r, &router, experts, r->follow->experts + at * n);
    memcpy(experts, r->follow->experts + at * n, n * sizeof *experts);
}

static void see_index(void *context, int32_t i_layer, uint32_t i_row, int32_t *set, uint32_t n_set,
                      const float *scores)
{
    run *const r = context;
    const size_t n_topk = r->c->config->index_topk;
    const size_t n_positions = r->c->n_positions;
    const uint32_t first = i_layer == (int32_t)r->c->config->n_layers ? 1 : 0;
    size_t at = 0;
    if (!find_row(r, i_layer, i_row, &at)) {
        return;
    }
    const uint32_t position = r->position + (i_row - r->first);
    if (r->follow == NULL) {
        memcpy(r->t->sets + at * n_topk, set, n_set * sizeof *set);
        if (scores != NULL) {
            memcpy(r->t->scores + at * n_positions + first, scores,
                   (position + 1 - first) * sizeof *scores);
        }
        return;
    }
    const float *const theirs = r->follow->scores + at * n_positions;
    float largest = 0.0F;
    for (uint32_t i = first; i <= position; i++) {
        largest = fmaxf(largest, fabsf(theirs[i]));
    }
    const choice index = {.what = "index set",
                          .i_layer = i_layer,
                          .position = position,
                          .n = n_set,
                          .scores = theirs,
                          .gap_max = 0.05F * largest};
    compare_choice(r, &index, set, r->follow->sets + at * n_topk);
    memcpy(set, r->follow->sets + at * n_topk, n_set * sizeof *set);
}

static int32_t token_at(const gm_case *c, int32_t seq, uint32_t position)
{
    if (seq == 0 && c->ids != NULL) {
        return c->ids[position];
    }
    return (int32_t)((position * 7919U + (uint32_t)seq * 104729U + 13U) % c->config->n_vocab);
}

/* Rows of one pass, with their arrays. */
typedef struct rows {
    int32_t *tokens, *positions, *seqs;
    uint32_t *logit_rows;
    int32_t *pages;
    float *previous, *hidden, *logits;
} rows;

static rows rows_init(const gm_case *c, uint32_t n)
{
    const uint32_t n_pages = table_pages(c);
    rows made = {.tokens = make(n, sizeof(int32_t)),
                 .positions = make(n, sizeof(int32_t)),
                 .seqs = make(n, sizeof(int32_t)),
                 .logit_rows = make(n, sizeof(uint32_t)),
                 .pages = make((size_t)N_SEQS * n_pages, sizeof(int32_t)),
                 .previous = make((size_t)n * c->config->n_embd, sizeof(float)),
                 .hidden = make((size_t)n * c->config->n_embd, sizeof(float)),
                 .logits = make((size_t)n * c->config->n_vocab, sizeof(float))};
    for (uint32_t i = 0; i < N_SEQS * n_pages; i++) { /* any order must do */
        made.pages[i] = (int32_t)(N_SEQS * n_pages - 1 - (i % n_pages * N_SEQS + i / n_pages));
    }
    return made;
}

static void rows_deinit(rows *made)
{
    free(made->tokens);
    free(made->positions);
    free(made->seqs);
    free(made->logit_rows);
    free(made->pages);
    free(made->previous);
    free(made->hidden);
    free(made->logits);
}

/* Compute a pass and keep what it says of sequence 0. */
static void run_pass(run *r, rows *at, uint32_t n, bool is_mtp, const qn_probe *probe)
{
    const qn_config *const c = r->c->config;
    const size_t to = (is_mtp ? r->c->n_positions : 0) + (size_t)r->position;
    const qn_batch batch = {.n_rows = n,
                            .tokens = at->tokens,
                            .positions = at->positions,
                            .seqs = at->seqs,
                            .page_tables = at->pages,
                            .n_seqs = N_SEQS,
                            .n_table_pages = table_pages(r->c),
                            .logit_rows = at->logit_rows,
                            .n_logit_rows = n};
    if (is_mtp) {
        const qn_mtp_io io = {
            .hidden_prev = at->previous, .hidden = at->hidden, .logits = at->logits};
        qn_glm_mtp(r->s->glm, &r->s->kv, &batch, &io, probe);
    } else {
        qn_glm_forward(r->s->glm, &r->s->kv, &batch, at->hidden, at->logits, probe);
    }
    memcpy(r->t->out + to * c->n_embd, at->hidden + (size_t)r->first * c->n_embd,
           (size_t)r->n_rows * c->n_embd * sizeof(float));
    memcpy(r->t->logits + to * c->n_vocab, at->logits + (size_t)r->first * c->n_vocab,
           (size_t)r->n_rows * c->n_vocab * sizeof(float));
}

/* All positions of sequence 0, n_chunk a pass behind some of its neighbour's. */
static void run_part(run *r, bool is_mtp, uint32_t n_chunk, const qn_probe *probe)
{
    const gm_case *const c = r->c;
    const size_t n_embd = c->config->n_embd;
    const uint32_t first = is_mtp ? 1 : 0;
    uint32_t neighbour = first;
    rows at = rows_init(c, n_chunk + N_SEQS + 1);
    for (uint32_t pass = 0, next = first; next < c->n_positions; pass++) {
        uint32_t n = 0;
        for (; n < 1 + pass % 3 && neighbour < c->n_positions; n++) {
            at.seqs[n] = 1;
            at.positions[n] = (int32_t)neighbour++;
        }
        r->first = n;
        r->position = next;
        for (; n - r->first < n_chunk && next < c->n_positions; n++) {
            at.seqs[n] = 0;
            at.positions[n] = (int32_t)next++;
        }
        r->n_rows = n - r->first;
        for (uint32_t i = 0; i < n; i++) {
            const size_t position = (size_t)at.positions[i];
            at.tokens[i] = token_at(c, at.seqs[i], (uint32_t)position);
            at.logit_rows[i] = i;
            if (is_mtp) { /* the neighbour may have any hidden vector */
                memcpy(at.previous + i * n_embd, r->t->out + (position - 1) * n_embd,
                       n_embd * sizeof(float));
            }
        }
        run_pass(r, &at, n, is_mtp, probe);
    }
    rows_deinit(&at);
}

static void run_all(run *r, uint32_t n_chunk, bool is_watched)
{
    const qn_probe probe = {
        .context = r, .hidden = see_hidden, .router = see_router, .index = see_index};
    run_part(r, false, n_chunk, is_watched ? &probe : NULL);
    if (r->follow != NULL) { /* the MTP layer is compared on the same input */
        memcpy(r->t->out, r->follow->out,
               (size_t)r->c->n_positions * r->c->config->n_embd * sizeof(float));
    }
    if (qn_glm_has_mtp(r->s->glm)) {
        run_part(r, true, n_chunk, is_watched ? &probe : NULL);
    }
}

/* ----------------------------------------------------------------------------------- comparison
 */

/* Root of the mean square of a row's difference, relative to that of the row. */
static double row_difference(const float *got, const float *want, size_t n)
{
    double off_sq = 0.0;
    double want_sq = 0.0;
    for (size_t i = 0; i < n; i++) {
        const double off = (double)got[i] - (double)want[i];
        off_sq += off * off;
        want_sq += (double)want[i] * (double)want[i];
    }
    return sqrt(off_sq / want_sq);
}

/* Every layer in turn: only the first that is off is reported, since those behind it follow. */
static void compare_hidden(run *r, const trace *want)
{
    const qn_config *const c = r->c->config;
    const uint32_t n_layers = c->n_layers + (qn_glm_has_mtp(r->s->glm) ? 1 : 0);
    for (uint32_t i = 0; i <= n_layers; i++) {
        const bool is_mtp = i == c->n_layers + 1;
        const double bound = r->c->layer_bound * sqrt(is_mtp ? 1.0 : (double)i);
        const uint32_t n_before = r->n_wrong;
        for (uint32_t p = is_mtp ? 1 : 0; p < r->c->n_positions; p++) {
            const size_t at = ((size_t)i * r->c->n_positions + p) * c->n_embd;
            const double off = row_difference(r->t->hidden + at, want->hidden + at, c->n_embd);
            r->outcome->worst_hidden =
                off <= r->outcome->worst_hidden ? r->outcome->worst_hidden : off;
            if (!(off <= bound)) {
                report(r,
                       "layer %d at position %u: off by %.2g of the row, at most %.2g "
                       "expected",
                       (int)i - 1, p, off, bound);
            }
        }
        if (r->n_wrong > n_before) {
            return;
        }
    }
}

/* log sum exp. */
static double lse_of(const float *logits, uint32_t n)
{
    double most = (double)-INFINITY;
    double sum = 0.0;
    for (uint32_t i = 0; i < n; i++) {
        most = fmax(most, (double)logits[i]);
    }
    for (uint32_t i = 0; i < n; i++) {
        sum += exp((double)logits[i] - most);
    }
    return most + log(sum);
}

static void compare_logits(run *r, const trace *want)
{
    const uint32_t n_vocab = r->c->config->n_vocab;
    const uint32_t n_rows = (qn_glm_has_mtp(r->s->glm) ? 2 : 1) * r->c->n_positions;
    double sum = 0.0;
    uint64_t n = 0;
    for (uint32_t i = 0; i < n_rows; i++) {
        if (i == r->c->n_positions) {
            continue; /* the MTP layer has no row 0 */
        }
        const float *const a = r->t->logits + (size_t)i * n_vocab;
        const float *const b = want->logits + (size_t)i * n_vocab;
        const double shift = lse_of(a, n_vocab) - lse_of(b, n_vocab);
        for (uint32_t k = 0; k < n_vocab; k++, n++) {
            const double off = fabs((double)a[k] - (double)b[k] - shift);
            sum += off;
            r->outcome->worst_logprob =
                off <= r->outcome->worst_logprob ? r->outcome->worst_logprob : off;
        }
    }
    r->outcome->mean_logprob = sum / (double)n;
    /* Logits of random weights have a deviation of 1. */
    const double bound = r->c->layer_bound * (r->c->config->n_layers + 1);
    if (!(r->outcome->mean_logprob <= bound)) {
        report(r, "logits: off by %.2g in the mean, at most %.2g expected",
               r->outcome->mean_logprob, bound);
    }
}

bool gm_compare(gm_outcome *out, const gm_device *device, const gm_case *c)
{
    qn_error err = {0};
    side cpu;
    side gpu;
    *out = (gm_outcome){0};
    const uint32_t n_rows = c->n_positions + N_SEQS + 1;
    if (side_open(&cpu, c, NULL, QN_COMPUTE_BF16, c->kv_dtype, n_rows, &err) < 0) {
        (void)fprintf(stderr, "%s: %s\n", c->name, err.text);
        return false;
    }
    if (side_open(&gpu, c, device, QN_COMPUTE_BF16, c->kv_dtype, n_rows, &err) < 0) {
        (void)fprintf(stderr, "%s: %s\n", c->name, err.text);
        side_close(&cpu);
        return false;
    }
    trace want = trace_init(c);
    trace got = trace_init(c);
    run theirs = {.c = c, .s = &cpu, .t = &want};
    run ours = {.c = c, .s = &gpu, .t = &got, .follow = &want, .outcome = out};
    run_all(&theirs, c->n_positions, true);
    run_all(&ours, c->n_chunk, true);
    compare_hidden(&ours, &want);
    compare_logits(&ours, &want);
    trace_deinit(&want);
    trace_deinit(&got);
    side_close(&cpu);
    side_close(&gpu);
    return ours.n_wrong == 0;
}

bool gm_is_independent(const gm_device *device, const gm_case *c)
{
    qn_error err = {0};
    side gpu;
    if (side_open(&gpu, c, device, QN_COMPUTE_BF16, c->kv_dtype, c->n_positions + N_SEQS + 1,
                  &err) < 0) {
        (void)fprintf(stderr, "%s: %s\n", c->name, err.text);
        return false;
    }
    trace one = trace_init(c);
    trace many = trace_init(c);
    const size_t out_bytes = 2 * (size_t)c->n_positions * c->config->n_embd * sizeof(float);
    const size_t logit_bytes = 2 * (size_t)c->n_positions * c->config->n_vocab * sizeof(float);
    run first = {.c = c, .s = &gpu, .t = &one};
    run second = {.c = c, .s = &gpu, .t = &many};
    run_all(&first, 1, false);
    run_all(&second, c->n_chunk, false);
    const bool is_same = memcmp(one.out, many.out, out_bytes) == 0 &&
                         memcmp(one.logits, many.logits, logit_bytes) == 0;
    if (!is_same) {
        (void)fprintf(stderr, "%s: other bits with one row a pass than with %u\n", c->name,
                      c->n_chunk);
    }
    trace_deinit(&one);
    trace_deinit(&many);
    side_close(&gpu);
    return is_same;
}

/* ------------------------------------------------------------------------------------------ texts
 */

static const void *tensor_of(const gm_texts *texts, const char *name, qn_dtype dtype, size_t *n)
{
    for (size_t i = 0; i < qn_safetensors_count(texts->file); i++) {
        const qn_tensor *const tensor = qn_safetensors_get(texts->file, i);
        if (qn_str_equal(tensor->name, qn_str_of(name)) && tensor->dtype == dtype) {
            *n = tensor->size_bytes / qn_dtype_bytes(dtype);
            return tensor->data;
        }
    }
    *n = 0;
    return NULL;
}

gm_texts gm_texts_of(const int32_t *ids, uint32_t n_ids)
{
    const gm_texts made = {
        .ids = make(n_ids, sizeof *made.ids), .starts = make(2, sizeof *made.starts), .n_texts = 1};
    memcpy(made.ids, ids, n_ids * sizeof *ids);
    made.starts[1] = n_ids;
    return made;
}

/* Each prompt with its answer. */
static gm_texts join(const int32_t *const parts[2], const int32_t *const starts[2],
                     uint32_t n_texts)
{
    const gm_texts made = {
        .ids = make((size_t)starts[0][n_texts] + (size_t)starts[1][n_texts], sizeof *made.ids),
        .starts = make(n_texts + 1, sizeof *made.starts),
        .n_texts = n_texts};
    for (uint32_t i = 0; i < n_texts; i++) {
        uint32_t at = made.starts[i];
        for (int k = 0; k < 2; k++) {
            const uint32_t n = (uint32_t)(starts[k][i + 1] - starts[k][i]);
            memcpy(made.ids + at, parts[k] + starts[k][i], n * sizeof *made.ids);
            at += n;
        }
        made.starts[i + 1] = at;
    }
    return made;
}

qn_status gm_texts_load(gm_texts *out, const char *path, qn_error *err)
{
    gm_texts file = {0};
    *out = (gm_texts){0};
    const qn_status status = qn_safetensors_open(&file.file, path, err);
    if (status < 0) {
        return status;
    }
    size_t n, n_starts[2], n_off, n_agrees;
    const int32_t *const ids = tensor_of(&file, "ids", QN_DTYPE_I32, &n);
    const int32_t *const parts[] = {tensor_of(&file, "prompts", QN_DTYPE_I32, &n_off),
                                    tensor_of(&file, "answers", QN_DTYPE_I32, &n_off)};
    const int32_t *const starts[] = {tensor_of(&file, "prompt_starts", QN_DTYPE_I32, &n_starts[0]),
                                     tensor_of(&file, "answer_starts", QN_DTYPE_I32, &n_starts[1])};
    if (ids != NULL) {
        *out = gm_texts_of(ids, (uint32_t)n);
    } else if (parts[0] != NULL && parts[1] != NULL && n_starts[0] > 1 &&
               n_starts[0] == n_starts[1]) {
        *out = join(parts, starts, (uint32_t)n_starts[0] - 1);
        out->bf16_off = tensor_of(&file, "bf16_off", QN_DTYPE_F32, &n_off);
        out->bf16_agrees = tensor_of(&file, "bf16_agrees", QN_DTYPE_U8, &n_agrees);
        QN_ASSERT(out->bf16_off == NULL ||
                  (n_off == n_agrees && n_off == out->starts[out->n_texts] - out->n_texts));
    } else {
        qn_safetensors_close(&file.file);
        return qn_fail(err, QN_E_FORMAT, 0, __func__,
                       "%s: neither ids nor prompts and answers, expected either", path);
    }
    out->file = file.file;
    return QN_OK;
}

void gm_texts_deinit(gm_texts *texts)
{
    free(texts->ids);
    free(texts->starts);
    qn_safetensors_close(&texts->file);
    *texts = (gm_texts){0};
}

/* -------------------------------------------------------------------------------- teacher forced
 */

/* What a model says of the positions of all texts but the last of each. */
typedef struct told {
    double *logprobs; /* of the next id */
    int32_t *likely;  /* the most likely id */
    double seconds;   /* of all passes */
    uint32_t n_passes;
} told;

static int32_t most_likely(const float *logits, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    return (int32_t)best;
}

/* Positions from @p first on of one text; @p to is of its first position. */
static void teach_pass(side *s, const gm_case *c, rows *at, const int32_t *ids, uint32_t n_ids,
                       uint32_t first, uint32_t n, told *to, size_t i_to)
{
    const uint32_t n_vocab = c->config->n_vocab;
    for (uint32_t i = 0; i < n; i++) {
        at->positions[i] = (int32_t)(first + i);
        at->logit_rows[i] = i;
    }
    const qn_batch batch = {.n_rows = n,
                            .tokens = ids + first,
                            .positions = at->positions,
                            .seqs = at->seqs,
                            .page_tables = at->pages,
                            .n_seqs = N_SEQS,
                            .n_table_pages = table_pages(c),
                            .logit_rows = at->logit_rows,
                            .n_logit_rows = n};
    const uint64_t start_ns = qn_clock_ns();
    qn_glm_forward(s->glm, &s->kv, &batch, NULL, at->logits, NULL);
    to->seconds += qn_clock_seconds(start_ns, qn_clock_ns());
    to->n_passes++;
    for (uint32_t i = 0; i < n && first + i + 1 < n_ids; i++) {
        const float *const logits = at->logits + (size_t)i * n_vocab;
        to->likely[i_to + first + i] = most_likely(logits, n_vocab);
        to->logprobs[i_to + first + i] =
            (double)logits[ids[first + i + 1]] - lse_of(logits, n_vocab);
    }
}

/* A line every ten seconds of what takes minutes. */
static void tell(const char *name, uint32_t n_done, uint32_t n_all, double seconds, double *told_s)
{
    if (seconds - *told_s >= 10.0) {
        *told_s = seconds;
        (void)fprintf(stderr, "%s: %u of %u positions, %.0f s\n", name, n_done, n_all, seconds);
    }
}

static void teach(side *s, const gm_case *c, const gm_texts *texts, uint32_t n_rows, told *to,
                  const char *name)
{
    rows at = rows_init(c, n_rows);
    double told_s = 0.0;
    for (uint32_t i = 0; i < texts->n_texts; i++) {
        const uint32_t n_ids = texts->starts[i + 1] - texts->starts[i];
        QN_ASSERT(n_ids > 0 && n_ids <= c->n_positions);
        for (uint32_t first = 0; first < n_ids; first += n_rows) {
            teach_pass(s, c, &at, texts->ids + texts->starts[i], n_ids, first,
                       n_ids - first < n_rows ? n_ids - first : n_rows, to, texts->starts[i] - i);
            tell(name, texts->starts[i] + first, texts->starts[texts->n_texts], to->seconds,
                 &told_s);
        }
    }
    rows_deinit(&at);
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return x < y ? -1 : x > y ? 1 : 0;
}

/* @p off is sorted. */
static gm_spread spread_of(double *off, uint32_t n, uint32_t n_agreeing)
{
    gm_spread spread = {.agreement = (double)n_agreeing / n};
    qsort(off, n, sizeof *off, by_value);
    for (uint32_t i = 0; i < n; i++) {
        spread.mean += off[i] / n;
    }
    spread.p999 = off[(uint32_t)(0.999 * (n - 1))];
    spread.most = off[n - 1];
    return spread;
}

/* Of two models that were told the same. */
static gm_spread spread_between(const told *a, const told *b, uint32_t n)
{
    double *const off = make(n, sizeof *off);
    uint32_t n_agreeing = 0;
    for (uint32_t i = 0; i < n; i++) {
        n_agreeing += a->likely[i] == b->likely[i] ? 1 : 0;
        off[i] = fabs(a->logprobs[i] - b->logprobs[i]);
    }
    const gm_spread spread = spread_of(off, n, n_agreeing);
    free(off);
    return spread;
}

/* As a file has it. */
static gm_spread spread_known(const gm_texts *texts, uint32_t n)
{
    double *const off = make(n, sizeof *off);
    uint32_t n_agreeing = 0;
    for (uint32_t i = 0; i < n; i++) {
        n_agreeing += texts->bf16_agrees[i];
        off[i] = (double)texts->bf16_off[i];
    }
    const gm_spread spread = spread_of(off, n, n_agreeing);
    free(off);
    return spread;
}

static double nll_of(const told *said, uint32_t n)
{
    double nll = 0.0;
    for (uint32_t i = 0; i < n; i++) {
        nll -= said->logprobs[i] / n;
    }
    return nll;
}

qn_status gm_teach(gm_teacher *out, const gm_device *device, const gm_case *c,
                   const gm_texts *texts, uint32_t n_rows, qn_error *err)
{
    enum { WIDE, GPU, NARROW, N_SIDES };
    static const char *const names[] = {"CPU in f32", "GPU", "CPU in bf16"};
    const uint32_t n = texts->starts[texts->n_texts] - texts->n_texts;
    const int n_sides = texts->bf16_off != NULL ? NARROW : N_SIDES;
    told said[N_SIDES] = {0};
    qn_status status = QN_OK;
    for (int i = 0; i < n_sides && status == QN_OK; i++) {
        side s;
        said[i].logprobs = make(n, sizeof *said[i].logprobs);
        said[i].likely = make(n, sizeof *said[i].likely);
        status =
            side_open(&s, c, i == GPU ? device : NULL, i == WIDE ? QN_COMPUTE_F32 : QN_COMPUTE_BF16,
                      i == WIDE ? QN_KV_F32 : c->kv_dtype, n_rows, err);
        if (status == QN_OK) {
            teach(&s, c, texts, n_rows, &said[i], names[i]);
            side_close(&s);
        }
    }
    if (status == QN_OK) {
        *out =
            (gm_teacher){.n_positions = n,
                         .gpu = spread_between(&said[WIDE], &said[GPU], n),
                         .bf16 = n_sides == N_SIDES ? spread_between(&said[WIDE], &said[NARROW], n)
                                                    : spread_known(texts, n),
                         .bound = n_sides == N_SIDES ? 3.0 : 1.5,
                         .cpu_nll = nll_of(&said[WIDE], n),
                         .gpu_nll = nll_of(&said[GPU], n),
                         .cpu_s = said[WIDE].seconds / said[WIDE].n_passes,
                         .gpu_s = said[GPU].seconds / said[GPU].n_passes};
    }
    for (int i = 0; i < n_sides; i++) {
        free(said[i].logprobs);
        free(said[i].likely);
    }
    return status;
}

bool gm_is_near(const gm_teacher *teacher)
{
    const double bound = teacher->bound;
    const gm_spread *const gpu = &teacher->gpu;
    const gm_spread *const bf16 = &teacher->bf16;
    return 1.0 - gpu->agreement <= bound * (1.0 - bf16->agreement) &&
           gpu->mean <= bound * bf16->mean && gpu->p999 <= bound * bf16->p999;
}

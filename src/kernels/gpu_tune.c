/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/gpu_tune.h"

#include "base/assert.h"
#include "base/log.h"
#include "base/numbers.h"
#include "base/rng.h"
#include "base/try.h"
#include "kernels/gpu_tune_subject.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

enum {
    VARIANTS_MAX = 16,
    ROWS_MAX = 32,
    LAUNCHES_MAX = 96,
    MANY_ROWS = 128, /* of a group */
    SAMPLES = 64,    /* rows of results that are compared */
    CHUNK = 4 << 20, /* bytes that fills repeat */
};
static const uint64_t k_results_max = 1ULL << 30;
/* Of the sum of squares of a row; roundings to bf16 within make 1e-5. */
static const double k_error_max = 1e-4;

/* What one variant can do at best with some number of rows. */
typedef struct best {
    qn_gpu_tune_candidate candidate;
    double us; /* INFINITY: it does not take part */
} best;

/* One measurement after another of one shape. */
typedef struct session {
    qn_gpu_subject s;
    void *sweep;
    qn_gpu_event *first, *last;
    uint8_t *row; /* a row of results, on the host */
    uint32_t *n_wrong;
    uint32_t i_rows;
    best bests[ROWS_MAX][VARIANTS_MAX];
} session;

/* ------------------------------------------------------------------------------------ memory -- */

qn_status qn_gpu_tune_reserve(qn_gpu_subject *s, size_t own_bytes, qn_gpu_tune_lay_out_fn *lay_out,
                              const char *what, qn_error *err)
{
    s->own = malloc(own_bytes);
    if (s->own == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "tuning: no memory");
    }
    qn_gpu_block block = {0};
    lay_out(s, &block);
    void *memory = NULL;
    const qn_status status = qn_gpu_alloc(&memory, s->tuner->gpu, block.n_bytes, what, err);
    if (status == QN_OK) {
        s->block = memory;
        block = (qn_gpu_block){.base = memory};
        lay_out(s, &block);
    }
    return status;
}

/* Lay the first @p n_there bytes down again and again. */
static void repeat(const qn_gpu_tuner *t, uint8_t *to, uint64_t n_there, uint64_t n_bytes)
{
    while (n_there < n_bytes) {
        const uint64_t n = n_bytes - n_there < n_there ? n_bytes - n_there : n_there;
        qn_gpu_copy(t->ops.stream, to + n_there, to, n);
        n_there += n;
    }
}

static void make_bytes(uint8_t *bytes, size_t n, qn_gpu_tune_bytes kind)
{
    for (size_t i = 0; i < n; i += 8) {
        uint64_t bits = qn_rng_u64(1, kind, i);
        float numbers[2] = {(float)(bits & 0xffff) * 0x1p-21F + 0.03F,
                            (float)(bits >> 48) * 0x1p-21F + 0.03F};
        uint16_t halves[4];
        for (int k = 0; k < 4; k++) {
            const float unit = (float)(bits >> (16 * k) & 0xffff) * 0x1p-15F - 1.0F;
            halves[k] = qn_f32_to_bf16(unit);
        }
        if (kind == QN_GPU_TUNE_WEIGHTS) {
            bits &= 0xbfbfbfbfbfbfbfbfU;
        } else if (kind == QN_GPU_TUNE_E8M0) {
            bits = (bits & 0x0303030303030303U) + 0xf4f4f4f4f4f4f4f4U;
        } else if (kind == QN_GPU_TUNE_F32) {
            memcpy(&bits, numbers, 8);
        } else {
            memcpy(&bits, halves, 8);
        }
        memcpy(bytes + i, &bits, n - i < 8 ? n - i : 8);
    }
}

qn_status qn_gpu_tune_fill(const qn_gpu_tuner *t, void *to, uint64_t n_bytes,
                           qn_gpu_tune_bytes kind, qn_error *err)
{
    const size_t n = n_bytes < CHUNK ? n_bytes : CHUNK;
    uint8_t *const bytes = malloc(n + 1);
    if (bytes == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "tuning: no memory");
    }
    make_bytes(bytes, n, kind);
    if (n > 0) {
        qn_gpu_upload(t->ops.stream, to, bytes, n);
        repeat(t, to, n, n_bytes);
    }
    const qn_status status = qn_gpu_wait(t->ops.stream, err);
    free(bytes);
    return status;
}

qn_status qn_gpu_tune_fill_rows(const qn_gpu_tuner *t, void *to, uint64_t n_rows, uint64_t n,
                                qn_error *err)
{
    const uint64_t n_there = n_rows < QN_GPU_TUNE_PERIOD ? n_rows : QN_GPU_TUNE_PERIOD;
    const qn_status status = qn_gpu_tune_fill(t, to, n_there * n * 2, QN_GPU_TUNE_BF16, err);
    if (status == QN_OK) {
        repeat(t, to, n_there * n * 2, n_rows * n * 2);
    }
    return status;
}

static uint64_t y_row_bytes(const qn_gpu_subject *s)
{
    return s->n_y * (s->y_is_bf16 ? 2 : 4);
}

/* ----------------------------------------------------------------------------------- results -- */

/* What the portable variant makes of one period of rows. */
static qn_status make_ref(qn_gpu_subject *s, qn_error *err)
{
    const uint64_t n_bytes = s->n_ref * y_row_bytes(s);
    s->ref = malloc(n_bytes);
    if (s->ref == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "tuning: no memory for %llu bytes",
                       (unsigned long long)n_bytes);
    }
    s->launch_ref(s);
    qn_gpu_download(s->tuner->ops.stream, s->ref, s->y, n_bytes);
    return qn_gpu_wait(s->tuner->ops.stream, err);
}

static double element(const qn_gpu_subject *s, const uint8_t *row, uint64_t i)
{
    float value;
    uint16_t half;
    if (s->y_is_bf16) {
        memcpy(&half, row + 2 * i, sizeof half);
        return (double)qn_bf16_to_f32(half);
    }
    memcpy(&value, row + 4 * i, sizeof value);
    return (double)value;
}

static bool is_row_right(const qn_gpu_subject *s, const uint8_t *row, const uint8_t *ref)
{
    double error = 0;
    double power = 0;
    for (uint64_t i = 0; i < s->n_y; i++) {
        const double r = element(s, ref, i);
        const double d = element(s, row, i) - r;
        error += d * d;
        power += r * r;
    }
    return error <= k_error_max * power; /* false of NaN */
}

/* Are the results those of the portable variant, in all rows or in some of them everywhere? */
static qn_status check(session *at, bool *is_right, const qn_gpu_tune_candidate *c, qn_error *err)
{
    qn_gpu_subject *const s = &at->s;
    qn_gpu_stream *const stream = s->tuner->ops.stream;
    const uint64_t n_bytes = y_row_bytes(s);
    const uint32_t n = s->n_rows < SAMPLES ? s->n_rows : SAMPLES;
    qn_gpu_fill(stream, s->y, 0xff, s->n_rows * n_bytes);
    s->launch(s, c, 0);
    *is_right = true;
    for (uint32_t i = 0; i < n && *is_right; i++) {
        /* One of every n-th part, the first and the last row among them. */
        const uint64_t part = s->n_rows / n;
        const uint64_t row = i == 0       ? 0
                             : i + 1 == n ? s->n_rows - 1
                                          : i * part + qn_rng_u64(2, s->n_rows, i) % part;
        qn_gpu_download(stream, at->row, (uint8_t *)s->y + row * n_bytes, n_bytes);
        const qn_status status = qn_gpu_wait(stream, err);
        if (status < 0) {
            return status;
        }
        *is_right = is_row_right(s, at->row, s->ref + s->ref_of[row] * n_bytes);
    }
    if (!*is_right) {
        ++*at->n_wrong;
        qn_log(QN_LOG_WARN, "tuning: %s of %u x %u, %u rows: %s (strips=%u splits=%u) is wrong",
               qn_gpu_tuned_op_name(s->key.op), s->key.n_out, s->key.n_in, s->n_rows,
               s->name(s, c->i_variant), c->n_strips, c->n_splits);
    }
    return QN_OK;
}

/* -------------------------------------------------------------------------------------- time -- */

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Microseconds of one launch of a graph after a sweep of the cache. */
static qn_status time_launch(session *at, double *us, qn_gpu_graph *graph, qn_error *err)
{
    const qn_gpu_tuner *const t = at->s.tuner;
    if (t->progress != NULL && !t->progress(t->progress_context, at->i_rows)) {
        return qn_fail(err, QN_E_CANCELLED, 0, __func__, "tuning: cancelled");
    }
    qn_gpu_fill(t->ops.stream, at->sweep, 1, t->cold_bytes);
    qn_gpu_event_record(at->first, t->ops.stream);
    qn_gpu_graph_launch(t->ops.stream, graph);
    qn_gpu_event_record(at->last, t->ops.stream);
    const qn_status status = qn_gpu_wait(t->ops.stream, err);
    *us = qn_gpu_event_seconds(at->first, at->last) * 1e6 / at->s.n_calls;
    return status;
}

/* The median of some launches; of one where that takes much longer than @p limit_us. */
static qn_status time_candidate(session *at, double *us, const qn_gpu_tune_candidate *c,
                                uint32_t n_launches, double limit_us, qn_error *err)
{
    qn_gpu_subject *const s = &at->s;
    qn_gpu_graph *graph = NULL;
    double times[LAUNCHES_MAX] = {0};
    qn_status status = QN_OK;
    uint32_t n = 0;
    qn_gpu_capture_begin(s->tuner->ops.stream);
    for (uint32_t i = 0; i < s->n_calls; i++) {
        s->launch(s, c, i);
    }
    QN_TRY(status, qn_gpu_capture_end(&graph, s->tuner->ops.stream, err), fail);
    QN_TRY(status, time_launch(at, &times[0], graph, err), fail); /* warms up */
    do {
        QN_TRY(status, time_launch(at, &times[n++], graph, err), fail);
    } while (n < n_launches && times[0] < 1.5 * limit_us);
    qsort(times, n, sizeof *times, by_size);
    *us = isnan(times[n / 2]) ? HUGE_VAL : times[n / 2];
fail:
    qn_gpu_graph_close(&graph);
    return status;
}

/* ------------------------------------------------------------------------------------ choice -- */

/* Room for partial sums, whose counters begin with zero. */
static qn_status make_room(qn_gpu_subject *s, const qn_gpu_tune_candidate *c, qn_error *err)
{
    const uint64_t n_bytes = s->room(s, c);
    if (n_bytes <= s->scratch_bytes) {
        return QN_OK;
    }
    void *scratch = NULL;
    qn_gpu_free(s->tuner->gpu, s->scratch);
    s->scratch = NULL;
    s->scratch_bytes = 0;
    const qn_status status = qn_gpu_alloc(&scratch, s->tuner->gpu, n_bytes, "partial sums", err);
    if (status == QN_OK) {
        s->scratch = scratch;
        s->scratch_bytes = n_bytes;
        qn_gpu_fill(s->tuner->ops.stream, scratch, 0, n_bytes);
    }
    return status;
}

/* A candidate beside the best that its variant has had, and the best of all. */
static qn_status try_candidate(session *at, best *of_variant, double *best_us,
                               qn_gpu_tune_candidate c, qn_error *err)
{
    const uint32_t n_launches = at->s.tuner->n_launches;
    qn_status status = QN_OK;
    bool is_right = false;
    double us = (double)INFINITY;
    QN_TRY(status, make_room(&at->s, &c, err), fail);
    if (c.i_variant == at->s.i_portable) {
        is_right = true; /* by definition */
    } else {
        QN_TRY(status, check(at, &is_right, &c, err), fail);
    }
    if (is_right) {
        QN_TRY(status, time_candidate(at, &us, &c, n_launches, *best_us, err), fail);
    }
    if (us < of_variant->us) {
        *of_variant = (best){c, us};
    }
    *best_us = us < *best_us ? us : *best_us;
fail:
    return status;
}

static qn_status try_plans(session *at, best *of_variant, double *best_us, uint32_t i_variant,
                           qn_error *err)
{
    static const uint32_t splits[] = {1, 2, 3, 4, 6, 8, 12, 16};
    for (uint32_t n_strips = 2; n_strips <= 16; n_strips *= 2) {
        for (size_t i = 0; i < sizeof splits / sizeof *splits; i++) {
            const qn_gpu_tune_candidate c = {i_variant, n_strips, splits[i]};
            const qn_status status = try_candidate(at, of_variant, best_us, c, err);
            if (status < 0) {
                return status;
            }
        }
    }
    return QN_OK;
}

/* Do variants have the same name up to the "/"? */
static bool is_alike(const qn_gpu_subject *s, uint32_t a, uint32_t b)
{
    const char *const x = s->name(s, a);
    const char *const y = s->name(s, b);
    const size_t n = strcspn(x, "/");
    return n == strcspn(y, "/") && strncmp(x, y, n) == 0;
}

/* The fastest of the variants like @p like, of all where that is UINT32_MAX. */
static const best *fastest(const qn_gpu_subject *s, const best *bests, uint32_t like)
{
    const best *found = &bests[like == UINT32_MAX ? s->i_portable : like];
    for (uint32_t v = 0; v < s->n_variants; v++) {
        if ((like == UINT32_MAX || is_alike(s, like, v)) && bests[v].us < found->us) {
            found = &bests[v];
        }
    }
    return found;
}

/* Where a group has many, their number alone is work for all of the device. */
static bool has_few_rows(const session *at)
{
    const uint32_t n_groups = at->s.key.op == QN_GPU_TUNED_MOE ? at->s.key.n_groups : 1;
    return at->s.n_rows / n_groups < MANY_ROWS;
}

/*
 * Has the variant been far behind with so many rows that more will not help?  @p before  of fewer
 * rows, NULL: there are none
 */
static bool is_hopeless(const session *at, const best *before, uint32_t i_variant,
                        uint32_t n_before)
{
    const uint32_t n_groups = at->s.key.op == QN_GPU_TUNED_MOE ? at->s.key.n_groups : 1;
    return before != NULL && n_before / n_groups >= MANY_ROWS &&
           before[i_variant].us > 4 * fastest(&at->s, before, UINT32_MAX)->us;
}

/* Longer than before. */
static qn_status time_again(session *at, double *us, const qn_gpu_tune_candidate *c, qn_error *err)
{
    const qn_status status = make_room(&at->s, c, err);
    return status < 0
               ? status
               : time_candidate(at, us, c, 3 * at->s.tuner->n_launches, (double)INFINITY, err);
}

/*
 * Once more the best of a variant.  A plan that gains nothing gives way to the variant's own, which
 * gets better when the variant does.
 */
static qn_status try_again(session *at, best *of_variant, qn_error *err)
{
    const qn_gpu_tune_candidate own = {.i_variant = of_variant->candidate.i_variant};
    double own_us = (double)INFINITY;
    qn_status status = time_again(at, &of_variant->us, &of_variant->candidate, err);
    if (status == QN_OK && of_variant->candidate.n_splits > 0) {
        status = time_again(at, &own_us, &own, err);
    }
    if (own_us < 1.02 * of_variant->us) {
        *of_variant = (best){own, own_us};
    }
    return status;
}

/* Variants with some number of rows; of products the portable one only where no other is right: a
 * table that names it names a fallback. */
static qn_status try_all(session *at, best *bests, const best *before, uint32_t n_before,
                         qn_error *err)
{
    qn_gpu_subject *const s = &at->s;
    double best_us = (double)INFINITY;
    qn_status status = QN_OK;
    for (uint32_t i = 0; i < s->n_variants; i++) {
        bests[i].us = (double)INFINITY;
    }
    for (uint32_t i = 0; i <= s->n_variants; i++) {
        const uint32_t v = i == s->n_variants ? s->i_portable : i;
        const qn_gpu_tune_candidate own = {.i_variant = v};
        const bool is_spare = v == s->i_portable && s->key.op < QN_GPU_TUNED_ATTEND;
        if ((v == s->i_portable) != (i == s->n_variants) || !s->supports(s, &own) ||
            (is_spare ? best_us < (double)INFINITY : is_hopeless(at, before, v, n_before))) {
            continue;
        }
        status = try_candidate(at, &bests[v], &best_us, own, err);
        if (status == QN_OK && has_few_rows(at) && !s->tuner->is_quick && s->has_plans(s, v) &&
            bests[v].us < 2 * best_us) {
            status = try_plans(at, &bests[v], &best_us, v, err);
        }
        if (status < 0) {
            return status;
        }
    }
    for (uint32_t v = 0; v < s->n_variants && status == QN_OK; v++) {
        status = bests[v].us < 1.3 * best_us ? try_again(at, &bests[v], err) : QN_OK;
    }
    return status;
}

/* Of attention and index scores: what takes the least time for all rows together; the portable one
 * where no other is right with each number of them. */
static uint32_t choose_for_all(const session *at, uint32_t n)
{
    uint32_t found = at->s.i_portable;
    double found_us = (double)INFINITY;
    for (uint32_t v = 0; v < at->s.n_variants; v++) {
        if (is_alike(&at->s, v, at->s.i_portable)) {
            continue;
        }
        double us = 0;
        for (uint32_t i = 0; i < n; i++) {
            /* Relative to the best, or the most rows would decide. */
            us += fastest(&at->s, at->bests[i], v)->us /
                  fastest(&at->s, at->bests[i], UINT32_MAX)->us;
        }
        if (us < found_us) {
            found = v;
            found_us = us;
        }
    }
    return found;
}

static void write_rows(const session *at, qn_gpu_tuning_row *out, const uint32_t *rows, uint32_t n)
{
    const qn_gpu_subject *const s = &at->s;
    const uint32_t like = s->key.op < QN_GPU_TUNED_ATTEND ? UINT32_MAX : choose_for_all(at, n);
    for (uint32_t i = 0; i < n; i++) {
        const best *const b = fastest(s, at->bests[i], like);
        out[i] = (qn_gpu_tuning_row){
            .key = s->key,
            .n_rows = rows[i],
            .i_variant = b->candidate.i_variant,
            .n_strips = b->candidate.n_strips,
            .n_splits = b->candidate.n_splits,
            .us = (float)b->us,
        };
        (void)snprintf(out[i].variant, sizeof out[i].variant, "%s",
                       s->name(s, b->candidate.i_variant));
    }
}

/* ------------------------------------------------------------------------------------- whole -- */

static uint64_t result_bytes(const qn_gpu_tuner *t, const qn_gpu_tuning_key *key)
{
    const uint64_t n_each[] = {
        [QN_GPU_TUNED_MATMUL] = 4ULL * key->n_out * key->n_groups,
        [QN_GPU_TUNED_MOE] = 4ULL * key->n_out,
        [QN_GPU_TUNED_ATTEND] = 2ULL * key->n_out * key->n_in,
        [QN_GPU_TUNED_INDEX] = 4ULL * t->n_positions,
    };
    return n_each[key->op];
}

static qn_status open_session(session *at, qn_error *err)
{
    qn_gpu_subject *const s = &at->s;
    const qn_gpu_tuner *const t = s->tuner;
    qn_status status = QN_OK;
    QN_TRY(status, qn_gpu_alloc(&at->sweep, t->gpu, t->cold_bytes, "the sweep of the cache", err),
           fail);
    QN_TRY(status, qn_gpu_event_open(&at->first, t->gpu, err), fail);
    QN_TRY(status, qn_gpu_event_open(&at->last, t->gpu, err), fail);
    s->ref_of = calloc(s->n_rows_max, sizeof *s->ref_of);
    if (s->ref_of == NULL) {
        status = qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "tuning: no memory");
        goto fail;
    }
    if (s->key.op < QN_GPU_TUNED_ATTEND) {
        status = qn_gpu_subject_matmul(s, err);
    } else {
        status = qn_gpu_subject_attention(s, err);
    }
    QN_TRY(status, status, fail);
    QN_ASSERT(s->n_variants <= VARIANTS_MAX);
    const uint32_t n = s->n_rows_max > s->n_ref ? s->n_rows_max : s->n_ref;
    QN_TRY(status, qn_gpu_alloc(&s->y, t->gpu, n * y_row_bytes(s), "results", err), fail);
    at->row = malloc(y_row_bytes(s));
    if (at->row == NULL) {
        status = qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "tuning: no memory");
        goto fail;
    }
    qn_gpu_fill(t->ops.stream, s->y, 0, n * y_row_bytes(s));
    s->n_rows = s->n_ref;
    QN_TRY(status, make_room(s, &(qn_gpu_tune_candidate){.i_variant = s->i_portable}, err), fail);
    QN_TRY(status, make_ref(s, err), fail);
fail:
    return status;
}

static void close_session(session *at)
{
    qn_gpu_subject *const s = &at->s;
    qn_error ignored = {0};
    (void)!qn_gpu_wait(s->tuner->ops.stream, &ignored);
    void *const memory[] = {at->sweep, s->y, s->block, s->scratch};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++) {
        qn_gpu_free(s->tuner->gpu, memory[i]);
    }
    qn_gpu_event_close(&at->first);
    qn_gpu_event_close(&at->last);
    free(s->ref_of);
    free(s->ref);
    free(s->own);
    free(at->row);
    free(at);
}

qn_status qn_gpu_tune(qn_gpu_tuning_row *out, uint32_t *n, uint32_t *n_wrong,
                      const qn_gpu_tuner *tuner, const qn_gpu_tuning_key *key, const uint32_t *rows,
                      uint32_t n_rows, qn_error *err)
{
    qn_status status = QN_OK;
    const uint64_t row_bytes = result_bytes(tuner, key);
    *n = 0;
    *n_wrong = 0;
    QN_ASSERT(n_rows <= ROWS_MAX && 3 * tuner->n_launches <= LAUNCHES_MAX);
    while (n_rows > 0 && rows[n_rows - 1] * row_bytes > k_results_max) {
        n_rows--;
    }
    if (n_rows == 0) {
        return QN_OK;
    }
    session *const at = calloc(1, sizeof *at);
    if (at == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "tuning: no memory");
    }
    at->n_wrong = n_wrong;
    at->s = (qn_gpu_subject){.tuner = tuner, .key = *key, .n_rows_max = rows[n_rows - 1]};
    QN_TRY(status, open_session(at, err), fail);
    for (uint32_t i = 0; i < n_rows; i++) {
        at->i_rows = i;
        at->s.n_rows = rows[i];
        QN_TRY(status, at->s.prepare(&at->s, err), fail);
        QN_TRY(status,
               try_all(at, at->bests[i], i > 0 ? at->bests[i - 1] : NULL, i > 0 ? rows[i - 1] : 0,
                       err),
               fail);
    }
    write_rows(at, out, rows, n_rows);
    *n = n_rows;
fail:
    close_session(at);
    return status;
}

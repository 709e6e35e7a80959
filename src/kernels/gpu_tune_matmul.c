/* SPDX-License-Identifier: Apache-2.0 */
/* Products to be measured: what they read and write. */
#include "base/minmax.h"
#include "base/rng.h"
#include "kernels/gpu_tune_subject.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

enum { N_ROUTES = 8 };

/* Slots of experts, one after the other. */
typedef struct route {
    uint32_t *first_of, *row_of, *active, *n_active;
} route;

/* What lies in the block. */
typedef struct product {
    qn_gpu_weight w; /* of the first copy */
    uint64_t copy_bytes, copy_scale_bytes;
    uint32_t n_copies;
    uint16_t *x; /* [rows][groups][n_in], of experts [slots][n_in] */
    route routes[N_ROUTES], ref_route;
} product;

static bool is_grouped(const qn_gpu_subject *s)
{
    return s->key.op == QN_GPU_TUNED_MOE;
}

static uint32_t up_to_ref(const qn_gpu_subject *s, uint32_t n)
{
    return n > s->n_ref ? n : s->n_ref;
}

static route cut_route(const qn_gpu_subject *s, qn_gpu_block *at)
{
    const uint32_t n_groups = s->key.n_groups;
    return (route){
        .first_of = qn_gpu_cut(at, (n_groups + 1) * sizeof(uint32_t)),
        .row_of = qn_gpu_cut(at, up_to_ref(s, s->n_rows_max) * sizeof(uint32_t)),
        .active = qn_gpu_cut(at, n_groups * sizeof(uint32_t)),
        .n_active = qn_gpu_cut(at, sizeof(uint32_t)),
    };
}

static void lay_out(const qn_gpu_subject *s, qn_gpu_block *at)
{
    product *const p = s->own;
    const qn_gpu_tuning_key *const k = &s->key;
    *p = (product){
        .w = {.kind = k->kind, .n_out = k->n_out, .n_in = k->n_in, .is_pair = k->is_pair}};
    p->w.data_stride = qn_gpu_weight_data_bytes(k->kind, k->n_out, k->n_in, k->is_pair != 0);
    p->w.scales_stride = qn_gpu_weight_scale_bytes(k->kind, k->n_out, k->n_in, k->is_pair != 0);
    p->copy_bytes = p->w.data_stride * k->n_groups;
    p->copy_scale_bytes = p->w.scales_stride * k->n_groups;
    p->n_copies = 1;
    if (!is_grouped(s)) { /* experts take turns anyway */
        const uint64_t n = s->tuner->cold_bytes / p->copy_bytes + 1;
        p->n_copies = n < QN_GPU_TUNE_CALLS_MAX ? (uint32_t)n : QN_GPU_TUNE_CALLS_MAX;
    }
    p->w.data = qn_gpu_cut(at, p->copy_bytes * p->n_copies);
    p->w.scales = qn_gpu_cut(at, p->copy_scale_bytes * p->n_copies);
    const uint64_t n_groups = is_grouped(s) ? 1 : k->n_groups;
    p->x = qn_gpu_cut(at, 2 * n_groups * k->n_in * up_to_ref(s, s->n_rows_max));
    for (uint32_t i = 0; is_grouped(s) && i < N_ROUTES; i++) {
        p->routes[i] = cut_route(s, at);
    }
    if (is_grouped(s)) {
        p->ref_route = cut_route(s, at);
    }
}

/* ---------------------------------------------------------------------------------- experts -- */

/* A route on the host. */
typedef struct host_route {
    uint32_t *first_of, *row_of, *active, *next;
    uint32_t n_active;
} host_route;

static qn_status open_host_route(host_route *r, const qn_gpu_subject *s, qn_error *err)
{
    const uint32_t n_groups = s->key.n_groups;
    const uint32_t n_slots = up_to_ref(s, s->n_rows_max);
    uint32_t *const all = calloc((size_t)3 * n_groups + 1 + n_slots, sizeof *all);
    if (all == NULL) {
        (void)qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "tuning: no memory");
        return QN_E_NOMEM; /* spelled out: the analyser does not see through qn_fail() */
    }
    *r = (host_route){.first_of = all,
                      .active = all + n_groups + 1,
                      .next = all + 2 * (size_t)n_groups + 1,
                      .row_of = all + 3 * (size_t)n_groups + 1};
    return QN_OK;
}

/* active and n_active of first_of: groups with slots, most slots first. */
static void sort_active(host_route *r, uint32_t n_groups)
{
    uint32_t n_most = 0;
    for (uint32_t g = 0; g < n_groups; g++) {
        const uint32_t n = r->first_of[g + 1] - r->first_of[g];
        n_most = n > n_most ? n : n_most;
    }
    r->n_active = 0;
    for (uint32_t n = n_most; n > 0; n--) {
        for (uint32_t g = 0; g < n_groups; g++) {
            if (r->first_of[g + 1] - r->first_of[g] == n) {
                r->active[r->n_active++] = g;
            }
        }
    }
}

/*
 * Slot @p i's expert: those of a token differ where they are not more than there are.  As of a
 * model, some are asked thrice as often as the mean: the groups of experts, one for each slot of a
 * token, begin with those.
 */
static uint32_t draw_expert(const qn_gpu_subject *s, uint32_t i_route, uint32_t i)
{
    const uint32_t n_used = qn_max_u32(1, s->tuner->n_experts_used);
    const uint32_t n_step = qn_max_u32(1, s->key.n_groups / n_used);
    const uint64_t start = qn_rng_u64(3, i_route, 0) % s->key.n_groups;
    const double u = qn_rng_unit(4, i_route, i);
    const uint32_t rank = (uint32_t)(n_step * u * sqrt(u));
    return (uint32_t)((start + (uint64_t)(i % n_used) * n_step + rank) % s->key.n_groups);
}

static void make_route(const qn_gpu_subject *s, host_route *r, uint32_t i_route)
{
    const uint32_t n_groups = s->key.n_groups;
    memset(r->first_of, 0, (n_groups + 1) * sizeof *r->first_of);
    for (uint32_t i = 0; i < s->n_rows; i++) {
        r->first_of[draw_expert(s, i_route, i) + 1]++;
    }
    for (uint32_t g = 0; g < n_groups; g++) {
        r->first_of[g + 1] += r->first_of[g];
        r->next[g] = r->first_of[g];
    }
    for (uint32_t i = 0; i < s->n_rows; i++) {
        r->row_of[r->next[draw_expert(s, i_route, i)]++] = i / s->tuner->n_experts_used;
    }
    sort_active(r, n_groups);
}

static qn_status upload_route(const qn_gpu_subject *s, const route *to, const host_route *from,
                              uint32_t n_slots, qn_error *err)
{
    qn_gpu_stream *const stream = s->tuner->ops.stream;
    const uint32_t n_groups = s->key.n_groups;
    qn_gpu_upload(stream, to->first_of, from->first_of, (n_groups + 1) * sizeof(uint32_t));
    qn_gpu_upload(stream, to->row_of, from->row_of, n_slots * sizeof(uint32_t));
    qn_gpu_upload(stream, to->active, from->active, n_groups * sizeof(uint32_t));
    qn_gpu_upload(stream, to->n_active, &from->n_active, sizeof(uint32_t));
    return qn_gpu_wait(stream, err);
}

/* Only products of pairs, the first of experts, take rows by a list. */
static uint32_t row_of_slot(const qn_gpu_subject *s, const host_route *r, uint32_t slot)
{
    return s->key.is_pair ? r->row_of[slot] : slot;
}

static qn_status prepare_routes(qn_gpu_subject *s, host_route *r, qn_error *err)
{
    const product *const p = s->own;
    qn_status status = QN_OK;
    for (uint32_t i = N_ROUTES; i > 0 && status == QN_OK; i--) { /* results are of the first */
        make_route(s, r, i - 1);
        status = upload_route(s, &p->routes[i - 1], r, s->n_rows, err);
    }
    for (uint32_t g = 0; g < s->key.n_groups; g++) {
        for (uint32_t i = r->first_of[g]; i < r->first_of[g + 1]; i++) {
            const uint32_t row = row_of_slot(s, r, i) % QN_GPU_TUNE_PERIOD;
            s->ref_of[i] = g * QN_GPU_TUNE_PERIOD + row;
        }
    }
    return status;
}

/* Each expert has each row of a period. */
static qn_status prepare_ref_route(qn_gpu_subject *s, host_route *r, qn_error *err)
{
    const product *const p = s->own;
    for (uint32_t g = 0; g <= s->key.n_groups; g++) {
        r->first_of[g] = g * QN_GPU_TUNE_PERIOD;
    }
    for (uint32_t i = 0; i < s->n_ref; i++) {
        r->row_of[i] = i % QN_GPU_TUNE_PERIOD;
    }
    sort_active(r, s->key.n_groups);
    return upload_route(s, &p->ref_route, r, s->n_ref, err);
}

/* ---------------------------------------------------------------------------------- subject -- */

static const char *name_of(const qn_gpu_subject *s, uint32_t i_variant)
{
    (void)s;
    return qn_gpu_matmul_variants[i_variant].name;
}

static bool has_plans(const qn_gpu_subject *s, uint32_t i_variant)
{
    (void)s;
    return qn_gpu_matmul_variants[i_variant].has_plans;
}

static qn_gpu_matmul_shape shape_of(const qn_gpu_subject *s, const qn_gpu_tune_candidate *c,
                                    uint32_t n_rows)
{
    const qn_gpu_tuning_key *const k = &s->key;
    return (qn_gpu_matmul_shape){.kind = k->kind,
                                 .n_out = k->n_out,
                                 .n_in = k->n_in,
                                 .is_pair = k->is_pair,
                                 .n_groups = k->n_groups,
                                 .n_rows = n_rows,
                                 .is_grouped = is_grouped(s),
                                 .n_strips = c->n_strips,
                                 .n_splits = c->n_splits};
}

static bool supports(const qn_gpu_subject *s, const qn_gpu_tune_candidate *c)
{
    const qn_gpu_matmul_shape shape = shape_of(s, c, s->n_rows);
    return qn_gpu_matmul_variants[c->i_variant].supports(s->tuner->ops.kernels, &shape);
}

static uint64_t room(const qn_gpu_subject *s, const qn_gpu_tune_candidate *c)
{
    const qn_gpu_matmul_shape shape = shape_of(s, c, s->n_rows);
    return qn_gpu_matmul_variants[c->i_variant].partial_bytes(s->tuner->ops.kernels, &shape);
}

static qn_status prepare(qn_gpu_subject *s, qn_error *err)
{
    if (!is_grouped(s)) {
        for (uint32_t i = 0; i < s->n_rows; i++) {
            s->ref_of[i] = i % QN_GPU_TUNE_PERIOD;
        }
        return QN_OK;
    }
    host_route r;
    qn_status status = open_host_route(&r, s, err);
    if (status == QN_OK) {
        status = prepare_routes(s, &r, err);
        free(r.first_of);
    }
    return status;
}

/* A call with n_rows rows of copy @p i_copy of the weights, or by a route. */
static void launch_rows(qn_gpu_subject *s, const qn_gpu_tune_candidate *c, uint32_t n_rows,
                        uint32_t i_copy, const route *by)
{
    const product *const p = s->own;
    const qn_gpu_tuning_key *const k = &s->key;
    const uint32_t n_side = is_grouped(s) ? 1 : k->n_groups; /* groups side by side in a row */
    qn_gpu_matmul_args args = {
        .w = p->w,
        .y = s->y,
        .x = p->x,
        .partial = (float *)(void *)s->scratch,
        .x_stride = (uint64_t)n_side * k->n_in,
        .y_stride = (uint64_t)n_side * k->n_out,
        .x_group_stride = is_grouped(s) ? 0 : k->n_in,
        .y_group_stride = is_grouped(s) ? 0 : k->n_out,
        .n_groups = k->n_groups,
        .n_rows = n_rows,
        .y_dtype = s->y_is_bf16 ? QN_GPU_BF16 : QN_GPU_F32,
        .epilogue = k->is_pair ? QN_GPU_SILU_MUL : QN_GPU_STORE,
    };
    args.w.data += i_copy * p->copy_bytes;
    args.w.scales = args.w.scales_stride > 0 ? args.w.scales + i_copy * p->copy_scale_bytes : NULL;
    if (by != NULL) {
        args.first_of = by->first_of;
        args.row_of = k->is_pair || by == &p->ref_route ? by->row_of : NULL;
        args.active = by->active;
        args.n_active = by->n_active;
    }
    const qn_gpu_matmul_shape shape = shape_of(s, c, n_rows);
    qn_gpu_matmul_variants[c->i_variant].launch(&s->tuner->ops, &args, &shape);
}

static void launch(qn_gpu_subject *s, const qn_gpu_tune_candidate *c, uint32_t i_call)
{
    const product *const p = s->own;
    launch_rows(s, c, s->n_rows, is_grouped(s) ? 0 : i_call,
                is_grouped(s) ? &p->routes[i_call] : NULL);
}

static void launch_ref(qn_gpu_subject *s)
{
    const product *const p = s->own;
    launch_rows(s, &(qn_gpu_tune_candidate){.i_variant = s->i_portable}, s->n_ref, 0,
                is_grouped(s) ? &p->ref_route : NULL);
}

static qn_status fill(qn_gpu_subject *s, qn_error *err)
{
    const qn_gpu_tuner *const t = s->tuner;
    const product *const p = s->own;
    qn_status status = qn_gpu_tune_fill(t, (uint8_t *)(uintptr_t)p->w.data,
                                        p->copy_bytes * p->n_copies, QN_GPU_TUNE_WEIGHTS, err);
    if (status == QN_OK && p->copy_scale_bytes > 0) {
        status = qn_gpu_tune_fill(
            t, (uint8_t *)(uintptr_t)p->w.scales, p->copy_scale_bytes * p->n_copies,
            s->key.kind == QN_GPU_W_FP8 ? QN_GPU_TUNE_F32 : QN_GPU_TUNE_E8M0, err);
    }
    const uint64_t n_x = (uint64_t)(is_grouped(s) ? 1 : s->key.n_groups) * s->key.n_in;
    if (status == QN_OK) {
        status = qn_gpu_tune_fill_rows(t, p->x, up_to_ref(s, s->n_rows_max), n_x, err);
    }
    if (status < 0 || !is_grouped(s)) {
        return status;
    }
    host_route r;
    status = open_host_route(&r, s, err);
    if (status == QN_OK) {
        status = prepare_ref_route(s, &r, err);
        free(r.first_of);
    }
    return status;
}

qn_status qn_gpu_subject_matmul(qn_gpu_subject *s, qn_error *err)
{
    s->n_variants = qn_gpu_n_matmul_variants;
    s->i_portable = 0;
    s->n_y = is_grouped(s) ? s->key.n_out : (uint64_t)s->key.n_groups * s->key.n_out;
    s->y_is_bf16 = s->key.is_pair != 0;
    s->n_ref = QN_GPU_TUNE_PERIOD * (is_grouped(s) ? s->key.n_groups : 1);
    s->name = name_of;
    s->supports = supports;
    s->has_plans = has_plans;
    s->room = room;
    s->prepare = prepare;
    s->launch = launch;
    s->launch_ref = launch_ref;
    const qn_status status = qn_gpu_tune_reserve(s, sizeof(product), lay_out, "weights", err);
    if (status < 0) {
        return status;
    }
    s->n_calls = is_grouped(s) ? N_ROUTES : ((const product *)s->own)->n_copies;
    return fill(s, err);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Products with weights, split over the threads by strips of outputs. */
#include "base/assert.h"
#include "model/internal.h"

enum {
    PARALLEL_BYTES_MIN =
        16 << 10, /* of weights: below, a second thread costs more than it brings */
    PARALLEL_ROWS_MIN = 8,
};

void qn_input_set(qn_input *input, const float *x, size_t x_stride, uint32_t n_in, uint32_t n_rows)
{
    input->x = x;
    input->x_stride = x_stride;
    input->n_in = n_in;
    input->n_rows = n_rows;
    memset(input->is_made, 0, sizeof input->is_made);
}

typedef struct prepare_loop {
    const qn_glm *m;
    const qn_input *input;
    qn_act act;
} prepare_loop;

static void prepare_range(void *context, size_t first, size_t end, uint32_t i_thread)
{
    (void)i_thread;
    const prepare_loop *loop = context;
    const qn_input *in = loop->input;
    const size_t row_bytes = qn_act_row_bytes(loop->act, in->n_in);
    for (size_t t = first; t < end; t++) {
        loop->m->k->prepare(in->rows[loop->act] + t * row_bytes, loop->act,
                            in->x + t * in->x_stride, in->n_in, 0, in->n_in);
    }
}

const uint8_t *qn_input_get(const qn_glm *m, qn_input *input, qn_act act)
{
    if (!input->is_made[act]) {
        prepare_loop loop = {m, input, act};
        qn_glm_over_rows(m, input->n_rows, prepare_range, &loop);
        input->is_made[act] = true;
    }
    return input->rows[act];
}

void qn_glm_over_rows(const qn_glm *m, uint32_t n_rows, qn_pool_fn *fn, void *context)
{
    if (n_rows >= PARALLEL_ROWS_MIN) {
        qn_pool_run(m->pool, n_rows, fn, context);
    } else {
        fn(context, 0, n_rows, 0);
    }
}

typedef struct product_loop {
    const qn_glm *m;
    const qn_product *products;
    uint32_t n_products;
    uint32_t first_strip[QN_PRODUCTS_MAX + 1];
    qn_matmul_args args[QN_PRODUCTS_MAX];
} product_loop;

/* Strips first .. end - 1 of one product. */
static void multiply(const product_loop *loop, uint32_t i, uint32_t first, uint32_t end)
{
    const qn_product *p = &loop->products[i];
    qn_matmul_args args = loop->args[i];
    args.out_first = first * QN_STRIP;
    args.out_end = end * QN_STRIP < p->w->n_out ? end * QN_STRIP : p->w->n_out;
    args.y += args.out_first;
    loop->m->k->matmul(&args);
    for (uint32_t t = 0; p->add_to != NULL && t < args.n_rows; t++) {
        loop->m->k->axpy(p->add_to + t * p->y_stride + args.out_first, args.y + t * args.y_stride,
                         1.0F, args.out_end - args.out_first);
    }
}

static void product_range(void *context, size_t first, size_t end, uint32_t i_thread)
{
    (void)i_thread;
    const product_loop *loop = context;
    for (uint32_t i = 0; i < loop->n_products; i++) {
        const uint32_t begin = loop->first_strip[i];
        const uint32_t from = first > begin ? (uint32_t)first : begin;
        const uint32_t to =
            end < loop->first_strip[i + 1] ? (uint32_t)end : loop->first_strip[i + 1];
        if (from < to) {
            multiply(loop, i, from - begin, to - begin);
        }
    }
}

void qn_glm_products(const qn_glm *m, qn_input *input, const qn_product *products,
                     uint32_t n_products)
{
    product_loop loop = {.m = m, .products = products, .n_products = n_products};
    uint64_t n_bytes = 0;
    QN_ASSERT(n_products <= QN_PRODUCTS_MAX);
    for (uint32_t i = 0; i < n_products; i++) {
        const qn_packed *w = products[i].w;
        const qn_act act = qn_act_of(w->kind, m->compute);
        QN_ASSERT(w->n_in == input->n_in);
        loop.args[i] = (qn_matmul_args){.y = products[i].y,
                                        .y_stride = products[i].y_stride,
                                        .x = qn_input_get(m, input, act),
                                        .x_stride = qn_act_row_bytes(act, input->n_in),
                                        .w = w,
                                        .act = act,
                                        .n_rows = input->n_rows};
        loop.first_strip[i + 1] = loop.first_strip[i] + qn_strips(w->n_out);
        n_bytes += qn_packed_bytes(w->kind, w->n_out, w->n_in);
    }
    if (n_bytes * input->n_rows < PARALLEL_BYTES_MIN) {
        product_range(&loop, 0, loop.first_strip[n_products], 0);
    } else {
        qn_pool_run(m->pool, loop.first_strip[n_products], product_range, &loop);
    }
}

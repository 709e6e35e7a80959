/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prints what launches of an H200 ask for, for budgets.py: a line "KERNEL BYTES BLOCKS" for the
 * most dynamic shared memory of a kernel with so many blocks of a multiprocessor at once, 0: as
 * kernels/gpu/list.h says.  Products of GLM-5.2's shapes and odd ones, by every variant and plan;
 * attention and index scores.
 */
#include "base/assert.h"
#include "kernels/gpu_ops.h"
#include "support/fake_gpu.h"
#include "support/product_shapes.h"

#include <stdio.h>
#include <string.h>

enum { N_SMS = 132, ASKED_MAX = 64 };

static struct {
    char kernel[32];
    uint32_t n_bytes, n_blocks;
} asked[ASKED_MAX];
static uint32_t n_asked;

static void note(const char *kernel, uint32_t n_bytes, uint32_t n_blocks)
{
    for (uint32_t i = 0; i < n_asked; i++) {
        if (strcmp(asked[i].kernel, kernel) == 0 && asked[i].n_blocks == n_blocks) {
            asked[i].n_bytes = n_bytes > asked[i].n_bytes ? n_bytes : asked[i].n_bytes;
            return;
        }
    }
    QN_ASSERT(n_asked < ASKED_MAX);
    (void)snprintf(asked[n_asked].kernel, sizeof asked[n_asked].kernel, "%s", kernel);
    asked[n_asked].n_bytes = n_bytes;
    asked[n_asked++].n_blocks = n_blocks;
}

/*
 * Blocks of products by tensor cores stay until all is done, so more than there are multiprocessors
 * are meant to share them; clusters on more than half of them leave room for the next launch's.
 */
static void see_launch(const char *kernel, const uint32_t grid[3], uint32_t n_threads,
                       uint32_t shared_bytes, const void *args)
{
    static const char prefix[] = "qn_gpu_";
    const size_t n_prefix = strlen(prefix);
    const char *const name = strncmp(kernel, prefix, n_prefix) == 0 ? kernel + n_prefix : kernel;
    uint32_t n_blocks = 0;
    (void)n_threads;
    if (strncmp(name, "few_", 4) == 0) {
        qn_gpu_few_args few; /* the copy is not on a multiple of 64 */
        memcpy(&few, args, sizeof few);
        n_blocks = grid[0] > N_SMS || (few.n_parts > 1 && grid[0] > N_SMS / 2) ? 2 : 1;
    } else if (strncmp(name, "mma_", 4) == 0 || strncmp(name, "wgmma_", 6) == 0) {
        n_blocks = (grid[0] + N_SMS - 1) / N_SMS;
    }
    note(name, shared_bytes, n_blocks);
}

/* No kernel runs, so memory is only named. */
static uint8_t memory[256] __attribute__((aligned(256)));

static void launch_product(const qn_gpu_ops *ops, const qn_gpu_matmul_shape *shape)
{
    const qn_gpu_matmul_args args = {.w = {.data = memory,
                                           .scales = memory,
                                           .data_stride = 256,
                                           .scales_stride = 256,
                                           .kind = shape->kind,
                                           .n_out = shape->n_out,
                                           .n_in = shape->n_in,
                                           .is_pair = shape->is_pair},
                                     .y = memory,
                                     .x = (const uint16_t *)(const void *)memory,
                                     .partial = (float *)(void *)memory,
                                     .x_stride = shape->n_in,
                                     .y_stride = shape->n_out,
                                     .x_group_stride = shape->n_in,
                                     .n_groups = shape->n_groups,
                                     .n_rows = shape->n_rows};
    for (uint32_t i = 0; i < qn_gpu_n_matmul_variants; i++) {
        const qn_gpu_matmul_variant *const variant = &qn_gpu_matmul_variants[i];
        qn_gpu_matmul_shape planned = *shape;
        if (!variant->supports(ops->kernels, shape)) {
            continue;
        }
        variant->launch(ops, &args, &planned);
        planned.n_splits = 1; /* as a table may say it */
        for (planned.n_strips = 2; variant->has_plans && planned.n_strips <= 16;
             planned.n_strips *= 2) {
            variant->launch(ops, &args, &planned);
        }
    }
}

/* With all numbers of rows that are planned apart. */
static void launch_shape(const qn_gpu_ops *ops, const uint32_t shape[4])
{
    for (uint32_t kind = QN_GPU_W_BF16; kind <= QN_GPU_W_MXFP4; kind++) {
        for (uint32_t n_rows = 1; n_rows <= 4096; n_rows += n_rows < 64 ? 1 : n_rows) {
            launch_product(ops, &(qn_gpu_matmul_shape){.kind = kind,
                                                       .n_out = shape[0],
                                                       .n_in = shape[1],
                                                       .n_groups = shape[2],
                                                       .is_pair = shape[3],
                                                       .n_rows = n_rows,
                                                       .is_grouped = shape[2] == 256});
        }
    }
}

static void launch_products(const qn_gpu_ops *ops)
{
    static const uint32_t experts[][4] = {{2048, 6144, 256, 1}, {6144, 2048, 256, 0}};
    for (uint32_t i = 0; i < N_PRODUCT_SHAPES; i++) {
        launch_shape(ops, product_shapes[i]);
    }
    launch_shape(ops, experts[0]);
    launch_shape(ops, experts[1]);
}

static void launch_attention(const qn_gpu_ops *ops)
{
    const qn_gpu_cache cache = {
        .base = memory, .row_bytes = 1152, .latent_dim = 512, .rope_dim = 64};
    const qn_gpu_cache keys = {.base = memory, .row_bytes = 256, .latent_dim = 128};
    const qn_gpu_attend_args attend = {
        .kv = cache, .n_rows = 1, .n_heads = 64, .n_splits = 1, .scale = 1.0F};
    const qn_gpu_index_scores_args index = {
        .keys = keys, .n_rows = 1, .n_heads = 32, .n_positions_max = 4096};
    for (uint32_t i = 0; i < qn_gpu_n_attend_variants; i++) {
        QN_ASSERT(qn_gpu_attend_variants[i].supports(ops->kernels, &attend));
        qn_gpu_attend_variants[i].launch(ops, &attend);
    }
    for (uint32_t i = 0; i < qn_gpu_n_index_scores_variants; i++) {
        QN_ASSERT(qn_gpu_index_scores_variants[i].supports(ops->kernels, &index));
        qn_gpu_index_scores_variants[i].launch(ops, &index);
    }
}

int main(void)
{
    static const qn_gpu_module_image image = {.name = "all",
                                              .target = "sm_90a",
                                              .bytes = (const uint8_t *)"x",
                                              .packed_size = 1,
                                              .size = 1};
    qn_gpu *gpu = NULL;
    qn_gpu_kernels *kernels = NULL;
    qn_gpu_stream *stream = NULL;
    qn_error err = {0};
    fake_gpu_reset();
    fake_gpu.arch = "sm_90";
    fake_gpu.n_sms = N_SMS;
    fake_gpu.keeps_calls = false;
    fake_gpu.launch = see_launch;
    bool is_done = qn_gpu_open_driver(&gpu, &fake_gpu_driver, 0, &err) == QN_OK &&
                   qn_gpu_kernels_open(&kernels, gpu, &image, 1, &err) == QN_OK &&
                   qn_gpu_stream_open(&stream, gpu, &err) == QN_OK;
    if (is_done) {
        const qn_gpu_ops ops = {kernels, stream};
        launch_products(&ops);
        launch_attention(&ops);
        is_done = qn_gpu_wait(stream, &err) == QN_OK;
    }
    for (uint32_t i = 0; is_done && i < n_asked; i++) {
        (void)printf("%s %u %u\n", asked[i].kernel, asked[i].n_bytes, asked[i].n_blocks);
    }
    if (!is_done) {
        (void)fprintf(stderr, "plans: error: %s\n", err.text);
    }
    qn_gpu_stream_close(&stream);
    qn_gpu_kernels_close(&kernels);
    qn_gpu_close(&gpu);
    return is_done ? 0 : 1;
}

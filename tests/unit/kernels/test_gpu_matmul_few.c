/* SPDX-License-Identifier: Apache-2.0 */
/* How products of few rows are cut: what the kernel, which only a device can run, counts on. */
#include "kernels/gpu/args_matmul.h"
#include "kernels/gpu_matmul_few.h"
#include "support/fake_kernels.h"
#include "support/few_case.h"
#include "support/product_shapes.h"

#include <stdio.h>
#include <string.h>

static const qn_gpu_info h200 = {.n_sms = 132, .shared_bytes = 227 << 10};

static qn_gpu_matmul_shape shape_of(uint32_t i, uint32_t kind, uint32_t n_rows)
{
    return (qn_gpu_matmul_shape){.kind = kind,
                                 .n_out = product_shapes[i][0],
                                 .n_in = product_shapes[i][1],
                                 .n_groups = product_shapes[i][2],
                                 .is_pair = product_shapes[i][3],
                                 .n_rows = n_rows};
}

/* What the kernel and a launch count on. */
static void assert_is_sound(const qn_gpu_few_plan *p, const qn_gpu_info *info, uint32_t n_columns)
{
    assert_in_range(p->n_parts, 1, p->n_stages < 8 ? p->n_stages : 8);
    assert_int_equal(8 / p->n_parts * p->n_parts, 8); /* 1, 2, 4 or 8 */
    assert_int_equal(p->n_grid % p->n_parts, 0);
    if (p->n_parts > 1) { /* a cluster ends with its item */
        assert_int_equal(p->n_grid, p->n_items * p->n_parts);
    }
    assert_in_range(p->n_grid, 1, 2 * info->n_sms);
    assert_in_range(p->n_ring, 2, 12);
    assert_int_equal(p->stage_bytes % 1024, 0);
    /* Two blocks have room on a multiprocessor where there may be two. */
    const bool may_be_two =
        p->n_grid > info->n_sms || (p->n_parts > 1 && p->n_grid > info->n_sms / 2);
    assert_in_range(p->shared_bytes, 1, info->shared_bytes / (may_be_two ? 2 : 1) - 2048);
    /* Sums of all outputs and columns take the place of stages. */
    assert_in_range(128 * 4 * n_columns, 1, p->n_ring * p->stage_bytes);
}

static void test_gpu_matmul_few_cuts_items_into_parts(void **state)
{
    (void)state;
    static const uint32_t n_sms[] = {1,  7,   16,
                                     78, 114, 132}; /* slices of a device, an H100 of PCIe */
    for (uint32_t i = 0; i < N_PRODUCT_SHAPES * 3 * 6; i++) {
        qn_gpu_info info = h200;
        info.n_sms = n_sms[i % 6];
        for (uint32_t n_rows = 1; n_rows <= 64; n_rows += n_rows < 8 ? 7 : 8) {
            const qn_gpu_matmul_shape shape = shape_of(i / 18, QN_GPU_W_BF16 + i / 6 % 3, n_rows);
            const qn_gpu_few_plan p = qn_gpu_few_plan_of(&info, &shape);
            assert_is_sound(&p, &info,
                            n_rows <= 8    ? 8
                            : n_rows <= 16 ? 16
                            : n_rows <= 32 ? 32
                                           : 64);
        }
    }
}

/* Items for all multiprocessors in so many parts, which gpucheck runs on a device. */
static void test_gpu_matmul_few_has_parts_for_all_multiprocessors(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 3 * 2 * 4 * 4; i++) {
        const uint32_t kind = i / 32;
        const uint32_t n_parts = 1U << i / 4 % 4;
        const bool is_pair = i / 16 % 2 != 0;
        const few_case c = few_case_of(kind, n_parts, is_pair, h200.n_sms);
        const qn_gpu_matmul_shape shape = {.kind = kind,
                                           .n_out = c.n_out,
                                           .n_in = c.n_in,
                                           .n_groups = 1,
                                           .is_pair = is_pair,
                                           .n_rows = 8U << i % 4};
        const qn_gpu_few_plan p = qn_gpu_few_plan_of(&h200, &shape);
        assert_int_equal(p.n_items, c.n_items);
        assert_int_equal(p.n_parts, n_parts);
        assert_int_equal(p.n_grid, c.n_grid);
    }
    /* The head: expanding bounds a block, reading the two of a multiprocessor. */
    qn_gpu_matmul_shape head = {
        .kind = QN_GPU_W_FP8, .n_out = 154880, .n_in = 6144, .n_groups = 1, .n_rows = 8};
    assert_int_equal(qn_gpu_few_plan_of(&h200, &head).n_grid, 2 * h200.n_sms);
    head.kind = QN_GPU_W_BF16;
    assert_int_equal(qn_gpu_few_plan_of(&h200, &head).n_grid, h200.n_sms);
    /* Of the latent's 5 items 40 blocks, which leave multiprocessors to the next launch. */
    const qn_gpu_matmul_shape latent = {
        .kind = QN_GPU_W_BF16, .n_out = 576, .n_in = 6144, .n_groups = 1, .n_rows = 8};
    const qn_gpu_few_plan small = qn_gpu_few_plan_of(&h200, &latent);
    assert_int_equal(small.n_grid, 40);
    assert_in_range(small.shared_bytes, h200.shared_bytes / 2, h200.shared_bytes);
    /* A shared expert of a rank of four. */
    const qn_gpu_matmul_shape expert = {.kind = QN_GPU_W_MXFP4,
                                        .n_out = 512,
                                        .n_in = 6144,
                                        .n_groups = 1,
                                        .is_pair = true,
                                        .n_rows = 8};
    assert_int_equal(qn_gpu_few_plan_of(&h200, &expert).n_parts, 8);
}

static void test_gpu_matmul_few_supports_what_it_can(void **state)
{
    (void)state;
    qn_gpu *gpu = NULL;
    qn_gpu_kernels *kernels = fake_open_kernels(&gpu, NULL);
    for (uint32_t i = 0; i < 3 * N_PRODUCT_SHAPES; i++) {
        for (uint32_t n_rows = 1; n_rows <= 64; n_rows++) {
            const qn_gpu_matmul_shape shape = shape_of(i / 3, i % 3, n_rows);
            assert_true(qn_gpu_few_supports(kernels, &shape));
        }
    }
    qn_gpu_matmul_shape shape = shape_of(0, QN_GPU_W_BF16, 65);
    assert_false(qn_gpu_few_supports(kernels, &shape));
    shape.n_rows = 8;
    shape.is_deterministic = true;
    assert_false(qn_gpu_few_supports(kernels, &shape));
    shape = (qn_gpu_matmul_shape){
        .n_out = 64, .n_in = 64, .n_groups = 8, .n_rows = 8, .is_grouped = true};
    assert_false(qn_gpu_few_supports(kernels, &shape));
    qn_gpu_kernels_close(&kernels);
    qn_gpu_close(&gpu);
}

/* Arguments of the launch; the copy that the fake driver has is not on a multiple of 64. */
static qn_gpu_few_args launched;

static void keep_args(const char *kernel, const uint32_t grid[3], uint32_t n_threads,
                      uint32_t shared_bytes, const void *args)
{
    (void)kernel, (void)grid, (void)n_threads, (void)shared_bytes;
    memcpy(&launched, args, sizeof launched);
}

static void assert_map(const uint8_t *map, uintptr_t memory, qn_gpu_element element,
                       const char *expected)
{
    qn_gpu_tensor_map_args m; /* which is what a map of the fake driver is */
    char text[128];
    memcpy(&m, map, sizeof m);
    (void)snprintf(text, sizeof text, "%ux%ux%ux%u by %u %u %u, boxes of %ux%ux%ux%u, %u",
                   (unsigned)m.dims[0], (unsigned)m.dims[1], (unsigned)m.dims[2],
                   (unsigned)m.dims[3], (unsigned)m.stride_bytes[1], (unsigned)m.stride_bytes[2],
                   (unsigned)m.stride_bytes[3], m.box[0], m.box[1], m.box[2], m.box[3],
                   m.swizzle_bytes);
    assert_string_equal(text, expected);
    assert_int_equal((uintptr_t)m.memory, memory);
    assert_int_equal(m.element, element);
}

/* Boxes of rows, tiles and scales, as tiles.h has them: of three pairs of heads, and of a matrix.
 */
static void test_gpu_matmul_few_maps_what_it_reads(void **state)
{
    (void)state;
    static const uint8_t x[16] __attribute__((aligned(16)));
    static const uint8_t data[256] __attribute__((aligned(256)));
    static const uint8_t scales[256] __attribute__((aligned(256)));
    static const struct {
        uint32_t kind, n_groups, n_rows, is_pair;
        const char *rows, *tiles, *scales;
    } cases[] = {
        {QN_GPU_W_FP8, 3, 5, 1, "1088x5x3x1 by 2400 8000 2400, boxes of 64x8x1x1, 128",
         "128x34x24x3 by 512 17408 417792, boxes of 128x4x8x1, 0",
         "16x9x24x3 by 64 576 13824, boxes of 16x1x8x1, 0"},
        {QN_GPU_W_MXFP4, 1, 33, 0, "1088x33x1x1 by 2400 2400 2400, boxes of 64x64x1x1, 128",
         "128x17x12x1 by 512 8704 8704, boxes of 128x4x8x1, 0",
         "8x17x12x1 by 32 544 544, boxes of 8x4x8x1, 0"},
        {QN_GPU_W_BF16, 1, 16, 0, "1088x16x1x1 by 2400 2400 2400, boxes of 64x16x1x1, 128",
         "128x68x12x1 by 512 34816 34816, boxes of 128x4x8x1, 0", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        qn_gpu *gpu = NULL;
        qn_gpu_stream *stream = NULL;
        qn_error err = {0};
        qn_gpu_kernels *kernels = fake_open_kernels(&gpu, NULL);
        const qn_gpu_matmul_shape shape = {.kind = cases[i].kind,
                                           .n_out = 136,
                                           .n_in = 1088,
                                           .n_groups = cases[i].n_groups,
                                           .is_pair = cases[i].is_pair,
                                           .n_rows = cases[i].n_rows};
        const qn_gpu_matmul_args args = {
            .w = {.data = data,
                  .scales = scales,
                  .data_stride = 417792,
                  .scales_stride = 13824,
                  .kind = shape.kind,
                  .n_out = shape.n_out,
                  .n_in = shape.n_in,
                  .is_pair = shape.is_pair},
            .x = (const uint16_t *)(const void *)x,
            .x_stride = 1200,
            .x_group_stride = 4000,
            .n_groups = shape.n_groups,
            .n_rows = shape.n_rows,
        };
        fake_gpu.launch = keep_args;
        assert_int_equal(qn_gpu_stream_open(&stream, gpu, &err), QN_OK);
        qn_gpu_few_launch(&(qn_gpu_ops){kernels, stream}, &args, &shape);
        assert_int_equal(qn_gpu_wait(stream, &err), QN_OK);
        assert_map(launched.x_map, (uintptr_t)x, QN_GPU_ELEMENT_BF16, cases[i].rows);
        assert_map(launched.tiles_map, (uintptr_t)data, QN_GPU_ELEMENT_F32, cases[i].tiles);
        if (cases[i].scales != NULL) {
            assert_map(launched.scales_map, (uintptr_t)scales, QN_GPU_ELEMENT_F32, cases[i].scales);
        }
        const qn_gpu_few_plan p = qn_gpu_few_plan_of(qn_gpu_get_info(gpu), &shape);
        assert_int_equal(launched.n_across * shape.n_groups, p.n_items);
        assert_int_equal(launched.n_stages, p.n_stages);
        assert_int_equal(launched.n_parts, p.n_parts);
        assert_int_equal(launched.n_clusters * p.n_parts, p.n_grid);
        assert_int_equal(launched.n_ring, p.n_ring);
        assert_int_equal(strstr(fake_gpu_calls(), " cluster") != NULL, p.n_parts > 1);
        qn_gpu_stream_close(&stream);
        qn_gpu_kernels_close(&kernels);
        qn_gpu_close(&gpu);
    }
}

/* Rows that no box can begin at: the stream says so, and nothing is launched. */
static void test_gpu_matmul_few_fails_where_rows_lie_askew(void **state)
{
    (void)state;
    qn_gpu *gpu = NULL;
    qn_gpu_stream *stream = NULL;
    qn_error err = {0};
    qn_gpu_kernels *kernels = fake_open_kernels(&gpu, NULL);
    const qn_gpu_matmul_shape shape = shape_of(0, QN_GPU_W_BF16, 8);
    const qn_gpu_matmul_args args = {.w = {.n_out = shape.n_out, .n_in = shape.n_in},
                                     .x_stride = 2049,
                                     .n_groups = 1,
                                     .n_rows = 8};
    assert_int_equal(qn_gpu_stream_open(&stream, gpu, &err), QN_OK);
    qn_gpu_few_launch(&(qn_gpu_ops){kernels, stream}, &args, &shape);
    assert_int_equal(qn_gpu_wait(stream, &err), QN_E_DEVICE);
    assert_non_null(strstr(err.text, "tensor map of 4 dimensions, the first of 2048"));
    assert_null(strstr(fake_gpu_calls(), "launch few_"));
    qn_gpu_stream_close(&stream);
    qn_gpu_kernels_close(&kernels);
    qn_gpu_close(&gpu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gpu_matmul_few_cuts_items_into_parts),
        cmocka_unit_test(test_gpu_matmul_few_has_parts_for_all_multiprocessors),
        cmocka_unit_test(test_gpu_matmul_few_supports_what_it_can),
        cmocka_unit_test(test_gpu_matmul_few_maps_what_it_reads),
        cmocka_unit_test(test_gpu_matmul_few_fails_where_rows_lie_askew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

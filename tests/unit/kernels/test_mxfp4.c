/* SPDX-License-Identifier: Apache-2.0 */
/* MXFP4 beside what AMD Quark wrote: tests/golden/mxfp4_vectors.json, on every kernel set. */
#include "base/cpu.h"
#include "base/file.h"
#include "base/json_doc.h"
#include "kernels/kernels.h"
#include "support/unit.h"

#include <stdlib.h>

enum { N = QN_MXFP4_BLOCK };

typedef struct vectors {
    qn_buf text;
    qn_json_doc doc;
} vectors;

static int open_vectors(void **state)
{
    static vectors v;
    qn_error err = {0};
    qn_buf_init(&v.text, 1 << 20);
    assert_int_equal(qn_file_read(&v.text, QN_SOURCE_DIR "/tests/golden/mxfp4_vectors.json", &err),
                     QN_OK);
    assert_int_equal(qn_json_doc_open(&v.doc, qn_buf_view(&v.text), "vectors", &err), QN_OK);
    *state = &v;
    return 0;
}

static int close_vectors(void **state)
{
    vectors *v = *state;
    qn_json_doc_close(&v->doc);
    qn_buf_deinit(&v->text);
    return 0;
}

/* A number, or the text of a member without its quotes. */
static qn_str text_of(const qn_json_node *object, const char *key)
{
    const qn_json_node *node = qn_json_member(object, key);
    assert_non_null(node);
    return node->kind == QN_JSON_STRING ? (qn_str){node->text.ptr + 1, node->text.len - 2}
                                        : node->text;
}

static size_t number_of(const qn_json_node *object, const char *key)
{
    return strtoul(text_of(object, key).ptr, NULL, 10);
}

/* Byte i of a member in hex. */
static uint8_t hex_byte(const qn_json_node *object, const char *key, size_t i)
{
    const qn_str text = text_of(object, key);
    assert_true(2 * i + 2 <= text.len);
    const char digits[] = {text.ptr[2 * i], text.ptr[2 * i + 1], '\0'};
    return (uint8_t)strtoul(digits, NULL, 16);
}

/* Rows of bf16 as a quantizer reads them, filled up with zeros to whole blocks. */
static uint8_t *rows_of(const qn_json_node *one, size_t n_rows, size_t n_in, size_t n_padded)
{
    uint8_t *x = calloc(n_rows, 2 * n_padded);
    assert_non_null(x);
    for (size_t i = 0; i < n_rows * n_in; i++) {
        uint8_t *to = x + 2 * (i / n_in * n_padded + i % n_in);
        to[0] = hex_byte(one, "bf16", 2 * i + 1); /* the most significant digit comes first */
        to[1] = hex_byte(one, "bf16", 2 * i);
    }
    return x;
}

/* The same as f32, which follow the same rule. */
static uint8_t *widen(const uint8_t *x, size_t n)
{
    uint8_t *wide = calloc(n, 4);
    assert_non_null(wide);
    for (size_t i = 0; i < n; i++) {
        memcpy(wide + 4 * i + 2, x + 2 * i, 2);
    }
    return wide;
}

/* The first block that holds no number. */
static size_t first_refused(const uint8_t *x, size_t n_blocks)
{
    for (size_t i = 0; i < n_blocks * N; i++) {
        if ((x[2 * i + 1] & 0x7f) == 0x7f && (x[2 * i] & 0x80) != 0) {
            return i / N;
        }
    }
    return n_blocks;
}

static void compare_case(const qn_json_node *one, const qn_mxfp4_args *args, size_t n_in)
{
    const size_t n_row = (n_in + N - 1) / N; /* blocks */
    for (size_t b = 0; b < args->n_blocks; b++) {
        assert_int_equal(args->scales[b], hex_byte(one, "scale", b));
        const size_t first = b % n_row * N;
        const size_t n = n_in - first < N ? n_in - first : N;
        for (size_t i = 0; i < n / 2; i++) {
            assert_int_equal(args->codes[b * N / 2 + i],
                             hex_byte(one, "packed", (b / n_row * n_in + first) / 2 + i));
        }
    }
}

/* Returns 1 where all blocks were encoded. */
static size_t run_case(const qn_kernels *kernels, const qn_json_node *one)
{
    const size_t n_rows = number_of(one, "rows");
    const size_t n_in = number_of(one, "k");
    const size_t n_padded = (n_in + N - 1) / N * N;
    const bool is_finite = qn_json_member(one, "finite")->kind == QN_JSON_TRUE;
    const size_t n_blocks = n_rows * n_padded / N;
    uint8_t *x = rows_of(one, n_rows, n_in, n_padded);
    uint8_t *wide = widen(x, n_rows * n_padded);
    uint8_t *codes = calloc(n_blocks, N / 2);
    uint8_t *scales = calloc(n_blocks, 1);
    assert_non_null(codes);
    assert_non_null(scales);
    qn_mxfp4_args args = {codes, scales, x, QN_WEIGHT_BF16, QN_SCALE_EVEN, n_blocks};
    for (int kind = 0; kind < 2; kind++) {
        const size_t n = kernels->mxfp4_encode(&args);
        assert_int_equal(n, first_refused(x, n_blocks));
        assert_int_equal(n == n_blocks, is_finite);
        if (is_finite) {
            compare_case(one, &args, n_in);
        }
        args.x = wide;
        args.kind = QN_WEIGHT_F32;
    }
    free(x);
    free(wide);
    free(codes);
    free(scales);
    return is_finite ? 1 : 0;
}

static void test_bytes_are_those_of_quark(void **state)
{
    const vectors *v = *state;
    for (uint32_t level = 0; level <= 4; level++) {
        const uint32_t flags = (1U << level) - 1;
        if ((qn_cpu_flags() & flags) != flags) {
            break;
        }
        qn_kernels kernels;
        qn_kernels_init(&kernels, flags);
        const qn_json_node *cases = qn_json_member(v->doc.nodes, "cases");
        assert_non_null(cases);
        size_t n_finite = 0;
        const qn_json_node *one = cases + 1;
        for (uint32_t i = 0; i < cases->n_children; i++, one = qn_json_after(one)) {
            n_finite += run_case(&kernels, one);
        }
        assert_int_equal(cases->n_children, 22);
        assert_int_equal(n_finite, 20);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_bytes_are_those_of_quark, open_vectors, close_vectors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/** @file made.h  Checkpoints made by a recipe: any storage for any tensor, and the same values in
 * f32.
 */
#ifndef QN_TEST_MODEL_MADE_H
#define QN_TEST_MODEL_MADE_H
#include "base/numbers.h"
#include "base/rng.h"
#include "fixture.h"
#include "format/safetensors_writer.h"
#include "model/weights.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

enum { EMBD = 160, MADE_MAX = 512, STEM_BYTES = 144, MADE_NAME_BYTES = 160, DIR_BYTES = 64 };

/** Blocks of 128 end in partial ones both ways, rows are multiples of 32 for MXFP4. */
static inline qn_config made_config(void)
{
    qn_config c = tiny_config();
    c.n_layers = 2;
    c.n_embd = EMBD;
    c.q_rank = 160;
    c.kv_rank = 160;
    c.v_dim = 64;
    c.index_dim = 48;
    c.index_topk = 10;
    c.n_ff_dense = 288;
    c.n_ff_expert = 160;
    c.n_experts = 5;
    c.n_experts_used = 2;
    c.is_index_full[4] = false; /* layer 1 shares, layer 2 is the MTP layer */
    return c;
}

/** How a tensor lies in the file.  Tables and vectors that are not f32 are bf16. */
typedef enum storage {
    AS_F32,
    AS_BF16,
    AS_FP8_INV,         /**< Blocks, weight_scale_inv. */
    AS_FP8_BLOCKS,      /**< Blocks, weight_scale. */
    AS_FP8_ROWS,        /**< weight_scale [n_out, 1] */
    AS_FP8_ROWS_FLAT,   /**< weight_scale [n_out] */
    AS_MXFP4,           /**< U8 and U8. */
    AS_MXFP4_QUANTIZER, /**< weight_quantizer.scale */
    AS_MXFP4_E8M0,      /**< The scale says F8_E8M0. */
    AS_MXFP4_I8,        /**< The weight says I8. */
} storage;

/** Tensors with @p part in their name. */
typedef struct rule {
    const char *part;
    storage as;
} rule;

/** The first rule that fits decides; the last has to be "". */
typedef struct recipe {
    const char *name;
    const char *quantization; /**< What qn_glm_quantization() has to say. */
    rule rules[6];
} recipe;

/** One tensor of a file to be written. */
typedef struct made_tensor {
    char name[MADE_NAME_BYTES];
    qn_dtype dtype;
    uint32_t rank;
    uint64_t shape[2];
    uint8_t *data; /**< Owned. */
    uint64_t size_bytes;
} made_tensor;

typedef struct made_list {
    made_tensor items[MADE_MAX];
    size_t n;
} made_list;

/** The checkpoint that a recipe gives, and its values in f32. */
typedef struct made {
    const recipe *recipe;
    uint64_t stream; /**< Of the random numbers: one for each tensor. */
    made_list stored, plain;
} made;

/** A tensor of zeros at the end; @p columns 0: a vector.  Returns its bytes. */
static inline uint8_t *made_add(made_list *list, const char *stem, const char *ending,
                                qn_dtype dtype, uint64_t rows, uint64_t columns)
{
    assert_true(list->n < MADE_MAX);
    made_tensor *t = &list->items[list->n++];
    *t = (made_tensor){.dtype = dtype, .rank = columns > 0 ? 2 : 1, .shape = {rows, columns}};
    (void)snprintf(t->name, sizeof t->name, "%s%s", stem, ending);
    t->size_bytes = rows * (columns > 0 ? columns : 1) * qn_dtype_bytes(dtype);
    t->data = calloc(1, t->size_bytes);
    assert_non_null(t->data);
    return t->data;
}

static inline bool made_remove(made_list *list, const char *name)
{
    for (size_t i = 0; i < list->n; i++) {
        if (strcmp(list->items[i].name, name) == 0) {
            free(list->items[i].data);
            list->items[i] = list->items[--list->n];
            return true;
        }
    }
    return false;
}

static inline void made_free(made *m)
{
    for (size_t i = 0; i < m->stored.n; i++) {
        free(m->stored.items[i].data);
    }
    for (size_t i = 0; i < m->plain.n; i++) {
        free(m->plain.items[i].data);
    }
    free(m);
}

/** Uniform in [-1, 1). */
static inline float made_unit(const made *m, uint64_t i)
{
    return (float)(2.0 * qn_rng_unit(11, m->stream, i) - 1.0);
}

static inline uint8_t made_byte(const made *m, uint64_t i)
{
    return (uint8_t)(qn_rng_u64(12, m->stream, i) >> 56);
}

/* The formats' definitions once more: quern decodes by other code. */
static inline float made_e4m3(uint8_t code)
{
    const int exponent = code >> 3 & 15;
    const int mantissa = code & 7;
    const float value =
        exponent == 0 ? ldexpf((float)mantissa, -9) : ldexpf((float)(8 + mantissa), exponent - 10);
    return code >= 128 ? -value : value;
}

static inline float made_e2m1(uint8_t code)
{
    static const float values[8] = {0.0F, 0.5F, 1.0F, 1.5F, 2.0F, 3.0F, 4.0F, 6.0F};
    return code >= 8 ? -values[code - 8] : values[code];
}

static inline void made_floats(made *m, const qn_tensor_spec *spec, storage as, float *twin)
{
    const bool is_f32 = as == AS_F32;
    const uint64_t n = (uint64_t)spec->n_out * (spec->n_in > 0 ? spec->n_in : 1);
    uint8_t *data = made_add(&m->stored, spec->name, "", is_f32 ? QN_DTYPE_F32 : QN_DTYPE_BF16,
                             spec->n_out, spec->n_in);
    const float offset = spec->role == QN_ROLE_NORM ? 1.0F : 0.0F;
    const float gain = spec->role == QN_ROLE_EMBEDDING ? 1.0F
                       : spec->n_in == 0               ? 0.25F
                                                       : sqrtf(3.0F / (float)spec->n_in);
    for (uint64_t i = 0; i < n; i++) {
        const float value = offset + gain * made_unit(m, i);
        const uint16_t bits = qn_f32_to_bf16(value);
        twin[i] = is_f32 ? value : qn_bf16_to_f32(bits);
        memcpy(data + (is_f32 ? 4 : 2) * i, is_f32 ? (const void *)&value : &bits, is_f32 ? 4 : 2);
    }
}

/* Random codes have a root mean square near 100. */
static inline void made_fp8(made *m, const qn_tensor_spec *spec, storage as, float *twin)
{
    const bool is_rows = as == AS_FP8_ROWS || as == AS_FP8_ROWS_FLAT;
    const uint32_t n_in = spec->n_in;
    const uint32_t block_rows = is_rows ? 1 : 128;
    const uint32_t block_columns = is_rows ? n_in : 128;
    const uint32_t columns = (n_in + block_columns - 1) / block_columns;
    char stem[STEM_BYTES];
    (void)snprintf(stem, sizeof stem, "%s%s", spec->name, "_scale");
    uint8_t *codes = made_add(&m->stored, spec->name, "", QN_DTYPE_F8_E4M3, spec->n_out, n_in);
    uint8_t *scales =
        made_add(&m->stored, stem, as == AS_FP8_INV ? "_inv" : "", QN_DTYPE_F32,
                 (spec->n_out + block_rows - 1) / block_rows, as == AS_FP8_ROWS_FLAT ? 0 : columns);
    for (uint32_t o = 0; o < spec->n_out; o++) {
        for (uint32_t k = 0; k < n_in; k++) {
            const uint64_t i = (uint64_t)o * n_in + k;
            const uint64_t i_scale = (uint64_t)(o / block_rows) * columns + k / block_columns;
            const float scale =
                (1.0F + 0.5F * made_unit(m, i_scale)) / (100.0F * sqrtf((float)n_in));
            codes[i] = made_byte(m, i);
            codes[i] ^= (codes[i] & 127) == 127 ? 1 : 0; /* no NaN */
            memcpy(scales + 4 * i_scale, &scale, sizeof scale);
            twin[i] = made_e4m3(codes[i]) * scale;
        }
    }
}

/* Random codes have a root mean square near 3. */
static inline void made_mxfp4(made *m, const qn_tensor_spec *spec, storage as, float *twin)
{
    const uint32_t n_in = spec->n_in;
    const int exponent = -(int)lrintf(log2f(3.0F * sqrtf((float)n_in)));
    char stem[STEM_BYTES];
    (void)snprintf(stem, sizeof stem, "%s%s", spec->name,
                   as == AS_MXFP4_QUANTIZER ? "_quantizer.scale" : "_scale");
    uint8_t *codes = made_add(&m->stored, spec->name, "",
                              as == AS_MXFP4_I8 ? QN_DTYPE_I8 : QN_DTYPE_U8, spec->n_out, n_in / 2);
    uint8_t *scales =
        made_add(&m->stored, stem, "", as == AS_MXFP4_E8M0 ? QN_DTYPE_F8_E8M0 : QN_DTYPE_U8,
                 spec->n_out, n_in / 32);
    for (uint64_t i = 0; i < (uint64_t)spec->n_out * n_in; i++) {
        const int shift = exponent - 1 + made_byte(m, i / 32) % 3;
        const uint8_t code = made_byte(m, i) % 16;
        scales[i / 32] = (uint8_t)(127 + shift);
        codes[i / 2] |= (uint8_t)(i % 2 == 0 ? code : code << 4);
        twin[i] = ldexpf(made_e2m1(code), shift);
    }
}

static inline qn_status made_visit(void *context, const qn_tensor_spec *spec, qn_error *err)
{
    (void)err;
    made *m = context;
    const rule *r = m->recipe->rules;
    while (strstr(spec->name, r->part) == NULL) {
        r++;
    }
    m->stream++;
    float *twin =
        (float *)(void *)made_add(&m->plain, spec->name, "", QN_DTYPE_F32, spec->n_out, spec->n_in);
    if (r->as <= AS_BF16 || spec->n_in == 0 || spec->role == QN_ROLE_EMBEDDING) {
        made_floats(m, spec, r->as, twin);
    } else if (r->as <= AS_FP8_ROWS_FLAT) {
        made_fp8(m, spec, r->as, twin);
    } else {
        made_mxfp4(m, spec, r->as, twin);
    }
    return QN_OK;
}

/** All tensors of the model, MTP layer included; made_free(). */
static inline made *made_by(const recipe *by, const qn_config *config)
{
    qn_weights weights;
    qn_error err = {0};
    made *m = calloc(1, sizeof *m);
    assert_non_null(m);
    m->recipe = by;
    assert_int_equal(qn_weights_init(&weights, config, true, &err), QN_OK);
    assert_int_equal(qn_tensor_list_walk(config, &weights, made_visit, m, &err), QN_OK);
    qn_weights_deinit(&weights);
    return m;
}

/** A new folder with the tensors in shards: tensors 0 .. n_first - 1, and the others if any. */
static inline void made_save(char dir[DIR_BYTES], const made_list *list, size_t n_first)
{
    static const char *const names[2] = {"a.safetensors", "b.safetensors"};
    (void)snprintf(dir, DIR_BYTES, "/tmp/quern-test-XXXXXX");
    assert_non_null(mkdtemp(dir));
    assert_in_range(n_first, 1, list->n);
    for (size_t i_file = 0, i = 0; i_file < 2 && i < list->n; i_file++) {
        char path[2 * DIR_BYTES];
        qn_safetensors_writer *writer = NULL;
        qn_error err = {0};
        (void)snprintf(path, sizeof path, "%s/%s", dir, names[i_file]);
        assert_int_equal(qn_safetensors_writer_open(&writer, path, &err), QN_OK);
        for (const size_t end = i_file == 0 ? n_first : list->n; i < end; i++) {
            const made_tensor *t = &list->items[i];
            assert_int_equal(qn_safetensors_writer_append(writer, t->name, t->dtype, t->shape + 1,
                                                          t->rank - 1, t->data, t->shape[0], &err),
                             QN_OK);
        }
        assert_int_equal(qn_safetensors_writer_finish(writer, &err), QN_OK);
        qn_safetensors_writer_close(&writer);
    }
}

static inline void made_discard(const char *dir)
{
    static const char *const names[2] = {"a.safetensors", "b.safetensors"};
    for (size_t i = 0; i < 2; i++) {
        char path[2 * DIR_BYTES];
        (void)snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        (void)unlink(path);
    }
    assert_int_equal(rmdir(dir), 0);
}

/** Open the model in that folder; tiny_close() whether it fails or not. */
static inline qn_status made_open(tiny *t, const qn_config *config, const char *dir,
                                  uint32_t n_threads, qn_compute compute, qn_error *err)
{
    qn_glm_options options =
        tiny_prepare(t, config, n_threads, 64, compute == QN_COMPUTE_F32 ? QN_KV_F32 : QN_KV_BF16);
    options.compute = compute;
    const qn_status status = qn_checkpoint_open(&t->checkpoint, dir, err);
    return status == QN_OK ? qn_glm_open(&t->glm, &t->config, t->checkpoint, &options, err)
                           : status;
}
#endif

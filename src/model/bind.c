/* SPDX-License-Identifier: Apache-2.0 */
#include "model/weights.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static const qn_tensor *find_in_checkpoint(const void *context, qn_str name, size_t *i_tensor)
{
    return qn_checkpoint_find(context, name, i_tensor);
}

static const char *file_in_checkpoint(const void *context, const qn_tensor *tensor)
{
    return qn_checkpoint_file_of(context, tensor);
}

qn_tensor_source qn_tensor_source_of(const qn_checkpoint *checkpoint)
{
    return (qn_tensor_source){.find = find_in_checkpoint,
                              .file_of = file_in_checkpoint,
                              .context = checkpoint,
                              .path = qn_checkpoint_path(checkpoint),
                              .n_tensors = qn_checkpoint_count(checkpoint)};
}

qn_status qn_binder_init(qn_binder *binder, const qn_tensor_source *source, qn_error *err)
{
    *binder =
        (qn_binder){.source = *source, .is_used = calloc(source->n_tensors + 1, sizeof(bool))};
    return binder->is_used != NULL
               ? QN_OK
               : qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "tensor list: no memory");
}

void qn_binder_deinit(qn_binder *binder)
{
    free(binder->is_used);
    *binder = (qn_binder){0};
}

static const qn_tensor *take(qn_binder *b, const char *name)
{
    size_t i_tensor = 0;
    const qn_tensor *tensor = b->source.find(b->source.context, qn_str_of(name), &i_tensor);
    if (tensor != NULL) {
        b->is_used[i_tensor] = true;
    }
    return tensor;
}

static const char *file_of(const qn_binder *b, const qn_tensor *tensor)
{
    return b->source.file_of(b->source.context, tensor);
}

static void note(qn_binder *b, qn_bind_fault fault, const qn_tensor *tensor)
{
    b->fault = fault;
    b->faulty = tensor;
}

static bool has_shape(const qn_tensor *tensor, uint64_t rows, uint64_t columns)
{
    return tensor->rank == (columns > 0 ? 2U : 1U) && tensor->shape[0] == rows &&
           (columns == 0 || tensor->shape[1] == columns);
}

static qn_status wrong_shape(qn_binder *b, const qn_tensor *tensor, uint64_t rows, uint64_t columns,
                             qn_error *err)
{
    char seen[192];
    char expected[64];
    const uint64_t shape[2] = {rows, columns};
    note(b, QN_BIND_SHAPE, tensor);
    qn_shape_print(seen, sizeof seen, tensor->shape, tensor->rank);
    qn_shape_print(expected, sizeof expected, shape, columns > 0 ? 2 : 1);
    return qn_fail(err, QN_E_FORMAT, 0, __func__, "%s: tensor %.*s: %s %s, expected shape %s",
                   file_of(b, tensor), (int)tensor->name.len, tensor->name.ptr,
                   qn_dtype_name(tensor->dtype), seen, expected);
}

static qn_status wrong_dtype(qn_binder *b, const qn_tensor *tensor, const char *expected,
                             qn_error *err)
{
    note(b, QN_BIND_DTYPE, tensor);
    return qn_fail(err, QN_E_FORMAT, 0, __func__, "%s: tensor %.*s: dtype %s, expected %s",
                   file_of(b, tensor), (int)tensor->name.len, tensor->name.ptr,
                   qn_dtype_name(tensor->dtype), expected);
}

static qn_status missing(qn_binder *b, const qn_tensor_spec *spec, qn_error *err)
{
    char expected[64];
    const uint64_t shape[2] = {spec->n_out, spec->n_in};
    note(b, QN_BIND_MISSING, NULL);
    qn_shape_print(expected, sizeof expected, shape, spec->n_in > 0 ? 2 : 1);
    return qn_fail(err, QN_E_FORMAT, 0, __func__, "%s: tensor %s: missing, shape %s expected",
                   b->source.path, spec->name, expected);
}

static qn_status no_scale(qn_binder *b, const qn_tensor *tensor, const char *expected,
                          qn_error *err)
{
    note(b, QN_BIND_NO_SCALE, tensor);
    return qn_fail(err, QN_E_FORMAT, 0, __func__,
                   "%s: tensor %.*s: %s with no scale, expected its %s in the checkpoint",
                   file_of(b, tensor), (int)tensor->name.len, tensor->name.ptr,
                   qn_dtype_name(tensor->dtype), expected);
}

static qn_status find_vector(qn_binder *b, const qn_tensor_spec *spec, qn_stored *out,
                             qn_error *err)
{
    const qn_tensor *tensor = take(b, spec->name);
    if (tensor == NULL) {
        return missing(b, spec, err);
    }
    if (!has_shape(tensor, spec->n_out, 0)) {
        return wrong_shape(b, tensor, spec->n_out, 0, err);
    }
    if (tensor->dtype != QN_DTYPE_F32 && tensor->dtype != QN_DTYPE_BF16) {
        return wrong_dtype(b, tensor, "BF16 or F32", err);
    }
    *out = (qn_stored){.tensor = tensor};
    return QN_OK;
}

/* The scale tensor of a quantised matrix, by any of its names (docs/formats.md). */
static const qn_tensor *take_scale(qn_binder *b, const char *weight_name,
                                   const char *const *endings)
{
    char name[160];
    const size_t stem_len = strlen(weight_name) - strlen("weight");
    for (size_t i = 0; endings[i] != NULL; i++) {
        (void)snprintf(name, sizeof name, "%.*s%s", (int)stem_len, weight_name, endings[i]);
        const qn_tensor *scale = take(b, name);
        if (scale != NULL) {
            return scale;
        }
    }
    return NULL;
}

/* e4m3 with block scales (the official FP8 layout) or one scale a row (Quark's per-channel). */
static qn_status find_fp8_scale(qn_binder *b, const qn_tensor_spec *spec, qn_stored *out,
                                qn_error *err)
{
    static const char *const endings[] = {"weight_scale_inv", "weight_scale",
                                          "weight_quantizer.scale", NULL};
    const uint64_t rows = ((uint64_t)spec->n_out + QN_FP8_BLOCK - 1) / QN_FP8_BLOCK;
    const uint64_t columns = ((uint64_t)spec->n_in + QN_FP8_BLOCK - 1) / QN_FP8_BLOCK;
    const qn_tensor *scale = take_scale(b, spec->name, endings);
    if (scale == NULL) {
        return no_scale(b, out->tensor, "weight_scale_inv or weight_scale", err);
    }
    if (scale->dtype != QN_DTYPE_F32) {
        return wrong_dtype(b, scale, "F32", err);
    }
    if (has_shape(scale, rows, columns)) {
        out->weight.kind = QN_WEIGHT_FP8_BLOCK;
    } else if (has_shape(scale, spec->n_out, 1) || has_shape(scale, spec->n_out, 0)) {
        out->weight.kind = QN_WEIGHT_FP8_CHANNEL;
    } else {
        return wrong_shape(b, scale, rows, columns, err);
    }
    out->weight.scale = scale->data;
    out->scale = scale;
    return QN_OK;
}

static qn_status find_mxfp4_scale(qn_binder *b, const qn_tensor_spec *spec, qn_stored *out,
                                  qn_error *err)
{
    static const char *const endings[] = {"weight_scale", "weight_quantizer.scale", NULL};
    const qn_tensor *scale = take_scale(b, spec->name, endings);
    if (scale == NULL) {
        return no_scale(b, out->tensor, "weight_scale", err);
    }
    if (scale->dtype != QN_DTYPE_U8 && scale->dtype != QN_DTYPE_F8_E8M0) {
        return wrong_dtype(b, scale, "U8 or F8_E8M0", err);
    }
    if (!has_shape(scale, spec->n_out, spec->n_in / QN_MXFP4_BLOCK)) {
        return wrong_shape(b, scale, spec->n_out, spec->n_in / QN_MXFP4_BLOCK, err);
    }
    out->weight.kind = QN_WEIGHT_MXFP4;
    out->weight.scale = scale->data;
    out->scale = scale;
    return QN_OK;
}

static qn_status find_matrix(qn_binder *b, const qn_tensor_spec *spec, qn_stored *out,
                             qn_error *err)
{
    const qn_tensor *tensor = take(b, spec->name);
    if (tensor == NULL) {
        return missing(b, spec, err);
    }
    *out = (qn_stored){
        .weight = {.n_out = spec->n_out, .n_in = spec->n_in, .data = tensor->data},
        .tensor = tensor,
    };
    const bool is_packed = tensor->dtype == QN_DTYPE_U8 || tensor->dtype == QN_DTYPE_I8;
    if (is_packed && (spec->n_in % QN_MXFP4_BLOCK != 0 || spec->role == QN_ROLE_EMBEDDING)) {
        return wrong_dtype(b, tensor, "BF16 or F32 (a row is no multiple of 32, or a table)", err);
    }
    if (!has_shape(tensor, spec->n_out, is_packed ? spec->n_in / 2 : spec->n_in)) {
        return wrong_shape(b, tensor, spec->n_out, is_packed ? spec->n_in / 2 : spec->n_in, err);
    }
    qn_status status = QN_OK;
    if (is_packed) {
        status = find_mxfp4_scale(b, spec, out, err);
    } else if (tensor->dtype == QN_DTYPE_F8_E4M3 && spec->role != QN_ROLE_EMBEDDING) {
        status = find_fp8_scale(b, spec, out, err);
    } else if (tensor->dtype == QN_DTYPE_BF16) {
        out->weight.kind = QN_WEIGHT_BF16;
    } else if (tensor->dtype == QN_DTYPE_F32) {
        out->weight.kind = QN_WEIGHT_F32;
    } else {
        status = wrong_dtype(b, tensor,
                             spec->role == QN_ROLE_EMBEDDING
                                 ? "BF16 or F32"
                                 : "BF16, F32, F8_E4M3 with scales or U8 (MXFP4) with scales",
                             err);
    }
    return status;
}

qn_status qn_binder_find(qn_binder *binder, const qn_tensor_spec *spec, qn_stored *out,
                         qn_error *err)
{
    return spec->vector != NULL ? find_vector(binder, spec, out, err)
                                : find_matrix(binder, spec, out, err);
}

bool qn_is_trunk_copy(const qn_config *config, qn_str name)
{
    static const char *const copies[] = {"embed_tokens.", "shared_head.head."};
    static const char *const endings[] = {"weight", "weight_scale", "weight_scale_inv",
                                          "weight_quantizer.scale"};
    char copy[96];
    const size_t n_endings = sizeof endings / sizeof *endings;
    const size_t n_names = sizeof copies / sizeof *copies * n_endings;
    for (size_t i = 0; config->n_mtp_layers > 0 && i < n_names; i++) {
        (void)snprintf(copy, sizeof copy, "model.layers.%u.%s%s", config->n_layers,
                       copies[i / n_endings], endings[i % n_endings]);
        if (qn_str_equal(name, qn_str_of(copy))) {
            return true;
        }
    }
    return false;
}

qn_status qn_binder_refuse_unknown(const qn_binder *b, const qn_checkpoint *checkpoint,
                                   const qn_config *config, qn_error *err)
{
    const size_t n_tensors = qn_checkpoint_count(checkpoint);
    for (size_t i = 0; i < n_tensors; i++) {
        const qn_tensor *tensor = qn_checkpoint_get(checkpoint, i);
        if (b->is_used[i] || qn_is_trunk_copy(config, tensor->name)) {
            continue;
        }
        char seen[192];
        qn_shape_print(seen, sizeof seen, tensor->shape, tensor->rank);
        return qn_fail(err, QN_E_FORMAT, 0, __func__,
                       "%s: tensor %.*s: %s %s, expected no tensor of this name",
                       file_of(b, tensor), (int)tensor->name.len, tensor->name.ptr,
                       qn_dtype_name(tensor->dtype), seen);
    }
    return QN_OK;
}

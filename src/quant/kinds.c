/* SPDX-License-Identifier: Apache-2.0 */
#include "quant/kinds.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

void qn_kind_stats_add(qn_kind_stats *sum, const qn_kind_stats *more)
{
    sum->n_tensors += more->n_tensors;
    sum->n_encoded += more->n_encoded;
    sum->n_to_bf16 += more->n_to_bf16;
    sum->n_fp8 += more->n_fp8;
    sum->bytes_before += more->bytes_before;
    sum->bytes_after += more->bytes_after;
    sum->error.x_sq += more->error.x_sq;
    sum->error.error_sq += more->error.error_sq;
    sum->error.error_max = fmaxf(sum->error.error_max, more->error.error_max);
    sum->error.n_blocks += more->error.n_blocks;
    sum->error.n_saturated += more->error.n_saturated;
    for (size_t i = 0; i < 256; i++) {
        sum->error.scales[i] += more->error.scales[i];
    }
}

/* JSON has no infinity, which a block near the top of the range can make. */
static json_t *real_json(double value)
{
    return json_real(isfinite(value) ? value : DBL_MAX);
}

/* {"118": 3, ...}: how many blocks have which scale byte. */
static json_t *histogram(const uint64_t scales[256])
{
    json_t *const object = json_object();
    bool is_whole = object != NULL;
    for (size_t i = 0; i < 256; i++) {
        char key[8];
        (void)snprintf(key, sizeof key, "%zu", i);
        is_whole = is_whole &&
                   (scales[i] == 0 ||
                    json_object_set_new(object, key, json_integer((json_int_t)scales[i])) == 0);
    }
    if (!is_whole) {
        json_decref(object);
        return NULL;
    }
    return object;
}

static json_t *row_json(size_t i_row, const qn_kind_stats *row)
{
    json_t *const object = json_pack(
        "{ss, sb, sI, sI, sI, sI, sI, sI}", "kind",
        qn_tensor_kind_name((qn_tensor_kind)(i_row % QN_N_KINDS)), "mtp",
        (int)(i_row >= QN_N_KINDS), "tensors", (json_int_t)row->n_tensors, "quantized_tensors",
        (json_int_t)row->n_encoded, "fp8_to_bf16_tensors", (json_int_t)row->n_to_bf16,
        "fp8_kept_tensors", (json_int_t)row->n_fp8, "bytes_before", (json_int_t)row->bytes_before,
        "bytes_after", (json_int_t)row->bytes_after);
    if (object == NULL || row->n_encoded == 0) {
        return object;
    }
    json_t *const error = json_pack(
        "{so, so, so, sI, sI, so}", "x_sq", real_json(row->error.x_sq), "error_sq",
        real_json(row->error.error_sq), "error_max", real_json((double)row->error.error_max),
        "blocks", (json_int_t)row->error.n_blocks, "saturated_blocks",
        (json_int_t)row->error.n_saturated, "scales", histogram(row->error.scales));
    if (json_object_set_new(object, "error", error) != 0) {
        json_decref(object);
        return NULL;
    }
    return object;
}

json_t *qn_kinds_json(const qn_kind_stats stats[QN_N_STATS])
{
    json_t *const list = json_array();
    bool is_whole = list != NULL;
    for (size_t i = 0; i < QN_N_STATS; i++) {
        is_whole = is_whole && (stats[i].n_tensors == 0 ||
                                json_array_append_new(list, row_json(i, &stats[i])) == 0);
    }
    if (!is_whole) {
        json_decref(list);
        return NULL;
    }
    return list;
}

/* ---------------------------------------------------------------------------------- reading -- */

/* The place among QN_N_STATS; QN_N_STATS where there is none. */
static size_t row_index(const json_t *row)
{
    const char *const name = json_string_value(json_object_get(row, "kind"));
    size_t i = 0;
    while (i < QN_N_KINDS &&
           (name == NULL || strcmp(name, qn_tensor_kind_name((qn_tensor_kind)i)) != 0)) {
        i++;
    }
    return i == QN_N_KINDS
               ? (size_t)QN_N_STATS
               : qn_stats_index((qn_tensor_kind)i, json_is_true(json_object_get(row, "mtp")));
}

static bool are_counts(const json_t *object, const char *const *keys, size_t n_keys)
{
    for (size_t i = 0; i < n_keys; i++) {
        const json_t *const value = json_object_get(object, keys[i]);
        if (!json_is_integer(value) || json_integer_value(value) < 0) {
            return false;
        }
    }
    return true;
}

/* The byte that a key of a histogram names; 256 where it is none. */
static size_t scale_of(const char *key)
{
    char *end = NULL;
    const unsigned long value = strtoul(key, &end, 10);
    return key[0] >= '0' && key[0] <= '9' && *end == '\0' && value < 256 ? (size_t)value : 256;
}

static bool is_error(const json_t *error)
{
    static const char *const counts[] = {"blocks", "saturated_blocks"};
    json_t *const scales = json_object_get(error, "scales");
    const char *key = NULL;
    json_t *value = NULL;
    json_object_foreach(scales, key, value)
    {
        if (scale_of(key) == 256 || !are_counts(scales, &key, 1)) {
            return false;
        }
    }
    return json_is_object(scales) && are_counts(error, counts, 2) &&
           json_is_real(json_object_get(error, "x_sq")) &&
           json_is_real(json_object_get(error, "error_sq")) &&
           json_is_real(json_object_get(error, "error_max"));
}

bool qn_kinds_is_json(const json_t *kinds)
{
    static const char *const counts[] = {
        "tensors",          "quantized_tensors", "fp8_to_bf16_tensors",
        "fp8_kept_tensors", "bytes_before",      "bytes_after"};
    size_t i = 0;
    json_t *row = NULL;
    json_array_foreach(kinds, i, row)
    {
        const json_t *const error = json_object_get(row, "error");
        if (row_index(row) == QN_N_STATS ||
            !are_counts(row, counts, sizeof counts / sizeof *counts) ||
            (error != NULL && !is_error(error))) {
            return false;
        }
    }
    return json_is_array(kinds);
}

static uint64_t count_at(const json_t *object, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(object, key));
}

void qn_kinds_add_json(qn_kind_stats stats[QN_N_STATS], const json_t *kinds)
{
    size_t i = 0;
    json_t *row = NULL;
    json_array_foreach(kinds, i, row)
    {
        const json_t *const error = json_object_get(row, "error");
        json_t *const scales = json_object_get(error, "scales");
        qn_kind_stats more = {
            .n_tensors = count_at(row, "tensors"),
            .n_encoded = count_at(row, "quantized_tensors"),
            .n_to_bf16 = count_at(row, "fp8_to_bf16_tensors"),
            .n_fp8 = count_at(row, "fp8_kept_tensors"),
            .bytes_before = count_at(row, "bytes_before"),
            .bytes_after = count_at(row, "bytes_after"),
            .error.x_sq = json_real_value(json_object_get(error, "x_sq")),
            .error.error_sq = json_real_value(json_object_get(error, "error_sq")),
            .error.error_max =
                (float)fmin(json_real_value(json_object_get(error, "error_max")), (double)FLT_MAX),
            .error.n_blocks = count_at(error, "blocks"),
            .error.n_saturated = count_at(error, "saturated_blocks"),
        };
        const char *key = NULL;
        json_t *value = NULL;
        json_object_foreach(scales, key, value)
        {
            more.error.scales[scale_of(key)] = (uint64_t)json_integer_value(value);
        }
        qn_kind_stats_add(&stats[row_index(row)], &more);
    }
}

bool qn_kinds_derive(json_t *kinds)
{
    bool is_whole = true;
    size_t i = 0;
    json_t *row = NULL;
    json_array_foreach(kinds, i, row)
    {
        json_t *const error = json_object_get(row, "error");
        if (error == NULL) {
            continue;
        }
        const double x_sq = json_real_value(json_object_get(error, "x_sq"));
        const double error_sq = json_real_value(json_object_get(error, "error_sq"));
        json_t *const mse = x_sq > 0.0 ? real_json(error_sq / x_sq) : json_null();
        json_t *const snr =
            x_sq > 0.0 && error_sq > 0.0 ? real_json(10.0 * log10(x_sq / error_sq)) : json_null();
        is_whole = json_object_set_new(error, "relative_mse", mse) == 0 && is_whole;
        is_whole = json_object_set_new(error, "snr_db", snr) == 0 && is_whole;
    }
    return is_whole;
}

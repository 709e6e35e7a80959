/* SPDX-License-Identifier: Apache-2.0 */
#include "format/safetensors.h"

#include <stdio.h>

static const struct {
    const char *name;
    uint32_t size_bytes;
} dtypes[] = {
    [QN_DTYPE_F32] = {"F32", 4},         [QN_DTYPE_F16] = {"F16", 2},
    [QN_DTYPE_BF16] = {"BF16", 2},       [QN_DTYPE_F8_E4M3] = {"F8_E4M3", 1},
    [QN_DTYPE_F8_E5M2] = {"F8_E5M2", 1}, [QN_DTYPE_F8_E8M0] = {"F8_E8M0", 1},
    [QN_DTYPE_U8] = {"U8", 1},           [QN_DTYPE_I8] = {"I8", 1},
    [QN_DTYPE_I32] = {"I32", 4},         [QN_DTYPE_I64] = {"I64", 8},
    [QN_DTYPE_F64] = {"F64", 8},         [QN_DTYPE_BOOL] = {"BOOL", 1},
};

const char *qn_dtype_name(qn_dtype dtype)
{
    return dtypes[dtype].name;
}

uint32_t qn_dtype_bytes(qn_dtype dtype)
{
    return dtypes[dtype].size_bytes;
}

bool qn_dtype_parse(qn_dtype *out, qn_str name)
{
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++) {
        if (qn_str_equal(name, qn_str_of(dtypes[i].name))) {
            *out = (qn_dtype)i;
            return true;
        }
    }
    return false;
}

void qn_shape_print(char *out, size_t out_bytes, const uint64_t *shape, uint32_t rank)
{
    size_t used = (size_t)snprintf(out, out_bytes, "[");
    for (uint32_t i = 0; i < rank && used < out_bytes; i++) {
        const int n = snprintf(out + used, out_bytes - used, "%s%llu", i > 0 ? ", " : "",
                               (unsigned long long)shape[i]);
        used += n > 0 ? (size_t)n : 0;
    }
    if (used < out_bytes) {
        (void)snprintf(out + used, out_bytes - used, "]");
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "model/dummy.h"

#include "base/numbers.h"
#include "base/rng.h"

#include <math.h>

/* Uniform in [-1, 1) with 24 bits: exact in f32. */
static float draw(uint64_t seed, uint64_t stream, uint64_t counter)
{
    return (float)(qn_rng_u64(seed, stream, counter) >> 40) * 0x1p-23F - 1.0F;
}

void qn_dummy_matrix(uint8_t *to, const qn_tensor_spec *spec, uint64_t seed, uint64_t stream,
                     uint32_t first, uint32_t n)
{
    /* Uniform noise of variance gain^2 / n_in keeps activations near one; the router's is larger,
     * so that experts differ. */
    const double gain = spec->role == QN_ROLE_ROUTER ? 4.0 : 1.0;
    const float factor = spec->role == QN_ROLE_EMBEDDING
                             ? 1.0F
                             : (float)(sqrt(3.0) * gain / sqrt((double)spec->n_in));
    const size_t begin = (size_t)first * spec->n_in;
    for (size_t i = 0; i < (size_t)n * spec->n_in; i++) {
        const uint16_t bits = qn_f32_to_bf16(draw(seed, stream, begin + i) * factor);
        memcpy(to + 2 * i, &bits, sizeof bits);
    }
}

void qn_dummy_vector(float *to, const qn_tensor_spec *spec, uint64_t seed, uint64_t stream)
{
    for (uint32_t i = 0; i < spec->n_out; i++) {
        const float v = draw(seed, stream, i);
        switch (spec->role) {
        case QN_ROLE_NORM: to[i] = qn_bf16_to_f32(qn_f32_to_bf16(1.0F + 0.25F * v)); break;
        case QN_ROLE_NORM_BIAS: to[i] = qn_bf16_to_f32(qn_f32_to_bf16(0.25F * v)); break;
        default: to[i] = 0.1F * v; break; /* the router's bias stays f32 */
        }
    }
}

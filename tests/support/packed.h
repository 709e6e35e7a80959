/* SPDX-License-Identifier: Apache-2.0 */
/** @file packed.h  A row of a packed matrix, for oracles. */
#ifndef QN_TEST_SUPPORT_PACKED_H
#define QN_TEST_SUPPORT_PACKED_H
#include "base/numbers.h"
#include "kernels/weight.h"

#include <stdlib.h>
#include <string.h>

/** y[n_in] = output @p o of a bf16 matrix. */
static inline void unpack_row(float *y, const qn_packed *w, uint32_t o)
{
    const uint8_t *strip = w->data + o / QN_STRIP * qn_strip_bytes(w->kind, w->n_in);
    if (w->kind != QN_WEIGHT_BF16) {
        abort();
    }
    for (uint32_t k = 0; k < w->n_in; k++) {
        uint16_t bits;
        memcpy(&bits, strip + k / 2 * 64 + o % QN_STRIP * 4 + k % 2 * 2, sizeof bits);
        y[k] = qn_bf16_to_f32(bits);
    }
}
#endif

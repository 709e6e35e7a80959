/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/decode.h"

#include "base/numbers.h"

#include <math.h>

/* The formats' definitions as constant expressions; a table of all codes is built from them. */
#define SIGNED(MAGNITUDE, code, n)                                                                 \
    ((code) < (n) ? MAGNITUDE((code) % (n)) : -MAGNITUDE((code) % (n)))
#define E4M3_MAGNITUDE(m)                                                                          \
    ((m) == 127 ? NAN                                                                              \
     : (m) < 8  ? (float)(m)*0x1p-9F                                                               \
                : (float)(8 + (m) % 8) * (float)(1 << (m) / 8) * 0x1p-10F)
#define E4M3(code)        SIGNED(E4M3_MAGNITUDE, code, 128)
#define E2M1_MAGNITUDE(m) (0.5F * (float)((m) < 2 ? (m) : (2 + (m) % 2) << (m) / 2 >> 1))
#define E2M1(code)        SIGNED(E2M1_MAGNITUDE, code, 8)
#define E2M1_PAIR(byte)                                                                            \
    {                                                                                              \
        E2M1((byte) % 16), E2M1((byte) / 16)                                                       \
    }
#define ROW_4(X, i)   X(i), X((i) + 1), X((i) + 2), X((i) + 3)
#define ROW_16(X, i)  ROW_4(X, i), ROW_4(X, (i) + 4), ROW_4(X, (i) + 8), ROW_4(X, (i) + 12)
#define ROW_64(X, i)  ROW_16(X, i), ROW_16(X, (i) + 16), ROW_16(X, (i) + 32), ROW_16(X, (i) + 48)
#define ROW_256(X, i) ROW_64(X, i), ROW_64(X, (i) + 64), ROW_64(X, (i) + 128), ROW_64(X, (i) + 192)

const float qn_e4m3_values[256] = {ROW_256(E4M3, 0)};
const float qn_e2m1_pairs[256][2] = {ROW_256(E2M1_PAIR, 0)};

void qn_fp8_decode(float *y, const uint8_t *codes, const uint8_t *scales, uint32_t n,
                   uint32_t n_per_scale)
{
    for (uint32_t first = 0; first < n; first += n_per_scale) {
        const uint32_t end = n - first > n_per_scale ? first + n_per_scale : n;
        float scale;
        memcpy(&scale, scales + 4 * (size_t)(first / n_per_scale), sizeof scale);
        for (uint32_t i = first; i < end; i++) {
            y[i] = qn_e4m3_values[codes[i]] * scale;
        }
    }
}

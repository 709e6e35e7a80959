/* SPDX-License-Identifier: Apache-2.0 */
/* Never run on hardware, as src/kernels/x86/matmul_amx.c. */
#include "kernels/roof.h"

#include <immintrin.h>

/* Products of 16 rows, 64 bytes of columns and 16 outputs, into four tiles in turn. */
enum { N_SUMS = 4, ROWS = 16, ROW_BYTES = 64 };

/* All eight tiles in full size and zero. */
static void configure(void)
{
    struct {
        uint8_t palette, unused[15];
        uint16_t row_bytes[16];
        uint8_t n_rows[16];
    } config __attribute__((aligned(64))) = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.row_bytes[i] = ROW_BYTES;
        config.n_rows[i] = ROWS;
    }
    __asm__ volatile("" : : "r"(&config) : "memory"); /* gcc 12 takes it for 8 bytes */
    _tile_loadconfig(&config);
}

double qn_peak_bf16_amx(uint64_t n_rounds)
{
    configure();
    for (uint64_t round = 0; round < n_rounds; round++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_release();
    return 2.0 * ROWS * (ROW_BYTES / 2.0) * 16.0 * N_SUMS * (double)n_rounds;
}

double qn_peak_int8_amx(uint64_t n_rounds)
{
    configure();
    for (uint64_t round = 0; round < n_rounds; round++) {
        _tile_dpbsud(0, 4, 6);
        _tile_dpbsud(1, 4, 7);
        _tile_dpbsud(2, 5, 6);
        _tile_dpbsud(3, 5, 7);
    }
    _tile_release();
    return 2.0 * ROWS * ROW_BYTES * 16.0 * N_SUMS * (double)n_rounds;
}

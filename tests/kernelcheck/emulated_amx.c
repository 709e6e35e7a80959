/* SPDX-License-Identifier: Apache-2.0 */
#include "emulated_amx.h"

#include "base/numbers.h"
#include "kernelcheck.h"
#include "kernels/x86/x86.h"

#include <stdio.h>
#include <stdlib.h>

enum { N_TILES = 8, N_ROWS = 16, ROW_BYTES = 64, N_WORDS = ROW_BYTES / 4 };

/* A tile register: what lies behind its shape is zero. */
typedef struct tile {
    uint32_t n_rows, row_bytes;
    uint8_t rows[N_ROWS][ROW_BYTES];
} tile;

static tile g_tiles[N_TILES];
static bool g_is_configured;

static void need(bool is_met, const char *what)
{
    if (!is_met) {
        (void)fprintf(stderr, "kernelcheck: a tile instruction faults: %s\n", what);
        abort();
    }
}

/* ----------------------------------------------------------------------------------- tiles -- */

void kc_tile_config(const void *from)
{
    uint8_t bytes[64];
    memcpy(bytes, from, sizeof bytes);
    need(bytes[0] == 1 && bytes[1] == 0, "palette 1 and start row 0 expected");
    for (size_t i = 0; i < 64; i++) {
        const bool is_reserved =
            (i >= 2 && i < 16) || (i >= 16 + 2 * N_TILES && i < 48) || i >= 48 + N_TILES;
        need(!is_reserved || bytes[i] == 0, "reserved bytes are not zero");
    }
    memset(g_tiles, 0, sizeof g_tiles);
    for (size_t i = 0; i < N_TILES; i++) {
        g_tiles[i].row_bytes = bytes[16 + 2 * i] + 256U * bytes[17 + 2 * i];
        g_tiles[i].n_rows = bytes[48 + i];
        need(g_tiles[i].row_bytes <= ROW_BYTES && g_tiles[i].n_rows <= N_ROWS, "a tile too large");
        need((g_tiles[i].row_bytes == 0) == (g_tiles[i].n_rows == 0), "rows or bytes alone");
    }
    g_is_configured = true;
}

void kc_tile_release(void)
{
    memset(g_tiles, 0, sizeof g_tiles);
    g_is_configured = false;
}

static tile *at(int i_tile)
{
    need(g_is_configured && i_tile >= 0 && i_tile < N_TILES && g_tiles[i_tile].n_rows > 0,
         "a tile that is not configured");
    return &g_tiles[i_tile];
}

void kc_tile_zero(int i_tile)
{
    tile *t = at(i_tile);
    memset(t->rows, 0, sizeof t->rows);
}

void kc_tile_load(int i_tile, const void *from, size_t stride)
{
    tile *t = at(i_tile);
    memset(t->rows, 0, sizeof t->rows);
    for (size_t m = 0; m < t->n_rows; m++) {
        memcpy(t->rows[m], (const uint8_t *)from + m * stride, t->row_bytes);
    }
}

void kc_tile_store(int i_tile, void *to, size_t stride)
{
    const tile *t = at(i_tile);
    for (size_t m = 0; m < t->n_rows; m++) {
        memcpy((uint8_t *)to + m * stride, t->rows[m], t->row_bytes);
    }
}

/* -------------------------------------------------------------------------------- products -- */

/* sums [m][n], a [m][k], b [k][n], in words of 4 bytes. */
static void need_product(int sums, int a, int b)
{
    need(sums != a && sums != b && a != b, "the same tile twice");
    need(at(sums)->row_bytes % 4 == 0 && at(a)->row_bytes % 4 == 0 && at(b)->row_bytes % 4 == 0,
         "rows of tiles end within a word");
    need(at(sums)->n_rows == at(a)->n_rows && at(sums)->row_bytes == at(b)->row_bytes &&
             at(a)->row_bytes / 4 == at(b)->n_rows,
         "shapes that do not fit");
}

/* Below the least normal number zero: so are operands taken and results left. */
static float flushed(float x)
{
    return fabsf(x) < 0x1p-126F ? copysignf(0.0F, x) : x;
}

static float bf16_at(const uint8_t *at_byte)
{
    uint16_t bits;
    memcpy(&bits, at_byte, sizeof bits);
    return flushed(qn_bf16_to_f32(bits));
}

/* Of each word one chain of the low and one of the high halves from zero, then their sum. */
void kc_tile_dot_bf16(int sums, int a, int b)
{
    need_product(sums, a, b);
    tile *c = at(sums);
    for (uint32_t m = 0; m < c->n_rows; m++) {
        float chains[2][N_WORDS] = {{0}};
        float row[N_WORDS];
        for (uint32_t k = 0; k < at(b)->n_rows; k++) {
            for (uint32_t half = 0; half < 2; half++) {
                const float x = bf16_at(at(a)->rows[m] + 4 * k + 2 * half);
                const uint8_t *w = at(b)->rows[k] + (size_t)2 * half;
                for (uint32_t n = 0; n < N_WORDS; n++) {
                    float *sum = &chains[half][n];
                    *sum = flushed(fmaf(x, bf16_at(w + 4 * (size_t)n), *sum));
                }
            }
        }
        memcpy(row, c->rows[m], sizeof row);
        for (uint32_t n = 0; n < N_WORDS; n++) {
            row[n] = flushed(flushed(row[n]) + flushed(chains[0][n] + chains[1][n]));
        }
        memcpy(c->rows[m], row, c->row_bytes);
    }
}

/* Signed bytes of a, unsigned bytes of b. */
void kc_tile_dot_int8(int sums, int a, int b)
{
    need_product(sums, a, b);
    tile *c = at(sums);
    for (uint32_t m = 0; m < c->n_rows; m++) {
        int32_t row[N_WORDS];
        memcpy(row, c->rows[m], sizeof row);
        for (uint32_t k = 0; k < at(b)->n_rows; k++) {
            for (uint32_t i = 0; i < 4; i++) {
                const int8_t x = (int8_t)at(a)->rows[m][4 * k + i];
                for (uint32_t n = 0; n < N_WORDS; n++) {
                    row[n] += x * at(b)->rows[k][4 * n + i];
                }
            }
        }
        memcpy(c->rows[m], row, c->row_bytes);
    }
}

/* ------------------------------------------------------------------------------ the kernel -- */

/* What a check could not know is wrong becomes NaN, which it reports: tiles that are still held,
   and int8 with other bits than on AVX-512. */
void kc_matmul_amx_emulated(const qn_matmul_args *args)
{
    matmul_amx_on_tiles(args);
    const size_t n_outs = args->out_end - args->out_first;
    const size_t n_y = args->n_rows * n_outs;
    qn_matmul_args again = *args;
    again.y_stride = n_outs;
    again.y = malloc((n_y + 1) * sizeof *again.y);
    if (again.y == NULL) {
        abort();
    }
    qn_matmul_avx512bf16(&again);
    for (size_t i = 0; i < n_y; i++) {
        float *y = args->y + i / n_outs * args->y_stride + i % n_outs;
        const bool is_other =
            args->act == QN_ACT_INT8 && qn_f32_bits(*y) != qn_f32_bits(again.y[i]);
        *y = is_other || g_is_configured ? NAN : *y;
    }
    free(again.y);
}

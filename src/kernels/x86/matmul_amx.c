/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products by tile registers: 16 rows by 16 outputs by 64 bytes of columns an instruction.
 *
 * Never run on hardware.  tests/kernelcheck compiles this same source against an emulation of the
 * tile instructions; speed, and the sizes chosen for it here, are estimates.
 *
 * Rows are taken 32 at a time and strips 2 at a time: 2 x 2 tiles of sums, for which 2 tiles of
 * activations and 2 of weights are loaded, so that every tile loaded serves two products.
 * The 512 columns of a strip that all rows pass over stay in the caches.  16 words of bf16 weights
 * are a tile as they stand in a strip; other weights are decoded to a buffer first.
 *
 * Order of additions, bf16: of 32 columns the even ones ascending, the odd ones ascending, both
 * sums added to what stands; 32s ascending.  Where weights have scales, 32s of a block, the block's
 * sum scaled, blocks ascending.  int8: as the level below, with the same bits.  No order depends on
 * rows, and every count of rows goes this way.
 *
 * One row is bound by memory, or by decoding; many rows by the products, for MXFP4 by scaling the
 * sums of every 32 columns: 2 x 2 tiles of them are 64 registers to convert, scale and add.
 */
#include "kernels/x86/decode_avx512bf16.h"

enum {
    TILE_ROWS = 16,
    GROUP_ROWS = 2 * TILE_ROWS,
    GROUP_OUTS = 2 * QN_STRIP,
    CHUNK = 512, /* columns; a multiple of every block */
};

/* Tile registers, by number: sums [of rows][of strips], activations of rows, weights of strips. */
#define SUMS_00 0
#define SUMS_01 1
#define SUMS_10 2
#define SUMS_11 3
#define ROWS_0  4
#define ROWS_1  5
#define STRIP_0 6
#define STRIP_1 7

/* What ldtilecfg reads. */
typedef struct tile_config {
    uint8_t palette;
    uint8_t start_row;
    uint8_t reserved[14];
    uint16_t row_bytes[16];
    uint8_t n_rows[16];
} tile_config;
_Static_assert(sizeof(tile_config) == 64, "ldtilecfg reads 64 bytes");

/* One or two strips of a call. */
typedef struct job {
    const qn_matmul_args *args;
    const uint8_t *strips[2];
    size_t scale_at; /* of a strip's scales, from its start */
    size_t ahead;    /* bytes to the same place of the strips that come next */
    uint32_t n_strips;
    uint32_t n_outs;
    uint32_t n_k; /* columns with their padding */
    bool is_int8;
    float *y; /* of the first row and output */
} job;

/* Operands of a group of rows: what tiles are loaded from. */
typedef struct operands {
    const uint8_t *x;
    size_t x_stride;
    const uint8_t *weights[2];
    bool has_rows_1, has_strip_1;
    bool is_int8;
} operands;

/* The shape of all tiles for a group of rows, unless they have it: changing it takes long. */
static void configure(tile_config *config, uint32_t n_rows, uint32_t n_outs, bool is_int8)
{
    const uint32_t step = is_int8 ? 32 : 64; /* bytes of 32 columns */
    const uint32_t rows[2] = {n_rows < TILE_ROWS ? n_rows : TILE_ROWS,
                              n_rows < TILE_ROWS ? 0 : n_rows - TILE_ROWS};
    const uint32_t bytes[2] = {4 * (n_outs < QN_STRIP ? n_outs : QN_STRIP),
                               4 * (n_outs < QN_STRIP ? 0 : n_outs - QN_STRIP)};
    const uint32_t shapes[8][2] = {
        [SUMS_00] = {rows[0], bytes[0]},  [SUMS_01] = {rows[0], bytes[1]},
        [SUMS_10] = {rows[1], bytes[0]},  [SUMS_11] = {rows[1], bytes[1]},
        [ROWS_0] = {rows[0], step},       [ROWS_1] = {rows[1], step},
        [STRIP_0] = {step / 4, bytes[0]}, [STRIP_1] = {step / 4, bytes[1]},
    };
    tile_config wanted = {.palette = 1};
    for (uint32_t i = 0; i < 8; i++) { /* what lacks one of the two must have neither */
        wanted.n_rows[i] = (uint8_t)(shapes[i][1] > 0 ? shapes[i][0] : 0);
        wanted.row_bytes[i] = (uint16_t)(shapes[i][0] > 0 ? shapes[i][1] : 0);
    }
    if (memcmp(config, &wanted, sizeof wanted) != 0) {
        *config = wanted;
        /* gcc 12 takes the instruction for one that reads 8 bytes. */
        __asm__ volatile("" : : "r"(config) : "memory");
        _tile_loadconfig(config);
    }
}

/* The sums of a group are kept at c, c_stride floats a row. */
static void load_sums(const operands *at, const float *c, size_t c_stride)
{
    const float *c_1 = c + TILE_ROWS * c_stride;
    _tile_loadd(SUMS_00, c, 4 * c_stride);
    if (at->has_strip_1) {
        _tile_loadd(SUMS_01, c + QN_STRIP, 4 * c_stride);
    }
    if (at->has_rows_1) {
        _tile_loadd(SUMS_10, c_1, 4 * c_stride);
        if (at->has_strip_1) {
            _tile_loadd(SUMS_11, c_1 + QN_STRIP, 4 * c_stride);
        }
    }
}

static void zero_sums(const operands *at)
{
    _tile_zero(SUMS_00);
    if (at->has_strip_1) {
        _tile_zero(SUMS_01);
    }
    if (at->has_rows_1) {
        _tile_zero(SUMS_10);
        if (at->has_strip_1) {
            _tile_zero(SUMS_11);
        }
    }
}

static void store_sums(const operands *at, float *c, size_t c_stride)
{
    float *c_1 = c + TILE_ROWS * c_stride;
    _tile_stored(SUMS_00, c, 4 * c_stride);
    if (at->has_strip_1) {
        _tile_stored(SUMS_01, c + QN_STRIP, 4 * c_stride);
    }
    if (at->has_rows_1) {
        _tile_stored(SUMS_10, c_1, 4 * c_stride);
        if (at->has_strip_1) {
            _tile_stored(SUMS_11, c_1 + QN_STRIP, 4 * c_stride);
        }
    }
}

/* sums += 32 columns at x and at the weights. */
#define DOT(sums, rows, strip)                                                                     \
    if (at->is_int8) {                                                                             \
        _tile_dpbsud(sums, rows, strip);                                                           \
    } else {                                                                                       \
        _tile_dpbf16ps(sums, rows, strip);                                                         \
    }
QN_INLINE void add_step(const operands *at, size_t x_at, size_t weights_at)
{
    _tile_loadd(ROWS_0, at->x + x_at, at->x_stride);
    _tile_loadd(STRIP_0, at->weights[0] + weights_at, 64);
    DOT(SUMS_00, ROWS_0, STRIP_0)
    if (at->has_strip_1) {
        _tile_loadd(STRIP_1, at->weights[1] + weights_at, 64);
        DOT(SUMS_01, ROWS_0, STRIP_1)
    }
    if (at->has_rows_1) {
        _tile_loadd(ROWS_1, at->x + x_at + TILE_ROWS * at->x_stride, at->x_stride);
        DOT(SUMS_10, ROWS_1, STRIP_0)
        if (at->has_strip_1) {
            DOT(SUMS_11, ROWS_1, STRIP_1)
        }
    }
}
#undef DOT

/* sums += columns k .. k + n - 1 of the operands. */
static void add_columns(const operands *at, uint32_t k, uint32_t n)
{
    const size_t x_bytes = at->is_int8 ? 1 : 2; /* of a column */
    /* gcc 12 does not know that tiles are loaded from memory: what was stored has to be there.
       Storing the sums, it knows, writes memory, so nothing is stored too early either. */
    __asm__ volatile("" : : "r"(at->x), "r"(at->weights[0]), "r"(at->weights[1]) : "memory");
    for (uint32_t end = k + n; k < end; k += 32) {
        add_step(at, k * x_bytes, k * x_bytes * QN_STRIP);
    }
}

/* e2m1 codes to bf16: pair j has bits 8 j of the lane's word in its low half and 8 j + 4 in its
   high half. */
QN_INLINE void decode_e2m1(__m512i pairs[4], __m512i words)
{
    const __m512i values = qn_e2m1_bf16();
    QN_UNROLL
    for (int64_t j = 0; j < 4; j++) {
        const __m512i bits = _mm512_set1_epi64(0x0024002000040000 + j * 0x0008000800080008);
        pairs[j] = _mm512_permutexvar_epi16(_mm512_multishift_epi64_epi8(bits, words), values);
    }
}

/* Words of a strip as the rows of tiles, one behind the other. */
QN_INLINE void decode_as(uint8_t *to, const uint8_t *words, const uint8_t *end, size_t ahead,
                         qn_weight_kind kind, bool is_int8)
{
    const uint32_t n_rows = is_int8 ? 8 : kind == QN_WEIGHT_MXFP4 ? 4 : 2;
    for (; words < end; words += is_int8 ? 256 : 64) {
        __m512i rows[8];
        if (is_int8) {
            qn_decode_raised(rows, words, 2, ahead);
        } else if (kind == QN_WEIGHT_MXFP4) {
            decode_e2m1(rows, qn_tile_load(words, 2, ahead));
        } else {
            qn_decode_e4m3(rows, qn_tile_load(words, 2, ahead));
        }
        QN_UNROLL
        for (uint32_t i = 0; i < n_rows; i++) {
            _mm512_store_si512(to + 64 * (size_t)i, rows[i]);
        }
        to += 64 * (size_t)n_rows;
    }
}

/* Columns k .. k + n - 1 of strip s. */
static void decode(uint8_t *to, const job *j, uint32_t s, uint32_t k, uint32_t n)
{
    const qn_weight_kind kind = j->args->w->kind;
    const uint8_t *words = j->strips[s] + qn_strip_word_bytes(kind, k);
    const uint8_t *end = words + qn_strip_word_bytes(kind, n);
    if (j->is_int8) {
        decode_as(to, words, end, j->ahead, QN_WEIGHT_MXFP4, true);
    } else if (kind == QN_WEIGHT_MXFP4) {
        decode_as(to, words, end, j->ahead, QN_WEIGHT_MXFP4, false);
    } else {
        decode_as(to, words, end, j->ahead, QN_WEIGHT_FP8_BLOCK, false);
    }
}

/* y += sums, scaled, of block i_block: 16 lanes of strip s for each of n_rows rows from t. */
static void add_scaled(float y[GROUP_ROWS][GROUP_OUTS], float sums[GROUP_ROWS][GROUP_OUTS],
                       const job *j, uint32_t s, uint32_t i_block, uint32_t t, uint32_t n_rows)
{
    const __m512 scales = qn_block_scales(j->strips[s] + j->scale_at, j->args->w->kind, i_block);
    const __m512 halves = _mm512_mul_ps(scales, _mm512_set1_ps(0.5F));
    const size_t scale_at = j->n_k + 4 * (size_t)i_block;
    const size_t offset_at = scale_at + (size_t)(j->n_k / QN_MXFP4_BLOCK) * 4;
    for (uint32_t r = 0; r < n_rows; r++) {
        float *y_r = y[r] + (size_t)s * QN_STRIP;
        __m512 sum = _mm512_load_ps(sums[r] + (size_t)s * QN_STRIP);
        __m512 by = scales;
        if (j->is_int8) {
            const uint8_t *row = qn_matmul_row(j->args, t + r);
            sum = _mm512_cvtepi32_ps(
                _mm512_add_epi32(_mm512_castps_si512(sum), qn_broadcast(row + offset_at)));
            by = _mm512_mul_ps(halves, _mm512_castsi512_ps(qn_broadcast(row + scale_at)));
        }
        _mm512_store_ps(y_r, _mm512_fmadd_ps(sum, by, _mm512_load_ps(y_r)));
    }
}

/* A group's columns k .. k + n - 1 where weights have scales.  The sums so far stand side by side
   for this: rows of y often lie a multiple of 4 KiB apart and would share few cache sets. */
static void scaled_group(const job *j, const operands *at, uint32_t k, uint32_t n, uint32_t t,
                         uint32_t n_rows)
{
    const uint32_t block = j->args->w->kind == QN_WEIGHT_MXFP4 ? QN_MXFP4_BLOCK : QN_FP8_BLOCK;
    float y[GROUP_ROWS][GROUP_OUTS] __attribute__((aligned(64)));
    float sums[GROUP_ROWS][GROUP_OUTS] __attribute__((aligned(64))) = {{0}};
    const __mmask32 lanes = (__mmask32)(0xffffffffU >> (GROUP_OUTS - j->n_outs));
    float *to = j->y + t * j->args->y_stride;
    for (uint32_t r = 0; r < n_rows; r++) {
        const float *from = to + r * j->args->y_stride;
        const __mmask32 known = k == 0 ? 0 : lanes;
        _mm512_store_ps(y[r], _mm512_maskz_loadu_ps((__mmask16)known, from));
        _mm512_store_ps(y[r] + 16, _mm512_maskz_loadu_ps((__mmask16)(known >> 16), from + 16));
    }
    for (uint32_t i = 0; i < n; i += block) {
        zero_sums(at);
        add_columns(at, i, n - i < block ? n - i : block);
        store_sums(at, sums[0], GROUP_OUTS);
        for (uint32_t s = 0; s < j->n_strips; s++) {
            add_scaled(y, sums, j, s, (k + i) / block, t, n_rows);
        }
    }
    for (uint32_t r = 0; r < n_rows; r++, to += j->args->y_stride) {
        _mm512_mask_storeu_ps(to, (__mmask16)lanes, _mm512_load_ps(y[r]));
        _mm512_mask_storeu_ps(to + 16, (__mmask16)(lanes >> 16), _mm512_load_ps(y[r] + 16));
    }
}

/* The same where they have none: tiles come from y and go back. */
static void plain_group(const job *j, const operands *at, uint32_t k, uint32_t n, uint32_t t)
{
    float *to = j->y + t * j->args->y_stride;
    if (k == 0) {
        zero_sums(at);
    } else {
        load_sums(at, to, j->args->y_stride);
    }
    add_columns(at, 0, n);
    store_sums(at, to, j->args->y_stride);
}

/* Rows first .. end - 1 of one or two strips, n_rows (which divides them) at a time. */
static void multiply(const job *j, tile_config *config, uint32_t first, uint32_t end,
                     uint32_t n_rows)
{
    const qn_matmul_args *args = j->args;
    const qn_weight_kind kind = args->w->kind;
    const size_t x_bytes = j->is_int8 ? 1 : 2; /* of a column */
    uint8_t decoded[2][CHUNK * 2 * QN_STRIP] __attribute__((aligned(64)));
    uint8_t gathered[GROUP_ROWS][CHUNK * 2] __attribute__((aligned(64)));
    operands at = {
        .has_rows_1 = n_rows > TILE_ROWS, .has_strip_1 = j->n_strips > 1, .is_int8 = j->is_int8};
    configure(config, n_rows, j->n_outs, j->is_int8);
    for (uint32_t k = 0; k < j->n_k; k += CHUNK) {
        const uint32_t n = j->n_k - k < CHUNK ? j->n_k - k : CHUNK;
        for (uint32_t s = 0; s < j->n_strips; s++) {
            at.weights[s] = decoded[s];
            if (kind == QN_WEIGHT_BF16) {
                at.weights[s] = j->strips[s] + qn_strip_word_bytes(kind, k);
            } else {
                decode(decoded[s], j, s, k, n);
            }
        }
        for (uint32_t t = first; t < end; t += n_rows) {
            at.x = args->rows != NULL ? gathered[0] : qn_matmul_row(args, t) + k * x_bytes;
            at.x_stride = args->rows != NULL ? sizeof gathered[0] : args->x_stride;
            for (uint32_t r = 0; r < n_rows && args->rows != NULL; r++) {
                memcpy(gathered[r], qn_matmul_row(args, t + r) + k * x_bytes, n * x_bytes);
            }
            if (kind == QN_WEIGHT_BF16) {
                plain_group(j, &at, k, n, t);
            } else {
                scaled_group(j, &at, k, n, t, n_rows);
            }
        }
    }
}

void qn_matmul_amx(const qn_matmul_args *args)
{
    if (args->act == QN_ACT_F32) {
        qn_matmul_avx512(args); /* tiles have no product of f32 */
        return;
    }
    const qn_packed *w = args->w;
    const size_t strip_bytes = qn_strip_bytes(w->kind, w->n_in);
    tile_config config = {0};
    const uint32_t n_whole = args->n_rows / GROUP_ROWS * GROUP_ROWS;
    for (uint32_t o = args->out_first; o < args->out_end; o += GROUP_OUTS) {
        const uint8_t *strip = w->data + o / QN_STRIP * strip_bytes;
        const uint32_t n_outs = args->out_end - o < GROUP_OUTS ? args->out_end - o : GROUP_OUTS;
        const job j = {
            .args = args,
            .strips = {strip, strip + strip_bytes},
            .scale_at = qn_strip_word_bytes(w->kind, w->n_in),
            .ahead = 2 * strip_bytes,
            .n_strips = n_outs > QN_STRIP ? 2 : 1,
            .n_outs = n_outs,
            .n_k = qn_round_up(w->n_in, QN_PACK_K),
            .is_int8 = args->act == QN_ACT_INT8,
            .y = args->y + (o - args->out_first),
        };
        if (n_whole > 0) {
            multiply(&j, &config, 0, n_whole, GROUP_ROWS);
        }
        if (n_whole < args->n_rows) {
            multiply(&j, &config, n_whole, args->n_rows, args->n_rows - n_whole);
        }
    }
    _tile_release();
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packing weights on AVX-512: 64 bytes of each of 16 rows become 16 words of each of 16 lanes.
 * Whole cache lines at a time, since rows often lie a multiple of 4 KiB apart, where L1 cannot keep
 * sixteen of them.  Memory bounds it: rows are asked for ahead, 16 streams being too many for the
 * machine to follow, and strips are written past the caches, which are not to fetch them first
 * (measured: 17 to 20 GB/s of weights against 4 to 9).
 */
#include "kernels/x86/matmul_avx512.h"

enum {
    GROUP = 64,         /* bytes of a row that are transposed at a time */
    AHEAD = 16 * GROUP, /* bytes */
};

/* Words [row][column] to [column][row]: pairs of words, then of pairs, then of fours twice. */
QN_INLINE void transpose(__m512i rows[QN_STRIP])
{
    __m512i a[QN_STRIP];
    __m512i b[QN_STRIP];
    QN_UNROLL
    for (int i = 0; i < 16; i += 2) {
        a[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    QN_UNROLL
    for (int i = 0; i < 16; i += 4) { /* b[i + c]: columns c, c + 4, c + 8, c + 12 of four rows */
        b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
        b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
        b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
        b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
    }
    QN_UNROLL
    for (int c = 0; c < 4; c++) {
        const __m512i low_0 = _mm512_shuffle_i32x4(b[c], b[c + 4], 0x88); /* columns c, c + 8 */
        const __m512i low_1 = _mm512_shuffle_i32x4(b[c], b[c + 4], 0xdd); /* c + 4, c + 12 */
        const __m512i high_0 = _mm512_shuffle_i32x4(b[c + 8], b[c + 12], 0x88);
        const __m512i high_1 = _mm512_shuffle_i32x4(b[c + 8], b[c + 12], 0xdd);
        rows[c] = _mm512_shuffle_i32x4(low_0, high_0, 0x88);
        rows[c + 8] = _mm512_shuffle_i32x4(low_0, high_0, 0xdd);
        rows[c + 4] = _mm512_shuffle_i32x4(low_1, high_1, 0x88);
        rows[c + 12] = _mm512_shuffle_i32x4(low_1, high_1, 0xdd);
    }
}

/* Bytes [lane][4] to [4][lane]. */
QN_INLINE __m512i transpose_bytes(__m512i words)
{
    const __m512i in_four =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    const __m512i fours = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_permutexvar_epi32(fours, _mm512_shuffle_epi8(words, in_four));
}

/*
 * Rows of the lanes as columns of words, or of bytes: n_bytes of each, zeros where a row has ended
 * and for lanes from n_lanes.
 */
QN_INLINE void pack_rows(uint8_t *to, const uint8_t *from, size_t row_bytes, uint32_t n_lanes,
                         size_t n_bytes, bool is_bytes)
{
    for (size_t at = 0; at < n_bytes; at += GROUP) {
        const size_t n_left = at < row_bytes ? row_bytes - at : 0;
        const __mmask64 some = n_left < GROUP ? ((__mmask64)1 << n_left) - 1 : ~(__mmask64)0;
        __m512i rows[QN_STRIP];
        QN_UNROLL
        for (uint32_t lane = 0; lane < QN_STRIP; lane++) {
            const uint8_t *row = from + (lane < n_lanes ? lane : 0) * row_bytes + at;
            rows[lane] = _mm512_maskz_loadu_epi8(lane < n_lanes ? some : 0, row);
            _mm_prefetch((const void *)(row + AHEAD), _MM_HINT_T1);
        }
        transpose(rows);
        const size_t n_words = n_bytes - at < GROUP ? (n_bytes - at + 3) / 4 : GROUP / 4;
        for (size_t i = 0; i < n_words; i++) {
            const __m512i words = is_bytes ? transpose_bytes(rows[i]) : rows[i];
            const size_t n = n_bytes - at - 4 * i;
            if (n >= 4) {
                _mm512_stream_si512((void *)(to + (at + 4 * i) * QN_STRIP), words);
            } else {
                _mm512_mask_storeu_epi8(to + (at + 4 * i) * QN_STRIP,
                                        ((__mmask64)1 << n * QN_STRIP) - 1, words);
            }
        }
    }
}

void qn_pack_strip_avx512(uint8_t *strip, const qn_weight *w, uint32_t i_strip)
{
    const uint32_t o = i_strip * QN_STRIP;
    const uint32_t n_lanes = w->n_out - o < QN_STRIP ? w->n_out - o : QN_STRIP;
    const size_t word_bytes = qn_strip_word_bytes(w->kind, w->n_in);
    const size_t row_bytes = qn_weight_bytes(w->kind, w->n_in);
    uint8_t *scales = strip + word_bytes;
    pack_rows(strip, w->data + o * row_bytes, row_bytes, n_lanes, word_bytes / QN_STRIP, false);
    if (w->kind == QN_WEIGHT_MXFP4) {
        const size_t n_blocks = w->n_in / QN_MXFP4_BLOCK;
        pack_rows(scales, w->scale + o * n_blocks, n_blocks, n_lanes, n_blocks, true);
        scales += n_blocks * QN_STRIP;
    } else if (w->kind == QN_WEIGHT_FP8_BLOCK || w->kind == QN_WEIGHT_FP8_CHANNEL) {
        const __mmask16 lanes = (__mmask16)((1U << n_lanes) - 1);
        const size_t n_blocks = (w->n_in + QN_FP8_BLOCK - 1) / QN_FP8_BLOCK;
        const uint8_t *of_block = w->scale + o / QN_FP8_BLOCK * n_blocks * 4;
        for (size_t i = 0; i < n_blocks; i++, scales += 4 * (size_t)QN_STRIP) {
            _mm512_storeu_si512(scales,
                                w->kind == QN_WEIGHT_FP8_BLOCK
                                    ? _mm512_maskz_mov_epi32(lanes, qn_broadcast(of_block + 4 * i))
                                    : _mm512_maskz_loadu_epi32(lanes, w->scale + 4 * (size_t)o));
        }
    }
    memset(scales, 0, (size_t)(strip + qn_strip_bytes(w->kind, w->n_in) - scales));
    _mm_sfence(); /* before another thread is told that the strip is there */
}

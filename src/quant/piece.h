/* SPDX-License-Identifier: Apache-2.0 */
/** @file piece.h  A few MB of one tensor: what one thread does at a time. */
#ifndef QN_QUANT_PIECE_H
#define QN_QUANT_PIECE_H
#include "quant/kinds.h"
#include "quant/plan.h"
#include "quant/target.h"

/** Bytes that a piece has written. */
typedef struct qn_written {
    uint64_t offset;  /**< In the output file. */
    uint64_t n_bytes; /**< May be 0. */
    uint64_t hash;    /**< XXH3-64 of them. */
} qn_written;

/** Part of a tensor. */
typedef struct qn_piece {
    const qn_plan_tensor *tensor; /**< Borrowed from the plan. */
    uint64_t first;               /**< Of the units: bytes to copy, blocks of 32, or rows of FP8. */
    uint64_t n;                   /**< How many. */
    double x_sq, error_sq; /**< Of what was encoded: added in order of pieces, not of time. */
    qn_written written[2]; /**< Codes or copy; scales. */
} qn_piece;

/** Memory of one thread, enough for any piece of a plan. */
typedef struct qn_piece_room {
    uint8_t *in;                     /**< Source bytes; owned, as all of these. */
    uint8_t *codes;                  /**< Of what is encoded. */
    uint8_t *scales;                 /**< Likewise. */
    uint8_t *bf16;                   /**< Of FP8. */
    float *wide;                     /**< Of FP8: a chunk, dequantized. */
    float *fp8_scales;               /**< Of the rows of a piece. */
    qn_kind_stats stats[QN_N_STATS]; /**< What does not depend on the order of pieces. */
} qn_piece_room;

/** Where a piece comes from and goes to; borrowed. */
typedef struct qn_piece_io {
    const qn_plan *plan;
    const qn_kernels *kernels;
    const qn_target *target;
    qn_scale_rule scale;
    int source_fd;    /**< Of the tensor's shard. */
    int target_fd;    /**< -1: write nothing. */
    const char *file; /**< Shard, in source and target. */
} qn_piece_io;

/** Pieces that a tensor is cut into; 0 for one that is dropped. */
uint64_t qn_piece_count(const qn_plan_tensor *tensor);
/** The i-th of them. */
qn_piece qn_piece_get(const qn_plan_tensor *tensor, uint64_t i_piece);
/** Bytes of the source's tensor that it reads, without scales. */
uint64_t qn_piece_source_bytes(const qn_piece *piece);

/** Allocate for every piece of the plan.  QN_E_NOMEM. */
QN_MUST_CHECK qn_status qn_piece_room_init(qn_piece_room *room, const qn_plan *plan, qn_error *err);
/** Free it. */
void qn_piece_room_deinit(qn_piece_room *room);

/**
 * Read, convert, measure, write.  Any thread, each with a room of its own.
 * Returns  QN_OK; QN_E_FORMAT naming the element that is NaN or Inf; QN_E_IO
 */
QN_MUST_CHECK qn_status qn_piece_run(qn_piece *piece, const qn_piece_io *io, qn_piece_room *room,
                                     qn_error *err);
#endif

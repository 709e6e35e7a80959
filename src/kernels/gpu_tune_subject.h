/* SPDX-License-Identifier: Apache-2.0 */
/** @file gpu_tune_subject.h  What gpu_tune.c measures: an operation with its memory. */
#ifndef QN_KERNELS_GPU_TUNE_SUBJECT_H
#define QN_KERNELS_GPU_TUNE_SUBJECT_H
#include "device/gpu_block.h"
#include "kernels/gpu_tune.h"

enum {
    /** Inputs repeat after so many rows, so that the portable variant computes these alone.  A
       prime: a row that ends in another place of a tile is another one. */
    QN_GPU_TUNE_PERIOD = 13,
    QN_GPU_TUNE_CALLS_MAX = 32, /**< Of a measurement. */
};

/** A variant, and of products its plan. */
typedef struct qn_gpu_tune_candidate {
    uint32_t i_variant, n_strips, n_splits;
} qn_gpu_tune_candidate;

typedef struct qn_gpu_subject qn_gpu_subject;

/** One operation of some shape. */
struct qn_gpu_subject {
    const qn_gpu_tuner *tuner;
    qn_gpu_tuning_key key;
    uint32_t n_rows_max, n_rows; /**< At most, and now. */
    uint32_t n_calls;            /**< Of a measurement, that find nothing of each other. */
    uint32_t n_variants;
    uint32_t i_portable;
    /* Results: rows of n_y elements, f32 or bf16. */
    void *y;
    uint64_t n_y;
    bool y_is_bf16;
    uint32_t *ref_of; /**< [n_rows_max] which row of the reference a row must be; owned. */
    uint32_t n_ref;   /**< Rows of the reference. */
    uint8_t *ref;     /**< [n_ref] rows as y's, on the host; owned. */
    uint8_t *block;   /**< All memory of the device but y and partial; owned, as these. */
    uint8_t *scratch; /**< Partial sums. */
    uint64_t scratch_bytes;

    const char *(*name)(const qn_gpu_subject *s, uint32_t i_variant);
    bool (*supports)(const qn_gpu_subject *s, const qn_gpu_tune_candidate *c);
    bool (*has_plans)(const qn_gpu_subject *s, uint32_t i_variant);
    /** Partial sums, with n_rows. */
    uint64_t (*room)(const qn_gpu_subject *s, const qn_gpu_tune_candidate *c);
    /** Lay out inputs for n_rows rows. */
    qn_status (*prepare)(qn_gpu_subject *s, qn_error *err);
    void (*launch)(qn_gpu_subject *s, const qn_gpu_tune_candidate *c, uint32_t i_call);
    /** Queue the portable variant's results of all n_ref rows, into y. */
    void (*launch_ref)(qn_gpu_subject *s);
    void *own; /**< Of the operation; owned. */
};

/** Fill a subject of products, or of attention or index scores; QN_E_NOMEM, QN_E_DEVICE. */
QN_MUST_CHECK qn_status qn_gpu_subject_matmul(qn_gpu_subject *s, qn_error *err);
QN_MUST_CHECK qn_status qn_gpu_subject_attention(qn_gpu_subject *s, qn_error *err);

/** Lays a subject's memory out in s->own: where it lies in @p block. */
typedef void qn_gpu_tune_lay_out_fn(const qn_gpu_subject *s, qn_gpu_block *block);
/**
 * Make s->own, of @p own_bytes, and s->block as long as @p lay_out needs it.
 * @param what  names the block in errors
 * Returns  QN_OK; QN_E_NOMEM; QN_E_DEVICE
 */
QN_MUST_CHECK qn_status qn_gpu_tune_reserve(qn_gpu_subject *s, size_t own_bytes,
                                            qn_gpu_tune_lay_out_fn *lay_out, const char *what,
                                            qn_error *err);
/** Random bf16 in -1 .. 1: n_rows rows of n, repeated after QN_GPU_TUNE_PERIOD of them. */
QN_MUST_CHECK qn_status qn_gpu_tune_fill_rows(const qn_gpu_tuner *tuner, void *to, uint64_t n_rows,
                                              uint64_t n, qn_error *err);
/** What memory is filled with. */
typedef enum qn_gpu_tune_bytes {
    QN_GPU_TUNE_WEIGHTS, /**< No NaN as bf16, f32, or codes of any kind. */
    QN_GPU_TUNE_E8M0,    /**< Scales of MXFP4 as tiles have them, near 2^-8. */
    QN_GPU_TUNE_F32,     /**< 0.03 .. 0.06 */
    QN_GPU_TUNE_BF16,    /**< -1 .. 1 */
} qn_gpu_tune_bytes;
/** Random bytes of a kind, some megabytes of them again and again. */
QN_MUST_CHECK qn_status qn_gpu_tune_fill(const qn_gpu_tuner *tuner, void *to, uint64_t n_bytes,
                                         qn_gpu_tune_bytes kind, qn_error *err);
#endif

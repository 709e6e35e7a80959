/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file gpu_tuning.h  Tables of measured choices: which variant of an operation is fastest on a
 * device for a shape and a number of rows.  docs/tuning.md defines the files.
 *
 * Tables of known devices are part of the library.  Without one, or for a shape that it lacks, the
 * rules of gpu_ops.h choose.
 */
#ifndef QN_KERNELS_GPU_TUNING_H
#define QN_KERNELS_GPU_TUNING_H
#include "base/str.h"
#include "kernels/gpu_ops.h"

/** Operations whose variants are measured. */
typedef enum qn_gpu_tuned_op {
    QN_GPU_TUNED_MATMUL, /**< Projections, and products by head. */
    QN_GPU_TUNED_MOE,    /**< Products of experts, grouped. */
    QN_GPU_TUNED_ATTEND, /**< n_out heads; n_in elements of a cache row. */
    QN_GPU_TUNED_INDEX,  /**< n_out heads of the indexer; n_in elements of a key. */
    QN_GPU_N_TUNED_OPS,
} qn_gpu_tuned_op;

/** A shape of one operation. */
typedef struct qn_gpu_tuning_key {
    uint32_t op;   /**< qn_gpu_tuned_op */
    uint32_t kind; /**< QN_GPU_W_ of weights, QN_GPU_KV_ of cache rows. */
    uint32_t n_out, n_in, is_pair, n_groups;
} qn_gpu_tuning_key;

/** What is best for a shape up to so many rows. */
typedef struct qn_gpu_tuning_row {
    qn_gpu_tuning_key key;
    uint32_t n_rows;    /**< A power of two; of experts, slots. */
    uint32_t i_variant; /**< Place in the operation's list; UINT32_MAX: this build lacks it. */
    uint32_t n_strips;  /**< Strips side by side, 2 to 16; 0: as the variant finds best. */
    uint32_t n_splits;  /**< Parts of the inputs, 1 to 16; 0 with n_strips 0. */
    float us;           /**< Microseconds that were measured. */
    uint32_t line;      /**< Of the file. */
    char variant[32];
} qn_gpu_tuning_row;

/** Opaque: the table of one device. */
typedef struct qn_gpu_tuning qn_gpu_tuning;

/**
 * @param name  of the text in errors
 * Returns  QN_OK; QN_E_FORMAT naming line and field; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_gpu_tuning_parse(qn_gpu_tuning **out, qn_str text, const char *name,
                                            qn_error *err);
/**
 * The table of a device.
 *
 * @param[out] out  NULL where there is none
 * @param device    NULL: whichever the file says, none of a folder or of the library: to find what
 * is wrong with a file before a device is opened
 * @param path      a file, which must be of this device, or a folder of files DEVICE.csv, of which
 *                  one need not be there; NULL, or none in the folder: what the library has, by the
 *                  device's name, else by its architecture
 * Returns  as qn_gpu_tuning_parse(); QN_E_NOT_FOUND, QN_E_IO; QN_E_FORMAT for another device
 */
QN_MUST_CHECK qn_status qn_gpu_tuning_load(qn_gpu_tuning **out, const char *path,
                                           const qn_gpu_info *device, qn_error *err);
/** Accepts NULL. */
void qn_gpu_tuning_close(qn_gpu_tuning **tuning);

/** Where it came from: a path, or "built in: NVIDIA_H200.csv". */
const char *qn_gpu_tuning_name(const qn_gpu_tuning *tuning);
/** A table that says of itself that nothing was measured yet. */
bool qn_gpu_tuning_is_untuned(const qn_gpu_tuning *tuning);
/** All rows, by key, then by n_rows. */
const qn_gpu_tuning_row *qn_gpu_tuning_rows(const qn_gpu_tuning *tuning, uint32_t *n);
/**
 * The row of the fewest rows that are not below @p n_rows.  Above the last, attention and index
 * scores keep to it, as their bits may not depend on the rows, and of products there is none.  NULL
 * where there is none, or no table.
 */
const qn_gpu_tuning_row *qn_gpu_tuning_find(const qn_gpu_tuning *tuning,
                                            const qn_gpu_tuning_key *key, uint32_t n_rows);

/** "NVIDIA H200" -> "NVIDIA_H200.csv": a device's file.  @param out  room for any name of a device
 */
void qn_gpu_tuning_file(char out[96], const char *device);
/** What a choice by the row is: the variant that runs everywhere, and is made for no device, is a
 * fallback, measured or not. */
qn_gpu_source qn_gpu_tuning_source(const qn_gpu_tuning_row *row);
/** Names of operations and kinds as files have them. */
const char *qn_gpu_tuned_op_name(uint32_t op);
const char *qn_gpu_tuned_kind_name(uint32_t op, uint32_t kind);
/** The first line of a table that is no comment: the names of its fields. */
extern const char qn_gpu_tuning_head[];

qn_gpu_tuning_key qn_gpu_matmul_key(const qn_gpu_matmul_shape *shape);
qn_gpu_tuning_key qn_gpu_attend_key(const qn_gpu_attend_args *args);
qn_gpu_tuning_key qn_gpu_index_scores_key(const qn_gpu_index_scores_args *args);
#endif

/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file mill.h  Streams shards through the kernels: threads take pieces of a few MB, quantize and
 * write each to its known place, while the shard before is hashed, synced and named.
 */
#ifndef QN_QUANT_MILL_H
#define QN_QUANT_MILL_H
#include "base/pool.h"
#include "quant/kinds.h"
#include "quant/plan.h"
#include "quant/target.h"

/** What a mill works on; everything is borrowed while it is open. */
typedef struct qn_mill_options {
    const qn_plan *plan;
    const qn_kernels *kernels;
    const qn_target *target;
    qn_manifest *manifest;    /**< Finished shards are entered, and the file written. */
    qn_scale_rule scale;      /**< Of the kernels. */
    bool deletes_source;      /**< A shard of the source that nothing needs any more. */
    uint32_t n_threads;       /**< 0: one for each CPU granted. */
    qn_progress_fn *progress; /**< Bytes of the source; may be NULL. */
    void *progress_context;   /**< Given to it. */
} qn_mill_options;

/** Opaque. */
typedef struct qn_mill qn_mill;

/** Start threads and allocate every buffer.  QN_E_NOMEM. */
QN_MUST_CHECK qn_status qn_mill_open(qn_mill **out, const qn_mill_options *options, qn_error *err);
/** Stop; sets *mill to NULL; accepts NULL. */
void qn_mill_close(qn_mill **mill);

/**
 * Write every shard that the manifest does not call done.  Those it does are read, and written
 * again where they are not what it says.
 *
 * @param[out] n_resumed  shards that were done before
 * @param[out] n_bytes    of the source that were read
 * Returns  QN_OK; QN_E_FORMAT for NaN or Inf; QN_E_IO, also for a source that changed; QN_E_NOMEM;
 *          QN_E_CANCELLED.  What was finished before a failure stays finished
 */
QN_MUST_CHECK qn_status qn_mill_run(qn_mill *mill, size_t *n_resumed, uint64_t *n_bytes,
                                    qn_error *err);

/** Read and quantize about 256 MB without writing.  @p n_bytes: of the source, in @p seconds. */
QN_MUST_CHECK qn_status qn_mill_sample(qn_mill *mill, uint64_t *n_bytes, double *seconds,
                                       qn_error *err);
#endif

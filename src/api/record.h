/* SPDX-License-Identifier: Apache-2.0 */
/** @file record.h  Writes what a session computes to the files its options name. */
#ifndef QN_API_RECORD_H
#define QN_API_RECORD_H
#include "model/glm.h"

/** Opaque.  A step of the model is recorded between begin_step and end_step. */
typedef struct qn_recorder qn_recorder;

/**
 * Begin the files; they get their names when finished.
 *
 * @param config       borrowed while the recorder is open
 * @param logits_path  `logits` and `ids` of every position; NULL: no such file
 * @param trace_path   `layer.N.output`, `.experts`, `.index_set` of prompts; NULL: no such file
 * Returns  QN_OK; QN_E_INVAL where both are one file; QN_E_IO naming the file; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_recorder_open(qn_recorder **out, const qn_config *config,
                                         const char *logits_path, const char *trace_path,
                                         qn_error *err);

/** Release; files that were not finished vanish.  Accepts NULL; sets *recorder to NULL. */
void qn_recorder_close(qn_recorder **recorder);

/**
 * The probe that a step of @p n_rows prompt positions must run with.  NULL where no trace is
 * wanted; else borrowed until close.
 */
const qn_probe *qn_recorder_begin_step(qn_recorder *recorder, uint32_t n_rows);

/**
 * Write what a step computed.
 *
 * @param ids     [n_rows] of the step
 * @param logits  [n_rows][n_vocab]; not used, and may be NULL, without a logits file
 * Returns  QN_OK; QN_E_IO, QN_E_NOMEM: then, and from then on, the files are given up
 */
QN_MUST_CHECK qn_status qn_recorder_end_step(qn_recorder *recorder, uint32_t n_rows,
                                             const int32_t *ids, const float *logits,
                                             qn_error *err);

/** Is a file of logits being written, neither finished nor given up? */
bool qn_recorder_wants_logits(const qn_recorder *recorder);

/** A step of the model failed with @p status.  Where it had begun and not ended both files are
 * given up, as the trace has a part of it. */
void qn_recorder_fail_step(qn_recorder *recorder, qn_status status);

/** Rows that a file of logits has to have were computed, or will not be, and do not come because of
 * @p status: the files are given up.  Without such a file as qn_recorder_fail_step(). */
void qn_recorder_miss_rows(qn_recorder *recorder, qn_status status);

/** Complete the files and give them their names; what comes later is not recorded. */
QN_MUST_CHECK qn_status qn_recorder_finish(qn_recorder *recorder, qn_error *err);
#endif

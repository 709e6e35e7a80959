/* SPDX-License-Identifier: Apache-2.0 */
/** @file doctor.h  What the parts of an inspection share. */
#ifndef QN_INSPECT_DOCTOR_H
#define QN_INSPECT_DOCTOR_H
#include "inspect/engines.h"
#include "inspect/inspect.h"
#include "inspect/tensors.h"

/** One inspection.  All-zero is closed. */
typedef struct qn_doctor {
    const qn_inspect_request *request; /**< Borrowed. */
    qn_problems problems;
    qn_inventory inventory;
    qn_modules modules;
    qn_foreign foreign;
    qn_buf config_text;     /**< Of config.json; empty: it could not be read. */
    qn_json_doc config_doc; /**< Its nodes; none: it is no JSON object. */
    qn_config config;       /**< All zero unless ... */
    bool has_config;        /**< ... it could be read, and contradicts nothing. */
    bool has_tokenizer;     /**< tokenizer.json could be read. */
    uint32_t n_tokens;      /**< Ids that it spans. */
    int32_t mtp_layer; /**< num_hidden_layers, also of a config that is refused; -1: unknown. */
    qn_declared declared;
    qn_name_changes changes;
    qn_tensor_facts facts;   /**< With has_config. */
    uint64_t verified_bytes; /**< Read by qn_doctor_verify(). */
    char *fixed_path;        /**< Owned: of the config.json that was written; NULL: none. */
} qn_doctor;

/** Read config.json and generation_config.json.  QN_OK; QN_E_NOMEM */
QN_MUST_CHECK qn_status qn_doctor_read_config(qn_doctor *doctor, qn_error *err);
/** Read tokenizer.json.  QN_OK; QN_E_NOMEM */
QN_MUST_CHECK qn_status qn_doctor_read_tokenizer(qn_doctor *doctor, qn_error *err);
/** Read every byte of every tensor.  QN_OK; QN_E_CANCELLED; QN_E_NOMEM; QN_E_IO, or what
 * qn_file_open() returns, of a file that is not any more as its header was read. */
QN_MUST_CHECK qn_status qn_doctor_verify(qn_doctor *doctor, qn_pool *pool, qn_error *err);
/**
 * Write config.fixed.json with the changed list of modules, where there is something to change.
 *
 * Returns  QN_OK; QN_E_IO where it cannot be written, or another file has that name; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_doctor_fix(qn_doctor *doctor, qn_error *err);
/** The report as JSON, owned by the caller (free).  QN_OK; QN_E_NOMEM */
QN_MUST_CHECK qn_status qn_doctor_report(char **report, const qn_doctor *doctor, qn_error *err);
#endif

/* SPDX-License-Identifier: Apache-2.0 */
/** @file declared.h  What quantization_config says of the weights. */
#ifndef QN_INSPECT_DECLARED_H
#define QN_INSPECT_DECLARED_H
#include "base/json_doc.h"
#include "inspect/layer_formats.h"
#include "inspect/problems.h"

/** A quantization_config.  All-zero: there is none. */
typedef struct qn_declared {
    const qn_json_node *root;     /**< Borrowed from the document; NULL: none. */
    char method[48];              /**< quant_method; "" where it is no string. */
    const char *list_key;         /**< "exclude", "modules_to_not_convert" or "ignore". */
    const qn_json_node *list;     /**< Of that key; NULL: none, or no list. */
    qn_exclude exclude;           /**< Its entries, sealed. */
    qn_storage storage;           /**< What every module gets that nothing else is said of. */
    qn_layer_formats layers;      /**< layer_quant_config. */
    bool is_quark, is_fp8;        /**< Which quant_method it is. */
    bool takes_mxfp4_activations; /**< As SGLang demands of MXFP4. */
} qn_declared;

/**
 * Read it out of a config.json.  What is wrong with lists of modules goes into @p problems.
 *
 * @param config  root of the document, borrowed until close; NULL: none
 * Returns  QN_OK; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_declared_open(qn_declared *out, const qn_json_node *config,
                                         qn_problems *problems, qn_error *err);
void qn_declared_close(qn_declared *declared);

/** What a module is declared to be whose names, as others know it, are @p names; the first counts
 * as the checkpoint's. */
qn_storage qn_declared_for(const qn_declared *declared, bool is_excluded, const qn_str *names,
                           size_t n_names, bool by_substring);

/** Set is_covered and declared of every linear module, by its name in the checkpoint. */
void qn_declared_mark(const qn_declared *declared, qn_modules *modules);

/** Report which key of global_quant_config.weight makes it no format of ours, where storage is
 * QN_STORAGE_OTHER. */
void qn_declared_report_format(const qn_declared *declared, bool has_mxfp4, qn_problems *problems);

/** Report what SGLang's reader of a Quark config does not take. */
void qn_declared_check_sglang(const qn_declared *declared, qn_problems *problems);
#endif

/* SPDX-License-Identifier: Apache-2.0 */
/** @file quark_config.h  The config.json and the index that go with the output. */
#ifndef QN_QUANT_QUARK_CONFIG_H
#define QN_QUANT_QUARK_CONFIG_H
#include "quant/plan.h"

/** A module's name. */
typedef struct qn_module_name {
    char *text;    /**< Owned. */
    bool is_alias; /**< No module of the files: a name that an engine asks for at run time. */
} qn_module_name;

/** Several.  All-zero is empty. */
typedef struct qn_module_names {
    qn_module_name *names; /**< [n_names] in order, each once; owned. */
    size_t n_names;        /**< Aliases included. */
    size_t capacity;       /**< Of names. */
} qn_module_names;

/** Modules that are not MXFP4.  All-zero is closed. */
typedef struct qn_exclusions {
    qn_module_names excluded; /**< quantization_config.exclude */
    qn_module_names fp8;      /**< layer_quant_config; empty, but with QN_FP8_KEEP. */
} qn_exclusions;

/**
 * Name every Linear of the output that is not MXFP4, as AMD Quark does, and the aliases that
 * docs/quantize.md justifies.  Warns of matrices that engines load as one where some of them are
 * MXFP4 and some are not.
 * @param n_layers  of the trunk: the number of the MTP layer
 */
QN_MUST_CHECK qn_status qn_exclusions_open(qn_exclusions *out, const qn_plan *plan,
                                           uint32_t n_layers, qn_error *err);
/** Free it; closing twice is fine. */
void qn_exclusions_close(qn_exclusions *exclusions);

/** What the new quantization_config says beside the names. */
typedef struct qn_quark_settings {
    bool has_activations; /**< Activations are MXFP4 at run time. */
    qn_scale_rule scale;  /**< Of the weights. */
} qn_quark_settings;

/**
 * Append the source's config.json with the new quantization_config last, for any that it has
 * had, at whatever depth, as AMD Quark does: keys in their order, numbers as
 * they were written, four blanks a level.
 *
 * @param source  text of the source's
 * @param what    names it in errors
 * Returns  QN_OK; QN_E_FORMAT; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_quark_config_append(qn_buf *out, qn_str source, const char *what,
                                               const qn_exclusions *exclusions,
                                               const qn_quark_settings *settings, qn_error *err);

/** Append model.safetensors.index.json of the output.  QN_E_NOMEM. */
QN_MUST_CHECK qn_status qn_quark_index_append(qn_buf *out, const qn_plan *plan, qn_error *err);

/**
 * Read num_hidden_layers of the source's config.json, and refuse a source that is quantized, unless
 * to FP8.  QN_E_FORMAT; QN_E_NOMEM.
 */
QN_MUST_CHECK qn_status qn_quark_read_layers(uint32_t *n_layers, qn_str source, const char *what,
                                             qn_error *err);
#endif

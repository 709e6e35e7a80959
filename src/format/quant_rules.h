/* SPDX-License-Identifier: Apache-2.0 */
/** @file quant_rules.h  How quantization_config says that a model's matrices are stored: for who
 * has no tensors to read it from. */
#ifndef QN_FORMAT_QUANT_RULES_H
#define QN_FORMAT_QUANT_RULES_H
#include "quern/status.h"

#include "base/str.h"

#include <jansson.h>
#include <stdbool.h>

/** Storage of a matrix. */
typedef enum qn_quant_as {
    QN_QUANT_AS_PLAIN,       /**< bf16 */
    QN_QUANT_AS_FP8_BLOCK,   /**< e4m3, a scale for 128 x 128. */
    QN_QUANT_AS_FP8_CHANNEL, /**< e4m3, a scale for each row. */
    QN_QUANT_AS_MXFP4,       /**< e2m1, a scale for 32 of a row. */
} qn_quant_as;

/** Rules of one config.json.  All-zero is open: everything is plain. */
typedef struct qn_quant_rules {
    qn_quant_as others; /**< What no name below decides. */
    json_t *excluded;   /**< Object of names and globs that stay plain; owned, as the next. */
    json_t *layers;     /**< Object of names and globs, to a qn_quant_as. */
    bool has_globs;     /**< Among either. */
    bool is_fp8;        /**< Of the official FP8 checkpoints, which keep more than they list. */
} qn_quant_rules;

/**
 * Read them: of AMD Quark (its exclude and layer_quant_config) and of the official FP8 checkpoints
 * (modules_to_not_convert).  A config.json without quantization_config has none.
 *
 * Returns  QN_OK; QN_E_FORMAT "PATH: key: seen, expected" for another quant_method, a format that
 *          no kernel takes, or an entry that is a regular expression ("re:"); QN_E_NOT_FOUND;
 *          QN_E_NOMEM.  *out is closed on failure
 */
QN_MUST_CHECK qn_status qn_quant_rules_load(qn_quant_rules *out, const char *path, qn_error *err);
/** The same of text in memory; @p what names it in errors. */
QN_MUST_CHECK qn_status qn_quant_rules_parse(qn_quant_rules *out, qn_str text, const char *what,
                                             qn_error *err);
/** Free what is owned; closing twice is fine. */
void qn_quant_rules_close(qn_quant_rules *rules);

/**
 * How the weight of a module ("model.layers.3.mlp.gate") is stored: an entry that names it or what
 * it is part of ("model.layers.3.mlp") goes before a glob, exclusions before layers.
 */
qn_quant_as qn_quant_rules_find(const qn_quant_rules *rules, qn_str module);
#endif

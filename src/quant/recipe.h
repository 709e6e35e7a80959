/* SPDX-License-Identifier: Apache-2.0 */
/** @file recipe.h  Which matrices become MXFP4: rules of a name pattern and a format each. */
#ifndef QN_QUANT_RECIPE_H
#define QN_QUANT_RECIPE_H
#include "quern/status.h"

#include "base/str.h"

#include <jansson.h>

enum {
    QN_RECIPE_BYTES_MAX = 1 << 20, /**< Of a recipe file. */
    QN_RECIPE_RULES_MAX = 1000,    /**< In it. */
    QN_RECIPE_GLOB_MAX = 256,      /**< Bytes of a pattern. */
};

/** What a rule says of the modules that it decides. */
typedef enum qn_rule_format {
    QN_RULE_KEEP,  /**< "keep" */
    QN_RULE_MXFP4, /**< "mxfp4" */
} qn_rule_format;

/** One rule. */
typedef struct qn_recipe_rule {
    char *glob; /**< Owned.  Of fnmatch(): `*` matches dots too, case counts. */
    qn_rule_format format;
    size_t n_decided; /**< Modules that this was the first rule to match. */
} qn_recipe_rule;

/** A recipe.  All-zero is closed. */
typedef struct qn_recipe {
    const char *name;      /**< "experts" ..., or the path of a file; borrowed. */
    qn_recipe_rule *rules; /**< [n_rules] owned; the first that matches decides. */
    size_t n_rules;        /**< At least 1 while open. */
    uint32_t n_layers;     /**< Of the trunk: what has a higher number is the MTP layer. */
    bool takes_mtp;        /**< Rules decide on the MTP layer too; otherwise it is kept. */
    bool is_file;          /**< Each rule has to decide on something. */
} qn_recipe;

/**
 * Open the recipe @p name (borrowed while it is open): "experts", "routed", "mlp" or a JSON file.
 *
 * Returns  QN_OK; QN_E_INVAL for what is neither; QN_E_FORMAT that names the rule; QN_E_IO;
 *          QN_E_NOMEM; *out is closed on failure
 */
QN_MUST_CHECK qn_status qn_recipe_open(qn_recipe *out, const char *name, uint32_t n_layers,
                                       bool takes_mtp, qn_error *err);
/** The same from the text of a file. */
QN_MUST_CHECK qn_status qn_recipe_parse(qn_recipe *out, qn_str text, const char *name,
                                        qn_error *err);
/** Free the rules; closing twice is fine. */
void qn_recipe_close(qn_recipe *recipe);

/**
 * Is a tensor of this name and rank the weight of what AMD Quark takes for a Linear when it reads
 * files?  "MODULE.weight" of rank 2 or more, where MODULE does not end in "norm" and nowhere has
 * "embed".
 * @param[out] module  what stands before ".weight"; set where the answer is yes
 */
bool qn_recipe_is_linear(qn_str *module, qn_str name, uint32_t rank);

/** What becomes of a Linear; counts the rule's decision.  @p layer: -1 for none. */
qn_rule_format qn_recipe_decide(qn_recipe *recipe, qn_str module, int32_t layer);

/**
 * After every module was decided: a recipe that takes nothing, or a rule of a file that decided
 * nothing, is a mistake.  QN_E_FORMAT names it.
 */
QN_MUST_CHECK qn_status qn_recipe_check(const qn_recipe *recipe, qn_error *err);

/** [[glob, format], ...]: what a recipe is, however it is called.  NULL without memory. */
json_t *qn_recipe_json(const qn_recipe *recipe);
#endif

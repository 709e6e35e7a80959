/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a recipe file: what is accepted decides on names, within its limits. */
#include "base/assert.h"
#include "quant/recipe.h"

/* libFuzzer sets the name. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes); /* NOLINT */

static void check(qn_recipe *recipe)
{
    static const char *const modules[] = {"lm_head", "model.layers.3.mlp.experts.17.down_proj", "",
                                          "model.layers.3.self_attn.indexer.weights_proj"};
    qn_error err = {0};
    size_t n_decided = 0;
    QN_ASSERT(recipe->n_rules > 0 && recipe->n_rules <= QN_RECIPE_RULES_MAX);
    for (size_t i = 0; i < sizeof modules / sizeof *modules; i++) {
        (void)qn_recipe_decide(recipe, qn_str_of(modules[i]), 3);
    }
    for (size_t i = 0; i < recipe->n_rules; i++) {
        QN_ASSERT(strlen(recipe->rules[i].glob) <= QN_RECIPE_GLOB_MAX);
        n_decided += recipe->rules[i].n_decided;
    }
    QN_ASSERT(n_decided <= sizeof modules / sizeof *modules);
    QN_ASSERT(qn_recipe_check(recipe, &err) == QN_OK || err.text[0] != '\0');
    json_t *const rules = qn_recipe_json(recipe);
    QN_ASSERT(json_array_size(rules) == recipe->n_rules);
    json_decref(rules);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) /* NOLINT */
{
    char *const exact = malloc(n_bytes > 0 ? n_bytes : 1); /* so that an overread shows */
    QN_ASSERT(exact != NULL);
    if (n_bytes > 0) {
        memcpy(exact, data, n_bytes);
    }
    qn_recipe recipe;
    qn_error err = {0};
    if (qn_recipe_parse(&recipe, (qn_str){exact, n_bytes}, "input", &err) == QN_OK) {
        recipe.takes_mtp = true;
        check(&recipe);
        qn_recipe_close(&recipe);
    } else {
        QN_ASSERT(recipe.rules == NULL && err.text[0] != '\0');
    }
    free(exact);
    return 0;
}

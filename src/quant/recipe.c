/* SPDX-License-Identifier: Apache-2.0 */
#include "quant/recipe.h"

#include "base/file.h"
#include "base/json_doc.h"
#include "base/try.h"
#include "format/tensor_name.h"

#include <errno.h>
#include <fnmatch.h>

static const char *const format_names[] = {[QN_RULE_KEEP] = "keep", [QN_RULE_MXFP4] = "mxfp4"};

typedef struct builtin_rule {
    const char *glob;
    qn_rule_format format;
} builtin_rule;

/* The exclusions of amd/GLM-5.2-MXFP4, whose "*layers.78.*" is takes_mtp here. */
static const builtin_rule experts[] = {
    {"*self_attn*", QN_RULE_KEEP},  {"*mlp.gate", QN_RULE_KEEP},
    {"*lm_head", QN_RULE_KEEP},     {"*mlp.gate_proj", QN_RULE_KEEP},
    {"*mlp.up_proj", QN_RULE_KEEP}, {"*mlp.down_proj", QN_RULE_KEEP},
    {"*", QN_RULE_MXFP4},
};

static const builtin_rule routed[] = {
    {"*mlp.experts.*", QN_RULE_MXFP4}, {"*eh_proj", QN_RULE_MXFP4}, /* of the MTP layer alone */
};

static const builtin_rule mlp[] = {
    {"*mlp.experts.*", QN_RULE_MXFP4}, {"*mlp.shared_experts.*", QN_RULE_MXFP4},
    {"*mlp.gate_proj", QN_RULE_MXFP4}, {"*mlp.up_proj", QN_RULE_MXFP4},
    {"*mlp.down_proj", QN_RULE_MXFP4}, {"*eh_proj", QN_RULE_MXFP4},
};

static const struct {
    const char *name;
    const builtin_rule *rules;
    size_t n_rules;
} builtins[] = {
    {"experts", experts, sizeof experts / sizeof *experts},
    {"routed", routed, sizeof routed / sizeof *routed},
    {"mlp", mlp, sizeof mlp / sizeof *mlp},
};

static qn_status no_memory(const char *name, qn_error *err)
{
    return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "recipe %.200s: no memory", name);
}

/* One rule more; there is room for it. */
static qn_status add_rule(qn_recipe *recipe, qn_str glob, qn_rule_format format, qn_error *err)
{
    qn_recipe_rule *const rule = &recipe->rules[recipe->n_rules];
    rule->glob = strndup(glob.ptr, glob.len);
    rule->format = format;
    recipe->n_rules++;
    return rule->glob != NULL ? QN_OK : no_memory(recipe->name, err);
}

static qn_status make_room(qn_recipe *recipe, size_t n_rules, qn_error *err)
{
    recipe->rules = calloc(n_rules, sizeof *recipe->rules);
    return recipe->rules != NULL ? QN_OK : no_memory(recipe->name, err);
}

/* A member of the file's object: "glob": "format". */
static qn_status read_rule(qn_recipe *recipe, const qn_json_node *key, qn_buf *glob, qn_error *err)
{
    char seen[80];
    qn_status status = QN_OK;
    qn_buf_clear(glob);
    QN_TRY(status, qn_json_string_append(glob, key, err), fail);
    if (glob->len == 0 || glob->len > QN_RECIPE_GLOB_MAX) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__,
                       "%.200s: a pattern of %zu bytes, 1 to %d expected", recipe->name, glob->len,
                       QN_RECIPE_GLOB_MAX);
    }
    for (size_t i = 0; i < sizeof format_names / sizeof *format_names; i++) {
        if (qn_json_string_is(key + 1, qn_str_of(format_names[i]))) {
            return add_rule(recipe, qn_buf_view(glob), (qn_rule_format)i, err);
        }
    }
    qn_json_node_show(seen, sizeof seen, key + 1);
    return qn_fail(err, QN_E_FORMAT, 0, __func__, "%.200s: %s: %s, \"mxfp4\" or \"keep\" expected",
                   recipe->name, glob->ptr, seen);
fail:
    return status;
}

static qn_status read_rules(qn_recipe *recipe, const qn_json_doc *doc, qn_error *err)
{
    const qn_json_node *const root = doc->nodes;
    qn_status status = QN_OK;
    qn_buf glob;
    char seen[80];
    qn_buf_init(&glob, QN_RECIPE_BYTES_MAX);
    if (root->kind != QN_JSON_OBJECT || root->n_children == 0 ||
        root->n_children > QN_RECIPE_RULES_MAX) {
        qn_json_node_show(seen, sizeof seen, root);
        return qn_fail(err, QN_E_FORMAT, 0, __func__,
                       "%.200s: %s of %u, an object of 1 to %d members \"pattern\": \"mxfp4\" or "
                       "\"keep\" expected",
                       recipe->name, seen, root->n_children, QN_RECIPE_RULES_MAX);
    }
    QN_TRY(status, make_room(recipe, root->n_children, err), fail);
    const qn_json_node *key = root + 1;
    for (uint32_t i = 0; i < root->n_children; i++) {
        QN_TRY(status, read_rule(recipe, key, &glob, err), fail);
        key = qn_json_after(key + 1);
    }
fail:
    qn_buf_deinit(&glob);
    return status;
}

qn_status qn_recipe_parse(qn_recipe *out, qn_str text, const char *name, qn_error *err)
{
    qn_json_doc doc = {0};
    *out = (qn_recipe){.name = name, .is_file = true};
    qn_status status = qn_json_doc_open(&doc, text, name, err);
    if (status == QN_OK) {
        status = read_rules(out, &doc, err);
    }
    qn_json_doc_close(&doc);
    if (status < 0) {
        qn_recipe_close(out);
    }
    return status;
}

static qn_status open_file(qn_recipe *out, const char *name, qn_error *err)
{
    qn_buf text;
    qn_buf_init(&text, QN_RECIPE_BYTES_MAX);
    qn_status status = qn_file_read(&text, name, err);
    if (status == QN_E_NOT_FOUND) {
        status = qn_fail(err, QN_E_INVAL, 0, __func__,
                         "recipe: \"%.200s\", experts, routed, mlp or a JSON file expected", name);
    } else if (status == QN_OK) {
        status = qn_recipe_parse(out, qn_buf_view(&text), name, err);
    }
    qn_buf_deinit(&text);
    return status;
}

static qn_status open_builtin(qn_recipe *out, size_t i_builtin, qn_error *err)
{
    qn_status status = QN_OK;
    QN_TRY(status, make_room(out, builtins[i_builtin].n_rules, err), fail);
    for (size_t i = 0; i < builtins[i_builtin].n_rules; i++) {
        const builtin_rule *const rule = &builtins[i_builtin].rules[i];
        QN_TRY(status, add_rule(out, qn_str_of(rule->glob), rule->format, err), fail);
    }
    return QN_OK;

fail:
    qn_recipe_close(out);
    return status;
}

qn_status qn_recipe_open(qn_recipe *out, const char *name, uint32_t n_layers, bool takes_mtp,
                         qn_error *err)
{
    const size_t n_builtins = sizeof builtins / sizeof *builtins;
    size_t i = 0;
    *out = (qn_recipe){.name = name};
    while (i < n_builtins && strcmp(name, builtins[i].name) != 0) {
        i++;
    }
    const qn_status status = i < n_builtins ? open_builtin(out, i, err) : open_file(out, name, err);
    out->n_layers = n_layers;
    out->takes_mtp = takes_mtp;
    return status;
}

void qn_recipe_close(qn_recipe *recipe)
{
    for (size_t i = 0; i < recipe->n_rules; i++) {
        free(recipe->rules[i].glob);
    }
    free(recipe->rules);
    *recipe = (qn_recipe){0};
}

bool qn_recipe_is_linear(qn_str *module, qn_str name, uint32_t rank)
{
    if (!qn_tensor_name_is_linear(name, rank)) {
        return false;
    }
    *module = (qn_str){name.ptr, name.len - strlen(".weight")};
    return true;
}

/* Patterns are bytes, as names are; a module's name is short or it is none of this family. */
static bool matches(const char *glob, qn_str module)
{
    char name[512];
    if (module.len >= sizeof name) {
        return false;
    }
    memcpy(name, module.ptr, module.len);
    name[module.len] = '\0';
    return fnmatch(glob, name, FNM_NOESCAPE) == 0;
}

qn_rule_format qn_recipe_decide(qn_recipe *recipe, qn_str module, int32_t layer)
{
    if (!recipe->takes_mtp && layer >= 0 && (uint32_t)layer >= recipe->n_layers) {
        return QN_RULE_KEEP;
    }
    for (size_t i = 0; i < recipe->n_rules; i++) {
        if (matches(recipe->rules[i].glob, module)) {
            recipe->rules[i].n_decided++;
            return recipe->rules[i].format;
        }
    }
    return QN_RULE_KEEP;
}

qn_status qn_recipe_check(const qn_recipe *recipe, qn_error *err)
{
    size_t n_taken = 0;
    for (size_t i = 0; i < recipe->n_rules; i++) {
        const qn_recipe_rule *const rule = &recipe->rules[i];
        if (recipe->is_file && rule->n_decided == 0) {
            return qn_fail(err, QN_E_FORMAT, 0, __func__,
                           "%.200s: %s: decides on no module%s, one at least expected",
                           recipe->name, rule->glob,
                           recipe->takes_mtp ? "" : " outside the MTP layer");
        }
        n_taken += rule->format == QN_RULE_MXFP4 ? rule->n_decided : 0;
    }
    if (n_taken == 0) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__,
                       "recipe %.200s: takes no matrix of this model, one at least expected",
                       recipe->name);
    }
    return QN_OK;
}

json_t *qn_recipe_json(const qn_recipe *recipe)
{
    json_t *const rules = json_array();
    bool is_whole = rules != NULL;
    for (size_t i = 0; i < recipe->n_rules; i++) {
        const qn_recipe_rule *const rule = &recipe->rules[i];
        json_t *const pair = json_pack("[ss]", rule->glob, format_names[rule->format]);
        is_whole = json_array_append_new(rules, pair) == 0 && is_whole;
    }
    if (!is_whole) {
        json_decref(rules);
        return NULL;
    }
    return rules;
}

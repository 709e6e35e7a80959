/* SPDX-License-Identifier: Apache-2.0 */
#include "inspect/declared.h"

#include "base/try.h"

static bool is_text(const qn_json_node *node, const char *text)
{
    return qn_json_string_is(node, qn_str_of(text));
}

static bool is_kind(const qn_json_node *node, qn_json_kind kind)
{
    return node != NULL && node->kind == kind;
}

static bool is_absent(const qn_json_node *node)
{
    return node == NULL || node->kind == QN_JSON_NULL;
}

/* Groups of 32 elements with a power of two for a scale? */
static bool is_mx(const qn_json_node *spec)
{
    const qn_json_node *const size = qn_json_member(spec, "group_size");
    return is_text(qn_json_member(spec, "qscheme"), "per_group") &&
           is_text(qn_json_member(spec, "scale_format"), "e8m0") && is_kind(size, QN_JSON_NUMBER) &&
           qn_str_equal(size->text, qn_str_of("32"));
}

/* What one "weight" of Quark's says. */
static qn_storage storage_of(const qn_json_node *spec)
{
    const qn_json_node *const dtype = qn_json_member(spec, "dtype");
    if (is_absent(spec)) {
        return QN_STORAGE_PLAIN;
    }
    if (is_text(dtype, "fp4") && is_mx(spec)) {
        return QN_STORAGE_MXFP4;
    }
    return is_text(dtype, "fp8_e4m3") && !is_mx(spec) ? QN_STORAGE_FP8 : QN_STORAGE_OTHER;
}

static void report_ignored(qn_problems *problems, const char *key, size_t n_ignored)
{
    qn_problems_add(problems, QN_PROBLEM_EXCLUDE_BROKEN, (qn_str){0}, "config.json",
                    "quantization_config.%s: %zu patterns more than the %d that are looked at, "
                    "names of modules expected",
                    key, n_ignored, QN_EXCLUDE_PATTERNS_MAX);
}

/* Strings of the list into declared->exclude. */
static qn_status read_list(qn_declared *declared, qn_problems *problems, qn_error *err)
{
    qn_status status = QN_OK;
    qn_buf text;
    qn_buf_init(&text, declared->list->text.len);
    const qn_json_node *item = declared->list + 1;
    for (uint32_t i = 0; i < declared->list->n_children; i++, item = qn_json_after(item)) {
        if (item->kind != QN_JSON_STRING) {
            char seen[64];
            qn_json_node_show(seen, sizeof seen, item);
            qn_problems_add(problems, QN_PROBLEM_EXCLUDE_BROKEN, (qn_str){0}, "config.json",
                            "quantization_config.%s[%u]: %s, a string expected", declared->list_key,
                            i, seen);
            continue;
        }
        qn_buf_clear(&text);
        QN_TRY(status, qn_buf_append(&text, "", 0, err), fail); /* bytes, also of an empty one */
        QN_TRY(status, qn_json_string_append(&text, item, err), fail);
        status = qn_exclude_add(&declared->exclude, qn_buf_view(&text), err);
        if (status == QN_E_FORMAT) {
            qn_problems_add(problems, QN_PROBLEM_EXCLUDE_BROKEN, (qn_str){0}, "config.json",
                            "quantization_config.%s[%u]: %s", declared->list_key, i, err->text);
            status = QN_OK;
        }
        QN_TRY(status, status, fail);
    }
    if (declared->exclude.n_ignored > 0) {
        report_ignored(problems, declared->list_key, declared->exclude.n_ignored);
    }
    qn_exclude_seal(&declared->exclude);
fail:
    qn_buf_deinit(&text);
    return status;
}

/* quant_method, and the key that the list of modules stands under with it. */
static void read_method(qn_declared *declared)
{
    const qn_json_node *const method = qn_json_member(declared->root, "quant_method");
    if (is_kind(method, QN_JSON_STRING)) {
        const size_t len = method->text.len - 2;
        (void)snprintf(declared->method, sizeof declared->method, "%.*s", len < 40 ? (int)len : 40,
                       method->text.ptr + 1);
        qn_text_clean(declared->method);
    }
    declared->is_quark = is_text(method, "quark");
    declared->is_fp8 = is_text(method, "fp8");
    declared->list_key = declared->is_quark ? "exclude"
                         : declared->is_fp8 ? "modules_to_not_convert"
                                            : "ignore";
}

/* What Quark says of all modules and of some. */
static qn_status read_quark(qn_declared *declared, qn_problems *problems, qn_error *err)
{
    const qn_json_node *const global = qn_json_member(declared->root, "global_quant_config");
    const qn_json_node *const inputs = qn_json_member(global, "input_tensors");
    const qn_json_node *const layers = qn_json_member(declared->root, "layer_quant_config");
    declared->storage = storage_of(qn_json_member(global, "weight"));
    declared->takes_mxfp4_activations =
        storage_of(inputs) == QN_STORAGE_MXFP4 &&
        !is_kind(qn_json_member(inputs, "is_dynamic"), QN_JSON_FALSE);
    if (!is_kind(layers, QN_JSON_OBJECT)) {
        return QN_OK; /* qn_declared_check_sglang() says it */
    }
    const qn_status status = qn_layer_formats_open(&declared->layers, layers, storage_of, err);
    if (declared->layers.n_ignored > 0) {
        report_ignored(problems, "layer_quant_config", declared->layers.n_ignored);
    }
    return status;
}

qn_status qn_declared_open(qn_declared *out, const qn_json_node *config, qn_problems *problems,
                           qn_error *err)
{
    *out = (qn_declared){.storage = QN_STORAGE_PLAIN};
    const qn_json_node *const root = qn_json_member(config, "quantization_config");
    if (!is_kind(root, QN_JSON_OBJECT)) {
        return QN_OK; /* qn_config_parse() has said it, where it is neither absent nor null */
    }
    out->root = root;
    read_method(out);
    if (out->is_quark) {
        const qn_status status = read_quark(out, problems, err);
        if (status < 0) {
            return status;
        }
    } else {
        out->storage = out->is_fp8 ? QN_STORAGE_FP8 : QN_STORAGE_OTHER;
    }
    const qn_json_node *const list = qn_json_member(root, out->list_key);
    if (is_kind(list, QN_JSON_ARRAY)) {
        out->list = list;
        return read_list(out, problems, err);
    }
    if (!is_absent(list)) {
        char seen[64];
        qn_json_node_show(seen, sizeof seen, list);
        qn_problems_add(problems, QN_PROBLEM_EXCLUDE_BROKEN, (qn_str){0}, "config.json",
                        "quantization_config.%s: %s, a list expected", out->list_key, seen);
    }
    return QN_OK;
}

void qn_declared_close(qn_declared *declared)
{
    qn_exclude_deinit(&declared->exclude);
    qn_layer_formats_close(&declared->layers);
    *declared = (qn_declared){0};
}

qn_storage qn_declared_for(const qn_declared *declared, bool is_excluded, const qn_str *names,
                           size_t n_names, bool by_substring)
{
    const qn_storage said =
        is_excluded ? QN_STORAGE_PLAIN
                    : qn_layer_formats_find(&declared->layers, names, n_names, by_substring);
    return said == QN_STORAGE_NONE ? declared->storage : said;
}

void qn_declared_mark(const qn_declared *declared, qn_modules *modules)
{
    for (size_t i = 0; i < modules->n_items; i++) {
        qn_module *const module = &modules->items[i];
        if (module->is_linear) {
            module->is_covered = qn_exclude_covers(&declared->exclude, module->name);
            module->declared =
                qn_declared_for(declared, module->is_covered, &module->name, 1, false);
        }
    }
}

void qn_declared_report_format(const qn_declared *declared, bool has_mxfp4, qn_problems *problems)
{
    static const struct {
        const char *key, *mxfp4, *fp8;
    } keys[] = {
        {"dtype", "\"fp4\"", "\"fp8_e4m3\""},
        {"qscheme", "\"per_group\"", "\"per_block\""},
        {"group_size", "32", "null"},
        {"scale_format", "\"e8m0\"", "null"},
    };
    enum { N_KEYS = sizeof keys / sizeof *keys };
    const qn_json_node *const global = qn_json_member(declared->root, "global_quant_config");
    const qn_json_node *const spec = qn_json_member(global, "weight");
    for (size_t i = 0; i < N_KEYS; i++) {
        const qn_json_node *const value = qn_json_member(spec, keys[i].key);
        const char *const expected = has_mxfp4 ? keys[i].mxfp4 : keys[i].fp8;
        char seen[64];
        if (value != NULL && qn_str_equal(value->text, qn_str_of(expected))) {
            continue;
        }
        qn_json_node_show(seen, sizeof seen, value);
        qn_problems_add(problems, QN_PROBLEM_QUANT_DIFFERS, (qn_str){0}, "config.json",
                        "quantization_config.global_quant_config.weight.%s: %s, %s expected, as "
                        "tensors are stored as %s",
                        keys[i].key, seen, expected, has_mxfp4 ? "MXFP4" : "FP8");
        return;
    }
}

/* What makes SGLang take no layer for MXFP4. */
static void check_sglang_spec(const qn_declared *declared, qn_problems *problems)
{
    const qn_json_node *const global = qn_json_member(declared->root, "global_quant_config");
    const qn_json_node *const is_dynamic =
        qn_json_member(qn_json_member(global, "weight"), "is_dynamic");
    const struct {
        const char *key;
        const qn_json_node *value;
        bool is_right;
        const char *expected;
    } specs[] = {
        {"weight.is_dynamic", is_dynamic,
         is_absent(is_dynamic) || is_kind(is_dynamic, QN_JSON_FALSE), "false"},
        {"output_tensors", qn_json_member(global, "output_tensors"),
         is_absent(qn_json_member(global, "output_tensors")), "null"},
        {"bias", qn_json_member(global, "bias"), is_absent(qn_json_member(global, "bias")), "null"},
    };
    char seen[64];
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        if (!specs[i].is_right) {
            qn_json_node_show(seen, sizeof seen, specs[i].value);
            qn_problems_add(problems, QN_PROBLEM_SGLANG_KEYS, (qn_str){0}, "config.json",
                            "quantization_config.global_quant_config.%s: %s, %s expected: SGLang "
                            "does not take the layers for MXFP4",
                            specs[i].key, seen, specs[i].expected);
        }
    }
}

void qn_declared_check_sglang(const qn_declared *declared, qn_problems *problems)
{
    static const struct {
        const char *key;
        qn_json_kind kind;
        const char *expected;
    } keys[] = {
        {"export", QN_JSON_OBJECT, "an object"},
        {"exclude", QN_JSON_ARRAY, "a list"},
        {"global_quant_config", QN_JSON_OBJECT, "an object"},
        {"layer_quant_config", QN_JSON_OBJECT, "an object"},
        {"layer_type_quant_config", QN_JSON_OBJECT, "an object"},
    };
    char seen[64];
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const qn_json_node *const value = qn_json_member(declared->root, keys[i].key);
        if (!is_kind(value, keys[i].kind)) {
            qn_json_node_show(seen, sizeof seen, value);
            qn_problems_add(problems, QN_PROBLEM_SGLANG_KEYS, (qn_str){0}, "config.json",
                            "quantization_config.%s: %s, %s expected: SGLang stops at it",
                            keys[i].key, seen, keys[i].expected);
        }
    }
    const qn_json_node *const export = qn_json_member(declared->root, "export");
    const qn_json_node *const group = qn_json_member(export, "kv_cache_group");
    if (is_kind(export, QN_JSON_OBJECT) && !is_kind(group, QN_JSON_ARRAY)) {
        qn_json_node_show(seen, sizeof seen, group);
        qn_problems_add(problems, QN_PROBLEM_SGLANG_KEYS, (qn_str){0}, "config.json",
                        "quantization_config.export.kv_cache_group: %s, a list expected: SGLang "
                        "stops at it",
                        seen);
    }
    if (declared->storage == QN_STORAGE_MXFP4) {
        check_sglang_spec(declared, problems);
    }
    if (declared->storage == QN_STORAGE_MXFP4 && !declared->takes_mxfp4_activations) {
        qn_problems_add(problems, QN_PROBLEM_SGLANG_WEIGHT_ONLY, (qn_str){0}, "config.json",
                        "quantization_config.global_quant_config.input_tensors: none of dynamic "
                        "MXFP4, expected by SGLang, which takes no weight-only config for MXFP4; "
                        "vLLM refuses a static one too");
    }
}

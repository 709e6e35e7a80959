/* SPDX-License-Identifier: Apache-2.0 */
#include "format/quant_rules.h"

#include "base/file.h"
#include "base/json.h"
#include "base/try.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

enum { TEXT_BYTES_MAX = 16 << 20, NAME_BYTES_MAX = 256 };

/* A file while it is read. */
typedef struct reader {
    const char *what; /* names it in errors */
    qn_error *err;
} reader;

static qn_status refuse(const reader *r, const char *key, const json_t *seen, const char *expected)
{
    char text[80];
    qn_json_show(text, sizeof text, seen);
    return qn_fail(r->err, QN_E_FORMAT, 0, __func__, "%s: quantization_config.%s: %s, %s expected",
                   r->what, key, text, expected);
}

static qn_status no_memory(const reader *r)
{
    return qn_fail(r->err, QN_E_NOMEM, ENOMEM, __func__, "%s: no memory for its names", r->what);
}

static bool is_text(const json_t *object, const char *key, const char *text)
{
    return strcmp(qn_json_text(object, key), text) == 0;
}

static bool is_number(const json_t *value, int64_t number)
{
    int64_t seen = 0;
    return qn_json_to_integer(&seen, value) && seen == number;
}

static bool is_128_square(const json_t *block)
{
    return json_array_size(block) == 2 && is_number(json_array_get(block, 0), 128) &&
           is_number(json_array_get(block, 1), 128);
}

/* Storage that a weight's entry asks for; null is none. */
static qn_status read_weight(const reader *r, qn_quant_as *out, const json_t *weight)
{
    *out = QN_QUANT_AS_PLAIN;
    if (weight == NULL || json_is_null(weight)) {
        return QN_OK;
    }
    if (is_text(weight, "dtype", "fp4") && is_text(weight, "qscheme", "per_group") &&
        is_number(json_object_get(weight, "group_size"), 32) &&
        is_text(weight, "scale_format", "e8m0")) {
        *out = QN_QUANT_AS_MXFP4;
    } else if (is_text(weight, "dtype", "fp8_e4m3") && is_text(weight, "qscheme", "per_channel")) {
        *out = QN_QUANT_AS_FP8_CHANNEL;
    } else if (is_text(weight, "dtype", "fp8_e4m3") && is_text(weight, "qscheme", "per_block") &&
               is_128_square(json_object_get(weight, "block_size"))) {
        *out = QN_QUANT_AS_FP8_BLOCK;
    } else {
        return refuse(r, "weight.dtype", json_object_get(weight, "dtype"),
                      "fp4 in groups of 32, fp8_e4m3 per channel or in blocks of 128");
    }
    return QN_OK;
}

static bool is_glob(const char *name)
{
    return strpbrk(name, "*?[") != NULL;
}

/* A name to what it is stored as. */
static qn_status add(const reader *r, qn_quant_rules *rules, json_t *to, const char *key,
                     const char *name, qn_quant_as as)
{
    if (strncmp(name, "re:", 3) == 0) {
        return qn_fail(r->err, QN_E_FORMAT, 0, __func__,
                       "%s: quantization_config.%s: %.80s, names and globs expected where weights "
                       "are made up",
                       r->what, key, name);
    }
    rules->has_globs |= is_glob(name);
    return json_object_set_new(to, name, json_integer(as)) == 0 ? QN_OK : no_memory(r);
}

static qn_status read_list(const reader *r, qn_quant_rules *out, const json_t *quant,
                           const char *key)
{
    const json_t *const list = json_object_get(quant, key);
    if (list != NULL && !json_is_null(list) && !json_is_array(list)) {
        return refuse(r, key, list, "a list of names");
    }
    qn_status status = QN_OK;
    for (size_t i = 0; status == QN_OK && i < json_array_size(list); i++) {
        const json_t *const name = json_array_get(list, i);
        status = json_is_string(name)
                     ? add(r, out, out->excluded, key, json_string_value(name), QN_QUANT_AS_PLAIN)
                     : refuse(r, key, name, "a list of names");
    }
    return status;
}

static qn_status read_quark(const reader *r, qn_quant_rules *out, json_t *quant)
{
    const char *name = NULL;
    json_t *layer = NULL;
    qn_status status = QN_OK;
    QN_TRY(status,
           read_weight(r, &out->others,
                       json_object_get(json_object_get(quant, "global_quant_config"), "weight")),
           fail);
    QN_TRY(status, read_list(r, out, quant, "exclude"), fail);
    json_object_foreach(json_object_get(quant, "layer_quant_config"), name, layer)
    {
        qn_quant_as as = QN_QUANT_AS_PLAIN;
        QN_TRY(status, read_weight(r, &as, json_object_get(layer, "weight")), fail);
        QN_TRY(status, add(r, out, out->layers, "layer_quant_config", name, as), fail);
    }
fail:
    return status;
}

static qn_status read_all(const reader *r, qn_quant_rules *out, json_t *quant)
{
    if (quant == NULL || json_is_null(quant)) {
        return QN_OK;
    }
    out->excluded = json_object();
    out->layers = json_object();
    if (out->excluded == NULL || out->layers == NULL) {
        return no_memory(r);
    }
    if (is_text(quant, "quant_method", "quark")) {
        return read_quark(r, out, quant);
    }
    if (!is_text(quant, "quant_method", "fp8")) {
        return refuse(r, "quant_method", json_object_get(quant, "quant_method"),
                      "quark or fp8, where weights are made up,");
    }
    const json_t *const block = json_object_get(quant, "weight_block_size");
    if (block != NULL && !is_128_square(block)) {
        return refuse(r, "weight_block_size", block, "[128, 128]");
    }
    out->is_fp8 = true;
    out->others = QN_QUANT_AS_FP8_BLOCK;
    return read_list(r, out, quant, "modules_to_not_convert");
}

qn_status qn_quant_rules_parse(qn_quant_rules *out, qn_str text, const char *what, qn_error *err)
{
    const reader r = {.what = what, .err = err};
    json_t *root = NULL;
    *out = (qn_quant_rules){0};
    qn_status status = qn_json_parse(&root, text, what, err);
    if (status == QN_OK) {
        status = read_all(&r, out, json_object_get(root, "quantization_config"));
    }
    json_decref(root);
    if (status < 0) {
        qn_quant_rules_close(out);
    }
    return status;
}

qn_status qn_quant_rules_load(qn_quant_rules *out, const char *path, qn_error *err)
{
    qn_buf text;
    *out = (qn_quant_rules){0};
    qn_buf_init(&text, TEXT_BYTES_MAX);
    qn_status status = qn_file_read(&text, path, err);
    if (status == QN_OK) {
        status = qn_quant_rules_parse(out, qn_buf_view(&text), path, err);
    }
    qn_buf_deinit(&text);
    return status;
}

void qn_quant_rules_close(qn_quant_rules *rules)
{
    json_decref(rules->excluded);
    json_decref(rules->layers);
    *rules = (qn_quant_rules){0};
}

/* The entry for a name, for what the name is part of, or the first glob that takes it; NULL. */
static const json_t *find(const qn_quant_rules *rules, json_t *entries, const char *name)
{
    char part[NAME_BYTES_MAX];
    char *end = part;
    (void)snprintf(part, sizeof part, "%s", name);
    while (end != NULL) {
        const json_t *const entry = json_object_get(entries, part);
        if (entry != NULL) {
            return entry;
        }
        end = strrchr(part, '.');
        *(end != NULL ? end : part) = '\0';
    }
    const char *glob = NULL;
    json_t *entry = NULL;
    json_object_foreach(entries, glob, entry)
    {
        if (!rules->has_globs) { /* or thousands of names would be tried for each matrix */
            break;
        }
        if (is_glob(glob) && fnmatch(glob, name, 0) == 0) {
            return entry;
        }
    }
    return NULL;
}

qn_quant_as qn_quant_rules_find(const qn_quant_rules *rules, qn_str module)
{
    /* Whatever their list says: that of GLM-5.2-FP8 names one of these by a name it does not have.
     */
    static const char *const plain_of_fp8[] = {"lm_head", ".eh_proj", ".mlp.gate",
                                               ".indexer.weights_proj"};
    char name[NAME_BYTES_MAX];
    (void)snprintf(name, sizeof name, "%.*s", (int)module.len, module.ptr);
    for (size_t i = 0; rules->is_fp8 && i < sizeof plain_of_fp8 / sizeof *plain_of_fp8; i++) {
        if (qn_str_ends(module, plain_of_fp8[i])) {
            return QN_QUANT_AS_PLAIN;
        }
    }
    if (find(rules, rules->excluded, name) != NULL) {
        return QN_QUANT_AS_PLAIN;
    }
    const json_t *const layer = find(rules, rules->layers, name);
    return layer != NULL ? (qn_quant_as)json_integer_value(layer) : rules->others;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "quant/quark_config.h"

#include "base/assert.h"
#include "base/json_doc.h"
#include "base/log.h"
#include "base/try.h"

#include <errno.h>
#include <inttypes.h>

enum { OUT_BYTES_MAX = 256 << 20, LAYERS_MAX = 1000000 };

static const char quantization_key[] = "quantization_config";

static qn_status no_memory(qn_error *err)
{
    return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "exclude: no memory for its names");
}

/* ------------------------------------------------------------------------------- exclusions -- */

/* What engines load as one matrix, and so in one format. */
typedef enum fused {
    FUSED_EXPERTS,
    FUSED_SHARED,
    FUSED_DENSE,
    FUSED_QKV,
    N_FUSED,
} fused;

static const char *const fused_names[] = {
    "routed experts", "gate_proj and up_proj of the shared expert", "gate_proj and up_proj",
    "q_a_proj and kv_a_proj_with_mqa"};

/* Bits of what is in these formats. */
enum { IS_PLAIN = 1, IS_FP8 = 2, IS_MXFP4 = 4 };

typedef struct layer_formats {
    uint8_t of[N_FUSED];
} layer_formats;

typedef struct collector {
    qn_exclusions *to;
    layer_formats *layers; /* [n_layers_known] owned */
    size_t n_layers_known;
    uint32_t n_layers; /* the MTP layer's number */
    qn_error *err;
} collector;

/* PREFIX and the name, as one entry. */
static qn_status add(const collector *c, qn_module_names *to, const char *prefix, qn_str name,
                     bool is_alias)
{
    const size_t prefix_bytes = strlen(prefix);
    if (to->n_names == to->capacity) {
        const size_t capacity = to->capacity == 0 ? 256 : 2 * to->capacity;
        qn_module_name *const names = realloc(to->names, capacity * sizeof *names);
        if (names == NULL) {
            return no_memory(c->err);
        }
        to->names = names;
        to->capacity = capacity;
    }
    char *const text = malloc(prefix_bytes + name.len + 1);
    if (text == NULL) {
        return no_memory(c->err);
    }
    memcpy(text, prefix, prefix_bytes);
    memcpy(text + prefix_bytes, name.ptr, name.len);
    text[prefix_bytes + name.len] = '\0';
    to->names[to->n_names++] = (qn_module_name){.text = text, .is_alias = is_alias};
    return QN_OK;
}

/* SGLang builds the MTP layer as a model of its own: "model.eh_proj", "model.decoder.mlp.gate". */
static qn_status add_draft_name(const collector *c, qn_module_names *to, qn_str module)
{
    char layer[40];
    const size_t len =
        (size_t)snprintf(layer, sizeof layer, "model.layers.%u.", (unsigned)c->n_layers);
    if (!qn_str_begins(module, layer) || module.len == len) {
        return QN_OK;
    }
    const qn_str rest = {module.ptr + len, module.len - len};
    return add(c, to, qn_draft_prefix(rest), rest, true);
}

/* The list for modules of that format; NULL for MXFP4, and for a mixture. */
static qn_module_names *list_of(const collector *c, uint8_t format)
{
    return format == IS_PLAIN ? &c->to->excluded : format == IS_FP8 ? &c->to->fp8 : NULL;
}

/* What a module is fused into; N_FUSED where it stands alone. */
static fused fused_of(const qn_tensor_name *name, qn_str module)
{
    const bool is_half = qn_str_ends(module, ".gate_proj") || qn_str_ends(module, ".up_proj");
    const bool is_qkv =
        qn_str_ends(module, ".q_a_proj") || qn_str_ends(module, ".kv_a_proj_with_mqa");
    return name->kind == QN_KIND_ROUTED_EXPERT              ? FUSED_EXPERTS
           : name->kind == QN_KIND_SHARED_EXPERT && is_half ? FUSED_SHARED
           : name->kind == QN_KIND_DENSE_MLP && is_half     ? FUSED_DENSE
           : name->kind == QN_KIND_ATTENTION && is_qkv      ? FUSED_QKV
                                                            : N_FUSED;
}

static qn_status note_format(collector *c, const qn_tensor_name *name, qn_str module,
                             uint8_t format)
{
    const fused what = fused_of(name, module);
    if (what == N_FUSED || name->layer < 0 || name->layer >= LAYERS_MAX) {
        return QN_OK;
    }
    const size_t i_layer = (size_t)name->layer;
    if (i_layer >= c->n_layers_known) {
        const size_t n = i_layer + 1 > 2 * c->n_layers_known ? i_layer + 1 : 2 * c->n_layers_known;
        layer_formats *const layers = realloc(c->layers, n * sizeof *layers);
        if (layers == NULL) {
            return no_memory(c->err);
        }
        memset(layers + c->n_layers_known, 0, (n - c->n_layers_known) * sizeof *layers);
        c->layers = layers;
        c->n_layers_known = n;
    }
    QN_ASSERT(c->layers != NULL);
    c->layers[i_layer].of[what] |= format;
    return QN_OK;
}

/* A module that is not MXFP4 is listed by its own name, and unless its container is asked for by
 * SGLang's. */
static qn_status collect(collector *c, const qn_plan_output *output)
{
    qn_str module = {0};
    qn_tensor_name name;
    qn_status status = QN_OK;
    if (output->is_scale || !qn_recipe_is_linear(&module, output->name, output->from->rank)) {
        return QN_OK;
    }
    const uint8_t format = output->dtype == QN_DTYPE_F8_E4M3 ? IS_FP8
                           : output->dtype == QN_DTYPE_U8    ? IS_MXFP4
                                                             : IS_PLAIN;
    qn_module_names *const to = list_of(c, format);
    qn_tensor_name_parse(&name, output->name);
    QN_TRY(status, note_format(c, &name, module, format), fail);
    if (to != NULL) {
        QN_TRY(status, add(c, to, "", module, false), fail);
    }
    if (to != NULL && name.kind != QN_KIND_ROUTED_EXPERT) {
        QN_TRY(status, add_draft_name(c, to, module), fail);
    }
fail:
    return status;
}

static qn_status collect_shard(collector *c, const qn_plan_shard *shard)
{
    qn_status status = QN_OK;
    for (size_t i = 0; status == QN_OK && i < shard->n_outputs; i++) {
        status = collect(c, &shard->outputs[i]);
    }
    return status;
}

/* Engines ask for all routed experts of a layer at once. */
static qn_status add_containers(const collector *c)
{
    char name[64];
    qn_status status = QN_OK;
    for (size_t i = 0; i < c->n_layers_known; i++) {
        qn_module_names *const to = list_of(c, c->layers[i].of[FUSED_EXPERTS]);
        if (to == NULL) {
            continue;
        }
        (void)snprintf(name, sizeof name, "model.layers.%zu.mlp.experts", i);
        QN_TRY(status, add(c, to, "", qn_str_of(name), true), fail);
        QN_TRY(status, add_draft_name(c, to, qn_str_of(name)), fail);
    }
fail:
    return status;
}

/* What a recipe takes in parts is for quern alone. */
static void warn_of_mixtures(const collector *c)
{
    for (size_t what = 0; what < N_FUSED; what++) {
        size_t n_mixed = 0;
        size_t first = 0;
        for (size_t i = 0; i < c->n_layers_known; i++) {
            const uint8_t format = c->layers[i].of[what];
            const bool is_mixed = (format & (format - 1)) != 0;
            first = is_mixed && n_mixed == 0 ? i : first;
            n_mixed += is_mixed ? 1 : 0;
        }
        if (n_mixed > 0) {
            qn_log(QN_LOG_WARN,
                   "layer %zu%s: %s in more than one format; SGLang, vLLM and ATOM load them as "
                   "one matrix and will fail, only quern reads this",
                   first, n_mixed > 1 ? " and others" : "", fused_names[what]);
        }
    }
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const qn_module_name *)a)->text, ((const qn_module_name *)b)->text);
}

static void sort(qn_module_names *names)
{
    if (names->n_names > 0) {
        qsort(names->names, names->n_names, sizeof *names->names, by_name);
    }
}

qn_status qn_exclusions_open(qn_exclusions *out, const qn_plan *plan, uint32_t n_layers,
                             qn_error *err)
{
    *out = (qn_exclusions){0};
    collector c = {.to = out, .n_layers = n_layers, .err = err};
    qn_status status = QN_OK;
    for (size_t i = 0; i < plan->n_shards; i++) {
        QN_TRY(status, collect_shard(&c, &plan->shards[i]), fail);
    }
    QN_TRY(status, add_containers(&c), fail);
    warn_of_mixtures(&c);
    sort(&out->excluded);
    sort(&out->fp8);
fail:
    free(c.layers);
    if (status < 0) {
        qn_exclusions_close(out);
    }
    return status;
}

static void names_deinit(qn_module_names *names)
{
    for (size_t i = 0; i < names->n_names; i++) {
        free(names->names[i].text);
    }
    free(names->names);
    *names = (qn_module_names){0};
}

void qn_exclusions_close(qn_exclusions *exclusions)
{
    names_deinit(&exclusions->excluded);
    names_deinit(&exclusions->fp8);
}

/* ---------------------------------------------------------------------- quantization_config -- */

/* A tensor's format: every key that Quark 0.13 writes, in its order. */
#define SPEC(dtype, is_dynamic, scheme, axis, group, block, symmetric, scale_type, scale_format,   \
             mode, observer)                                                                       \
    "{\"dtype\": \"" dtype "\", \"is_dynamic\": " is_dynamic ", \"qscheme\": \"" scheme            \
    "\", \"ch_axis\": " axis ", \"group_size\": " group ", \"block_size\": " block                 \
    ", \"symmetric\": " symmetric ", \"round_method\": \"half_even\", \"scale_type\": " scale_type \
    ", \"zero_point_type\": \"int32\", \"scale_format\": " scale_format                            \
    ", \"scale_calculation_mode\": " mode                                                          \
    ", \"mx_element_dtype\": null, \"observer_cls\": \"" observer                                  \
    "\", \"is_scale_quant\": false, \"enable_buffer_reuse\": false, "                              \
    "\"max_input_numel\": 4194304}"

#define MXFP4(is_dynamic, observer)                                                                \
    SPEC("fp4", is_dynamic, "per_group", "-1", "32", "null", "null", "\"float\"", "\"e8m0\"",      \
         "\"even\"", observer)

/* A module that stays in FP8: weights in blocks, activations in groups of 128 at run time. */
#define FP8_INPUT                                                                                  \
    SPEC("fp8_e4m3", "true", "per_group", "-1", "128", "null", "true", "null", "null", "null",     \
         "PerGroupMinMaxObserver")
#define FP8_WEIGHT                                                                                 \
    SPEC("fp8_e4m3", "false", "per_block", "null", "null", "[128, 128]", "true", "\"float32\"",    \
         "null", "null", "PerBlock2DMinMaxObserver")

#define FP8_LAYER                                                                                  \
    "{\"input_tensors\": " FP8_INPUT ", \"output_tensors\": null, \"weight\": " FP8_WEIGHT         \
    ", \"bias\": null, \"target_device\": null}"

static qn_status append_text(qn_buf *out, const char *text, qn_error *err)
{
    return qn_buf_append(out, text, strlen(text), err);
}

/* Names in order, each with @p value behind it. */
static qn_status append_names(qn_buf *out, const qn_module_names *names, const char *value,
                              qn_error *err)
{
    qn_status status = QN_OK;
    for (size_t i = 0; i < names->n_names; i++) {
        QN_TRY(status, append_text(out, i > 0 ? ", " : "", err), fail);
        QN_TRY(status, qn_json_quote_append(out, qn_str_of(names->names[i].text), err), fail);
        QN_TRY(status, append_text(out, value, err), fail);
    }
fail:
    return status;
}

/* In the order of Quark 0.13's keys. */
static qn_status append_quark(qn_buf *out, const qn_exclusions *exclusions,
                              const qn_quark_settings *settings, qn_error *err)
{
    const char *const weight = settings->scale == QN_SCALE_MSE
                                   ? MXFP4("false", "PerBlockMXDiffsObserver")
                                   : MXFP4("false", "PerBlockMXObserver");
    qn_status status = QN_OK;
    QN_TRY(status, append_text(out, "{\"global_quant_config\": {\"input_tensors\": ", err), fail);
    QN_TRY(status,
           append_text(
               out, settings->has_activations ? MXFP4("true", "PerBlockMXObserver") : "null", err),
           fail);
    QN_TRY(status, append_text(out, ", \"output_tensors\": null, \"weight\": ", err), fail);
    QN_TRY(status, append_text(out, weight, err), fail);
    QN_TRY(status,
           append_text(out, ", \"bias\": null, \"target_device\": null}, \"exclude\": [", err),
           fail);
    QN_TRY(status, append_names(out, &exclusions->excluded, "", err), fail);
    QN_TRY(status,
           append_text(out,
                       "], \"algo_config\": null, \"softmax_quant_spec\": null, "
                       "\"quant_method\": \"quark\", \"layer_type_quant_config\": {}, "
                       "\"layer_quant_config\": {",
                       err),
           fail);
    QN_TRY(status, append_names(out, &exclusions->fp8, ": " FP8_LAYER, err), fail);
    QN_TRY(status,
           append_text(out,
                       "}, \"kv_cache_quant_config\": {}, \"kv_cache_post_rope\": false, "
                       "\"quant_mode\": \"eager_mode\", \"version\": \"0.13\", "
                       "\"export\": {\"kv_cache_group\": [], \"min_kv_scale\": 0.0, "
                       "\"pack_method\": \"reorder\", \"weight_format\": \"real_quantized\", "
                       "\"weight_merge_groups\": null}}",
                       err),
           fail);
fail:
    return status;
}

/* ----------------------------------------------------------------------------- pretty print -- */

/* Line and blanks before an item at @p depth. */
static qn_status append_line(qn_buf *out, bool is_first, uint32_t depth, qn_error *err)
{
    return qn_buf_append_printf(out, err, "%s\n%*s", is_first ? "" : ",", (int)(4 * depth), "");
}

static qn_status append_node(qn_buf *out, const qn_json_node *node, uint32_t depth, qn_error *err);

/* An element, or a member: its key and what stands behind it. */
static qn_status append_item(qn_buf *out, const qn_json_node *item, bool is_member, bool is_first,
                             uint32_t depth, qn_error *err)
{
    qn_status status = append_line(out, is_first, depth, err);
    if (status == QN_OK && is_member) {
        status = qn_json_python_append(out, item, err);
    }
    if (status == QN_OK && is_member) {
        status = qn_buf_append(out, ": ", 2, err);
    }
    return status == QN_OK ? append_node(out, is_member ? item + 1 : item, depth, err) : status;
}

/* The members or elements, at @p depth, without an old quantization_config, wherever it stands
 * (Quark removes it at every depth too); *n of them. */
static qn_status append_items(qn_buf *out, size_t *n, const qn_json_node *node, uint32_t depth,
                              qn_error *err)
{
    qn_status status = QN_OK;
    const qn_json_node *item = node + 1;
    const bool is_object = node->kind == QN_JSON_OBJECT;
    *n = 0;
    for (uint32_t i = 0; status == QN_OK && i < node->n_children; i++) {
        if (!is_object || !qn_json_string_is(item, qn_str_of(quantization_key))) {
            status = append_item(out, item, is_object, *n == 0, depth, err);
            ++*n;
        }
        item = qn_json_after(is_object ? item + 1 : item);
    }
    return status;
}

static qn_status append_node(qn_buf *out, const qn_json_node *node, uint32_t depth, qn_error *err)
{
    qn_status status = QN_OK;
    size_t n = 0;
    if (node->kind != QN_JSON_OBJECT && node->kind != QN_JSON_ARRAY) {
        return qn_json_python_append(out, node, err);
    }
    const bool is_object = node->kind == QN_JSON_OBJECT;
    QN_TRY(status, qn_buf_append(out, is_object ? "{" : "[", 1, err), fail);
    QN_TRY(status, append_items(out, &n, node, depth + 1, err), fail);
    if (n > 0) {
        QN_TRY(status, append_line(out, true, depth, err), fail);
    }
    QN_TRY(status, qn_buf_append(out, is_object ? "}" : "]", 1, err), fail);
fail:
    return status;
}

/* The root with our members at its end. */
static qn_status append_root(qn_buf *out, const qn_json_doc *source, const qn_json_doc *quark,
                             const qn_quark_settings *settings, qn_error *err)
{
    qn_status status = QN_OK;
    size_t n = 0;
    QN_TRY(status, qn_buf_append(out, "{", 1, err), fail);
    QN_TRY(status, append_items(out, &n, source->nodes, 1, err), fail);
    QN_TRY(status, append_line(out, n == 0, 1, err), fail);
    if (settings->scale == QN_SCALE_MSE) { /* no loader looks here */
        QN_TRY(status,
               qn_buf_append_printf(out, err,
                                    "\"quern_scale\": \"mse: not the bytes of AMD Quark\",\n    "),
               fail);
    }
    QN_TRY(status, qn_buf_append_printf(out, err, "\"%s\": ", quantization_key), fail);
    QN_TRY(status, append_node(out, quark->nodes, 1, err), fail);
    QN_TRY(status, qn_buf_append(out, "\n}", 2, err), fail);
fail:
    return status;
}

qn_status qn_quark_config_append(qn_buf *out, qn_str source, const char *what,
                                 const qn_exclusions *exclusions, const qn_quark_settings *settings,
                                 qn_error *err)
{
    qn_json_doc doc = {0};
    qn_json_doc quark = {0};
    qn_buf text;
    qn_status status = QN_OK;
    qn_buf_init(&text, OUT_BYTES_MAX);
    QN_TRY(status, qn_json_doc_open(&doc, source, what, err), fail);
    QN_TRY(status, append_quark(&text, exclusions, settings, err), fail);
    QN_TRY(status, qn_json_doc_open(&quark, qn_buf_view(&text), quantization_key, err), fail);
    QN_TRY(status, append_root(out, &doc, &quark, settings, err), fail);
fail:
    qn_json_doc_close(&quark);
    qn_json_doc_close(&doc);
    qn_buf_deinit(&text);
    return status;
}

/* ------------------------------------------------------------------------------- the others -- */

static qn_status append_place(qn_buf *out, qn_str tensor, const char *file, bool is_first,
                              qn_error *err)
{
    qn_status status = QN_OK;
    QN_TRY(status, append_line(out, is_first, 2, err), fail);
    QN_TRY(status, qn_json_quote_append(out, tensor, err), fail);
    QN_TRY(status, append_text(out, ": ", err), fail);
    QN_TRY(status, qn_json_quote_append(out, qn_str_of(file), err), fail);
fail:
    return status;
}

qn_status qn_quark_index_append(qn_buf *out, const qn_plan *plan, qn_error *err)
{
    bool is_first = true;
    qn_status status =
        qn_buf_append_printf(out, err,
                             "{\n    \"metadata\": {\n        \"total_size\": %" PRIu64
                             "\n    },\n    \"weight_map\": {",
                             plan->out_bytes);
    for (size_t i = 0; i < plan->n_shards; i++) {
        const qn_plan_shard *const shard = &plan->shards[i];
        for (size_t k = 0; status == QN_OK && k < shard->n_outputs; k++) {
            status = append_place(out, shard->outputs[k].name, shard->file, is_first, err);
            is_first = false;
        }
    }
    return status == QN_OK ? append_text(out, "\n    }\n}", err) : status;
}

/* What else it may be that somebody wants to quantize. */
static qn_status check_method(const qn_json_node *declared, const char *what, qn_error *err)
{
    const qn_json_node *const method = qn_json_member(declared, "quant_method");
    char seen[80];
    if (declared == NULL || declared->kind == QN_JSON_NULL ||
        qn_json_string_is(method, qn_str_of("fp8"))) {
        return QN_OK;
    }
    qn_json_node_show(seen, sizeof seen, method);
    return qn_fail(
        err, QN_E_FORMAT, 0, __func__,
        "%.300s: quantization_config.quant_method: %s, a checkpoint in bf16 (none) or in "
        "\"fp8\" expected: this one is quantized already",
        what, seen);
}

qn_status qn_quark_read_layers(uint32_t *n_layers, qn_str source, const char *what, qn_error *err)
{
    qn_json_doc doc = {0};
    qn_status status = QN_OK;
    QN_TRY(status, qn_json_doc_open(&doc, source, what, err), fail);
    const qn_json_node *const number = qn_json_member(doc.nodes, "num_hidden_layers");
    char seen[80];
    char *end = NULL;
    qn_json_node_show(seen, sizeof seen, number);
    const unsigned long value = strtoul(seen, &end, 10);
    if (number == NULL || number->kind != QN_JSON_NUMBER || *end != '\0' || seen[0] == '-' ||
        value >= LAYERS_MAX) {
        status = qn_fail(err, QN_E_FORMAT, 0, __func__,
                         "%.300s: num_hidden_layers: %s, a number below %d expected", what, seen,
                         (int)LAYERS_MAX);
        goto fail;
    }
    *n_layers = (uint32_t)value;
    QN_TRY(status, check_method(qn_json_member(doc.nodes, quantization_key), what, err), fail);
fail:
    qn_json_doc_close(&doc);
    return status;
}

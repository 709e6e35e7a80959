/* SPDX-License-Identifier: Apache-2.0 */
/* The report as JSON: docs/inspect.md describes its members. */
#include "base/try.h"
#include "inspect/doctor.h"
#include "inspect/json_out.h"

#include <errno.h>
#include <stdlib.h>

enum {
    N_DTYPES = QN_DTYPE_BOOL + 1,
    N_STORAGES = QN_STORAGE_OTHER + 1,
    NO_LAYER = QN_LAYERS_MAX, /* where tensors of no layer are counted */
};

/* Tensors that are alike. */
typedef struct tally {
    uint64_t n_tensors, n_bytes, n_elements;
} tally;

/* Sums over all tensors, by several keys. */
typedef struct sums {
    tally kinds[QN_N_KINDS][N_DTYPES];
    tally layers[QN_LAYERS_MAX + 1];
    uint8_t storages[QN_LAYERS_MAX + 1][QN_N_KINDS]; /* of matrices, bits 1 << qn_storage */
    bool has_indexer[QN_LAYERS_MAX];
    bool has_dense[QN_LAYERS_MAX];
    bool has_experts[QN_LAYERS_MAX];
    uint32_t n_layers; /* one more than the highest */
    uint64_t n_known, n_bytes;
} sums;

/* -------------------------------------------------------------------------------- counting -- */

static void count_entry(sums *s, const qn_entry *entry)
{
    qn_tensor_name name;
    qn_tensor_name_parse(&name, entry->tensor->name);
    const bool has_layer = name.layer >= 0 && name.layer < QN_LAYERS_MAX;
    const int32_t layer = has_layer ? name.layer : NO_LAYER;
    if (has_layer) {
        s->n_layers = (uint32_t)layer >= s->n_layers ? (uint32_t)layer + 1 : s->n_layers;
        s->has_indexer[layer] |= name.kind == QN_KIND_INDEXER;
        s->has_dense[layer] |= name.kind == QN_KIND_DENSE_MLP;
        s->has_experts[layer] |=
            name.kind == QN_KIND_ROUTED_EXPERT || name.kind == QN_KIND_SHARED_EXPERT;
    }
    s->layers[layer].n_tensors++;
    if (!entry->is_known) {
        return;
    }
    const qn_tensor *const tensor = entry->tensor;
    tally *const kind = &s->kinds[name.kind][tensor->dtype];
    const uint64_t n = tensor->size_bytes / qn_dtype_bytes(tensor->dtype);
    kind->n_tensors++;
    kind->n_bytes += tensor->size_bytes;
    kind->n_elements += n;
    s->layers[layer].n_bytes += tensor->size_bytes;
    s->n_bytes += tensor->size_bytes;
    s->n_known++;
    if (tensor->rank >= 2 && qn_str_equal(name.part, qn_str_of("weight"))) {
        s->storages[layer][name.kind] |= (uint8_t)(1U << qn_storage_of(tensor->dtype));
    }
}

/* ---------------------------------------------------------------------------------- sections -- */

/* "mxfp4", or "mixed" where the matrices of a kind are not stored alike. */
static const char *storage_text(uint8_t bits)
{
    for (int i = QN_STORAGE_PLAIN; i < N_STORAGES; i++) {
        if (bits == 1U << i) {
            return qn_storage_name((qn_storage)i);
        }
    }
    return bits == 0 ? NULL : "mixed";
}

static void put_storages(qn_json_out *out, const char *key, const uint8_t storages[QN_N_KINDS])
{
    qn_json_out_open(out, key, '{');
    for (int kind = 0; kind < QN_N_KINDS; kind++) {
        if (storages[kind] != 0) {
            qn_json_out_text(out, qn_tensor_kind_name((qn_tensor_kind)kind),
                             storage_text(storages[kind]));
        }
    }
    qn_json_out_close(out, '}');
}

static void put_layer(qn_json_out *out, const sums *s, uint32_t layer, bool knows_bytes)
{
    qn_json_out_u64(out, "layer", layer);
    qn_json_out_text(out, "mlp",
                     s->has_experts[layer] ? "sparse"
                     : s->has_dense[layer] ? "dense"
                                           : NULL);
    qn_json_out_text(out, "indexer", s->has_indexer[layer] ? "full" : "shared");
    qn_json_out_u64(out, "tensors", s->layers[layer].n_tensors);
    qn_json_out_maybe(out, "bytes", knows_bytes, s->layers[layer].n_bytes);
    put_storages(out, "storage", s->storages[layer]);
}

/* Layers as they are found; the MTP layer is one of its own. */
static void put_layers(qn_json_out *out, const qn_doctor *d, const sums *s)
{
    const bool knows_bytes = s->n_known > 0;
    char pattern[QN_LAYERS_MAX + 1] = "";
    const uint32_t n_trunk = d->mtp_layer >= 0 && (uint32_t)d->mtp_layer < s->n_layers
                                 ? (uint32_t)d->mtp_layer
                                 : s->n_layers;
    qn_json_out_open(out, "layers", '[');
    for (uint32_t i = 0; i < n_trunk; i++) {
        qn_json_out_open(out, NULL, '{');
        put_layer(out, s, i, knows_bytes);
        qn_json_out_close(out, '}');
        pattern[i] = '.';
        if (s->layers[i].n_tensors > 0) {
            pattern[i] = "SF"[s->has_indexer[i]];
        }
    }
    qn_json_out_close(out, ']');
    qn_json_out_text(out, "indexer_pattern", pattern);
    qn_json_out_open(out, "mtp", '{');
    const bool is_found = d->mtp_layer >= 0 && s->layers[d->mtp_layer].n_tensors > 0;
    if (d->has_config) {
        qn_json_out_bool(out, "declared", d->config.n_mtp_layers > 0);
        qn_json_out_bool(out, "found", d->facts.has_mtp);
    } else {
        qn_json_out_null(out, "declared");
        qn_json_out_null(out, "found");
    }
    if (is_found) {
        put_layer(out, s, (uint32_t)d->mtp_layer, knows_bytes);
    }
    qn_json_out_close(out, '}');
}

static void put_kinds(qn_json_out *out, const sums *s)
{
    qn_json_out_open(out, "kinds", '[');
    for (int kind = 0; kind < QN_N_KINDS; kind++) {
        for (int dtype = 0; dtype < N_DTYPES; dtype++) {
            const tally *const t = &s->kinds[kind][dtype];
            if (t->n_tensors == 0) {
                continue;
            }
            qn_json_out_open(out, NULL, '{');
            qn_json_out_text(out, "kind", qn_tensor_kind_name((qn_tensor_kind)kind));
            qn_json_out_text(out, "dtype", qn_dtype_name((qn_dtype)dtype));
            qn_json_out_u64(out, "tensors", t->n_tensors);
            qn_json_out_u64(out, "elements", t->n_elements);
            qn_json_out_u64(out, "bytes", t->n_bytes);
            qn_json_out_close(out, '}');
        }
    }
    qn_json_out_close(out, ']');
}

/* What is declared of the matrices of each kind, the MTP layer's left out as in found_by_kind. */
static void put_declared(qn_json_out *out, const qn_doctor *d)
{
    uint8_t kinds[QN_N_KINDS] = {0};
    if (d->config_doc.nodes == NULL) {
        qn_json_out_null(out, "declared_by_kind");
        return;
    }
    for (size_t i = 0; i < d->modules.n_items; i++) {
        const qn_module *const module = &d->modules.items[i];
        if (module->is_linear && (module->layer < 0 || module->layer != d->mtp_layer)) {
            kinds[module->kind] |= (uint8_t)(1U << module->declared);
        }
    }
    put_storages(out, "declared_by_kind", kinds);
}

/* What is declared, and what is found: the smallest format, and each kind's. */
static void put_quantization(qn_json_out *out, const qn_doctor *d, const sums *s)
{
    const qn_declared *const said = &d->declared;
    uint8_t kinds[QN_N_KINDS] = {0};
    uint8_t all = 0;
    for (uint32_t layer = 0; layer <= NO_LAYER; layer++) {
        for (int kind = 0; kind < QN_N_KINDS && (int32_t)layer != d->mtp_layer; kind++) {
            kinds[kind] |= s->storages[layer][kind];
        }
        for (int kind = 0; kind < QN_N_KINDS; kind++) {
            all |= s->storages[layer][kind];
        }
    }
    const char *const found = (all & 1U << QN_STORAGE_MXFP4) != 0   ? "mxfp4"
                              : (all & 1U << QN_STORAGE_FP8) != 0   ? "fp8"
                              : (all & 1U << QN_STORAGE_OTHER) != 0 ? "other"
                              : (all & 1U << QN_STORAGE_PLAIN) != 0 ? "none"
                                                                    : NULL;
    qn_json_out_open(out, "quantization", '{');
    if (d->config_doc.nodes == NULL) {
        qn_json_out_null(out, "declared");
    } else {
        qn_json_out_text(out, "declared", said->root == NULL ? "none" : said->method);
    }
    qn_json_out_text(out, "declared_weights",
                     said->root == NULL || said->storage == QN_STORAGE_OTHER
                         ? NULL
                         : qn_storage_name(said->storage));
    qn_json_out_maybe(out, "excluded", said->list != NULL,
                      said->exclude.n_names + said->exclude.n_patterns);
    qn_json_out_text(out, "found", d->foreign.n_items > 0 || d->facts.has_shaped ? "other" : found);
    put_storages(out, "found_by_kind", kinds);
    put_declared(out, d);
    qn_json_out_close(out, '}');
}

static void put_shards(qn_json_out *out, const qn_inventory *inventory)
{
    uint64_t n_there = 0;
    for (size_t i = 0; i < inventory->n_shards; i++) {
        n_there += inventory->shards[i].is_missing ? 0 : 1;
    }
    qn_json_out_open(out, "shards", '{');
    qn_json_out_u64(out, "named", inventory->n_shards);
    qn_json_out_u64(out, "found", n_there);
    qn_json_out_bool(out, "index", inventory->has_index);
    qn_json_out_u64(out, "bytes", inventory->file_bytes);
    qn_json_out_u64(out, "header_bytes", inventory->header_bytes);
    qn_json_out_close(out, '}');
}

static void put_config(qn_json_out *out, const qn_doctor *d)
{
    const qn_config *const c = &d->config;
    if (!d->has_config) {
        qn_json_out_null(out, "config");
        return;
    }
    qn_json_out_open(out, "config", '{');
    qn_json_out_u64(out, "layers", c->n_layers);
    qn_json_out_u64(out, "hidden_size", c->n_embd);
    qn_json_out_u64(out, "vocab_size", c->n_vocab);
    qn_json_out_u64(out, "heads", c->n_heads);
    qn_json_out_u64(out, "experts", c->n_experts);
    qn_json_out_u64(out, "experts_per_token", c->n_experts_used);
    qn_json_out_u64(out, "shared_experts", c->n_experts_shared);
    qn_json_out_u64(out, "index_topk", c->index_topk);
    qn_json_out_u64(out, "context_tokens", c->n_context_max);
    qn_json_out_real(out, "rope_theta", c->rope_theta);
    qn_json_out_real(out, "rms_norm_eps", (double)c->rms_eps);
    qn_json_out_close(out, '}');
}

static void put_tokenizer(qn_json_out *out, const qn_doctor *d)
{
    if (!d->has_tokenizer) {
        qn_json_out_null(out, "tokenizer");
        return;
    }
    qn_json_out_open(out, "tokenizer", '{');
    qn_json_out_u64(out, "tokens", d->n_tokens);
    qn_json_out_close(out, '}');
}

static void put_problem(qn_json_out *out, const qn_problem *p)
{
    qn_json_out_open(out, NULL, '{');
    qn_json_out_text(out, "severity", qn_problem_is_error(p->code) ? "error" : "warning");
    qn_json_out_text(out, "code", qn_problem_name(p->code));
    qn_json_out_text(out, "tensor", p->tensor);
    qn_json_out_text(out, "file", p->file);
    qn_json_out_text(out, "message", p->message);
    qn_json_out_close(out, '}');
}

/* Code by code, first those that are errors. */
static void put_problems(qn_json_out *out, const qn_problems *problems)
{
    qn_problem_code codes[QN_N_PROBLEMS];
    size_t n_codes = 0;
    for (int i = 0; i < 2 * QN_N_PROBLEMS; i++) {
        const qn_problem_code code = (qn_problem_code)(i % QN_N_PROBLEMS);
        if (problems->n_of[code] > 0 && qn_problem_is_error(code) == (i < QN_N_PROBLEMS)) {
            codes[n_codes++] = code;
        }
    }
    qn_json_out_open(out, "problems", '[');
    for (size_t i_code = 0; i_code < n_codes; i_code++) {
        for (size_t i = 0; i < problems->n_items; i++) {
            if (problems->items[i].code == codes[i_code]) {
                put_problem(out, &problems->items[i]);
            }
        }
    }
    qn_json_out_close(out, ']');
    qn_json_out_open(out, "problem_counts", '{');
    for (size_t i = 0; i < n_codes; i++) {
        qn_json_out_u64(out, qn_problem_name(codes[i]), problems->n_of[codes[i]]);
    }
    qn_json_out_close(out, '}');
}

static void put_names(qn_json_out *out, const char *key, const qn_exclude *names)
{
    qn_json_out_open(out, key, '[');
    for (size_t i = 0; i < names->n_names; i++) {
        qn_json_out_str(out, NULL, names->names[i]);
    }
    qn_json_out_close(out, ']');
}

static void put_fix(qn_json_out *out, const qn_doctor *d)
{
    if (!d->request->fixes) {
        qn_json_out_null(out, "fix");
        return;
    }
    qn_json_out_open(out, "fix", '{');
    qn_json_out_text(out, "path", d->fixed_path);
    put_names(out, "added", &d->changes.added);
    put_names(out, "removed", &d->changes.removed);
    qn_json_out_close(out, '}');
}

static void put_tensor(qn_json_out *out, const qn_inventory *inventory, const qn_entry *entry)
{
    qn_tensor_name name;
    qn_tensor_name_parse(&name, entry->tensor->name);
    qn_json_out_open(out, NULL, '{');
    qn_json_out_str(out, "name", entry->tensor->name);
    qn_json_out_text(out, "kind", qn_tensor_kind_name(name.kind));
    qn_json_out_text(out, "dtype", entry->is_known ? qn_dtype_name(entry->tensor->dtype) : NULL);
    if (entry->is_known) {
        qn_json_out_open(out, "shape", '[');
        for (uint32_t i = 0; i < entry->tensor->rank; i++) {
            qn_json_out_u64(out, NULL, entry->tensor->shape[i]);
        }
        qn_json_out_close(out, ']');
    } else {
        qn_json_out_null(out, "shape");
    }
    qn_json_out_maybe(out, "bytes", entry->is_known, entry->tensor->size_bytes);
    qn_json_out_text(out, "shard", qn_inventory_file_of(inventory, entry));
    qn_json_out_close(out, '}');
}

static void put_tensors(qn_json_out *out, const qn_inventory *inventory)
{
    qn_json_out_open(out, "tensors", '[');
    for (size_t i = 0; i < inventory->n_entries; i++) {
        put_tensor(out, inventory, &inventory->entries[i]);
    }
    qn_json_out_close(out, ']');
}

/* The first of "architectures", and "model_type", of any config. */
static void put_architecture(qn_json_out *out, const qn_doctor *d, qn_buf *room)
{
    const qn_json_node *const list = qn_json_member(d->config_doc.nodes, "architectures");
    const qn_json_node *const nodes[2] = {
        list != NULL && list->kind == QN_JSON_ARRAY && list->n_children > 0 ? list + 1 : NULL,
        qn_json_member(d->config_doc.nodes, "model_type"),
    };
    static const char *const keys[2] = {"architecture", "model_type"};
    for (int i = 0; i < 2; i++) {
        qn_buf_clear(room);
        if (nodes[i] != NULL && nodes[i]->kind == QN_JSON_STRING) {
            out->has_lost |= qn_json_string_append(room, nodes[i], NULL) < 0;
            qn_json_out_str(out, keys[i], qn_buf_view(room));
        } else {
            qn_json_out_null(out, keys[i]);
        }
    }
}

static void put_report(qn_json_out *out, const qn_doctor *d, const sums *s, qn_buf *room)
{
    static const char *const contents[] = {"weights", "headers", "index", "none"};
    const qn_inventory *const inventory = &d->inventory;
    const bool knows_parameters = d->has_config && inventory->n_entries > 0;
    qn_json_out_open(out, NULL, '{');
    qn_json_out_bool(out, "ok", qn_problems_count(&d->problems, true) == 0);
    qn_json_out_u64(out, "errors", qn_problems_count(&d->problems, true));
    qn_json_out_u64(out, "warnings", qn_problems_count(&d->problems, false));
    qn_json_out_text(out, "contents", inventory->is_file ? "file" : contents[inventory->contents]);
    put_architecture(out, d, room);
    qn_json_out_maybe(out, "parameters", knows_parameters, d->facts.n_parameters);
    qn_json_out_maybe(out, "router_bias_parameters", knows_parameters, d->facts.n_router_bias);
    qn_json_out_maybe(out, "active_parameters", knows_parameters, d->facts.n_active);
    qn_json_out_maybe(out, "bytes", s->n_known > 0, s->n_bytes);
    qn_json_out_u64(out, "tensor_count", inventory->n_entries);
    put_shards(out, inventory);
    put_config(out, d);
    put_tokenizer(out, d);
    put_quantization(out, d, s);
    put_layers(out, d, s);
    put_kinds(out, s);
    put_problems(out, &d->problems);
    qn_json_out_maybe(out, "verified_bytes", d->request->verifies, d->verified_bytes);
    put_fix(out, d);
    if (d->request->lists_tensors) {
        put_tensors(out, inventory);
    }
    qn_json_out_close(out, '}');
}

qn_status qn_doctor_report(char **report, const qn_doctor *d, qn_error *err)
{
    qn_json_out out;
    qn_buf room;
    qn_json_out_init(&out);
    qn_buf_init(&room, d->config_text.len);
    *report = NULL;
    sums *const s = calloc(1, sizeof *s);
    for (size_t i = 0; s != NULL && i < d->inventory.n_entries; i++) {
        count_entry(s, &d->inventory.entries[i]);
    }
    if (s != NULL) {
        put_report(&out, d, s, &room);
    }
    const bool is_whole = s != NULL && !out.has_lost && !d->problems.has_lost;
    free(s);
    qn_buf_deinit(&room);
    if (!is_whole) {
        qn_json_out_deinit(&out);
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "inspect: no memory for the report");
    }
    *report = out.text.ptr; /* taken */
    return QN_OK;
}

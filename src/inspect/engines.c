/* SPDX-License-Identifier: Apache-2.0 */
#include "inspect/engines.h"

#include "base/try.h"
#include "format/config.h"

#include <inttypes.h>
#include <stdio.h>

/* What one engine gets wrong in one way. */
typedef struct finding {
    uint64_t n_modules;
    const qn_module *first;
    qn_storage taken_for; /* what the first is built as */
    qn_exclude names;     /* by which it asks for them, owned */
} finding;

/* By how the modules are stored and what they are built as. */
enum {
    PLAIN_TAKEN,     /* bf16 as something quantized */
    QUANTIZED_TAKEN, /* quantized as bf16 */
    OTHER_TAKEN,     /* quantized as something else that is */
    NEVER_TAKEN,     /* quantized, which engines never build it as */
    MIXED,           /* parts of what engines build as one, stored in several ways */
    N_WAYS,
};

typedef struct check {
    const qn_declared *declared;
    const qn_modules *modules;
    const qn_inventory *inventory;
    int32_t mtp_layer;
    bool has_mtp; /* a module of it */
    qn_matcher matchers[QN_N_ENGINES];
    finding findings[QN_N_ENGINES][N_WAYS];
    unsigned experts[QN_LAYERS_MAX]; /* how a layer's are stored, as bits 1 << qn_storage */
    qn_name_changes *changes;
    qn_problems *problems;
    qn_error *err;
} check;

void qn_name_changes_deinit(qn_name_changes *changes)
{
    qn_exclude_deinit(&changes->added);
    qn_exclude_deinit(&changes->removed);
}

static bool is_quantized(qn_storage storage)
{
    return storage == QN_STORAGE_FP8 || storage == QN_STORAGE_MXFP4;
}

static const char *format_name(qn_storage storage)
{
    return storage == QN_STORAGE_MXFP4   ? "MXFP4"
           : storage == QN_STORAGE_FP8   ? "FP8"
           : storage == QN_STORAGE_OTHER ? "another format"
                                         : "BF16";
}

/* Engines never quantize these, whatever a list says. */
static bool is_never_quantized(const qn_module *module)
{
    return module->kind == QN_KIND_HEAD || module->kind == QN_KIND_ROUTER ||
           (module->kind == QN_KIND_INDEXER && qn_str_ends(module->name, ".weights_proj"));
}

static bool is_judged(const qn_module *module)
{
    return module->is_linear &&
           (module->storage == QN_STORAGE_PLAIN || is_quantized(module->storage));
}

static bool is_in_mixed_block(const check *c, const qn_module *module)
{
    if (module->kind != QN_KIND_ROUTED_EXPERT) {
        return false;
    }
    const unsigned found = module->layer < QN_LAYERS_MAX ? c->experts[module->layer] : 0;
    return (found & (found - 1)) != 0; /* more than one bit */
}

/* Is the other part of a projection that engines fuse stored in another way? */
static bool is_half_of_mixed(const check *c, const qn_module *module)
{
    char room[QN_MODULE_BYTES_MAX];
    const qn_module *const other =
        qn_modules_find(c->modules, qn_fused_sibling(module->name, room));
    return other != NULL && is_judged(other) && other->storage != module->storage;
}

/* ------------------------------------------------------------------ the list and the tensors -- */

/* "model.layers.3.mlp.gate_proj.weight": how tensors are called. */
static qn_str weight_name(const qn_module *module)
{
    return module->weight != NULL ? module->weight->name : module->name;
}

/* One module by its name in the checkpoint. */
static qn_status check_module(check *c, const qn_module *module)
{
    const qn_declared *const d = c->declared;
    const qn_storage said = module->declared;
    if (said == module->storage ||
        (d->is_fp8 && module->storage == QN_STORAGE_PLAIN && is_never_quantized(module))) {
        return QN_OK;
    }
    if (module->storage == QN_STORAGE_PLAIN) {
        qn_problems_add(c->problems, QN_PROBLEM_NOT_EXCLUDED, weight_name(module), NULL,
                        "%s, %s expected, as no entry of quantization_config.%s covers it",
                        qn_dtype_name(module->weight->dtype), format_name(said), d->list_key);
        return is_in_mixed_block(c, module)
                   ? QN_OK /* it would be the whole block's for others */
                   : qn_exclude_add(&c->changes->added, module->name, c->err);
    }
    if (!module->is_covered) {
        qn_problems_add(c->problems, QN_PROBLEM_QUANT_DIFFERS, weight_name(module), NULL,
                        "%s, %s expected by quantization_config", format_name(module->storage),
                        format_name(said));
        return QN_OK;
    }
    const bool is_named = qn_exclude_equals(&d->exclude, module->name);
    qn_problems_add(c->problems, QN_PROBLEM_EXCLUDED_QUANTIZED, weight_name(module), NULL,
                    "%s, BF16 expected, as quantization_config.%s %s", format_name(module->storage),
                    d->list_key,
                    is_named ? "names it"
                             : "covers it by a pattern or a path above it, which --fix leaves");
    return is_named ? qn_exclude_add(&c->changes->removed, module->name, c->err) : QN_OK;
}

/* Is it a name of the MTP layer, which is not there?  That is a problem of its own. */
static bool is_of_absent_mtp(const check *c, qn_str name)
{
    char prefix[32];
    (void)snprintf(prefix, sizeof prefix, "model.layers.%d.", (int)c->mtp_layer);
    return !c->has_mtp && c->mtp_layer >= 0 && qn_str_begins(name, prefix);
}

/* Is it a name of a module or a tensor, here or with an engine, or of what is above one? */
static bool name_means_something(const check *c, qn_str name)
{
    char room[QN_MODULE_BYTES_MAX];
    const qn_str here = qn_checkpoint_name(name, c->mtp_layer, room);
    return qn_modules_have(c->modules, name) || qn_modules_have(c->modules, here) ||
           qn_inventory_find(c->inventory, name) != NULL || is_of_absent_mtp(c, name) ||
           is_of_absent_mtp(c, here);
}

static bool pattern_means_something(const check *c, const qn_exclude_pattern *pattern)
{
    for (size_t i = 0; i < c->modules->n_items; i++) {
        if (qn_exclude_pattern_matches(pattern, c->modules->items[i].name)) {
            return true;
        }
    }
    for (size_t i = 0; i < c->inventory->n_entries; i++) {
        if (qn_exclude_pattern_matches(pattern, c->inventory->entries[i].tensor->name)) {
            return true;
        }
    }
    return false;
}

static void report_entry(const check *c, qn_str text)
{
    qn_problems_add(c->problems, QN_PROBLEM_EXCLUDE_NOTHING, (qn_str){0}, "config.json",
                    "quantization_config.%s: \"%.*s\" matches nothing, the name of a module "
                    "expected",
                    c->declared->list_key, text.len < 200 ? (int)text.len : 200, text.ptr);
}

static void check_entries(const check *c)
{
    const qn_exclude *const list = &c->declared->exclude;
    for (size_t i = 0; i < list->n_names; i++) {
        if (!name_means_something(c, list->names[i])) {
            report_entry(c, list->names[i]);
        }
    }
    for (size_t i = 0; i < list->n_patterns; i++) {
        if (!pattern_means_something(c, &list->patterns[i])) {
            report_entry(c, list->patterns[i].text);
        }
    }
}

/* ------------------------------------------------------------------------------- the engines -- */

/* Do engines build it as a Linear? */
static bool is_asked_for(const qn_module *module)
{
    return module->kind != QN_KIND_OTHER && module->kind != QN_KIND_EMBEDDING &&
           module->kind != QN_KIND_NORM;
}

static qn_storage taken_for(const check *c, qn_engine engine, const qn_module *module)
{
    char room[QN_MODULE_BYTES_MAX];
    qn_str names[2];
    const qn_matcher *const m = &c->matchers[engine];
    const bool is_vllm = engine == QN_ENGINE_VLLM_OLD || engine == QN_ENGINE_VLLM;
    const size_t n_names = qn_matcher_layer_names(m, module, names, room);
    return is_never_quantized(module) ? QN_STORAGE_PLAIN
                                      : qn_declared_for(c->declared, qn_matcher_excludes(m, module),
                                                        names, n_names, is_vllm);
}

static int way_of(const check *c, const qn_module *module, qn_storage as)
{
    return is_never_quantized(module)                                    ? NEVER_TAKEN
           : is_in_mixed_block(c, module) || is_half_of_mixed(c, module) ? MIXED
           : !is_quantized(module->storage)                              ? PLAIN_TAKEN
           : as == QN_STORAGE_PLAIN                                      ? QUANTIZED_TAKEN
                                                                         : OTHER_TAKEN;
}

/* The name that a list should have for it, or not have; the fused one is ATOM's own. */
static qn_status add_wanted(check *c, qn_engine engine, const qn_module *module, int way,
                            finding *f)
{
    char room[QN_MODULE_BYTES_MAX];
    const qn_str name = qn_matcher_name(&c->matchers[engine], module, room);
    const bool is_last =
        f->names.n_names > 0 && qn_str_equal(f->names.names[f->names.n_names - 1], name);
    if (is_last || name.len == 0) {
        return QN_OK; /* the block of the expert before */
    }
    qn_status status = qn_exclude_add(&f->names, name, c->err);
    if (status == QN_OK && way == QUANTIZED_TAKEN &&
        qn_exclude_equals(&c->declared->exclude, name)) {
        status = qn_exclude_add(&c->changes->removed, name, c->err);
    } else if (status == QN_OK && way == PLAIN_TAKEN) {
        const bool is_block = module->kind == QN_KIND_ROUTED_EXPERT;
        status =
            qn_exclude_add(&c->changes->added,
                           engine == QN_ENGINE_ATOM && !is_block ? module->name : name, c->err);
    }
    return status;
}

/* One module as each engine builds it.  What the newer one gets wrong is not told of the older. */
static qn_status check_engines_for(check *c, const qn_module *module)
{
    static const qn_engine order[QN_N_ENGINES] = {
        QN_ENGINE_SGLANG, QN_ENGINE_SGLANG_OLD, QN_ENGINE_VLLM, QN_ENGINE_VLLM_OLD, QN_ENGINE_ATOM};
    bool is_wrong[QN_N_ENGINES] = {false};
    qn_status status = QN_OK;
    for (size_t i = 0; i < QN_N_ENGINES; i++) {
        const qn_engine engine = order[i];
        const qn_storage as = taken_for(c, engine, module);
        const int way = way_of(c, module, as);
        finding *const f = &c->findings[engine][way];
        is_wrong[engine] = as != module->storage || way == MIXED;
        if (!is_wrong[engine] || (engine == QN_ENGINE_SGLANG_OLD && is_wrong[QN_ENGINE_SGLANG]) ||
            (engine == QN_ENGINE_VLLM_OLD && is_wrong[QN_ENGINE_VLLM])) {
            continue;
        }
        f->taken_for = f->n_modules == 0 ? as : f->taken_for;
        f->first = f->n_modules == 0 ? module : f->first;
        f->n_modules++;
        QN_TRY(status, add_wanted(c, engine, module, way, f), fail);
    }
fail:
    return status;
}

/* "U8 [6144, 6144]": what an engine allocates for a matrix of that logical shape. */
static void print_parameter(char *out, size_t out_bytes, const qn_module *module, qn_storage as)
{
    if (as == QN_STORAGE_OTHER) {
        (void)snprintf(out, out_bytes, "a parameter of that format");
        return;
    }
    const uint64_t n_in = module->weight->shape[1] * (module->storage == QN_STORAGE_MXFP4 ? 2 : 1);
    const uint64_t shape[2] = {module->weight->shape[0], as == QN_STORAGE_MXFP4 ? n_in / 2 : n_in};
    const char *const dtype = as == QN_STORAGE_MXFP4 ? "U8"
                              : as == QN_STORAGE_FP8 ? "F8_E4M3"
                                                     : "BF16";
    const size_t used = (size_t)snprintf(out, out_bytes, "%s ", dtype);
    qn_shape_print(out + used, out_bytes - used, shape, 2);
}

/* The first names that were asked for. */
static void print_names(char *out, size_t out_bytes, const qn_exclude *names)
{
    enum { N_SHOWN = 3 };
    size_t len = 0;
    for (size_t i = 0; i < names->n_names && i < N_SHOWN && len < out_bytes; i++) {
        len += (size_t)snprintf(out + len, out_bytes - len, "%s%.*s", i > 0 ? ", " : "",
                                (int)names->names[i].len, names->names[i].ptr);
    }
    if (names->n_names > N_SHOWN && len < out_bytes) {
        (void)snprintf(out + len, out_bytes - len, " and %zu more", names->n_names - N_SHOWN);
    }
}

static void report_finding(const check *c, qn_engine engine, int way, finding *f)
{
    static const struct {
        const char *name;
        qn_problem_code code;
    } engines[QN_N_ENGINES] = {
        [QN_ENGINE_SGLANG_OLD] = {"SGLang before its #30265", QN_PROBLEM_SGLANG_OLD},
        [QN_ENGINE_SGLANG] = {"SGLang, with its #30265 too,", QN_PROBLEM_SGLANG},
        [QN_ENGINE_VLLM_OLD] = {"vLLM before its #46757", QN_PROBLEM_VLLM_OLD},
        [QN_ENGINE_VLLM] = {"vLLM, with its #46757 too,", QN_PROBLEM_VLLM},
        [QN_ENGINE_ATOM] = {"ATOM", QN_PROBLEM_ATOM},
    };
    static const char *const remedies[N_WAYS] = {
        [PLAIN_TAKEN] = "exclude should name",
        [QUANTIZED_TAKEN] = "exclude should not name",
        [OTHER_TAKEN] = "layer_quant_config should name",
        [NEVER_TAKEN] = "whatever a list says, BF16 expected of",
    };
    char parameter[64];
    char stored[64];
    char names[800] = "";
    const char *const name = engines[engine].name;
    const qn_problem_code code = engines[engine].code;
    if (f->n_modules == 0) {
        return;
    }
    const qn_module *const first = f->first;
    const bool is_one = f->n_modules == 1;
    qn_exclude_seal(&f->names);
    print_names(names, sizeof names, &f->names);
    if (way == MIXED) {
        qn_problems_add(c->problems, code, weight_name(first), NULL,
                        "%s builds this and %" PRIu64 " more modules as one with others that are "
                        "stored in another format, which no list can say; one format expected "
                        "within each of %s",
                        name, f->n_modules - 1, names);
        return;
    }
    print_parameter(parameter, sizeof parameter, first, f->taken_for);
    const size_t len =
        (size_t)snprintf(stored, sizeof stored, "%s ", qn_dtype_name(first->weight->dtype));
    qn_shape_print(stored + len, sizeof stored - len, first->weight->shape, first->weight->rank);
    qn_problems_add(c->problems, code, weight_name(first), NULL,
                    "%s builds %" PRIu64 " %s module%s as %s and stops at %s: %s for %s of the "
                    "file; %s %s",
                    name, f->n_modules, format_name(first->storage), is_one ? "" : "s",
                    format_name(f->taken_for), is_one ? "its shape" : "their shapes", parameter,
                    stored, remedies[way], names);
}

static void note_experts(check *c)
{
    for (size_t i = 0; i < c->modules->n_items; i++) {
        const qn_module *const module = &c->modules->items[i];
        if (module->kind == QN_KIND_ROUTED_EXPERT && is_judged(module) &&
            module->layer < QN_LAYERS_MAX) {
            c->experts[module->layer] |= 1U << module->storage;
        }
    }
}

static qn_status open_matchers(check *c)
{
    qn_status status = QN_OK;
    for (int e = 0; e < QN_N_ENGINES && status == QN_OK; e++) {
        status = qn_matcher_open(&c->matchers[e], (qn_engine)e, &c->declared->exclude, c->mtp_layer,
                                 c->err);
    }
    return status;
}

static qn_status check_engines(check *c)
{
    qn_status status = QN_OK;
    qn_declared_check_sglang(c->declared, c->problems);
    QN_TRY(status, open_matchers(c), fail);
    for (size_t i = 0; i < c->modules->n_items && status == QN_OK; i++) {
        const qn_module *const module = &c->modules->items[i];
        status = is_judged(module) && is_asked_for(module) ? check_engines_for(c, module) : QN_OK;
    }
    for (int e = 0; e < QN_N_ENGINES && status == QN_OK; e++) {
        for (int way = 0; way < N_WAYS; way++) {
            report_finding(c, (qn_engine)e, way, &c->findings[e][way]);
        }
    }
fail:
    for (int e = 0; e < QN_N_ENGINES; e++) {
        qn_matcher_close(&c->matchers[e]);
        for (int way = 0; way < N_WAYS; way++) {
            qn_exclude_deinit(&c->findings[e][way].names);
        }
    }
    return status;
}

qn_status qn_engines_check(const qn_declared *declared, const qn_modules *modules,
                           const qn_inventory *inventory, int32_t mtp_layer,
                           qn_name_changes *changes, qn_problems *problems, qn_error *err)
{
    char mtp[32];
    qn_status status = QN_OK;
    check c = {.declared = declared,
               .modules = modules,
               .inventory = inventory,
               .mtp_layer = mtp_layer,
               .changes = changes,
               .problems = problems,
               .err = err};
    (void)snprintf(mtp, sizeof mtp, "model.layers.%d", (int)mtp_layer);
    c.has_mtp = qn_modules_have(modules, qn_str_of(mtp));
    note_experts(&c);
    if (inventory->is_complete) {
        check_entries(&c);
    }
    for (size_t i = 0; i < modules->n_items && status == QN_OK; i++) {
        status = is_judged(&modules->items[i]) ? check_module(&c, &modules->items[i]) : QN_OK;
    }
    if (status == QN_OK && declared->is_quark) {
        status = check_engines(&c);
    }
    qn_exclude_seal(&changes->added);
    qn_exclude_seal(&changes->removed);
    return status;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "inspect/tensors.h"

#include "base/try.h"
#include "model/weights.h"

#include <inttypes.h>

/* Names that the scale of a matrix may have (docs/formats.md). */
static const char *const scale_parts[] = {"weight_scale_inv", "weight_scale",
                                          "weight_quantizer.scale"};
enum { N_SCALE_PARTS = sizeof scale_parts / sizeof *scale_parts, N_SHAPED = 5 };

typedef struct check {
    qn_tensor_facts *facts;
    const qn_config *config;
    const qn_inventory *inventory;
    const qn_foreign *foreign;
    const qn_declared *declared;
    qn_problems *problems;
    qn_binder binder;
    char mtp_prefix[32];                  /* "model.layers.N." */
    uint64_t n_mtp;                       /* tensors that the MTP layer has ... */
    uint64_t n_mtp_missing;               /* ... and those of them that are not there */
    char mtp_missing[112];                /* the first of these */
    uint64_t n_shaped[N_SHAPED];          /* modules of each format in shaped[] ... */
    const qn_tensor *shaped_as[N_SHAPED]; /* ... and the first of them */
} check;

/* ------------------------------------------------------------------ what the binder looks in -- */

static const qn_tensor *find_known(const void *context, qn_str name, size_t *i_tensor)
{
    const qn_inventory *const inventory = context;
    const qn_entry *const entry = qn_inventory_find(inventory, name);
    if (entry == NULL || !entry->is_known) {
        return NULL;
    }
    *i_tensor = (size_t)(entry - inventory->entries);
    return entry->tensor;
}

static const char *file_of(const void *context, const qn_tensor *tensor)
{
    const qn_inventory *const inventory = context;
    return qn_inventory_file_of(inventory, qn_inventory_find(inventory, tensor->name));
}

static qn_tensor_source source_of(const qn_inventory *inventory)
{
    return (qn_tensor_source){.find = find_known,
                              .file_of = file_of,
                              .context = inventory,
                              .path = "checkpoint",
                              .n_tensors = inventory->n_entries};
}

/* ----------------------------------------------------------------------------- what is wrong -- */

static void mark(check *c, const qn_entry *entry)
{
    if (entry != NULL) {
        c->binder.is_used[entry - c->inventory->entries] = true;
    }
}

static bool is_scale(qn_str part)
{
    for (size_t i = 0; i < N_SCALE_PARTS; i++) {
        if (qn_str_equal(part, qn_str_of(scale_parts[i]))) {
            return true;
        }
    }
    return false;
}

/* Formats that are known by shapes alone. */
static const struct {
    const char *variant;
    qn_problem_code code;
    qn_dtype weight, scale;
    uint32_t codes, bytes; /* so many codes take so many bytes */
    uint32_t block;        /* codes that share a scale; 0: a row */
} shaped[] = {
    {"NVFP4 (a scale in e4m3 for each 16 codes)", QN_PROBLEM_FORMAT_NVFP4, QN_DTYPE_U8,
     QN_DTYPE_F8_E4M3, 2, 1, 16},
    {"MXFP6 (3 bytes for 4 codes, a scale for each 32)", QN_PROBLEM_FORMAT_MXFP6, QN_DTYPE_U8,
     QN_DTYPE_U8, 4, 3, 32},
    {"compressed-tensors, int-quantized (INT8)", QN_PROBLEM_FORMAT_COMPRESSED_TENSORS, QN_DTYPE_I8,
     QN_DTYPE_BF16, 1, 1, 0},
    {"compressed-tensors, int-quantized (INT8)", QN_PROBLEM_FORMAT_COMPRESSED_TENSORS, QN_DTYPE_I8,
     QN_DTYPE_F32, 1, 1, 0},
    {"MXFP8 (e4m3 with a scale for each 32)", QN_PROBLEM_FORMAT_MXFP8, QN_DTYPE_F8_E4M3,
     QN_DTYPE_U8, 1, 1, 32},
};

/* A matrix that was refused may be of one of these: then it is counted as such. */
static bool is_shaped(check *c, const qn_tensor_spec *spec, qn_str module)
{
    const qn_entry *const weight = qn_inventory_find_part(c->inventory, module, "weight");
    const qn_entry *const scale = qn_inventory_find_part(c->inventory, module, "weight_scale");
    if (weight == NULL || scale == NULL || !weight->is_known || !scale->is_known ||
        weight->tensor->rank != 2 || scale->tensor->rank != 2) {
        return false;
    }
    const qn_dtype scale_dtype =
        scale->tensor->dtype == QN_DTYPE_F8_E8M0 ? QN_DTYPE_U8 : scale->tensor->dtype;
    for (size_t i = 0; i < N_SHAPED; i++) {
        if (weight->tensor->dtype == shaped[i].weight && scale_dtype == shaped[i].scale &&
            weight->tensor->shape[1] * shaped[i].codes == (uint64_t)spec->n_in * shaped[i].bytes &&
            scale->tensor->shape[1] * (shaped[i].block > 0 ? shaped[i].block : spec->n_in) ==
                spec->n_in) {
            c->shaped_as[i] = c->n_shaped[i]++ == 0 ? weight->tensor : c->shaped_as[i];
            return true;
        }
    }
    return false;
}

/* Is it right that the tensor is missing, or is that said elsewhere? */
static bool is_missing_explained(check *c, const qn_tensor_spec *spec, qn_str module)
{
    const qn_str wanted = qn_str_of(spec->name);
    if (!c->inventory->is_complete || qn_inventory_find(c->inventory, wanted) != NULL ||
        qn_inventory_lists(c->inventory, wanted)) {
        return true; /* by name it is there */
    }
    for (size_t i = 0; i < N_SCALE_PARTS; i++) { /* reported as a scale without its weight */
        if (spec->vector == NULL &&
            qn_inventory_find_part(c->inventory, module, scale_parts[i]) != NULL) {
            return true;
        }
    }
    if (qn_str_begins(qn_str_of(spec->name), c->mtp_prefix)) {
        if (c->n_mtp_missing++ == 0) {
            memcpy(c->mtp_missing, spec->name, sizeof c->mtp_missing);
        }
        return true;
    }
    return false;
}

/* The code of a fault of the binder; QN_N_PROBLEMS where it is said elsewhere. */
static qn_problem_code code_of(check *c, const qn_tensor_spec *spec, qn_str module)
{
    const qn_tensor *const faulty = c->binder.faulty;
    qn_tensor_name name;
    qn_tensor_name_parse(&name, faulty != NULL ? faulty->name : qn_str_of(spec->name));
    const bool is_of_scale = is_scale(name.part);
    const qn_dtype dtype = faulty != NULL ? faulty->dtype : QN_DTYPE_BF16;
    if (qn_foreign_explains(c->foreign, module) ||
        (c->binder.fault != QN_BIND_MISSING && is_shaped(c, spec, module))) {
        return QN_N_PROBLEMS;
    }
    switch (c->binder.fault) {
    case QN_BIND_MISSING:
        return is_missing_explained(c, spec, module) ? QN_N_PROBLEMS : QN_PROBLEM_TENSOR_MISSING;
    case QN_BIND_NO_SCALE:
        for (size_t i = dtype == QN_DTYPE_F8_E4M3 ? 0 : 1; i < N_SCALE_PARTS; i++) {
            if (qn_inventory_find_part(c->inventory, module, scale_parts[i]) != NULL) {
                return QN_N_PROBLEMS; /* known by name alone, which is said already */
            }
        }
        return c->inventory->is_complete ? QN_PROBLEM_SCALE_MISSING : QN_N_PROBLEMS;
    case QN_BIND_SHAPE:
        if (is_of_scale) {
            return QN_PROBLEM_SCALE_SHAPE;
        }
        return spec->vector == NULL && qn_storage_of(dtype) == QN_STORAGE_MXFP4 && faulty != NULL &&
                       faulty->rank == 2 && faulty->shape[0] == spec->n_out
                   ? QN_PROBLEM_PACKING
                   : QN_PROBLEM_TENSOR_SHAPE;
    case QN_BIND_DTYPE: return is_of_scale ? QN_PROBLEM_SCALE_DTYPE : QN_PROBLEM_TENSOR_DTYPE;
    }
    return QN_N_PROBLEMS;
}

static void report_fault(check *c, const qn_tensor_spec *spec, qn_str module, const char *text)
{
    const qn_problem_code code = code_of(c, spec, module);
    const qn_tensor *const faulty = c->binder.faulty;
    if (code != QN_N_PROBLEMS && faulty != NULL) {
        qn_problems_add_error(c->problems, code, faulty->name, file_of(c->inventory, faulty), text);
    } else if (code != QN_N_PROBLEMS) {
        qn_problems_add_error(c->problems, code, qn_str_of(spec->name), NULL,
                              text + strlen(c->binder.source.path) + 2);
    }
    const qn_str name = qn_str_of(spec->name);
    const qn_entry *const weight = qn_inventory_find(c->inventory, name);
    mark(c, weight);
    if (weight != NULL || qn_inventory_lists(c->inventory, name)) { /* by name at least */
        for (size_t i = 0; i < N_SCALE_PARTS; i++) {
            mark(c, qn_inventory_find_part(c->inventory, module, scale_parts[i]));
        }
    }
}

/* Names of scales that we read and others do not. */
static void check_scale_name(const check *c, const qn_stored *stored)
{
    qn_tensor_name name;
    if (stored->scale == NULL) {
        return;
    }
    qn_tensor_name_parse(&name, stored->scale->name);
    if (qn_str_equal(name.part, qn_str_of("weight_quantizer.scale"))) {
        qn_problems_add(c->problems, QN_PROBLEM_SCALE_NAME, stored->scale->name,
                        file_of(c->inventory, stored->scale),
                        "weight_quantizer.scale, weight_scale expected: vLLM stops at the name");
    } else if (stored->weight.kind == QN_WEIGHT_FP8_BLOCK &&
               qn_str_equal(name.part, qn_str_of("weight_scale"))) {
        qn_problems_add(c->problems, QN_PROBLEM_FP8_SCALE_NAME, stored->scale->name,
                        file_of(c->inventory, stored->scale),
                        "weight_scale beside FP8 with a scale for each 128 x 128, "
                        "weight_scale_inv expected by vLLM and SGLang");
    }
}

/* ---------------------------------------------------------------------------------- counting -- */

/* Elements that a token meets: 1 in n_experts / n_experts_used of a routed expert's. */
static uint64_t active_elements(const check *c, const qn_tensor_spec *spec)
{
    const uint64_t n = (uint64_t)spec->n_out * spec->n_in;
    if (spec->vector != NULL || spec->role == QN_ROLE_EMBEDDING ||
        qn_str_begins(qn_str_of(spec->name), c->mtp_prefix)) {
        return 0;
    }
    qn_tensor_name name;
    qn_tensor_name_parse(&name, qn_str_of(spec->name));
    return name.kind != QN_KIND_ROUTED_EXPERT                 ? n
           : name.expert < (int32_t)c->config->n_experts_used ? n
                                                              : 0;
}

static qn_status visit(void *context, const qn_tensor_spec *spec, qn_error *err)
{
    check *const c = context;
    qn_tensor_facts *const facts = c->facts;
    qn_error mine = {0};
    qn_stored stored = {0};
    qn_tensor_name name;
    qn_tensor_name_parse(&name, qn_str_of(spec->name));
    const uint64_t n = (uint64_t)spec->n_out * (spec->n_in > 0 ? spec->n_in : 1);
    facts->n_active += active_elements(c, spec);
    c->n_mtp += qn_str_begins(qn_str_of(spec->name), c->mtp_prefix);
    if (qn_inventory_find(c->inventory, qn_str_of(spec->name)) != NULL) {
        uint64_t *const sum =
            spec->role == QN_ROLE_ROUTER_BIAS ? &facts->n_router_bias : &facts->n_parameters;
        *sum += n;
    }
    const qn_status status = qn_binder_find(&c->binder, spec, &stored, &mine);
    if (status == QN_E_FORMAT) {
        report_fault(c, spec, name.module, mine.text);
        return QN_OK;
    }
    if (status == QN_OK) {
        check_scale_name(c, &stored);
    } else if (err != NULL) {
        *err = mine;
    }
    return status;
}

/* A tensor that nobody has asked for. */
static void report_unasked(const check *c, const qn_entry *entry, const qn_tensor_name *name)
{
    const qn_str tensor = entry->tensor->name;
    const char *const file = qn_inventory_file_of(c->inventory, entry);
    char seen[192] = "a name";
    if (entry->is_known) {
        const int len = snprintf(seen, sizeof seen, "%s ", qn_dtype_name(entry->tensor->dtype));
        qn_shape_print(seen + len, sizeof seen - (size_t)len, entry->tensor->shape,
                       entry->tensor->rank);
    }
    if (!is_scale(name->part)) {
        qn_problems_add(c->problems, QN_PROBLEM_TENSOR_UNKNOWN, tensor, file,
                        "%s, no tensor of this name expected", seen);
        return;
    }
    const qn_entry *const weight = qn_inventory_find_part(c->inventory, name->module, "weight");
    qn_problems_add(c->problems, QN_PROBLEM_SCALE_ALONE, tensor, file,
                    "%s beside %s, a quantized weight of this one scale expected", seen,
                    weight == NULL      ? "no weight"
                    : !weight->is_known ? "a weight that cannot be read"
                                        : qn_dtype_name(weight->tensor->dtype));
}

/* All that nobody has asked for, but what is said elsewhere. */
static void report_rest(const check *c)
{
    for (size_t i = 0; i < c->inventory->n_entries; i++) {
        const qn_entry *const entry = &c->inventory->entries[i];
        const qn_str tensor = entry->tensor->name;
        qn_tensor_name name;
        qn_tensor_name_parse(&name, tensor);
        const bool is_of_mtp = qn_str_begins(tensor, c->mtp_prefix);
        if (!c->binder.is_used[i] && !qn_is_trunk_copy(c->config, tensor) &&
            !qn_foreign_explains(c->foreign, name.module) &&
            !(is_of_mtp && c->facts->has_mtp && c->config->n_mtp_layers == 0)) {
            report_unasked(c, entry, &name);
        }
    }
}

/* Is a tensor of the MTP layer there?  Copies of trunk tables in it do not count. */
static bool finds_mtp(const check *c)
{
    const qn_config with_mtp = {.n_layers = c->config->n_layers, .n_mtp_layers = 1};
    const size_t n_entries = c->inventory->n_entries;
    for (size_t i = 0; i < n_entries + c->inventory->n_index; i++) {
        const qn_str name = i < n_entries ? c->inventory->entries[i].tensor->name
                                          : c->inventory->index[i - n_entries].tensor;
        if (qn_str_begins(name, c->mtp_prefix) && !qn_is_trunk_copy(&with_mtp, name)) {
            return true;
        }
    }
    return false;
}

static void report_mtp(const check *c)
{
    const bool is_declared = c->config->n_mtp_layers > 0;
    if (!is_declared && c->facts->has_mtp) {
        qn_problems_add(c->problems, QN_PROBLEM_MTP_UNDECLARED, (qn_str){0}, "config.json",
                        "num_nextn_predict_layers: 0, 1 expected, as there are tensors of %s*",
                        c->mtp_prefix);
    } else if (is_declared && !c->facts->has_mtp && c->inventory->is_complete &&
               c->inventory->n_entries > 0) {
        qn_problems_add(c->problems, QN_PROBLEM_MTP_MISSING, (qn_str){0}, NULL,
                        "no tensor of the MTP layer, %s* expected: it loads without speculation",
                        c->mtp_prefix);
    } else if (c->n_mtp_missing > 0) {
        qn_problems_add(c->problems, QN_PROBLEM_MTP_INCOMPLETE, qn_str_of(c->mtp_missing), NULL,
                        "missing, and with it %" PRIu64 " of %" PRIu64
                        " tensors of the MTP layer; all of them, or none, expected",
                        c->n_mtp_missing, c->n_mtp);
    }
}

qn_status qn_tensors_check(qn_tensor_facts *facts, const qn_config *config,
                           const qn_inventory *inventory, const qn_foreign *foreign,
                           const qn_declared *declared, qn_problems *problems, qn_error *err)
{
    check c = {.facts = facts,
               .config = config,
               .inventory = inventory,
               .foreign = foreign,
               .declared = declared,
               .problems = problems};
    qn_status status = QN_OK;
    qn_weights weights = {0};
    *facts = (qn_tensor_facts){0};
    const qn_tensor_source source = source_of(inventory);
    (void)snprintf(c.mtp_prefix, sizeof c.mtp_prefix, "model.layers.%u.", config->n_layers);
    facts->has_mtp = finds_mtp(&c);
    QN_TRY(status, qn_binder_init(&c.binder, &source, err), fail);
    QN_TRY(status,
           qn_weights_init(&weights, config, facts->has_mtp && config->n_mtp_layers > 0, err),
           fail);
    QN_TRY(status, qn_tensor_list_walk(config, &weights, visit, &c, err), fail);
    report_mtp(&c);
    report_rest(&c);
    for (size_t i = 0; i < N_SHAPED; i++) {
        if (c.n_shaped[i] > 0) {
            facts->has_shaped = true;
            qn_foreign_add(problems, shaped[i].code, shaped[i].variant, c.n_shaped[i],
                           c.shaped_as[i]->name, declared);
        }
    }
fail:
    qn_weights_deinit(&weights);
    qn_binder_deinit(&c.binder);
    return status;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "inspect/foreign.h"

#include "inspect/sorted.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

static bool is_part(const qn_tensor_name *name, const char *part)
{
    return qn_str_equal(name->part, qn_str_of(part));
}

/* 4-bit integers of GPTQ are packed along the input, those of AWQ along the output.  Where shapes
 * are not known quant_method is believed. */
static void tell_gptq_from_awq(qn_foreign_module *m, const qn_inventory *inventory,
                               const qn_declared *declared)
{
    const qn_entry *const codes = qn_inventory_find_part(inventory, m->name, "qweight");
    const qn_entry *const zeros = qn_inventory_find_part(inventory, m->name, "qzeros");
    const bool is_known = codes != NULL && zeros != NULL && codes->is_known && zeros->is_known &&
                          codes->tensor->rank == 2 && zeros->tensor->rank == 2;
    const bool has_g_idx = qn_inventory_find_part(inventory, m->name, "g_idx") != NULL;
    const bool is_awq = !has_g_idx && (is_known ? codes->tensor->shape[1] == zeros->tensor->shape[1]
                                                : strcmp(declared->method, "awq") == 0);
    const bool is_gptq = has_g_idx || is_known || strcmp(declared->method, "gptq") == 0;
    m->code = is_awq ? QN_PROBLEM_FORMAT_AWQ : QN_PROBLEM_FORMAT_GPTQ;
    m->variant = is_awq    ? "AWQ (qweight packed along the output)"
                 : is_gptq ? "GPTQ (qweight, qzeros, scales)"
                           : "GPTQ or AWQ (qweight, qzeros, scales)";
}

/* weight_packed holds integers, or codes of MXFP4 or of NVFP4. */
static void tell_packed(qn_foreign_module *m, const qn_inventory *inventory, const qn_entry *entry)
{
    m->code = QN_PROBLEM_FORMAT_COMPRESSED_TENSORS;
    m->variant = "compressed-tensors";
    if (qn_inventory_find_part(inventory, m->name, "weight_global_scale") != NULL) {
        m->variant = "compressed-tensors, nvfp4-pack-quantized (NVFP4)";
    } else if (entry->is_known && entry->tensor->dtype == QN_DTYPE_I32) {
        m->variant = "compressed-tensors, pack-quantized (integers in weight_packed, as W4A16)";
    } else if (entry->is_known && entry->tensor->dtype == QN_DTYPE_U8) {
        m->variant = "compressed-tensors, mxfp4-pack-quantized (MXFP4 in weight_packed)";
    }
}

/* "MODULE.weight.absmax", "MODULE.weight.quant_state.bitsandbytes__nf4", "MODULE.SCB" and their
 * like. */
static bool is_of_bitsandbytes(qn_str *module, const qn_tensor_name *name, qn_str tensor)
{
    static const char *const infixes[] = {".weight.absmax", ".weight.quant_", ".weight.nested_"};
    for (size_t i = 0; i < sizeof infixes / sizeof *infixes; i++) {
        const char *const at = memmem(tensor.ptr, tensor.len, infixes[i], strlen(infixes[i]));
        if (at != NULL) {
            module->len = (size_t)(at - tensor.ptr);
            return true;
        }
    }
    return is_part(name, "SCB") || is_part(name, "weight_format");
}

/* Does the tensor belong to another format?  Then *m is its module. */
static bool take_entry(qn_foreign_module *m, const qn_inventory *inventory,
                       const qn_declared *declared, const qn_entry *entry)
{
    qn_tensor_name name;
    qn_tensor_name_parse(&name, entry->tensor->name);
    *m = (qn_foreign_module){.name = name.module, .tensor = entry->tensor->name};
    if (is_part(&name, "weight_packed")) {
        tell_packed(m, inventory, entry);
    } else if (is_part(&name, "qweight")) {
        tell_gptq_from_awq(m, inventory, declared);
    } else if (is_part(&name, "scale")) {
        m->code = QN_PROBLEM_FORMAT_OTHER;
        m->variant = "DeepSeek-V4's MXFP4 or FP8 (a \"scale\" beside each weight)";
    } else if (is_part(&name, "biases")) {
        m->code = QN_PROBLEM_FORMAT_OTHER;
        m->variant = "MLX (scales and biases of groups)";
    } else if (is_of_bitsandbytes(&m->name, &name, entry->tensor->name)) {
        m->code = QN_PROBLEM_FORMAT_OTHER;
        m->variant = "bitsandbytes (absmax, quant_map; SCB)";
    } else if (is_part(&name, "weight_scale_2")) {
        m->code = QN_PROBLEM_FORMAT_NVFP4;
        m->variant = "NVFP4 (weight_scale_2, a scale for each 16 codes)";
    } else if (qn_str_ends(name.part, "_blocks") || qn_str_ends(name.part, "_scales")) {
        m->code = QN_PROBLEM_FORMAT_GPT_OSS;
        m->variant = "gpt-oss's MXFP4 (_blocks and _scales of all experts at once)";
    } else if (qn_str_ends(name.module, ".mlp.experts") &&
               (is_part(&name, "gate_up_proj") || is_part(&name, "down_proj"))) {
        m->code = QN_PROBLEM_EXPERTS_FUSED;
        m->variant = "experts fused into one tensor (gate_up_proj), as transformers holds them";
    } else {
        return false;
    }
    return true;
}

static int by_name(const void *a, const void *b)
{
    const qn_foreign_module *const x = a;
    const qn_foreign_module *const y = b;
    const int order = qn_str_compare(x->name, y->name);
    return order != 0 ? order : (int)x->code - (int)y->code;
}

qn_status qn_foreign_open(qn_foreign *out, const qn_inventory *inventory,
                          const qn_declared *declared, qn_error *err)
{
    *out = (qn_foreign){0};
    out->items = calloc(inventory->n_entries + 1, sizeof *out->items);
    if (out->items == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "modules: no memory to list them");
    }
    size_t n = 0;
    for (size_t i = 0; i < inventory->n_entries; i++) {
        n += take_entry(&out->items[n], inventory, declared, &inventory->entries[i]) ? 1 : 0;
    }
    qsort(out->items, n, sizeof *out->items, by_name);
    for (size_t i = 0; i < n; i++) {
        const qn_foreign_module *const here = &out->items[i];
        if (out->n_items == 0 || !qn_str_equal(out->items[out->n_items - 1].name, here->name)) {
            out->items[out->n_items++] = *here;
        }
    }
    return QN_OK;
}

void qn_foreign_close(qn_foreign *foreign)
{
    free(foreign->items);
    *foreign = (qn_foreign){0};
}

static bool has(const qn_foreign *foreign, qn_str module)
{
    return module.len > 0 &&
           qn_sorted_find(foreign->items, foreign->n_items, sizeof *foreign->items, module) != NULL;
}

/* What of a name ends in @p word, up to its first place; the empty slice, which is no module's,
 * where it is not in it. */
static qn_str up_to(qn_str name, const char *word)
{
    const char *const at = name.len == 0 ? NULL : memmem(name.ptr, name.len, word, strlen(word));
    return at == NULL ? (qn_str){0} : (qn_str){name.ptr, (size_t)(at - name.ptr) + strlen(word)};
}

bool qn_foreign_explains(const qn_foreign *foreign, qn_str module)
{
    static const char weight[] = ".weight"; /* bitsandbytes has tensors below it */
    qn_str above = up_to(module, weight);
    above.len -= above.len > 0 ? strlen(weight) : 0;
    return foreign->n_items > 0 && (has(foreign, module) || has(foreign, above) ||
                                    has(foreign, up_to(module, ".mlp.experts")));
}

void qn_foreign_add(qn_problems *problems, qn_problem_code code, const char *variant,
                    uint64_t n_modules, qn_str tensor, const qn_declared *declared)
{
    qn_problems_add(problems, code, tensor, NULL,
                    "%s in %" PRIu64 " module%s (quantization_config says %s); BF16, block FP8 or "
                    "AMD Quark's MXFP4 with a tensor for each expert expected",
                    variant, n_modules, n_modules == 1 ? "" : "s",
                    declared->root == NULL        ? "nothing"
                    : declared->method[0] != '\0' ? declared->method
                                                  : "no quant_method");
}

void qn_foreign_report(const qn_foreign *foreign, const qn_declared *declared,
                       qn_problems *problems)
{
    for (int code = QN_PROBLEM_FORMAT_NVFP4; code <= QN_PROBLEM_EXPERTS_FUSED; code++) {
        uint64_t n = 0;
        const qn_foreign_module *first = NULL;
        for (size_t i = 0; i < foreign->n_items; i++) {
            if ((int)foreign->items[i].code == code) {
                first = first == NULL ? &foreign->items[i] : first;
                n++;
            }
        }
        if (first != NULL) {
            qn_foreign_add(problems, first->code, first->variant, n, first->tensor, declared);
        }
    }
}

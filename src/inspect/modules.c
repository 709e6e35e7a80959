/* SPDX-License-Identifier: Apache-2.0 */
#include "inspect/modules.h"

#include "inspect/sorted.h"

#include <errno.h>
#include <stdlib.h>

const char *qn_storage_name(qn_storage storage)
{
    static const char *const names[] = {
        [QN_STORAGE_NONE] = NULL, [QN_STORAGE_UNKNOWN] = NULL,  [QN_STORAGE_PLAIN] = "bf16",
        [QN_STORAGE_FP8] = "fp8", [QN_STORAGE_MXFP4] = "mxfp4", [QN_STORAGE_OTHER] = "other",
    };
    return names[storage];
}

qn_storage qn_storage_of(qn_dtype dtype)
{
    switch (dtype) {
    case QN_DTYPE_F32:
    case QN_DTYPE_F16:
    case QN_DTYPE_BF16: return QN_STORAGE_PLAIN;
    case QN_DTYPE_F8_E4M3: return QN_STORAGE_FP8;
    case QN_DTYPE_U8:
    case QN_DTYPE_I8: return QN_STORAGE_MXFP4;
    default: return QN_STORAGE_OTHER;
    }
}

static void take_entry(qn_module *module, const qn_entry *entry)
{
    qn_tensor_name name;
    qn_tensor_name_parse(&name, entry->tensor->name);
    *module = (qn_module){.name = name.module, .kind = name.kind, .layer = name.layer};
    if (!qn_str_equal(name.part, qn_str_of("weight"))) {
        return;
    }
    module->storage = QN_STORAGE_UNKNOWN;
    if (entry->is_known) {
        module->weight = entry->tensor;
        module->storage = qn_storage_of(entry->tensor->dtype);
        module->is_linear = qn_tensor_name_is_linear(entry->tensor->name, entry->tensor->rank);
    }
}

/* Of one module the one with the weight first. */
static int by_name(const void *a, const void *b)
{
    const qn_module *const x = a;
    const qn_module *const y = b;
    const int order = qn_str_compare(x->name, y->name);
    return order != 0 ? order : (x->storage < y->storage) - (x->storage > y->storage);
}

qn_status qn_modules_open(qn_modules *out, const qn_inventory *inventory, qn_error *err)
{
    *out = (qn_modules){0};
    out->items = calloc(inventory->n_entries + 1, sizeof *out->items);
    if (out->items == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "modules: no memory to list them");
    }
    for (size_t i = 0; i < inventory->n_entries; i++) {
        take_entry(&out->items[i], &inventory->entries[i]);
    }
    qsort(out->items, inventory->n_entries, sizeof *out->items, by_name);
    size_t n = 0;
    for (size_t i = 0; i < inventory->n_entries; i++) {
        if (n == 0 || !qn_str_equal(out->items[n - 1].name, out->items[i].name)) {
            out->items[n++] = out->items[i];
        }
    }
    out->n_items = n;
    return QN_OK;
}

void qn_modules_close(qn_modules *modules)
{
    free(modules->items);
    *modules = (qn_modules){0};
}

const qn_module *qn_modules_find(const qn_modules *modules, qn_str name)
{
    return qn_sorted_find(modules->items, modules->n_items, sizeof *modules->items, name);
}

bool qn_modules_have(const qn_modules *modules, qn_str name)
{
    return qn_modules_find(modules, name) != NULL ||
           qn_sorted_has_below(modules->items, modules->n_items, sizeof *modules->items, name);
}

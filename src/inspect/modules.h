/* SPDX-License-Identifier: Apache-2.0 */
/** @file modules.h  The modules that a checkpoint's tensors belong to, and how each is stored. */
#ifndef QN_INSPECT_MODULES_H
#define QN_INSPECT_MODULES_H
#include "format/tensor_name.h"
#include "inspect/inventory.h"

/** How a matrix is stored, by the dtype of its elements. */
typedef enum qn_storage {
    QN_STORAGE_NONE,    /**< No matrix. */
    QN_STORAGE_UNKNOWN, /**< Its header was not read. */
    QN_STORAGE_PLAIN,   /**< bf16, f16 or f32. */
    QN_STORAGE_FP8,     /**< e4m3 */
    QN_STORAGE_MXFP4,   /**< Bytes of two codes. */
    QN_STORAGE_OTHER,   /**< Anything else. */
} qn_storage;

/** "bf16" is said of every plain one; "fp8", "mxfp4", "other"; NULL for none and unknown. */
const char *qn_storage_name(qn_storage storage);
/** Of elements of that dtype. */
qn_storage qn_storage_of(qn_dtype dtype);

/** A module: what stands before ".weight", ".weight_scale" ... in the names of its tensors. */
typedef struct qn_module {
    qn_str name; /**< Borrowed from the inventory. */
    qn_tensor_kind kind;
    int32_t layer;           /**< -1: of none. */
    qn_storage storage;      /**< Of its weight. */
    const qn_tensor *weight; /**< Borrowed; NULL: none, or its header was not read. */
    /** A matrix that AMD Quark takes for a Linear: no norm, no embedding. */
    bool is_linear;
    bool is_covered;     /**< The list of unquantized modules means it, by any rule. */
    qn_storage declared; /**< Of a linear one: what quantization_config says; else NONE. */
} qn_module;

/** All of them.  All-zero is closed. */
typedef struct qn_modules {
    qn_module *items; /**< [n_items] owned, in order of name. */
    size_t n_items;
} qn_modules;

/** Find them.  @p inventory is borrowed until close.  QN_OK; QN_E_NOMEM */
QN_MUST_CHECK qn_status qn_modules_open(qn_modules *out, const qn_inventory *inventory,
                                        qn_error *err);
void qn_modules_close(qn_modules *modules);

/** The module of that name; NULL where there is none. */
const qn_module *qn_modules_find(const qn_modules *modules, qn_str name);
/** Is there a module of that name, or one below it, "NAME.x"? */
bool qn_modules_have(const qn_modules *modules, qn_str name);
#endif

/* SPDX-License-Identifier: Apache-2.0 */
/** @file foreign.h  Formats that quern does not run, known by the names of their tensors. */
#ifndef QN_INSPECT_FOREIGN_H
#define QN_INSPECT_FOREIGN_H
#include "inspect/declared.h"

/** A module whose tensors are of another format. */
typedef struct qn_foreign_module {
    qn_str name; /**< Borrowed from the inventory. */
    qn_problem_code code;
    const char *variant; /**< What exactly it is; static. */
    qn_str tensor;       /**< By which it was known; borrowed. */
} qn_foreign_module;

/** All of them.  All-zero is closed. */
typedef struct qn_foreign {
    qn_foreign_module *items; /**< [n_items] owned, in order of name, each once. */
    size_t n_items;
} qn_foreign;

/** Find them.  @p inventory is borrowed until close.  QN_OK; QN_E_NOMEM */
QN_MUST_CHECK qn_status qn_foreign_open(qn_foreign *out, const qn_inventory *inventory,
                                        const qn_declared *declared, qn_error *err);
void qn_foreign_close(qn_foreign *foreign);

/** Is the module, or the block of experts that it is in, of another format? */
bool qn_foreign_explains(const qn_foreign *foreign, qn_str module);

/** One problem for each format that was found. */
void qn_foreign_report(const qn_foreign *foreign, const qn_declared *declared,
                       qn_problems *problems);
/** A problem of @p n_modules modules of one format; the form of all of these. */
void qn_foreign_add(qn_problems *problems, qn_problem_code code, const char *variant,
                    uint64_t n_modules, qn_str tensor, const qn_declared *declared);
#endif

/* SPDX-License-Identifier: Apache-2.0 */
/** @file gpu_library.h  A vendor's library, loaded at run time.  Nothing is linked. */
#ifndef QN_DEVICE_GPU_LIBRARY_H
#define QN_DEVICE_GPU_LIBRARY_H
#include "quern/status.h"

#include <stddef.h>

/** A function to be found. */
typedef struct qn_gpu_symbol {
    const char *name;
    const char *old_name; /**< What older libraries call it; NULL: the same. */
    void *function;       /**< Address of the pointer to it. */
} qn_gpu_symbol;

/**
 * Open the first of @p names that can be, for good: a driver cannot be unloaded.
 * @param names  [n_names], at most 4
 * Returns  QN_OK; QN_E_NOT_FOUND with all the names where none is there; QN_E_DEVICE why the first
 *          that is there cannot be loaded
 */
QN_MUST_CHECK qn_status qn_gpu_library_open(void **out, const char *const *names, size_t n_names,
                                            qn_error *err);

/** Find all of @p symbols.  QN_E_DEVICE: the first that is not there. */
QN_MUST_CHECK qn_status qn_gpu_library_find(void *library, const qn_gpu_symbol *symbols,
                                            size_t n_symbols, qn_error *err);
#endif

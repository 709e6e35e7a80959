/* SPDX-License-Identifier: Apache-2.0 */
/** @file layer_formats.h  layer_quant_config: formats by names of modules, the first match wins. */
#ifndef QN_INSPECT_LAYER_FORMATS_H
#define QN_INSPECT_LAYER_FORMATS_H
#include "base/json_doc.h"
#include "inspect/exclude.h"
#include "inspect/modules.h"

/** A key, or the part of one that begins with "model.". */
typedef struct qn_layer_key {
    qn_str text; /**< Borrowed from the document. */
    uint32_t place;
    qn_storage storage;
    bool is_whole;
} qn_layer_key;

/** All keys.  All-zero is empty. */
typedef struct qn_layer_formats {
    qn_layer_key *names; /**< [n_names] owned, sorted: keys that are no globs, and their parts. */
    size_t n_names;
    qn_layer_key *globs; /**< [n_globs] owned, in order of place. */
    size_t n_globs;
    size_t n_ignored; /**< Globs over QN_EXCLUDE_PATTERNS_MAX. */
} qn_layer_formats;

/**
 * Take the keys of an object, borrowed until close.  One with escapes or of more than 1,024
 * bytes, as no module's name is, means no module.
 *
 * @param storage_of  what one "weight" of Quark's says; NULL for a key without it
 * Returns  QN_OK; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_layer_formats_open(qn_layer_formats *out, const qn_json_node *object,
                                              qn_storage (*storage_of)(const qn_json_node *weight),
                                              qn_error *err);
void qn_layer_formats_close(qn_layer_formats *formats);

/**
 * Of the first key that means one of @p names: it equals it, or is a glob for it; or, where
 * @p by_substring and the key has no star, as vLLM compares, the name is a part of the key.
 * QN_STORAGE_NONE where there is none.
 *
 * @param names  a substring is found by names that begin with "model.", as all modules' do
 */
qn_storage qn_layer_formats_find(const qn_layer_formats *formats, const qn_str *names,
                                 size_t n_names, bool by_substring);
#endif

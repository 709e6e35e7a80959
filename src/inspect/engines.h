/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file engines.h  Do the names in quantization_config mean for SGLang, vLLM and ATOM what the
 * tensors are?  What each asks for is told in docs/internals/inspect.md.
 */
#ifndef QN_INSPECT_ENGINES_H
#define QN_INSPECT_ENGINES_H
#include "inspect/declared.h"

/** An engine, and how it was before its names were mended. */
typedef enum qn_engine {
    QN_ENGINE_SGLANG_OLD, /**< Before sglang #30265. */
    QN_ENGINE_SGLANG,
    QN_ENGINE_VLLM_OLD, /**< Before vllm #46757. */
    QN_ENGINE_VLLM,
    QN_ENGINE_ATOM,
    QN_N_ENGINES,
} qn_engine;

/** One engine's view of a list of modules.  All-zero is closed; it may not be moved while open. */
typedef struct qn_matcher {
    qn_engine engine;
    int32_t mtp_layer;         /**< num_hidden_layers; -1: not known. */
    const qn_exclude *exclude; /**< Borrowed, or own. */
    qn_exclude own;            /**< The list as the engine rewrites it. */
} qn_matcher;

/** @p exclude is borrowed until close.  QN_OK; QN_E_NOMEM */
QN_MUST_CHECK qn_status qn_matcher_open(qn_matcher *out, qn_engine engine,
                                        const qn_exclude *exclude, int32_t mtp_layer,
                                        qn_error *err);
void qn_matcher_close(qn_matcher *matcher);

/**
 * The name by which the engine asks for a module of the checkpoint, of a routed expert for the
 * block of all of them.  The slice is in @p room; empty for a name that is too long.
 */
enum { QN_MODULE_BYTES_MAX = 256 };
qn_str qn_matcher_name(const qn_matcher *matcher, const qn_module *module,
                       char room[QN_MODULE_BYTES_MAX]);
/**
 * The checkpoint's name for one of an engine's: of SGLang's draft model, or of a fused projection,
 * of whose parts the first is taken.  Other names stay.  The slice is in @p room; empty for a name
 * that is too long.
 */
qn_str qn_checkpoint_name(qn_str name, int32_t mtp_layer, char room[QN_MODULE_BYTES_MAX]);
/** The other part of a projection that engines fuse of two, in @p room; empty: it is no part. */
qn_str qn_fused_sibling(qn_str name, char room[QN_MODULE_BYTES_MAX]);
/** By which names the engine looks for the module in layer_quant_config, one or two.  @p room is
 * for the first. */
size_t qn_matcher_layer_names(const qn_matcher *matcher, const qn_module *module, qn_str names[2],
                              char room[QN_MODULE_BYTES_MAX]);
/** Does the engine take the module for one that is not quantized? */
bool qn_matcher_excludes(const qn_matcher *matcher, const qn_module *module);

/** Names that a list should gain and lose.  All-zero is empty. */
typedef struct qn_name_changes {
    qn_exclude added, removed; /**< Owned; names alone, sealed and without repetition. */
} qn_name_changes;
void qn_name_changes_deinit(qn_name_changes *changes);

/**
 * Report entries of the list that mean nothing, tensors that are not what the list says, and what
 * each engine gets wrong; of a list that can be mended @p changes says how.
 *
 * @param modules      marked by qn_declared_mark()
 * @param mtp_layer    num_hidden_layers; -1: not known
 * Returns  QN_OK; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_engines_check(const qn_declared *declared, const qn_modules *modules,
                                         const qn_inventory *inventory, int32_t mtp_layer,
                                         qn_name_changes *changes, qn_problems *problems,
                                         qn_error *err);
#endif

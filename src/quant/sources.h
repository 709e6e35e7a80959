/* SPDX-License-Identifier: Apache-2.0 */
/** @file sources.h  The files of a model folder: its shards, its configuration, the rest. */
#ifndef QN_QUANT_SOURCES_H
#define QN_QUANT_SOURCES_H
#include "quern/status.h"

#include "base/buf.h"
#include "quant/target.h"

#include <jansson.h>

#define QN_CONFIG_NAME "config.json"

enum {
    QN_CONFIG_BYTES_MAX = 16 << 20, /**< Of config.json. */
    QN_INDEX_BYTES_MAX = 256 << 20, /**< Of the index. */
};

/** The shards of a folder.  All-zero is closed. */
typedef struct qn_sources {
    char **files;   /**< [n_files] names, owned, in order. */
    size_t n_files; /**< May be 0 where the folder may lack them. */
    json_t *index;  /**< Owned; NULL without one. */
    json_t *map;    /**< Its weight_map, borrowed from it: tensor to file; NULL without one. */
} qn_sources;

/**
 * List the shards that the index names, or without one model.safetensors, or every *.safetensors.
 * @param may_lack  none has to be there, since an earlier run may have deleted them
 * Returns  QN_OK; QN_E_NOT_FOUND; QN_E_FORMAT; QN_E_IO; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_sources_open(qn_sources *out, const char *dir, bool may_lack,
                                        qn_error *err);
/** Free it; closing twice is fine. */
void qn_sources_close(qn_sources *sources);

/**
 * What else a model folder holds goes to @p target under the same names, links followed: all but
 * *.safetensors, README*.md and what begins with a dot, and at the top config.json, the index and a
 * manifest.
 *
 * @param target       NULL: only count
 * @param[out] n_bytes of all these files
 * Returns  QN_OK; QN_E_FORMAT for what is neither file nor folder, or folders too deep; QN_E_IO;
 *          QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_sources_copy_rest(uint64_t *n_bytes, const char *dir,
                                             const qn_target *target, qn_error *err);
#endif

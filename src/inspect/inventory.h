/* SPDX-License-Identifier: Apache-2.0 */
/** @file inventory.h  What lies in a model's folder: shards, their headers, the index. */
#ifndef QN_INSPECT_INVENTORY_H
#define QN_INSPECT_INVENTORY_H
#include "base/buf.h"
#include "base/pool.h"
#include "format/safetensors_header.h"
#include "inspect/problems.h"

/** How much of a checkpoint is there. */
typedef enum qn_contents {
    QN_CONTENTS_WEIGHTS, /**< Shards with their data. */
    QN_CONTENTS_HEADERS, /**< Shards that end behind their header. */
    QN_CONTENTS_INDEX,   /**< No shard, but an index that names the tensors. */
    QN_CONTENTS_NONE,    /**< Neither. */
} qn_contents;

/** One file. */
typedef struct qn_shard {
    char *path;       /**< Owned. */
    const char *name; /**< The last part of path. */
    uint64_t file_bytes;
    uint64_t header_bytes; /**< The eight bytes of its length included. */
    qn_safetensors_header header;
    bool is_read;       /**< The header was understood. */
    bool is_missing;    /**< No such file. */
    qn_problems faults; /**< While the shard is read. */
    qn_buf lost;        /**< Names, each with its NUL, of entries that cannot be read. */
} qn_shard;

/** One tensor. */
typedef struct qn_entry {
    const qn_tensor *tensor; /**< Borrowed; of one that only a name is known of, that alone. */
    uint32_t i_shard;        /**< QN_NO_SHARD: a name of the index, whose shard was not read. */
    bool is_known;           /**< More than the name. */
    bool is_repeated;        /**< Other shards have one of this name too. */
} qn_entry;
enum { QN_SHARDS_MAX = 100000, QN_NO_SHARD = QN_SHARDS_MAX };

/** An entry of weight_map. */
typedef struct qn_index_entry {
    qn_str tensor, file; /**< In qn_inventory.index_texts, each with a NUL behind it. */
} qn_index_entry;

/** All of it.  All-zero is closed. */
typedef struct qn_inventory {
    qn_contents contents;
    qn_shard *shards; /**< [n_shards] owned, in order of name. */
    size_t n_shards;
    qn_entry *entries; /**< [n_entries] owned, in order of name, each name once. */
    size_t n_entries;
    qn_index_entry *index; /**< [n_index] owned, in order of tensor. */
    size_t n_index;
    qn_buf index_texts;    /**< Owned. */
    qn_tensor *names;      /**< Owned: what entries of a name alone point to. */
    bool has_index;        /**< There is an index, and it could be read. */
    bool is_file;          /**< One file was asked for: what else there is is not known. */
    bool is_complete;      /**< Every name that the checkpoint has is known. */
    uint64_t file_bytes;   /**< Of all shards. */
    uint64_t data_bytes;   /**< Of all tensors, by their headers. */
    uint64_t header_bytes; /**< Of all headers. */
} qn_inventory;

/**
 * Read the index and every header, nothing else, on the threads of @p pool.  What is wrong goes
 * into @p problems.
 *
 * @param file  name of the only shard to look at; NULL: the folder
 * Returns  QN_OK; QN_E_NOT_FOUND where there is no such folder or @p file; QN_E_IO; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_inventory_open(qn_inventory *out, const char *dir, const char *file,
                                          qn_pool *pool, qn_problems *problems, qn_error *err);
/** Free what is owned; closing twice is fine. */
void qn_inventory_close(qn_inventory *inventory);

/** The entry of a name; NULL where there is none. */
const qn_entry *qn_inventory_find(const qn_inventory *inventory, qn_str name);
/** The entry of MODULE.PART, a name of at most 511 bytes; NULL where there is none. */
const qn_entry *qn_inventory_find_part(const qn_inventory *inventory, qn_str module,
                                       const char *part);
/** Does the index name a tensor so? */
bool qn_inventory_lists(const qn_inventory *inventory, qn_str name);
/** Name of the file an entry lies in; NULL where it is not known. */
const char *qn_inventory_file_of(const qn_inventory *inventory, const qn_entry *entry);
#endif

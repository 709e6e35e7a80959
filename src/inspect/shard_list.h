/* SPDX-License-Identifier: Apache-2.0 */
/** @file shard_list.h  Which files a checkpoint consists of: by its index, else by its folder. */
#ifndef QN_INSPECT_SHARD_LIST_H
#define QN_INSPECT_SHARD_LIST_H
#include "inspect/inventory.h"

/**
 * Fill in the shards, not read yet, and the index of an inventory, whose is_file is set.  The files
 * are those that qn_checkpoint_open() would open.
 *
 * Returns  QN_OK; QN_E_NOT_FOUND or QN_E_IO where the folder cannot be read; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_shard_list_open(qn_inventory *inventory, const char *dir,
                                           const char *file, qn_problems *problems, qn_error *err);

/** The shard of that name; NULL where there is none. */
qn_shard *qn_shard_list_find(const qn_inventory *inventory, qn_str name);
#endif

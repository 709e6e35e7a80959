/* SPDX-License-Identifier: Apache-2.0 */
/** @file locate.h  From what a user calls a model to the folder it lies in. */
#ifndef QN_API_LOCATE_H
#define QN_API_LOCATE_H
#include "quern/status.h"

/**
 * Folder of the model @p name: itself where it is a folder, else owner/name in the Hugging Face
 * cache.
 *
 * @param[out] path  owned by the caller (free); NULL on failure
 * Returns  QN_OK; QN_E_NOT_FOUND that says how to get it; QN_E_FORMAT for what is not a folder;
 *          QN_E_INVAL for an empty name; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_locate_model(char **path, const char *name, qn_error *err);
#endif

/* SPDX-License-Identifier: Apache-2.0 */
/** @file sorted.h  Search in arrays whose items begin with a qn_str, in bytewise order of it. */
#ifndef QN_INSPECT_SORTED_H
#define QN_INSPECT_SORTED_H
#include "base/str.h"

/** Number of items that stand before @p name: the place of the first that does not. */
size_t qn_sorted_place(const void *items, size_t n_items, size_t item_bytes, qn_str name);
/** The first item of exactly that name; NULL where there is none. */
const void *qn_sorted_find(const void *items, size_t n_items, size_t item_bytes, qn_str name);
/** Is there an item below @p path, of a name "PATH.x"?  Paths over 4,094 bytes have none. */
bool qn_sorted_has_below(const void *items, size_t n_items, size_t item_bytes, qn_str path);
#endif

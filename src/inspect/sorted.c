/* SPDX-License-Identifier: Apache-2.0 */
#include "inspect/sorted.h"

static qn_str name_at(const void *items, size_t i_item, size_t item_bytes)
{
    qn_str name;
    memcpy(&name, (const char *)items + i_item * item_bytes, sizeof name);
    return name;
}

size_t qn_sorted_place(const void *items, size_t n_items, size_t item_bytes, qn_str name)
{
    size_t first = 0;
    size_t end = n_items;
    while (first < end) {
        const size_t middle = first + (end - first) / 2;
        if (qn_str_compare(name_at(items, middle, item_bytes), name) < 0) {
            first = middle + 1;
        } else {
            end = middle;
        }
    }
    return first;
}

const void *qn_sorted_find(const void *items, size_t n_items, size_t item_bytes, qn_str name)
{
    const size_t at = qn_sorted_place(items, n_items, item_bytes, name);
    return at < n_items && qn_str_equal(name_at(items, at, item_bytes), name)
               ? (const char *)items + at * item_bytes
               : NULL;
}

bool qn_sorted_has_below(const void *items, size_t n_items, size_t item_bytes, qn_str path)
{
    char below[4096];
    if (path.len + 2 > sizeof below) {
        return false;
    }
    memcpy(below, path.ptr, path.len);
    memcpy(below + path.len, ".", 2);
    const size_t at = qn_sorted_place(items, n_items, item_bytes, (qn_str){below, path.len + 1});
    return at < n_items && qn_str_begins(name_at(items, at, item_bytes), below) &&
           name_at(items, at, item_bytes).len > path.len + 1;
}

/* SPDX-License-Identifier: Apache-2.0 */
/** @file mapping.h  Memory of which most is seldom touched: a mapping of its own. */
#ifndef QN_BASE_MAPPING_H
#define QN_BASE_MAPPING_H
#include <stddef.h>

/**
 * Memory that fills as it is touched, not set to anything.  From malloc() the pages that such
 * blocks touch, here and there, would stay with the process when it has freed them, more with every
 * block. Returns  the block, which qn_mapping_free() releases; NULL: no memory
 */
void *qn_mapping_alloc(size_t size_bytes);

/** Give a block of @p size_bytes back to the system; accepts NULL. */
void qn_mapping_free(void *block, size_t size_bytes);
#endif

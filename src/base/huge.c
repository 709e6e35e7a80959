/* SPDX-License-Identifier: Apache-2.0 */
#include "base/huge.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { LINE_BYTES = 64, HUGE_BYTES = 2 << 20 };

void *qn_huge_alloc(size_t size_bytes)
{
    const size_t align = size_bytes < HUGE_BYTES ? LINE_BYTES : HUGE_BYTES;
    if (size_bytes > SIZE_MAX - align) {
        return NULL;
    }
    const size_t n_bytes = (size_bytes + align - 1) / align * align;
    void *const block = aligned_alloc(align, n_bytes);
    if (block != NULL && align == HUGE_BYTES) {
        (void)madvise(block, n_bytes, MADV_HUGEPAGE); /* advice: without, it is slower */
    }
    return block;
}

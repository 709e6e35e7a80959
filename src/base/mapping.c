/* SPDX-License-Identifier: Apache-2.0 */
#include "base/mapping.h"

#include <stdlib.h>
#include <sys/mman.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) && !defined(__SANITIZE_ADDRESS__)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif

#ifdef __SANITIZE_ADDRESS__ /* what is written behind the end of a block shows */

void *qn_mapping_alloc(size_t size_bytes)
{
    return malloc(size_bytes);
}

void qn_mapping_free(void *block, size_t size_bytes)
{
    (void)size_bytes;
    free(block);
}

#else

void *qn_mapping_alloc(size_t size_bytes)
{
    void *const block =
        mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return block != MAP_FAILED ? block : NULL;
}

void qn_mapping_free(void *block, size_t size_bytes)
{
    if (block != NULL) {
        (void)munmap(block, size_bytes);
    }
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#include "base/arena.h"

#include "base/assert.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer) && !defined(__SANITIZE_ADDRESS__)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
enum { REDZONE_BYTES = 64 };
#else
#define ASAN_POISON_MEMORY_REGION(ptr, bytes)   ((void)(ptr), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(ptr, bytes) ((void)(ptr), (void)(bytes))
enum { REDZONE_BYTES = 0 };
#endif

const size_t qn_arena_redzone_bytes = REDZONE_BYTES;

void qn_arena_init(qn_arena *arena, void *block, size_t capacity_bytes)
{
    *arena = (qn_arena){.base = block, .capacity_bytes = capacity_bytes};
    if (block != NULL) {
        ASAN_POISON_MEMORY_REGION(block, capacity_bytes);
    }
}

void *qn_arena_alloc(qn_arena *arena, size_t size_bytes, size_t align)
{
    QN_ASSERT(align > 0);
    QN_ASSERT((align & (align - 1)) == 0);
    const uintptr_t at = (uintptr_t)arena->base + arena->used_bytes;
    const size_t pad_bytes = (size_t)(-at & (align - 1));
    const size_t free_bytes = arena->capacity_bytes - arena->used_bytes;
    const size_t extra_bytes = pad_bytes + REDZONE_BYTES;
    if (extra_bytes > free_bytes || size_bytes > free_bytes - extra_bytes) {
        return NULL;
    }
    const size_t first_byte = arena->used_bytes + pad_bytes;
    arena->used_bytes += extra_bytes + size_bytes;
    if (arena->used_bytes > arena->used_bytes_max) {
        arena->used_bytes_max = arena->used_bytes;
    }
    if (arena->base == NULL) {
        return NULL;
    }
    ASAN_UNPOISON_MEMORY_REGION(arena->base + first_byte, size_bytes);
    return arena->base + first_byte;
}

void qn_arena_reset(qn_arena *arena)
{
    QN_ASSERT(arena->used_bytes <= arena->capacity_bytes);
    arena->used_bytes = 0;
    if (arena->base != NULL) {
        ASAN_POISON_MEMORY_REGION(arena->base, arena->capacity_bytes);
    }
}

void qn_arena_deinit(qn_arena *arena)
{
    if (arena->base != NULL) {
        ASAN_UNPOISON_MEMORY_REGION(arena->base, arena->capacity_bytes);
    }
    *arena = (qn_arena){0};
}

/* SPDX-License-Identifier: Apache-2.0 */
/** @file arena.h  Bump allocator: one owner, one lifetime, freed all at once. */
#ifndef QN_BASE_ARENA_H
#define QN_BASE_ARENA_H
#include <stddef.h>
#include <stdint.h>

/**
 * Arena over a caller-owned block.  Not thread safe: one arena, one thread.  Under AddressSanitizer
 * unused bytes are poisoned and a red zone follows every allocation.
 */
typedef struct qn_arena {
    uint8_t *base;         /**< Borrowed; the caller frees it, after qn_arena_deinit().  NULL: the
                                arena only measures. */
    size_t capacity_bytes; /**< Size of the block. */
    size_t used_bytes;     /**< Handed out since the last reset, padding included. */
    size_t used_bytes_max; /**< High-water mark, for sizing and reports. */
} qn_arena;

/** Bytes of the block that a sanitizer build adds to each allocation; 0 otherwise. */
extern const size_t qn_arena_redzone_bytes;

/**
 * Use @p block, borrowed until qn_arena_deinit().  With NULL nothing is handed out (NULL is), but
 * used_bytes grows: the size of a block, aligned like the strictest allocation, for the same calls.
 */
void qn_arena_init(qn_arena *arena, void *block, size_t capacity_bytes);

/** Memory as it was in the block, borrowed until reset; NULL when the budget is spent.  @p align is
 * a power of 2. */
void *qn_arena_alloc(qn_arena *arena, size_t size_bytes, size_t align);

/** Take everything back; what was handed out may not be touched any more. */
void qn_arena_reset(qn_arena *arena);

/** Give the block back to its owner, usable as plain memory. */
void qn_arena_deinit(qn_arena *arena);
#endif

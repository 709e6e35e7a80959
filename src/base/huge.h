/* SPDX-License-Identifier: Apache-2.0 */
/** @file huge.h  Memory that is read here and there: in huge pages, where the system has some. */
#ifndef QN_BASE_HUGE_H
#define QN_BASE_HUGE_H
#include <stddef.h>

/**
 * A block aligned to 64 bytes, not set to anything; owned by the caller, who calls free().  A large
 * one is aligned to 2 MiB and the system is asked for huge pages: a read that no cache holds does
 * not wait for the page table as well.
 *
 * Returns  the block; NULL: no memory
 */
void *qn_huge_alloc(size_t size_bytes);
#endif

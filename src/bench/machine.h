/* SPDX-License-Identifier: Apache-2.0 */
/** @file machine.h  Is a server on this machine? */
#ifndef QN_BENCH_MACHINE_H
#define QN_BENCH_MACHINE_H
#include <stdbool.h>

/** Does the host of @p url have an address of this machine?  A tunnel or a proxy here looks so too;
 * false where the name is not known. */
bool bench_is_here(const char *url);
#endif

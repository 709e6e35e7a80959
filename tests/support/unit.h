/* SPDX-License-Identifier: Apache-2.0 */
/** @file unit.h  cmocka behind the four headers that it needs but does not include. */
#ifndef QN_TEST_UNIT_H
#define QN_TEST_UNIT_H
/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
/* clang-format on */
#endif

/* SPDX-License-Identifier: Apache-2.0 */
/** @file banned.h  Calls with a better replacement do not compile.  str.h, try.h, assert.h have it.
 */
#ifndef QN_BASE_BANNED_H
#define QN_BASE_BANNED_H
/* The headers that declare them come first: a poisoned name may not even be declared. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#undef alloca
#pragma GCC poison strcpy strcat sprintf vsprintf strtok atoi atol atof alloca rand srand gmtime
#pragma GCC poison localtime gets
#endif

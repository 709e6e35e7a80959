/* SPDX-License-Identifier: Apache-2.0 */
/** @file put.h  Members of JSON objects; that memory ran out is asked once, at the end. */
#ifndef QN_BENCH_PUT_H
#define QN_BENCH_PUT_H
#include "quern/quern.h"

#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>

/** A number; null where it is not finite, or there is none. */
static inline json_t *put_real(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static inline json_t *put_count(uint64_t n)
{
    return json_integer((json_int_t)n);
}

/** A string, of a user perhaps: what is no UTF-8 is replaced; null for NULL and "". */
json_t *put_text(const char *text);

/** A sentence more at the end of "warnings", of a user's words perhaps.  False without memory. */
QN_PRINTF(2, 3) bool put_warning(json_t *warnings, const char *format, ...);

/** A date as ISO 8601, by ns since 1970; 0: now. */
json_t *put_date(uint64_t wall_ns);

/** "tool" of a result: {"version", "commit", "compiler"} of this build. */
json_t *put_tool(void);

/** object[key] = value, which is taken; *failed where either has no memory. */
static inline void put(json_t *object, const char *key, json_t *value, bool *failed)
{
    *failed = json_object_set_new(object, key, value) != 0 || *failed;
}

/** The same at the end of an array. */
static inline void put_last(json_t *array, json_t *value, bool *failed)
{
    *failed = json_array_append_new(array, value) != 0 || *failed;
}

/** @p made, or NULL where it is not whole. */
static inline json_t *put_whole(json_t *made, bool failed)
{
    if (failed) {
        json_decref(made);
        return NULL;
    }
    return made;
}
#endif

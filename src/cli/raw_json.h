/* SPDX-License-Identifier: Apache-2.0 */
/** @file raw_json.h  The text of a member of a JSON object, as it was written: prompts are made of
 * it, and a number that was read and printed again may have another text. */
#ifndef QN_CLI_RAW_JSON_H
#define QN_CLI_RAW_JSON_H
#include <stdbool.h>
#include <stddef.h>

/**
 * Find a key that is written without escapes.
 *
 * @param json   [len] an object that jansson has parsed
 * @param value  borrowed from it
 * Returns  false: it lacks the key
 */
bool raw_json_member(const char **value, size_t *value_len, const char *json, size_t len,
                     const char *key);
#endif

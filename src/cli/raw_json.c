/* SPDX-License-Identifier: Apache-2.0 */
#include "raw_json.h"

#include <string.h>

static const char *skip_blanks(const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\t' || *at == '\r' || *at == '\n')) {
        at++;
    }
    return at;
}

static const char *skip_blanks_back(const char *at, const char *begin)
{
    while (at > begin && skip_blanks(at - 1, at) == at) {
        at--;
    }
    return at;
}

/* Behind the string that begins at a quote. */
static const char *skip_string(const char *at, const char *end)
{
    for (at++; at < end && *at != '"'; at++) {
        at += *at == '\\';
    }
    return at < end ? at + 1 : end;
}

/* Behind a value: at what ends it where nothing is open. */
static const char *skip_value(const char *at, const char *end)
{
    for (size_t depth = 0; at < end;) {
        const bool opens = *at == '{' || *at == '[';
        const bool closes = *at == '}' || *at == ']';
        if (depth == 0 && (closes || *at == ',')) {
            break;
        }
        depth += opens;
        depth -= closes;
        at = *at == '"' ? skip_string(at, end) : at + 1;
    }
    return at;
}

bool raw_json_member(const char **value, size_t *value_len, const char *json, size_t len,
                     const char *key)
{
    const char *const end = json + len;
    const size_t key_len = strlen(key);
    const char *at = skip_blanks(json, end);
    at = at < end ? skip_blanks(at + 1, end) : end; /* behind the brace */
    while (at < end && *at == '"') {
        const char *const name = at + 1;
        at = skip_string(at, end);
        const bool is_it = (size_t)(at - name) == key_len + 1 && memcmp(name, key, key_len) == 0;
        at = skip_blanks(at, end);
        at = at < end ? skip_blanks(at + 1, end) : end; /* behind the colon */
        *value = at;
        at = skip_value(at, end);
        *value_len = (size_t)(skip_blanks_back(at, *value) - *value);
        if (is_it) {
            return true;
        }
        at = at < end ? skip_blanks(at + 1, end) : end; /* behind the comma */
    }
    return false;
}

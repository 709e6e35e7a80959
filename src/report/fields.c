/* SPDX-License-Identifier: Apache-2.0 */
#include "report/fields.h"

#include "base/json.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { PATH_BYTES = 160, NAME_BYTES = 64 };

static const char *name_of(json_type type)
{
    switch (type) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "a list";
    case JSON_STRING: return "text";
    case JSON_TRUE: return "true or false";
    default: return "a number";
    }
}

static bool is_of(const json_t *value, json_type type)
{
    return value == NULL || json_is_null(value) || json_typeof(value) == type ||
           (type == JSON_REAL && json_is_number(value)) ||
           (type == JSON_TRUE && json_is_boolean(value));
}

static qn_status refuse(const json_t *value, json_type type, const char *seen, qn_error *err)
{
    char shown[80];
    qn_json_show(shown, sizeof shown, value);
    return qn_fail(err, QN_E_FORMAT, 0, __func__, "result: %s: %s, expected %s", seen, shown,
                   name_of(type));
}

static qn_status check(const json_t *value, const char *path, json_type type, char *seen,
                       size_t n_seen, qn_error *err);

static qn_status check_member(const json_t *value, const char *name, const char *path,
                              json_type type, char *seen, size_t n_seen, qn_error *err)
{
    const int n = snprintf(seen + n_seen, PATH_BYTES - n_seen, "%s%.*s",
                           n_seen > 0 && name[0] != '[' ? "." : "", NAME_BYTES, name);
    const size_t n_more = n > 0 ? (size_t)n : 0;
    return check(value, path, type, seen,
                 n_seen + n_more < PATH_BYTES ? n_seen + n_more : PATH_BYTES - 1, err);
}

/* @p seen is the path as far as it was gone, with places of elements. */
static qn_status check(const json_t *value, const char *path, json_type type, char *seen,
                       size_t n_seen, qn_error *err)
{
    if (!is_of(value, *path == '\0' ? type : *path == '[' ? JSON_ARRAY : JSON_OBJECT)) {
        return refuse(value,
                      *path == '\0'  ? type
                      : *path == '[' ? JSON_ARRAY
                                     : JSON_OBJECT,
                      n_seen > 0 ? seen : "the whole", err);
    }
    if (value == NULL || json_is_null(value) || *path == '\0') {
        return QN_OK;
    }
    if (*path == '[') {
        for (size_t i = 0; i < json_array_size(value); i++) {
            char place[32];
            (void)snprintf(place, sizeof place, "[%zu]", i);
            const qn_status status =
                check_member(json_array_get(value, i), place, path + 2, type, seen, n_seen, err);
            if (status < 0) {
                return status;
            }
        }
        return QN_OK;
    }
    path += *path == '.' ? 1 : 0;
    const size_t len = strcspn(path, ".[");
    char key[NAME_BYTES];
    const char *name;
    json_t *member = NULL;
    qn_status status = QN_OK;
    (void)snprintf(key, sizeof key, "%.*s", (int)len, path);
    if (strcmp(key, "*") != 0) {
        return check_member(json_object_get(value, key), key, path + len, type, seen, n_seen, err);
    }
    json_object_foreach((json_t *)(uintptr_t)value, name, member)
    {
        if (status == QN_OK) {
            status = check_member(member, name, path + len, type, seen, n_seen, err);
        }
    }
    return status;
}

qn_status fields_check(const json_t *result, const field *fields, size_t n_fields, qn_error *err)
{
    qn_status status = QN_OK;
    for (size_t i = 0; i < n_fields && status == QN_OK; i++) {
        char seen[PATH_BYTES] = "";
        status = check(result, fields[i].path, fields[i].type, seen, 0, err);
    }
    return status;
}

const json_t *field_at(const json_t *object, const char *path)
{
    const json_t *value = object;
    while (value != NULL && *path != '\0') {
        char key[NAME_BYTES];
        const size_t len = strcspn(path, ".");
        (void)snprintf(key, sizeof key, "%.*s", (int)len, path);
        value = json_object_get(value, key);
        path += len + (path[len] == '.' ? 1 : 0);
    }
    return json_is_null(value) ? NULL : value;
}

double field_number(const json_t *object, const char *path)
{
    const json_t *const value = field_at(object, path);
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

const char *field_text(const json_t *object, const char *path)
{
    return json_string_value(field_at(object, path));
}

const char *field_text_or(const json_t *object, const char *path, const char *otherwise)
{
    const char *const text = field_text(object, path);
    return text != NULL ? text : otherwise;
}

bool field_is_true(const json_t *object, const char *path)
{
    return json_is_true(field_at(object, path));
}

double field_number_of(const json_t *list, size_t i)
{
    const json_t *const value = json_array_get(list, i);
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "base/json.h"

#include "base/file.h"

#include <inttypes.h>
#include <math.h>

enum { SHOW_BYTES = 64 };

qn_status qn_json_load(json_t **out, const char *path, size_t bytes_max, qn_error *err)
{
    *out = NULL;
    qn_buf text;
    qn_buf_init(&text, bytes_max);
    qn_status status = qn_file_read(&text, path, err);
    if (status == QN_OK) {
        status = qn_json_parse(out, qn_buf_view(&text), path, err);
    }
    qn_buf_deinit(&text);
    return status;
}

double qn_json_number(const json_t *object, const char *key)
{
    const json_t *const value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

const char *qn_json_text(const json_t *object, const char *key)
{
    const char *const text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

const char *qn_json_type_name(const json_t *value)
{
    if (value == NULL) {
        return "nothing";
    }
    switch (json_typeof(value)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "a list";
    case JSON_STRING: return "a string";
    case JSON_INTEGER: return "an integer";
    case JSON_REAL: return "a number";
    case JSON_TRUE: return "true";
    case JSON_FALSE: return "false";
    case JSON_NULL: return "null";
    }
    return "an unknown type";
}

void qn_json_show(char *out, size_t out_bytes, const json_t *value)
{
    if (json_is_integer(value)) {
        (void)snprintf(out, out_bytes, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    } else if (json_is_real(value)) {
        (void)snprintf(out, out_bytes, "%g", json_real_value(value));
        if (strpbrk(out, ".e") == NULL) { /* 8.0 is no 8 */
            (void)snprintf(out, out_bytes, "%.1f", json_real_value(value));
        }
    } else if (json_is_string(value)) {
        (void)snprintf(out, out_bytes, "\"%.40s\"", json_string_value(value));
    } else {
        (void)snprintf(out, out_bytes, "%s", qn_json_type_name(value));
    }
}

bool qn_json_to_integer(int64_t *out, const json_t *value)
{
    if (json_is_integer(value)) {
        *out = json_integer_value(value);
        return true;
    }
    const double real = json_real_value(value); /* 0 where it is no real */
    if (!json_is_real(value) || !(fabs(real) <= 0x1p53) || real != floor(real)) {
        return false;
    }
    *out = (int64_t)real;
    return true;
}

qn_status qn_json_get_u64(uint64_t *out, const json_t *object, const char *key, uint64_t min,
                          uint64_t max, const char *what, qn_error *err)
{
    const json_t *const value = json_object_get(object, key);
    int64_t number = 0;
    if (!qn_json_to_integer(&number, value) || number < 0 || (uint64_t)number < min ||
        (uint64_t)number > max) {
        char seen[SHOW_BYTES];
        qn_json_show(seen, sizeof seen, value);
        return qn_fail(err, QN_E_FORMAT, 0, __func__,
                       "%s: %s: %s, an integer %" PRIu64 " to %" PRIu64 " expected", what, key,
                       seen, min, max);
    }
    *out = (uint64_t)number;
    return QN_OK;
}

qn_status qn_json_get_f64(double *out, const json_t *object, const char *key, double min,
                          double max, const char *what, qn_error *err)
{
    const json_t *const value = json_object_get(object, key);
    const double number = json_number_value(value);
    if (!json_is_number(value) || !(number >= min && number <= max)) {
        char seen[SHOW_BYTES];
        qn_json_show(seen, sizeof seen, value);
        return qn_fail(err, QN_E_FORMAT, 0, __func__, "%s: %s: %s, a number %g to %g expected",
                       what, key, seen, min, max);
    }
    *out = number;
    return QN_OK;
}

qn_status qn_json_get_bool(bool *out, const json_t *object, const char *key, const char *what,
                           qn_error *err)
{
    const json_t *const value = json_object_get(object, key);
    if (!json_is_boolean(value)) {
        char seen[SHOW_BYTES];
        qn_json_show(seen, sizeof seen, value);
        return qn_fail(err, QN_E_FORMAT, 0, __func__, "%s: %s: %s, true or false expected", what,
                       key, seen);
    }
    *out = json_is_true(value);
    return QN_OK;
}

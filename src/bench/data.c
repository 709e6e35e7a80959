/* SPDX-License-Identifier: Apache-2.0 */
#include "base/json.h"
#include "base/try.h"
#include "embedded.h"
#include "price.h"

#include <math.h>

enum { FILE_BYTES_MAX = 1 << 20, WHERE_BYTES = 320, SHOW_BYTES = 80 };

/* What a field may be. */
typedef enum kind {
    TEXT,          /* a string that is not empty */
    TEXT_OR_NULL,  /* ... or not known */
    DATE,          /* "YYYY", "YYYY-MM" or "YYYY-MM-DD" */
    DATE_OR_NULL,  /* ... or not known */
    POSITIVE,      /* a number above 0 */
    SHARE_OR_NULL, /* 0 to 1, or not known */
    COUNT,         /* a whole number from 1 */
    INDEX_OR_NULL, /* a whole number from 0, or none */
    YES,           /* true */
    TEXTS,         /* a list of strings */
    OTHER,         /* checked elsewhere */
} kind;

static const char *const expected[] = {
    [TEXT] = "a text",
    [TEXT_OR_NULL] = "a text or null",
    [DATE] = "a date such as \"2026-07-03\"",
    [DATE_OR_NULL] = "a date such as \"2026-07-03\" or null",
    [POSITIVE] = "a number above 0",
    [SHARE_OR_NULL] = "a number in 0 .. 1 or null",
    [COUNT] = "a whole number from 1",
    [INDEX_OR_NULL] = "the index of a row or null",
    [YES] = "true",
    [TEXTS] = "a list of texts",
};

typedef struct field {
    const char *name;
    kind kind;
    bool is_optional;
} field;

static const field profile_fields[] = {
    {"name", TEXT, false},   {"what", TEXT, true},   {"date", DATE, false},
    {"source", TEXT, false}, {"notes", TEXTS, true}, {"accelerators", OTHER, false},
};
static const field price_fields[] = {{"usd_per_hour", POSITIVE, false}, {"kw", POSITIVE, true}};
static const field reference_fields[] = {
    {"name", TEXT, false},
    {"source", TEXT, false},
    {"date", DATE_OR_NULL, false},
    {"read", DATE, false},
    {"published", YES, false},
    {"accelerator", TEXT_OR_NULL, false},
    {"n_accelerators", COUNT, false},
    {"engine", TEXT_OR_NULL, false},
    {"model", TEXT, false},
    {"quantization", TEXT_OR_NULL, false},
    {"workload", TEXT, false},
    {"hit_rate", SHARE_OR_NULL, false},
    {"mtp", TEXT_OR_NULL, false},
    {"acceptance", TEXT, false},
    {"headline", INDEX_OR_NULL, false},
    {"rows", OTHER, false},
    {"caveats", TEXTS, false},
    {"claims", TEXTS, true},
};
static const field row_fields[] = {
    {"label", TEXT, true},
    {"request_rate", POSITIVE, true},
    {"concurrency", COUNT, true},
    {"output_throughput", POSITIVE, true},
    {"total_throughput", POSITIVE, true},
    {"success_rate", SHARE_OR_NULL, true},
    {"ttft_ms", POSITIVE, true},
    {"ttft_p50_ms", POSITIVE, true},
    {"ttft_p95_ms", POSITIVE, true},
    {"ttft_p99_ms", POSITIVE, true},
    {"tpot_ms", POSITIVE, true},
    {"tpot_p50_ms", POSITIVE, true},
    {"per_user_tokens_per_s", POSITIVE, true},
    {"derived", TEXTS, true},
};
#define N_OF(list) (sizeof(list) / sizeof(list)[0])

/* ------------------------------------------------------------------------------------ one field */

static bool is_number(const char *digits, size_t n, int min, int max)
{
    int value = 0;
    for (size_t i = 0; i < n; i++) {
        if (digits[i] < '0' || digits[i] > '9') {
            return false;
        }
        value = 10 * value + (digits[i] - '0');
    }
    return value >= min && value <= max;
}

static bool is_date(const char *text)
{
    const size_t len = strlen(text);
    return (len == 4 || len == 7 || len == 10) && is_number(text, 4, 2000, 2100) &&
           (len == 4 || (text[4] == '-' && is_number(text + 5, 2, 1, 12))) &&
           (len < 10 || (text[7] == '-' && is_number(text + 8, 2, 1, 31)));
}

static bool is_text(const json_t *value)
{
    return json_is_string(value) && json_string_length(value) > 0;
}

static bool are_texts(const json_t *list)
{
    size_t i = 0;
    json_t *one = NULL;
    json_array_foreach(list, i, one)
    {
        if (!is_text(one)) {
            return false;
        }
    }
    return json_is_array(list);
}

static bool fits(const json_t *value, kind wanted)
{
    const double number = json_number_value(value);
    switch (wanted) {
    case TEXT: return is_text(value);
    case TEXT_OR_NULL: return is_text(value) || json_is_null(value);
    case DATE: return json_is_string(value) && is_date(json_string_value(value));
    case DATE_OR_NULL: return json_is_null(value) || fits(value, DATE);
    case POSITIVE: return number > 0 && isfinite(number);
    case SHARE_OR_NULL:
        return json_is_null(value) || (json_is_number(value) && number >= 0 && number <= 1);
    case COUNT: return json_is_integer(value) && number >= 1 && number <= 1e6;
    case INDEX_OR_NULL: return json_is_null(value) || (json_is_integer(value) && number >= 0);
    case YES: return json_is_true(value);
    case TEXTS: return are_texts(value);
    case OTHER: return true;
    }
    return false;
}

/* All fields of an object: those that must be there, of their kinds, and no other. */
static qn_status check_fields(json_t *object, const field *fields, size_t n_fields,
                              const char *where, qn_error *err)
{
    char shown[SHOW_BYTES];
    const char *key = NULL;
    json_t *value = NULL;
    if (!json_is_object(object)) {
        qn_json_show(shown, sizeof shown, object);
        return qn_fail(err, QN_E_FORMAT, 0, __func__, "%s: %s, expected an object", where, shown);
    }
    for (size_t i = 0; i < n_fields; i++) {
        value = json_object_get(object, fields[i].name);
        if ((value == NULL && !fields[i].is_optional) ||
            (value != NULL && !fits(value, fields[i].kind))) {
            qn_json_show(shown, sizeof shown, value);
            return qn_fail(err, QN_E_FORMAT, 0, __func__, "%s: %s: %s, expected %s", where,
                           fields[i].name, shown,
                           fields[i].kind == OTHER ? "a value" : expected[fields[i].kind]);
        }
    }
    json_object_foreach(object, key, value)
    {
        size_t i = 0;
        while (i < n_fields && strcmp(key, fields[i].name) != 0) {
            i++;
        }
        if (i == n_fields) {
            return qn_fail(err, QN_E_FORMAT, 0, __func__,
                           "%s: %.64s: a field that is not known, expected \"%s\" and others of "
                           "its kind",
                           where, key, fields[0].name);
        }
    }
    return QN_OK;
}

/* -------------------------------------------------------------------------------------- records */

/* "FILE: references[3] (Wafer B200)" */
static void name_record(char where[WHERE_BYTES], const char *file, const char *list, size_t i,
                        const json_t *record)
{
    const char *const name = json_string_value(json_object_get(record, "name"));
    (void)snprintf(where, WHERE_BYTES, "%.128s: %s[%zu]%s%.64s%s", file, list, i,
                   name != NULL ? " (" : "", name != NULL ? name : "", name != NULL ? ")" : "");
    qn_text_clean(where);
}

static qn_status check_profile(json_t *profile, const char *where, qn_error *err)
{
    qn_status status = check_fields(profile, profile_fields, N_OF(profile_fields), where, err);
    json_t *const accelerators = json_object_get(profile, "accelerators");
    const char *name = NULL;
    json_t *price = NULL;
    if (status == QN_OK && json_object_size(accelerators) == 0) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__,
                       "%s: accelerators: none, expected an object such as {\"H200\": "
                       "{\"usd_per_hour\": 1.41}}",
                       where);
    }
    json_object_foreach(accelerators, name, price)
    {
        if (status == QN_OK) {
            char inner[WHERE_BYTES + SHOW_BYTES];
            (void)snprintf(inner, sizeof inner, "%s: accelerators: %.64s", where, name);
            status = check_fields(price, price_fields, N_OF(price_fields), inner, err);
        }
    }
    return status;
}

static qn_status check_reference(json_t *reference, const char *where, qn_error *err)
{
    qn_status status =
        check_fields(reference, reference_fields, N_OF(reference_fields), where, err);
    json_t *const rows = json_object_get(reference, "rows");
    json_t *const headline = json_object_get(reference, "headline");
    if (status < 0) {
        return status;
    }
    if (json_array_size(rows) == 0) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__, "%s: rows: none, expected a list of them",
                       where);
    }
    for (size_t i = 0; i < json_array_size(rows) && status == QN_OK; i++) {
        char inner[WHERE_BYTES + SHOW_BYTES];
        (void)snprintf(inner, sizeof inner, "%s: rows[%zu]", where, i);
        status = check_fields(json_array_get(rows, i), row_fields, N_OF(row_fields), inner, err);
    }
    if (status == QN_OK && json_is_integer(headline) &&
        json_object_get(json_array_get(rows, (size_t)json_integer_value(headline)),
                        "output_throughput") == NULL) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__,
                       "%s: headline: %lld, expected the index of a row with output_throughput",
                       where, (long long)json_integer_value(headline));
    }
    return status;
}

static qn_status check_names(const json_t *list, size_t i, const char *where, qn_error *err)
{
    const char *const name = json_string_value(json_object_get(json_array_get(list, i), "name"));
    for (size_t k = 0; k < i; k++) {
        const char *const other =
            json_string_value(json_object_get(json_array_get(list, k), "name"));
        if (strcmp(name, other) == 0) {
            return qn_fail(err, QN_E_FORMAT, 0, __func__,
                           "%s: name: the same as that of record %zu, expected another", where, k);
        }
    }
    return QN_OK;
}

/* The list of a file of this format, checked; owned by the caller. */
static qn_status open_list(json_t **out, const char *path, const char *built_in, const char *format,
                           const char *list_name,
                           qn_status (*check)(json_t *record, const char *where, qn_error *err),
                           qn_error *err)
{
    const char *const file = path != NULL ? path : format;
    char where[WHERE_BYTES];
    char shown[SHOW_BYTES];
    json_t *root = NULL;
    qn_status status = path != NULL ? qn_json_load(&root, path, FILE_BYTES_MAX, err)
                                    : qn_json_parse(&root, qn_str_of(built_in), file, err);
    if (status < 0) {
        return status;
    }
    const json_t *const seen = json_object_get(root, "format");
    json_t *const list = json_object_get(root, list_name);
    if (!json_is_string(seen) || strcmp(json_string_value(seen), format) != 0) {
        qn_json_show(shown, sizeof shown, seen);
        status = qn_fail(err, QN_E_FORMAT, 0, __func__, "%s: format: %s, expected \"%s\"", file,
                         shown, format);
    } else if (!json_is_array(list) || json_array_size(list) == 0) {
        qn_json_show(shown, sizeof shown, list);
        status = qn_fail(err, QN_E_FORMAT, 0, __func__, "%s: %s: %s, expected a list of records",
                         file, list_name, json_is_array(list) ? "an empty list" : shown);
    }
    for (size_t i = 0; status == QN_OK && i < json_array_size(list); i++) {
        name_record(where, file, list_name, i, json_array_get(list, i));
        status = check(json_array_get(list, i), where, err);
        status = status < 0 ? status : check_names(list, i, where, err);
    }
    *out = status == QN_OK ? json_incref(list) : NULL;
    json_decref(root);
    return status;
}

qn_status bench_data_open(bench_data *out, const char *prices, const char *references,
                          qn_error *err)
{
    qn_status status = QN_OK;
    *out = (bench_data){0};
    QN_TRY(status,
           open_list(&out->prices, prices, embedded_prices, "quern-prices/1", "profiles",
                     check_profile, err),
           fail);
    QN_TRY(status,
           open_list(&out->references, references, embedded_references, "quern-references/1",
                     "references", check_reference, err),
           fail);
    return QN_OK;

fail:
    bench_data_close(out);
    return status;
}

void bench_data_close(bench_data *data)
{
    json_decref(data->prices);
    json_decref(data->references);
    *data = (bench_data){0};
}

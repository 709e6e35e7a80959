/* SPDX-License-Identifier: Apache-2.0 */
#include "inspect/json_out.h"

#include "base/json_doc.h"

#include <inttypes.h>

/* Names of 118,629 tensors with all that is said of each take 20 MB. */
enum { TEXT_BYTES_MAX = 1 << 30 };

void qn_json_out_init(qn_json_out *out)
{
    *out = (qn_json_out){.is_first = true};
    qn_buf_init(&out->text, TEXT_BYTES_MAX);
}

void qn_json_out_deinit(qn_json_out *out)
{
    qn_buf_deinit(&out->text);
}

static void put(qn_json_out *out, const char *bytes, size_t n_bytes)
{
    out->has_lost |= out->has_lost || qn_buf_append(&out->text, bytes, n_bytes, NULL) < 0;
}

static void put_string(qn_json_out *out, qn_str value)
{
    out->has_lost |= out->has_lost || qn_json_quote_append(&out->text, value, NULL) < 0;
}

/* Comma and key. */
static void begin(qn_json_out *out, const char *key)
{
    if (!out->is_first) {
        put(out, ", ", 2);
    }
    out->is_first = false;
    if (key != NULL) {
        put_string(out, qn_str_of(key));
        put(out, ": ", 2);
    }
}

void qn_json_out_open(qn_json_out *out, const char *key, char bracket)
{
    begin(out, key);
    put(out, &bracket, 1);
    out->is_first = true;
}

void qn_json_out_close(qn_json_out *out, char bracket)
{
    put(out, &bracket, 1);
    out->is_first = false;
}

void qn_json_out_str(qn_json_out *out, const char *key, qn_str value)
{
    begin(out, key);
    put_string(out, value);
}

void qn_json_out_text(qn_json_out *out, const char *key, const char *value)
{
    if (value != NULL) {
        qn_json_out_str(out, key, qn_str_of(value));
    } else {
        qn_json_out_null(out, key);
    }
}

void qn_json_out_u64(qn_json_out *out, const char *key, uint64_t value)
{
    char digits[24];
    begin(out, key);
    put(out, digits, (size_t)snprintf(digits, sizeof digits, "%" PRIu64, value));
}

void qn_json_out_real(qn_json_out *out, const char *key, double value)
{
    begin(out, key);
    out->has_lost |= out->has_lost || qn_buf_append_real(&out->text, value, 7, NULL) < 0;
}

void qn_json_out_bool(qn_json_out *out, const char *key, bool value)
{
    begin(out, key);
    put(out, value ? "true" : "false", value ? 4 : 5);
}

void qn_json_out_null(qn_json_out *out, const char *key)
{
    begin(out, key);
    put(out, "null", 4);
}

void qn_json_out_maybe(qn_json_out *out, const char *key, bool is_known, uint64_t value)
{
    if (is_known) {
        qn_json_out_u64(out, key, value);
    } else {
        qn_json_out_null(out, key);
    }
}

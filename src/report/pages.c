/* SPDX-License-Identifier: Apache-2.0 */
#include "report/pages.h"

#include <stdint.h>
#include <stdlib.h>

void page_badge_weights(sheet *s, const char *weights)
{
    if (weights == NULL) {
        sheet_badge(s, SHEET_WARN, "weights: not stated");
    } else if (strcmp(weights, "dummy") == 0) {
        sheet_badge(s, SHEET_BAD, "DUMMY WEIGHTS");
    } else {
        sheet_badge(s, strcmp(weights, "trained") == 0 ? SHEET_GOOD : SHEET_WARN, "%s weights",
                    weights);
    }
}

void page_badge_acceptance(sheet *s, const char *acceptance)
{
    if (acceptance == NULL || strcmp(acceptance, "unknown") == 0) {
        sheet_badge(s, SHEET_WARN, "speculation: not stated");
    } else if (strcmp(acceptance, "synthetic") == 0) {
        sheet_badge(s, SHEET_BAD, "SYNTHETIC ACCEPTANCE");
    } else if (strcmp(acceptance, "none") == 0) {
        sheet_badge(s, SHEET_PLAIN, "no speculation");
    } else {
        sheet_badge(s, SHEET_GOOD, "acceptance %s", acceptance);
    }
}

const char *page_quantization(const json_t *object, const char *path)
{
    const char *const name = field_text(object, path);
    return name == NULL || strcmp(name, "unknown") == 0 ? "quantization not stated"
           : strcmp(name, "none") == 0                  ? "unquantized"
           : strcmp(name, "mxfp4") == 0                 ? "MXFP4"
           : strcmp(name, "fp8") == 0                   ? "FP8"
                                                        : name;
}

void page_fact(sheet *s, const char *name, const json_t *object, const char *path)
{
    const json_t *const value = field_at(object, path);
    if (json_is_string(value)) {
        sheet_fact(s, name, "%s", json_string_value(value));
    } else if (json_is_number(value)) {
        sheet_fact(s, name, "%s", figure_plain(json_number_value(value)).text);
    } else if (json_is_boolean(value)) {
        sheet_fact(s, name, "%s", json_is_true(value) ? "yes" : "no");
    } else if (json_array_size(value) + json_object_size(value) > 0 && s->status == QN_OK) {
        char *const text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
        sheet_try(s, text != NULL ? QN_OK
                                  : qn_fail(s->err, QN_E_NOMEM, 0, __func__, "report: no memory"));
        if (text != NULL) {
            sheet_fact(s, name, "%s", text);
        }
        free(text);
    }
}

/* Does it not tell this? */
static bool is_untold(const json_t *value)
{
    return value == NULL || json_is_null(value) ||
           (json_is_string(value) && strcmp(json_string_value(value), "unknown") == 0);
}

/* Put a copy in the place of object[key], where that is an object, and borrow it. */
static json_t *copy_member(json_t *object, const char *key, bool *is_whole)
{
    const json_t *const member = json_object_get(object, key);
    json_t *const copy = json_is_object(member) ? json_copy((json_t *)(uintptr_t)member) : NULL;
    if (json_is_object(member)) {
        *is_whole &= json_object_set_new(object, key, copy) == 0;
    }
    return copy;
}

static void add_notes(json_t *holder, bool *is_whole)
{
    json_t *const server = copy_member(holder, "server", is_whole);
    json_t *const notes = json_object_get(server, "notes");
    const char *key = NULL;
    json_t *note = NULL;
    if (!json_is_object(notes) || !*is_whole) {
        return;
    }
    if (!json_is_object(json_object_get(server, "sources"))) {
        *is_whole &= json_object_set_new(server, "sources", json_object()) == 0;
    }
    json_t *const sources = copy_member(server, "sources", is_whole);
    json_object_foreach(notes, key, note)
    {
        if (json_is_string(note) && is_untold(json_object_get(server, key))) {
            *is_whole &= json_object_set(server, key, note) == 0 &&
                         json_object_set_new(sources, key, json_string("noted by the user")) == 0;
        }
    }
}

json_t *page_with_notes(const json_t *result)
{
    static const char *const sides[] = {"a", "b"};
    bool is_whole = true;
    json_t *const copy = json_copy((json_t *)(uintptr_t)result); /* which it does not change */
    if (copy == NULL) {
        return NULL;
    }
    add_notes(copy, &is_whole);
    for (size_t i = 0; i < 2; i++) {
        json_t *const side = copy_member(copy, sides[i], &is_whole);
        if (side != NULL) {
            add_notes(side, &is_whole);
        }
    }
    if (!is_whole) {
        json_decref(copy);
    }
    return is_whole ? copy : NULL;
}

void page_command(sheet *s, const json_t *result)
{
    if (field_text(result, "command") != NULL) {
        sheet_command(s, field_text(result, "command"));
    }
}

void page_made_by(sheet *s, const json_t *result)
{
    sheet_fact(s, "Measured by", "quern %s, commit %s",
               field_text_or(result, "tool.version", FIGURE_DASH),
               field_text_or(result, "tool.commit", FIGURE_DASH));
    sheet_fact(s, "Date", "%s",
               field_text_or(result, "date_utc", field_text_or(result, "date", FIGURE_DASH)));
}

void page_folded(sheet *s, const char *heading, const json_t *value)
{
    if (!s->is_html || value == NULL || s->status < 0) {
        return;
    }
    char *const text = json_dumps(value, JSON_ENCODE_ANY | JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    if (text == NULL) {
        sheet_try(s, qn_fail(s->err, QN_E_NOMEM, 0, __func__, "report: no memory"));
        return;
    }
    sheet_folded(s, heading, text);
    free(text);
}

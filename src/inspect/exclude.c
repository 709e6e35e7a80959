/* SPDX-License-Identifier: Apache-2.0 */
#include "inspect/exclude.h"

#include "inspect/sorted.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

enum { MATCH_STEPS_MAX = 10000 /* of one pattern on one name: then it does not match */ };

/* ------------------------------------------------------------------------------------- globs -- */

/* Does the set at the front of *glob, "[abc]" or "[!a-z]", hold @p c?  Moves *glob behind it.  A
 * '[' that nothing closes stands for itself. */
static bool in_set(qn_str *glob, char c)
{
    size_t at = 1;
    const bool is_negated = at < glob->len && glob->ptr[at] == '!';
    at += is_negated ? 1 : 0;
    const size_t first = at;
    bool is_in = false;
    while (at < glob->len && (glob->ptr[at] != ']' || at == first)) {
        const char low = glob->ptr[at];
        const bool is_range =
            at + 2 < glob->len && glob->ptr[at + 1] == '-' && glob->ptr[at + 2] != ']';
        char high = low;
        if (is_range) {
            high = glob->ptr[at + 2];
        }
        is_in |= c >= low && c <= high;
        at += is_range ? 3 : 1;
    }
    if (at >= glob->len) {
        *glob = (qn_str){glob->ptr + 1, glob->len - 1};
        return c == '[';
    }
    *glob = (qn_str){glob->ptr + at + 1, glob->len - at - 1};
    return is_in != is_negated;
}

/* Does the front of *glob, no star, take @p c?  Moves *glob behind what took it. */
static bool takes(qn_str *glob, char c)
{
    if (*glob->ptr == '[') {
        return in_set(glob, c);
    }
    const bool is_taken = *glob->ptr == '?' || *glob->ptr == c;
    *glob = (qn_str){glob->ptr + 1, glob->len - 1};
    return is_taken;
}

bool qn_is_glob(qn_str text)
{
    return memchr(text.ptr, '*', text.len) != NULL || memchr(text.ptr, '?', text.len) != NULL ||
           memchr(text.ptr, '[', text.len) != NULL;
}

/* The last star is the only one that has to be tried again, so this takes at most |glob| |text|. */
bool qn_glob_matches(qn_str glob, qn_str text)
{
    qn_str star = {0}; /* what follows the last star */
    size_t star_at = 0;
    bool has_star = false;
    size_t at = 0;
    while (at < text.len) {
        if (glob.len > 0 && *glob.ptr == '*') {
            glob = (qn_str){glob.ptr + 1, glob.len - 1};
            star = glob;
            star_at = at;
            has_star = true;
        } else if (glob.len > 0 && takes(&glob, text.ptr[at])) {
            at++;
        } else if (has_star) {
            glob = star;
            at = ++star_at;
        } else {
            return false;
        }
    }
    while (glob.len > 0 && *glob.ptr == '*') {
        glob = (qn_str){glob.ptr + 1, glob.len - 1};
    }
    return glob.len == 0;
}

/* ---------------------------------------------------------------------------------- patterns -- */

/* Does the expression match, from the start of the name on or anywhere? */
static bool finds(const qn_exclude_pattern *pattern, qn_str name, bool from_start)
{
    return pattern->expression != NULL &&
           pcre2_match(pattern->expression, (PCRE2_SPTR)name.ptr, name.len, 0,
                       from_start ? PCRE2_ANCHORED : 0, pattern->match, pattern->limits) >= 0;
}

bool qn_exclude_pattern_matches(const qn_exclude_pattern *pattern, qn_str name)
{
    return pattern->expression != NULL ? finds(pattern, name, false)
                                       : qn_glob_matches(pattern->text, name);
}

static void close_pattern(qn_exclude_pattern *pattern)
{
    free((void *)(uintptr_t)pattern->text.ptr);
    pcre2_code_free(pattern->expression);
    pcre2_match_data_free(pattern->match);
    pcre2_match_context_free(pattern->limits);
    *pattern = (qn_exclude_pattern){0};
}

static qn_status compile(qn_exclude_pattern *pattern, qn_error *err)
{
    const qn_str source = {pattern->text.ptr + 3, pattern->text.len - 3};
    int code = PCRE2_ERROR_HEAP_FAILED;
    PCRE2_SIZE at = 0;
    pattern->match = pcre2_match_data_create(1, NULL);
    pattern->limits = pcre2_match_context_create(NULL);
    if (pattern->match != NULL && pattern->limits != NULL) {
        (void)pcre2_set_match_limit(pattern->limits, MATCH_STEPS_MAX);
        pattern->expression =
            pcre2_compile((PCRE2_SPTR)source.ptr, source.len, 0, &code, &at, NULL);
    }
    if (pattern->expression != NULL) {
        return QN_OK;
    }
    if (code == PCRE2_ERROR_HEAP_FAILED) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "exclude: no memory");
    }
    char why[128] = "";
    (void)pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
    return qn_fail(err, QN_E_FORMAT, 0, __func__,
                   "%.100s: %s at %zu, a regular expression expected", pattern->text.ptr, why, at);
}

/* Room for one more element, which is zero; NULL without memory. */
static void *grow(void **items, size_t n, size_t item_bytes)
{
    if ((n & (n - 1)) == 0) { /* full at each power of two */
        void *const larger = realloc(*items, (n == 0 ? 1 : 2 * n) * item_bytes);
        if (larger == NULL) {
            return NULL;
        }
        *items = larger;
    }
    return memset((char *)*items + n * item_bytes, 0, item_bytes);
}

static bool is_pattern(qn_str entry)
{
    return entry.len <= QN_EXCLUDE_PATTERN_BYTES_MAX &&
           (qn_str_begins(entry, "re:") || qn_is_glob(entry));
}

static qn_status no_memory(qn_error *err)
{
    return qn_fail(err, QN_E_NOMEM, ENOMEM, "qn_exclude_add", "exclude: no memory");
}

static qn_status add_pattern(qn_exclude *list, qn_str entry, qn_error *err)
{
    void *items = list->patterns;
    qn_exclude_pattern *const place = grow(&items, list->n_patterns, sizeof *place);
    qn_status status = QN_OK;
    list->patterns = items;
    if (place == NULL) {
        return no_memory(err);
    }
    const char *const text = strndup(entry.ptr, entry.len);
    if (text == NULL) {
        return no_memory(err);
    }
    place->text = qn_str_of(text);
    if (qn_str_begins(entry, "re:")) {
        status = compile(place, err);
    }
    if (status < 0) {
        close_pattern(place);
    } else {
        list->n_patterns++;
    }
    return status;
}

static qn_status add_name(qn_exclude *list, qn_str entry, qn_error *err)
{
    void *items = list->names;
    qn_str *const place = grow(&items, list->n_names, sizeof *place);
    list->names = items;
    const char *const text = place != NULL ? strndup(entry.ptr, entry.len) : NULL;
    if (text == NULL) {
        return no_memory(err);
    }
    *place = qn_str_of(text);
    list->n_names++;
    return QN_OK;
}

qn_status qn_exclude_add(qn_exclude *list, qn_str entry, qn_error *err)
{
    if (!is_pattern(entry)) {
        return add_name(list, entry, err);
    }
    if (list->n_patterns == QN_EXCLUDE_PATTERNS_MAX) {
        list->n_ignored++;
        return QN_OK;
    }
    return add_pattern(list, entry, err);
}

static int by_text(const void *a, const void *b)
{
    return qn_str_compare(*(const qn_str *)a, *(const qn_str *)b);
}

void qn_exclude_seal(qn_exclude *list)
{
    size_t n = 0;
    if (list->n_names > 0) {
        qsort(list->names, list->n_names, sizeof *list->names, by_text);
    }
    for (size_t i = 0; i < list->n_names; i++) {
        if (n > 0 && qn_str_equal(list->names[n - 1], list->names[i])) {
            free((void *)(uintptr_t)list->names[i].ptr);
        } else {
            list->names[n++] = list->names[i];
        }
    }
    list->n_names = n;
}

void qn_exclude_deinit(qn_exclude *list)
{
    for (size_t i = 0; i < list->n_names; i++) {
        free((void *)(uintptr_t)list->names[i].ptr);
    }
    for (size_t i = 0; i < list->n_patterns; i++) {
        close_pattern(&list->patterns[i]);
    }
    free(list->names);
    free(list->patterns);
    *list = (qn_exclude){0};
}

/* ---------------------------------------------------------------------------------- matching -- */

bool qn_exclude_equals(const qn_exclude *list, qn_str name)
{
    return qn_sorted_find(list->names, list->n_names, sizeof *list->names, name) != NULL;
}

bool qn_exclude_matches(const qn_exclude *list, qn_str name)
{
    bool is_matched = qn_exclude_equals(list, name);
    for (size_t i = 0; i < list->n_patterns && !is_matched; i++) {
        is_matched = finds(&list->patterns[i], name, true);
    }
    return is_matched;
}

bool qn_exclude_has_child(const qn_exclude *list, qn_str container)
{
    return qn_sorted_has_below(list->names, list->n_names, sizeof *list->names, container);
}

bool qn_exclude_covers(const qn_exclude *list, qn_str name)
{
    bool is_covered = qn_exclude_equals(list, name);
    for (size_t i = 1; i < name.len && !is_covered; i++) { /* every path above it */
        is_covered = name.ptr[i] == '.' && qn_exclude_equals(list, (qn_str){name.ptr, i});
    }
    for (size_t i = 0; i < list->n_patterns && !is_covered; i++) {
        is_covered = qn_exclude_pattern_matches(&list->patterns[i], name);
    }
    return is_covered;
}

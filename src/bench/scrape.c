/* SPDX-License-Identifier: Apache-2.0 */
#include "scrape.h"

#include <math.h>

enum { NUMBER_BYTES = 64 };

void scrape_init(scrape *page, qn_str text)
{
    *page = (scrape){.rest = text};
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t';
}

static void skip(qn_str *text, size_t n)
{
    text->ptr += n;
    text->len -= n;
}

static void skip_space(qn_str *text)
{
    while (text->len > 0 && is_space(text->ptr[0])) {
        skip(text, 1);
    }
}

static qn_str take_line(qn_str *rest)
{
    const char *const end = memchr(rest->ptr, '\n', rest->len);
    qn_str line = {rest->ptr, end != NULL ? (size_t)(end - rest->ptr) : rest->len};
    skip(rest, end != NULL ? line.len + 1 : line.len);
    while (line.len > 0 && (line.ptr[line.len - 1] == '\r' || is_space(line.ptr[line.len - 1]))) {
        line.len--;
    }
    return line;
}

/* A name of a metric (with ':') or of a label. */
static qn_str take_name(qn_str *text)
{
    size_t n = 0;
    while (n < text->len) {
        const char c = text->ptr[n];
        const bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
                               c == ':' || (n > 0 && c >= '0' && c <= '9');
        if (!is_letter) {
            break;
        }
        n++;
    }
    const qn_str name = {text->ptr, n};
    skip(text, n);
    return name;
}

/* What is quoted, without its quotes; false where no quote opens or closes. */
static bool take_quoted(qn_str *text, qn_str *inner)
{
    if (text->len == 0 || text->ptr[0] != '"') {
        return false;
    }
    for (size_t i = 1; i < text->len; i++) {
        if (text->ptr[i] == '\\') {
            i++;
        } else if (text->ptr[i] == '"') {
            *inner = (qn_str){text->ptr + 1, i - 1};
            skip(text, i + 1);
            return true;
        }
    }
    return false;
}

bool scrape_label_next(qn_str *rest, qn_str *name, qn_str *value)
{
    if (rest->len == 0) { /* its pointer may be NULL, which nothing may be added to */
        return false;
    }
    skip_space(rest);
    *name = take_name(rest);
    skip_space(rest);
    if (name->len == 0 || rest->len == 0 || rest->ptr[0] != '=') {
        return false;
    }
    skip(rest, 1);
    skip_space(rest);
    if (!take_quoted(rest, value)) {
        return false;
    }
    skip_space(rest);
    if (rest->len > 0 && rest->ptr[0] == ',') {
        skip(rest, 1);
        skip_space(rest);
    }
    return true;
}

static bool take_labels(qn_str *text, qn_str *labels)
{
    *labels = (qn_str){0};
    if (text->len == 0 || text->ptr[0] != '{') {
        return true;
    }
    skip(text, 1);
    skip_space(text);
    const char *const begin = text->ptr;
    qn_str name;
    qn_str value;
    while (text->len > 0 && text->ptr[0] != '}') {
        if (!scrape_label_next(text, &name, &value)) {
            return false;
        }
    }
    if (text->len == 0) {
        return false;
    }
    *labels = (qn_str){begin, (size_t)(text->ptr - begin)};
    skip(text, 1);
    return true;
}

/* A number as Go and Python print them: "1e+06", "NaN", "+Inf"; nothing else that strtod() reads.
 */
static bool take_number(qn_str *text, double *value)
{
    char digits[NUMBER_BYTES];
    size_t n = 0;
    while (n < text->len && !is_space(text->ptr[n])) {
        n++;
    }
    if (n == 0 || n >= sizeof digits) {
        return false;
    }
    memcpy(digits, text->ptr, n);
    digits[n] = '\0';
    skip(text, n);
    const char *const bare = digits + (digits[0] == '+' || digits[0] == '-');
    if (strcmp(digits, "NaN") == 0) {
        *value = (double)NAN;
        return true;
    }
    if (strcmp(bare, "Inf") == 0) {
        *value = digits[0] == '-' ? -(double)INFINITY : (double)INFINITY;
        return true;
    }
    char *end = NULL;
    *value = strtod(digits, &end);
    return strspn(digits, "0123456789+-.eE") == n && end == digits + n;
}

static bool read_line(qn_str line, scrape_sample *sample)
{
    sample->name = take_name(&line);
    skip_space(&line);
    if (sample->name.len == 0 || !take_labels(&line, &sample->labels)) {
        return false;
    }
    skip_space(&line);
    if (!take_number(&line, &sample->value)) {
        return false;
    }
    double timestamp = 0;
    skip_space(&line);
    if (line.len > 0 && line.ptr[0] != '#' && !take_number(&line, &timestamp)) {
        return false;
    }
    skip_space(&line);
    return line.len == 0 || line.ptr[0] == '#';
}

bool scrape_next(scrape *page, scrape_sample *sample)
{
    while (page->rest.len > 0) {
        qn_str line = take_line(&page->rest);
        skip_space(&line);
        if (line.len == 0 || line.ptr[0] == '#') {
            continue;
        }
        if (read_line(line, sample)) {
            page->n_samples++;
            return true;
        }
        page->n_broken++;
    }
    return false;
}

bool scrape_label(char *out, size_t out_bytes, const scrape_sample *sample, const char *name)
{
    qn_str rest = sample->labels;
    qn_str key;
    qn_str value;
    while (scrape_label_next(&rest, &key, &value)) {
        if (!qn_str_equal(key, qn_str_of(name))) {
            continue;
        }
        size_t n = 0;
        for (size_t i = 0; i < value.len && n + 1 < out_bytes; i++) {
            char c = value.ptr[i];
            if (c == '\\' && i + 1 < value.len) {
                c = value.ptr[++i];
                c = (char)(c == 'n' ? '\n' : c);
            }
            out[n++] = c;
        }
        out[n] = '\0';
        return true;
    }
    return false;
}

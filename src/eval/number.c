/* SPDX-License-Identifier: Apache-2.0 */
#include "eval/number.h"

enum { EXPONENT_MAX = 1000000000 }; /* what is larger is that large */

/* A text that is read from the left. */
typedef struct scan {
    const char *at;
    const char *end;
} scan;

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool begins_with(const scan *s, const char *word)
{
    const size_t len = strlen(word);
    return (size_t)(s->end - s->at) >= len && memcmp(s->at, word, len) == 0;
}

/* Does @p word end just before @p at? */
static bool ends_with(const char *begin, const char *at, const char *word)
{
    const size_t len = strlen(word);
    return (size_t)(at - begin) >= len && memcmp(at - len, word, len) == 0;
}

static size_t count_digits(const char *at, const char *end)
{
    size_t n = 0;
    while (at + n < end && is_digit(at[n])) {
        n++;
    }
    return n;
}

/* Bytes of a separator with exactly three digits behind it; 0: there is none. */
static size_t separator_len(const scan *s)
{
    static const char *const separators[] = {",", "{,}", "\\,"};
    for (size_t i = 0; i < sizeof separators / sizeof separators[0]; i++) {
        const size_t len = strlen(separators[i]);
        if (begins_with(s, separators[i]) && count_digits(s->at + len, s->end) == 3) {
            return len;
        }
    }
    return 0;
}

/* Note the digits of a run, each of which stands one place further right than the one before. */
static void take_digits(qn_decimal *number, scan *s, int64_t *place)
{
    for (; s->at < s->end && is_digit(*s->at); s->at++) {
        --*place;
        if (*s->at == '0') {
            continue;
        }
        if (number->digits.len == 0) {
            number->digits.ptr = s->at;
        }
        number->digits.len = (size_t)(s->at + 1 - number->digits.ptr);
        number->exponent = *place;
    }
}

/* "e-3" with nothing of a word behind it. */
static int64_t take_exponent(scan *s)
{
    int64_t exponent = 0;
    const char *at = s->at + 1;
    if (s->at == s->end || (*s->at != 'e' && *s->at != 'E')) {
        return 0;
    }
    const bool has_sign = at < s->end && (*at == '-' || *at == '+');
    const bool is_negative = has_sign && *at == '-';
    at += has_sign ? 1 : 0;
    const size_t n = count_digits(at, s->end);
    if (n == 0 || (at + n < s->end && is_letter(at[n]))) {
        return 0;
    }
    for (size_t i = 0; i < n; i++) {
        exponent = exponent < EXPONENT_MAX ? exponent * 10 + (at[i] - '0') : exponent;
    }
    s->at = at + n;
    return is_negative ? -exponent : exponent;
}

/* The number whose first digit, or point, is next; moves behind it. */
static void take_number(qn_decimal *number, scan *s)
{
    int64_t place = 0; /* counted from the first digit, until the point is found */
    *number = (qn_decimal){0};
    const size_t n_first = count_digits(s->at, s->end);
    take_digits(number, s, &place);
    for (size_t len; n_first >= 1 && n_first <= 3 && (len = separator_len(s)) > 0;) {
        s->at += len;
        take_digits(number, s, &place);
    }
    const int64_t point = place;
    if (begins_with(s, ".") && count_digits(s->at + 1, s->end) > 0) {
        s->at++;
        take_digits(number, s, &place);
    }
    number->exponent += take_exponent(s) - point;
}

/* Is there a minus before @p at that says "negative", not "less"? */
static bool has_minus(const char *begin, const char *at)
{
    static const char *const currencies[] = {"\\$", "$", "\xe2\x82\xac", "\xc2\xa3", "\xc2\xa5"};
    for (size_t i = 0; i < sizeof currencies / sizeof currencies[0]; i++) {
        if (ends_with(begin, at, currencies[i])) {
            at -= strlen(currencies[i]);
            break;
        }
    }
    const size_t len = ends_with(begin, at, "-")              ? 1
                       : ends_with(begin, at, "\xe2\x88\x92") ? strlen("\xe2\x88\x92")
                                                              : 0;
    const char *const sign = at - len;
    const char before = *(sign > begin ? sign - 1 : " ");
    return len > 0 && !is_digit(before) && !is_letter(before) && before != ')' && before != ']';
}

bool qn_decimal_last(qn_decimal *out, qn_str text)
{
    bool is_found = false;
    scan s = {.at = text.ptr, .end = text.ptr + text.len};
    while (s.at < s.end) {
        const char *const first = s.at;
        const bool is_number =
            is_digit(*first) || (*first == '.' && s.end - first > 1 && is_digit(first[1]));
        if (!is_number) {
            s.at++;
            continue;
        }
        const bool is_of_name = first > text.ptr && is_letter(first[-1]);
        qn_decimal number;
        take_number(&number, &s);
        if (!is_of_name) {
            number.is_negative = number.digits.len > 0 && has_minus(text.ptr, first);
            number.exponent = number.digits.len > 0 ? number.exponent : 0;
            *out = number;
            is_found = true;
        }
    }
    return is_found;
}

/* The next digit, what separates digits left out; 0: there is none. */
static char next_digit(qn_str *digits)
{
    while (digits->len > 0) {
        const char c = *digits->ptr;
        digits->ptr++;
        digits->len--;
        if (is_digit(c)) {
            return c;
        }
    }
    return '\0';
}

bool qn_decimal_equal(const qn_decimal *a, const qn_decimal *b)
{
    qn_str x = a->digits;
    qn_str y = b->digits;
    if (a->is_negative != b->is_negative || a->exponent != b->exponent) {
        return false;
    }
    for (;;) {
        const char c = next_digit(&x);
        if (c != next_digit(&y)) {
            return false;
        }
        if (c == '\0') {
            return true;
        }
    }
}

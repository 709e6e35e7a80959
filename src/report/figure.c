/* SPDX-License-Identifier: Apache-2.0 */
#include "report/figure.h"

#include "base/banned.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { DECIMALS_MAX = 6 };

/* Beyond these a number is written with a power of ten. */
static const double plain_max = 1e15;
static const double plain_min = 1e-4;

/* Commas between thousands of the whole digits. */
static void group(char *out, size_t out_bytes, const char *digits)
{
    const size_t n_sign = digits[0] == '-' ? 1 : 0;
    const size_t n_whole = strcspn(digits + n_sign, ".");
    size_t at = 0;
    for (size_t i = 0; digits[i] != '\0' && at + 2 < out_bytes; i++) {
        const size_t i_digit = i - n_sign;
        if (i > n_sign && i_digit < n_whole && (n_whole - i_digit) % 3 == 0) {
            out[at++] = ',';
        }
        out[at++] = digits[i];
    }
    out[at] = '\0';
}

static figure plain(double value, int n_decimals)
{
    figure out = {FIGURE_DASH};
    char digits[40];
    if (!isfinite(value)) {
        return out;
    }
    if (fabs(value) >= plain_max) {
        (void)snprintf(out.text, sizeof out.text, "%.2e", value);
        return out;
    }
    (void)snprintf(digits, sizeof digits, "%.*f", n_decimals, value);
    const char *const from = digits[0] == '-' && strspn(digits + 1, "0.") == strlen(digits + 1)
                                 ? digits + 1 /* no -0 */
                                 : digits;
    group(out.text, sizeof out.text, from);
    return out;
}

/* Of one quantity a suffix says what it is, unless it is not known. */
static figure with_unit(figure number, const char *unit)
{
    figure out = number;
    if (strcmp(number.text, FIGURE_DASH) != 0) {
        (void)snprintf(out.text, sizeof out.text, "%.28s %s", number.text, unit);
    }
    return out;
}

figure figure_of(double value)
{
    const double size = fabs(value);
    figure out;
    if (!(size > 0.0) || !isfinite(value)) {
        return plain(value, 0);
    }
    if (size < plain_min) {
        (void)snprintf(out.text, sizeof out.text, "%.2e", value);
        return out;
    }
    const int n_decimals = 2 - (int)floor(log10(size));
    return plain(value, n_decimals < 0 ? 0 : n_decimals > DECIMALS_MAX ? DECIMALS_MAX : n_decimals);
}

figure figure_count(double value)
{
    return plain(value, 0);
}

figure figure_plain(double value)
{
    figure out;
    if (value == rint(value) || !isfinite(value)) {
        return figure_count(value);
    }
    (void)snprintf(out.text, sizeof out.text, "%.6g", value);
    return out;
}

figure figure_percent(double share)
{
    const double percent = 100.0 * share;
    /* 99.96 is not 100. */
    const int n_decimals = percent == rint(percent)                ? 0
                           : percent > 99.9 && percent < 100.0     ? 3
                           : fabs(percent) < 0.1 && percent != 0.0 ? 3
                                                                   : 1;
    return with_unit(plain(percent, n_decimals), "%");
}

figure figure_ms(double ms)
{
    return fabs(ms) >= 1000.0 ? with_unit(figure_of(ms / 1000.0), "s")
                              : with_unit(figure_of(ms), "ms");
}

figure figure_bytes(double bytes)
{
    return fabs(bytes) >= 1e9 ? with_unit(figure_of(bytes * 1e-9), "GB")
                              : with_unit(figure_of(bytes * 1e-6), "MB");
}

figure figure_signed(double value)
{
    figure out = figure_of(value);
    if (value > 0.0 && isfinite(value)) {
        const figure size = out;
        (void)snprintf(out.text, sizeof out.text, "+%.36s", size.text);
    }
    return out;
}

/* SPDX-License-Identifier: Apache-2.0 */
/** @file figure.h  Numbers as people read them: 1,234, three digits that say something, a dash for
 * what is not known. */
#ifndef QN_REPORT_FIGURE_H
#define QN_REPORT_FIGURE_H

/** A number in text, by value: it may stand in the middle of a call. */
typedef struct figure {
    char text[40];
} figure;

/** What stands for a number that is NaN. */
#define FIGURE_DASH "\xe2\x80\x93"

/** All whole digits, and of small numbers three that count: 2,626, 99.6, 0.810. */
figure figure_of(double value);
/** Whole: 12,000. */
figure figure_count(double value);
/** A setting: 5, 0.7. */
figure figure_plain(double value);
/** A share: 0.601 is "60.1 %". */
figure figure_percent(double share);
/** Milliseconds, from a second on in seconds: "810 ms", "2.22 s". */
figure figure_ms(double ms);
/** Bytes in GB or MB, of 10^9 and 10^6. */
figure figure_bytes(double bytes);
/** With its sign: "+1.2", "-0.4". */
figure figure_signed(double value);
#endif

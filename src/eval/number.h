/* SPDX-License-Identifier: Apache-2.0 */
/** @file number.h  Numbers in prose and in JSON, compared by their decimal value, exactly. */
#ifndef QN_EVAL_NUMBER_H
#define QN_EVAL_NUMBER_H
#include "base/str.h"

/** A number as it is written somewhere. */
typedef struct qn_decimal {
    qn_str digits;    /**< Borrowed: from the first digit that is not 0 to the last such, with what
                           separates them; empty: the number is 0. */
    int64_t exponent; /**< Power of ten of the last of them. */
    bool is_negative; /**< Never of 0. */
} qn_decimal;

/**
 * The last number of a text.  A minus sign, also U+2212, belongs to it unless something that can be
 * subtracted from stands before; a currency sign may stand between.  "," between groups of three
 * digits is no decimal point, nor is TeX's "{,}"; a full stop behind the digits is none either.
 * Digits of a name ("x2") are no number.
 */
bool qn_decimal_last(qn_decimal *out, qn_str text);

/** The same value? */
bool qn_decimal_equal(const qn_decimal *a, const qn_decimal *b);
#endif

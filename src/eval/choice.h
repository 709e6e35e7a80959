/* SPDX-License-Identifier: Apache-2.0 */
/** @file choice.h  The letter that a text settles on.  Pure functions. */
#ifndef QN_EVAL_CHOICE_H
#define QN_EVAL_CHOICE_H
#include "base/str.h"

/**
 * Letters that a question offers: those that lines begin with, "(A) 42", "B. 43" or "C: 44", from A
 * on without a gap.
 * Returns  bit 0 for A; 0 where it offers fewer than two so
 */
uint32_t qn_choices_offered(qn_str question);

/**
 * The letter, A to Z, that a text settles on; 0: none.  The last that is called the answer counts
 * most ("the answer is B", "B is correct"), then the last that is enclosed ("(B)", "**B**"), then
 * one that the text begins with ("B. Because"), then the last "(b)", then the last that stands
 * alone.  One that is called wrong ("A is not") never counts.
 *
 * @param letters  only these count, as qn_choices_offered() has them; 0: all
 */
int qn_choice_of(qn_str text, uint32_t letters);
#endif

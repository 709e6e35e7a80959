/* SPDX-License-Identifier: Apache-2.0 */
/** @file style.h  How pages look. */
#ifndef QN_REPORT_STYLE_H
#define QN_REPORT_STYLE_H

/** CSS, light, dark and on paper, in pieces; NULL behind the last. */
extern const char *const report_style[];
#endif

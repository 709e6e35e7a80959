/* SPDX-License-Identifier: Apache-2.0 */
/** @file cupti_result.h  What tools/gpu/trace.c asks of CUPTI, for cupti.c beside it. */
#ifndef FAKE_CUPTI_RESULT_H
#define FAKE_CUPTI_RESULT_H
#define CUPTIAPI

typedef enum CUptiResult { CUPTI_SUCCESS, CUPTI_ERROR_MAX_LIMIT_REACHED = 12 } CUptiResult;

CUptiResult cuptiGetResultString(CUptiResult result, const char **text);
#endif

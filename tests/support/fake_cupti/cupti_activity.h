/* SPDX-License-Identifier: Apache-2.0 */
/** @file cupti_activity.h  Records of CUPTI by the names of tools/gpu/trace.c; not its layouts. */
#ifndef FAKE_CUPTI_ACTIVITY_H
#define FAKE_CUPTI_ACTIVITY_H
#include "cupti_result.h"

#include <stddef.h>
#include <stdint.h>

#define ACTIVITY_RECORD_ALIGNMENT 8

typedef void *CUcontext;

typedef enum CUpti_ActivityKind {
    CUPTI_ACTIVITY_KIND_MEMCPY,
    CUPTI_ACTIVITY_KIND_MEMSET,
    CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL,
} CUpti_ActivityKind;

typedef enum CUpti_ActivityFlag { CUPTI_ACTIVITY_FLAG_FLUSH_FORCED = 1 } CUpti_ActivityFlag;

/** All kinds alike. */
typedef struct CUpti_Activity {
    CUpti_ActivityKind kind;
    uint64_t start, end;
    const char *name;
} CUpti_Activity;
typedef CUpti_Activity CUpti_ActivityKernel9;
typedef CUpti_Activity CUpti_ActivityMemcpy5;
typedef CUpti_Activity CUpti_ActivityMemset4;

typedef void (*give_fn)(uint8_t **buffer, size_t *n_bytes, size_t *n_records_max);
typedef void (*take_fn)(CUcontext context, uint32_t stream, uint8_t *buffer, size_t n_bytes,
                        size_t n_valid_bytes);

CUptiResult cuptiGetTimestamp(uint64_t *ns);
CUptiResult cuptiActivityRegisterCallbacks(give_fn give, take_fn take);
CUptiResult cuptiActivityEnable(CUpti_ActivityKind kind);
CUptiResult cuptiActivityFlushAll(uint32_t flags);
CUptiResult cuptiActivityGetNextRecord(uint8_t *buffer, size_t n_valid_bytes,
                                       CUpti_Activity **record);
CUptiResult cuptiActivityGetNumDroppedRecords(CUcontext context, uint32_t stream, size_t *n);
#endif

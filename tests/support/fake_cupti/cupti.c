/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A CUPTI that tells of a few kernels, copies and fills once it is flushed, at times since 1970 as
 * the real one does.  tests/e2e/test_gpu_tools.py compiles it, and tools/gpu/trace.c above it.
 *
 * FAKE_CUPTI_LOST=1: of one record it has no times, and for two more no room.
 * FAKE_CUPTI_FAILS=1: it does not begin.
 */
#include "cupti_activity.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t begin_ns = 1795801210854477609;
static const CUpti_Activity records[] = {
    {CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL, 9000, 10000, "qn_gpu_pack"},
    {CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL, 20300, 21301, "qn_gpu_rope"}, /* 199 behind a fill */
    {CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL, 20000, 20100, "qn_gpu_embed"},
    {CUPTI_ACTIVITY_KIND_MEMSET, 20050, 20101, NULL},
    {CUPTI_ACTIVITY_KIND_MEMCPY, 21301, 21400, NULL},
};
static give_fn give;
static take_fn take;
static size_t n_dropped;

static bool is_set(const char *name)
{
    return getenv(name) != NULL;
}

CUptiResult cuptiGetResultString(CUptiResult result, const char **text)
{
    (void)result;
    *text = "CUPTI_ERROR_NOT_READY";
    return CUPTI_SUCCESS;
}

CUptiResult cuptiGetTimestamp(uint64_t *ns)
{
    *ns = begin_ns;
    return CUPTI_SUCCESS;
}

CUptiResult cuptiActivityRegisterCallbacks(give_fn g, take_fn t)
{
    give = g;
    take = t;
    return CUPTI_SUCCESS;
}

CUptiResult cuptiActivityEnable(CUpti_ActivityKind kind)
{
    (void)kind;
    return is_set("FAKE_CUPTI_FAILS") ? CUPTI_ERROR_MAX_LIMIT_REACHED : CUPTI_SUCCESS;
}

CUptiResult cuptiActivityFlushAll(uint32_t flags)
{
    uint8_t *buffer = NULL;
    size_t n_bytes = 0;
    size_t n_max = 0;
    (void)flags;
    give(&buffer, &n_bytes, &n_max);
    memcpy(buffer, records, sizeof records);
    CUpti_Activity *const at = (CUpti_Activity *)(void *)buffer;
    const size_t n = sizeof records / sizeof *records;
    for (size_t i = 0; i < n; i++) {
        at[i].start += begin_ns;
        at[i].end += begin_ns;
    }
    if (is_set("FAKE_CUPTI_LOST")) {
        at[0].start = at[0].end = 0;
        n_dropped = 2;
    }
    take(NULL, 0, buffer, n_bytes, sizeof records);
    return CUPTI_SUCCESS;
}

CUptiResult cuptiActivityGetNextRecord(uint8_t *buffer, size_t n_valid_bytes,
                                       CUpti_Activity **record)
{
    CUpti_Activity *const first = (CUpti_Activity *)(void *)buffer;
    CUpti_Activity *const next = *record == NULL ? first : *record + 1;
    *record = next;
    return (size_t)(next - first) * sizeof *next < n_valid_bytes ? CUPTI_SUCCESS
                                                                 : CUPTI_ERROR_MAX_LIMIT_REACHED;
}

CUptiResult cuptiActivityGetNumDroppedRecords(CUcontext context, uint32_t stream, size_t *n)
{
    (void)context, (void)stream;
    *n = n_dropped;
    n_dropped = 0;
    return CUPTI_SUCCESS;
}

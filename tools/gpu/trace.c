/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When each kernel, copy and fill of a program ran.  tools/gpu/profile.sh compiles it, and CUDA's
 * driver loads it into the program (CUDA_INJECTION64_PATH); at its end $QUERN_TRACE has a line for
 * each, in no order: start in ns since the program began, duration in ns, name ("copy", "fill" or
 * the kernel's).
 *
 * Kernels of a graph come one by one, and what a kernel overlaps with the one before it, having
 * been launched early, stays: of 4,000 of them on an H200 1,760 did.
 *
 * Source   CUPTI's documentation, "CUPTI Activity API"; records as of CUDA 13.0
 */
#include <cupti_activity.h>
#include <cupti_result.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUFFER_BYTES = 8 << 20 };

/* Begun by the program's first call of the driver; buffers come from threads of CUPTI, and at the
 * end from the one that ends the program. */
static struct {
    pthread_mutex_t lock;
    FILE *out; /* NULL: at an end */
    const char *path;
    uint64_t begin_ns; /* subtracted: stamps since 1970 are more than awk's numbers hold */
    size_t n_lost;     /* records without a time, or without room */
} g = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void CUPTIAPI give_buffer(uint8_t **buffer, size_t *n_bytes, size_t *n_records_max)
{
    *buffer = aligned_alloc(ACTIVITY_RECORD_ALIGNMENT, BUFFER_BYTES);
    *n_bytes = *buffer != NULL ? BUFFER_BYTES : 0;
    *n_records_max = 0; /* as many as it holds */
}

static void put_line(uint64_t start_ns, uint64_t end_ns, const char *name)
{
    if (start_ns < g.begin_ns || end_ns < start_ns) { /* 0: it has not ended, or was not timed */
        g.n_lost++;
        return;
    }
    (void)fprintf(g.out, "%" PRIu64 ",%" PRIu64 ",%s\n", start_ns - g.begin_ns, end_ns - start_ns,
                  name);
}

static void put_record(const CUpti_Activity *record)
{
    switch (record->kind) {
    case CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL: {
        const CUpti_ActivityKernel9 *const kernel = (const CUpti_ActivityKernel9 *)record;
        put_line(kernel->start, kernel->end, kernel->name);
        break;
    }
    case CUPTI_ACTIVITY_KIND_MEMCPY: {
        const CUpti_ActivityMemcpy5 *const copy = (const CUpti_ActivityMemcpy5 *)record;
        put_line(copy->start, copy->end, "copy");
        break;
    }
    case CUPTI_ACTIVITY_KIND_MEMSET: {
        const CUpti_ActivityMemset4 *const fill = (const CUpti_ActivityMemset4 *)record;
        put_line(fill->start, fill->end, "fill");
        break;
    }
    default: break;
    }
}

static void add_dropped(CUcontext context, uint32_t stream)
{
    size_t n_dropped = 0;
    if (cuptiActivityGetNumDroppedRecords(context, stream, &n_dropped) == CUPTI_SUCCESS) {
        g.n_lost += n_dropped;
    }
}

static void CUPTIAPI take_buffer(CUcontext context, uint32_t stream, uint8_t *buffer,
                                 size_t n_bytes, size_t n_valid_bytes)
{
    CUpti_Activity *record = NULL;
    (void)n_bytes;
    (void)pthread_mutex_lock(&g.lock);
    while (g.out != NULL &&
           cuptiActivityGetNextRecord(buffer, n_valid_bytes, &record) == CUPTI_SUCCESS) {
        put_record(record);
    }
    add_dropped(context, stream);
    (void)pthread_mutex_unlock(&g.lock);
    free(buffer);
}

/* What is missing counts as gaps, so it is said. */
static void end_trace(void)
{
    const bool is_whole = cuptiActivityFlushAll(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED) == CUPTI_SUCCESS;
    (void)pthread_mutex_lock(&g.lock);
    add_dropped(NULL, 0);
    bool is_written = ferror(g.out) == 0;
    is_written = fclose(g.out) == 0 && is_written;
    g.out = NULL;
    if (g.n_lost > 0 || !is_whole) {
        (void)fprintf(stderr, "trace: %zu kernels, copies and fills left out%s\n", g.n_lost,
                      is_whole ? "" : ", and the last were not given");
    }
    (void)pthread_mutex_unlock(&g.lock);
    if (!is_written) {
        (void)fprintf(stderr, "trace: %s: not all could be written, removed\n", g.path);
        (void)remove(g.path);
    }
}

static const char *begin_trace(void)
{
    static const CUpti_ActivityKind kinds[] = {CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL,
                                               CUPTI_ACTIVITY_KIND_MEMCPY,
                                               CUPTI_ACTIVITY_KIND_MEMSET};
    const char *text = NULL;
    CUptiResult result = cuptiGetTimestamp(&g.begin_ns);
    if (result == CUPTI_SUCCESS) {
        result = cuptiActivityRegisterCallbacks(give_buffer, take_buffer);
    }
    for (size_t i = 0; result == CUPTI_SUCCESS && i < sizeof kinds / sizeof *kinds; i++) {
        result = cuptiActivityEnable(kinds[i]);
    }
    if (result == CUPTI_SUCCESS) {
        return NULL;
    }
    return cuptiGetResultString(result, &text) == CUPTI_SUCCESS ? text : "an unknown error";
}

/* What the driver calls in a library that it injects: 1 where all is well. */
__attribute__((visibility("default"))) int InitializeInjection(void);

int InitializeInjection(void)
{
    g.path = getenv("QUERN_TRACE");
    g.path = g.path != NULL ? g.path : "";
    g.out = fopen(g.path, "w");
    if (g.out == NULL) {
        (void)fprintf(stderr, "trace: QUERN_TRACE: '%s': %s, a file that can be written expected\n",
                      g.path, strerror(errno));
        return 0;
    }
    const char *const failure = begin_trace();
    if (failure != NULL || atexit(end_trace) != 0) {
        (void)fprintf(stderr, "trace: CUPTI: %s\n", failure != NULL ? failure : "no memory");
        (void)fclose(g.out);
        (void)remove(g.path);
        return 0;
    }
    return 1;
}

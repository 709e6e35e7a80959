/* SPDX-License-Identifier: Apache-2.0 */
#include "plain_gpu.h"

#include "gpuemu/emu.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

struct qn_gpu {
    qn_gpu_info info;
};
struct qn_gpu_stream {
    int unused;
};
struct qn_gpu_event {
    double at;
};
struct qn_gpu_module {
    int unused;
};
struct qn_gpu_graph {
    int unused;
};

qn_status plain_gpu_open(qn_gpu **out)
{
    *out = calloc(1, sizeof **out);
    (*out)->info = (qn_gpu_info){.name = "emulated",
                                 .arch = "emulated",
                                 .driver = "0.0",
                                 .n_sms = 4,
                                 .n_lanes = 32,
                                 .memory_bytes = 1 << 30,
                                 .l2_bytes = 1 << 20,
                                 .shared_bytes = 227 * 1024};
    return QN_OK;
}

qn_status qn_gpu_open(qn_gpu **out, const char *name, qn_error *err)
{
    *out = NULL;
    return qn_fail(err, QN_E_DEVICE, 0, "qn_gpu_open", "%s: not in this build", name);
}

void qn_gpu_close(qn_gpu **gpu)
{
    free(*gpu);
    *gpu = NULL;
}

const qn_gpu_info *qn_gpu_get_info(const qn_gpu *gpu)
{
    return &gpu->info;
}

qn_status qn_gpu_alloc(void **out, qn_gpu *gpu, size_t n_bytes, const char *what, qn_error *err)
{
    (void)gpu;
    (void)what;
    (void)err;
    *out = aligned_alloc(256, (n_bytes + 255) / 256 * 256);
    return QN_OK;
}

void qn_gpu_free(qn_gpu *gpu, void *memory)
{
    (void)gpu;
    free(memory);
}

qn_status qn_gpu_stream_open(qn_gpu_stream **out, qn_gpu *gpu, qn_error *err)
{
    (void)gpu;
    (void)err;
    *out = calloc(1, sizeof **out);
    return QN_OK;
}

void qn_gpu_stream_close(qn_gpu_stream **stream)
{
    free(*stream);
    *stream = NULL;
}

void qn_gpu_upload(qn_gpu_stream *stream, void *to, const void *from, size_t n_bytes)
{
    (void)stream;
    memcpy(to, from, n_bytes);
}

void qn_gpu_download(qn_gpu_stream *stream, void *to, const void *from, size_t n_bytes)
{
    qn_gpu_upload(stream, to, from, n_bytes);
}

void qn_gpu_copy(qn_gpu_stream *stream, void *to, const void *from, size_t n_bytes)
{
    qn_gpu_upload(stream, to, from, n_bytes);
}

void qn_gpu_fill(qn_gpu_stream *stream, void *to, uint8_t byte, size_t n_bytes)
{
    (void)stream;
    memset(to, byte, n_bytes);
}

qn_status qn_gpu_check(qn_gpu_stream *stream, qn_error *err)
{
    (void)stream;
    (void)err;
    return QN_OK;
}

qn_status qn_gpu_wait(qn_gpu_stream *stream, qn_error *err)
{
    return qn_gpu_check(stream, err);
}

qn_status qn_gpu_event_open(qn_gpu_event **out, qn_gpu *gpu, qn_error *err)
{
    (void)gpu;
    (void)err;
    *out = calloc(1, sizeof **out);
    return QN_OK;
}

void qn_gpu_event_close(qn_gpu_event **event)
{
    free(*event);
    *event = NULL;
}

void qn_gpu_event_record(qn_gpu_event *event, qn_gpu_stream *stream)
{
    (void)stream;
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    event->at = (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double qn_gpu_event_seconds(qn_gpu_event *first, qn_gpu_event *last)
{
    return last->at - first->at;
}

qn_status qn_gpu_module_load(qn_gpu_module **out, qn_gpu *gpu, const void *image, size_t n_bytes,
                             const char *name, qn_error *err)
{
    (void)gpu;
    (void)image;
    (void)n_bytes;
    (void)name;
    (void)err;
    *out = calloc(1, sizeof **out);
    return QN_OK;
}

void qn_gpu_module_unload(qn_gpu_module **module)
{
    free(*module);
    *module = NULL;
}

qn_status qn_gpu_module_find(qn_gpu_function *out, qn_gpu_module *module, const char *symbol,
                             uint32_t shared_bytes_max, qn_error *err)
{
    (void)module;
    (void)shared_bytes_max;
    if (!emu_has(symbol + strlen("qn_gpu_"))) {
        return qn_fail(err, QN_E_DEVICE, 0, "qn_gpu_module_find", "%s: not emulated", symbol);
    }
    memcpy(out, &symbol, sizeof *out);
    return QN_OK;
}

void qn_gpu_launch(qn_gpu_stream *stream, const qn_gpu_launch_args *launch)
{
    (void)stream;
    if (launch->grid[0] * launch->grid[1] * launch->grid[2] > 0) {
        emu_launch((const char *)launch->function + strlen("qn_gpu_"), launch->grid,
                   launch->n_threads, launch->shared_bytes, launch->args);
    }
}

void qn_gpu_capture_begin(qn_gpu_stream *stream)
{
    (void)stream;
}

qn_status qn_gpu_capture_end(qn_gpu_graph **out, qn_gpu_stream *stream, qn_error *err)
{
    (void)stream;
    (void)err;
    *out = calloc(1, sizeof **out);
    return QN_OK;
}

void qn_gpu_graph_launch(qn_gpu_stream *stream, qn_gpu_graph *graph)
{
    (void)stream;
    (void)graph;
}

void qn_gpu_graph_close(qn_gpu_graph **graph)
{
    free(*graph);
    *graph = NULL;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "plain_gpu.h"

#include "device/gpu_driver.h"
#include "gpuemu/emu.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static qn_status load(char version[32], qn_error *err)
{
    (void)err;
    memcpy(version, "0", 2);
    return QN_OK;
}
static qn_gpu_code classify(int code)
{
    return code == 0 ? QN_GPU_DONE : QN_GPU_REFUSED;
}
static void describe(char out[QN_GPU_TEXT_BYTES], int code)
{
    (void)code;
    memcpy(out, "?", 2);
}
static int count(uint32_t *n)
{
    *n = 1;
    return 0;
}
static int info(qn_gpu_info *out, uint32_t i)
{
    (void)i;
    *out = (qn_gpu_info){.name = "emulated",
                         .arch = "emulated",
                         .n_sms = 4,
                         .n_lanes = 32,
                         .memory_bytes = 1 << 30,
                         .l2_bytes = 1 << 20,
                         .shared_bytes = 227 * 1024};
    return 0;
}
static int open_device(void **context, uint32_t i)
{
    (void)i;
    *context = NULL;
    return 0;
}
static int with_device(void *context, uint32_t i)
{
    (void)context;
    (void)i;
    return 0;
}
static int memory(uint64_t *n)
{
    *n = 1 << 30;
    return 0;
}
static int alloc(void **out, size_t n)
{
    *out = aligned_alloc(256, (n + 255) / 256 * 256);
    return 0;
}
static int release(void *at)
{
    free(at);
    return 0;
}
static int handle_open(void **out)
{
    *out = calloc(1, 64);
    return 0;
}
static int nothing(void *stream)
{
    (void)stream;
    return 0;
}
static int upload(void *stream, void *to, const void *from, size_t n)
{
    (void)stream;
    memcpy(to, from, n);
    return 0;
}
static int fill(void *stream, void *to, uint8_t byte, size_t n)
{
    (void)stream;
    memset(to, byte, n);
    return 0;
}
static int launch(void *stream, const qn_gpu_launch_args *a)
{
    (void)stream;
    emu_launch((const char *)a->function + strlen("qn_gpu_"), a->grid, a->n_threads,
               a->shared_bytes, a->args);
    return 0;
}
static int event_record(void *event, void *stream)
{
    (void)stream;
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    *(double *)event = (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
    return 0;
}
static int event_follow(void *stream, void *event)
{
    (void)stream;
    (void)event;
    return 0;
}
static int event_seconds(double *out, void *first, void *last)
{
    *out = *(double *)last - *(double *)first;
    return 0;
}
static int module_load(void **out, const void *image, char log[QN_GPU_LOG_BYTES])
{
    (void)image;
    log[0] = '\0';
    return handle_open(out);
}
static int module_find(void **out, void *module, const char *symbol)
{
    (void)module;
    memcpy(out, &symbol, sizeof *out);
    return emu_has(symbol + strlen("qn_gpu_")) ? 0 : 1;
}
static int allow_shared(void *function, uint32_t n)
{
    (void)function;
    (void)n;
    return 0;
}
static int capture_end(void **graph, void *stream)
{
    (void)stream;
    return handle_open(graph);
}
static int graph_nodes(void **nodes, size_t *n, void *graph)
{
    (void)nodes;
    (void)graph;
    *n = 0;
    return 0;
}
static int node_kind(int *kind, void *node)
{
    (void)node;
    *kind = 0;
    return 0;
}
static int graph_ready(void **exec, void *graph)
{
    (void)graph;
    return handle_open(exec);
}
static int graph_launch(void *exec, void *stream)
{
    (void)exec;
    (void)stream;
    return 0;
}

static const qn_gpu_driver driver = {
    .name = "emulated",
    .vendor = "none",
    .node = "none",
    .load = load,
    .classify = classify,
    .describe = describe,
    .count = count,
    .info = info,
    .open = open_device,
    .close = with_device,
    .use = with_device,
    .memory = memory,
    .alloc = alloc,
    .free = release,
    .alloc_host = alloc,
    .free_host = release,
    .stream_open = handle_open,
    .stream_close = release,
    .stream_query = nothing,
    .stream_wait = nothing,
    .upload = upload,
    .download = upload,
    .copy = upload,
    .fill = fill,
    .launch = launch,
    .event_open = handle_open,
    .event_close = release,
    .event_record = event_record,
    .event_follow = event_follow,
    .event_wait = nothing,
    .event_seconds = event_seconds,
    .module_load = module_load,
    .module_unload = release,
    .module_find = module_find,
    .allow_shared = allow_shared,
    .capture_begin = nothing,
    .capture_end = capture_end,
    .graph_close = release,
    .graph_nodes = graph_nodes,
    .graph_node_kind = node_kind,
    .graph_ready = graph_ready,
    .graph_launch = graph_launch,
    .exec_close = release,
};

qn_status plain_gpu_open(qn_gpu **out)
{
    return qn_gpu_open_driver(out, &driver, 0, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "base/assert.h"
#include "base/str.h"
#include "device/gpu_driver.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>

struct qn_gpu {
    const qn_gpu_driver *driver;
    void *context;
    uint32_t i_device;
    char name[24];    /* "cuda:0" */
    qn_error failure; /* That left the context unusable; QN_OK: none. */
    qn_gpu_info info;
};
struct qn_gpu_stream {
    qn_gpu *gpu;
    void *handle;
    const char *last;  /* Launched: a failure shows later than where it happens. */
    qn_error failure;  /* The first that was not told; QN_OK: none. */
    bool is_capturing; /* The driver does. */
};
struct qn_gpu_event {
    qn_gpu *gpu;
    void *handle;
};
struct qn_gpu_module {
    qn_gpu *gpu;
    void *handle;
    char name[64];
};
struct qn_gpu_graph {
    qn_gpu *gpu;
    void *exec;
    size_t n_works;
};

const qn_gpu_driver *const qn_gpu_drivers[QN_GPU_N_DRIVERS] = {&qn_gpu_cuda, &qn_gpu_hip};

const qn_gpu_driver *qn_gpu_find_driver(uint32_t *i_device, const char *name)
{
    for (size_t i = 0; i < QN_GPU_N_DRIVERS; i++) {
        const size_t len = strlen(qn_gpu_drivers[i]->name);
        if (strncmp(name, qn_gpu_drivers[i]->name, len) != 0) {
            continue;
        }
        const char *const number = name + len + 1;
        if (name[len] == '\0') {
            *i_device = 0;
            return qn_gpu_drivers[i];
        }
        if (name[len] == ':' && *number != '\0' && strspn(number, "0123456789") == strlen(number)) {
            const unsigned long value = strtoul(number, NULL, 10); /* the greatest if too great */
            if (value < UINT32_MAX) {
                *i_device = (uint32_t)value;
                return qn_gpu_drivers[i];
            }
        }
    }
    return NULL;
}

/* ------------------------------------------------------------------------------- failures -- */

/* Whose a failure is. */
typedef struct place {
    const qn_gpu_driver *driver;
    const char *name;
    const char *where;
} place;

QN_PRINTF(4, 0)
static qn_status explain_args(const place *at, int code, qn_error *err, const char *format,
                              va_list args)
{
    char asked[256], seen[QN_GPU_TEXT_BYTES];
    (void)vsnprintf(asked, sizeof asked, format, args);
    at->driver->describe(seen, code);
    const qn_gpu_code means = at->driver->classify(code);
    const char *const end = means == QN_GPU_STICKY ? "; this process cannot use the device any more"
                            : means == QN_GPU_LOST ? "; the device is lost until it is reset"
                                                   : "";
    const qn_status status = means == QN_GPU_NO_MEMORY   ? QN_E_NOMEM
                             : means == QN_GPU_NOT_FOUND ? QN_E_NOT_FOUND
                                                         : QN_E_DEVICE;
    return qn_fail(err, status, code, at->where, "%s: %s: %s%s", at->name, asked, seen, end);
}

QN_PRINTF(4, 5)
static qn_status explain(const place *at, int code, qn_error *err, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const qn_status status = explain_args(at, code, err, format, args);
    va_end(args);
    return status;
}

/* Tell what was asked and how it failed; what no call survives is kept as the device's failure. */
QN_PRINTF(5, 6)
static qn_status fail(qn_gpu *gpu, int code, qn_error *err, const char *where, const char *format,
                      ...)
{
    const qn_gpu_code means = gpu->driver->classify(code);
    qn_error *const first =
        (means == QN_GPU_STICKY || means == QN_GPU_LOST) && gpu->failure.status == QN_OK
            ? &gpu->failure
            : NULL;
    const place at = {gpu->driver, gpu->name, where};
    qn_error seen = {0};
    va_list args;
    va_start(args, format);
    const qn_status status = explain_args(&at, code, &seen, format, args);
    va_end(args);
    if (first != NULL) {
        *first = seen;
    }
    if (err != NULL) {
        *err = seen;
    }
    return status;
}

/* Before each call: is the device usable?  Then what follows is meant for it. */
static qn_status enter(qn_gpu *gpu, qn_error *err)
{
    if (gpu->failure.status != QN_OK) {
        if (err != NULL) {
            *err = gpu->failure;
        }
        return gpu->failure.status;
    }
    const int code = gpu->driver->use(gpu->context, gpu->i_device);
    return code == 0 ? QN_OK : fail(gpu, code, err, __func__, "the device's context");
}

/* Before something is released, which is tried in any state. */
static void enter_to_release(qn_gpu *gpu)
{
    (void)gpu->driver->use(gpu->context, gpu->i_device);
}

/* A release has nobody to tell; what no call survives is kept. */
static void released(qn_gpu *gpu, int code, const char *what)
{
    if (code != 0) {
        (void)fail(gpu, code, NULL, __func__, "release of %s", what);
    }
}

static qn_status no_memory(const qn_gpu *gpu, const char *what, qn_error *err)
{
    return qn_fail(err, QN_E_NOMEM, 0, __func__, "%s: %s: no memory", gpu->name, what);
}

/* ---------------------------------------------------------------------------- the device -- */

/* What devices there are; errors begin with @p name: the driver's, or that of the one asked for. */
static qn_status count(uint32_t *n_devices, const qn_gpu_driver *driver, const char *name,
                       qn_error *err)
{
    static const char where[] = "qn_gpu_count";
    *n_devices = 0;
    char version[32];
    qn_error seen = {0};
    const qn_status status = driver->load(version, &seen);
    if (status != QN_OK) {
        return qn_fail(err, status, seen.sys, where, "%s: %s", name, seen.text);
    }
    const place at = {driver, name, where};
    const int code = driver->count(n_devices);
    if (code != 0) {
        *n_devices = 0;
        return explain(&at, code, err, "version %s: devices", version);
    }
    if (*n_devices == 0) {
        return qn_fail(err, QN_E_DEVICE, 0, where, "%s: version %s: no device, one expected", name,
                       version);
    }
    return QN_OK;
}

qn_status qn_gpu_count(uint32_t *n_devices, const qn_gpu_driver *driver, qn_error *err)
{
    return count(n_devices, driver, driver->name, err);
}

qn_status qn_gpu_describe(qn_gpu_info *out, const qn_gpu_driver *driver, uint32_t i_device,
                          qn_error *err)
{
    uint32_t n_devices = 0;
    char name[24];
    (void)snprintf(name, sizeof name, "%s:%" PRIu32, driver->name, i_device);
    qn_error seen = {0};
    const qn_status status = count(&n_devices, driver, name, &seen);
    if (status != QN_OK) { /* a device that is asked for is missing with its library */
        return qn_fail(err, status == QN_E_NOT_FOUND ? QN_E_DEVICE : status, seen.sys, seen.where,
                       "%s", seen.text);
    }
    if (i_device >= n_devices) {
        return qn_fail(err, QN_E_DEVICE, 0, __func__, "%s: %s:0 to %s:%" PRIu32 " expected", name,
                       driver->name, driver->name, n_devices - 1);
    }
    *out = (qn_gpu_info){0};
    const int code = driver->info(out, i_device);
    if (code != 0) {
        const place at = {driver, name, __func__};
        return explain(&at, code, err, "what the device is");
    }
    qn_text_clean(out->name);
    return driver->load(out->driver, err);
}

qn_status qn_gpu_open_driver(qn_gpu **out, const qn_gpu_driver *driver, uint32_t i_device,
                             qn_error *err)
{
    *out = NULL;
    qn_gpu *const gpu = calloc(1, sizeof *gpu);
    if (gpu == NULL) {
        return qn_fail(err, QN_E_NOMEM, 0, __func__, "%s: no memory", driver->name);
    }
    gpu->driver = driver;
    gpu->i_device = i_device;
    (void)snprintf(gpu->name, sizeof gpu->name, "%s:%" PRIu32, driver->name, i_device);
    qn_status status = qn_gpu_describe(&gpu->info, driver, i_device, err);
    if (status == QN_OK) {
        const int code = driver->open_context(&gpu->context, i_device);
        status = code == 0 ? QN_OK : fail(gpu, code, err, __func__, "%s", gpu->info.name);
    }
    if (status != QN_OK) {
        free(gpu);
        return status;
    }
    *out = gpu;
    return QN_OK;
}

qn_status qn_gpu_open(qn_gpu **out, const char *name, qn_error *err)
{
    *out = NULL;
    uint32_t i_device = 0;
    const qn_gpu_driver *const driver = qn_gpu_find_driver(&i_device, name);
    if (driver == NULL) {
        return qn_fail(err, QN_E_INVAL, 0, __func__, "device '%s', cuda[:N] or hip[:N] expected",
                       name);
    }
    return qn_gpu_open_driver(out, driver, i_device, err);
}

void qn_gpu_close(qn_gpu **gpu)
{
    qn_gpu *const at = *gpu;
    if (at == NULL) {
        return;
    }
    (void)at->driver->close_context(at->context, at->i_device);
    free(at);
    *gpu = NULL;
}

const qn_gpu_info *qn_gpu_get_info(const qn_gpu *gpu)
{
    return &gpu->info;
}

uint64_t qn_gpu_free_bytes(qn_gpu *gpu)
{
    uint64_t n_bytes = 0;
    if (enter(gpu, NULL) != QN_OK) {
        return 0;
    }
    const int code = gpu->driver->free_bytes(&n_bytes);
    if (code != 0) {
        (void)fail(gpu, code, NULL, __func__, "free memory");
        return 0;
    }
    return n_bytes;
}

/* ----------------------------------------------------------------------------- the memory -- */

qn_status qn_gpu_alloc(void **out, qn_gpu *gpu, size_t n_bytes, const char *what, qn_error *err)
{
    *out = NULL;
    const qn_status status = enter(gpu, err);
    if (status != QN_OK || n_bytes == 0) {
        return status;
    }
    const int code = gpu->driver->alloc(out, n_bytes);
    if (code != 0) {
        *out = NULL;
        uint64_t free_bytes = 0;
        (void)gpu->driver->free_bytes(&free_bytes);
        return fail(gpu, code, err, __func__,
                    "%s: %zu bytes of device memory, %" PRIu64 " of %" PRIu64 " free", what,
                    n_bytes, free_bytes, gpu->info.memory_bytes);
    }
    return QN_OK;
}

void qn_gpu_free(qn_gpu *gpu, void *memory)
{
    if (memory != NULL) {
        enter_to_release(gpu);
        released(gpu, gpu->driver->free_memory(memory), "device memory");
    }
}

qn_status qn_gpu_alloc_host(void **out, qn_gpu *gpu, size_t n_bytes, const char *what,
                            qn_error *err)
{
    *out = NULL;
    const qn_status status = enter(gpu, err);
    if (status != QN_OK || n_bytes == 0) {
        return status;
    }
    const int code = gpu->driver->alloc_host(out, n_bytes);
    if (code != 0) {
        *out = NULL;
        return fail(gpu, code, err, __func__, "%s: %zu bytes of pinned host memory", what, n_bytes);
    }
    return QN_OK;
}

void qn_gpu_free_host(qn_gpu *gpu, void *memory)
{
    if (memory != NULL) {
        enter_to_release(gpu);
        released(gpu, gpu->driver->free_host(memory), "pinned host memory");
    }
}

/* ---------------------------------------------------------------------------- the streams -- */

/* May something be queued?  What comes behind a failure is skipped. */
static bool may_queue(qn_gpu_stream *stream)
{
    return stream->failure.status == QN_OK && enter(stream->gpu, &stream->failure) == QN_OK;
}

/* Tell of the stream's first failure and forget it; the device's own is told again. */
static qn_status take_failure(qn_gpu_stream *stream, qn_error *err)
{
    const qn_status status = stream->failure.status;
    if (status != QN_OK) {
        if (err != NULL) {
            *err = stream->failure;
        }
        stream->failure = (qn_error){0};
    }
    return status;
}

qn_status qn_gpu_stream_open(qn_gpu_stream **out, qn_gpu *gpu, qn_error *err)
{
    *out = NULL;
    qn_status status = enter(gpu, err);
    if (status != QN_OK) {
        return status;
    }
    qn_gpu_stream *const stream = calloc(1, sizeof *stream);
    if (stream == NULL) {
        return no_memory(gpu, "stream", err);
    }
    *stream = (qn_gpu_stream){.gpu = gpu, .last = "none"};
    const int code = gpu->driver->stream_open(&stream->handle);
    if (code != 0) {
        status = fail(gpu, code, err, __func__, "a stream");
        free(stream);
        return status;
    }
    *out = stream;
    return QN_OK;
}

/* End a capture of which nothing is wanted. */
static void drop_capture(qn_gpu_stream *stream)
{
    const qn_gpu_driver *const driver = stream->gpu->driver;
    void *graph = NULL;
    if (stream->is_capturing && driver->capture_end(&graph, stream->handle) == 0) {
        released(stream->gpu, driver->graph_close(graph), "a captured graph");
    }
    stream->is_capturing = false;
}

void qn_gpu_stream_close(qn_gpu_stream **stream)
{
    qn_gpu_stream *const at = *stream;
    if (at == NULL) {
        return;
    }
    enter_to_release(at->gpu);
    drop_capture(at);
    released(at->gpu, at->gpu->driver->stream_wait(at->handle), "a stream: its work");
    released(at->gpu, at->gpu->driver->stream_close(at->handle), "a stream");
    free(at);
    *stream = NULL;
}

/* A copy or fill that was queued; @p kind names it. */
static void queued(qn_gpu_stream *stream, int code, const char *kind, size_t n_bytes)
{
    if (code != 0) {
        (void)fail(stream->gpu, code, &stream->failure, kind, "%s of %zu bytes, last launch: %s",
                   kind, n_bytes, stream->last);
    }
}

void qn_gpu_upload(qn_gpu_stream *stream, void *to, const void *from, size_t n_bytes)
{
    if (n_bytes > 0 && may_queue(stream)) {
        queued(stream, stream->gpu->driver->upload(stream->handle, to, from, n_bytes), "upload",
               n_bytes);
    }
}

void qn_gpu_download(qn_gpu_stream *stream, void *to, const void *from, size_t n_bytes)
{
    if (n_bytes > 0 && may_queue(stream)) {
        queued(stream, stream->gpu->driver->download(stream->handle, to, from, n_bytes), "download",
               n_bytes);
    }
}

void qn_gpu_copy(qn_gpu_stream *stream, void *to, const void *from, size_t n_bytes)
{
    if (n_bytes > 0 && may_queue(stream)) {
        queued(stream, stream->gpu->driver->copy(stream->handle, to, from, n_bytes), "copy",
               n_bytes);
    }
}

void qn_gpu_fill(qn_gpu_stream *stream, void *to, uint8_t byte, size_t n_bytes)
{
    if (n_bytes > 0 && may_queue(stream)) {
        queued(stream, stream->gpu->driver->fill(stream->handle, to, byte, n_bytes), "fill",
               n_bytes);
    }
}

qn_status qn_gpu_check(qn_gpu_stream *stream, qn_error *err)
{
    /* To ask a stream that captures would end its capture. */
    if (may_queue(stream) && !stream->is_capturing) {
        const int code = stream->gpu->driver->stream_query(stream->handle);
        if (code != 0) {
            (void)fail(stream->gpu, code, &stream->failure, __func__,
                       "work of a stream, last launch: %s", stream->last);
        }
    }
    return take_failure(stream, err);
}

qn_status qn_gpu_wait(qn_gpu_stream *stream, qn_error *err)
{
    if (stream->is_capturing) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "%s: a stream that captures cannot be waited for, end the capture first",
                       stream->gpu->name);
    }
    /* Also behind a failure: what was queued before it may be under way. */
    if (enter(stream->gpu, NULL) == QN_OK) {
        const int code = stream->gpu->driver->stream_wait(stream->handle);
        qn_error *const err_kept = stream->failure.status == QN_OK ? &stream->failure : NULL;
        if (code != 0) {
            (void)fail(stream->gpu, code, err_kept, __func__, "work of a stream, last launch: %s",
                       stream->last);
        }
    } else if (stream->failure.status == QN_OK) {
        stream->failure = stream->gpu->failure;
    }
    return take_failure(stream, err);
}

/* ----------------------------------------------------------------------------- the events -- */

qn_status qn_gpu_event_open(qn_gpu_event **out, qn_gpu *gpu, qn_error *err)
{
    *out = NULL;
    qn_status status = enter(gpu, err);
    if (status != QN_OK) {
        return status;
    }
    qn_gpu_event *const event = calloc(1, sizeof *event);
    if (event == NULL) {
        return no_memory(gpu, "event", err);
    }
    event->gpu = gpu;
    const int code = gpu->driver->event_open(&event->handle);
    if (code != 0) {
        status = fail(gpu, code, err, __func__, "an event");
        free(event);
        return status;
    }
    *out = event;
    return QN_OK;
}

void qn_gpu_event_close(qn_gpu_event **event)
{
    qn_gpu_event *const at = *event;
    if (at == NULL) {
        return;
    }
    enter_to_release(at->gpu);
    released(at->gpu, at->gpu->driver->event_close(at->handle), "an event");
    free(at);
    *event = NULL;
}

void qn_gpu_event_record(qn_gpu_event *event, qn_gpu_stream *stream)
{
    if (may_queue(stream)) {
        const int code = stream->gpu->driver->event_record(event->handle, stream->handle);
        if (code != 0) {
            (void)fail(stream->gpu, code, &stream->failure, __func__, "an event, last launch: %s",
                       stream->last);
        }
    }
}

void qn_gpu_event_follow(qn_gpu_stream *stream, qn_gpu_event *event)
{
    if (may_queue(stream)) {
        const int code = stream->gpu->driver->event_follow(stream->handle, event->handle);
        if (code != 0) {
            (void)fail(stream->gpu, code, &stream->failure, __func__,
                       "a stream behind an event, last launch: %s", stream->last);
        }
    }
}

qn_status qn_gpu_event_wait(qn_gpu_event *event, qn_error *err)
{
    const qn_status status = enter(event->gpu, err);
    if (status != QN_OK) {
        return status;
    }
    const int code = event->gpu->driver->event_wait(event->handle);
    return code == 0 ? QN_OK : fail(event->gpu, code, err, __func__, "work before an event");
}

double qn_gpu_event_seconds(qn_gpu_event *first, qn_gpu_event *last)
{
    double seconds = (double)NAN;
    if (enter(first->gpu, NULL) != QN_OK) {
        return (double)NAN;
    }
    const int code = first->gpu->driver->event_seconds(&seconds, first->handle, last->handle);
    if (code != 0) {
        (void)fail(first->gpu, code, NULL, __func__, "time between events");
        return (double)NAN;
    }
    return seconds;
}

/* --------------------------------------------------------------------- modules and launches -- */

qn_status qn_gpu_module_load(qn_gpu_module **out, qn_gpu *gpu, const void *image, size_t n_bytes,
                             const char *name, qn_error *err)
{
    *out = NULL;
    qn_status status = enter(gpu, err);
    if (status != QN_OK) {
        return status;
    }
    qn_gpu_module *const module = calloc(1, sizeof *module);
    if (module == NULL) {
        return no_memory(gpu, name, err);
    }
    module->gpu = gpu;
    (void)snprintf(module->name, sizeof module->name, "%s", name);
    char log[QN_GPU_LOG_BYTES] = "";
    const int code = gpu->driver->module_load(&module->handle, image, log);
    if (code != 0) {
        for (char *c = log; *c != '\0'; c++) {
            if (*c == '\n') { /* an error's text is one line */
                *c = ' ';
            }
        }
        qn_error seen = {0};
        status = fail(gpu, code, &seen, __func__, "module %s of %zu bytes for %s", module->name,
                      n_bytes, gpu->info.arch);
        (void)qn_fail(err, status, code, __func__, "%.250s%s%.300s", seen.text,
                      log[0] != '\0' ? "; its compiler: " : "", log);
        free(module);
        return status;
    }
    *out = module;
    return QN_OK;
}

void qn_gpu_module_unload(qn_gpu_module **module)
{
    qn_gpu_module *const at = *module;
    if (at == NULL) {
        return;
    }
    enter_to_release(at->gpu);
    released(at->gpu, at->gpu->driver->module_unload(at->handle), at->name);
    free(at);
    *module = NULL;
}

qn_status qn_gpu_module_find(qn_gpu_function *out, qn_gpu_module *module, const char *symbol,
                             uint32_t shared_bytes_max, qn_error *err)
{
    *out = NULL;
    qn_gpu *const gpu = module->gpu;
    const qn_status status = enter(gpu, err);
    if (status != QN_OK) {
        return status;
    }
    void *function = NULL;
    int code = gpu->driver->module_find(&function, module->handle, symbol);
    if (code != 0) {
        return fail(gpu, code, err, __func__, "module %s: kernel %s", module->name, symbol);
    }
    code = shared_bytes_max > 0 ? gpu->driver->allow_shared(function, shared_bytes_max) : 0;
    if (code != 0) {
        return fail(gpu, code, err, __func__,
                    "kernel %s: %" PRIu32 " bytes of shared memory, a block has %" PRIu32, symbol,
                    shared_bytes_max, gpu->info.shared_bytes);
    }
    *out = function;
    return QN_OK;
}

void qn_gpu_launch(qn_gpu_stream *stream, const qn_gpu_launch_args *launch)
{
    QN_ASSERT(launch->function != NULL);
    QN_ASSERT(launch->n_threads > 0);
    const uint32_t *const grid = launch->grid;
    if (grid[0] == 0 || grid[1] == 0 || grid[2] == 0 || !may_queue(stream)) {
        return;
    }
    const int code = stream->gpu->driver->launch(stream->handle, launch);
    if (code != 0) {
        (void)fail(stream->gpu, code, &stream->failure, __func__,
                   "launch of %s: %" PRIu32 " x %" PRIu32 " x %" PRIu32 " blocks of %" PRIu32
                   " threads, %" PRIu32 " bytes of shared memory, clusters of %" PRIu32
                   ", launch before: %s",
                   launch->name, grid[0], grid[1], grid[2], launch->n_threads, launch->shared_bytes,
                   launch->n_cluster, stream->last);
    }
    stream->last = launch->name;
}

void qn_gpu_tensor_map(qn_gpu_stream *stream, uint8_t out[QN_GPU_TENSOR_MAP_BYTES],
                       const qn_gpu_tensor_map_args *args)
{
    if (!may_queue(stream)) {
        return;
    }
    const int code = stream->gpu->driver->tensor_map(out, args);
    if (code != 0) {
        (void)fail(stream->gpu, code, &stream->failure, __func__,
                   "tensor map of %" PRIu32 " dimensions, the first of %" PRIu64
                   ", launch before: %s",
                   args->n_dims, args->dims[0], stream->last);
    }
}

/* ----------------------------------------------------------------------------- the graphs -- */

void qn_gpu_capture_begin(qn_gpu_stream *stream)
{
    if (may_queue(stream)) {
        const int code = stream->gpu->driver->capture_begin(stream->handle);
        stream->is_capturing = code == 0;
        if (code != 0) {
            (void)fail(stream->gpu, code, &stream->failure, __func__, "begin of a capture");
        }
    }
}

/* Nodes of a graph that are work. */
static qn_status count_works(size_t *n_works, qn_gpu *gpu, void *graph, qn_error *err)
{
    const qn_gpu_driver *const driver = gpu->driver;
    size_t n = 0;
    int code = driver->graph_nodes(NULL, &n, graph);
    void **const nodes = code == 0 && n > 0 ? calloc(n, sizeof *nodes) : NULL;
    if (code == 0 && n > 0 && nodes == NULL) {
        return no_memory(gpu, "nodes of a graph", err);
    }
    code = nodes != NULL ? driver->graph_nodes(nodes, &n, graph) : code;
    for (size_t i = 0; i < n && code == 0; i++) {
        int kind = 0;
        code = driver->graph_node_kind(&kind, nodes[i]);
        *n_works += kind <= QN_GPU_NODE_FILL ? 1 : 0;
    }
    free(nodes);
    return code == 0 ? QN_OK : fail(gpu, code, err, __func__, "nodes of a captured graph");
}

/* An executable graph of a captured one. */
static qn_status make_graph(qn_gpu_graph **out, qn_gpu *gpu, void *captured, qn_error *err)
{
    qn_gpu_graph *const graph = calloc(1, sizeof *graph);
    if (graph == NULL) {
        return no_memory(gpu, "graph", err);
    }
    graph->gpu = gpu;
    qn_status status = count_works(&graph->n_works, gpu, captured, err);
    if (status == QN_OK) {
        const int code = gpu->driver->graph_ready(&graph->exec, captured);
        status = code == 0 ? QN_OK
                           : fail(gpu, code, err, __func__,
                                  "a graph of %zu kernels, copies and fills", graph->n_works);
    }
    if (status != QN_OK) {
        free(graph);
        return status;
    }
    *out = graph;
    return QN_OK;
}

qn_status qn_gpu_capture_end(qn_gpu_graph **out, qn_gpu_stream *stream, qn_error *err)
{
    *out = NULL;
    qn_gpu *const gpu = stream->gpu;
    if (!may_queue(stream)) {
        enter_to_release(gpu);
        drop_capture(stream);
        return take_failure(stream, err);
    }
    if (!stream->is_capturing) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "%s: the stream does not capture, a begin "
                       "expected",
                       gpu->name);
    }
    void *captured = NULL;
    stream->is_capturing = false;
    const int code = gpu->driver->capture_end(&captured, stream->handle);
    if (code != 0) {
        return fail(gpu, code, err, __func__, "end of a capture, last launch: %s", stream->last);
    }
    const qn_status status = make_graph(out, gpu, captured, err);
    released(gpu, gpu->driver->graph_close(captured), "a captured graph");
    return status;
}

void qn_gpu_graph_launch(qn_gpu_stream *stream, qn_gpu_graph *graph)
{
    if (!may_queue(stream)) {
        return;
    }
    const int code = stream->gpu->driver->graph_launch(graph->exec, stream->handle);
    if (code != 0) {
        (void)fail(stream->gpu, code, &stream->failure, __func__,
                   "a graph of %zu kernels, copies and fills, launch before: %s", graph->n_works,
                   stream->last);
    }
    stream->last = "a graph";
}

size_t qn_gpu_graph_count(const qn_gpu_graph *graph)
{
    return graph->n_works;
}

void qn_gpu_graph_close(qn_gpu_graph **graph)
{
    qn_gpu_graph *const at = *graph;
    if (at == NULL) {
        return;
    }
    enter_to_release(at->gpu);
    released(at->gpu, at->gpu->driver->exec_close(at->exec), "a graph");
    free(at);
    *graph = NULL;
}

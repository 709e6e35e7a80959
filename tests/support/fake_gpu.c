/* SPDX-License-Identifier: Apache-2.0 */
#include "base/assert.h"
#include "base/clock.h"
#include "support/fake_things.h"

#include <inttypes.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    ALIGNMENT = 256,
    BEHIND = 0xa5,                /* Between the end of memory and its page's. */
    SHARED_BYTES = 227 << 10,     /* As an H100 has. */
    SHARED_BYTES_FREE = 48 << 10, /* That need not be asked for. */
    THREADS_MAX = 1024,
};

/* The clock where kernels are said to take some time; 0 is no time. */
static uint64_t kernels_ns = 1;

/* ------------------------------------------------------------------- library and devices -- */

static qn_status load(char version[32], qn_error *err)
{
    (void)snprintf(version, 32, "1.0");
    if (fake_gpu.has_no_library) {
        return qn_fail(err, QN_E_NOT_FOUND, 0, __func__,
                       "no library (not found), libfake.so.1 expected");
    }
    if (fake_gpu.is_old) {
        return qn_fail(err, QN_E_DEVICE, 0, __func__,
                       "the driver is for fake 0.9, one for 1.0 or later expected");
    }
    return QN_OK;
}

static qn_gpu_code classify(int code)
{
    switch (code) {
    case 0: return QN_GPU_DONE;
    case FAKE_GPU_NO_MEMORY: return QN_GPU_NO_MEMORY;
    case FAKE_GPU_NOT_FOUND: return QN_GPU_NOT_FOUND;
    case FAKE_GPU_NO_DEVICE: return QN_GPU_NO_DEVICE;
    case FAKE_GPU_OLD: return QN_GPU_OLD_DRIVER;
    case FAKE_GPU_STICKY: return QN_GPU_STICKY;
    case FAKE_GPU_LOST: return QN_GPU_LOST;
    default: return QN_GPU_REFUSED;
    }
}

static void describe(char out[QN_GPU_TEXT_BYTES], int code)
{
    static const struct {
        int code;
        const char *text;
    } texts[] = {
        {FAKE_GPU_INVALID, "FAKE_INVALID (an argument that cannot be)"},
        {FAKE_GPU_NO_MEMORY, "FAKE_NO_MEMORY (out of memory)"},
        {FAKE_GPU_OLD, "FAKE_OLD (the driver is too old)"},
        {FAKE_GPU_NO_DEVICE, "FAKE_NO_DEVICE (no device)"},
        {FAKE_GPU_NOT_FOUND, "FAKE_NOT_FOUND (no such name)"},
        {FAKE_GPU_STICKY, "FAKE_STICKY (a kernel followed a wild pointer)"},
        {FAKE_GPU_CAPTURE, "FAKE_CAPTURE (not while a stream captures)"},
        {FAKE_GPU_LOST, "FAKE_LOST (the device is gone)"},
    };
    (void)snprintf(out, QN_GPU_TEXT_BYTES, "fake error %d", code);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (texts[i].code == code) {
            (void)snprintf(out, QN_GPU_TEXT_BYTES, "%s", texts[i].text);
        }
    }
}

static int count(uint32_t *n_devices)
{
    const int code = fake_begin("count");
    *n_devices = code == 0 ? fake_gpu.n_devices : 0;
    return code;
}

static int info(qn_gpu_info *out, uint32_t i_device)
{
    const int code = fake_begin("info");
    *out = (qn_gpu_info){
        .name = "emulated",
        .n_sms = fake_gpu.n_sms,
        .n_lanes = 32,
        .clock_khz = 1000000,
        .memory_bytes = fake_gpu.memory_bytes,
        .l2_bytes = 1 << 20,
        .shared_bytes = SHARED_BYTES,
    };
    (void)snprintf(out->arch, sizeof out->arch, "%s", fake_gpu.arch);
    return code != 0 || i_device < fake_gpu.n_devices ? code : FAKE_GPU_NO_DEVICE;
}

static int open_context(void **context, uint32_t i_device)
{
    fake_note("open %" PRIu32, i_device);
    const int code = fake_begin("open");
    if (code == 0) {
        QN_ASSERT(i_device < sizeof fake_state.is_open);
        *context = &fake_state.is_open[i_device];
        fake_state.is_open[i_device] = true;
    }
    return code;
}

static int close_context(void *context, uint32_t i_device)
{
    fake_note("close %" PRIu32, i_device);
    if (!fake_state.is_open[i_device] || context != &fake_state.is_open[i_device]) {
        fake_problem("close: the device is not open");
        return FAKE_GPU_INVALID;
    }
    for (const thing *t = fake_state.things; t != NULL; t = t->next) {
        if (t->is_live && t->context == context && t->kind != FUNCTION) {
            fake_problem("close: a %s %s of %zu bytes is still there", fake_kind_names[t->kind],
                         t->name, t->n_bytes);
        }
    }
    fake_state.is_open[i_device] = false;
    fake_state.current = NULL;
    return fake_state.broken;
}

static int use(void *context, uint32_t i_device)
{
    if (context != &fake_state.is_open[i_device] || !fake_state.is_open[i_device]) {
        fake_problem("use: the device is not open");
        return FAKE_GPU_INVALID;
    }
    fake_state.current = context;
    return fake_planned("use", false);
}

/* ------------------------------------------------------------------------------- memory -- */

static int free_bytes(uint64_t *out)
{
    const int code = fake_begin("memory");
    *out = code == 0 ? fake_gpu.memory_bytes - fake_state.used_bytes : 0;
    return code;
}

/* Memory whose last page is followed by one that nobody may touch, and so is its first preceded. */
static int map(thing *t, size_t n_bytes)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t room = (n_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    const size_t inner = (room + page - 1) / page * page;
    void *const pages = mmap(NULL, inner + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) {
        return FAKE_GPU_NO_MEMORY;
    }
    t->pages = pages;
    t->n_page_bytes = inner + 2 * page;
    if (mprotect(t->pages + page, inner, PROT_READ | PROT_WRITE) != 0) {
        (void)munmap(pages, t->n_page_bytes);
        t->pages = NULL;
        return FAKE_GPU_NO_MEMORY;
    }
    t->at = t->pages + page + inner - room;
    t->n_bytes = n_bytes;
    memset(t->at, 0xff, n_bytes);
    memset(t->at + n_bytes, BEHIND, room - n_bytes);
    return 0;
}

static bool is_in_capture(const char *call)
{
    for (const thing *t = fake_state.things; t != NULL; t = t->next) {
        if (t->is_live && t->kind == STREAM && t->capture != NULL) {
            fake_note("%s while a stream captures", call);
            return true;
        }
    }
    return false;
}

static int make_memory(const char *call, void **out, size_t n_bytes, thing_kind kind)
{
    thing *t = NULL;
    if (is_in_capture(call)) {
        return FAKE_GPU_CAPTURE;
    }
    int code = fake_make(call, &t, kind);
    if (code == 0 && kind == MEMORY && n_bytes > fake_gpu.memory_bytes - fake_state.used_bytes) {
        code = FAKE_GPU_NO_MEMORY;
    }
    code = code == 0 ? map(t, n_bytes) : code;
    if (code != 0) {
        if (t != NULL) {
            t->is_live = false;
        }
        return code;
    }
    (void)snprintf(t->name, sizeof t->name, "%s", call);
    fake_state.used_bytes += kind == MEMORY ? n_bytes : 0;
    *out = t->at;
    return 0;
}

static int alloc(void **out, size_t n_bytes)
{
    return make_memory("alloc", out, n_bytes, MEMORY);
}

static int alloc_host(void **out, size_t n_bytes)
{
    return make_memory("alloc_host", out, n_bytes, HOST_MEMORY);
}

static int free_any(const char *call, void *memory, thing_kind kind)
{
    thing *t = fake_state.things;
    while (t != NULL && (t->kind != kind || t->at != memory)) {
        t = t->next;
    }
    if (t == NULL) {
        fake_problem("%s: %p is no start of %s", call, memory, fake_kind_names[kind]);
        return FAKE_GPU_INVALID;
    }
    const bool was_live = t->is_live;
    const int code = fake_release(call, t, kind);
    if (!was_live) {
        return code;
    }
    const uint8_t *const end = t->pages + t->n_page_bytes - sysconf(_SC_PAGESIZE);
    for (const uint8_t *p = t->at + t->n_bytes; p < end; p++) {
        if (*p != BEHIND) {
            fake_problem("%s: byte %td was written behind memory of %zu bytes", call, p - t->at,
                         t->n_bytes);
        }
    }
    fake_state.used_bytes -= kind == MEMORY ? t->n_bytes : 0;
    /* Its addresses are not used again, so that who does is found. */
    (void)madvise(t->pages, t->n_page_bytes, MADV_DONTNEED);
    (void)mprotect(t->pages, t->n_page_bytes, PROT_NONE);
    return code;
}

static int free_memory(void *memory)
{
    return free_any("free", memory, MEMORY);
}

static int free_host(void *memory)
{
    return free_any("free_host", memory, HOST_MEMORY);
}

static bool is_inside(const char *call, const void *memory, size_t n_bytes)
{
    const uint8_t *const at = memory;
    for (const thing *t = fake_state.things; t != NULL; t = t->next) {
        if (t->kind == MEMORY && t->is_live && at >= t->at && at < t->at + t->n_bytes) {
            if (n_bytes <= (size_t)(t->at + t->n_bytes - at)) {
                return true;
            }
            fake_problem("%s: %zu bytes from byte %td of device memory of %zu bytes", call, n_bytes,
                         at - t->at, t->n_bytes);
            return false;
        }
    }
    fake_problem("%s: %p is not in device memory", call, memory);
    return false;
}

/* --------------------------------------------------------------------- streams and work -- */

static int stream_open(void **stream)
{
    thing *t = NULL;
    const int code = fake_make("stream_open", &t, STREAM);
    *stream = t;
    return code;
}

static int stream_close(void *stream)
{
    const thing *const t = stream;
    if (t != NULL && t->kind == STREAM && t->is_live && t->capture != NULL) {
        fake_problem("stream_close: its capture was not ended");
    }
    return fake_release("stream_close", stream, STREAM);
}

static int settle(const char *call, void *stream)
{
    const thing *const t = fake_live(call, stream, STREAM);
    const int code = fake_begin(call);
    if (t == NULL || code != 0) {
        return t == NULL ? FAKE_GPU_INVALID : code;
    }
    return t->capture != NULL ? FAKE_GPU_CAPTURE : 0;
}

static int stream_query(void *stream)
{
    return settle("stream_query", stream);
}

static int stream_wait(void *stream)
{
    fake_note("stream_wait");
    return settle("stream_wait", stream);
}

/*
 * Do a node's work.  Pointers are looked at then: between, memory may have been freed.
 * @param begun  of a kernel that has begun; NULL: it has not
 */
static int work(const node *n, const uint32_t *begun)
{
    if ((n->checks_to && !is_inside(n->call, n->to, n->n_bytes)) ||
        (n->checks_from && !is_inside(n->call, n->from, n->n_bytes))) {
        return FAKE_GPU_INVALID;
    }
    switch (n->op) {
    case OP_KERNEL: {
        const thing *const function = n->launch.function;
        if (!function->module->is_live) {
            fake_problem("launch: %s of an unloaded module", function->name);
            return FAKE_GPU_INVALID;
        }
        const bool runs = fake_planned("kernel", true) == 0;
        if (runs && begun != NULL) {
            fake_gpu.finish(*begun);
        } else if (runs && fake_gpu.launch != NULL) {
            fake_gpu.launch(function->name, n->launch.grid, n->launch.n_threads,
                            n->launch.shared_bytes, n->launch.args);
        }
        if (fake_gpu.seconds != NULL) {
            kernels_ns += (uint64_t)(1e9 * fake_gpu.seconds(function->name, n->launch.args));
        }
        return 0; /* a kernel's failure shows later */
    }
    case OP_COPY: memmove(n->to, n->from, n->n_bytes); return 0;
    case OP_FILL: memset(n->to, n->byte, n->n_bytes); return 0;
    case OP_OTHER: return 0;
    }
    return FAKE_GPU_INVALID;
}

static node *copy_node(const node *from)
{
    node *const n = calloc(1, sizeof *n + from->launch.args_bytes);
    if (n != NULL) {
        memcpy(n, from, sizeof *n);
        n->next = NULL;
        if (from->launch.args_bytes > 0) {
            memcpy(n->args, from->launch.args, from->launch.args_bytes);
            n->launch.args = n->args;
        }
    }
    return n;
}

static int append(thing *graph, const node *from)
{
    node *const n = copy_node(from);
    if (n == NULL) {
        return FAKE_GPU_NO_MEMORY;
    }
    *graph->last = n;
    graph->last = &n->next;
    return 0;
}

/* Do it, or record it where the stream captures. */
static int queue(const char *call, void *stream, const node *n)
{
    thing *const t = fake_live(call, stream, STREAM);
    const int code = fake_begin(call);
    if (t == NULL || code != 0) {
        return t == NULL ? FAKE_GPU_INVALID : code;
    }
    return t->capture != NULL ? append(t->capture, n) : work(n, NULL);
}

static int upload(void *stream, void *to, const void *from, size_t n_bytes)
{
    fake_note("upload %zu", n_bytes);
    return queue("upload", stream,
                 &(node){.op = OP_COPY,
                         .call = "upload",
                         .to = to,
                         .from = from,
                         .n_bytes = n_bytes,
                         .checks_to = true});
}

static int download(void *stream, void *to, const void *from, size_t n_bytes)
{
    fake_note("download %zu", n_bytes);
    return queue("download", stream,
                 &(node){.op = OP_COPY,
                         .call = "download",
                         .to = to,
                         .from = from,
                         .n_bytes = n_bytes,
                         .checks_from = true});
}

static int copy(void *stream, void *to, const void *from, size_t n_bytes)
{
    fake_note("copy %zu", n_bytes);
    return queue("copy", stream,
                 &(node){.op = OP_COPY,
                         .call = "copy",
                         .to = to,
                         .from = from,
                         .n_bytes = n_bytes,
                         .checks_to = true,
                         .checks_from = true});
}

static int fill(void *stream, void *to, uint8_t byte, size_t n_bytes)
{
    fake_note("fill %zu with %u", n_bytes, byte);
    return queue("fill", stream,
                 &(node){.op = OP_FILL,
                         .call = "fill",
                         .to = to,
                         .byte = byte,
                         .n_bytes = n_bytes,
                         .checks_to = true});
}

static int check_launch(const char *call, const qn_gpu_launch_args *args)
{
    const thing *const f = fake_live(call, args->function, FUNCTION);
    if (f == NULL) {
        return FAKE_GPU_INVALID;
    }
    if (!f->module->is_live) {
        fake_problem("%s: %s of an unloaded module", call, f->name);
        return FAKE_GPU_INVALID;
    }
    const uint32_t shared_max =
        f->shared_bytes > SHARED_BYTES_FREE ? f->shared_bytes : SHARED_BYTES_FREE;
    const bool is_sound = args->n_threads > 0 && args->n_threads <= THREADS_MAX &&
                          args->shared_bytes <= shared_max && args->grid[1] <= UINT16_MAX &&
                          args->grid[2] <= UINT16_MAX && args->grid[0] <= INT32_MAX &&
                          (args->n_cluster == 0 || args->grid[0] % args->n_cluster == 0);
    return is_sound ? 0 : FAKE_GPU_INVALID;
}

static int launch(void *stream, const qn_gpu_launch_args *args)
{
    fake_note("launch %s %" PRIu32 "x%" PRIu32 "x%" PRIu32 " %" PRIu32 " %" PRIu32 "%s%s",
              args->name, args->grid[0], args->grid[1], args->grid[2], args->n_threads,
              args->shared_bytes, args->n_cluster > 0 ? " cluster" : "",
              args->is_dependent ? " dependent" : "");
    const int code = check_launch("launch", args);
    return code != 0 ? code
                     : queue("launch", stream,
                             &(node){.op = OP_KERNEL, .call = "launch", .launch = *args});
}

/* ------------------------------------------------------------------------------- events -- */

static int event_open(void **event)
{
    thing *t = NULL;
    const int code = fake_make("event_open", &t, EVENT);
    *event = t;
    return code;
}

static int event_close(void *event)
{
    return fake_release("event_close", event, EVENT);
}

static int event_record(void *event, void *stream)
{
    fake_note("event_record");
    thing *const e = fake_live("event_record", event, EVENT);
    const thing *const s = fake_live("event_record", stream, STREAM);
    if (e == NULL || s == NULL) {
        return FAKE_GPU_INVALID;
    }
    e->capture = s->capture;
    e->is_fork = s->is_fork;
    e->stream = stream;
    e->reached_ns = fake_gpu.seconds != NULL ? kernels_ns : qn_clock_ns();
    return queue("event_record", stream, &(node){.op = OP_OTHER, .call = "event_record"});
}

/* A stream that follows a captured event is captured too, until its own is followed. */
static int event_follow(void *stream, void *event)
{
    fake_note("event_follow");
    const thing *const e = fake_live("event_follow", event, EVENT);
    thing *const s = fake_live("event_follow", stream, STREAM);
    const int code = fake_begin("event_follow");
    if (e == NULL || s == NULL || code != 0) {
        return code != 0 ? code : FAKE_GPU_INVALID;
    }
    if (e->capture != NULL && s->capture == NULL) {
        s->capture = e->capture;
        s->is_fork = true;
    } else if (e->capture != NULL && e->is_fork && s->is_origin) {
        e->stream->is_fork = false;
    }
    return 0;
}

static int event_wait(void *event)
{
    fake_note("event_wait");
    const thing *const e = fake_live("event_wait", event, EVENT);
    return e == NULL ? FAKE_GPU_INVALID : fake_begin("event_wait");
}

static int event_seconds(double *out, void *first, void *last)
{
    const thing *const a = fake_live("event_seconds", first, EVENT);
    const thing *const b = fake_live("event_seconds", last, EVENT);
    if (a == NULL || b == NULL || a->reached_ns == 0 || b->reached_ns == 0) {
        return FAKE_GPU_INVALID;
    }
    *out = qn_clock_seconds(a->reached_ns, b->reached_ns);
    return fake_begin("event_seconds");
}

/* ------------------------------------------------------------------------------ modules -- */

static int module_load(void **module, const void *image, char log[QN_GPU_LOG_BYTES])
{
    thing *t = NULL;
    const int code = fake_make("module_load", &t, MODULE);
    *module = t;
    (void)snprintf(log, QN_GPU_LOG_BYTES, "%s", code != 0 ? "line 1:\na planted error" : "");
    return image == NULL ? FAKE_GPU_INVALID : code;
}

static int module_unload(void *module)
{
    return fake_release("module_unload", module, MODULE);
}

static int module_find(void **function, void *module, const char *symbol)
{
    thing *const m = fake_live("module_find", module, MODULE);
    if (m == NULL || (fake_gpu.has != NULL && !fake_gpu.has(symbol))) {
        return FAKE_GPU_NOT_FOUND;
    }
    thing *t = NULL;
    const int code = fake_make("module_find", &t, FUNCTION);
    if (code == 0) {
        t->module = m;
        (void)snprintf(t->name, sizeof t->name, "%s", symbol);
    }
    *function = t;
    return code;
}

static int allow_shared(void *function, uint32_t n_bytes)
{
    thing *const f = fake_live("allow_shared", function, FUNCTION);
    const int code = fake_begin("allow_shared");
    if (f == NULL || n_bytes > SHARED_BYTES) {
        return FAKE_GPU_INVALID;
    }
    f->shared_bytes = n_bytes;
    return code;
}

/* ------------------------------------------------------------------------------- graphs -- */

static int capture_begin(void *stream)
{
    thing *const s = fake_live("capture_begin", stream, STREAM);
    thing *graph = NULL;
    if (s == NULL || s->capture != NULL) {
        return s == NULL ? FAKE_GPU_INVALID : FAKE_GPU_CAPTURE;
    }
    const int code = fake_make("capture_begin", &graph, GRAPH);
    s->capture = graph;
    s->is_origin = code == 0;
    return code;
}

static int capture_end(void **graph, void *stream)
{
    fake_note("capture_end");
    *graph = NULL;
    thing *const s = fake_live("capture_end", stream, STREAM);
    if (s == NULL || !s->is_origin) {
        return s == NULL ? FAKE_GPU_INVALID : FAKE_GPU_CAPTURE;
    }
    thing *const captured = s->capture;
    int code = fake_begin("capture_end");
    s->is_origin = false;
    for (thing *t = fake_state.things; t != NULL; t = t->next) {
        if (t->capture == captured && t->kind == STREAM && t->is_fork) {
            code = code == 0 ? FAKE_GPU_CAPTURE : code; /* its work is not followed by ours */
        }
        if (t->capture == captured) {
            t->capture = NULL;
            t->is_fork = false;
        }
    }
    if (code != 0) {
        captured->is_live = false;
        fake_free_nodes(captured);
        return code;
    }
    *graph = captured;
    return 0;
}

static int graph_close(void *graph)
{
    return fake_release("graph_close", graph, GRAPH);
}

static int graph_nodes(void **nodes, size_t *n, void *graph)
{
    const thing *const g = fake_live("graph_nodes", graph, GRAPH);
    const int code = fake_begin("graph_nodes");
    if (g == NULL || code != 0) {
        return g == NULL ? FAKE_GPU_INVALID : code;
    }
    size_t n_all = 0;
    for (node *at = g->first; at != NULL; at = at->next) {
        if (nodes != NULL && n_all < *n) {
            nodes[n_all] = at;
        }
        n_all++;
    }
    *n = n_all;
    return 0;
}

static int graph_node_kind(int *kind, void *at)
{
    *kind = (int)((const node *)at)->op;
    return fake_begin("graph_node_kind");
}

static int graph_ready(void **exec, void *graph)
{
    const thing *const g = fake_live("graph_ready", graph, GRAPH);
    thing *e = NULL;
    int code = g == NULL ? FAKE_GPU_INVALID : fake_make("graph_ready", &e, EXEC);
    for (const node *n = g != NULL ? g->first : NULL; n != NULL && code == 0; n = n->next) {
        code = append(e, n);
    }
    if (code != 0 && e != NULL) {
        fake_free_nodes(e);
        e->is_live = false;
    }
    *exec = e;
    return code;
}

/* The node of an executable graph that was made of @p at: they are in the same order. */
static node **made_of(thing *exec, const void *at)
{
    for (const thing *g = fake_state.things; g != NULL; g = g->next) {
        node **mine = &exec->first;
        const node *n = g->kind == GRAPH && g->is_live ? g->first : NULL;
        for (; n != NULL && n != at && *mine != NULL; n = n->next) {
            mine = &(*mine)->next;
        }
        if (n != NULL && n == at && *mine != NULL && n->op == OP_KERNEL) {
            return mine;
        }
    }
    fake_problem("graph_update: no kernel of a captured graph");
    return NULL;
}

static int graph_update(void *exec, void *at, const qn_gpu_launch_args *args)
{
    fake_note("graph_update %s", args->name);
    thing *const e = fake_live("graph_update", exec, EXEC);
    int code = check_launch("graph_update", args);
    code = code == 0 ? fake_begin("graph_update") : code;
    node **const mine = e != NULL && code == 0 ? made_of(e, at) : NULL;
    if (mine == NULL) {
        return code != 0 ? code : FAKE_GPU_INVALID;
    }
    node *const changed = copy_node(&(node){.op = OP_KERNEL, .call = "launch", .launch = *args});
    if (changed == NULL) {
        return FAKE_GPU_NO_MEMORY;
    }
    changed->next = (*mine)->next;
    e->last = e->last == &(*mine)->next ? &changed->next : e->last;
    free(*mine);
    *mine = changed;
    return 0;
}

/* A dependent kernel right behind a kernel begins before that has run. */
static bool begin_next(const node *n, uint32_t *begun)
{
    const node *const next = n->next;
    if (fake_gpu.begin == NULL || next == NULL || n->op != OP_KERNEL || next->op != OP_KERNEL ||
        !next->launch.is_dependent) {
        return false;
    }
    const thing *const function = next->launch.function;
    *begun = fake_gpu.begin(function->name, next->launch.grid, next->launch.n_threads,
                            next->launch.shared_bytes, next->launch.args);
    return true;
}

static int graph_launch(void *exec, void *stream)
{
    fake_note("graph_launch");
    const thing *const e = fake_live("graph_launch", exec, EXEC);
    int code = settle("graph_launch", stream);
    uint32_t begun[2] = {0}; /* this node, the next one */
    bool has_begun[2] = {false};
    for (const node *n = e != NULL ? e->first : NULL; n != NULL && code == 0; n = n->next) {
        has_begun[1] = begin_next(n, &begun[1]);
        code = work(n, has_begun[0] ? &begun[0] : NULL);
        begun[0] = begun[1];
        has_begun[0] = has_begun[1];
    }
    return e == NULL ? FAKE_GPU_INVALID : code;
}

static int exec_close(void *exec)
{
    return fake_release("exec_close", exec, EXEC);
}

/* ------------------------------------------------------------------------ maps and peers -- */

/* What the CUDA Driver API reference asks of cuTensorMapEncodeTiled(), without interleaving.  A map
 * is a copy of its arguments, which a test may look at in those of a launch. */
static int tensor_map(uint8_t out[QN_GPU_TENSOR_MAP_BYTES], const qn_gpu_tensor_map_args *args)
{
    static const size_t sizes[] = {
        [QN_GPU_ELEMENT_U8] = 1, [QN_GPU_ELEMENT_BF16] = 2, [QN_GPU_ELEMENT_F32] = 4};
    const size_t inner_bytes = args->box[0] * sizes[args->element];
    bool is_right =
        args->n_dims >= 1 && args->n_dims <= QN_GPU_TENSOR_DIMS_MAX &&
        (uintptr_t)args->memory % 16 == 0 && inner_bytes % 16 == 0 &&
        (args->swizzle_bytes == 0 ||
         (inner_bytes <= args->swizzle_bytes &&
          (args->swizzle_bytes == 32 || args->swizzle_bytes == 64 || args->swizzle_bytes == 128)));
    for (uint32_t i = 0; i < args->n_dims && is_right; i++) {
        is_right = args->dims[i] > 0 && args->dims[i] <= 1ULL << 32 && args->box[i] > 0 &&
                   args->box[i] <= 256 &&
                   (i == 0 || (args->stride_bytes[i] > 0 && args->stride_bytes[i] % 16 == 0 &&
                               args->stride_bytes[i] < 1ULL << 40));
    }
    _Static_assert(sizeof *args <= QN_GPU_TENSOR_MAP_BYTES, "a map is what it was made of");
    memset(out, 0, QN_GPU_TENSOR_MAP_BYTES);
    memcpy(out, args, sizeof *args);
    return is_right ? fake_begin("tensor_map") : FAKE_GPU_INVALID;
}

static int can_access_peer(bool *out, uint32_t i_device, uint32_t i_peer)
{
    *out = i_device < fake_gpu.n_devices && i_peer < fake_gpu.n_devices;
    return fake_begin("can_access_peer");
}

static int enable_peer(void *peer_context, uint32_t i_peer)
{
    return fake_state.is_open[i_peer] && peer_context == &fake_state.is_open[i_peer]
               ? fake_begin("enable_peer")
               : FAKE_GPU_INVALID;
}

static int ipc_export(uint8_t handle[QN_GPU_IPC_BYTES], void *memory)
{
    memcpy(handle, &memory, sizeof memory);
    return fake_begin("ipc_export");
}

static int ipc_open(void **memory, const uint8_t handle[QN_GPU_IPC_BYTES])
{
    memcpy(memory, handle, sizeof *memory);
    return fake_begin("ipc_open");
}

static int ipc_close(void *memory)
{
    (void)memory;
    return fake_begin("ipc_close");
}

const qn_gpu_driver fake_gpu_driver = {
    .name = "fake",
    .vendor = "Fake",
    .node = "fake",
    QN_GPU_DRIVER_FUNCTIONS(QN_GPU_DRIVER_FUNCTION),
};

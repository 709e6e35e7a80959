/* SPDX-License-Identifier: Apache-2.0 */
#include "device/gpu.h"
#include "support/fail_each.h"
#include "support/fake_gpu.h"
#include "support/unit.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct add_args {
    uint32_t *to;
    uint32_t n;
} add_args;

/* The kernel "add" counts up; others do nothing. */
static void run_kernel(const char *kernel, const uint32_t grid[3], uint32_t n_threads,
                       uint32_t shared_bytes, const void *args)
{
    (void)grid;
    (void)n_threads;
    (void)shared_bytes;
    if (strcmp(kernel, "add") == 0) {
        const add_args *const a = args;
        *a->to += a->n;
    }
}

static bool has_kernel(const char *kernel)
{
    return strcmp(kernel, "missing") != 0;
}

/* A device with a stream, a module and a kernel. */
typedef struct rig {
    qn_gpu *gpu;
    qn_gpu_stream *stream;
    qn_gpu_module *module;
    qn_gpu_function add;
    uint32_t *memory; /* 100 bytes. */
} rig;

static qn_status rig_open(rig *r, qn_error *err)
{
    *r = (rig){0};
    qn_status status = qn_gpu_open_driver(&r->gpu, &fake_gpu_driver, 0, err);
    status = status == QN_OK ? qn_gpu_stream_open(&r->stream, r->gpu, err) : status;
    status =
        status == QN_OK ? qn_gpu_module_load(&r->module, r->gpu, "code", 4, "rows", err) : status;
    status = status == QN_OK ? qn_gpu_module_find(&r->add, r->module, "add", 0, err) : status;
    status =
        status == QN_OK ? qn_gpu_alloc((void **)&r->memory, r->gpu, 100, "counts", err) : status;
    return status;
}

static void rig_close(rig *r)
{
    if (r->gpu != NULL) {
        qn_gpu_free(r->gpu, r->memory);
    }
    qn_gpu_module_unload(&r->module);
    qn_gpu_stream_close(&r->stream);
    qn_gpu_close(&r->gpu);
}

static void begin(rig *r)
{
    fake_gpu_reset();
    fake_gpu.launch = run_kernel;
    fake_gpu.has = has_kernel;
    qn_error err = {0};
    assert_int_equal(rig_open(r, &err), QN_OK);
}

static void end(rig *r)
{
    rig_close(r);
    assert_string_equal(fake_gpu_problem(), "");
    assert_int_equal(fake_gpu_used_bytes(), 0);
}

static void add(const rig *r, uint32_t n)
{
    const add_args args = {r->memory, n};
    qn_gpu_launch(r->stream, &(qn_gpu_launch_args){.function = r->add,
                                                   .name = "add",
                                                   .grid = {3, 2, 1},
                                                   .n_threads = 64,
                                                   .args = &args,
                                                   .args_bytes = sizeof args});
}

static uint32_t value(const rig *r)
{
    uint32_t seen = 0;
    qn_error err = {0};
    qn_gpu_download(r->stream, &seen, r->memory, sizeof seen);
    assert_int_equal(qn_gpu_wait(r->stream, &err), QN_OK);
    return seen;
}

#define ASSERT_TELLS(err, part) assert_tells((err).text, part, __LINE__)
static void assert_tells(const char *text, const char *part, int line)
{
    if (strstr(text, part) == NULL) {
        fail_msg("line %d: '%s' does not say '%s'", line, text, part);
    }
}

/* ------------------------------------------------------------------------------ opening -- */

static void test_gpu_name_says_driver_and_number(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const qn_gpu_driver *driver;
        uint32_t i_device;
    } cases[] = {
        {"cuda", &qn_gpu_cuda, 0},
        {"cuda:0", &qn_gpu_cuda, 0},
        {"cuda:12", &qn_gpu_cuda, 12},
        {"hip", &qn_gpu_hip, 0},
        {"hip:3", &qn_gpu_hip, 3},
        {"cuda:4294967294", &qn_gpu_cuda, 4294967294},
        {"cuda:4294967295", NULL, 0}, /* no number is told of as another */
        {"cuda:99999999999999999999", NULL, 0},
        {"", NULL, 0},
        {"cuda:", NULL, 0},
        {"cuda:-1", NULL, 0},
        {"cuda0", NULL, 0},
        {"hip:1x", NULL, 0},
        {"cpu", NULL, 0},
        {"cud", NULL, 0},
        {"cuda: 1", NULL, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint32_t i_device = 0;
        assert_ptr_equal(qn_gpu_find_driver(&i_device, cases[i].text), cases[i].driver);
        assert_int_equal(i_device, cases[i].i_device);
    }
    qn_gpu *gpu = NULL;
    qn_error err = {0};
    assert_int_equal(qn_gpu_open(&gpu, "tpu", &err), QN_E_INVAL);
    ASSERT_TELLS(err, "'tpu', cuda[:N] or hip[:N] expected");
    assert_null(gpu);
    qn_gpu_close(&gpu);
}

static void test_gpu_drivers_fill_the_whole_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < QN_GPU_N_DRIVERS; i++) {
        const void *fields[sizeof(qn_gpu_driver) / sizeof(void *)];
        memcpy(fields, qn_gpu_drivers[i], sizeof fields);
        for (size_t k = 0; k < sizeof fields / sizeof fields[0]; k++) {
            assert_non_null(fields[k]);
        }
        assert_int_equal(qn_gpu_drivers[i]->classify(0), QN_GPU_DONE);
        assert_int_equal(qn_gpu_drivers[i]->classify(1), QN_GPU_REFUSED);
        assert_int_equal(qn_gpu_drivers[i]->classify(2), QN_GPU_NO_MEMORY);
        assert_int_equal(qn_gpu_drivers[i]->classify(100), QN_GPU_NO_DEVICE);
        assert_int_equal(qn_gpu_drivers[i]->classify(700), QN_GPU_STICKY);
        assert_int_equal(qn_gpu_drivers[i]->classify(719), QN_GPU_STICKY);
        assert_int_equal(qn_gpu_drivers[i]->classify(214), QN_GPU_LOST);
        assert_int_equal(qn_gpu_drivers[i]->classify(500), QN_GPU_NOT_FOUND);
    }
    assert_int_equal(qn_gpu_cuda.classify(222), QN_GPU_OLD_DRIVER);
    assert_int_equal(qn_gpu_hip.classify(35), QN_GPU_OLD_DRIVER);
}

static void test_gpu_open_says_why_there_is_none(void **state)
{
    (void)state;
    static const struct {
        bool has_no_library, is_old;
        uint32_t n_devices, i_device;
        const char *call;
        int code;
        qn_status expected;
        const char *text;
    } cases[] = {
        {true, false, 1, 0, "", 0, QN_E_DEVICE, "fake:0: no library (not found), libfake.so.1"},
        {false, true, 1, 0, "", 0, QN_E_DEVICE, "fake 0.9, one for 1.0 or later expected"},
        {false, false, 0, 0, "", 0, QN_E_DEVICE, "version 1.0: no device, one expected"},
        {false, false, 2, 2, "", 0, QN_E_DEVICE, "fake:2: fake:0 to fake:1 expected"},
        {false, false, 1, 0, "count", FAKE_GPU_NO_DEVICE, QN_E_DEVICE,
         "fake:0: version 1.0: devices: FAKE_NO_DEVICE (no device)"},
        {false, false, 1, 0, "count", FAKE_GPU_OLD, QN_E_DEVICE, "FAKE_OLD"},
        {false, false, 1, 0, "info", FAKE_GPU_LOST, QN_E_DEVICE,
         "fake:0: what the device is: FAKE_LOST (the device is gone); the device is lost"},
        {false, false, 1, 0, "open", FAKE_GPU_INVALID, QN_E_DEVICE, "fake:0: emulated: FAKE_INV"},
        {false, false, 1, 0, "open", FAKE_GPU_NO_MEMORY, QN_E_NOMEM, "FAKE_NO_MEMORY"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fake_gpu_reset();
        fake_gpu.has_no_library = cases[i].has_no_library;
        fake_gpu.is_old = cases[i].is_old;
        fake_gpu.n_devices = cases[i].n_devices;
        fake_gpu_fail(cases[i].call, cases[i].code != 0 ? 0 : SIZE_MAX, cases[i].code);
        qn_gpu *gpu = NULL;
        qn_error err = {0};
        const qn_status status =
            qn_gpu_open_driver(&gpu, &fake_gpu_driver, cases[i].i_device, &err);
        assert_int_equal(status, cases[i].expected);
        assert_int_equal(err.status, status);
        assert_int_equal(err.sys, cases[i].code);
        assert_non_null(err.where);
        ASSERT_TELLS(err, cases[i].text);
        assert_null(gpu);
        assert_string_equal(fake_gpu_problem(), "");
        if (cases[i].has_no_library) {
            /* Who only lists devices has to tell it from one that fails. */
            uint32_t n_devices = 1;
            assert_int_equal(qn_gpu_count(&n_devices, &fake_gpu_driver, &err), QN_E_NOT_FOUND);
            assert_int_equal(n_devices, 0);
            ASSERT_TELLS(err, "fake: no library (not found), libfake.so.1");
        }
    }
}

static void test_gpu_says_what_it_is(void **state)
{
    (void)state;
    rig r;
    begin(&r);
    const qn_gpu_info *const info = qn_gpu_get_info(r.gpu);
    assert_string_equal(info->name, "emulated");
    assert_string_equal(info->arch, "emulated");
    assert_string_equal(info->driver, "1.0");
    assert_int_equal(info->n_lanes, 32);
    assert_int_equal(info->memory_bytes, (uint64_t)4 << 30);
    assert_int_equal(qn_gpu_free_bytes(r.gpu), ((uint64_t)4 << 30) - 100);
    fake_gpu_fail("memory", 0, FAKE_GPU_INVALID);
    assert_int_equal(qn_gpu_free_bytes(r.gpu), 0);
    fake_gpu_fail("use", 0, FAKE_GPU_INVALID);
    assert_int_equal(qn_gpu_free_bytes(r.gpu), 0);
    end(&r);
}

/* Each in turn has the context that its calls need. */
static void test_gpu_devices_do_not_mix(void **state)
{
    (void)state;
    fake_gpu_reset();
    fake_gpu.n_devices = 2;
    qn_gpu *gpus[2] = {NULL};
    qn_gpu_stream *streams[2] = {NULL};
    void *memory[2] = {NULL};
    qn_error err = {0};
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(qn_gpu_open_driver(&gpus[i], &fake_gpu_driver, i, &err), QN_OK);
        assert_int_equal(qn_gpu_stream_open(&streams[i], gpus[i], &err), QN_OK);
    }
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(qn_gpu_alloc(&memory[i], gpus[i], 64, "m", &err), QN_OK);
        qn_gpu_fill(streams[i], memory[i], 0, 64);
    }
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(qn_gpu_wait(streams[i], &err), QN_OK);
        qn_gpu_free(gpus[i], memory[i]);
    }
    for (uint32_t i = 0; i < 2; i++) {
        qn_gpu_stream_close(&streams[i]);
        qn_gpu_close(&gpus[i]);
    }
    assert_string_equal(fake_gpu_problem(), "");
}

/* ------------------------------------------------------------ what answers with a status -- */

static void test_gpu_memory_that_is_not_there_is_told_in_bytes(void **state)
{
    (void)state;
    rig r;
    begin(&r);
    qn_error err = {0};
    void *memory = &r;
    assert_int_equal(qn_gpu_alloc(&memory, r.gpu, (size_t)5 << 30, "weights", &err), QN_E_NOMEM);
    assert_null(memory);
    ASSERT_TELLS(err,
                 "fake:0: weights: 5368709120 bytes of device memory, 4294967196 of 4294967296 "
                 "free: FAKE_NO_MEMORY");
    fake_gpu_fail("alloc_host", 0, FAKE_GPU_NO_MEMORY);
    assert_int_equal(qn_gpu_alloc_host(&memory, r.gpu, 4096, "staging", &err), QN_E_NOMEM);
    ASSERT_TELLS(err, "staging: 4096 bytes of pinned host memory: FAKE_NO_MEMORY");
    fake_gpu_fail("alloc", 0, FAKE_GPU_INVALID);
    assert_int_equal(qn_gpu_alloc(&memory, r.gpu, 1, "w", &err), QN_E_DEVICE);
    assert_int_equal(err.sys, FAKE_GPU_INVALID);
    assert_int_equal(qn_gpu_alloc(&memory, r.gpu, 0, "nothing", &err), QN_OK);
    assert_null(memory);
    assert_int_equal(qn_gpu_alloc_host(&memory, r.gpu, 0, "nothing", &err), QN_OK);
    assert_null(memory);
    qn_gpu_free(r.gpu, NULL);
    qn_gpu_free_host(r.gpu, NULL);
    assert_int_equal(qn_gpu_alloc_host(&memory, r.gpu, 10, "staging", &err), QN_OK);
    memset(memory, 1, 10);
    qn_gpu_free_host(r.gpu, memory);
    end(&r);
}

static qn_status open_stream(rig *r, qn_error *err)
{
    qn_gpu_stream *stream = NULL;
    const qn_status status = qn_gpu_stream_open(&stream, r->gpu, err);
    assert_true((status == QN_OK) == (stream != NULL));
    qn_gpu_stream_close(&stream);
    return status;
}

static qn_status open_event(rig *r, qn_error *err)
{
    qn_gpu_event *event = NULL;
    const qn_status status = qn_gpu_event_open(&event, r->gpu, err);
    assert_true((status == QN_OK) == (event != NULL));
    qn_gpu_event_close(&event);
    return status;
}

static qn_status wait_event(rig *r, qn_error *err)
{
    qn_gpu_event *event = NULL;
    qn_status status = qn_gpu_event_open(&event, r->gpu, err);
    if (status == QN_OK) {
        qn_gpu_event_record(event, r->stream);
        qn_gpu_event_follow(r->stream, event);
        status = qn_gpu_wait(r->stream, err);
        status = status == QN_OK ? qn_gpu_event_wait(event, err) : status;
    }
    qn_gpu_event_close(&event);
    return status;
}

static qn_status load_module(rig *r, qn_error *err)
{
    qn_gpu_module *module = NULL;
    const qn_status status = qn_gpu_module_load(&module, r->gpu, "code", 4, "attention", err);
    assert_true((status == QN_OK) == (module != NULL));
    qn_gpu_module_unload(&module);
    return status;
}

static qn_status find_kernel(rig *r, qn_error *err)
{
    qn_gpu_function function = NULL;
    return qn_gpu_module_find(&function, r->module, "norm", 1024, err);
}

static qn_status allocate(rig *r, qn_error *err)
{
    void *memory = NULL;
    const qn_status status = qn_gpu_alloc(&memory, r->gpu, 256, "pages", err);
    qn_gpu_free(r->gpu, memory);
    return status;
}

static qn_status allocate_host(rig *r, qn_error *err)
{
    void *memory = NULL;
    const qn_status status = qn_gpu_alloc_host(&memory, r->gpu, 256, "ids", err);
    qn_gpu_free_host(r->gpu, memory);
    return status;
}

static qn_status check_stream(rig *r, qn_error *err)
{
    return qn_gpu_check(r->stream, err);
}

static qn_status wait_stream(rig *r, qn_error *err)
{
    return qn_gpu_wait(r->stream, err);
}

/* Every kind of work. */
static qn_status do_work(rig *r, qn_error *err)
{
    uint32_t host = 7;
    qn_gpu_fill(r->stream, r->memory, 0, 100);
    qn_gpu_upload(r->stream, r->memory, &host, sizeof host);
    add(r, 3);
    qn_gpu_copy(r->stream, r->memory + 1, r->memory, sizeof host);
    qn_gpu_download(r->stream, &host, r->memory + 1, sizeof host);
    const qn_status status = qn_gpu_wait(r->stream, err);
    assert_true(status != QN_OK || host == 10);
    return status;
}

static qn_status capture(rig *r, qn_error *err)
{
    qn_gpu_graph *graph = NULL;
    qn_gpu_capture_begin(r->stream);
    qn_gpu_fill(r->stream, r->memory, 0, 100);
    add(r, 3);
    qn_status status = qn_gpu_capture_end(&graph, r->stream, err);
    assert_true((status == QN_OK) == (graph != NULL));
    if (status == QN_OK) {
        uint32_t host = 0;
        qn_gpu_graph_launch(r->stream, graph);
        qn_gpu_download(r->stream, &host, r->memory, sizeof host);
        status = qn_gpu_wait(r->stream, err);
        assert_true(status != QN_OK || host == 3);
    }
    qn_gpu_graph_close(&graph);
    return status;
}

static const struct {
    qn_status (*body)(rig *r, qn_error *err);
    const char *call; /* That fails. */
    const char *text;
} failures[] = {
    {open_stream, "use", "fake:0: the device's context: "},
    {open_stream, "stream_open", "fake:0: a stream: "},
    {open_event, "event_open", "fake:0: an event: "},
    {wait_event, "event_record", "fake:0: an event, last launch: none: "},
    {wait_event, "event_follow", "fake:0: a stream behind an event, last launch: none: "},
    {wait_event, "event_wait", "fake:0: work before an event: "},
    {load_module, "module_load", "module attention of 4 bytes for emulated: "},
    {find_kernel, "module_find", "module rows: kernel norm: "},
    {find_kernel, "allow_shared", "kernel norm: 1024 bytes of shared memory, a block has"},
    {allocate, "alloc", "pages: 256 bytes of device memory"},
    {allocate_host, "alloc_host", "ids: 256 bytes of pinned host memory"},
    {check_stream, "stream_query", "work of a stream, last launch: none: "},
    {wait_stream, "stream_wait", "work of a stream, last launch: none: "},
    {do_work, "fill", "fill of 100 bytes, last launch: none: "},
    {do_work, "upload", "upload of 4 bytes, last launch: none: "},
    {do_work, "launch",
     "launch of add: 3 x 2 x 1 blocks of 64 threads, 0 bytes of shared memory, clusters of 0, "
     "launch before: none: "},
    {do_work, "copy", "copy of 4 bytes, last launch: add: "},
    {do_work, "download", "download of 4 bytes, last launch: add: "},
    {do_work, "stream_wait", "work of a stream, last launch: add: "},
    {capture, "capture_begin", "begin of a capture: "},
    {capture, "fill", "fill of 100 bytes"},
    {capture, "launch", "launch of add"},
    {capture, "capture_end", "end of a capture, last launch: add: "},
    {capture, "graph_nodes", "nodes of a captured graph: "},
    {capture, "graph_node_kind", "nodes of a captured graph: "},
    {capture, "graph_ready", "a graph of 2 kernels, copies and fills: "},
    {capture, "graph_launch", "a graph of 2 kernels, copies and fills, launch before: add: "},
};
enum { N_FAILURES = sizeof failures / sizeof failures[0] };

/* What fails for itself is told with what was asked and what was seen; the next does. */
static void test_gpu_failure_says_what_was_asked_and_seen(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_FAILURES; i++) {
        rig r;
        begin(&r);
        qn_error err = {0};
        fake_gpu_fail(failures[i].call, 0, FAKE_GPU_INVALID);
        assert_int_equal(failures[i].body(&r, &err), QN_E_DEVICE);
        assert_true(fake_gpu_has_failed());
        assert_int_equal(err.status, QN_E_DEVICE);
        assert_int_equal(err.sys, FAKE_GPU_INVALID);
        assert_non_null(err.where);
        ASSERT_TELLS(err, failures[i].text);
        ASSERT_TELLS(err, "FAKE_INVALID (an argument that cannot be)");
        assert_int_equal(failures[i].body(&r, NULL), QN_OK);
        fake_gpu_fail(failures[i].call, 0, FAKE_GPU_NO_MEMORY);
        assert_int_equal(failures[i].body(&r, &err), QN_E_NOMEM);
        fake_gpu_fail(failures[i].call, 0, FAKE_GPU_INVALID);
        assert_int_equal(failures[i].body(&r, NULL), QN_E_DEVICE);
        end(&r);
    }
}

/* After one that leaves the context unusable, every call tells of that one. */
static void test_gpu_sticky_failure_is_that_of_every_later_call(void **state)
{
    (void)state;
    static const struct {
        int code;
        const char *text;
    } kinds[] = {
        {FAKE_GPU_STICKY, "; this process cannot use the device any more"},
        {FAKE_GPU_LOST, "; the device is lost until it is reset"},
    };
    for (size_t i = 0; i < 2 * (size_t)N_FAILURES; i++) {
        rig r;
        begin(&r);
        qn_error err = {0};
        fake_gpu_fail(failures[i / 2].call, 0, kinds[i % 2].code);
        assert_int_equal(failures[i / 2].body(&r, &err), QN_E_DEVICE);
        ASSERT_TELLS(err, failures[i / 2].text);
        ASSERT_TELLS(err, kinds[i % 2].text);
        for (size_t k = 0; k < N_FAILURES; k++) {
            qn_error later = {0};
            assert_int_equal(failures[k].body(&r, &later), QN_E_DEVICE);
            assert_int_equal(later.sys, kinds[i % 2].code);
            ASSERT_TELLS(later, kinds[i % 2].text);
        }
        assert_int_equal(qn_gpu_free_bytes(r.gpu), 0);
        end(&r);
    }
}

static void test_gpu_module_tells_what_its_compiler_said(void **state)
{
    (void)state;
    rig r;
    begin(&r);
    qn_error err = {0};
    fake_gpu_fail("module_load", 0, FAKE_GPU_OLD);
    assert_int_equal(load_module(&r, &err), QN_E_DEVICE);
    ASSERT_TELLS(err, "FAKE_OLD (the driver is too old); its compiler: line 1: a planted error");
    qn_gpu_function function = &r;
    assert_int_equal(qn_gpu_module_find(&function, r.module, "missing", 0, &err), QN_E_NOT_FOUND);
    assert_null(function);
    ASSERT_TELLS(err, "fake:0: module rows: kernel missing: FAKE_NOT_FOUND");
    assert_int_equal(qn_gpu_module_find(&function, r.module, "norm", 1 << 20, &err), QN_E_DEVICE);
    assert_null(function);
    ASSERT_TELLS(err, "kernel norm: 1048576 bytes of shared memory, a block has 232448");
    end(&r);
}

/* ------------------------------------------------------------------- what is only queued -- */

static void test_gpu_stream_tells_its_first_failure_once(void **state)
{
    (void)state;
    rig r;
    begin(&r);
    qn_error err = {0};
    qn_gpu_fill(r.stream, r.memory, 0, 100);
    fake_gpu_fail("launch", 1, FAKE_GPU_INVALID);
    add(&r, 1);
    add(&r, 10); /* fails */
    fake_gpu_fail("fill", 0, FAKE_GPU_NO_MEMORY);
    add(&r, 100); /* skipped, as all behind the failure */
    qn_gpu_fill(r.stream, r.memory, 0, 100);
    assert_false(fake_gpu_has_failed());
    assert_int_equal(qn_gpu_check(r.stream, &err), QN_E_DEVICE);
    ASSERT_TELLS(err, "launch of add");
    assert_int_equal(qn_gpu_check(r.stream, &err), QN_OK);
    fake_gpu_fail("fill", SIZE_MAX, 0);
    assert_int_equal(value(&r), 1);
    fake_gpu_fail("copy", 0, FAKE_GPU_NO_MEMORY);
    qn_gpu_copy(r.stream, r.memory, r.memory + 8, 4);
    /* What was queued before it is waited for, and its own failure comes second. */
    fake_gpu_fail("stream_wait", 0, FAKE_GPU_INVALID);
    assert_int_equal(qn_gpu_wait(r.stream, &err), QN_E_NOMEM);
    ASSERT_TELLS(err, "copy of 4 bytes");
    assert_true(fake_gpu_has_failed());
    assert_int_equal(qn_gpu_wait(r.stream, &err), QN_OK);
    assert_int_equal(value(&r), 1);
    end(&r);
}

/* A kernel fails while it runs; what comes then tells, and names it. */
static void test_gpu_kernel_failure_shows_later(void **state)
{
    (void)state;
    rig r;
    begin(&r);
    qn_gpu_stream *other = NULL;
    qn_error err = {0};
    assert_int_equal(qn_gpu_stream_open(&other, r.gpu, &err), QN_OK);
    fake_gpu_fail("kernel", 0, FAKE_GPU_STICKY);
    add(&r, 1);
    assert_int_equal(qn_gpu_check(r.stream, &err), QN_E_DEVICE);
    ASSERT_TELLS(err, "fake:0: work of a stream, last launch: add: FAKE_STICKY");
    assert_int_equal(qn_gpu_check(r.stream, &err), QN_E_DEVICE);
    assert_int_equal(qn_gpu_check(other, &err), QN_E_DEVICE);
    ASSERT_TELLS(err, "last launch: add: FAKE_STICKY");
    qn_gpu_stream_close(&other);
    end(&r);
}

static void test_gpu_nothing_is_not_queued(void **state)
{
    (void)state;
    rig r;
    begin(&r);
    qn_error err = {0};
    const size_t n_before = strlen(fake_gpu_calls());
    qn_gpu_upload(r.stream, r.memory, NULL, 0);
    qn_gpu_download(r.stream, NULL, r.memory, 0);
    qn_gpu_copy(r.stream, r.memory, r.memory, 0);
    qn_gpu_fill(r.stream, NULL, 1, 0);
    for (int i = 0; i < 3; i++) {
        qn_gpu_launch_args launch = {
            .function = r.add, .name = "add", .grid = {1, 1, 1}, .n_threads = 1};
        launch.grid[i] = 0;
        qn_gpu_launch(r.stream, &launch);
    }
    assert_int_equal(strlen(fake_gpu_calls()), n_before);
    assert_int_equal(qn_gpu_wait(r.stream, &err), QN_OK);
    end(&r);
}

static void test_gpu_launch_carries_what_it_was_given(void **state)
{
    (void)state;
    rig r;
    begin(&r);
    qn_error err = {0};
    const add_args args = {r.memory, 1};
    qn_gpu_launch(r.stream, &(qn_gpu_launch_args){.function = r.add,
                                                  .name = "add",
                                                  .grid = {4, 5, 6},
                                                  .n_threads = 128,
                                                  .shared_bytes = 512,
                                                  .n_cluster = 2,
                                                  .is_dependent = true,
                                                  .args = &args,
                                                  .args_bytes = sizeof args});
    assert_int_equal(qn_gpu_wait(r.stream, &err), QN_OK);
    assert_non_null(strstr(fake_gpu_calls(), "launch add 4x5x6 128 512 cluster dependent\n"));
    end(&r);
}

static void test_gpu_events_tell_time(void **state)
{
    (void)state;
    rig r;
    begin(&r);
    qn_gpu_event *first = NULL;
    qn_gpu_event *last = NULL;
    qn_error err = {0};
    assert_int_equal(qn_gpu_event_open(&first, r.gpu, &err), QN_OK);
    assert_int_equal(qn_gpu_event_open(&last, r.gpu, &err), QN_OK);
    assert_true(isnan(qn_gpu_event_seconds(first, last)));
    qn_gpu_event_record(first, r.stream);
    qn_gpu_event_record(last, r.stream);
    assert_int_equal(qn_gpu_event_wait(last, &err), QN_OK);
    assert_true(qn_gpu_event_seconds(first, last) >= 0.0);
    fake_gpu_fail("event_seconds", 0, FAKE_GPU_STICKY);
    assert_true(isnan(qn_gpu_event_seconds(first, last)));
    assert_true(isnan(qn_gpu_event_seconds(first, last)));
    qn_gpu_event_close(&first);
    qn_gpu_event_close(&last);
    end(&r);
}

/* ------------------------------------------------------------------------------- graphs -- */

static void test_gpu_graph_does_again_what_was_captured(void **state)
{
    (void)state;
    rig r;
    begin(&r);
    qn_gpu_graph *graph = NULL;
    qn_gpu_event *event = NULL;
    qn_error err = {0};
    assert_int_equal(qn_gpu_event_open(&event, r.gpu, &err), QN_OK);
    qn_gpu_fill(r.stream, r.memory, 0, 100);
    qn_gpu_capture_begin(r.stream);
    add(&r, 3);
    qn_gpu_event_record(event, r.stream); /* not counted */
    qn_gpu_copy(r.stream, r.memory + 1, r.memory, 4);
    qn_gpu_fill(r.stream, r.memory + 2, 1, 4);
    assert_int_equal(qn_gpu_check(r.stream, &err), QN_OK);
    assert_int_equal(qn_gpu_wait(r.stream, &err), QN_E_INVAL);
    ASSERT_TELLS(err, "captures");
    assert_int_equal(qn_gpu_capture_end(&graph, r.stream, &err), QN_OK);
    assert_int_equal(qn_gpu_graph_count(graph), 3);
    assert_int_equal(value(&r), 0);
    for (uint32_t i = 1; i < 4; i++) {
        qn_gpu_graph_launch(r.stream, graph);
        assert_int_equal(value(&r), 3 * i);
    }
    qn_gpu_graph_close(&graph);
    assert_null(graph);
    qn_gpu_graph_close(&graph);
    qn_gpu_event_close(&event);
    end(&r);
}

/* Work of two streams in one graph, joined by events. */
static void test_gpu_graph_takes_in_a_stream_that_follows(void **state)
{
    (void)state;
    for (int joins = 0; joins < 2; joins++) {
        rig r;
        begin(&r);
        qn_gpu_stream *side = NULL;
        qn_gpu_event *fork = NULL;
        qn_gpu_event *join = NULL;
        qn_gpu_graph *graph = NULL;
        qn_error err = {0};
        assert_int_equal(qn_gpu_stream_open(&side, r.gpu, &err), QN_OK);
        assert_int_equal(qn_gpu_event_open(&fork, r.gpu, &err), QN_OK);
        assert_int_equal(qn_gpu_event_open(&join, r.gpu, &err), QN_OK);
        qn_gpu_fill(r.stream, r.memory, 0, 100);
        qn_gpu_capture_begin(r.stream);
        add(&r, 1);
        qn_gpu_event_record(fork, r.stream);
        qn_gpu_event_follow(side, fork);
        qn_gpu_fill(side, r.memory + 4, 0, 4);
        qn_gpu_event_record(join, side);
        if (joins) {
            qn_gpu_event_follow(r.stream, join);
        }
        add(&r, 1);
        const qn_status status = qn_gpu_capture_end(&graph, r.stream, &err);
        assert_int_equal(status, joins ? QN_OK : QN_E_DEVICE);
        if (joins) {
            assert_int_equal(qn_gpu_graph_count(graph), 3);
            qn_gpu_graph_launch(r.stream, graph);
            assert_int_equal(value(&r), 2);
        }
        qn_gpu_graph_close(&graph);
        qn_gpu_event_close(&fork);
        qn_gpu_event_close(&join);
        qn_gpu_stream_close(&side);
        end(&r);
    }
}

/* What only the table offers so far. */
static void test_gpu_graph_is_updated(void **state)
{
    (void)state;
    rig r;
    begin(&r);
    const qn_gpu_driver *const d = &fake_gpu_driver;
    void *stream = NULL;
    void *graph = NULL;
    void *exec = NULL;
    void *nodes[2] = {NULL};
    size_t n = 2;
    add_args args = {r.memory, 1};
    const qn_gpu_launch_args launch = {.function = r.add,
                                       .name = "add",
                                       .grid = {1, 1, 1},
                                       .n_threads = 1,
                                       .args = &args,
                                       .args_bytes = sizeof args};
    assert_int_equal(d->stream_open(&stream), 0);
    assert_int_equal(d->capture_begin(stream), 0);
    assert_int_equal(d->fill(stream, r.memory, 0, 100), 0);
    assert_int_equal(d->launch(stream, &launch), 0);
    assert_int_equal(d->capture_end(&graph, stream), 0);
    assert_int_equal(d->graph_ready(&exec, graph), 0);
    assert_int_equal(d->graph_nodes(nodes, &n, graph), 0);
    assert_int_equal(n, 2);
    args.n = 10;
    assert_int_equal(d->graph_update(exec, nodes[1], &launch), 0);
    assert_int_equal(d->graph_launch(exec, stream), 0);
    assert_int_equal(value(&r), 10);
    assert_int_equal(d->exec_close(exec), 0);
    assert_int_equal(d->graph_close(graph), 0);
    assert_int_equal(d->stream_close(stream), 0);
    end(&r);
}

static void test_gpu_capture_ends_in_any_case(void **state)
{
    (void)state;
    rig r;
    begin(&r);
    qn_gpu_graph *graph = NULL;
    qn_error err = {0};
    assert_int_equal(qn_gpu_capture_end(&graph, r.stream, &err), QN_E_INVAL);
    ASSERT_TELLS(err, "the stream does not capture");
    /* Behind a failure of before nothing is captured, and that failure is told. */
    fake_gpu_fail("launch", 0, FAKE_GPU_INVALID);
    add(&r, 1);
    qn_gpu_capture_begin(r.stream);
    qn_gpu_fill(r.stream, r.memory, 0, 100);
    assert_int_equal(qn_gpu_capture_end(&graph, r.stream, &err), QN_E_DEVICE);
    ASSERT_TELLS(err, "launch of add");
    assert_null(graph);
    /* What closes a stream in its capture drops it. */
    qn_gpu_stream *other = NULL;
    assert_int_equal(qn_gpu_stream_open(&other, r.gpu, &err), QN_OK);
    qn_gpu_capture_begin(other);
    qn_gpu_fill(other, r.memory, 0, 100);
    qn_gpu_stream_close(&other);
    /* An allocation in a capture is refused, not made. */
    void *memory = NULL;
    qn_gpu_capture_begin(r.stream);
    assert_int_equal(qn_gpu_alloc(&memory, r.gpu, 16, "m", &err), QN_E_DEVICE);
    assert_null(memory);
    assert_int_equal(qn_gpu_capture_end(&graph, r.stream, &err), QN_OK);
    assert_int_equal(qn_gpu_graph_count(graph), 0);
    qn_gpu_graph_launch(r.stream, graph);
    qn_gpu_graph_close(&graph);
    fake_gpu_fail("launch", SIZE_MAX, 0);
    qn_gpu_fill(r.stream, r.memory, 0, 100);
    assert_int_equal(value(&r), 0);
    end(&r);
}

/* -------------------------------------------------------------------- the n-th that fails -- */

static qn_status whole_life(qn_error *err)
{
    rig r;
    qn_status status = rig_open(&r, err);
    status = status == QN_OK ? do_work(&r, err) : status;
    status = status == QN_OK ? capture(&r, err) : status;
    status = status == QN_OK ? wait_event(&r, err) : status;
    status = status == QN_OK ? allocate_host(&r, err) : status;
    rig_close(&r);
    return status;
}

static void test_gpu_nth_call_that_fails_leaves_nothing(void **state)
{
    (void)state;
    static const int codes[] = {FAKE_GPU_INVALID, FAKE_GPU_NO_MEMORY, FAKE_GPU_STICKY};
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        size_t n = 0;
        for (bool has_failed = true; has_failed; n++) {
            fake_gpu_reset();
            fake_gpu.launch = run_kernel;
            fake_gpu_fail("any", n, codes[i]);
            qn_error err = {0};
            const qn_status status = whole_life(&err);
            has_failed = fake_gpu_has_failed();
            /* What only releases is not told of: a context, a wait before a stream's end. */
            assert_true(has_failed || status == QN_OK);
            assert_true(status == QN_OK || err.status == status);
            assert_string_equal(fake_gpu_problem(), "");
            assert_int_equal(fake_gpu_used_bytes(), 0);
        }
        assert_true(n > 30);
    }
}

/* The calls' text is memory too: it is not kept here. */
static qn_status life_without_memory(qn_error *err)
{
    fake_gpu_reset();
    fake_gpu.launch = run_kernel;
    fake_gpu.keeps_calls = false;
    const qn_status status = whole_life(err);
    assert_string_equal(fake_gpu_problem(), "");
    assert_int_equal(fake_gpu_used_bytes(), 0);
    return status;
}

static void test_gpu_nth_allocation_that_fails_leaves_nothing(void **state)
{
    (void)state;
    fail_each(life_without_memory, 1, 10);
}

/* ----------------------------------------------------------- what the fake driver finds -- */

static void misuse(int which, rig *r)
{
    void *handle = NULL;
    uint8_t *memory = NULL;
    uint8_t host[16] = {0};
    const qn_gpu_driver *const d = &fake_gpu_driver;
    (void)d->alloc((void **)&memory, 100);
    switch (which) {
    case 0: (void)d->free_memory(memory), (void)d->free_memory(memory); return;
    case 1: (void)d->free_memory(memory + 1); return;
    case 2: return; /* left */
    case 3: memory[100] = 1, (void)d->free_memory(memory); return;
    case 4: qn_gpu_upload(r->stream, memory + 90, host, 16), (void)d->free_memory(memory); return;
    case 5: (void)d->free_memory(memory), qn_gpu_fill(r->stream, memory, 0, 4); return;
    case 6: qn_gpu_module_unload(&r->module), add(r, 1), (void)d->free_memory(memory); return;
    case 7:
        (void)d->stream_open(&handle), (void)d->capture_begin(handle);
        (void)d->stream_close(handle);
        return;
    case 8:
        (void)d->stream_open(&handle), (void)d->stream_close(handle), d->stream_wait(handle);
        return;
    case 9: (void)d->event_record(r->stream, memory); return;
    default: (void)d->close_context(NULL, 0); return;
    }
}

static void test_gpu_fake_finds_misuse(void **state)
{
    (void)state;
    static const char *const texts[] = {"memory alloc after its end",
                                        "is no start of memory",
                                        "of 100 bytes is still there",
                                        "byte 100 was written behind memory of 100 bytes",
                                        "16 bytes from byte 90 of device memory",
                                        "is not in device memory",
                                        "unloaded module",
                                        "its capture was not ended",
                                        "stream  after its end",
                                        "is no event",
                                        "the device is not open"};
    for (int i = 0; i < (int)(sizeof texts / sizeof texts[0]); i++) {
        rig r;
        begin(&r);
        misuse(i, &r);
        rig_close(&r);
        assert_tells(fake_gpu_problem(), texts[i], __LINE__);
    }
    fake_gpu_reset();
}

static void touch(int which)
{
    (void)signal(SIGSEGV, SIG_DFL);
    rig r;
    begin(&r);
    void *memory = NULL;
    if (fake_gpu_driver.alloc(&memory, 512) == 0) {
        volatile uint8_t *const bytes = memory;
        if (which > 0) {
            (void)fake_gpu_driver.free_memory(memory);
        }
        bytes[which == 0 ? 512 : which - 1] = 1;
    }
}

/* Behind memory whose length is a multiple of 256 there is none, nor where it was freed. */
static void test_gpu_fake_guards_memory(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        const pid_t child = fork();
        if (child == 0) {
            touch(i);
            _exit(0);
        }
        int how = 0;
        assert_int_equal(waitpid(child, &how, 0), child);
        assert_false(WIFEXITED(how) && WEXITSTATUS(how) == 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gpu_name_says_driver_and_number),
        cmocka_unit_test(test_gpu_drivers_fill_the_whole_table),
        cmocka_unit_test(test_gpu_open_says_why_there_is_none),
        cmocka_unit_test(test_gpu_says_what_it_is),
        cmocka_unit_test(test_gpu_devices_do_not_mix),
        cmocka_unit_test(test_gpu_memory_that_is_not_there_is_told_in_bytes),
        cmocka_unit_test(test_gpu_failure_says_what_was_asked_and_seen),
        cmocka_unit_test(test_gpu_sticky_failure_is_that_of_every_later_call),
        cmocka_unit_test(test_gpu_module_tells_what_its_compiler_said),
        cmocka_unit_test(test_gpu_stream_tells_its_first_failure_once),
        cmocka_unit_test(test_gpu_kernel_failure_shows_later),
        cmocka_unit_test(test_gpu_nothing_is_not_queued),
        cmocka_unit_test(test_gpu_launch_carries_what_it_was_given),
        cmocka_unit_test(test_gpu_events_tell_time),
        cmocka_unit_test(test_gpu_graph_does_again_what_was_captured),
        cmocka_unit_test(test_gpu_graph_takes_in_a_stream_that_follows),
        cmocka_unit_test(test_gpu_graph_is_updated),
        cmocka_unit_test(test_gpu_capture_ends_in_any_case),
        cmocka_unit_test(test_gpu_nth_call_that_fails_leaves_nothing),
        cmocka_unit_test(test_gpu_nth_allocation_that_fails_leaves_nothing),
        cmocka_unit_test(test_gpu_fake_finds_misuse),
        cmocka_unit_test(test_gpu_fake_guards_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

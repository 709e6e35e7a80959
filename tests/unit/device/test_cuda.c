/* SPDX-License-Identifier: Apache-2.0 */
/* On NVIDIA's driver and a device; where there is none, everything here is skipped. */
#include "base/clock.h"
#include "device/gpu_driver.h"
#include "support/unit.h"

#include <inttypes.h>
#include <math.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* All kernels take it. */
typedef struct kernel_args {
    uint32_t *to;
    uint32_t n;
    uint32_t pad;
    const void *map;
} kernel_args;

#define HEAD                                                                                       \
    "(.param .align 8 .b8 p[24]) {\n"                                                              \
    ".reg .b64 %a, %o, %m; .reg .b32 %n, %i, %c, %t, %v, %s, %b; .reg .pred %p;\n"                 \
    "ld.param.u64 %a, [p]; ld.param.u32 %n, [p+8]; ld.param.u64 %m, [p+16];\n"                     \
    "cvta.to.global.u64 %a, %a;\n"                                                                 \
    "mov.u32 %i, %ctaid.x; mov.u32 %c, %ntid.x; mov.u32 %t, %tid.x;\n"                             \
    "mad.lo.u32 %i, %i, %c, %t; mul.wide.u32 %o, %i, 4;\n"

/* PTX ISA 8.0, by hand: what the launch attributes and a bulk copy do is seen by what they write.
 */
static const char code[] =
    ".version 8.0\n.target sm_90\n.address_size 64\n"
    ".extern .shared .align 128 .b8 room[];\n"
    ".shared .align 8 .b8 bar[8];\n"
    /* to[thread] += n */
    ".visible .entry add" HEAD
    "add.u64 %a, %a, %o; ld.global.u32 %v, [%a]; add.u32 %v, %v, %n; st.global.u32 [%a], %v;\n"
    "ret; }\n"
    /* The same, behind the kernel before it, while which it may have begun. */
    ".visible .entry add_behind" HEAD "griddepcontrol.wait;\n"
    "add.u64 %a, %a, %o; ld.global.u32 %v, [%a]; add.u32 %v, %v, %n; st.global.u32 [%a], %v;\n"
    "griddepcontrol.launch_dependents; ret; }\n"
    /* to[thread] = blocks of its cluster */
    ".visible .entry clusters" HEAD
    "mov.u32 %v, %cluster_nctaid.x; add.u64 %a, %a, %o; st.global.u32 [%a], %v; ret; }\n"
    /* to[thread] = bytes of dynamic shared memory, whose last word is written and read */
    ".visible .entry shared" HEAD
    "mov.u32 %v, %dynamic_smem_size; mov.u32 %s, room; add.u32 %s, %s, %v; sub.u32 %s, %s, 4;\n"
    "st.shared.u32 [%s], %v; ld.shared.u32 %v, [%s]; add.u64 %a, %a, %o;\n"
    "st.global.u32 [%a], %v; ret; }\n"
    /* An address that is nobody's. */
    ".visible .entry wild" HEAD "mov.u64 %a, 64; st.global.u32 [%a], %n; ret; }\n"
    /* to[thread] = byte [n + thread / 32][n + thread % 32] of the tensor of the map, a box of 32 x
       4 */
    ".visible .entry bulk" HEAD
    "mov.u32 %s, room; mov.u32 %b, bar; setp.ne.u32 %p, %t, 0; @%p bra all;\n"
    "mbarrier.init.shared::cta.b64 [%b], 1; fence.proxy.async;\n"
    "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%b], 128;\n"
    "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes\n"
    "  [%s], [%m, {%n, 5}], [%b];\n"
    "all: bar.sync 0;\n"
    "again: mbarrier.try_wait.parity.shared::cta.b64 %p, [%b], 0; @!%p bra again;\n"
    "add.u32 %s, %s, %t; ld.shared.u8 %v, [%s]; add.u64 %a, %a, %o; st.global.u32 [%a], %v;\n"
    "ret; }\n";

enum { N = 1024, BLOCK = 128 };

static qn_gpu *gpu;
static qn_gpu_stream *stream;
static qn_gpu_module *module;
static uint32_t *memory; /* [N] */

static int open_all(void **state)
{
    (void)state;
    qn_error err = {0};
    if (qn_gpu_open(&gpu, "cuda", &err) != QN_OK) {
        (void)printf("skipped: %s\n", err.text);
        return 0;
    }
    if (qn_gpu_stream_open(&stream, gpu, &err) != QN_OK ||
        qn_gpu_module_load(&module, gpu, code, sizeof code, "test", &err) != QN_OK ||
        qn_gpu_alloc((void **)&memory, gpu, N * sizeof *memory, "numbers", &err) != QN_OK) {
        (void)printf("%s\n", err.text);
        return 1;
    }
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    if (gpu != NULL) {
        qn_gpu_free(gpu, memory);
    }
    qn_gpu_module_unload(&module);
    qn_gpu_stream_close(&stream);
    qn_gpu_close(&gpu);
    return 0;
}

static void need_device(void)
{
    if (gpu == NULL) {
        skip();
    }
}

static qn_error seen_error;
#define ASSERT_DONE(call) assert_done((call), __LINE__)
static void assert_done(qn_status status, int line)
{
    if (status != QN_OK) {
        fail_msg("line %d: %s", line, seen_error.text);
    }
}

static qn_gpu_function find(const char *symbol, uint32_t shared_bytes)
{
    qn_gpu_function function = NULL;
    ASSERT_DONE(qn_gpu_module_find(&function, module, symbol, shared_bytes, &seen_error));
    return function;
}

/* A launch over all numbers. */
static qn_gpu_launch_args over_all(qn_gpu_function function, const kernel_args *args)
{
    return (qn_gpu_launch_args){.function = function,
                                .name = "test kernel",
                                .grid = {N / BLOCK, 1, 1},
                                .n_threads = BLOCK,
                                .args = args,
                                .args_bytes = sizeof *args};
}

static void expect_all(uint32_t expected)
{
    uint32_t seen[N];
    qn_gpu_download(stream, seen, memory, sizeof seen);
    ASSERT_DONE(qn_gpu_wait(stream, &seen_error));
    for (size_t i = 0; i < N; i++) {
        assert_int_equal(seen[i], expected);
    }
}

static void test_cuda_says_what_it_is(void **state)
{
    (void)state;
    need_device();
    const qn_gpu_info *const info = qn_gpu_get_info(gpu);
    print_message("%s, %s, driver %s, %u multiprocessors of %u lanes at %u kHz, %" PRIu64
                  " bytes, L2 %" PRIu64 ", %u of shared memory, %" PRIu64 " free\n",
                  info->name, info->arch, info->driver, info->n_sms, info->n_lanes, info->clock_khz,
                  info->memory_bytes, info->l2_bytes, info->shared_bytes, qn_gpu_free_bytes(gpu));
    assert_int_equal(info->n_lanes, 32);
    assert_true(strncmp(info->arch, "sm_", 3) == 0);
    assert_true(info->n_sms > 0 && info->clock_khz > 0 && info->l2_bytes > 0);
    assert_true(info->shared_bytes >= 48 << 10);
    assert_true(qn_gpu_free_bytes(gpu) > 0 && qn_gpu_free_bytes(gpu) < info->memory_bytes);
    qn_gpu *other = NULL;
    qn_error err = {0};
    assert_int_equal(qn_gpu_open(&other, "cuda:4000000000", &err), QN_E_DEVICE);
    print_message("%s\n", err.text);
    assert_int_equal(qn_gpu_open(&other, "hip", &err), QN_E_DEVICE);
    print_message("%s\n", err.text);
}

static void test_cuda_moves_bytes(void **state)
{
    (void)state;
    need_device();
    uint32_t *pinned = NULL;
    uint32_t *copy = NULL;
    ASSERT_DONE(qn_gpu_alloc_host((void **)&pinned, gpu, N * sizeof *pinned, "p", &seen_error));
    ASSERT_DONE(qn_gpu_alloc((void **)&copy, gpu, N * sizeof *copy, "c", &seen_error));
    assert_int_equal((uintptr_t)copy % 256, 0);
    for (uint32_t i = 0; i < N; i++) {
        pinned[i] = i * 2654435761U;
    }
    qn_gpu_upload(stream, memory, pinned, N * sizeof *pinned);
    qn_gpu_copy(stream, copy, memory, N * sizeof *pinned);
    qn_gpu_fill(stream, memory, 0x5a, N * sizeof *pinned);
    qn_gpu_download(stream, pinned + 1, copy + 1, (N - 1) * sizeof *pinned);
    ASSERT_DONE(qn_gpu_wait(stream, &seen_error));
    for (uint32_t i = 0; i < N; i++) {
        assert_int_equal(pinned[i], i * 2654435761U);
    }
    expect_all(0x5a5a5a5a);
    qn_gpu_free(gpu, copy);
    qn_gpu_free_host(gpu, pinned);
}

static void test_cuda_failures_of_a_call_leave_the_device_usable(void **state)
{
    (void)state;
    need_device();
    qn_error err = {0};
    void *none = NULL;
    const size_t n_bytes = qn_gpu_free_bytes(gpu) + ((size_t)1 << 30);
    assert_int_equal(qn_gpu_alloc(&none, gpu, n_bytes, "weights", &err), QN_E_NOMEM);
    print_message("%s\n", err.text);
    qn_gpu_module *broken = NULL;
    static const char wrong[] = ".version 8.0\n.target sm_90\n.address_size 64\nnonsense;\n";
    assert_int_equal(qn_gpu_module_load(&broken, gpu, wrong, sizeof wrong, "wrong", &err),
                     QN_E_DEVICE);
    print_message("%s\n", err.text);
    assert_non_null(strstr(err.text, "compiler"));
    qn_gpu_function function = NULL;
    assert_int_equal(qn_gpu_module_find(&function, module, "absent", 0, &err), QN_E_NOT_FOUND);
    print_message("%s\n", err.text);
    assert_int_equal(qn_gpu_module_find(&function, module, "shared", 1 << 20, &err), QN_E_DEVICE);
    print_message("%s\n", err.text);
    const kernel_args args = {memory, 1, 0, NULL};
    qn_gpu_launch_args launch = over_all(find("add", 0), &args);
    launch.n_threads = 2048;
    qn_gpu_fill(stream, memory, 0, N * sizeof *memory);
    qn_gpu_launch(stream, &launch);
    qn_gpu_fill(stream, memory, 1, N * sizeof *memory); /* skipped */
    assert_int_equal(qn_gpu_wait(stream, &err), QN_E_DEVICE);
    print_message("%s\n", err.text);
    expect_all(0);
}

static void test_cuda_launches(void **state)
{
    (void)state;
    need_device();
    const kernel_args args = {memory, 3, 0, NULL};
    qn_gpu_fill(stream, memory, 0, N * sizeof *memory);
    qn_gpu_launch_args launch = over_all(find("add", 0), &args);
    qn_gpu_launch(stream, &launch);
    launch.function = find("add_behind", 0);
    launch.is_dependent = true;
    for (uint32_t i = 0; i < 100; i++) {
        qn_gpu_launch(stream, &launch);
    }
    expect_all(303);
    launch = over_all(find("clusters", 0), &args);
    qn_gpu_launch(stream, &launch);
    expect_all(1);
    launch.n_cluster = 4;
    qn_gpu_launch(stream, &launch);
    expect_all(4);
    launch.is_dependent = true;
    qn_gpu_launch(stream, &launch);
    expect_all(4);
    const uint32_t shared_bytes = qn_gpu_get_info(gpu)->shared_bytes - 1024;
    launch = over_all(find("shared", shared_bytes), &args);
    launch.shared_bytes = shared_bytes;
    qn_gpu_launch(stream, &launch);
    expect_all(shared_bytes);
}

static void test_cuda_bulk_copy_reads_by_the_map(void **state)
{
    (void)state;
    need_device();
    enum { WIDTH = 64, HEIGHT = 16 };
    uint8_t tensor[HEIGHT][WIDTH], map[QN_GPU_TENSOR_MAP_BYTES];
    for (uint32_t i = 0; i < WIDTH * HEIGHT; i++) {
        tensor[i / WIDTH][i % WIDTH] = (uint8_t)(i * 7 + i / 256);
    }
    uint8_t *on_device = NULL;
    ASSERT_DONE(qn_gpu_alloc((void **)&on_device, gpu, 4096, "tensor", &seen_error));
    const qn_gpu_tensor_map_args wanted = {.memory = on_device + 1024,
                                           .element = QN_GPU_ELEMENT_U8,
                                           .n_dims = 2,
                                           .dims = {WIDTH, HEIGHT},
                                           .stride_bytes = {0, WIDTH},
                                           .box = {32, 4}};
    assert_int_equal(qn_gpu_cuda.tensor_map(map, &wanted), 0);
    qn_gpu_upload(stream, on_device, map, sizeof map);
    qn_gpu_upload(stream, on_device + 1024, tensor, sizeof tensor);
    const kernel_args args = {memory, 16, 0, on_device};
    qn_gpu_launch_args launch = over_all(find("bulk", 0), &args);
    launch.grid[0] = 1;
    launch.shared_bytes = 128;
    qn_gpu_launch(stream, &launch);
    uint32_t seen[BLOCK];
    qn_gpu_download(stream, seen, memory, sizeof seen);
    ASSERT_DONE(qn_gpu_wait(stream, &seen_error));
    for (uint32_t i = 0; i < BLOCK; i++) {
        assert_int_equal(seen[i], tensor[5 + i / 32][16 + i % 32]);
    }
    qn_gpu_tensor_map_args odd = wanted;
    odd.stride_bytes[1] = WIDTH + 1;
    assert_int_equal(qn_gpu_cuda.tensor_map(map, &odd), 1);
    qn_gpu_free(gpu, on_device);
}

static void test_cuda_graph_does_again_what_was_captured(void **state)
{
    (void)state;
    need_device();
    qn_gpu_graph *graph = NULL;
    qn_gpu_stream *side = NULL;
    qn_gpu_event *fork = NULL;
    qn_gpu_event *join = NULL;
    ASSERT_DONE(qn_gpu_stream_open(&side, gpu, &seen_error));
    ASSERT_DONE(qn_gpu_event_open(&fork, gpu, &seen_error));
    ASSERT_DONE(qn_gpu_event_open(&join, gpu, &seen_error));
    const kernel_args args = {memory, 1, 0, NULL};
    const qn_gpu_launch_args launch = over_all(find("add", 0), &args);
    qn_gpu_launch_args behind = over_all(find("add_behind", 0), &args);
    behind.is_dependent = true;
    qn_gpu_fill(stream, memory, 0, N * sizeof *memory);
    qn_gpu_capture_begin(stream);
    qn_gpu_launch(stream, &launch);
    qn_gpu_launch(stream, &behind);
    qn_gpu_event_record(fork, stream);
    qn_gpu_event_follow(side, fork);
    qn_gpu_launch(side, &launch);
    qn_gpu_event_record(join, side);
    qn_gpu_event_follow(stream, join);
    qn_gpu_copy(stream, memory + N / 2, memory, N / 2 * sizeof *memory);
    ASSERT_DONE(qn_gpu_check(stream, &seen_error));
    ASSERT_DONE(qn_gpu_capture_end(&graph, stream, &seen_error));
    assert_int_equal(qn_gpu_graph_count(graph), 4);
    expect_all(0);
    qn_gpu_graph_launch(stream, graph);
    qn_gpu_graph_launch(stream, graph);
    expect_all(6);
    qn_gpu_graph_close(&graph);
    qn_gpu_event_close(&fork);
    qn_gpu_event_close(&join);
    qn_gpu_stream_close(&side);
}

static void test_cuda_capture_with_a_failure_inside(void **state)
{
    (void)state;
    need_device();
    qn_error err = {0};
    qn_gpu_graph *graph = NULL;
    void *none = NULL;
    const kernel_args args = {memory, 1, 0, NULL};
    qn_gpu_launch_args launch = over_all(find("add", 0), &args);
    qn_gpu_fill(stream, memory, 0, N * sizeof *memory);
    qn_gpu_capture_begin(stream);
    qn_gpu_launch(stream, &launch);
    launch.n_threads = 2048;
    qn_gpu_launch(stream, &launch);
    assert_int_equal(qn_gpu_capture_end(&graph, stream, &err), QN_E_DEVICE);
    print_message("%s\n", err.text);
    qn_gpu_capture_begin(stream);
    assert_int_equal(qn_gpu_alloc(&none, gpu, 1 << 20, "in a capture", &err), QN_E_DEVICE);
    print_message("%s\n", err.text);
    assert_int_equal(qn_gpu_capture_end(&graph, stream, &err), QN_E_DEVICE);
    print_message("%s\n", err.text);
    assert_null(graph);
    expect_all(0);
}

/* What only the table offers so far. */
static void test_cuda_graph_is_updated(void **state)
{
    (void)state;
    need_device();
    const qn_gpu_driver *const d = &qn_gpu_cuda;
    void *s = NULL;
    void *graph = NULL;
    void *exec = NULL;
    void *node = NULL;
    size_t n = 1;
    kernel_args args = {memory, 1, 0, NULL};
    qn_gpu_launch_args launch = over_all(find("add", 0), &args);
    qn_gpu_fill(stream, memory, 0, N * sizeof *memory);
    ASSERT_DONE(qn_gpu_wait(stream, &seen_error));
    assert_int_equal(d->stream_open(&s), 0);
    assert_int_equal(d->capture_begin(s), 0);
    assert_int_equal(d->launch(s, &launch), 0);
    assert_int_equal(d->capture_end(&graph, s), 0);
    assert_int_equal(d->graph_ready(&exec, graph), 0);
    assert_int_equal(d->graph_nodes(&node, &n, graph), 0);
    assert_int_equal(n, 1);
    assert_int_equal(d->graph_launch(exec, s), 0);
    args.n = 10;
    assert_int_equal(d->graph_update(exec, node, &launch), 0);
    assert_int_equal(d->graph_launch(exec, s), 0);
    assert_int_equal(d->stream_wait(s), 0);
    expect_all(11);
    assert_int_equal(d->exec_close(exec), 0);
    assert_int_equal(d->graph_close(graph), 0);
    assert_int_equal(d->stream_close(s), 0);
}

static int run_child(const char *what, const char *more)
{
    char name[] = "unit_device_cuda";
    char *arguments[] = {name, strdup(what), strdup(more), NULL};
    pid_t child = 0;
    int how = -1;
    assert_int_equal(posix_spawn(&child, "/proc/self/exe", NULL, NULL, arguments, environ), 0);
    assert_int_equal(waitpid(child, &how, 0), child);
    free(arguments[1]);
    free(arguments[2]);
    return WIFEXITED(how) ? WEXITSTATUS(how) : -1;
}

/* A process of its own: its context is of no use afterwards. */
static int follow_wild_pointer(void)
{
    void *state = NULL;
    qn_error err = {0}, later = {0};
    void *none = NULL;
    qn_gpu_function wild = NULL;
    if (open_all(&state) != 0 || qn_gpu_module_find(&wild, module, "wild", 0, &err) != QN_OK) {
        return 2;
    }
    const kernel_args args = {memory, 1, 0, NULL};
    const qn_gpu_launch_args launch = over_all(wild, &args);
    qn_gpu_launch(stream, &launch);
    const bool has_told = qn_gpu_wait(stream, &err) == QN_E_DEVICE &&
                          strstr(err.text, "test kernel") != NULL &&
                          strstr(err.text, "this process cannot use the device") != NULL;
    (void)printf("%s\n", err.text);
    const bool tells_again = qn_gpu_alloc(&none, gpu, 64, "m", &later) == QN_E_DEVICE &&
                             strcmp(later.text, err.text) == 0 &&
                             qn_gpu_wait(stream, &later) == QN_E_DEVICE &&
                             qn_gpu_free_bytes(gpu) == 0;
    (void)close_all(&state);
    return has_told && tells_again ? 0 : 1;
}

static void test_cuda_wild_pointer_is_sticky(void **state)
{
    (void)state;
    need_device();
    assert_int_equal(run_child("--wild", ""), 0);
    ASSERT_DONE(qn_gpu_wait(stream, &seen_error));
}

static int open_memory_of_parent(const char *hex)
{
    void *state = NULL;
    uint8_t handle[QN_GPU_IPC_BYTES];
    for (size_t i = 0; i < sizeof handle; i++) {
        const char digits[] = {hex[2 * i], hex[2 * i + 1], '\0'};
        handle[i] = (uint8_t)strtoul(digits, NULL, 16);
    }
    void *shared = NULL;
    if (open_all(&state) != 0) {
        return 2;
    }
    const int status = qn_gpu_cuda.ipc_open(&shared, handle);
    if (status != 0) {
        (void)printf("ipc_open: %d\n", status);
        return 3;
    }
    uint32_t seen = 0;
    qn_gpu_download(stream, &seen, shared, sizeof seen);
    const bool is_right = qn_gpu_wait(stream, NULL) == QN_OK && seen == 0x37373737;
    const bool is_closed = qn_gpu_cuda.ipc_close(shared) == 0;
    (void)close_all(&state);
    return is_right && is_closed ? 0 : 1;
}

static void test_cuda_shares_memory_with_another_process(void **state)
{
    (void)state;
    need_device();
    uint8_t handle[QN_GPU_IPC_BYTES];
    char hex[2 * QN_GPU_IPC_BYTES + 1];
    qn_gpu_fill(stream, memory, 0x37, N * sizeof *memory);
    ASSERT_DONE(qn_gpu_wait(stream, &seen_error));
    assert_int_equal(qn_gpu_cuda.ipc_export(handle, memory), 0);
    for (size_t i = 0; i < sizeof handle; i++) {
        (void)snprintf(hex + 2 * i, 3, "%02x", handle[i]);
    }
    assert_int_equal(run_child("--ipc", hex), 0);
}

static void test_cuda_peers(void **state)
{
    (void)state;
    need_device();
    uint32_t n_devices = 0;
    ASSERT_DONE(qn_gpu_count(&n_devices, &qn_gpu_cuda, &seen_error));
    if (n_devices < 2) {
        skip();
    }
    bool can = false;
    assert_int_equal(qn_gpu_cuda.can_access_peer(&can, 0, 1), 0);
    print_message("device 0 %s read memory of device 1\n", can ? "can" : "cannot");
}

/* ------------------------------------------------------------------------- what it costs -- */

static double seconds_of(uint64_t from_ns)
{
    return qn_clock_seconds(from_ns, qn_clock_ns());
}

/* A graph of n launches of one block. */
static qn_gpu_graph *chain(uint32_t n, bool is_dependent)
{
    const kernel_args args = {memory, 1, 0, NULL};
    qn_gpu_launch_args launch = over_all(find(is_dependent ? "add_behind" : "add", 0), &args);
    launch.grid[0] = 1;
    launch.is_dependent = is_dependent;
    qn_gpu_graph *graph = NULL;
    qn_gpu_capture_begin(stream);
    for (uint32_t i = 0; i < n; i++) {
        qn_gpu_launch(stream, &launch);
    }
    ASSERT_DONE(qn_gpu_capture_end(&graph, stream, &seen_error));
    return graph;
}

static void time_graph(const char *what, uint32_t n, bool is_dependent)
{
    enum { ROUNDS = 50 };
    qn_gpu_event *events[2] = {NULL};
    double best_device = 1.0, best_host = 1.0, best_round = 1.0;
    const uint64_t made_ns = qn_clock_ns();
    qn_gpu_graph *graph = chain(n, is_dependent);
    const double made_seconds = seconds_of(made_ns);
    for (size_t i = 0; i < 2; i++) {
        ASSERT_DONE(qn_gpu_event_open(&events[i], gpu, &seen_error));
    }
    for (int i = 0; i < ROUNDS; i++) {
        qn_gpu_event_record(events[0], stream);
        const uint64_t from_ns = qn_clock_ns();
        qn_gpu_graph_launch(stream, graph);
        const double host = seconds_of(from_ns);
        qn_gpu_event_record(events[1], stream);
        ASSERT_DONE(qn_gpu_wait(stream, &seen_error));
        const double round = seconds_of(from_ns);
        const double device = qn_gpu_event_seconds(events[0], events[1]);
        best_host = host < best_host ? host : best_host;
        best_round = round < best_round ? round : best_round;
        best_device = device < best_device ? device : best_device;
    }
    print_message("graph of %u %s: made in %.0f us, launch %.2f us of the host, %.2f us to its "
                  "end, %.2f us on the device\n",
                  n, what, 1e6 * made_seconds, 1e6 * best_host, 1e6 * best_round,
                  1e6 * best_device);
    qn_gpu_graph_close(&graph);
    qn_gpu_event_close(&events[0]);
    qn_gpu_event_close(&events[1]);
}

static void time_copies(void)
{
    enum { N_BYTES = 256 << 20 };
    uint8_t *pinned = NULL;
    uint8_t *device = NULL;
    double best[3] = {1.0, 1.0, 1.0};
    ASSERT_DONE(qn_gpu_alloc_host((void **)&pinned, gpu, N_BYTES, "pinned", &seen_error));
    ASSERT_DONE(qn_gpu_alloc((void **)&device, gpu, 2 * (size_t)N_BYTES, "copies", &seen_error));
    for (int i = 0; i < 15; i++) {
        const uint64_t from_ns = qn_clock_ns();
        if (i % 3 == 0) {
            qn_gpu_upload(stream, device, pinned, N_BYTES);
        } else if (i % 3 == 1) {
            qn_gpu_download(stream, pinned, device, N_BYTES);
        } else {
            qn_gpu_copy(stream, device + N_BYTES, device, N_BYTES);
        }
        ASSERT_DONE(qn_gpu_wait(stream, &seen_error));
        const double taken = seconds_of(from_ns);
        best[i % 3] = taken < best[i % 3] ? taken : best[i % 3];
    }
    print_message("256 MiB: upload %.1f GB/s, download %.1f GB/s, copy %.0f GB/s read\n",
                  N_BYTES / best[0] * 1e-9, N_BYTES / best[1] * 1e-9, N_BYTES / best[2] * 1e-9);
    qn_gpu_free(gpu, device);
    qn_gpu_free_host(gpu, pinned);
}

/* The best of some rounds, a call each; what was queued is done between them. */
static double time_calls(void (*call)(const qn_gpu_launch_args *launch), uint32_t n_calls)
{
    const kernel_args args = {memory, 1, 0, NULL};
    qn_gpu_launch_args launch = over_all(find("add", 0), &args);
    launch.grid[0] = 1;
    double best = 1.0;
    for (int k = 0; k < 20; k++) {
        ASSERT_DONE(qn_gpu_wait(stream, &seen_error));
        const uint64_t from_ns = qn_clock_ns();
        for (uint32_t i = 0; i < n_calls; i++) {
            call(&launch);
        }
        const double taken = seconds_of(from_ns) / n_calls;
        best = taken < best ? taken : best;
    }
    return 1e6 * best;
}

static void call_launch(const qn_gpu_launch_args *launch)
{
    qn_gpu_launch(stream, launch);
}

static void call_wait(const qn_gpu_launch_args *launch)
{
    (void)launch;
    ASSERT_DONE(qn_gpu_wait(stream, &seen_error));
}

static void call_check(const qn_gpu_launch_args *launch)
{
    (void)launch;
    ASSERT_DONE(qn_gpu_check(stream, &seen_error));
}

static void call_launch_and_wait(const qn_gpu_launch_args *launch)
{
    qn_gpu_launch(stream, launch);
    ASSERT_DONE(qn_gpu_wait(stream, &seen_error));
}

/* What every call does first: the context is made current. */
static void call_use(const qn_gpu_launch_args *launch)
{
    (void)launch;
    static void *context;
    if (context == NULL) {
        assert_int_equal(qn_gpu_cuda.open_context(&context, 0), 0);
    }
    assert_int_equal(qn_gpu_cuda.use(context, 0), 0);
}

static void test_cuda_costs(void **state)
{
    (void)state;
    need_device();
    print_message("a launch %.2f us of the host (100 in a row), %.2f us with its end; a wait for "
                  "nothing %.2f us, a check %.2f us, a context made current %.3f us\n",
                  time_calls(call_launch, 100), time_calls(call_launch_and_wait, 10),
                  time_calls(call_wait, 100), time_calls(call_check, 100),
                  time_calls(call_use, 1000));
    time_graph("launches", 0, false);
    time_graph("launches", 1, false);
    time_graph("launches", 1000, false);
    time_graph("dependent launches", 1000, true);
    time_copies();
    assert_int_equal(qn_gpu_cuda.close_context(NULL, 0), 0); /* of call_use() */
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--wild") == 0) {
        return follow_wild_pointer();
    }
    if (argc == 3 && strcmp(argv[1], "--ipc") == 0) {
        return open_memory_of_parent(argv[2]);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_says_what_it_is),
        cmocka_unit_test(test_cuda_moves_bytes),
        cmocka_unit_test(test_cuda_failures_of_a_call_leave_the_device_usable),
        cmocka_unit_test(test_cuda_launches),
        cmocka_unit_test(test_cuda_bulk_copy_reads_by_the_map),
        cmocka_unit_test(test_cuda_graph_does_again_what_was_captured),
        cmocka_unit_test(test_cuda_capture_with_a_failure_inside),
        cmocka_unit_test(test_cuda_graph_is_updated),
        cmocka_unit_test(test_cuda_wild_pointer_is_sticky),
        cmocka_unit_test(test_cuda_shares_memory_with_another_process),
        cmocka_unit_test(test_cuda_peers),
        cmocka_unit_test(test_cuda_costs),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}

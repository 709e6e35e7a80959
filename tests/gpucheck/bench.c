/* SPDX-License-Identifier: Apache-2.0 */
/* Times operations, against what the machine reads and multiplies in the same run. */
#include "device/gpu_block.h"
#include "gpucheck.h"
#include "kernels/gpu/list.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_CALLS_MAX = 256, N_LAUNCHES = 40 };

/* Read by nothing: larger than any L2 cache twice. */
static const size_t sweep_bytes = (size_t)256 << 20;

/* Of the run at hand. */
static uint8_t *sweep;
static double read_gb_s, matmul_tflop_s, launch_us;
static json_t *rows;
static const char *only_op;

static _Noreturn void die(const gc_bench *bench, const qn_error *err)
{
    (void)printf("FAIL %s %s: %s\n", bench->op, bench->shape, err->text);
    (void)fflush(stdout);
    exit(2);
}

void gc_put(gc *run, void *to, const void *host, size_t n_bytes)
{
    qn_gpu_upload(run->stream, to, host, n_bytes);
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median seconds of a launch of the graph, each after a sweep of the cache. */
static double median_launch(gc *run, const gc_bench *bench, qn_gpu_graph *graph)
{
    static double seconds[N_LAUNCHES];
    const int n = run->is_emulated ? 1 : N_LAUNCHES;
    qn_error err = {0};
    qn_gpu_event *first = NULL;
    qn_gpu_event *last = NULL;
    if (qn_gpu_event_open(&first, run->gpu, &err) != QN_OK ||
        qn_gpu_event_open(&last, run->gpu, &err) != QN_OK) {
        die(bench, &err);
    }
    for (int i = -3; i < n; i++) { /* the first ones warm up */
        qn_gpu_fill(run->stream, sweep, (uint8_t)i, run->is_emulated ? 1 : sweep_bytes);
        qn_gpu_event_record(first, run->stream);
        qn_gpu_graph_launch(run->stream, graph);
        qn_gpu_event_record(last, run->stream);
        if (qn_gpu_wait(run->stream, &err) != QN_OK) {
            die(bench, &err);
        }
        seconds[i < 0 ? 0 : i] = qn_gpu_event_seconds(first, last);
    }
    qn_gpu_event_close(&first);
    qn_gpu_event_close(&last);
    qsort(seconds, (size_t)n, sizeof *seconds, by_size);
    return seconds[n / 2];
}

/* What fill made. */
static void free_host(gc *run)
{
    for (size_t i = 0; i < run->n_host; i++) {
        free(run->host[i]);
    }
    run->n_host = 0;
}

static double time_call(gc *run, const gc_bench *bench)
{
    run->op = bench->op;
    (void)snprintf(run->shape, sizeof run->shape, "%s", bench->shape);
    gc_watch(run);
    const size_t set_bytes = qn_gpu_align(bench->set_bytes);
    size_t n_sets = sweep_bytes / set_bytes;
    n_sets = n_sets > N_CALLS_MAX ? N_CALLS_MAX : n_sets < 4 ? 4 : n_sets;
    n_sets = run->is_emulated ? 2 : n_sets;
    void *memory = NULL;
    qn_gpu_graph *graph = NULL;
    qn_error err = {0};
    if (qn_gpu_alloc(&memory, run->gpu, n_sets * set_bytes, bench->op, &err) != QN_OK) {
        die(bench, &err);
    }
    uint8_t *sets = memory;
    qn_gpu_fill(run->stream, sets, 0, n_sets * set_bytes);
    for (size_t i = 0; i < n_sets; i++) {
        bench->fill(run, bench, sets + i * set_bytes);
        if (qn_gpu_wait(run->stream, &err) != QN_OK) {
            die(bench, &err);
        }
        free_host(run);
    }
    bench->queue(run, bench, sets); /* failures show before anything is captured */
    if (qn_gpu_wait(run->stream, &err) != QN_OK) {
        die(bench, &err);
    }
    qn_gpu_capture_begin(run->stream);
    for (size_t i = 0; i < n_sets; i++) {
        bench->queue(run, bench, sets + i * set_bytes);
    }
    if (qn_gpu_capture_end(&graph, run->stream, &err) != QN_OK) {
        die(bench, &err);
    }
    const double seconds = median_launch(run, bench, graph) / (double)n_sets;
    qn_gpu_graph_close(&graph);
    qn_gpu_free(run->gpu, memory);
    gc_watch_end();
    return seconds;
}

double gc_time(gc *run, const gc_bench *bench)
{
    if (only_op != NULL && strcmp(only_op, bench->op) != 0) {
        return (double)NAN;
    }
    const double s = time_call(run, bench);
    const double gb_s = bench->n_bytes / s * 1e-9;
    const double tflop_s = bench->n_flops / s * 1e-12;
    (void)printf("%-14s %-32s %10.2f us %7.0f GB/s %5.1f %%", bench->op, bench->shape, s * 1e6,
                 gb_s, 100.0 * gb_s / read_gb_s);
    if (bench->n_flops > 0.0) {
        (void)printf(" %7.1f TFLOP/s", tflop_s);
    }
    if (bench->n_flops > 0.0 && matmul_tflop_s > 0.0) {
        (void)printf(" %5.1f %%", 100.0 * tflop_s / matmul_tflop_s);
    }
    (void)printf("\n");
    (void)fflush(stdout);
    json_t *row =
        json_pack("{s:s,s:s,s:f,s:f,s:f}", "op", bench->op, "shape", bench->shape, "microseconds",
                  s * 1e6, "bytes", bench->n_bytes, "flops", bench->n_flops);
    (void)json_array_append_new(rows, row);
    return s * 1e6;
}

/* ---------------------------------------------------------------------- what a machine can -- */

void gc_fill_nothing(gc *run, const gc_bench *bench, uint8_t *set)
{
    (void)run;
    (void)bench;
    (void)set;
}

static void queue_read(gc *run, const gc_bench *bench, uint8_t *set)
{
    const qn_gpu_roof_read_args args = {
        .sink = (uint32_t *)(void *)set,
        .x = set + 256,
        .n_bytes = bench->set_bytes - 256,
    };
    const uint32_t grid[3] = {qn_gpu_get_info(run->gpu)->n_sms * 8, 1, 1};
    qn_gpu_ops_launch(&run->ops, QN_GPU_KERNEL_roof_read, grid, 0, &args, sizeof args);
}

enum { N_MATMUL_STEPS = 1000 }; /* some milliseconds */

static void queue_matmul(gc *run, const gc_bench *bench, uint8_t *set)
{
    (void)bench;
    const qn_gpu_roof_matmul_args args = {.y = (float *)(void *)set, .n_steps = N_MATMUL_STEPS};
    const uint32_t grid[3] = {qn_gpu_get_info(run->gpu)->n_sms, 1, 1};
    qn_gpu_ops_launch(&run->ops, QN_GPU_KERNEL_roof_matmul, grid, 65536, &args, sizeof args);
}

/* One block that finds nothing to read, behind another. */
static void queue_launch(gc *run, const gc_bench *bench, uint8_t *set)
{
    (void)bench;
    const qn_gpu_roof_read_args args = {.sink = (uint32_t *)(void *)set, .x = set};
    const uint32_t grid[3] = {1, 1, 1};
    qn_gpu_ops_launch(&run->ops, QN_GPU_KERNEL_roof_read, grid, 0, &args, sizeof args);
}

static void measure_roof(gc *run)
{
    const size_t n = run->is_emulated ? (size_t)1 << 16 : (size_t)1 << 30;
    const gc_bench reads = {.op = "read",
                            .shape = "1 GiB",
                            .set_bytes = n + 256,
                            .fill = gc_fill_nothing,
                            .queue = queue_read};
    read_gb_s = (double)n / time_call(run, &reads) * 1e-9;
    (void)printf("reads %.0f GB/s\n", read_gb_s);
    matmul_tflop_s = 0.0; /* not known */
    if (qn_gpu_kernels_has(run->kernels, QN_GPU_KERNEL_roof_matmul)) {
        const uint32_t n_sms = qn_gpu_get_info(run->gpu)->n_sms;
        const gc_bench matmul = {.op = "matmul",
                                 .shape = "no loads",
                                 .set_bytes = sweep_bytes / 4 /* few calls */,
                                 .fill = gc_fill_nothing,
                                 .queue = queue_matmul};
        matmul_tflop_s = n_sms * (double)N_MATMUL_STEPS * 0x1p24 / time_call(run, &matmul) * 1e-12;
        (void)printf("multiplies %.0f TFLOP/s of bf16\n", matmul_tflop_s);
    }
    const gc_bench launches = {.op = "launch",
                               .shape = "nothing",
                               .set_bytes = sweep_bytes / N_CALLS_MAX,
                               .fill = gc_fill_nothing,
                               .queue = queue_launch};
    launch_us = time_call(run, &launches) * 1e6;
    (void)printf("launches a kernel of nothing in %.2f us\n", launch_us);
}

void gc_bench_all(gc *run, const char *only, const char *json_path)
{
    void *memory = NULL;
    qn_error err = {0};
    const gc_bench none = {.op = "bench", .shape = ""};
    only_op = only;
    run->wrong = NULL;
    if (qn_gpu_alloc(&memory, run->gpu, sweep_bytes, "the sweep of the cache", &err) != QN_OK) {
        die(&none, &err);
    }
    sweep = memory;
    rows = json_array();
    measure_roof(run);
    for (size_t i = 0; gc_groups[i] != NULL; i++) {
        if (gc_groups[i]->bench != NULL) {
            gc_groups[i]->bench(run);
        }
    }
    json_t *all = json_pack("{s:s,s:f,s:f,s:f,s:o}", "device", qn_gpu_get_info(run->gpu)->name,
                            "read_gb_s", read_gb_s, "matmul_tflop_s", matmul_tflop_s, "launch_us",
                            launch_us, "rows", rows);
    if (json_path != NULL && (all == NULL || json_dump_file(all, json_path, JSON_INDENT(1)) != 0)) {
        (void)printf("FAIL %s could not be written\n", json_path);
    }
    json_decref(all);
    qn_gpu_free(run->gpu, sweep);
}

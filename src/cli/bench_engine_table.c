/* SPDX-License-Identifier: Apache-2.0 */
#include "bench_engine.h"

#include "bench/put.h"
#include "report.h"
#include "speed.h"

#include <string.h>

enum { DEPTH_BYTES = 8, DEVICES_MAX = 8 };

static void show_depth(char out[DEPTH_BYTES], int depth)
{
    if (depth == QN_DRAFT_AUTO) {
        (void)snprintf(out, DEPTH_BYTES, "auto");
    } else {
        (void)snprintf(out, DEPTH_BYTES, "%d", depth == QN_DRAFT_NONE ? 0 : depth);
    }
}

/* Decoding of this cell by that of one sequence; 0 where that was not measured. */
static double ratio_of(const bench_cell *cells, size_t n_cells, const bench_cell *cell)
{
    for (size_t i = 0; i < n_cells; i++) {
        const bench_cell *const one = &cells[i];
        if (one->n_sequences == 1 && one->context == cell->context && one->depth == cell->depth) {
            return cli_rate(cell->decode.median, one->decode.median);
        }
    }
    return 0.0;
}

static void machine_of(const qn_model_info *info, char *out, size_t out_bytes)
{
    qn_device devices[DEVICES_MAX];
    const size_t n = qn_devices(devices, DEVICES_MAX);
    (void)snprintf(out, out_bytes, "unknown");
    for (size_t i = 0; i < n; i++) {
        if (strcmp(devices[i].name, info->device) == 0) {
            (void)snprintf(out, out_bytes, "%s", devices[i].description);
        }
    }
}

/* A figure that was not measured, or has nothing to be compared with, is null. */
static json_t *number_or_null(bool is_there, double value)
{
    return is_there ? json_real(value) : json_null();
}

static json_t *show_cell(const bench_cell *cells, size_t n_cells, const bench_cell *c)
{
    char depth[DEPTH_BYTES];
    const double ratio = ratio_of(cells, n_cells, c);
    show_depth(depth, c->depth);
    json_t *const draft_tokens =
        c->depth == QN_DRAFT_AUTO ? json_string(depth) : json_integer(c->depth > 0 ? c->depth : 0);
    return json_pack("{si, si, so, sf, sf, so, so, so, so, so, so, sI, sb}", "batch",
                     (int)c->n_sequences, "context", (int)c->context, "draft_tokens", draft_tokens,
                     "prefill_tokens_per_s", c->prefill.median, "prefill_spread", c->prefill.spread,
                     "decode_tokens_per_s", number_or_null(c->has_decode, c->decode.median),
                     "decode_spread", number_or_null(c->has_decode, c->decode.spread),
                     "decode_tokens_per_s_per_sequence",
                     number_or_null(c->has_decode, c->decode.median / c->n_sequences), "step_ms",
                     number_or_null(c->has_decode, c->step_ms.median), "acceptance_length",
                     number_or_null(c->has_decode, c->acceptance_length), "ratio_to_batch_1",
                     number_or_null(c->has_decode && ratio > 0.0, ratio), "peak_pages",
                     (json_int_t)c->peak_pages, "synthetic", (int)c->is_synthetic);
}

json_t *bench_engine_json(const bench_cell *cells, size_t n_cells, const qn_model *model,
                          const bench_settings *settings)
{
    const qn_model_info *const info = qn_model_get_info(model);
    const qn_build *const build = qn_build_get();
    char machine[sizeof((qn_device *)0)->description];
    bool is_synthetic = false;
    bool is_whole = true;
    json_t *const list = json_array();
    for (size_t i = 0; i < n_cells; i++) {
        is_synthetic |= cells[i].is_synthetic;
        is_whole &= json_array_append_new(list, show_cell(cells, n_cells, &cells[i])) == 0;
    }
    machine_of(info, machine, sizeof machine);
    json_t *const object = json_pack(
        "{ss, ss, so, ss, ss, ss, ss, ss, si, ss, ss, ss, so, ss, sb, sb, so, si, si, si, sb, so}",
        "format", "quern-bench-engine/1", "kind", "engine", "model", cli_json_text(info->name),
        "weights", info->weights, "quantization", info->quantization, "compute", info->compute,
        "kv_dtype", info->kv_dtype, "device", info->device, "threads", (int)info->n_threads,
        "kernels", info->kernels, "version", build->version, "commit", build->commit, "date",
        put_date(0), "machine", machine, "deterministic", (int)info->is_deterministic, "synthetic",
        (int)is_synthetic, "pinned_acceptance_length",
        number_or_null(is_synthetic, (double)settings->acceptance_length), "prompt_tokens",
        (int)settings->n_prompt, "output_tokens", (int)settings->n_output, "repeats",
        (int)settings->n_repeats, "shared_prefix", (int)settings->shares_prefix, "cells", list);
    if (!is_whole) {
        json_decref(object);
    }
    return is_whole ? object : NULL;
}

/* ---------------------------------------------------------------------------------------- table */

static void print_row(FILE *file, const bench_cell *cells, size_t n_cells, const bench_cell *c)
{
    char depth[DEPTH_BYTES];
    char figures[6][32];
    const double values[] = {c->decode.median,       c->decode.median / c->n_sequences,
                             c->decode.spread * 100, c->step_ms.median,
                             c->acceptance_length,   ratio_of(cells, n_cells, c)};
    static const int digits[] = {1, 1, 1, 2, 2, 2};
    char prefill[32];
    show_depth(depth, c->depth);
    (void)snprintf(prefill, sizeof prefill, "%.1f", c->prefill.median);
    for (size_t i = 0; i < 6; i++) {
        const bool is_there = c->has_decode && (i < 5 || values[i] > 0.0);
        (void)snprintf(figures[i], sizeof figures[i], is_there ? "%.*f" : "-", digits[i],
                       values[i]);
    }
    char numbers[3][16];
    (void)snprintf(numbers[0], sizeof numbers[0], "%u", c->n_sequences);
    (void)snprintf(numbers[1], sizeof numbers[1], "%u", c->context);
    (void)snprintf(numbers[2], sizeof numbers[2], "%llu", (unsigned long long)c->peak_pages);
    const char *const columns[] = {numbers[0], numbers[1], depth,      prefill,
                                   figures[0], figures[1], figures[2], figures[3],
                                   figures[4], figures[5], numbers[2]};
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
        (void)fprintf(file, "%s%*s", i == 0 ? "" : " ", i < 3 ? 7 : 11, columns[i]);
    }
    (void)fprintf(file, "\n");
}

void bench_engine_print(FILE *file, const bench_cell *cells, size_t n_cells, const qn_model *model,
                        const bench_settings *settings)
{
    const qn_model_info *const info = qn_model_get_info(model);
    const qn_build *const build = qn_build_get();
    char machine[sizeof((qn_device *)0)->description];
    json_t *const date = put_date(0);
    machine_of(info, machine, sizeof machine);
    (void)fprintf(file,
                  "%s: %s weights, quantization %s, compute %s, cache %s, kernels %s, %u thread%s\n"
                  "%s; quern %s, commit %s, %s\n"
                  "prompts of %u tokens behind the context%s, answers of %u, median of %u\n\n",
                  info->name, info->weights, info->quantization, info->compute, info->kv_dtype,
                  info->kernels, info->n_threads, cli_plural(info->n_threads), machine,
                  build->version, build->commit, date != NULL ? json_string_value(date) : "unknown",
                  settings->n_prompt, settings->shares_prefix ? ", which all share" : "",
                  settings->n_output, settings->n_repeats);
    json_decref(date);
    (void)fprintf(file, "%7s %7s %7s %11s %11s %11s %11s %11s %11s %11s %11s\n", "batch", "context",
                  "MTP", "prefill t/s", "decode t/s", "each t/s", "spread %", "step ms",
                  "acceptance", "by batch 1", "pages");
    bool is_synthetic = false;
    for (size_t i = 0; i < n_cells; i++) {
        print_row(file, cells, n_cells, &cells[i]);
        is_synthetic |= cells[i].is_synthetic;
    }
    if (is_synthetic) {
        (void)fprintf(file, "\nSynthetic: acceptance is pinned at %g.\n",
                      (double)settings->acceptance_length);
    }
}

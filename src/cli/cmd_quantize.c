/* SPDX-License-Identifier: Apache-2.0 */
#include "quern/tools.h"

#include "commands.h"
#include "page.h"
#include "progress.h"
#include "report.h"
#include "speed.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct quantize_values {
    cli_common common;
    const char *recipe, *report, *cpu_mask;
    uint64_t n_threads;
    int mtp, activations, scale, fp8;
    bool is_dry_run, resumes, deletes_source, as_json;
} quantize_values;

#define FIELD(field) offsetof(quantize_values, field)

static const cli_option what_options[] = {
    {"recipe", 0, CLI_TEXT, "experts|routed|mlp|FILE", FIELD(recipe), 0, 0,
     "Which matrices become MXFP4 (default experts: routed and shared experts); a file has "
     "{\"pattern\": \"mxfp4\" or \"keep\", ...}, of which the first match decides"},
    {"mtp", 0, CLI_CHOICE, "bf16|mxfp4", FIELD(mtp), 0, 0,
     "The MTP layer: as it is, or by the recipe like the rest, eh_proj included (default bf16)"},
    {"activations", 0, CLI_CHOICE, "mxfp4|none", FIELD(activations), 0, 0,
     "What config.json tells other engines to round activations to (default: mxfp4 for recipe "
     "experts, none for others); the weights are the same"},
    {"scale", 0, CLI_CHOICE, "even|mse", FIELD(scale), 0, 0,
     "Rule of the scales: AMD Quark's, byte for byte, or the better of two (default even)"},
    {"fp8", 0, CLI_CHOICE, "bf16|keep", FIELD(fp8), 0, 0,
     "FP8 tensors that the recipe does not take: to bf16, or as they are (default bf16)"},
};

static const cli_option how_options[] = {
    {"threads", 0, CLI_COUNT, "N", FIELD(n_threads), 1, 4096,
     "Threads (default: one for each CPU granted); the bytes are the same"},
    {"cpu-mask", 0, CLI_TEXT, "LEVEL", FIELD(cpu_mask), 0, 0,
     "Best kernel level allowed: ref, avx2, avx512, avx512bf16, amx"},
    {"dry-run", 0, CLI_FLAG, NULL, FIELD(is_dry_run), 0, 0,
     "Say what would be written and estimate the time; write nothing"},
    {"resume", 0, CLI_FLAG, NULL, FIELD(resumes), 0, 0,
     "Go on where a run of the same source and options was stopped"},
    {"delete-source", 0, CLI_FLAG, NULL, FIELD(deletes_source), 0, 0,
     "Delete each shard of the source once its output is on disk and was read again; NaN in a "
     "later "
     "one then ends it half-way: run quern inspect --verify first"},
    {"report", 0, CLI_TEXT, "FILE.json", FIELD(report), 0, 0,
     "Write the report to a file; FILE.html: as a page"},
    {"json", 0, CLI_FLAG, NULL, FIELD(as_json), 0, 0, "Print the report as one JSON object"},
};

static void init(void *values)
{
    quantize_values *v = values;
    v->activations = -1; /* by the recipe */
}

static double gigabytes(const json_t *object, const char *key)
{
    return (double)json_integer_value(json_object_get(object, key)) * 1e-9;
}

static long long count(const json_t *object, const char *key)
{
    return (long long)json_integer_value(json_object_get(object, key));
}

/* What a row is called. */
static void show_kind(char *out, size_t out_bytes, const json_t *row)
{
    (void)snprintf(out, out_bytes, "%s%s", json_is_true(json_object_get(row, "mtp")) ? "mtp " : "",
                   json_string_value(json_object_get(row, "kind")));
}

/* Relative MSE, dB, largest, share of blocks; dashes where nothing was encoded. */
static void print_error(const json_t *row)
{
    const json_t *const error = json_object_get(row, "error");
    const json_t *const snr = json_object_get(error, "snr_db");
    const double blocks = json_number_value(json_object_get(error, "blocks"));
    if (!json_is_real(snr)) {
        (void)printf(" %8s %6s %7s %5s\n", "-", "-", "-", "-");
        return;
    }
    (void)printf(" %8.4f %6.2f %7.3g %5.1f\n",
                 json_number_value(json_object_get(error, "relative_mse")), -json_real_value(snr),
                 json_real_value(json_object_get(error, "error_max")),
                 100.0 * json_number_value(json_object_get(error, "saturated_blocks")) / blocks);
}

/* How many blocks of a kind have which scale, in lines of 80 columns. */
static void print_scales(const json_t *row)
{
    enum { COLUMNS = 80, NAME_COLUMNS = 17 };
    const json_t *const error = json_object_get(row, "error");
    const double blocks = json_number_value(json_object_get(error, "blocks"));
    char text[40];
    int column = NAME_COLUMNS;
    show_kind(text, sizeof text, row);
    (void)printf("%-*s", NAME_COLUMNS, text);
    for (int byte = 0; byte < 256; byte++) {
        char key[12];
        (void)snprintf(key, sizeof key, "%d", byte);
        const double n = json_number_value(json_object_get(json_object_get(error, "scales"), key));
        if (n == 0.0) {
            continue;
        }
        const double percent = 100.0 * n / blocks;
        const int len = snprintf(text, sizeof text, percent < 0.05 ? "  2^%d <0.1" : "  2^%d %.1f",
                                 byte - 127, percent);
        if (column + len > COLUMNS) {
            (void)printf("\n%*s", NAME_COLUMNS, "");
            column = NAME_COLUMNS;
        }
        cli_write(text, (size_t)len);
        column += len;
    }
    (void)printf("\n");
}

static void print_table(const json_t *report)
{
    const json_t *const kinds = json_object_get(report, "kinds");
    bool has_scales = false;
    size_t i = 0;
    json_t *row = NULL;
    (void)printf("%-17s %7s %6s %9s %7s %8s %6s %7s %5s\n", "kind", "tensors", "mxfp4", "GB before",
                 "after", "rel MSE", "dB", "largest", "sat %");
    json_array_foreach(kinds, i, row)
    {
        char name[40];
        show_kind(name, sizeof name, row);
        (void)printf("%-17s %7lld %6lld %9.3f %7.3f", name, count(row, "tensors"),
                     count(row, "quantized_tensors"), gigabytes(row, "bytes_before"),
                     gigabytes(row, "bytes_after"));
        print_error(row);
    }
    (void)printf("%-17s %7s %6s %9.3f %7.3f\n", "files", "", "", gigabytes(report, "bytes_before"),
                 gigabytes(report, "bytes_after"));
    json_array_foreach(kinds, i, row)
    {
        if (json_number_value(json_object_get(json_object_get(row, "error"), "blocks")) > 0.0) {
            (void)printf("%s", has_scales ? "" : "\nscales, % of blocks\n");
            has_scales = true;
            print_scales(row);
        }
    }
}

static void print_names(const json_t *names, const char *what)
{
    size_t i = 0;
    json_t *name = NULL;
    (void)printf("\n%s (%zu):\n", what, json_array_size(names));
    json_array_foreach(names, i, name)
    {
        (void)printf("  %s\n", json_string_value(name));
    }
}

static void print_dry_run(const json_t *report)
{
    char time[40];
    const json_t *const estimate = json_object_get(report, "estimate_s");
    print_names(json_object_get(report, "exclude"), "exclude");
    print_names(json_object_get(report, "aliases"), "of these, aliases");
    cli_show_time(time, sizeof time, json_number_value(estimate));
    (void)printf("\nto write: %.3f GB; free there: %.3f GB\n", gigabytes(report, "needed_bytes"),
                 gigabytes(report, "free_bytes"));
    if (!json_is_true(json_object_get(report, "fits"))) {
        (void)printf("too little room: %.3f GB needed at once\n",
                     gigabytes(report, "at_once_bytes"));
    }
    if (json_is_number(estimate)) {
        (void)printf(
            "time: about %s, to read and quantize at the %.2f GB/s of %.0f MB just read; a "
            "disk that is slower to read or write takes longer\n",
            time, json_number_value(json_object_get(report, "sample_bytes_per_s")) * 1e-9,
            gigabytes(report, "sample_bytes") * 1e3);
    }
}

static void print_fp8(const json_t *report)
{
    const long long n_to_bf16 = count(report, "fp8_to_bf16_tensors");
    const long long n_kept = count(report, "fp8_kept_tensors");
    if (n_to_bf16 > 0) {
        (void)printf("\n%lld FP8 tensors that the recipe does not take became bf16 (--fp8 keep "
                     "leaves them)\n",
                     n_to_bf16);
    }
    if (n_kept > 0) {
        (void)printf("\n%lld FP8 tensors that the recipe does not take stay FP8\n", n_kept);
    }
}

static void print_speed(const json_t *report)
{
    char time[40];
    const long long n_resumed = count(report, "resumed_shards");
    cli_show_time(time, sizeof time, json_number_value(json_object_get(report, "elapsed_s")));
    (void)fprintf(stderr, "%.3f GB read in %s, %.2f GB/s", gigabytes(report, "read_bytes"), time,
                  json_number_value(json_object_get(report, "bytes_per_s")) * 1e-9);
    if (n_resumed > 0) {
        (void)fprintf(stderr, "; %lld shard%s done before", n_resumed,
                      cli_plural((uint64_t)n_resumed));
    }
    (void)fprintf(stderr, "\n");
}

static bool write_report(FILE *file, void *context)
{
    return json_dumpf(context, file, JSON_INDENT(1)) == 0 && fputc('\n', file) != EOF;
}

/* As JSON, or as a page, which knows more than what is printed. */
static qn_status save(const char *path, json_t *report, qn_error *err)
{
    if (!cli_is_page(path)) {
        return cli_replace_file(path, write_report, report, err);
    }
    json_t *const copy = json_copy(report);
    const qn_status status = copy != NULL
                                 ? cli_write_page(path, copy, err)
                                 : qn_fail(err, QN_E_NOMEM, 0, __func__, "--report: no memory");
    json_decref(copy);
    return status;
}

static int show(const quantize_values *v, json_t *report)
{
    qn_error err = {0};
    if (report == NULL) {
        return cli_fail(QN_E_NOMEM, "report: no memory");
    }
    if (v->report != NULL && save(v->report, report, &err) < 0) {
        json_decref(report);
        return cli_report(&err);
    }
    if (!v->common.is_quiet && !v->is_dry_run) {
        print_speed(report);
    }
    if (v->as_json) {
        return cli_print_json(report);
    }
    print_table(report);
    print_fp8(report);
    if (v->is_dry_run) {
        print_dry_run(report);
    }
    json_decref(report);
    return cli_flush(CLI_DONE);
}

static bool is_same_file(const char *a, const char *b)
{
    struct stat x;
    struct stat y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* The report is the last that is written: what is wrong with its place has to be known before. Only
 * the target may still have to be made. */
static qn_status check_report(const quantize_values *v, const char *source, const char *target,
                              qn_error *err)
{
    const char *const path = v->report;
    static const char *const ours[] = {"config.json", "model.safetensors.index.json",
                                       "quern-manifest.json"};
    char dir[PATH_MAX];
    const char *const slash = strrchr(path, '/');
    const char *const name = slash != NULL ? slash + 1 : path;
    const size_t len = strlen(name);
    const size_t suffix_len = strlen(".safetensors");
    (void)snprintf(dir, sizeof dir, "%.*s", slash != NULL ? (int)(slash - path) + 1 : 2,
                   slash != NULL ? path : "./");
    bool is_taken = len >= suffix_len && strcmp(name + len - suffix_len, ".safetensors") == 0;
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) {
        is_taken |= strcmp(name, ours[i]) == 0;
    }
    if (is_taken || is_same_file(dir, source)) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "--report: %.300s: %s, expected a file of its own", path,
                       is_taken ? "the name of a part of a model" : "in the source");
    }
    const size_t target_len = strlen(target) - (target[strlen(target) - 1] == '/' ? 1 : 0);
    const bool is_in_target = !v->is_dry_run && strncmp(dir, target, target_len) == 0 &&
                              strcmp(dir + target_len, "/") == 0 && access(target, F_OK) != 0;
    return is_in_target ? QN_OK : cli_check_writable(path, err);
}

static int run(void *values, int n_arguments, char **arguments)
{
    const quantize_values *v = values;
    qn_error err = {0};
    cli_progress progress;
    char *text = NULL;
    if (n_arguments < 2) {
        return cli_fail(QN_E_INVAL, "quantize: no %s, expected SRC and DST",
                        n_arguments == 0 ? "model" : "target folder");
    }
    if (v->report != NULL && arguments[1][0] != '\0' &&
        check_report(v, arguments[0], arguments[1], &err) < 0) {
        return cli_report(&err);
    }
    cli_progress_begin(&progress, "quantize", "GB", 1e9, v->common.is_quiet);
    const qn_quantize_options options = {
        .recipe = v->recipe,
        .cpu_mask = v->cpu_mask,
        .progress = cli_progress_show,
        .progress_context = &progress,
        .n_threads = (uint32_t)v->n_threads,
        .scale = (qn_scale_rule)v->scale, /* words stand in the order of the enums */
        .activations = v->activations < 0 ? QN_ACTIVATIONS_DEFAULT
                                          : (qn_declared_activations)(v->activations + 1),
        .fp8 = (qn_fp8_rest)v->fp8,
        .quantizes_mtp = v->mtp == 1,
        .is_dry_run = v->is_dry_run,
        .resumes = v->resumes,
        .deletes_source = v->deletes_source,
    };
    const qn_status status = qn_quantize(&text, arguments[0], arguments[1], &options, &err);
    cli_progress_end(&progress);
    if (status < 0) {
        return cli_report(&err);
    }
    const int result = show(v, json_loads(text, 0, NULL));
    qn_free(text);
    return result;
}

const cli_command cmd_quantize = {
    .name = "quantize",
    .summary = "Make an MXFP4 checkpoint of a bf16 or FP8 one",
    .synopsis = "SRC DST [options]",
    .description =
        "Writes the model SRC (a folder, or owner/name in the Hugging Face cache) to the new "
        "folder "
        "DST with matrices in MXFP4, as AMD Quark does: the same bytes, and a config.json that "
        "SGLang, vLLM and ATOM read. Memory does not grow with the model.\n\n"
        "A shard gets its name only when all of it is on disk, and config.json comes last. What "
        "was "
        "stopped goes on with --resume and ends in the same bytes.",
    .examples = "quern quantize models/glm-nano nano-mxfp4 --dry-run\n"
                "quern quantize models/glm-nano nano-mxfp4 --report nano.json\n"
                "quern quantize GLM-5.2-FP8 GLM-5.2-MXFP4 --delete-source --resume\n",
    .groups = {{"What becomes MXFP4", what_options, sizeof what_options / sizeof *what_options, 0},
               {"How", how_options, sizeof how_options / sizeof *how_options, 0},
               CLI_COMMON_GROUP},
    .n_groups = 3,
    .n_arguments_max = 2,
    .init = init,
    .run = run,
};

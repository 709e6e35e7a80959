/* SPDX-License-Identifier: Apache-2.0 */
#include "ask.h"
#include "bench_engine.h"
#include "bench_output.h"
#include "commands.h"
#include "page.h"
#include "progress.h"
#include "report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct bench_values {
    cli_common common;
    cli_model model;
    const char *batches, *contexts, *draft_tokens, *page_cache, *output;
    uint64_t n_prompt, n_output, n_repeats, n_step_rows;
    double acceptance_length; /* NaN: not pinned */
    bool shares_prefix, as_json;
} bench_values;

#define BENCH(field) offsetof(bench_values, field)

enum { TOKENS_MAX = 1 << 24 };

static const cli_option what_options[] = {
    {"batch", 0, CLI_TEXT, "N,...", BENCH(batches), 0, 0,
     "Sequences that run at once (default 1,4,16,64)"},
    {"context", 0, CLI_TEXT, "N,...", BENCH(contexts), 0, 0,
     "Tokens of each that are computed before, untimed (default 0,2048)"},
    {"prompt-tokens", 0, CLI_COUNT, "N", BENCH(n_prompt), 1, TOKENS_MAX,
     "Tokens of each prompt behind the context, which are timed as prefill (default 128)"},
    {"output-tokens", 0, CLI_COUNT, "N", BENCH(n_output), 2, TOKENS_MAX,
     "Tokens of each answer (default 128)"},
    {"draft-tokens", 0, CLI_TEXT, "N|auto,...", BENCH(draft_tokens), 0, 0,
     "Depths of speculation, each a line of the table (default 0,5,auto; 0,5 with "
     "--acceptance-length; 0 where the model lacks the MTP layer)"},
    {"shared-prefix", 0, CLI_FLAG, NULL, BENCH(shares_prefix), 0, 0,
     "All sequences have the same context, which is computed and kept once"},
    {"acceptance-length", 0, CLI_NUMBER, "X", BENCH(acceptance_length), 1, QN_DRAFT_TOKENS_MAX + 1,
     "Accept drafts unseen, so that steps emit X tokens on average: synthetic"},
    {"repeat", 0, CLI_COUNT, "N", BENCH(n_repeats), 1, BENCH_REPEATS_MAX,
     "Rounds that are counted, after one that warms up (default 3)"},
    {"max-num-batched-tokens", 0, CLI_COUNT, "N", BENCH(n_step_rows), 65, QN_ENGINE_ROWS_MAX,
     "Rows of a step (default 512, on a GPU 2048, or 64 more than the sequences)"},
    {"page-cache", 0, CLI_TEXT, "SIZE", BENCH(page_cache), 0, 0,
     "Memory of the cache, such as 8G or 512M (default: what the sequences need, at most a quarter "
     "of the machine's, of a GPU's what is free)"},
};

static const cli_option output_options[] = {
    {"json", 0, CLI_FLAG, NULL, BENCH(as_json), 0, 0, "Print one JSON object"},
    {"output", 0, CLI_TEXT, "DIR", BENCH(output), 0, 0,
     "Write result.json, report.md and report.html into this folder, which is made"},
};

static void init(void *values)
{
    bench_values *const v = values;
    v->n_prompt = v->n_output = 128;
    v->n_repeats = 3;
    v->batches = "1,4,16,64";
    v->contexts = "0,2048";
    v->acceptance_length = (double)NAN;
}

/* ------------------------------------------------------------------------------------- settings */

static qn_status fail_twice(const char *option, const char *text, qn_error *err)
{
    return qn_fail(err, QN_E_INVAL, 0, __func__, "%s: \"%.64s\", expected each of them once",
                   option, text);
}

static qn_status parse_depths(bench_settings *s, const char *text, qn_error *err)
{
    for (const char *at = text;; at++) {
        const size_t len = strcspn(at, ",");
        char word[16];
        (void)snprintf(word, sizeof word, "%.*s", (int)(len < sizeof word ? len : sizeof word), at);
        if (s->n_depths == CLI_COUNTS_MAX) {
            return qn_fail(err, QN_E_INVAL, 0, __func__,
                           "--draft-tokens: over %d depths, expected at most that", CLI_COUNTS_MAX);
        }
        int depth = 0;
        const qn_status status = cli_parse_draft(&depth, "--draft-tokens", word, err);
        for (size_t i = 0; status == QN_OK && i < s->n_depths; i++) {
            if (s->depths[i] == depth) {
                return fail_twice("--draft-tokens", text, err);
            }
        }
        s->depths[s->n_depths++] = depth;
        at += len;
        if (status < 0 || *at == '\0') {
            return status;
        }
    }
}

/* Can every depth reach the pinned length?  Those of 0 are not pinned. */
static qn_status check_length(const bench_settings *s, qn_error *err)
{
    if (s->acceptance_length > 0.0F && s->n_depths == 1 && s->depths[0] == QN_DRAFT_NONE) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "--acceptance-length: given with --draft-tokens 0, expected a depth to pin");
    }
    for (size_t i = 0; i < s->n_depths && s->acceptance_length > 0.0F; i++) {
        const int depth = s->depths[i];
        if (depth == QN_DRAFT_AUTO ||
            (depth != QN_DRAFT_NONE && s->acceptance_length > (float)depth + 1.0F)) {
            return qn_fail(err, QN_E_INVAL, 0, __func__,
                           "--acceptance-length: %g, expected at most one more than each of "
                           "--draft-tokens, none of them auto",
                           (double)s->acceptance_length);
        }
    }
    return QN_OK;
}

static qn_status fill_settings(bench_settings *s, const bench_values *v, qn_error *err)
{
    *s = (bench_settings){
        .n_prompt = (uint32_t)v->n_prompt,
        .n_output = (uint32_t)v->n_output,
        .n_repeats = (uint32_t)v->n_repeats,
        .n_step_rows = v->n_step_rows,
        .page_cache = v->page_cache,
        .acceptance_length = isnan(v->acceptance_length) ? 0.0F : (float)v->acceptance_length,
        .shares_prefix = v->shares_prefix,
        .is_quiet = v->common.is_quiet,
    };
    qn_status status = cli_parse_counts(s->batches, &s->n_batches, "--batch", v->batches, 1,
                                        QN_ENGINE_SEQUENCES_MAX, err);
    if (status == QN_OK) {
        status = cli_parse_counts(s->contexts, &s->n_contexts, "--context", v->contexts, 0,
                                  TOKENS_MAX, err);
    }
    if (status == QN_OK) {
        status = parse_depths(s,
                              v->draft_tokens != NULL       ? v->draft_tokens
                              : s->acceptance_length > 0.0F ? "0,5"
                                                            : "0,5,auto",
                              err);
    }
    return status == QN_OK ? check_length(s, err) : status;
}

/* ------------------------------------------------------------------------------------------ run */

static qn_status measure(const bench_values *v, const char *name, qn_model **model,
                         bench_cell **cells, size_t *n_cells, bench_settings *s, qn_error *err)
{
    qn_status status = fill_settings(s, v, err);
    if (status == QN_OK && v->output != NULL) {
        status = bench_output_open(v->output, err);
    }
    if (status == QN_OK) {
        status = cli_open_model(model, name, &v->model, v->model.load_format == 1,
                                v->common.is_quiet, err);
    }
    if (status < 0) {
        return status;
    }
    if (v->draft_tokens == NULL && !qn_model_get_info(*model)->has_mtp) {
        s->n_depths = 1; /* the first is 0 */
        status = check_length(s, err);
    }
    return status < 0 ? status : bench_engine(cells, n_cells, *model, s, err);
}

static int run(void *values, int n_arguments, char **arguments)
{
    const bench_values *const v = values;
    if (n_arguments == 0) {
        return cli_fail(QN_E_INVAL, "bench engine: no model, expected a folder or owner/name");
    }
    qn_error err = {0};
    qn_model *model = NULL;
    bench_cell *cells = NULL;
    bench_settings settings;
    size_t n_cells = 0;
    qn_status status = measure(v, arguments[0], &model, &cells, &n_cells, &settings, &err);
    json_t *result = NULL;
    if (status == QN_OK) {
        result = bench_engine_json(cells, n_cells, model, &settings);
        status = result != NULL ? cli_sign(result, &err)
                                : qn_fail(&err, QN_E_NOMEM, 0, __func__, "result: no memory");
    }
    if (status == QN_OK && v->output != NULL) {
        status = bench_output_write(v->output, "result.json", result, &err);
    }
    int exit_status = CLI_DONE;
    if (status < 0) {
        exit_status = cli_report(&err);
    } else if (v->as_json) {
        exit_status = cli_print_json(json_incref(result));
    } else {
        bench_engine_print(stdout, cells, n_cells, model, &settings);
        exit_status = cli_flush(CLI_DONE);
    }
    json_decref(result);
    free(cells);
    qn_model_close(&model);
    return exit_status;
}

const cli_command cmd_bench_engine = {
    .name = "bench engine",
    .summary = "How fast a model computes prompts and answers here, without a server",
    .synopsis = "MODEL [--batch N,...] [--context N,...] [options]",
    .description =
        "Tokens a second of computing prompts and of answering, for every number of "
        "sequences with every length of context and depth of speculation. Each sequence has a "
        "prompt of its own, plain English, or random ids where there is no tokenizer. Prompts and "
        "answers are timed apart: of answering, only steps in which every sequence answers. "
        "Answers do not end before --output-tokens, the first round of each line of the table is "
        "not counted, and what is told is the median of the others and how far apart they were "
        "(spread: largest less smallest, by the median).\n\n"
        "Timings of a machine that does other work say little.",
    .examples = "quern bench engine models/glm-nano --batch 1,8 --context 0,512\n"
                "quern bench engine models/glm-nano --draft-tokens 0,3,auto --json\n"
                "quern bench engine configs/glm-5.2-tp8 --load-format dummy --batch 1,4 "
                "--draft-tokens 5 --acceptance-length 3.6 --output result\n",
    .groups = {{"What is measured", what_options, sizeof what_options / sizeof *what_options, 0},
               {"Output", output_options, sizeof output_options / sizeof *output_options, 0},
               {"Model", cli_model_options, CLI_N_MODEL_OPTIONS, BENCH(model)},
               CLI_COMMON_GROUP},
    .n_groups = 4,
    .n_arguments_max = 1,
    .init = init,
    .run = run,
};
_Static_assert(sizeof(bench_values) <= CLI_VALUES_BYTES_MAX, "main() holds the values");

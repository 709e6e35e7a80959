/* SPDX-License-Identifier: Apache-2.0 */
#include "quern/tools.h"

#include "ask.h"
#include "commands.h"
#include "eval_table.h"
#include "page.h"
#include "progress.h"
#include "report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILES_MAX = 64, WHAT_BYTES = 64 };

typedef struct eval_values {
    cli_common common;
    cli_model model;
    cli_list tasks;
    const char *text, *report, *spool, *draft_tokens;
    const char *against, *against_device, *against_draft_tokens;
    uint64_t limit, context_tokens, text_tokens;
    uint64_t max_tokens, top_k, seed;
    double temperature, top_p, min_p;
    int thinking, effort;                                    /* the words' places */
    int against_compute, against_kv_dtype, against_thinking; /* -1: not given */
    bool resumes, as_json;
} eval_values;

#define EVAL(field) offsetof(eval_values, field)

static const cli_option what_options[] = {
    {"tasks", 0, CLI_LIST, "FILE.jsonl,...", EVAL(tasks), 0, CLI_LIST_MAX,
     "Problems, a JSON object a line: {\"task\", \"messages\", \"answer\", \"tools\"?, \"score\"?, "
     "\"id\"?}; may be given several times"},
    {"limit", 0, CLI_COUNT, "N", EVAL(limit), 1, 10000000,
     "The first N problems of each task (default: all)"},
    {"text", 0, CLI_TEXT, "FILE", EVAL(text), 0, 0,
     "Perplexity of this text, and with --against how far the predictions are apart"},
    {"context-tokens", 0, CLI_COUNT, "N", EVAL(context_tokens), 1, 1 << 24,
     "Cut the text into windows of N tokens (default 512)"},
    {"text-tokens", 0, CLI_COUNT, "N", EVAL(text_tokens), 1, 1 << 30,
     "The first N tokens of the text (default: all)"},
    {"spool", 0, CLI_TEXT, "DIR", EVAL(spool), 0, 0,
     "Where the first model's logits of the text wait for the second, 4 bytes for each token and "
     "each entry of the vocabulary (default /var/tmp)"},
};

static const cli_option against_options[] = {
    {"against", 0, CLI_TEXT, "MODEL2", EVAL(against), 0, 0,
     "Run a second checkpoint on the same problems and say whether it differs"},
    {"against-device", 0, CLI_TEXT, "DEVICE", EVAL(against_device), 0, 0,
     "The second there; without --against it is the same checkpoint"},
    {"against-compute", 0, CLI_CHOICE, "auto|f32|bf16|int8", EVAL(against_compute), 0, 0,
     "The second with this arithmetic"},
    {"against-kv-dtype", 0, CLI_CHOICE, "auto|bf16|f32|fp8", EVAL(against_kv_dtype), 0, 0,
     "The second with this storage of cache rows"},
    {"against-draft-tokens", 0, CLI_TEXT, "N|auto", EVAL(against_draft_tokens), 0, 0,
     "The second with this depth of speculation"},
    {"against-thinking", 0, CLI_CHOICE, "on|off", EVAL(against_thinking), 0, 0,
     "The second with thinking on or off"},
};

static const cli_option answer_options[] = {
    CLI_THINKING(EVAL(thinking)),
    CLI_EFFORT(EVAL(effort)),
    {"max-tokens", 0, CLI_COUNT, "N", EVAL(max_tokens), 1, 1 << 24,
     "Cut an answer after N tokens, thinking included (default 32768)"},
    CLI_TEMPERATURE(EVAL(temperature), " 0"),
    CLI_TOP_P(EVAL(top_p), " 1"),
    CLI_TOP_K(EVAL(top_k), " 0"),
    CLI_MIN_P(EVAL(min_p), " 0"),
    {"seed", 0, CLI_COUNT, "N", EVAL(seed), 0, 9007199254740991.0,
     "With a temperature: the same seed draws the same answers (default 0)"},
    CLI_DRAFT_TOKENS(EVAL(draft_tokens), " 5; 0 where the model lacks the layer"),
};

static const cli_option output_options[] = {
    {"report", 0, CLI_TEXT, "FILE", EVAL(report), 0, 0,
     "Write a JSON line for each answer as it comes; FILE.html: a page of the result at the end"},
    {"resume", 0, CLI_FLAG, NULL, EVAL(resumes), 0, 0,
     "Go on with the report that an interrupted run left"},
    {"json", 0, CLI_FLAG, NULL, EVAL(as_json), 0, 0, "Print one JSON object"},
};

static void init(void *values)
{
    eval_values *const v = values;
    v->top_p = 1.0;
    v->against_compute = v->against_kv_dtype = v->against_thinking = -1;
}

/* ------------------------------------------------------------------------------------- progress */

/* A bar for each phase of each side. */
typedef struct follower {
    cli_progress progress;
    char what[WHAT_BYTES];
    qn_eval_phase phase;
    uint32_t i_side;
    bool is_begun;
    bool is_quiet;
    bool is_strict;
} follower;

static void begin(follower *f, const qn_eval_progress *p)
{
    static const char *const units[] = {
        [QN_EVAL_LOAD] = "GB", [QN_EVAL_PROBLEMS] = "problems", [QN_EVAL_TEXT] = "tokens"};
    if (f->is_begun && f->phase == p->phase && f->i_side == p->i_side) {
        return;
    }
    if (f->is_begun) {
        cli_progress_end(&f->progress);
    }
    if (p->spool_bytes > 0 && p->i_side == 0 && !f->is_quiet) {
        (void)fprintf(stderr, "Logits of the text wait on disk for the second model: %.3f GB\n",
                      (double)p->spool_bytes * 1e-9);
    }
    cli_progress_begin(&f->progress, f->what, units[p->phase], p->phase == QN_EVAL_LOAD ? 1e9 : 1.0,
                       f->is_quiet);
    f->phase = p->phase;
    f->i_side = p->i_side;
    f->is_begun = true;
}

static bool show(void *context, const qn_eval_progress *p)
{
    static const char *const names[] = {"first", "second"};
    follower *const f = context;
    const char *const side = names[p->i_side];
    begin(f, p);
    switch (p->phase) {
    case QN_EVAL_LOAD: (void)snprintf(f->what, sizeof f->what, "%s: weights", side); break;
    case QN_EVAL_TEXT: (void)snprintf(f->what, sizeof f->what, "%s: text", side); break;
    case QN_EVAL_PROBLEMS:
        (void)snprintf(f->what, sizeof f->what, "%s: %llu right", side,
                       (unsigned long long)p->n_right);
        break;
    }
    return cli_progress_show(&f->progress, p->done, p->total);
}

static qn_status check_kernels(void *context, const qn_model *model, qn_error *err)
{
    follower *const f = context;
    if (f->is_begun) {
        cli_progress_end(&f->progress); /* a warning has a line of its own */
    }
    return cli_check_opened(model, f->is_strict, err);
}

/* ------------------------------------------------------------------------------------- settings */

/* The names between the commas of all --tasks; they are parts of @p room, owned by the caller. */
static qn_status split(const char *names[FILES_MAX], size_t *n_names, char **room,
                       const cli_list *list, qn_error *err)
{
    size_t n_bytes = 1;
    for (size_t i = 0; i < list->n_items; i++) {
        n_bytes += strlen(list->items[i]) + 1;
    }
    char *at = *room = malloc(n_bytes);
    if (at == NULL) {
        return qn_fail(err, QN_E_NOMEM, 0, __func__, "--tasks: no memory");
    }
    for (size_t i = 0; i < list->n_items; i++) {
        for (const char *from = list->items[i];; from++) {
            const size_t len = strcspn(from, ",");
            if (len == 0 || *n_names == FILES_MAX) {
                return qn_fail(
                    err, QN_E_INVAL, 0, __func__,
                    "--tasks: \"%.200s\", 1 to %d names of files between commas expected",
                    list->items[i], FILES_MAX);
            }
            memcpy(at, from, len);
            at[len] = '\0';
            names[(*n_names)++] = at;
            at += len + 1;
            from += len;
            if (*from == '\0') {
                break;
            }
        }
    }
    return QN_OK;
}

static bool is_compared(const eval_values *v)
{
    return v->against != NULL || v->against_device != NULL || v->against_draft_tokens != NULL ||
           v->against_compute >= 0 || v->against_kv_dtype >= 0 || v->against_thinking >= 0;
}

static qn_status fill_sides(qn_eval_side sides[2], const eval_values *v, const char *model,
                            qn_error *err)
{
    qn_status status = QN_OK;
    sides[0] = (qn_eval_side){.model = model,
                              .device = v->model.device,
                              .compute = (qn_compute)v->model.compute,
                              .kv_dtype = (qn_kv_dtype)v->model.kv_dtype,
                              .no_thinking = v->thinking == 1};
    if (v->draft_tokens != NULL) {
        status = cli_parse_draft(&sides[0].draft_tokens, "--draft-tokens", v->draft_tokens, err);
    }
    sides[1] = sides[0];
    if (status == QN_OK && v->against_draft_tokens != NULL) {
        status = cli_parse_draft(&sides[1].draft_tokens, "--against-draft-tokens",
                                 v->against_draft_tokens, err);
    }
    if (v->against != NULL) {
        sides[1].model = v->against;
    }
    if (v->against_device != NULL) {
        sides[1].device = v->against_device;
        sides[1].device_option = "--against-device";
    }
    if (v->against_compute >= 0) { /* the words stand in the order of the enumerations */
        sides[1].compute = (qn_compute)v->against_compute;
    }
    if (v->against_kv_dtype >= 0) {
        sides[1].kv_dtype = (qn_kv_dtype)v->against_kv_dtype;
    }
    if (v->against_thinking >= 0) {
        sides[1].no_thinking = v->against_thinking == 1;
    }
    return status;
}

static bool has_page(const eval_values *v)
{
    return v->report != NULL && cli_is_page(v->report);
}

/* --------------------------------------------------------------------------------------- command
 */

/* Before hours of answers: can the page be written? */
static qn_status check_page(const eval_values *v, qn_error *err)
{
    if (!has_page(v)) {
        return QN_OK;
    }
    return v->resumes ? qn_fail(err, QN_E_INVAL, 0, __func__,
                                "--resume: --report %.200s is a page, expected a file of answers",
                                v->report)
                      : cli_check_writable(v->report, err);
}

static qn_status write_page(const eval_values *v, const char *result, qn_error *err)
{
    json_t *const object = json_loads(result, 0, NULL);
    const qn_status status = object != NULL
                                 ? cli_write_page(v->report, object, err)
                                 : qn_fail(err, QN_E_NOMEM, 0, __func__, "--report: no memory");
    json_decref(object);
    return status;
}

static qn_status evaluate(char **result, const eval_values *v, const char *model, qn_error *err)
{
    const char *names[FILES_MAX];
    size_t n_names = 0;
    char *room = NULL;
    qn_eval_side sides[2];
    qn_model_options model_options = {0};
    follower f = {.is_quiet = v->common.is_quiet, .is_strict = v->model.strict};
    const qn_sampling sampling = {.temperature = (float)v->temperature,
                                  .top_p = (float)v->top_p,
                                  .min_p = (float)v->min_p,
                                  .repetition_penalty = 1.0F,
                                  .top_k = (uint32_t)v->top_k,
                                  .seed = v->seed};
    cli_model_fill(&model_options, &v->model);
    qn_status status = split(names, &n_names, &room, &v->tasks, err);
    if (status == QN_OK) {
        status = fill_sides(sides, v, model, err);
    }
    if (status == QN_OK) {
        const qn_eval_options options = {.tasks = names,
                                         .n_tasks = n_names,
                                         .text = v->text,
                                         .report = has_page(v) ? NULL : v->report,
                                         .spool_dir = v->spool,
                                         .model = &model_options,
                                         .sampling = &sampling,
                                         .progress = show,
                                         .progress_context = &f,
                                         .check = check_kernels,
                                         .limit = (uint32_t)v->limit,
                                         .max_tokens = (uint32_t)v->max_tokens,
                                         .window_tokens = (uint32_t)v->context_tokens,
                                         .text_tokens = (uint32_t)v->text_tokens,
                                         .is_effort_high = v->effort == 1,
                                         .resumes = v->resumes};
        status = qn_eval(result, sides, is_compared(v) ? 2 : 1, &options, err);
    }
    if (f.is_begun) {
        cli_progress_end(&f.progress);
    }
    free(room);
    return status;
}

static int run(void *values, int n_arguments, char **arguments)
{
    const eval_values *const v = values;
    char *result = NULL;
    qn_error err = {0};
    if (n_arguments == 0) {
        return cli_fail(QN_E_INVAL, "eval: no model, expected a folder or owner/name");
    }
    if (check_page(v, &err) < 0 || evaluate(&result, v, arguments[0], &err) < 0) {
        return cli_report(&err);
    }
    if (has_page(v) && write_page(v, result, &err) < 0) {
        qn_free(result);
        return cli_report(&err);
    }
    int status = CLI_DONE;
    if (v->as_json && result != NULL) {
        cli_write(result, strlen(result));
        cli_write("\n", 1);
        status = cli_flush(CLI_DONE);
    } else {
        status = cli_eval_print(result);
    }
    qn_free(result);
    return status;
}

const cli_command cmd_eval = {
    .name = "eval",
    .summary = "Measure right answers, perplexity and what a change costs",
    .synopsis = "MODEL --tasks FILE.jsonl,... [--against MODEL2] [--text FILE] [options]",
    .description =
        "Puts problems to a model and counts right answers, each share with its 95 % interval. "
        "With --against, or a setting that begins so, a second model answers the same problems: "
        "the result is the paired difference with its interval, and the exact McNemar test says "
        "how likely so uneven a split would be if both were equally good. The models are loaded "
        "one after the other.\n\n"
        "An answer is judged by the line's \"score\": exact, number (the last one), choice (a "
        "letter), json or tool_call; without it by the name of the task. docs/quality.md tells "
        "how to run GSM8K and GPQA from files of your own, and what a small number of problems "
        "cannot show.\n\n"
        "Ctrl-C ends it with status 130; with --report, --resume then goes on.",
    .examples = "quern eval models/glm-nano --tasks tests/eval/nano_arithmetic.jsonl\n"
                "quern eval models/glm-nano --tasks a.jsonl,b.jsonl --against nano-mxfp4 "
                "--report answers.jsonl\n"
                "quern eval models/glm-nano --tasks a.jsonl --draft-tokens 5 "
                "--against-draft-tokens 0\n"
                "quern eval models/glm-nano --text book.txt --against nano-mxfp4 --json\n",
    .groups =
        {
            {"What is measured", what_options, sizeof what_options / sizeof *what_options, 0},
            {"Second model", against_options, sizeof against_options / sizeof *against_options, 0},
            {"Answers", answer_options, sizeof answer_options / sizeof *answer_options, 0},
            {"Output", output_options, sizeof output_options / sizeof *output_options, 0},
            {"Model", cli_model_options, CLI_N_MODEL_OPTIONS, EVAL(model)},
            CLI_COMMON_GROUP,
        },
    .n_groups = 6,
    .n_arguments_max = 1,
    .init = init,
    .run = run,
};

_Static_assert(sizeof(eval_values) <= CLI_VALUES_BYTES_MAX, "values of a command have their room");

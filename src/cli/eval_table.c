/* SPDX-License-Identifier: Apache-2.0 */
#include "eval_table.h"

#include "base/json.h"
#include "report.h"

#include <stdio.h>
#include <string.h>

/* A chance of one in twenty is what the field calls a finding; fewer problems that only one side
 * got right than this never make one: 2 / 2^5 is more. */
static const double p_max = 0.05;
enum { N_SPLIT_MIN = 6, NAME_COLUMNS_MAX = 20 };
/* A task may be called "all". */
static const char total_name[] = "all tasks";

/* A number of a thing, which has an "s" at its end unless it is one. */
static void print_count(double n, const char *thing)
{
    (void)printf("%.0f %s%s", n, thing, n == 1.0 ? "" : "s");
}

/* "95.5 % (91.7 to 97.6)" */
static void print_share(const json_t *share)
{
    (void)printf("  %5.1f %% (%5.1f to %5.1f)", 100.0 * qn_json_number(share, "accuracy"),
                 100.0 * qn_json_number(share, "low"), 100.0 * qn_json_number(share, "high"));
}

/* "  95.5 %   95.0 %    -0.5 (  -2.1 to   +1.0)   0.625" */
static void print_pair(const json_t *first, const json_t *second, const json_t *pair)
{
    (void)printf("  %5.1f %%  %5.1f %%  %+6.1f (%+6.1f to %+6.1f)  %6.4f",
                 100.0 * qn_json_number(first, "accuracy"),
                 100.0 * qn_json_number(second, "accuracy"),
                 100.0 * qn_json_number(pair, "difference"), 100.0 * qn_json_number(pair, "low"),
                 100.0 * qn_json_number(pair, "high"), qn_json_number(pair, "p"));
}

/* At most 80 columns. */
static void print_row(int columns, const char *name, const json_t *first, const json_t *second,
                      const json_t *pair)
{
    (void)printf("%-*.*s %6.0f", columns, columns, name, qn_json_number(first, "n"));
    if (pair != NULL) {
        print_pair(first, second, pair);
    } else {
        print_share(first);
    }
    (void)printf("\n");
}

static void print_head(int columns, bool is_compared)
{
    (void)printf("%-*s %6s  %s\n", columns, "task", "n",
                 is_compared ? "  first   second  second less first, points      p" : "right");
}

static int name_columns(json_t *tasks)
{
    int columns = (int)strlen(total_name);
    const char *name = NULL;
    json_t *task = NULL;
    json_object_foreach(tasks, name, task)
    {
        const int len = strlen(name) < NAME_COLUMNS_MAX ? (int)strlen(name) : NAME_COLUMNS_MAX;
        columns = len > columns ? len : columns;
    }
    return columns;
}

static void print_tasks(const json_t *result)
{
    const json_t *const against = json_object_get(result, "against");
    const json_t *const paired = json_object_get(result, "paired");
    json_t *const tasks = json_object_get(result, "tasks");
    const int columns = name_columns(tasks);
    const char *name = NULL;
    json_t *task = NULL;
    print_head(columns, paired != NULL);
    json_object_foreach(tasks, name, task)
    {
        print_row(columns, name, task, json_object_get(json_object_get(against, "tasks"), name),
                  json_object_get(json_object_get(paired, "tasks"), name));
    }
    if (json_object_size(tasks) > 1) {
        print_row(columns, total_name, json_object_get(result, "all"),
                  json_object_get(against, "all"), paired);
    }
}

/* What the pairs of all tasks say, and what they do not. */
static void print_finding(const json_t *paired)
{
    const double n_split =
        qn_json_number(paired, "only_first") + qn_json_number(paired, "only_second");
    const double p = qn_json_number(paired, "p");
    const double low = 100.0 * qn_json_number(paired, "low");
    const double high = 100.0 * qn_json_number(paired, "high");
    const bool is_uneven = p < p_max;
    const bool is_apart = low > 0.0 || high < 0.0;
    (void)printf("\n%.0f of %.0f answers are the same, token for token. Only the first was right "
                 "%.0f times, only the second %.0f times.\n",
                 qn_json_number(paired, "same_answers"), qn_json_number(paired, "n"),
                 qn_json_number(paired, "only_first"), qn_json_number(paired, "only_second"));
    if (is_uneven && is_apart) {
        (void)printf("The second is %s: a split so uneven has p = %.2g if both are equally good.\n",
                     qn_json_number(paired, "difference") < 0.0 ? "worse" : "better", p);
    } else if (is_uneven || is_apart) { /* computed in two ways, they need not agree */
        (void)printf("Borderline: a split so uneven has p = %.2g if both are equally good, and the "
                     "interval, %+.2g to %+.2g points, %s 0.\n",
                     p, low, high, is_apart ? "leaves out" : "holds");
    } else if (qn_json_number(paired, "same_answers") < qn_json_number(paired, "n")) {
        (void)printf("No difference is shown, which does not show that there is none: it may be "
                     "anything from %+.1f to %+.1f points.\n",
                     low, high);
    }
    if (n_split > 0.0 && n_split < N_SPLIT_MIN) {
        (void)printf("With fewer than %d problems that only one got right p is never below %.2g; "
                     "more problems might tell.\n",
                     N_SPLIT_MIN, p_max);
    }
}

/* "first: MODEL (unquantized, device cpu, compute bf16, cache bf16, thinking on); 12345
 * tokens, 4.20 a step, 12 s" */
static void print_side(const char *label, const json_t *side)
{
    const json_t *const usage = json_object_get(side, "usage");
    const json_t *const all = json_object_get(side, "all");
    const char *const quantization = qn_json_text(side, "quantization");
    (void)printf("%s: %s (%s, device %s, compute %s, cache %s, thinking %s%s)", label,
                 qn_json_text(side, "model"),
                 strcmp(quantization, "none") == 0 ? "unquantized" : quantization,
                 qn_json_text(side, "device"), qn_json_text(side, "compute"),
                 qn_json_text(side, "kv_dtype"), qn_json_text(side, "thinking"),
                 strcmp(qn_json_text(side, "weights"), "dummy") == 0 ? ", dummy weights" : "");
    if (usage != NULL) {
        (void)printf(": ");
        print_count(qn_json_number(usage, "completion_tokens"), "token");
        (void)printf(", %.2f a step, %.1f s",
                     qn_json_number(json_object_get(side, "speculation"), "acceptance_length"),
                     qn_json_number(json_object_get(side, "timing"), "answers_s"));
    }
    if (qn_json_number(all, "cut") > 0.0) {
        (void)printf("; cut by --max-tokens or the context: %.0f", qn_json_number(all, "cut"));
    }
    (void)printf("\n");
}

/* "text: perplexity 17.5500 (16.1000 to 19.2000), loss 2.8651, of 600 tokens in 3 windows" */
static void print_perplexity(const char *label, const json_t *side)
{
    const json_t *const t = json_object_get(side, "text");
    if (json_is_number(json_object_get(t, "perplexity"))) {
        (void)printf("%s: perplexity %.4f", label, qn_json_number(t, "perplexity"));
    } else {
        (void)printf("%s: perplexity - (no number is so large)", label);
    }
    if (json_is_number(json_object_get(t, "low")) && json_is_number(json_object_get(t, "high"))) {
        (void)printf(" (%.4f to %.4f)", qn_json_number(t, "low"), qn_json_number(t, "high"));
    }
    (void)printf(", loss %.4f, of ", qn_json_number(t, "loss"));
    print_count(qn_json_number(t, "tokens"), "token");
    (void)printf(" in ");
    print_count(qn_json_number(t, "windows"), "window");
    (void)printf("\n");
}

static void print_divergence(const json_t *d)
{
    (void)printf("KL divergence a token: mean %.3g", qn_json_number(d, "mean"));
    if (json_is_number(json_object_get(d, "low"))) {
        (void)printf(" (%.3g to %.3g)", qn_json_number(d, "low"), qn_json_number(d, "high"));
    }
    (void)printf(", median %.3g, 99 %% %.3g, largest %.3g; the same likeliest token: %.2f %% "
                 "(%.2f to %.2f)\n",
                 qn_json_number(d, "p50"), qn_json_number(d, "p99"), qn_json_number(d, "max"),
                 100.0 * qn_json_number(d, "same_top"), 100.0 * qn_json_number(d, "same_top_low"),
                 100.0 * qn_json_number(d, "same_top_high"));
}

int cli_eval_print(const char *result)
{
    json_t *const object = json_loads(result, 0, NULL);
    const json_t *const against = json_object_get(object, "against");
    const json_t *const paired = json_object_get(object, "paired");
    if (object == NULL) {
        return cli_fail(QN_E_NOMEM, "result: no memory to print it");
    }
    print_side(against != NULL ? "first" : "model", object);
    if (against != NULL) {
        print_side("second", against);
    }
    if (json_object_get(object, "all") != NULL) {
        (void)printf("\n");
        print_tasks(object);
    }
    if (paired != NULL) {
        print_finding(paired);
    }
    if (json_object_get(object, "text") != NULL) {
        (void)printf("\n");
        print_perplexity(against != NULL ? "first" : "text", object);
    }
    if (json_object_get(object, "divergence") != NULL) {
        print_perplexity("second", against);
        print_divergence(json_object_get(object, "divergence"));
    }
    json_decref(object);
    return cli_flush(CLI_DONE);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "eval/result.h"

#include "base/json_doc.h"
#include "base/try.h"
#include "eval/stats.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

enum { RESULT_BYTES_MAX = 1 << 26, N_DIGITS = 10, N_FLOAT_DIGITS = 9 };

/* A number and its key. */
typedef struct real {
    const char *key;
    double value;
} real;

static const char *const compute_names[] = {"auto", "f32", "bf16", "int8"};
static const char *const kv_names[] = {"auto", "bf16", "f32", "fp8"};

/* --------------------------------------------------------------------------------------- pieces */

/* "KEY": "TEXT", with @p lead before. */
static qn_status append_text(qn_buf *out, const char *lead, const char *key, const char *text,
                             qn_error *err)
{
    const qn_status status = qn_buf_append_printf(out, err, "%s\"%s\": ", lead, key);
    return status == QN_OK ? qn_json_quote_append(out, qn_str_of(text), err) : status;
}

/* , "KEY": VALUE of each; null where it is not finite. */
static qn_status append_reals(qn_buf *out, const real *reals, size_t n, int n_digits, qn_error *err)
{
    qn_status status = QN_OK;
    for (size_t i = 0; i < n; i++) {
        QN_TRY(status, qn_buf_append_printf(out, err, ", \"%s\": ", reals[i].key), fail);
        QN_TRY(status, qn_buf_append_real(out, reals[i].value, n_digits, err), fail);
    }
fail:
    return status;
}

#define REALS(out, n_digits, reals, err)                                                           \
    append_reals(out, reals, sizeof(reals) / sizeof *(reals), n_digits, err)

/* A name of an enumeration; a number that is none of it, which the model's opening refuses. */
static const char *name_of(const char *const *names, size_t n, int value)
{
    return value >= 0 && (size_t)value < n ? names[value] : "unknown";
}

/* --------------------------------------------------------------------------------------- header */

/* A side's settings; @p prefix begins each key. */
static qn_status append_header_side(qn_buf *out, const qn_eval_side *side, const char *prefix,
                                    const char *fingerprint, qn_error *err)
{
    qn_status status = QN_OK;
    const char *const compute = name_of(compute_names, 4, (int)side->compute);
    const char *const kv_dtype = name_of(kv_names, 4, (int)side->kv_dtype);
    QN_TRY(status, qn_buf_append_printf(out, err, ", \"%smodel\": ", prefix), fail);
    QN_TRY(status, qn_json_quote_append(out, qn_str_of(side->model), err), fail);
    QN_TRY(status, qn_buf_append_printf(out, err, ", \"%sdevice\": ", prefix), fail);
    QN_TRY(status,
           qn_json_quote_append(out, qn_str_of(side->device != NULL ? side->device : "auto"), err),
           fail);
    QN_TRY(status,
           qn_buf_append_printf(out, err,
                                ", \"%sfingerprint\": \"%s\", \"%scompute\": \"%s\", "
                                "\"%skv_dtype\": \"%s\", \"%sthinking\": \"%s\", "
                                "\"%sdraft_tokens\": ",
                                prefix, fingerprint, prefix, compute, prefix, kv_dtype, prefix,
                                side->no_thinking ? "off" : "on", prefix),
           fail);
    const int draft_tokens = side->draft_tokens == QN_DRAFT_NONE      ? 0
                             : side->draft_tokens == QN_DRAFT_DEFAULT ? QN_DRAFT_TOKENS_DEFAULT
                                                                      : side->draft_tokens;
    QN_TRY(status, qn_draft_append(out, draft_tokens, err), fail);
fail:
    return status;
}

/* Files by their contents: they may have moved. */
static qn_status append_header_files(qn_buf *out, const qn_task_set *set, qn_error *err)
{
    qn_status status = QN_OK;
    for (uint32_t i = 0; i < set->n_files && status == QN_OK; i++) {
        status = qn_buf_append_printf(out, err, ", \"tasks_%u_sha256\": \"%s\"", i,
                                      set->files[i].sha256);
    }
    return status;
}

/* How answers are drawn. */
static qn_status append_header_sampling(qn_buf *out, const qn_sampling *s, qn_error *err)
{
    qn_status status = QN_OK;
    const real reals[] = {
        {"temperature", (double)s->temperature},
        {"top_p", (double)s->top_p},
        {"min_p", (double)s->min_p},
        {"repetition_penalty", (double)s->repetition_penalty},
        {"presence_penalty", (double)s->presence_penalty},
        {"frequency_penalty", (double)s->frequency_penalty},
    };
    QN_TRY(status, REALS(out, N_FLOAT_DIGITS, reals, err), fail);
    QN_TRY(status,
           qn_buf_append_printf(out, err,
                                ", \"top_k\": %u, \"seed\": %" PRIu64 ", \"logit_bias\": [",
                                s->top_k, s->seed),
           fail);
    const uint32_t n = s->logit_bias != NULL ? s->n_logit_bias : 0; /* which a request refuses */
    for (uint32_t i = 0; i < n && i < QN_LOGIT_BIAS_MAX; i++) {
        QN_TRY(status,
               qn_buf_append_printf(out, err, "%s[%" PRId32 ", ", i > 0 ? ", " : "",
                                    s->logit_bias[i].token),
               fail);
        QN_TRY(status, qn_buf_append_real(out, (double)s->logit_bias[i].bias, N_FLOAT_DIGITS, err),
               fail);
        QN_TRY(status, qn_buf_append(out, "]", 1, err), fail);
    }
    QN_TRY(status, qn_buf_append(out, "]", 1, err), fail);
fail:
    return status;
}

qn_status qn_header_append(qn_buf *out, const qn_header_args *args, qn_error *err)
{
    static const char *const prefixes[QN_SIDES_MAX] = {"", "against_"};
    const qn_eval_options *const o = args->options;
    const qn_model_options *const m = o->model;
    const char *const chat = m != NULL && m->chat_format != NULL ? m->chat_format : "auto";
    const char *const tokenizer = m != NULL && m->tokenizer_dir != NULL ? m->tokenizer_dir : "";
    qn_status status = QN_OK;
    QN_TRY(status,
           append_text(out, "{\"quern_eval\": 1, ", "version", qn_build_get()->version, err), fail);
    for (uint32_t i = 0; i < args->n_sides && i < QN_SIDES_MAX; i++) {
        QN_TRY(status,
               append_header_side(out, &args->sides[i], prefixes[i], args->fingerprints[i], err),
               fail);
    }
    QN_TRY(status, append_text(out, ", ", "kernels", args->kernels, err), fail);
    QN_TRY(status, append_text(out, ", ", "chat_format", chat, err), fail);
    QN_TRY(status, append_text(out, ", ", "tokenizer", tokenizer, err), fail);
    QN_TRY(status,
           qn_buf_append_printf(
               out, err,
               ", \"load_format\": \"%s\", \"reasoning_effort\": \"%s\", \"max_tokens\": %u, "
               "\"limit\": %u",
               m != NULL && m->use_dummy_weights ? "dummy" : "auto",
               o->is_effort_high ? "high" : "max", args->asking->max_tokens, o->limit),
           fail);
    QN_TRY(status, append_header_sampling(out, &args->asking->sampling, err), fail);
    QN_TRY(status, append_header_files(out, args->set, err), fail);
    QN_TRY(status, qn_buf_append(out, "}", 1, err), fail);
fail:
    return status;
}

/* --------------------------------------------------------------------------------------- counts */

/* Is problem @p i of task @p i_task, or is every task meant (UINT32_MAX)? */
static bool is_of(const qn_task_set *set, uint32_t i, uint32_t i_task)
{
    return i_task == UINT32_MAX || set->problems[i].i_task == i_task;
}

/* {"n", "right", "accuracy", "low", "high"} */
static qn_status append_accuracy(qn_buf *out, const qn_answers *a, uint32_t i_side, uint32_t i_task,
                                 qn_error *err)
{
    qn_status status = QN_OK;
    uint64_t n = 0;
    uint64_t n_right = 0;
    uint64_t n_cut = 0;
    for (uint32_t i = 0; i < a->set->n_problems; i++) {
        const qn_outcome *const o = &a->outcomes[i_side][i];
        n += is_of(a->set, i, i_task) ? 1 : 0;
        n_right += is_of(a->set, i, i_task) && o->is_right ? 1 : 0;
        n_cut += is_of(a->set, i, i_task) && o->is_cut ? 1 : 0;
    }
    const qn_interval interval = qn_wilson(n_right, n);
    const real reals[] = {
        {"accuracy", (double)n_right / (double)n}, {"low", interval.low}, {"high", interval.high}};
    QN_TRY(status,
           qn_buf_append_printf(out, err, "{\"n\": %" PRIu64 ", \"right\": %" PRIu64, n, n_right),
           fail);
    QN_TRY(status, REALS(out, N_DIGITS, reals, err), fail);
    QN_TRY(status, qn_buf_append_printf(out, err, ", \"cut\": %" PRIu64 "}", n_cut), fail);
fail:
    return status;
}

/* {"n", "both", ..., "p"}; what follows is appended by the caller, and so is the brace. */
static qn_status append_pairs(qn_buf *out, const qn_answers *a, uint32_t i_task, qn_error *err)
{
    qn_status status = QN_OK;
    qn_pairs pairs = {0};
    uint64_t n_same = 0;
    for (uint32_t i = 0; i < a->set->n_problems; i++) {
        const qn_outcome *const first = &a->outcomes[0][i];
        const qn_outcome *const second = &a->outcomes[1][i];
        if (!is_of(a->set, i, i_task)) {
            continue;
        }
        *(first->is_right    ? second->is_right ? &pairs.n_both : &pairs.n_first
          : second->is_right ? &pairs.n_second
                             : &pairs.n_neither) += 1;
        n_same += first->ids_hash == second->ids_hash && first->n_tokens == second->n_tokens;
    }
    const uint64_t n = pairs.n_both + pairs.n_first + pairs.n_second + pairs.n_neither;
    const qn_interval interval = qn_paired_interval(&pairs);
    const real reals[] = {
        {"difference", ((double)pairs.n_second - (double)pairs.n_first) / (double)n},
        {"low", interval.low},
        {"high", interval.high},
        {"p", qn_mcnemar(pairs.n_first, pairs.n_second)},
    };
    QN_TRY(status,
           qn_buf_append_printf(out, err,
                                "{\"n\": %" PRIu64 ", \"both\": %" PRIu64
                                ", \"only_first\": %" PRIu64 ", \"only_second\": %" PRIu64
                                ", \"neither\": %" PRIu64 ", \"same_answers\": %" PRIu64,
                                n, pairs.n_both, pairs.n_first, pairs.n_second, pairs.n_neither,
                                n_same),
           fail);
    QN_TRY(status, REALS(out, N_DIGITS, reals, err), fail);
fail:
    return status;
}

/* NAME: what is known of task @p i of a side, or of the pairs where that is beyond the sides. */
static qn_status append_task(qn_buf *out, const qn_answers *a, uint32_t i_side, uint32_t i,
                             qn_error *err)
{
    qn_status status = QN_OK;
    QN_TRY(status, qn_json_quote_append(out, qn_str_of(a->set->tasks[i].name), err), fail);
    QN_TRY(status, qn_buf_append(out, ": ", 2, err), fail);
    if (i_side < a->n_sides) {
        return append_accuracy(out, a, i_side, i, err);
    }
    QN_TRY(status, append_pairs(out, a, i, err), fail);
    QN_TRY(status, qn_buf_append(out, "}", 1, err), fail);
fail:
    return status;
}

/* "tasks": {NAME: ..., ...} */
static qn_status append_tasks(qn_buf *out, const qn_answers *a, uint32_t i_side, qn_error *err)
{
    qn_status status = QN_OK;
    QN_TRY(status, qn_buf_append_printf(out, err, "\"tasks\": {"), fail);
    for (uint32_t i = 0; i < a->set->n_tasks; i++) {
        QN_TRY(status, qn_buf_append(out, ", ", i > 0 ? 2 : 0, err), fail);
        QN_TRY(status, append_task(out, a, i_side, i, err), fail);
    }
    QN_TRY(status, qn_buf_append(out, "}", 1, err), fail);
fail:
    return status;
}

/* What all answers of a side took. */
static qn_status append_usage(qn_buf *out, const qn_answers *a, uint32_t i_side, qn_error *err)
{
    qn_status status = QN_OK;
    qn_outcome sum = {0};
    for (uint32_t i = 0; i < a->set->n_problems; i++) {
        const qn_outcome *const o = &a->outcomes[i_side][i];
        sum.n_prompt_tokens += o->n_prompt_tokens;
        sum.n_tokens += o->n_tokens;
        sum.n_reasoning_tokens += o->n_reasoning_tokens;
        sum.n_steps += o->n_steps;
        sum.n_step_tokens += o->n_step_tokens;
        sum.seconds += o->seconds;
    }
    QN_TRY(status,
           qn_buf_append_printf(
               out, err,
               ", \"usage\": {\"prompt_tokens\": %" PRIu64 ", \"completion_tokens\": %" PRIu64
               ", \"reasoning_tokens\": %" PRIu64 "}, \"speculation\": {\"steps\": %" PRIu64
               ", \"acceptance_length\": ",
               sum.n_prompt_tokens, sum.n_tokens, sum.n_reasoning_tokens, sum.n_steps),
           fail);
    QN_TRY(status,
           qn_buf_append_real(
               out, sum.n_steps > 0 ? (double)sum.n_step_tokens / (double)sum.n_steps : 0.0,
               N_DIGITS, err),
           fail);
    QN_TRY(status, qn_buf_append_printf(out, err, "}, \"timing\": {\"answers_s\": "), fail);
    QN_TRY(status, qn_buf_append_real(out, sum.seconds, N_DIGITS, err), fail);
    QN_TRY(status, qn_buf_append(out, "}", 1, err), fail);
fail:
    return status;
}

/* ----------------------------------------------------------------------------------------- text */

static qn_status append_perplexity(qn_buf *out, const qn_text *text, uint32_t i_side, qn_error *err)
{
    qn_status status = QN_OK;
    qn_interval interval; /* NaN of one window, which says nothing of it */
    const double mean = qn_window_mean(&interval, text->windows[i_side], text->n_windows);
    const real reals[] = {
        {"loss", mean},
        {"perplexity", exp(mean)}, /* beyond a loss of 709 there is no number for it */
        {"low", exp(interval.low)},
        {"high", exp(interval.high)},
        {"time_s", text->seconds[i_side]},
    };
    QN_TRY(status,
           qn_buf_append_printf(
               out, err, ", \"text\": {\"tokens\": %zu, \"windows\": %zu, \"window_tokens\": %u",
               text->n_tokens, text->n_windows, text->window_tokens),
           fail);
    QN_TRY(status, REALS(out, N_DIGITS, reals, err), fail);
    QN_TRY(status, qn_buf_append(out, "}", 1, err), fail);
fail:
    return status;
}

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

static qn_status append_divergence(qn_buf *out, qn_text *text, qn_error *err)
{
    qn_divergence *const d = &text->divergence;
    const size_t n = text->n_tokens;
    qn_status status = QN_OK;
    qn_interval interval;
    const double mean = qn_window_mean(&interval, d->windows, text->n_windows);
    const qn_interval same = qn_wilson(d->n_same_top, n);
    qsort(d->kl, n, sizeof *d->kl, compare_doubles);
    const real reals[] = {
        {"mean", mean},
        {"low", interval.low},
        {"high", interval.high},
        {"p50", qn_quantile(d->kl, n, 0.5)},
        {"p99", qn_quantile(d->kl, n, 0.99)},
        {"max", d->kl[n - 1]},
        {"same_top", (double)d->n_same_top / (double)n},
        {"same_top_low", same.low},
        {"same_top_high", same.high},
    };
    QN_TRY(status, qn_buf_append_printf(out, err, ", \"divergence\": {\"tokens\": %zu", n), fail);
    QN_TRY(status, REALS(out, N_DIGITS, reals, err), fail);
    QN_TRY(status, qn_buf_append(out, "}", 1, err), fail);
fail:
    return status;
}

/* --------------------------------------------------------------------------------------- result */

/* The members of a side, without braces. */
static qn_status append_side(qn_buf *out, const qn_result_args *args, uint32_t i_side,
                             qn_error *err)
{
    const qn_eval_side *const side = &args->sides[i_side];
    const qn_answers *const a = args->answers;
    const qn_side_info *const info = &a->infos[i_side];
    qn_status status = QN_OK;
    QN_TRY(status, append_text(out, "", "model", side->model, err), fail);
    QN_TRY(status, append_text(out, ", ", "quantization", info->quantization, err), fail);
    QN_TRY(status, append_text(out, ", ", "weights", info->weights, err), fail);
    QN_TRY(status, append_text(out, ", ", "device", info->device, err), fail);
    QN_TRY(status, append_text(out, ", ", "compute", info->compute, err), fail);
    QN_TRY(status, append_text(out, ", ", "kv_dtype", info->kv_dtype, err), fail);
    QN_TRY(status, append_text(out, ", ", "thinking", side->no_thinking ? "off" : "on", err), fail);
    QN_TRY(status, qn_buf_append_printf(out, err, ", \"draft_tokens\": "), fail);
    QN_TRY(status, qn_draft_append(out, info->draft_tokens, err), fail);
    QN_TRY(status, qn_buf_append(out, ", ", 2, err), fail);
    QN_TRY(status, append_tasks(out, a, i_side, err), fail);
    if (a->set->n_problems > 0) {
        QN_TRY(status, qn_buf_append_printf(out, err, ", \"all\": "), fail);
        QN_TRY(status, append_accuracy(out, a, i_side, UINT32_MAX, err), fail);
        QN_TRY(status, append_usage(out, a, i_side, err), fail);
    }
    if (args->text->n_tokens > 0) {
        QN_TRY(status, append_perplexity(out, args->text, i_side, err), fail);
    }
fail:
    return status;
}

/* , "against": {...}, "paired": {...}, "divergence": {...} */
static qn_status append_comparison(qn_buf *out, const qn_result_args *args, qn_error *err)
{
    const qn_answers *const a = args->answers;
    qn_status status = QN_OK;
    QN_TRY(status, qn_buf_append_printf(out, err, ", \"against\": {"), fail);
    QN_TRY(status, append_side(out, args, 1, err), fail);
    QN_TRY(status, qn_buf_append(out, "}", 1, err), fail);
    if (a->set->n_problems > 0) {
        QN_TRY(status, qn_buf_append_printf(out, err, ", \"paired\": "), fail);
        QN_TRY(status, append_pairs(out, a, UINT32_MAX, err), fail);
        QN_TRY(status, qn_buf_append(out, ", ", 2, err), fail);
        QN_TRY(status, append_tasks(out, a, a->n_sides, err), fail);
        QN_TRY(status, qn_buf_append(out, "}", 1, err), fail);
    }
    if (args->text->n_tokens > 0) {
        QN_TRY(status, append_divergence(out, args->text, err), fail);
    }
fail:
    return status;
}

qn_status qn_result_make(char **out, const qn_result_args *args, qn_error *err)
{
    const qn_sampling *const s = &args->asking->sampling;
    qn_status status = QN_OK;
    qn_buf text;
    qn_buf_init(&text, RESULT_BYTES_MAX);
    QN_TRY(status, qn_buf_append_printf(&text, err, "{\"format\": \"quern-eval/1\", "), fail);
    QN_TRY(status, append_side(&text, args, 0, err), fail);
    const real reals[] = {{"temperature", (double)s->temperature}};
    QN_TRY(status, REALS(&text, N_FLOAT_DIGITS, reals, err), fail);
    QN_TRY(status,
           qn_buf_append_printf(&text, err, ", \"seed\": %" PRIu64 ", \"max_tokens\": %u", s->seed,
                                args->asking->max_tokens),
           fail);
    if (args->answers->n_sides > 1) {
        QN_TRY(status, append_comparison(&text, args, err), fail);
    }
    QN_TRY(status, qn_buf_append(&text, "}", 1, err), fail);
    *out = text.ptr;
    return QN_OK;

fail:
    qn_buf_deinit(&text);
    return status;
}

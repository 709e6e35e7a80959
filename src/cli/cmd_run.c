/* SPDX-License-Identifier: Apache-2.0 */
#include "commands.h"
#include "progress.h"
#include "report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

typedef struct run_values {
    cli_common common;
    cli_model model;
    const char *prompt, *file, *ids, *system, *messages, *logits, *trace;
    double temperature, top_p, min_p;                         /* NaN: the model's default */
    uint64_t top_k, max_tokens, seed, context, prompt_tokens; /* UINT64_MAX: not given */
    int thinking, effort;
    bool is_raw, ignore_eos, as_json;
} run_values;

#define RUN(field) offsetof(run_values, field)

static const cli_option prompt_options[] = {
    {"prompt", 'p', CLI_TEXT, "TEXT", RUN(prompt), 0, 0, "The prompt: a user message"},
    {"file", 'f', CLI_TEXT, "FILE", RUN(file), 0, 0, "Read the prompt from a file (- for stdin)"},
    {"ids", 0, CLI_TEXT, "LIST", RUN(ids), 0, 0, "The prompt as token ids, separated by commas"},
    {"prompt-tokens", 0, CLI_COUNT, "N", RUN(prompt_tokens), 1, 1 << 24,
     "A prompt of N pseudo-random ids (for dummy weights)"},
    {"raw", 0, CLI_FLAG, NULL, RUN(is_raw), 0, 0,
     "The text is the prompt itself, control tokens included, not a user message"},
    {"messages", 0, CLI_TEXT, "FILE.json", RUN(messages), 0, 0,
     "A conversation as a JSON array of messages in OpenAI form"},
    {"system", 0, CLI_TEXT, "TEXT", RUN(system), 0, 0, "A system message before the prompt"},
    {"thinking", 0, CLI_CHOICE, "on|off", RUN(thinking), 0, 0,
     "Let the model think before it answers (default on)"},
    {"reasoning-effort", 0, CLI_CHOICE, "max|high", RUN(effort), 0, 0,
     "How long it is to think (default max)"},
};

static const cli_option output_options[] = {
    {"max-tokens", 0, CLI_COUNT, "N", RUN(max_tokens), 0, 1 << 24,
     "Stop after N tokens; 0: only compute the prompt (default: until the model stops)"},
    {"ignore-eos", 0, CLI_FLAG, NULL, RUN(ignore_eos), 0, 0, "Go on after a stop token"},
    {"temperature", 0, CLI_NUMBER, "X", RUN(temperature), 0, 100,
     "Randomness; 0 takes the most likely token (default: the model's)"},
    {"top-p", 0, CLI_NUMBER, "X", RUN(top_p), 0.0001, 1,
     "Draw from the most likely tokens that hold this share (default: the model's)"},
    {"top-k", 0, CLI_COUNT, "N", RUN(top_k), 0, 1 << 24,
     "Draw from the N most likely tokens; 0: all (default: the model's)"},
    {"min-p", 0, CLI_NUMBER, "X", RUN(min_p), 0, 1,
     "Draw from tokens at least X times as likely as the first (default: the model's)"},
    {"seed", 0, CLI_COUNT, "N", RUN(seed), 0, 9007199254740991.0,
     "The same seed draws the same answer (default: a random one)"},
    {"context", 0, CLI_COUNT, "N", RUN(context), 1, 1 << 24,
     "Positions to keep room for (default: the model's maximum)"},
    {"logits", 0, CLI_TEXT, "FILE", RUN(logits), 0, 0,
     "Write logits and ids of every position computed (safetensors)"},
    {"trace", 0, CLI_TEXT, "FILE", RUN(trace), 0, 0,
     "Write hidden states, router choices and index sets of the prompt (safetensors)"},
    {"json", 0, CLI_FLAG, NULL, RUN(as_json), 0, 0, "Print one JSON object"},
};

static void init(void *values)
{
    run_values *v = values;
    v->temperature = v->top_p = v->min_p = (double)NAN;
    v->top_k = v->max_tokens = v->seed = UINT64_MAX;
}

/* One run: what it holds, and what it has printed. */
typedef struct answer {
    const run_values *v;
    qn_model *model;
    qn_session *session;
    qn_output *output;
    int32_t *prompt;
    size_t n_prompt;
    int32_t *ids;
    size_t n_ids, capacity;
    json_t *parts[2]; /* pieces by qn_output_part, for --json; owned */
    qn_sampling sampling;
    bool is_tty, is_colored, is_dimmed;
    bool has_printed[2];
    bool has_lost_text;                            /* no memory for a piece */
    double started_s, first_token_s, last_token_s; /* the last two count from the first */
    const char *finish_reason;
} answer;

/* ------------------------------------------------------------------------------------- prompt --
 */

/* The text of -p, -f or standard input; owned by the caller. */
static qn_status read_prompt(char **text, size_t *len, const run_values *v, qn_error *err)
{
    if (v->prompt != NULL) {
        *len = strlen(v->prompt);
        *text = strdup(v->prompt);
        return *text != NULL ? QN_OK : qn_fail(err, QN_E_NOMEM, 0, __func__, "prompt: no memory");
    }
    if (v->file == NULL && isatty(STDIN_FILENO) && !v->common.is_quiet) {
        (void)fprintf(stderr, "Type the prompt, then Ctrl-D.\n");
    }
    const qn_status status = cli_read_text(text, len, v->file, err);
    /* A line break at the end belongs to the terminal or editor, not to the question. */
    if (status == QN_OK && !v->is_raw && *len > 0 && (*text)[*len - 1] == '\n') {
        *len -= *len > 1 && (*text)[*len - 2] == '\r' ? 2 : 1;
        (*text)[*len] = '\0';
    }
    return status;
}

static qn_status encode_chat(answer *a, const char *json, size_t len, qn_error *err)
{
    const qn_chat_options options = {.no_thinking = a->v->thinking == 1,
                                     .is_effort_high = a->v->effort == 1};
    return qn_chat_encode(&a->prompt, &a->n_prompt, a->model, &options, json, len, err);
}

static qn_status encode_message(answer *a, const char *text, size_t len, qn_error *err)
{
    char *json = NULL;
    qn_status status = cli_user_message(&json, a->v->system, text, len, err);
    if (status == QN_OK) {
        status = encode_chat(a, json, strlen(json), err);
    }
    free(json);
    return status;
}

static qn_status random_prompt(answer *a, qn_error *err)
{
    const uint32_t n_vocab = qn_model_get_info(a->model)->n_vocab;
    a->n_prompt = (size_t)a->v->prompt_tokens;
    a->prompt = malloc(a->n_prompt * sizeof *a->prompt);
    if (a->prompt == NULL) {
        return qn_fail(err, QN_E_NOMEM, 0, __func__, "--prompt-tokens: no memory");
    }
    uint64_t state = 1; /* Knuth's MMIX generator; the ids only have to vary */
    for (size_t i = 0; i < a->n_prompt; i++) {
        state = state * 6364136223846793005ULL + 1442695040888963407ULL;
        a->prompt[i] = (int32_t)((state >> 33) % n_vocab);
    }
    return QN_OK;
}

static qn_status make_prompt(answer *a, qn_error *err)
{
    const run_values *v = a->v;
    char *text = NULL;
    size_t len = 0;
    if (v->ids != NULL) {
        return cli_parse_ids(&a->prompt, &a->n_prompt, v->ids, err);
    }
    if (v->prompt_tokens > 0) {
        return random_prompt(a, err);
    }
    qn_status status = v->messages != NULL ? cli_read_text(&text, &len, v->messages, err)
                                           : read_prompt(&text, &len, v, err);
    if (status == QN_OK && v->messages != NULL) {
        qn_error why = {0};
        status = encode_chat(a, text, len, &why);
        if (status < 0) {
            (void)qn_fail(err, status, why.sys, why.where, "%s: %s", v->messages, why.text);
        }
    } else if (status == QN_OK && v->is_raw) {
        status = qn_encode(&a->prompt, &a->n_prompt, a->model, text, len, QN_CONTROL_MATCH, err);
    } else if (status == QN_OK) {
        status = encode_message(a, text, len, err);
    }
    free(text);
    return status;
}

/* Ways to give a prompt that contradict each other. */
static int check_usage(const run_values *v)
{
    const int n_prompts = (v->prompt != NULL) + (v->file != NULL) + (v->ids != NULL) +
                          (v->messages != NULL) + (v->prompt_tokens > 0);
    if (n_prompts > 1) {
        return cli_fail(QN_E_INVAL,
                        "prompt: given %d times, expected one of --prompt, --file, "
                        "--ids, --messages, --prompt-tokens",
                        n_prompts);
    }
    if (v->system != NULL && (v->is_raw || v->ids != NULL || v->messages != NULL)) {
        return cli_fail(QN_E_INVAL, "--system: given with %s, expected a prompt of plain text",
                        v->is_raw        ? "--raw"
                        : v->ids != NULL ? "--ids"
                                         : "--messages");
    }
    if (v->is_raw && (v->ids != NULL || v->messages != NULL)) {
        return cli_fail(QN_E_INVAL, "--raw: given with %s, expected a prompt of plain text",
                        v->ids != NULL ? "--ids" : "--messages");
    }
    return CLI_DONE;
}

/* ------------------------------------------------------------------------------------- output --
 */

static void set_dim(answer *a, bool is_dim)
{
    if (a->is_colored && a->is_dimmed != is_dim) {
        (void)fputs(is_dim ? "\033[2m" : "\033[0m", stdout);
    }
    a->is_dimmed = is_dim;
}

/* The answer goes to stdout; the reasoning too on a terminal, dimmed, and else to stderr. */
static void print_piece(void *context, qn_output_part part, const char *text, size_t len)
{
    answer *a = context;
    if (a->v->as_json) {
        a->has_lost_text |= json_array_append_new(a->parts[part], json_stringn(text, len)) != 0;
        return;
    }
    const bool is_reasoning = part == QN_OUTPUT_REASONING;
    if (is_reasoning && !a->is_tty) {
        if (!a->v->common.is_quiet) {
            (void)!fwrite(text, 1, len, stderr);
        }
    } else {
        if (!is_reasoning && a->has_printed[QN_OUTPUT_REASONING] &&
            !a->has_printed[QN_OUTPUT_TEXT] && a->is_tty) {
            set_dim(a, false);
            cli_write("\n\n", 2);
        }
        set_dim(a, is_reasoning);
        cli_write(text, len);
        (void)fflush(stdout);
    }
    a->has_printed[part] = true;
}

static qn_status add_id(answer *a, int32_t id, qn_error *err)
{
    if (a->n_ids == a->capacity) {
        const size_t capacity = a->capacity == 0 ? 256 : 2 * a->capacity;
        int32_t *larger = realloc(a->ids, capacity * sizeof *larger);
        if (larger == NULL) {
            return qn_fail(err, QN_E_NOMEM, 0, __func__, "answer: no memory");
        }
        a->ids = larger;
        a->capacity = capacity;
    }
    a->ids[a->n_ids++] = id;
    return QN_OK;
}

/* Tokens until a stop, the limit, the end of the context, or Ctrl-C. */
static qn_status generate(answer *a, qn_error *err)
{
    a->finish_reason = "length";
    while (a->n_ids < a->v->max_tokens) {
        if (cli_is_interrupted()) {
            a->finish_reason = "abort"; /* vLLM's word for it */
            break;
        }
        int32_t token = -1;
        qn_status status = qn_session_next(&token, a->session, err);
        if (status == QN_AGAIN) {
            break; /* the context is full */
        }
        if (status == QN_OK) {
            status = add_id(a, token, err);
        }
        if (status != QN_OK) {
            return status;
        }
        a->last_token_s = cli_now_s() - a->started_s;
        if (a->n_ids == 1) {
            a->first_token_s = a->last_token_s;
        }
        if (!a->v->ignore_eos && qn_model_is_stop(a->model, token)) {
            a->finish_reason = "stop";
            break;
        }
        status = qn_output_feed(a->output, token, err);
        if (status != QN_OK) {
            return status;
        }
        if (ferror(stdout)) {
            break; /* nobody reads; cli_flush reports it */
        }
    }
    qn_output_end(a->output);
    return QN_OK;
}

static double rate(double n, double seconds)
{
    return n > 0.0 && seconds > 0.0 ? n / seconds : 0.0;
}

/* Tokens after the first, which the prompt's pass brought; 0 where there are none. */
static double decode_rate(const answer *a)
{
    return rate((double)a->n_ids - 1.0, a->last_token_s - a->first_token_s);
}

static void print_stats(const answer *a)
{
    const qn_session_stats s = qn_session_get_stats(a->session);
    if (a->v->common.is_quiet) {
        return;
    }
    if (!a->is_tty && a->has_printed[QN_OUTPUT_REASONING]) {
        (void)fputc('\n', stderr);
    }
    (void)fprintf(stderr, "%zu token%s", a->n_ids, a->n_ids == 1 ? "" : "s");
    if (a->n_ids > 1) {
        (void)fprintf(stderr, ", %.1f tokens/s", decode_rate(a));
    }
    if (a->n_ids > 0) {
        (void)fprintf(stderr, ", first token after %.2f s", a->first_token_s);
    }
    (void)fprintf(stderr, " (prompt %llu token%s, %.1f tokens/s)%s\n",
                  (unsigned long long)s.n_prompt_tokens, s.n_prompt_tokens == 1 ? "" : "s",
                  rate((double)s.n_prompt_tokens, s.prefill_s),
                  qn_model_get_info(a->model)->weights[0] == 'd' ? ", dummy weights" : "");
}

/* The pieces of one part, joined; steals nothing. */
static json_t *join(const json_t *pieces)
{
    size_t i;
    json_t *piece;
    size_t len = 0;
    json_array_foreach(pieces, i, piece)
    {
        len += json_string_length(piece);
    }
    char *text = malloc(len + 1);
    size_t used = 0;
    json_array_foreach(pieces, i, piece)
    {
        if (text != NULL) {
            memcpy(text + used, json_string_value(piece), json_string_length(piece));
            used += json_string_length(piece);
        }
    }
    json_t *joined = text != NULL ? json_stringn(text, used) : NULL;
    free(text);
    return joined;
}

static int print_json(const answer *a)
{
    const qn_model_info *info = qn_model_get_info(a->model);
    const qn_session_stats s = qn_session_get_stats(a->session);
    struct rusage usage;
    (void)getrusage(RUSAGE_SELF, &usage);
    json_t *object = json_pack(
        "{so, ss, ss, ss, ss, ss, so, so, so, so, s[], ss, s{sI, si, sI, sI}, "
        "s{sf, sf, sf, sf}, s{si, sI, si, sf, s[], sb}, sI, sI, sn}",
        "model", cli_json_text(info->name), "quantization", info->quantization, "weights",
        info->weights, "device", info->device, "compute", info->compute, "kv_dtype", info->kv_dtype,
        "prompt_ids", cli_json_ids(a->prompt, a->n_prompt), "ids", cli_json_ids(a->ids, a->n_ids),
        "text", join(a->parts[QN_OUTPUT_TEXT]), "reasoning", join(a->parts[QN_OUTPUT_REASONING]),
        "tool_calls", "finish_reason", a->finish_reason, "usage", "prompt_tokens",
        (json_int_t)s.n_prompt_tokens, "cached_tokens", 0, "completion_tokens",
        (json_int_t)a->n_ids, "reasoning_tokens", (json_int_t)qn_output_reasoning_tokens(a->output),
        "timing", "load_s", info->load_s, "ttft_s", a->first_token_s, "prefill_tokens_per_s",
        rate((double)s.n_prompt_tokens, s.prefill_s), "decode_tokens_per_s", decode_rate(a),
        "speculation", "draft_tokens", 0, "steps", (json_int_t)a->n_ids, "accepted_tokens", 0,
        "acceptance_length", a->n_ids > 0 ? 1.0 : 0.0, "per_position", "synthetic", 0, "seed",
        (json_int_t)a->sampling.seed, "peak_rss_bytes", (json_int_t)usage.ru_maxrss * 1024,
        "logprobs");
    if (object == NULL || a->has_lost_text) {
        json_decref(object);
        return cli_fail(QN_E_NOMEM, "JSON output: no memory");
    }
    return cli_print_json(object);
}

/* ---------------------------------------------------------------------------------------- run --
 */

static qn_sampling choose_sampling(const run_values *v, const qn_model_info *info)
{
    qn_sampling s = info->sampling;
    s.temperature = isnan(v->temperature) ? s.temperature : (float)v->temperature;
    s.top_p = isnan(v->top_p) ? s.top_p : (float)v->top_p;
    s.min_p = isnan(v->min_p) ? s.min_p : (float)v->min_p;
    s.top_k = v->top_k == UINT64_MAX ? s.top_k : (uint32_t)v->top_k;
    s.seed = v->seed;
    if (v->seed == UINT64_MAX && getrandom(&s.seed, sizeof s.seed, 0) == (ssize_t)sizeof s.seed) {
        s.seed &= (1ULL << 53) - 1; /* exact in JSON numbers */
    }
    return s;
}

static qn_status answer_once(answer *a, const char *model_name, qn_error *err)
{
    const run_values *v = a->v;
    cli_progress progress;
    cli_progress_begin(&progress, "weights", "GB", 1e9, v->common.is_quiet);
    qn_model_options model_options = {.progress = cli_progress_show, .progress_context = &progress};
    cli_model_fill(&model_options, &v->model);
    model_options.tokenizer_optional = v->ids != NULL || v->prompt_tokens > 0;
    qn_status status = qn_model_open(&a->model, model_name, &model_options, err);
    cli_progress_end(&progress);
    if (status != QN_OK || (status = make_prompt(a, err)) != QN_OK) {
        return status;
    }
    if (a->n_prompt == 0) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "prompt: no tokens, expected at least one token");
    }
    a->sampling = choose_sampling(v, qn_model_get_info(a->model));
    const qn_session_options options = {.sampling = &a->sampling,
                                        .logits_path = v->logits,
                                        .trace_path = v->trace,
                                        .context_tokens = (uint32_t)v->context};
    status = qn_session_open(&a->session, a->model, &options, err);
    if (status == QN_OK) {
        status = qn_output_open(&a->output, a->model, a->prompt, a->n_prompt, print_piece, a, err);
    }
    a->started_s = cli_now_s();
    if (status == QN_OK) {
        cli_progress_begin(&progress, "prompt", "tokens", 1, v->common.is_quiet);
        status =
            qn_session_feed(a->session, a->prompt, a->n_prompt, cli_progress_show, &progress, err);
        cli_progress_end(&progress);
    }
    if (status == QN_OK) {
        status = generate(a, err);
    }
    if (status == QN_OK && (v->logits != NULL || v->trace != NULL)) {
        status = qn_session_finish_files(a->session, err);
    }
    return status;
}

static int finish(answer *a)
{
    set_dim(a, false);
    if (!a->v->as_json && a->n_ids > 0) {
        cli_write("\n", 1);
    }
    int status = a->v->as_json ? print_json(a) : cli_flush(CLI_DONE);
    print_stats(a);
    if (status == CLI_DONE && a->finish_reason[0] == 'a') {
        status = cli_fail(QN_E_CANCELLED, "answer: interrupted after %zu tokens, expected to go on",
                          a->n_ids);
    }
    return status;
}

static int run(void *values, int n_arguments, char **arguments)
{
    const run_values *v = values;
    qn_error err = {0};
    if (n_arguments == 0) {
        return cli_fail(QN_E_INVAL, "run: no model, expected a folder or owner/name, such as the "
                                    "small models/glm-nano that comes with the source");
    }
    int status = check_usage(v);
    if (status != CLI_DONE) {
        return status;
    }
    answer a = {.v = v, .is_tty = isatty(STDOUT_FILENO) != 0, .finish_reason = "length"};
    a.is_colored = cli_is_colored(STDOUT_FILENO, v->common.color);
    a.parts[0] = json_array();
    a.parts[1] = json_array();
    status = answer_once(&a, arguments[0], &err) == QN_OK ? finish(&a) : cli_report(&err);
    qn_output_close(&a.output);
    qn_session_close(&a.session);
    qn_model_close(&a.model);
    json_decref(a.parts[0]);
    json_decref(a.parts[1]);
    qn_free(a.prompt);
    free(a.ids);
    return status;
}

const cli_command cmd_run = {
    .name = "run",
    .summary = "Answer one prompt",
    .synopsis = "MODEL [-p TEXT | -f FILE | --ids LIST | --messages FILE.json] [options]",
    .description =
        "Loads a model and prints its answer to one prompt, token by token. MODEL is a folder in "
        "Hugging Face layout, or an owner/name found in the local Hugging Face cache. Without a "
        "prompt option the prompt is read from standard input.\n\n"
        "The answer goes to standard output. What the model thinks first goes there too on a "
        "terminal, dimmed, and else to standard error, whose last line tells the speed.",
    .examples = "quern run models/glm-nano -p \"What is 12 + 30?\"\n"
                "quern run models/glm-nano --thinking off --temperature 0 -f question.txt\n"
                "quern run models/glm-nano --raw -p \"Once upon a time\" --max-tokens 50\n"
                "quern run models/glm-nano --load-format dummy --prompt-tokens 8 --max-tokens 4\n",
    .groups = {{"Prompt", prompt_options, sizeof prompt_options / sizeof *prompt_options, 0},
               {"Answer", output_options, sizeof output_options / sizeof *output_options, 0},
               {"Model", cli_model_options, CLI_N_MODEL_OPTIONS, RUN(model)},
               CLI_COMMON_GROUP},
    .n_groups = 4,
    .n_arguments_max = 1,
    .init = init,
    .run = run,
};
_Static_assert(sizeof(run_values) <= CLI_VALUES_BYTES_MAX, "main() holds the values");

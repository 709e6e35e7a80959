/* SPDX-License-Identifier: Apache-2.0 */
#include "bench_live.h"
#include "bench_output.h"
#include "bench_serve.h"
#include "bench_serve_table.h"
#include "commands.h"
#include "report.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SERVE(field) offsetof(bench_serve_values, field)
#define TOKENS_MAX   1e7
#define COUNT_MAX    1e6

static const cli_option server_options[] = {
    {"base-url", 0, CLI_TEXT, "URL", SERVE(base_url), 0, 0,
     "Server, such as http://127.0.0.1:8000 (default: of --host and --port)"},
    {"host", 0, CLI_TEXT, "HOST", SERVE(host), 0, 0, "The same by its name (default 127.0.0.1)"},
    {"port", 0, CLI_COUNT, "N", SERVE(port), 1, 65535, "... and port (default 8000)"},
    {"model", 'm', CLI_TEXT, "NAME", SERVE(model), 0, 0,
     "Model as the server names it (default: its only one)"},
    {"served-model-name", 0, CLI_TEXT, "NAME", SERVE(model), 0, 0,
     "The same, as other clients call it"},
    {"backend endpoint-type", 0, CLI_CHOICE, BENCH_BACKENDS, SERVE(backend), 0, 0,
     "API: completions, or chat (default openai: /v1/completions); names of vLLM's and SGLang's "
     "clients mean the same"},
    {"endpoint", 0, CLI_TEXT, "PATH", SERVE(endpoint), 0, 0, "Path, where it is another"},
    {"tokenizer", 0, CLI_TEXT, "DIR", SERVE(tokenizer), 0, 0,
     "Folder of the model's tokenizer, which prompts are counted by (default: the server's "
     "/tokenize)"},
    {"api-key", 0, CLI_TEXT, "KEY", SERVE(api_key), 0, 0,
     "Key of the server; others see it in the list of processes"},
    {"api-key-file", 0, CLI_TEXT, "FILE", SERVE(api_key_file), 0, 0,
     "File whose first line is the key"},
    {"header", 0, CLI_LIST, "LINE", SERVE(headers), 0, CLI_LIST_MAX,
     "\"NAME: VALUE\" to send with each request; may be given several times"},
    {"insecure", 0, CLI_FLAG, NULL, SERVE(is_insecure), 0, 0, "Do not check TLS certificates"},
    {"timeout", 0, CLI_NUMBER, "SECONDS", SERVE(timeout_s), 0.001, 1e6,
     "A request that is not whole by then has failed (default 600)"},
};

static const cli_option workload_options[] = {
    {"workload", 0, CLI_TEXT, "NAME", SERVE(workload), 0, 0,
     "wafer (12,000 shared and 8,000 own tokens in, 1,000 out), single-stream (10,000 in, 1,500 "
     "out, one at a time), random, prefix (groups that share a prefix), multi-turn, sharegpt, "
     "custom or trace"},
    {"dataset-name", 0, CLI_TEXT, "NAME", SERVE(dataset), 0, 0,
     "The same by the names of vLLM's and SGLang's clients: random (default), random-ids, "
     "prefix_repetition, generated-shared-prefix, sharegpt, custom, trace"},
    {"dataset-path", 0, CLI_TEXT, "FILE", SERVE(dataset_path), 0, 0,
     "File of sharegpt, custom or trace"},
    {"num-prompts", 0, CLI_COUNT, "N", SERVE(n_prompts), 1, COUNT_MAX,
     "Requests of a run (default 1000, of single-stream 10, of custom and trace all); of --knee: "
     "at "
     "least so many in a trial (default 100)"},
    {"random-input-len input-len prefix-repetition-suffix-len gsp-question-len", 0, CLI_COUNT, "N",
     SERVE(n_input), 1, TOKENS_MAX, "Tokens of a prompt of its own, behind what it shares"},
    {"random-output-len output-len prefix-repetition-output-len gsp-output-len "
     "sharegpt-output-len custom-output-len",
     0, CLI_COUNT, "N", SERVE(n_output), 1, TOKENS_MAX, "Tokens of an answer"},
    {"random-prefix-len prefix-len prefix-repetition-prefix-len gsp-system-prompt-len", 0,
     CLI_COUNT, "N", SERVE(n_prefix), 0, TOKENS_MAX,
     "Tokens that prompts of a group begin with alike"},
    {"prefix-groups prefix-repetition-num-prefixes gsp-num-groups", 0, CLI_COUNT, "N",
     SERVE(n_groups), 1, COUNT_MAX, "Groups of prefix"},
    {"gsp-prompts-per-group", 0, CLI_COUNT, "N", SERVE(n_per_group), 1, COUNT_MAX,
     "Requests of each, instead of --num-prompts"},
    {"turns", 0, CLI_COUNT, "N", SERVE(n_turns), 1, 1000, "Turns of multi-turn (default 4)"},
    {"random-range-ratio", 0, CLI_NUMBER, "R", SERVE(range_ratio), 0, 1,
     "Lengths vary by it (default: they do not)"},
    {"range-ratio-meaning", 0, CLI_CHOICE, "vllm/around|sglang/below", SERVE(range_meaning), 0, 0,
     "vllm: from L (1 - R) to L (1 + R), 0 is exact; sglang: from L R to L, 1 is exact (default "
     "vllm)"},
    {"scale", 0, CLI_NUMBER, "X", SERVE(scale), 1e-4, 100,
     "Multiply all lengths, for models of a small context; the result says so"},
    {"ids", 0, CLI_FLAG, NULL, SERVE(sends_ids), 0, 0,
     "Prompts are random token ids instead of words"},
    {"ignore-eos", 0, CLI_FLAG, NULL, SERVE(ignores_eos), 0, 0,
     "Answers have their full length (default where prompts are made, and of traces)"},
    {"no-ignore-eos", 0, CLI_CLEAR, NULL, SERVE(ignores_eos), 0, 0, "The opposite"},
    {"seed", 0, CLI_COUNT, "N", SERVE(seed), 0, 9007199254740992.0,
     "Of texts, lengths and arrivals (default 0)"},
    {"salt", 0, CLI_COUNT, "N", SERVE(salt), 0, 9007199254740992.0,
     "Of prompts' own parts (default: another each time, so that no cache has them)"},
    {"extra-body", 0, CLI_TEXT, "JSON", SERVE(extra_body), 0, 0,
     "Object of members to add to each request"},
    {"temperature", 0, CLI_NUMBER, "X", SERVE(temperature), 0, 100,
     "Sampling (default: the server's)"},
    {"top-p", 0, CLI_NUMBER, "X", SERVE(top_p), 0, 1, "..."},
    {"top-k", 0, CLI_COUNT, "N", SERVE(top_k), 1, COUNT_MAX, "..."},
    {"min-p", 0, CLI_NUMBER, "X", SERVE(min_p), 0, 1, "..."},
};

static const cli_option load_options[] = {
    {"request-rate", 0, CLI_NUMBER, "R", SERVE(rate), 1e-6, (double)INFINITY,
     "Requests a second, as they come from many users (default inf: all at once, or as fast as "
     "--max-concurrency allows)"},
    {"arrivals", 0, CLI_CHOICE, "poisson|constant|gamma", SERVE(arrivals), 0, 0,
     "How they come (default poisson)"},
    {"burstiness", 0, CLI_NUMBER, "X", SERVE(burstiness), 1e-3, 1e6,
     "Shape of gamma: 1 is poisson, below comes in bursts"},
    {"max-concurrency", 0, CLI_COUNT, "N", SERVE(n_at_once), 1, BENCH_AT_ONCE_MAX,
     "At most so many requests under way; latencies count from when a request was due, held back "
     "or "
     "not"},
    {"duration", 0, CLI_NUMBER, "SECONDS", SERVE(duration_s), 0.1, 1e6,
     "Send for so long, instead of --num-prompts (default of wafer 600, scaled 60); of --knee: a "
     "confirmation lasts so long at least"},
    {"ramp", 0, CLI_TEXT, "R,...", SERVE(ramp), 0, 0, "A run at each of these rates"},
    {"ramp-concurrency", 0, CLI_TEXT, "N,...", SERVE(ramp_concurrency), 0, 0,
     "A run with each number of requests at once"},
    {"knee", 0, CLI_TEXT, "ttft:MS", SERVE(knee), 0, 0,
     "Search the highest rate whose TTFT stays within the limit at the 95th percentile "
     "(ttft:p90:MS: "
     "at another) while 99.9 % succeed; default of wafer where no load is given: ttft:5000"},
    {"num-warmups", 0, CLI_COUNT, "N", SERVE(n_warmups), 0, 1000,
     "Whole requests before the clock of each run, behind those that fill the cache with shared "
     "parts (default 1)"},
    {"repeat", 0, CLI_COUNT, "N", SERVE(n_repeats), 1, 100, "Runs of each load (default 1)"},
    {"sensitivity", 0, CLI_FLAG, NULL, SERVE(is_sensitivity), 0, 0,
     "The same load with 0, 30, 60 and 90 % of each prompt shared, with MTP and without"},
    {"mtp-off-url", 0, CLI_TEXT, "URL", SERVE(mtp_off_url), 0, 0,
     "... without: another server, which does not draft"},
    {"mtp-off-body", 0, CLI_TEXT, "JSON", SERVE(mtp_off_body), 0, 0,
     "... or members of a request that switch drafts off (of quern they are known)"},
    {"flush-cache", 0, CLI_FLAG, NULL, SERVE(flushes_cache), 0, 0,
     "Have the server forget its prefixes before each run"},
};

static const cli_option figure_options[] = {
    {"percentile-metrics", 0, CLI_TEXT, "M,...", SERVE(metrics), 0, 0,
     "Latencies to print: ttft, tpot, itl, e2el (default all)"},
    {"metric-percentiles", 0, CLI_TEXT, "P,...", SERVE(percentiles), 0, 0,
     "Percentiles of them (default 50,90,95,99, which results always have)"},
    {"goodput", 0, CLI_WORDS, "M:MS", SERVE(goodput), 0, CLI_LIST_MAX,
     "Count requests within these limits, such as ttft:5000 tpot:50"},
    {"no-metrics", 0, CLI_FLAG, NULL, SERVE(no_metrics), 0, 0, "Do not read /metrics"},
    {"power", 0, CLI_TEXT, "auto|none|nvml|rapl|FILE", SERVE(power), 0, 0,
     "Where power is read, or a file of \"seconds since 1970, watts\" (default auto)"},
    {"accelerator", 0, CLI_TEXT, "NAME", SERVE(accelerator), 0, 0,
     "What the server runs on, of the price profiles: then tokens have a price"},
    {"accelerators", 0, CLI_COUNT, "N", SERVE(n_accelerators), 1, COUNT_MAX,
     "... and how many of them"},
    {"prices", 0, CLI_TEXT, "FILE", SERVE(prices), 0, 0,
     "Price profiles instead of those built in"},
    {"references", 0, CLI_TEXT, "FILE", SERVE(references), 0, 0,
     "Published results instead of those built in"},
    {"note", 0, CLI_LIST, "KEY=TEXT", SERVE(notes), 0, CLI_LIST_MAX,
     "What the server does not tell, such as quantization=MXFP4, for the report; may be given "
     "several times"},
};

static const cli_option output_options[] = {
    {"output", 0, CLI_TEXT, "DIR", SERVE(output), 0, 0,
     "Write result.json, requests.jsonl, report.md and report.html into this folder, which is "
     "made"},
    {"json", 0, CLI_FLAG, NULL, SERVE(as_json), 0, 0, "Print the result as one JSON object"},
    {"save-result", 0, CLI_FLAG, NULL, SERVE(saves), 0, 0,
     "For scripts of vLLM's client: write the result under the name that it would have there"},
    {"save-detailed", 0, CLI_FLAG, NULL, SERVE(is_detailed), 0, 0,
     "requests.jsonl has the time of every chunk"},
    {"result-dir", 0, CLI_TEXT, "DIR", SERVE(result_dir), 0, 0, "... into this folder (default .)"},
    {"result-filename", 0, CLI_TEXT, "NAME", SERVE(result_file), 0, 0, "... under this name"},
    {"label", 0, CLI_TEXT, "TEXT", SERVE(label), 0, 0,
     "What the name of --save-result begins with (default: the backend)"},
};

static void init(void *values)
{
    bench_serve_values *const v = values;
    v->port = 8000;
    v->timeout_s = 600.0;
    v->scale = 1.0;
    v->rate = (double)INFINITY;
    v->burstiness = 1.0;
    v->n_warmups = 1;
    v->n_repeats = 1;
    v->range_ratio = v->temperature = v->top_p = v->min_p = (double)NAN;
    v->metrics = "ttft,tpot,itl,e2el";
}

/* --------------------------------------------------------------------------------------- output */

/* Lines of requests go to a file beside, which has its name when all is done; whoever is killed
 * leaves that one. */
typedef struct request_file {
    char name[PATH_MAX], part[PATH_MAX];
    FILE *file;
} request_file;

static qn_status open_requests(request_file *r, const char *folder, qn_error *err)
{
    if ((size_t)snprintf(r->name, sizeof r->name, "%s/requests.jsonl", folder) >=
            sizeof r->name - 8 ||
        (size_t)snprintf(r->part, sizeof r->part, "%s.part", r->name) >= sizeof r->part) {
        return qn_fail(err, QN_E_INVAL, 0, __func__, "--output: %.64s..., expected a shorter name",
                       folder);
    }
    const int fd = open(r->part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
    r->file = fd >= 0 ? fdopen(fd, "w") : NULL;
    return r->file != NULL
               ? QN_OK
               : qn_fail(err, QN_E_IO, errno, __func__, "%.256s: %s, expected to be writable",
                         r->part, strerror(errno));
}

static qn_status close_requests(request_file *r, bool is_wanted, qn_error *err)
{
    if (r->file == NULL) {
        return QN_OK;
    }
    const bool is_whole = fclose(r->file) == 0;
    r->file = NULL;
    if (!is_wanted) {
        (void)remove(r->part);
        return QN_OK;
    }
    return is_whole && rename(r->part, r->name) == 0
               ? QN_OK
               : qn_fail(err, QN_E_IO, errno, __func__, "%.256s: %s, expected to be writable",
                         r->name, strerror(errno));
}

static bool write_result(FILE *file, void *context)
{
    return json_dumpf(context, file, JSON_REAL_PRECISION(9) | JSON_INDENT(1)) == 0 &&
           fputc('\n', file) != EOF;
}

/* By vLLM's pattern: LABEL-RATEqps[-concurrencyN]-MODEL-DATE.json */
static qn_status save_result(const bench_serve_values *v, json_t *result, qn_error *err)
{
    char path[PATH_MAX];
    char rate[32] = "inf";
    char at_once[32] = "";
    const char *const model = json_string_value(json_object_get(result, "model_id"));
    const char *const slash = strrchr(model, '/');
    const json_t *const value = json_object_get(result, "request_rate");
    const json_t *const limit = json_object_get(result, "max_concurrency");
    if (json_is_number(value)) {
        (void)snprintf(rate, sizeof rate, "%g", json_number_value(value));
    }
    if (json_is_integer(limit)) {
        (void)snprintf(at_once, sizeof at_once, "-concurrency%lld",
                       (long long)json_integer_value(limit));
    }
    const char *const folder = v->result_dir != NULL ? v->result_dir : ".";
    const int n = v->result_file != NULL
                      ? snprintf(path, sizeof path, "%s/%s", folder, v->result_file)
                      : snprintf(path, sizeof path, "%s/%s-%sqps%s-%s-%s.json", folder,
                                 v->label != NULL  ? v->label
                                 : v->backend == 1 ? "openai-chat"
                                                   : "openai",
                                 rate, at_once, slash != NULL ? slash + 1 : model,
                                 json_string_value(json_object_get(result, "date")));
    if ((size_t)n >= sizeof path) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "--result-dir: %.64s..., expected a shorter name", folder);
    }
    return cli_replace_file(path, write_result, result, err);
}

/* ------------------------------------------------------------------------------------------ run */

static bool goes_on(void *context)
{
    (void)context;
    return !cli_is_interrupted();
}

static bool has_success(const json_t *result)
{
    size_t i = 0;
    json_t *run = NULL;
    json_array_foreach(json_object_get(result, "runs"), i, run)
    {
        if (json_integer_value(json_object_get(run, "completed")) > 0) {
            return true;
        }
    }
    return false;
}

static int print(const bench_serve_values *v, const bench_serve_plan *plan, json_t *result)
{
    const int status = json_is_true(json_object_get(result, "is_partial")) ? CLI_INTERRUPTED
                       : has_success(result)                               ? CLI_DONE
                                                                           : CLI_FAILED;
    if (v->as_json) {
        const int printed = cli_print_json(json_incref(result));
        return printed != CLI_DONE ? printed : status;
    }
    bench_table_print(stdout, result, plan->metrics, plan->n_metrics, plan->percents,
                      plan->n_percents);
    return cli_flush(status);
}

static qn_status measure(json_t **result, bench_serve_plan *plan, const bench_serve_values *v,
                         request_file *requests, qn_error *err)
{
    cli_bench_live live;
    qn_status status = QN_OK;
    if (v->output != NULL) {
        status = bench_output_open(v->output, err);
        status = status == QN_OK ? open_requests(requests, v->output, err) : status;
    }
    if (status == QN_OK && v->saves && v->result_dir != NULL) {
        status = bench_output_open(v->result_dir, err);
    }
    if (status < 0) {
        return status;
    }
    cli_bench_live_begin(&live, &v->common);
    plan->options.requests = requests->file;
    plan->options.context = &live;
    plan->options.goes_on = goes_on;
    plan->options.show = cli_bench_live_show;
    status = bench_serve(result, &plan->options, err);
    cli_bench_live_end(&live);
    return status;
}

static int run(void *values, int n_arguments, char **arguments)
{
    const bench_serve_values *const v = values;
    (void)n_arguments, (void)arguments;
    qn_error err = {0};
    bench_serve_plan plan;
    request_file requests = {0};
    json_t *result = NULL;
    qn_status status = bench_serve_plan_init(&plan, v, &err);
    if (status == QN_OK) {
        status = measure(&result, &plan, v, &requests, &err);
    }
    /* Where a later run failed, what was measured before it is kept. */
    qn_error ignored = {0};
    qn_error *const why = status == QN_OK ? &err : &ignored;
    const qn_status closed = close_requests(&requests, result != NULL, why);
    qn_status written = QN_OK;
    if (result != NULL && v->output != NULL) { /* though the lines of requests are not whole */
        written = bench_output_write(v->output, "result.json", result, why);
    }
    if (written == QN_OK && result != NULL && v->saves) {
        written = save_result(v, result, why);
    }
    written = closed < 0 ? closed : written;
    status = status == QN_OK ? written : status;
    int exit_status = CLI_DONE;
    if (result != NULL) { /* what was measured is shown, though a file could not be written */
        exit_status = print(v, &plan, result);
    }
    exit_status = status < 0 ? cli_report(&err) : exit_status;
    if (status == QN_OK && result != NULL && exit_status == CLI_FAILED && !has_success(result)) {
        (void)cli_fail(QN_E_IO, "bench: no request succeeded, expected some");
    }
    json_decref(result);
    bench_serve_plan_deinit(&plan);
    return exit_status;
}

const cli_command cmd_bench_serve = {
    .name = "bench serve",
    .summary = "Measure a server as its users would",
    .synopsis = "--base-url URL [--workload NAME] [load] [options]",
    .description =
        "Sends requests to any server that speaks OpenAI's API, measures it, and reports it so "
        "that "
        "nobody has to ask: docs/benchmarking.md has the method.\n\n"
        "Prompts have exactly the numbers of tokens asked for, by the model's tokenizer, and are "
        "made before the clock starts. What they share is sent once before that, so that the hit "
        "rate is what the workload says; what the server says of it is printed beside. Latencies "
        "count from when a request was due, whatever held it back. A result is marked invalid when "
        "the client itself was late: more than 5 ms at the 99th percentile.\n\n"
        "Without --request-rate, --max-concurrency, --ramp or --knee all requests are sent at "
        "once, "
        "as vLLM's client does; wafer then searches its knee.\n\n"
        "Ctrl-C ends the load and writes what there is, marked partial; a second one ends at once. "
        "The exit status is 1 where no request succeeded.",
    .examples =
        "quern bench serve --base-url http://127.0.0.1:8000 --workload wafer --output result\n"
        "quern bench serve --workload wafer --scale 0.05 --ramp 0.5,1,2 --duration 60\n"
        "quern bench serve --workload random --request-rate 4 --num-prompts 200 --goodput ttft:500 "
        "tpot:50\n"
        "quern bench serve --workload single-stream --repeat 3 --json\n"
        "quern bench serve --workload random --max-concurrency 16 --duration 60 --sensitivity\n",
    .groups = {{"Server", server_options, sizeof server_options / sizeof *server_options, 0},
               {"Workload", workload_options, sizeof workload_options / sizeof *workload_options,
                0},
               {"Load", load_options, sizeof load_options / sizeof *load_options, 0},
               {"Figures", figure_options, sizeof figure_options / sizeof *figure_options, 0},
               {"Output", output_options, sizeof output_options / sizeof *output_options, 0},
               CLI_COMMON_GROUP},
    .n_groups = 6,
    .init = init,
    .run = run,
};
_Static_assert(sizeof(bench_serve_values) <= CLI_VALUES_BYTES_MAX, "main() holds the values");

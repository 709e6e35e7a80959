/* SPDX-License-Identifier: Apache-2.0 */
#include "commands.h"
#include "report.h"
#include "serve.h"

#include <stdio.h>
#include <string.h>

#define SERVE(field) offsetof(serve_values, field)
#define N_OF(list)   (sizeof(list) / sizeof *(list))
/* Room for what a timeout may be: a month. */
#define SECONDS_MAX 2592000.0

static const cli_option access_options[] = {
    {"model model-path", 0, CLI_TEXT, "MODEL", SERVE(model_name), 0, 0,
     "The same as the argument MODEL"},
    {"served-model-name", 0, CLI_WORDS, "NAME", SERVE(names), 0, CLI_LIST_MAX,
     "What clients call the model, the first is the one that answers give; others are 404; may be "
     "given several times (default: the last part of MODEL, and any name is taken)"},
    {"host", 0, CLI_TEXT, "HOST", SERVE(host), 0, 0,
     "Address or name to listen on (default 127.0.0.1; 0.0.0.0: all of IPv4)"},
    {"port", 0, CLI_COUNT, "N", SERVE(port), 0, 65535, "Port (default 8000; 0: any that is free)"},
    {"config", 0, CLI_TEXT, "FILE", SERVE(config), 0, 0,
     "Take what the command line leaves out from a JSON file: names of options without dashes"},
    {"api-key", 0, CLI_WORDS, "KEY", SERVE(api_keys), 0, CLI_LIST_MAX,
     "Answer only those who give it; may be given several times; others see it in the list of "
     "processes"},
    {"api-key-file", 0, CLI_TEXT, "FILE", SERVE(api_key_file), 0, 0,
     "Such keys, one a line; lines that begin with # are comments"},
    {"admin-api-key", 0, CLI_TEXT, "KEY", SERVE(admin_key), 0, 0,
     "Flush the cache only for those who give it, which is as good as the others elsewhere"},
    {"ssl-certfile", 0, CLI_TEXT, "FILE", SERVE(certificate), 0, 0,
     "Speak TLS: the certificate and those it depends on, PEM"},
    {"ssl-keyfile", 0, CLI_TEXT, "FILE", SERVE(key), 0, 0, "Its private key, PEM"},
    {"allowed-origins cors-origin", 0, CLI_TEXT, "ORIGIN", SERVE(origin), 0, 0,
     "Let pages of this origin, or of any (*), ask from a browser (default: none)"},
    {"log-requests enable-log-requests", 0, CLI_FLAG, NULL, SERVE(logs_prompts), 0, 0,
     "Write what users ask to the log, too"},
    {"no-enable-log-requests disable-log-requests", 0, CLI_CLEAR, NULL, SERVE(logs_prompts), 0, 0,
     "The opposite, which is the default"},
};

static const cli_option limit_options[] = {
    {"max-queued-requests", 0, CLI_COUNT, "N", SERVE(n_queue), 1, QN_ENGINE_QUEUE_MAX,
     "Requests that wait for a sequence; more are 429 (default 1024)"},
    {"max-prompt-tokens", 0, CLI_COUNT, "N", SERVE(n_prompt_tokens), 1, 1 << 24,
     "Longest prompt (default: what the context has room for)"},
    {"max-body-size", 0, CLI_TEXT, "SIZE", SERVE(body_size), 0, 0,
     "Largest body of a request; larger ones are 413 (default 8M)"},
    {"max-stream-buffer", 0, CLI_TEXT, "SIZE", SERVE(stream_size), 0, 0,
     "Bytes of a stream that its reader may leave unread before it is dropped (default 1M)"},
    {"max-connections", 0, CLI_COUNT, "N", SERVE(n_connections), 1, 1 << 20,
     "Connections at once (default 4096)"},
    {"max-connections-per-address", 0, CLI_COUNT, "N", SERVE(n_connections_address), 0, 1 << 20,
     "Of them from one address (default 1024; 0: no limit, as behind a proxy)"},
    {"tokenizer-workers tokenizer-worker-num", 0, CLI_COUNT, "N", SERVE(n_readers), 1, 64,
     "Threads that read and tokenize bodies (default 2)"},
    {"header-timeout", 0, CLI_NUMBER, "S", SERVE(header_s), 0.1, SECONDS_MAX,
     "Seconds for the head of a request (default 30)"},
    {"body-timeout", 0, CLI_NUMBER, "S", SERVE(body_s), 0.1, SECONDS_MAX,
     "Seconds for its body (default 60)"},
    {"timeout-keep-alive", 0, CLI_NUMBER, "S", SERVE(idle_s), 0.1, SECONDS_MAX,
     "Seconds that a connection may stay without a request (default 900)"},
    {"write-timeout", 0, CLI_NUMBER, "S", SERVE(write_s), 0.1, SECONDS_MAX,
     "Seconds that a reader may take nothing before it is dropped (default 60)"},
    {"stream-keep-alive", 0, CLI_NUMBER, "S", SERVE(silence_s), 0.1, SECONDS_MAX,
     "Seconds of silence of a stream before a comment keeps it open (default 10)"},
    {"shutdown-timeout", 0, CLI_NUMBER, "S", SERVE(shutdown_s), 0, SECONDS_MAX,
     "Seconds that running requests get after SIGTERM; then they are cancelled (default 30)"},
    {"watchdog-timeout", 0, CLI_NUMBER, "S", SERVE(watchdog_s), 0, SECONDS_MAX,
     "Seconds after which a step that hangs ends the process with a diagnosis (default 300; 0: "
     "never)"},
};

static const cli_option memory_options[] = {
    {"mem-fraction-static gpu-memory-utilization", 0, CLI_NUMBER, "X", SERVE(memory_share), 0.01, 1,
     "Share of the device's memory, of the CPU the machine's, that weights and cache take together "
     "(instead of --page-cache)"},
    {"seed random-seed", 0, CLI_COUNT, "N", SERVE(model) + offsetof(cli_model, dummy_seed), 0,
     9007199254740991.0, "Seed of dummy weights; draws go by the seed of each request"},
};

static const cli_option speculation_options[] = {
    {"acceptance-length", 0, CLI_NUMBER, "X", SERVE(acceptance_length), 1, QN_DRAFT_TOKENS_MAX + 1,
     "With --draft-tokens N: accept drafts unseen so that steps emit X tokens on average, which "
     "measures speed; answers are not the model's"},
    {"speculative-config", 0, CLI_TEXT, "JSON", SERVE(speculation), 0, 0,
     "{\"method\": \"mtp\", \"num_speculative_tokens\": N}: the same as --draft-tokens N"},
    {"speculative-algorithm", 0, CLI_CHOICE, "EAGLE/NEXTN", SERVE(algorithm), 0, 0,
     "Draft with the MTP layer (EAGLE and NEXTN are that)"},
    {"speculative-num-steps", 0, CLI_COUNT, "N", SERVE(n_draft_steps), 0, QN_DRAFT_TOKENS_MAX,
     "Beside it: the same as --draft-tokens N"},
    {"speculative-eagle-topk", 0, CLI_COUNT, "1", SERVE(draft_top_k), 1, 1,
     "Beside it: a chain of drafts, no tree"},
    {"speculative-num-draft-tokens", 0, CLI_COUNT, "N", SERVE(n_draft_tokens), 1,
     QN_DRAFT_TOKENS_MAX + 1, "Beside it: one more than the steps"},
};

static const cli_option parallel_options[SERVE_N_PARALLEL] = {
    {"tensor-parallel-size tp-size tp", 0, CLI_COUNT, "1", SERVE(n_parallel[0]), 1, 1,
     "Devices that share every layer"},
    {"data-parallel-size dp-size dp", 0, CLI_COUNT, "1", SERVE(n_parallel[1]), 1, 1,
     "Copies of the model"},
    {"pipeline-parallel-size pp-size pp", 0, CLI_COUNT, "1", SERVE(n_parallel[2]), 1, 1,
     "Devices that share the layers out"},
    {"expert-parallel-size ep-size ep", 0, CLI_COUNT, "1", SERVE(n_parallel[3]), 1, 1,
     "Devices that share the experts out"},
};

#define IGNORED(i, name, why)                                                                      \
    {                                                                                              \
        name, 0, CLI_FLAG, NULL, SERVE(flags[i]), 0, 0, why                                        \
    }

static const cli_option ignored_options[SERVE_N_IGNORED] = {
    {"tool-call-parser", 0, CLI_CHOICE, "auto|glm45|glm47", SERVE(words[0]), 0, 0,
     "Calls are read as the model's format has them"},
    {"reasoning-parser", 0, CLI_CHOICE, "auto|glm45|glm47", SERVE(words[1]), 0, 0,
     "Thinking is, too"},
    {"dtype", 0, CLI_CHOICE, "auto|bfloat16", SERVE(words[2]), 0, 0,
     "Weights are taken as they are stored (--compute says how they are multiplied)"},
    {"scheduling-policy schedule-policy", 0, CLI_CHOICE, "priority|fcfs|lpm", SERVE(words[3]), 0, 0,
     "Who waits longest is next, a priority counts as waiting"},
    IGNORED(0, "enable-auto-tool-choice", "Requests with tools may call them"),
    IGNORED(1, "trust-remote-code", "No code comes with a model"),
    IGNORED(2, "enable-metrics", "/metrics is there"),
    IGNORED(3, "enable-cache-report", "usage has cached_tokens"),
    IGNORED(4, "enable-prompt-tokens-details", "It has them, too"),
    IGNORED(5, "enable-chunked-prefill", "Prompts are computed in chunks"),
    IGNORED(6, "enable-mixed-chunk", "Beside answers"),
    IGNORED(7, "async-scheduling no-async-scheduling", "Steps are as they are"),
    IGNORED(8, "disable-log-stats", "No statistics are logged"),
    IGNORED(9, "disable-uvicorn-access-log", "See --log-level"),
    IGNORED(10, "disable-fastapi-docs", "There are none"),
    IGNORED(11, "disable-frontend-multiprocessing", "There is one process"),
    IGNORED(12, "enable-server-load-tracking", "/metrics tells the load"),
    IGNORED(13, "enable-request-id-headers", "Answers have x-request-id"),
    IGNORED(14, "enable-force-include-usage", "Clients ask for it by stream_options"),
    IGNORED(15, "enforce-eager", "Of GPUs"),
    IGNORED(16, "disable-cuda-graph", "Likewise"),
    IGNORED(17, "disable-custom-all-reduce", "Likewise"),
    IGNORED(18, "enable-dp-attention", "Of one device: nothing to share out"),
    IGNORED(19, "enable-expert-parallel", "Likewise"),
    IGNORED(20, "enable-torch-compile", "Kernels are compiled already"),
};

static const cli_refused refused[] = {
    {"quantization", "weights as they are stored; 'quern quantize' makes others"},
    {"torch-dtype", "--compute"},
    {"attention-backend moe-runner-backend nsa-prefill-backend nsa-decode-backend sampling-backend",
     "kernels by what the machine has; --cpu-mask and --compute choose"},
    {"chat-template chat-template-content-format default-chat-template-kwargs", "--chat-format"},
    {"enable-lora lora-modules lora-paths max-loras", "a model without adapters"},
    {"enable-hierarchical-cache hicache-ratio hicache-size hicache-storage-backend "
     "kv-transfer-config kv-offloading-size cpu-offload-gb swap-space",
     "--page-cache"},
    {"disaggregation-mode", "a server that does prompts and answers"},
    {"ssl-ca-certs ssl-cert-reqs", "--api-key: clients are known by keys"},
    {"guided-decoding-backend grammar-backend structured-outputs-config", "text without a grammar"},
    {"generation-config override-generation-config sampling-defaults preferred-sampling-params",
     "settings in generation_config.json or in requests"},
    {"hf-overrides rope-scaling json-model-override-args", "settings in the model's config.json"},
    {"revision tokenizer-revision code-revision download-dir", "a folder, or what the cache has"},
    {"block-size page-size", "pages of 64 positions"},
    {"uds unix-socket", "--host and --port"},
    {"root-path fastapi-root-path middleware", "a proxy that does it"},
};

static void init(void *values)
{
    serve_values *const v = values;
    const server_options d = server_options_default();
    v->common.log_level = QN_LOG_INFO;
    v->host = d.host;
    v->port = d.port;
    v->n_queue = SERVE_QUEUE_DEFAULT;
    v->n_connections = d.n_connections_max;
    v->n_connections_address = d.n_connections_address_max;
    v->n_readers = d.n_readers;
    v->header_s = d.header_timeout_s;
    v->body_s = d.body_timeout_s;
    v->idle_s = d.idle_timeout_s;
    v->write_s = d.write_timeout_s;
    v->silence_s = d.keep_alive_s;
    v->shutdown_s = d.shutdown_timeout_s;
    v->watchdog_s = d.watchdog_timeout_s;
}

void serve_tell_ignored(const serve_values *values)
{
    char names[512] = "";
    size_t used = 0;
    for (size_t i = 0; i < SERVE_N_IGNORED; i++) {
        const cli_option *const o = &ignored_options[i];
        if (cli_is_given(values, o->offset)) {
            const int n = snprintf(names + used, sizeof names - used, "%s--%.*s",
                                   used > 0 ? ", " : "", (int)strcspn(o->name, " "), o->name);
            used += n > 0 ? (size_t)n : 0;
            used = used < sizeof names ? used : sizeof names - 1;
        }
    }
    if (used > 0 && !values->common.is_quiet) {
        cli_warn("%s: without effect here", names);
    }
}

const cli_command cmd_serve = {
    .name = "serve",
    .summary = "Answer over HTTP: the APIs of OpenAI and Anthropic",
    .synopsis = "MODEL [options]",
    .description =
        "Listens, loads the model, answers a prompt of its own, and says so in one line on "
        "standard output; until then /ready says 503. Then it answers /v1/chat/completions, "
        "/v1/completions, /v1/messages, /v1/models, /tokenize, /metrics and more: docs/serving.md "
        "has them all.\n\n"
        "Options have the names that vLLM and SGLang give them, too. What those programs have and "
        "would change an answer is refused where it is not built.\n\n"
        "SIGTERM, Ctrl-C and SIGHUP let running requests end, for at most --shutdown-timeout "
        "seconds, and take no more; a second one ends at once. The exit status is 0 where every "
        "request had its answer, and 130 where some were cut short.",
    .examples = "quern serve models/glm-nano\n"
                "quern serve models/glm-nano --host 0.0.0.0 --port 80 --api-key-file keys.txt\n"
                "quern serve --config /etc/quern/quern.json\n"
                "curl http://127.0.0.1:8000/v1/chat/completions -d '{\"messages\": [{\"role\": "
                "\"user\", \"content\": \"What is 12 + 30?\"}]}'\n",
    .groups = {{"Server", access_options, N_OF(access_options), 0},
               {"Limits", limit_options, N_OF(limit_options), 0},
               {"Engine", cli_engine_options, CLI_N_ENGINE_OPTIONS, SERVE(engine)},
               {"Memory and seed", memory_options, N_OF(memory_options), 0},
               {"Speculation, also in the words of others", speculation_options,
                N_OF(speculation_options), 0},
               {"Model", cli_model_options, CLI_N_MODEL_OPTIONS, SERVE(model)},
               {"Parallelism (more than 1 is not built)", parallel_options, SERVE_N_PARALLEL, 0},
               {"Options of others that change nothing here", ignored_options, SERVE_N_IGNORED, 0},
               CLI_COMMON_GROUP},
    .n_groups = 9,
    .n_arguments_max = 1,
    .refused = refused,
    .n_refused = N_OF(refused),
    .init = init,
    .run = serve_run,
};
_Static_assert(N_OF(access_options) + N_OF(limit_options) + CLI_N_ENGINE_OPTIONS +
                       N_OF(memory_options) + N_OF(speculation_options) + CLI_N_MODEL_OPTIONS +
                       SERVE_N_PARALLEL + SERVE_N_IGNORED + CLI_N_COMMON_OPTIONS <=
                   CLI_GIVEN_MAX,
               "each is noted, or a file would win over the command line");
_Static_assert(sizeof(serve_values) <= CLI_VALUES_BYTES_MAX, "main() holds the values");

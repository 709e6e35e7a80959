/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file quern.h  Load a GLM-5 family model and let it answer.
 *
 * A program opens a model, turns text or a conversation into token ids, opens a session, submits
 * the ids and steps until the answer has ended; events carry its text:
 *
 *     const char *messages = "[{\"role\": \"user\", \"content\": \"What is 12 + 30?\"}]";
 *     qn_model *model = NULL;
 *     qn_session *session = NULL;
 *     int32_t *ids = NULL;
 *     size_t n_ids = 0;
 *     qn_event event;
 *     qn_error err = {0};
 *     qn_status s = qn_model_open(&model, "models/glm-nano", NULL, &err);
 *     s = s ? s : qn_chat_encode(&ids, &n_ids, model, NULL, messages, strlen(messages), &err);
 *     s = s ? s : qn_session_open(&session, model, NULL, &err);
 *     qn_request request = {.ids = ids, .n_ids = n_ids};
 *     s = s ? s : qn_session_submit(session, &request, &err);
 *     while (s == QN_OK) {
 *         s = qn_session_step(session, &err); // QN_AGAIN: the answer has ended
 *         while (qn_session_poll(&event, session)) {
 *             if (event.kind == QN_EVENT_TEXT) {
 *                 (void)fwrite(event.text, 1, event.len, stdout);
 *             }
 *         }
 *     }
 *     if (s < 0) {
 *         (void)fprintf(stderr, "%s\n", err.text);
 *     }
 *     qn_session_close(&session);
 *     qn_free(ids);
 *     qn_model_close(&model);
 *
 * Threads: every object is used by one thread at a time, and sessions and engines of one model
 * share its worker threads, so that they may not step at once.  qn_session_cancel() alone may be
 * called from any thread and from a signal handler.  Functions that take a const qn_model may be
 * called from several threads at once.
 *
 * Options structs that are all zero mean the defaults.  Strings are UTF-8.
 */
#ifndef QUERN_QUERN_H
#define QUERN_QUERN_H

#include "quern/status.h"
#include "quern/types.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------ the library -- */

/** Counts changes after which programs have to be compiled again; the soname carries it. */
#define QN_ABI_VERSION 0

/** QN_ABI_VERSION of the library that is running: a program may compare it with its own. */
QN_API int qn_abi_version(void);

/** What this library was built from.  Static strings. */
typedef struct qn_build {
    const char *version;  /**< "0.1.0" */
    const char *commit;   /**< Short git commit, or "unknown". */
    const char *compiler; /**< "gcc 12.2.0" */
    const char *kernels;  /**< Kernel sets built in, separated by spaces: "ref avx2 ...". */
    /** Targets of kernels for GPUs: "sm_90a, gfx950"; "sm_90a (PTX), gfx950": the driver compiles
     * what is for NVIDIA when it is loaded; "none: " and why. */
    const char *gpu_kernels;
} qn_build;

/** Never NULL.  Any thread. */
QN_API const qn_build *qn_build_get(void);

/**
 * Log lines go to stderr, at level warn and as text unless this says otherwise; call it before
 * anything else, from one thread.
 */
QN_API void qn_log_configure(qn_log_level level, bool as_json);

/** Release memory that a function below handed out.  Accepts NULL. */
QN_API void qn_free(void *memory);

/* ------------------------------------------------------------------------------- the machine -- */

/** One device that could run a model. */
typedef struct qn_device {
    char name[32];         /**< What --device takes: "cpu", "cuda:0". */
    char description[128]; /**< "AMD EPYC 9B14, 2 threads" */
    char kernels[64];      /**< Kernel set that would serve it: "avx512", "sm_90". */
    char features[128];    /**< "avx2 avx512 avx512bf16", or a GPU's "sm_90". */
    char reason[192];      /**< Why it cannot be used; empty when it can. */
    uint64_t memory_bytes; /**< Total memory. */
    uint32_t n_threads;    /**< CPUs granted to this process; 0 for others. */
    bool is_usable;        /**< A model can run here. */
} qn_device;

/**
 * Devices of this machine, the CPU first.
 * @param[out] out   room for @p n_max entries
 * Returns  number of entries written
 */
QN_API size_t qn_devices(qn_device *out, size_t n_max);

/* --------------------------------------------------------------------------------- the model -- */

/** A loaded model with its tokenizer.  Opaque. */
typedef struct qn_model qn_model;

/** How to load.  All zero: the defaults. */
typedef struct qn_model_options {
    const char *tokenizer_dir; /**< Folder of tokenizer.json; NULL: the model's. */
    const char *device;        /**< "auto", "cpu", "cuda[:N]" or "hip[:N]"; NULL: auto. */
    const char *device_option; /**< What an error calls the option of that; NULL: "--device". */
    const char *tuning;        /**< GPU: file of measured choices, or a folder of DEVICE.csv
                                    (docs/tuning.md); NULL: what is built in. */
    const char *cpu_mask;      /**< Best kernel level allowed: "ref", "avx2" ...; NULL: no limit. */
    const char *chat_format;   /**< "auto", "glm5", "glm5.1", "glm5.2"; NULL: auto. */
    qn_progress_fn *progress;  /**< Bytes of weights read or made; NULL: nobody wants to know. */
    void *progress_context;    /**< Given to progress. */
    uint64_t dummy_seed;       /**< Seed of dummy weights. */
    uint32_t n_threads;        /**< 0: one for each CPU granted.  With just as many, all but the
                                  caller are pinned. */
    qn_compute compute;        /**< Arithmetic. */
    qn_kv_dtype kv_dtype;      /**< Cache rows. */
    bool use_dummy_weights;    /**< Seeded random weights of config.json's shapes. */
    bool tokenizer_only;       /**< No weights: sessions cannot be opened. */
    bool tokenizer_optional; /**< A folder without tokenizer.json is a warning: ids in, ids out. */
    bool strict;             /**< What would be a warning about the model is an error. */
    bool is_deterministic;   /**< GPU: the bits of a row depend on its own sequence alone, as they
                                  always do on a CPU.  Otherwise the fastest kernel serves each
                                  number of rows, and the last bits of logits go by the step that a
                                  row is in: where two tokens are as good as alike, either may be
                                  drawn; log-probabilities, which are computed again when they are
                                  asked for, may differ in their last bits from those that a token
                                  was drawn with. */
} qn_model_options;

/**
 * What qn_model_open() would say of device, arithmetic and kernels alone, whatever the model.  The
 * table of kernels is read; no device is opened.
 *
 * @param options  NULL: the defaults
 *
 * Returns  QN_OK; QN_E_INVAL naming the option; QN_E_NOT_FOUND, QN_E_IO or QN_E_FORMAT naming the
 *          table; QN_E_DEVICE; QN_E_NOMEM
 */
QN_MUST_CHECK QN_API qn_status qn_model_options_check(const qn_model_options *options,
                                                      qn_error *err);

/**
 * Load a model.
 *
 * @param[out] out  owned by the caller; NULL on failure
 * @param name      folder in Hugging Face layout, or owner/name in the local Hugging Face cache
 * @param options   borrowed during the call; NULL: defaults
 * Returns  QN_OK; QN_E_NOT_FOUND with the download command; QN_E_FORMAT naming file, tensor or key;
 *          QN_E_INVAL naming the option; QN_E_DEVICE; QN_E_NOMEM; QN_E_IO; QN_E_CANCELLED
 */
QN_MUST_CHECK QN_API qn_status qn_model_open(qn_model **out, const char *name,
                                             const qn_model_options *options, qn_error *err);

/** Release; sets *model to NULL; accepts NULL.  Its sessions must be closed before. */
QN_API void qn_model_close(qn_model **model);

/** One entry of a bias. */
typedef struct qn_logit_bias {
    int32_t token; /**< 0 .. n_vocab - 1 */
    float bias;    /**< Added to the token's logit; -INFINITY bans it. */
} qn_logit_bias;

/**
 * How tokens are drawn.  Copy qn_model_info.sampling and change it: zeros are settings here.
 *
 * Order: the biases are added and stop tokens ruled out while there are fewer than min_tokens; then
 * the penalties; the largest logit wins with temperature 0; else logits are divided by the
 * temperature, the top_k most likely stay, of those the fewest that hold top_p of their sum, of
 * those the ones with at least min_p times the largest probability.
 */
typedef struct qn_sampling {
    float temperature;               /**< 0 to 100; 0: greedy. */
    float top_p;                     /**< (0, 1]; 1: off. */
    float min_p;                     /**< [0, 1]; 0: off. */
    float repetition_penalty;        /**< (0, 10]; 1: off.  Of tokens in prompt or answer positive
                                          logits are divided by it, others multiplied. */
    float presence_penalty;          /**< -2 to 2; 0: off.  Subtracted for tokens of the answer. */
    float frequency_penalty;         /**< -2 to 2; 0: off.  Subtracted once per occurrence. */
    uint32_t top_k;                  /**< 0: off. */
    uint32_t n_logit_bias;           /**< At most QN_LOGIT_BIAS_MAX. */
    const qn_logit_bias *logit_bias; /**< Borrowed during the call. */
    uint64_t seed;                   /**< The same seed draws the same tokens, of a model that
                                          is_deterministic. */
} qn_sampling;

/** Facts of a loaded model; strings are borrowed until it is closed. */
typedef struct qn_model_info {
    const char *name;         /**< As given to qn_model_open(). */
    const char *path;         /**< Folder it was found in. */
    const char *architecture; /**< "GlmMoeDsaForCausalLM" */
    const char *quantization; /**< "none", "fp8", "mxfp4": the smallest format of any expert. */
    const char *weights;      /**< "trained", "dummy"; "none" with tokenizer_only. */
    const char *device;       /**< As qn_devices() names it: "cpu", "cuda:0". */
    const char *kernels;      /**< Kernel set in use: "ref", "avx2", "avx512" ..; "sm_90". */
    const char *compute;      /**< "f32", "bf16", "int8": what is used. */
    const char *kv_dtype;     /**< "f32", "bf16", "fp8": what is used. */
    const char *chat_format;  /**< "glm5.2": what is used. */
    qn_sampling sampling;     /**< Defaults of generation_config.json. */
    uint64_t n_parameters;    /**< Weights in elements, MTP layer included. */
    uint64_t weight_bytes;    /**< As stored. */
    double load_s;            /**< Time qn_model_open() took. */
    uint32_t n_layers;        /**< Trunk layers. */
    uint32_t n_embd;          /**< Width of the residual stream. */
    uint32_t n_vocab;         /**< Rows of the output matrix. */
    uint32_t n_context_max;   /**< Positions the model was made for. */
    uint32_t n_threads;       /**< Threads that compute. */
    bool has_mtp;             /**< The layer for speculative decoding is there. */
    bool is_deterministic;    /**< A row's bits depend on its own sequence alone. */
    bool has_tokenizer;       /**< False for dummy weights without tokenizer.json. */
} qn_model_info;

/** Never NULL; borrowed until the model is closed. */
QN_API const qn_model_info *qn_model_get_info(const qn_model *model);

/** The kernel that serves an operation of some shape. */
typedef struct qn_kernel_choice {
    char operation[32]; /**< "matmul", "moe" (of routed experts), "mla", "indexer" ... */
    char weights[16];   /**< Format of weights or cache rows: "bf16", "fp8", "mxfp4", "f32". */
    char variant[32];   /**< What was chosen: "avx512bf16", "sm90_mma". */
    char source[16];    /**< "tuned": by the device's table of measurements; "default": by a rule,
                             the best that there is for this CPU or architecture; "fallback": plain
                             C, less than the best by a mask, a GPU's portable kernel, or not the
                             one that the table names. */
    uint32_t n_in;      /**< Columns; 0 where the operation has no such shape. */
    uint32_t n_out;     /**< Rows of the weights, of a pair each; of attention and indexer heads;
                           likewise. */
    uint32_t n_groups;  /**< Matrices that one launch takes, experts or heads; 0: no such thing. */
    uint32_t n_rows;    /**< It serves steps of up to so many rows; 0: of any number,
                             UINT32_MAX: of any greater one. */
    uint32_t n_uses;    /**< Tensors, or layers without one, that it serves; 0: not counted. */
    bool is_pair;       /**< Gate and up at once. */
} qn_kernel_choice;

/**
 * The kernels of a loaded model, one entry for each operation, shape and format, on a GPU also for
 * each range of rows, in ascending order.
 * @param[out] out  room for @p n_max entries; NULL with 0
 * Returns  how many there are, also where that is more than @p n_max
 */
QN_API size_t qn_model_kernels(qn_kernel_choice *out, size_t n_max, const qn_model *model);

/** Does this token end an answer? */
QN_API bool qn_model_is_stop(const qn_model *model, int32_t token);

/* ---------------------------------------------------------------------------------- the text -- */

/** What an encoder does with text that spells a control token such as "<|user|>". */
typedef enum qn_control_text {
    QN_CONTROL_AS_TEXT, /**< It stays text: the safe choice for what users wrote. */
    QN_CONTROL_MATCH,   /**< It becomes the control token. */
} qn_control_text;

/**
 * Text to token ids.
 *
 * @param[out] ids    owned by the caller (qn_free); NULL when there are none
 * @param[out] n_ids  how many
 * Returns  QN_OK; QN_E_INVAL without a tokenizer; QN_E_NOMEM
 */
QN_MUST_CHECK QN_API qn_status qn_encode(int32_t **ids, size_t *n_ids, const qn_model *model,
                                         const char *text, size_t len, qn_control_text control,
                                         qn_error *err);

/**
 * Token ids to text; control tokens are spelled out, broken characters become U+FFFD.  Without a
 * tokenizer (dummy weights) an id prints as "<id>".
 *
 * @param[out] text  NUL-terminated, owned by the caller (qn_free); @p len without the NUL
 * Returns  QN_OK; QN_E_INVAL for an id outside the vocabulary; QN_E_NOMEM
 */
QN_MUST_CHECK QN_API qn_status qn_decode(char **text, size_t *len, const qn_model *model,
                                         const int32_t *ids, size_t n_ids, qn_error *err);

/** How a conversation is rendered.  All zero: no tools, thinking on, effort max. */
typedef struct qn_chat_options {
    const char *tools_json; /**< Tools in OpenAI form, a JSON array; NULL: none. */
    size_t tools_len;       /**< Bytes of it. */
    bool no_thinking;       /**< The answer starts at once. */
    bool is_effort_high;    /**< Reasoning effort "high" instead of "max"; of glm5.2 only. */
    bool keep_thinking;     /**< Keep the reasoning of earlier turns (clear_thinking = false). */
    bool continue_final;    /**< The last message is the assistant's, and the answer goes on behind
                                 its content, of which white space at both ends is no part, or
                                 behind its reasoning_content where it has no content. */
} qn_chat_options;

/**
 * A conversation in OpenAI form, a JSON array of {"role", "content", "tool_calls"?, ...}, to the
 * ids of a prompt that ends where the assistant's answer begins or goes on.  Nothing in a message
 * becomes a control token.
 *
 * @param options  NULL: defaults
 * Returns  QN_OK; QN_E_FORMAT naming the message or tool and the field; QN_E_INVAL; QN_E_NOMEM
 */
QN_MUST_CHECK QN_API qn_status qn_chat_encode(int32_t **ids, size_t *n_ids, const qn_model *model,
                                              const qn_chat_options *options,
                                              const char *messages_json, size_t len, qn_error *err);

/* -------------------------------------------------------------------------------- the answer -- */

/** Why an answer ended. */
typedef enum qn_finish {
    QN_FINISH_STOP,       /**< A stop token or stop text. */
    QN_FINISH_LENGTH,     /**< max_tokens, or the context is full. */
    QN_FINISH_TOOL_CALLS, /**< A stop token after at least one tool call, or a single_call. */
    QN_FINISH_ABORT,      /**< Cancelled. */
    QN_FINISH_ERROR, /**< Of a session: the step returned an error; of an engine: its END tells. */
    QN_FINISH_DEADLINE, /**< Its deadline_s has passed. */
} qn_finish;

/** "stop", "length", "tool_calls", "abort", "error", "deadline". */
QN_API const char *qn_finish_name(qn_finish finish);

/** A token and how likely it was. */
typedef struct qn_token_logprob {
    int32_t token; /**< Its id. */
    float logprob; /**< Natural logarithm of the probability that the model alone gives it, before
                        every setting of qn_sampling.  On a GPU its logits are made again for it:
                        in their last bits other ones, unless the model is_deterministic. */
} qn_token_logprob;

/** What happens while a model answers. */
typedef enum qn_event_kind {
    QN_EVENT_REASONING,    /**< A piece of what stands between <think> and </think>. */
    QN_EVENT_TEXT,         /**< A piece of the answer. */
    QN_EVENT_CALL_BEGIN,   /**< Where streams_calls asked for it: a tool call has begun. */
    QN_EVENT_CALL_PIECE,   /**< Likewise: a piece of its arguments; all of them, one behind the
                                other, are the text of the TOOL_CALL that follows. */
    QN_EVENT_TOOL_CALL,    /**< A whole tool call. */
    QN_EVENT_WARNING,      /**< The model broke its format; what it wrote came or comes as text, or
                                was mended where a CALL_BEGIN had come. */
    QN_EVENT_PROMPT_TOKEN, /**< A token of the prompt, where wants_prompt_logprobs asked for it. */
    QN_EVENT_TOKEN,        /**< A generated token, stop tokens included; before its text. */
    QN_EVENT_END,          /**< The last event of a request. */
} qn_event_kind;

/** One event.  Fields that the kind does not name are zero. */
typedef struct qn_event {
    qn_event_kind kind;     /**< What happened. */
    qn_finish finish;       /**< END */
    const char *text;       /**< REASONING, TEXT, CALL_PIECE: whole characters, never empty;
                                 WARNING: what was wrong; TOOL_CALL: the arguments, one JSON
                                 object.  Not NUL-terminated. */
    size_t len;             /**< Bytes of text. */
    const char *name;       /**< CALL_BEGIN, TOOL_CALL: the function, not NUL-terminated. */
    size_t name_len;        /**< Bytes of name. */
    qn_token_logprob token; /**< PROMPT_TOKEN, TOKEN; logprob is 0 where none was asked for, and
                                 of a prompt's first token. */
    uint32_t position;      /**< PROMPT_TOKEN, TOKEN: place in the sequence. */
    uint32_t n_top;         /**< PROMPT_TOKEN, TOKEN: as asked for. */
    uint32_t rank;          /**< PROMPT_TOKEN: how many are as likely or likelier, itself counted;
                                 0 of the first one. */
    uint32_t stop_number;   /**< END: 1 + which of qn_request.stops ended it; 0: none did. */
    const qn_token_logprob *top;          /**< [n_top] by falling logprob, ties to the lower id. */
    const struct qn_session_stats *stats; /**< END of an engine's request: what it did. */
    const qn_error *error;                /**< END of an engine's request with QN_FINISH_ERROR. */
    void *tag;                            /**< Of an engine's request: its qn_request.tag. */
} qn_event;

/** Receives events in order; what they point to is borrowed during the call. */
typedef void qn_event_fn(void *context, const qn_event *event);

/** Splits what a model writes into reasoning, text and tool calls as it comes.  Opaque. */
typedef struct qn_parser qn_parser;

/** What a parser should know.  All zero but fn: the answer begins as text, no tools. */
typedef struct qn_parser_options {
    const int32_t *prompt; /**< [n_prompt] ids of the prompt, borrowed during the call: the answer
                                begins as reasoning when its last <think> is still open. */
    size_t n_prompt;
    const char *tools_json; /**< As in qn_chat_options: types of the arguments. */
    size_t tools_len;       /**< Bytes of it. */
    qn_event_fn *fn;        /**< Receives REASONING, TEXT, calls and WARNING. */
    void *context;          /**< Given to fn. */
    bool streams_calls; /**< Calls come in pieces too.  What the model breaks behind a CALL_BEGIN
                             is then mended, as it cannot become text any more. */
} qn_parser_options;

/**
 * @param[out] out  owned by the caller
 * Returns  QN_OK; QN_E_FORMAT naming the tool and field; QN_E_INVAL; QN_E_NOMEM
 */
QN_MUST_CHECK QN_API qn_status qn_parser_open(qn_parser **out, const qn_model *model,
                                              const qn_parser_options *options, qn_error *err);
/**
 * Feed one generated id.  Special tokens, stop tokens among them, print nothing.  No allocation.
 * Returns  QN_OK; QN_E_INVAL for an id outside the vocabulary
 */
QN_MUST_CHECK QN_API qn_status qn_parser_feed(qn_parser *parser, int32_t token, qn_error *err);
/**
 * Feed text from elsewhere, in which the names of control tokens count as the tokens.  The events
 * are the same however it is cut, but for the borders between pieces of one kind.
 */
QN_API void qn_parser_feed_text(qn_parser *parser, const char *text, size_t len);
/** The answer is over: what was held back comes out. */
QN_API void qn_parser_end(qn_parser *parser);
/** Ids fed so far that belong to the reasoning, its closing </think> included. */
QN_API uint64_t qn_parser_reasoning_tokens(const qn_parser *parser);
/** Accepts NULL; sets *parser to NULL. */
QN_API void qn_parser_close(qn_parser **parser);

/* ------------------------------------------------------------------------------- the session -- */

/** One sequence with its cache, which answers one request after the other.  Opaque. */
typedef struct qn_session qn_session;

enum {
    QN_DRAFT_TOKENS_MAX = 8, /**< Deepest speculation. */
    QN_DRAFT_TOKENS_DEFAULT =
        5,                    /**< Depth where none is said: that of vLLM's recipe for GLM-5.2. */
    QN_TOP_LOGPROBS_MAX = 20, /**< Alternatives told of a token. */
    QN_LOGIT_BIAS_MAX = 1024, /**< Entries of a bias. */
    QN_STOPS_MAX = 16,        /**< Stop texts, and stop ids, of a request. */
    QN_STOP_BYTES_MAX = 1024, /**< Of one stop text. */
};

/**
 * Receives the logits of positions just computed, of prompts and answers, each position once.
 *
 * @param position  of the first row
 * @param ids       [n_rows] tokens at these positions, borrowed during the call
 * @param logits    [n_rows][n_vocab] what follows each of them, borrowed during the call
 * Returns  QN_OK; an error, which ends the request and is what the step returns
 */
typedef qn_status qn_logits_fn(void *context, uint32_t position, uint32_t n_rows,
                               const int32_t *ids, const float *logits, qn_error *err);

/** How to run.  NULL or all zero: room for the model's whole context, events by poll. */
typedef struct qn_session_options {
    const char *logits_path; /**< safetensors file for logits and ids of every position. */
    const char *trace_path;  /**< safetensors file for hidden states and choices (prompts). */
    qn_event_fn *fn;         /**< Receives events during a step; NULL: qn_session_poll() does. */
    void *context;           /**< Given to fn and logits_fn. */
    qn_logits_fn *logits_fn; /**< Receives logits of every position computed; prompts are then
                                  computed from their start.  NULL: nobody. */
    uint32_t context_tokens; /**< Positions the cache has room for; 0: the model's maximum,
                                  allocated as it is used; on a GPU what is free has room for,
                                  at most that, which is taken at once. */
    uint32_t chunk_tokens;   /**< Rows of one forward pass, at most 512, which is the default (0).
                                  Changes no result. */
} qn_session_options;

/**
 * Open an empty session.  All memory that tokens need is allocated here.
 * Returns  QN_OK; QN_E_INVAL naming the option; QN_E_NOMEM saying how many bytes were asked;
 *          QN_E_IO naming the file
 */
QN_MUST_CHECK QN_API qn_status qn_session_open(qn_session **out, qn_model *model,
                                               const qn_session_options *options, qn_error *err);

/**
 * How many tokens the MTP layer drafts before they are verified.  Changes no token.  A model
 * without the layer has no drafts, by default and by QN_DRAFT_AUTO.
 */
typedef enum qn_draft {
    QN_DRAFT_DEFAULT = 0, /**< A session: 5.  An engine: QN_DRAFT_AUTO, as with many sequences a
                               fixed depth can cost more than it gives; 5 where acceptance_length
                               is pinned. */
    QN_DRAFT_NONE = -1,   /**< No speculation. */
    QN_DRAFT_AUTO = -2,   /**< By measured acceptance and measured cost, step by step. */
} qn_draft;

/** What to answer, and how.  All zero but ids: the model's own settings, until it stops. */
typedef struct qn_request {
    const int32_t *ids;          /**< [n_ids] the whole prompt; what the session has computed of it
                                      is not computed again. */
    size_t n_ids;                /**< At least 1. */
    const qn_sampling *sampling; /**< NULL: qn_model_info.sampling. */
    const char *const *stops;    /**< [n_stops] texts that end the answer and are not part of it. */
    size_t n_stops;              /**< At most QN_STOPS_MAX. */
    const int32_t *stop_ids;    /**< [n_stop_ids] ids that end it beside the model's own; like those
                                     they are not part of its text. */
    size_t n_stop_ids;          /**< At most QN_STOPS_MAX. */
    const char *tools_json;     /**< As in qn_chat_options: types of the arguments of calls. */
    size_t tools_len;           /**< Bytes of it. */
    uint32_t max_tokens;        /**< 0: no limit but the context. */
    uint32_t min_tokens;        /**< Stop ids are not drawn, and stop texts not heeded, before. */
    uint32_t n_top_logprobs;    /**< Alternatives of each token whose log-probability is wanted, at
                                     most QN_TOP_LOGPROBS_MAX. */
    int draft_tokens;           /**< 1 to QN_DRAFT_TOKENS_MAX, or a qn_draft. */
    float acceptance_length;    /**< 1 to draft_tokens + 1: accept drafts unseen so that steps emit
                                     so many tokens on average.  For benchmarks: the text is then
                                     not the model's.  0: off. */
    bool ignore_eos;            /**< The model's own stop ids do not end the answer. */
    bool streams_calls;         /**< As in qn_parser_options. */
    bool single_call;           /**< The answer ends with its first tool call. */
    bool prompt_only;           /**< Compute the prompt and draw nothing. */
    bool wants_logprobs;        /**< Of generated tokens. */
    bool wants_prompt_logprobs; /**< Of the prompt, all of which is then computed. */
    /** What follows is for engines; a session, which has one request at a time, ignores it. */
    const char *cache_salt; /**< [cache_salt_len] Computed prompts are shared only between requests
                                 of the same salt; NULL: those without one. */
    size_t cache_salt_len;  /**< Bytes of it. */
    void *tag;              /**< Given back in events. */
    void (*on_begin)(void *tag); /**< Called by the step that begins it, before it computes: until
                                      then it waits.  It may not call the engine.  NULL: nothing. */
    uint64_t affinity;           /**< Requests of the same number go where its cache is; 0: none. */
    double deadline_s;           /**< Seconds after which it ends, finished or not; 0: never. */
    int priority; /**< -100 to 100, higher first: a step is worth 10 seconds of waiting. */
} qn_request;

/**
 * Begin to answer.  Everything in @p request is borrowed during the call.  The prompt may begin as
 * what the session holds already, as a conversation's next one does.
 * Returns  QN_OK; QN_E_INVAL naming the field, or where a request has not ended yet; QN_E_FORMAT
 *          naming the tool; QN_E_NOMEM
 */
QN_MUST_CHECK QN_API qn_status qn_session_submit(qn_session *session, const qn_request *request,
                                                 qn_error *err);

/**
 * Do a bounded piece of work: a chunk of the prompt, or one step that draws at least one token.
 * Allocates nothing, unless a token's text has megabytes.
 * Returns  QN_OK; QN_AGAIN: no request, or its END has come; QN_E_INVAL while events of the step
 *          before are unread, which changes nothing; QN_E_NOMEM where such a text found no memory;
 *          QN_E_IO of the files in the options; QN_E_FORMAT when no logit is above -Inf, as NaN in
 *          the weights has it.  An error ends the request.
 */
QN_MUST_CHECK QN_API qn_status qn_session_step(qn_session *session, qn_error *err);

/** Next event of the last step, borrowed until the next one.  False: none, *event is untouched. */
QN_API bool qn_session_poll(qn_event *event, qn_session *session);

/**
 * The next step ends the request; its tokens stay in the session.  Any thread, any time, signal
 * handlers included.
 */
QN_API void qn_session_cancel(qn_session *session);

/** Forget every token: the next prompt is computed from its start.  Not during a request. */
QN_API void qn_session_clear(qn_session *session);

/**
 * Logits [n_vocab] that follow the last token computed, borrowed until the next call; NULL where
 * there are none.  After a prompt_only request: those that follow the prompt.
 */
QN_API const float *qn_session_logits(const qn_session *session);

/** What the last request has done so far. */
typedef struct qn_session_stats {
    uint64_t n_prompt_tokens;    /**< Of the request. */
    uint64_t n_cached_tokens;    /**< Of them: in the cache already. */
    uint64_t n_computed_tokens;  /**< Of them: in the cache now. */
    uint64_t n_generated_tokens; /**< Drawn, the stop token included. */
    uint64_t n_reasoning_tokens; /**< Of them. */
    uint64_t n_steps;            /**< Verification steps: passes after the prompt's. */
    uint64_t n_step_tokens;      /**< Tokens they emitted; by n_steps: the acceptance length. */
    uint64_t n_drafted;          /**< Tokens drafted ... */
    uint64_t n_accepted;         /**< ... and those of them that were emitted. */
    /** Steps in which draft i was reached and emitted; by n_steps: acceptance by position. */
    uint64_t n_accepted_at[QN_DRAFT_TOKENS_MAX];
    uint64_t kv_bytes;       /**< Cache memory now. */
    double queue_s;          /**< From submit to the step that began it, or its end; of engines. */
    double prefill_s;        /**< Time computing the prompt. */
    double ttft_s;           /**< From submit to the first token; 0: none yet. */
    double decode_s;         /**< Time of all steps after the first token ... */
    double draft_s;          /**< ... and of their MTP passes alone, */
    double verify_s;         /**< and of their verification passes. */
    uint32_t n_draft_tokens; /**< Depth in force; QN_DRAFT_AUTO: of the last step. */
    bool is_synthetic;       /**< acceptance_length was pinned. */
} qn_session_stats;

/** Any time. */
QN_API qn_session_stats qn_session_get_stats(const qn_session *session);

/**
 * Write what is left of the files in the options and give them their names; what is computed later
 * is not in them.  QN_E_IO, QN_E_NOMEM: the first failure; that file and those after it vanish, as
 * they do where a step of a prompt failed that the trace has a part of, or where logits_fn failed
 * and rows are not in the file of logits, with that status.  Later calls fail with the same one.
 */
QN_MUST_CHECK QN_API qn_status qn_session_finish_files(qn_session *session, qn_error *err);

/** Release; files that were not finished vanish.  Accepts NULL; sets *session to NULL. */
QN_API void qn_session_close(qn_session **session);

/* -------------------------------------------------------------------------------- the engine -- */

/** Many requests at once, with a queue and a cache that they share.  Opaque. */
typedef struct qn_engine qn_engine;

enum {
    QN_ENGINE_SEQUENCES_MAX = 1024, /**< Sequences at once. */
    QN_ENGINE_QUEUE_MAX = 1 << 20,  /**< Requests that wait. */
    QN_ENGINE_ROWS_MAX = 8192,      /**< Rows of a step. */
    QN_PRIORITY_MAX = 100,          /**< Largest qn_request.priority; the least is its negative. */
};

/**
 * Sizes.  NULL or all zero: the defaults.  No option changes a token where the model
 * is_deterministic, but for requests that pin their acceptance_length: those take drafts unseen.
 */
typedef struct qn_engine_options {
    uint64_t cache_bytes;    /**< Cache pages, all there will ever be; 0: what n_sequences contexts
                                  need, at most a quarter of the machine's memory, of a GPU's what
                                  is free but for a reserve. */
    uint32_t n_sequences;    /**< Sequences that run at once; 0: 64. */
    uint32_t n_queue;        /**< Requests that wait for them, at most QN_ENGINE_QUEUE_MAX; 0:
                                  1,024. */
    uint32_t n_step_rows;    /**< Rows of a step: prompts are computed in chunks, so that no
                                  running request waits longer than a step of so many rows for its
                                  next token; at least n_sequences + 64; 0: 512, on a GPU 2,048,
                                  or that, whichever is more. */
    uint32_t context_tokens; /**< Positions of a sequence; 0: the model's maximum. */
    bool no_mtp;             /**< Without speculation, whatever requests say: pages have no rows of
                                  the MTP layer. */
    bool no_prefix_cache;    /**< Nothing that one request computed serves another. */
    bool checks_pages;       /**< Checksum pages when they are published and when they are used
                                  again, and abort where they differ; always on in debug builds.
                                  That two requests compute a page alike is checked where the model
                                  is_deterministic. */
} qn_engine_options;

/**
 * Open an engine.  All memory that tokens need is allocated or mapped here: pages, at most
 * cache_bytes, and beside them qn_engine_stats.workspace_bytes.  Of the host both fill as they are
 * used for the first time; of a GPU they are taken at once.  Later only a submit allocates, for its
 * request; and a step whose texts exceed 16 MiB, until the next. Returns  QN_OK; QN_E_INVAL naming
 * the option; QN_E_NOMEM saying how many bytes were asked
 */
QN_MUST_CHECK QN_API qn_status qn_engine_open(qn_engine **out, qn_model *model,
                                              const qn_engine_options *options, qn_error *err);

/** Release; requests that have not ended vanish.  Accepts NULL; sets *engine to NULL. */
QN_API void qn_engine_close(qn_engine **engine);

/**
 * Queue a request; everything in @p request is copied.
 *
 * @param[out] id  names it in events; never 0, never given twice
 * Returns  QN_OK; QN_AGAIN: the queue is full, try later; QN_E_INVAL naming the field; QN_E_FORMAT
 *          naming the tool; QN_E_NOMEM
 */
QN_MUST_CHECK QN_API qn_status qn_engine_submit(uint64_t *id, qn_engine *engine,
                                                const qn_request *request, qn_error *err);

/**
 * End a request wherever it is: the next step frees its pages and brings its END.  From the thread
 * that steps, between two steps; a request that has ended is ignored.
 */
QN_API void qn_engine_cancel(qn_engine *engine, uint64_t id);

/**
 * One step: a chunk of prompts and one verification of each sequence that answers.
 * Returns  QN_OK; QN_AGAIN: no request is there; QN_E_INVAL while events of the step before are
 *          unread, which changes nothing.  What goes wrong with one request is told by its END.
 */
QN_MUST_CHECK QN_API qn_status qn_engine_step(qn_engine *engine, qn_error *err);

/**
 * Next event of the last step, borrowed until the next one; those of one request are in order.
 *
 * @param[out] id  whose event it is
 * Returns  false: none, nothing is written
 */
QN_API bool qn_engine_poll(uint64_t *id, qn_event *event, qn_engine *engine);

/** What an engine has done and holds. */
typedef struct qn_engine_stats {
    uint32_t n_running;          /**< Requests now. */
    uint32_t n_waiting;          /**< Likewise. */
    uint64_t n_pages_free;       /**< Pages now: that hold nothing, */
    uint64_t n_pages_used;       /**< that running sequences use, */
    uint64_t n_pages_cached;     /**< that wait for a prompt to come again; evicted at need. */
    uint64_t page_bytes;         /**< Of one page, */
    uint32_t page_tokens;        /**< which has so many positions. */
    uint64_t workspace_bytes;    /**< The most that all but pages and requests takes: buffers, what
                                      each sequence has beside its pages, the queue's places, and
                                      the model's workspace, which its sessions and engines
                                      share. */
    uint64_t n_steps;            /**< Since open, as all that follows. */
    uint64_t n_prompt_tokens;    /**< Of requests admitted. */
    uint64_t n_cached_tokens;    /**< Of them: not computed, since they were in the cache. */
    uint64_t n_generated_tokens; /**< Drawn. */
    uint64_t n_drafted;          /**< Tokens drafted ... */
    uint64_t n_accepted;         /**< ... and those of them that were emitted. */
    uint64_t n_verifications;    /**< Steps of sequences that had drafts ... */
    /** ... and those in which draft i was reached and emitted. */
    uint64_t n_accepted_at[QN_DRAFT_TOKENS_MAX];
    uint64_t n_preempted;         /**< Times that a sequence gave its pages back. */
    uint64_t n_recomputed_tokens; /**< Computed again after that. */
    uint64_t n_evicted;           /**< Cached pages that had to go. */
    uint64_t n_exchanged;         /**< Pages given up for others of the same tokens. */
    uint32_t n_trunk_launches;  /**< On a GPU kernels, copies and fills of a pass, as the graph has
                                     them that was captured or launched last, 0 before: of the
                                     trunk's, */
    uint32_t n_draft_launches;  /**< of the first draft's, */
    uint32_t n_follow_launches; /**< of what the MTP layer then adds to the cache. */
    double prompt_s;            /**< Time of steps that computed prompts only, */
    double mixed_s;             /**< prompts and answers, */
    double decode_s;            /**< answers only. */
    bool is_lost; /**< The device did not serve the last step: every request ends with an error
                       until the process is started again. */
} qn_engine_stats;

/** Any time. */
QN_API qn_engine_stats qn_engine_get_stats(const qn_engine *engine);

/** Forget every cached page that no running sequence uses. */
QN_API void qn_engine_flush(qn_engine *engine);

#ifdef __cplusplus
}
#endif
#endif

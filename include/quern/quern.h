/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file quern.h  Load a GLM-5 family model and let it answer.
 *
 * A program opens a model, turns text or a conversation into token ids, opens a session, feeds the
 * ids and asks for one token after the other:
 *
 *     const char *messages = "[{\"role\": \"user\", \"content\": \"What is 12 + 30?\"}]";
 *     qn_model *model = NULL;
 *     qn_session *session = NULL;
 *     int32_t *ids = NULL, token = -1;
 *     size_t n_ids = 0;
 *     qn_error err = {0};
 *     qn_status s = qn_model_open(&model, "models/glm-nano", NULL, &err);
 *     s = s ? s : qn_chat_encode(&ids, &n_ids, model, NULL, messages, strlen(messages), &err);
 *     s = s ? s : qn_session_open(&session, model, NULL, &err);
 *     s = s ? s : qn_session_feed(session, ids, n_ids, NULL, NULL, &err);
 *     while (s == QN_OK && !qn_model_is_stop(model, token)) {
 *         s = qn_session_next(&token, session, &err); // QN_AGAIN: the context is full
 *     }
 *     if (s < 0) {
 *         (void)fprintf(stderr, "%s\n", err.text);
 *     }
 *     qn_session_close(&session);
 *     qn_free(ids);
 *     qn_model_close(&model);
 *
 * Every object is used by one thread at a time; several sessions of one model may not run at once
 * (they share its worker threads).  Options structs that are all zero mean the defaults.
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

/** What this library was built from.  Static strings. */
typedef struct qn_build {
    const char *version;  /**< "0.1.0" */
    const char *commit;   /**< Short git commit, or "unknown". */
    const char *compiler; /**< "gcc 12.2.0" */
    const char *kernels;  /**< Kernel sets built in, separated by spaces: "ref". */
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
    char name[32];         /**< "cpu": what --device takes. */
    char description[128]; /**< "AMD EPYC 9B14, 2 threads" */
    char kernels[64];      /**< Kernel set that would serve it: "ref". */
    char features[128];    /**< CPU bundles present: "avx2 avx512 avx512bf16". */
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
    const char *device;        /**< "auto" or "cpu"; NULL: auto. */
    const char *cpu_mask;      /**< Best kernel level allowed: "ref", "avx2" ...; NULL: no limit. */
    const char *chat_format;   /**< "auto", "glm5", "glm5.1", "glm5.2"; NULL: auto. */
    qn_progress_fn *progress;  /**< Bytes of weights read or made; NULL: nobody wants to know. */
    void *progress_context;    /**< Given to progress. */
    uint64_t dummy_seed;       /**< Seed of dummy weights. */
    uint32_t n_threads;        /**< 0: one for each CPU granted. */
    qn_compute compute;        /**< Arithmetic. */
    qn_kv_dtype kv_dtype;      /**< Cache rows. */
    bool use_dummy_weights;    /**< Seeded random weights of config.json's shapes. */
    bool tokenizer_only;       /**< No weights: sessions cannot be opened. */
    bool tokenizer_optional; /**< A folder without tokenizer.json is a warning: ids in, ids out. */
    bool strict;             /**< What would be a warning about the model is an error. */
} qn_model_options;

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

/** How a session draws tokens. */
typedef struct qn_sampling {
    float temperature; /**< 0 to 100; 0: greedy. */
    float top_p;       /**< (0, 1]; 1: off. */
    float min_p;       /**< [0, 1]; 0: off. */
    uint32_t top_k;    /**< 0: off. */
    uint64_t seed;     /**< The same seed draws the same tokens. */
} qn_sampling;

/** Facts of a loaded model; strings are borrowed until it is closed. */
typedef struct qn_model_info {
    const char *name;         /**< As given to qn_model_open(). */
    const char *path;         /**< Folder it was found in. */
    const char *architecture; /**< "GlmMoeDsaForCausalLM" */
    const char *quantization; /**< "none", "fp8", "mxfp4": the smallest format of any expert. */
    const char *weights;      /**< "trained", "dummy"; "none" with tokenizer_only. */
    const char *device;       /**< "cpu" */
    const char *kernels;      /**< "ref" */
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
    bool has_tokenizer;       /**< False for dummy weights without tokenizer.json. */
} qn_model_info;

/** Never NULL; borrowed until the model is closed. */
QN_API const qn_model_info *qn_model_get_info(const qn_model *model);

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

/** How a conversation is rendered.  All zero: thinking on, effort max. */
typedef struct qn_chat_options {
    bool no_thinking;    /**< The answer starts at once. */
    bool is_effort_high; /**< Reasoning effort "high" instead of "max"; of glm5.2 only. */
    bool keep_thinking;  /**< Keep the reasoning of earlier turns (clear_thinking = false). */
} qn_chat_options;

/**
 * A conversation in OpenAI form, a JSON array of {"role", "content", ...}, to the ids of a prompt
 * that ends where the assistant's answer begins.  Nothing in a message becomes a control token.
 *
 * @param options  NULL: defaults
 * Returns  QN_OK; QN_E_FORMAT naming the message and field; QN_E_INVAL; QN_E_NOMEM
 */
QN_MUST_CHECK QN_API qn_status qn_chat_encode(int32_t **ids, size_t *n_ids, const qn_model *model,
                                              const qn_chat_options *options,
                                              const char *messages_json, size_t len, qn_error *err);

/** Which part of an answer a piece of text belongs to. */
typedef enum qn_output_part {
    QN_OUTPUT_REASONING, /**< Between <think> and </think>. */
    QN_OUTPUT_TEXT,      /**< The answer. */
} qn_output_part;

/** Receives whole characters, in order; @p text is borrowed during the call. */
typedef void qn_output_fn(void *context, qn_output_part part, const char *text, size_t len);

/** Turns generated ids into text as they come.  Opaque. */
typedef struct qn_output qn_output;

/**
 * @param[out] out  owned by the caller
 * @param prompt    the prompt's ids, n_prompt of them: they tell whether the answer begins with
 *                  reasoning
 */
QN_MUST_CHECK QN_API qn_status qn_output_open(qn_output **out, const qn_model *model,
                                              const int32_t *prompt, size_t n_prompt,
                                              qn_output_fn *fn, void *context, qn_error *err);
/**
 * Feed one generated id; control and stop tokens print nothing.
 * Returns  QN_OK; QN_E_INVAL for an id outside the vocabulary; QN_E_NOMEM
 */
QN_MUST_CHECK QN_API qn_status qn_output_feed(qn_output *output, int32_t token, qn_error *err);
/** The answer is over: what was held back is printed. */
QN_API void qn_output_end(qn_output *output);
/** Generated ids so far that belong to the reasoning part, its closing </think> included. */
QN_API uint64_t qn_output_reasoning_tokens(const qn_output *output);
/** Accepts NULL; sets *output to NULL. */
QN_API void qn_output_close(qn_output **output);

/* ------------------------------------------------------------------------------- the session -- */

/** One sequence with its cache.  Opaque. */
typedef struct qn_session qn_session;

/** How to run.  NULL or all zero: the model's sampling, room for its whole context. */
typedef struct qn_session_options {
    const qn_sampling *sampling; /**< Borrowed during the call; NULL: the model's defaults. */
    const char *logits_path;     /**< safetensors file for logits and ids of every position. */
    const char *trace_path;      /**< safetensors file for hidden states and choices (prompt). */
    uint32_t context_tokens;     /**< Positions the cache has room for; 0: the model's maximum,
                                      allocated as it is used. */
    uint32_t chunk_tokens;       /**< Rows of one forward pass, at most 256, which is the
                                      default (0).  Changes no result. */
} qn_session_options;

/**
 * Open an empty sequence.
 * Returns  QN_OK; QN_E_INVAL naming the option; QN_E_NOMEM saying how many bytes were asked;
 *          QN_E_IO naming the file
 */
QN_MUST_CHECK QN_API qn_status qn_session_open(qn_session **out, qn_model *model,
                                               const qn_session_options *options, qn_error *err);

/**
 * Append prompt ids and compute them, in chunks.
 *
 * @param ids  borrowed during the call, each in 0 .. n_vocab - 1
 * @param fn   told before each chunk how many ids are computed, 0 at first; false cancels, and what
 *             was computed stays; NULL: nobody
 * Returns  QN_OK; QN_E_INVAL for an id out of range or a prompt longer than the context;
 *          QN_E_CANCELLED; QN_E_NOMEM; QN_E_IO of the files in the options
 */
QN_MUST_CHECK QN_API qn_status qn_session_feed(qn_session *session, const int32_t *ids,
                                               size_t n_ids, qn_progress_fn *fn, void *context,
                                               qn_error *err);

/**
 * Draw the next token and append it.
 * Returns  QN_OK; QN_AGAIN when the context is full (*token is -1); QN_E_INVAL before any feed;
 *          QN_E_NOMEM; QN_E_IO; QN_E_FORMAT when no logit is above -Inf, as NaN
 *          in the weights has it
 */
QN_MUST_CHECK QN_API qn_status qn_session_next(int32_t *token, qn_session *session, qn_error *err);

/**
 * Logits [n_vocab] after the last position computed, borrowed until the next call.  NULL before
 * any, and where a feed was cancelled between its chunks: the next call computes them.
 */
QN_API const float *qn_session_logits(qn_session *session);

/** What a session has done. */
typedef struct qn_session_stats {
    uint64_t n_prompt_tokens;    /**< Fed. */
    uint64_t n_generated_tokens; /**< Drawn. */
    double prefill_s;            /**< Time computing what was fed. */
    double decode_s;             /**< Time drawing and computing what was generated. */
    uint64_t kv_bytes;           /**< Cache memory now. */
} qn_session_stats;

/** Any time. */
QN_API qn_session_stats qn_session_get_stats(const qn_session *session);

/**
 * Write what is left of the files in the options and give them their names; what is computed later
 * is not in them.  QN_E_IO, QN_E_NOMEM: the first failure; that file and those after it vanish.
 */
QN_MUST_CHECK QN_API qn_status qn_session_finish_files(qn_session *session, qn_error *err);

/** Release; files that were not finished vanish.  Accepts NULL; sets *session to NULL. */
QN_API void qn_session_close(qn_session **session);

#ifdef __cplusplus
}
#endif
#endif

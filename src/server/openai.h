/* SPDX-License-Identifier: Apache-2.0 */
/** @file openai.h  What the exchange of chat completions and completions holds: openai_body.c reads
 * it, openai_answer.c and openai_logprobs.c write of it. */
#ifndef QN_SERVER_OPENAI_H
#define QN_SERVER_OPENAI_H
#include "server/exchange_internal.h"

/** Parts of an answer. */
typedef enum openai_part {
    OPENAI_REASONING,
    OPENAI_TEXT,
    OPENAI_CALLS, /**< Whole: the list's items, as JSON.  Streamed: pieces of arguments. */
    OPENAI_N_PARTS,
} openai_part;

/** One choice while it comes. */
typedef struct openai_choice {
    qn_buf parts[OPENAI_N_PARTS]; /**< Streamed: one at a time, what is not in a chunk yet. */
    qn_buf tokens;                /**< Those not written yet, where logprobs are wanted; packed. */
    qn_buf prompt_tokens;   /**< Likewise, where prompt_logprobs are; of the first of n choices. */
    size_t n_said_bytes;    /**< Of tokens: those that the parts have the text of. */
    uint64_t n_characters;  /**< Of tokens written, as text_offset counts. */
    uint64_t n_tokens;      /**< Generated. */
    qn_session_stats stats; /**< Once it has ended. */
    uint32_t n_calls;       /**< Begun. */
    openai_part part;       /**< Streamed: the one that has something. */
    qn_finish finish;       /**< Once it has ended. */
    bool has_begun;         /**< Something other than the prompt's tokens has come. */
    bool has_ended;         /**< END has come. */
    bool has_call;          /**< A call has begun and not ended, */
    bool has_call_pieces;   /**< and pieces of its arguments came. */
    bool is_thinking;       /**< Of a completion: its text stands behind a <think>. */
    bool has_opened;        /**< ... which the model wrote. */
} openai_choice;

/** An exchange; the form's struct. */
typedef struct openai_exchange {
    server_exchange base;
    int32_t max_tokens;            /**< -1: not given. */
    int32_t max_completion_tokens; /**< Likewise. */
    int32_t completion_logprobs;   /**< Likewise. */
    int32_t prompt_logprobs;       /**< Likewise. */
    int32_t top_logprobs;          /**< Likewise. */
    uint32_t n_top;                /**< Alternatives shown of generated tokens. */
    bool wants_logprobs;
    bool echoes;
    bool includes_usage;           /**< A chunk of it ends the stream; */
    bool has_continuous_usage;     /**< each chunk has it. */
    bool includes_reasoning;       /**< include_reasoning */
    bool has_parallel_calls;       /**< parallel_tool_calls */
    bool has_generation_prompt;    /**< add_generation_prompt true */
    bool has_no_generation_prompt; /**< ... false */
    bool needs_no_tools;           /**< tool_choice "none" */
    bool has_stream_options;
    int32_t think_id;   /**< Of <think>; -1: none. */
    qn_str *echo_texts; /**< [n_prompts] owned (qn_free) */
    size_t n_echo_texts;
    openai_choice *choices; /**< [exchange_n_choices()] owned. */
    size_t n_choices;
    qn_buf head;    /**< What each chunk or the body begins with. */
    qn_buf pending; /**< Chunks not flushed yet. */
} openai_exchange;

/** The form's struct. */
static inline openai_exchange *openai_of(server_exchange *x)
{
    return (openai_exchange *)x;
}

/** Reads a body; as exchange_form.read. */
bool openai_read(server_exchange *x, server_error *error);

/** Write what a body or chunk of this kind begins with, up to its list of choices. */
void openai_put_head(server_writer *w, const openai_exchange *x, const char *object);

/** Keep a token with its alternatives in @p out.  QN_E_NOMEM. */
QN_MUST_CHECK qn_status openai_keep_token(qn_buf *out, const qn_event *event, qn_error *err);

/** Write the first @p n_bytes of choice->tokens as a choice's "logprobs", and forget them; null
 * where none are wanted. */
void openai_put_logprobs(server_writer *w, openai_exchange *x, openai_choice *choice,
                         size_t n_bytes);

/** Write choice->prompt_tokens as "prompt_logprobs", as vLLM does. */
void openai_put_prompt_logprobs(server_writer *w, const openai_exchange *x,
                                const openai_choice *choice);
#endif

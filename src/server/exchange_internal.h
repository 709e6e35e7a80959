/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file exchange_internal.h  What the forms of exchanges share: OpenAI's (openai_*.c) and
 * Anthropic's (anthropic_*.c) are each a table of functions over a struct that begins with a
 * server_exchange.
 */
#ifndef QN_SERVER_EXCHANGE_INTERNAL_H
#define QN_SERVER_EXCHANGE_INTERNAL_H
#include "base/json_doc.h"
#include "server/exchange.h"
#include "server/writer.h"

enum {
    EXCHANGE_ID_BYTES = 65,
    EXCHANGE_TOKENS_MAX = 1 << 24,         /**< Largest count of tokens that a parameter has. */
    EXCHANGE_ANSWER_BYTES_MAX = 256 << 20, /**< Of one part of an answer that is kept. */
};

/** Code of an error: known, but what it would do is not built. */
extern const char exchange_not_built[];
/** Code of an error: not a value that the parameter has. */
extern const char exchange_bad_value[];

/** How a form answers.  Each is as the function of exchange.h of the same name. */
typedef struct exchange_form {
    size_t n_bytes; /**< Of its struct, which begins with a server_exchange and is made zero. */
    /**
     * Read x->body, an object: fill what is to be submitted (exchange_add_prompt() for each
     * prompt) and what answers need.  With x->only_counts the prompt is all that matters.
     */
    bool (*read)(server_exchange *x, server_error *error);
    void (*close)(server_exchange *x); /**< Free what is the form's own. */
    qn_status (*begin)(server_exchange *x, qn_buf *out, qn_error *err);
    qn_status (*take)(server_exchange *x, size_t i_choice, const qn_event *event, qn_error *err);
    qn_status (*flush)(server_exchange *x, qn_buf *out, qn_error *err);
    qn_status (*finish)(server_exchange *x, qn_buf *out, qn_error *err);
    /** Of a stream only: the event that ends it. */
    qn_status (*fail)(const server_exchange *x, const server_error *error, qn_buf *out,
                      qn_error *err);
    const char *keep_alive; /**< What is appended. */
} exchange_form;

/** Of chat completions and completions. */
extern const exchange_form openai_form;
/** Of messages. */
extern const exchange_form anthropic_form;

/** One prompt. */
typedef struct exchange_prompt {
    int32_t *ids; /**< [n_ids] owned (qn_free); NULL once shrunk. */
    size_t n_ids;
} exchange_prompt;

/** What every exchange has.  Forms set request, sampling, chat, n and streams while they read. */
struct server_exchange {
    const exchange_form *form;
    const exchange_settings *settings; /**< Borrowed. */
    server_api api;
    char id[EXCHANGE_ID_BYTES]; /**< As given. */
    uint64_t created_s;         /**< Unix time at which it was opened. */
    const char *model_name;     /**< What answers call the model; borrowed. */
    uint32_t n;                 /**< Choices of each prompt. */
    bool streams;
    bool only_counts;       /**< Nothing but the prompt is wanted, however long. */
    bool has_seed;          /**< The body gave one. */
    bool tells_prompt_once; /**< Only the first of n choices has logprobs of the prompt. */
    exchange_prompt *prompts;
    size_t n_prompts;
    uint64_t n_prompt_tokens;
    qn_request request;       /**< All but ids and sampling. */
    qn_sampling sampling;     /**< Seed: the first choice's. */
    qn_chat_options chat;     /**< How messages are rendered. */
    qn_buf ignored;           /**< Names of hints. */
    char *text;               /**< The body, NUL-terminated; until it is shrunk, as what follows. */
    qn_json_doc doc;          /**< ... parsed; */
    const qn_json_node *body; /**< its first node. */
    qn_logit_bias *bias;      /**< What request and sampling point to; owned. */
    char *cache_salt;
    char *stops[QN_STOPS_MAX]; /**< Likewise, but kept, as an answer says which one ended it. */
    int32_t stop_ids[QN_STOPS_MAX];
};

/* ------------------------------------------------------------------------------- reading bodies */

/** In exchange_parameter.apis: only where the prompt is all that is wanted. */
enum { EXCHANGE_PROMPT_ALONE = 1 << 8 };

/** What a parameter is. */
typedef enum exchange_kind {
    EXCHANGE_REAL,  /**< A number in min .. max; float */
    EXCHANGE_WHOLE, /**< A whole number likewise; uint32_t or int32_t */
    EXCHANGE_FLAG,  /**< true or false; bool */
    EXCHANGE_READ,  /**< read() does it. */
    EXCHANGE_ONLY,  /**< Nothing but this value is built. */
    EXCHANGE_HINT,  /**< Says nothing about the answer. */
    EXCHANGE_LATER, /**< Read elsewhere. */
} exchange_kind;

/** Reads the value, not null, of the parameter called @p name.  False: *error says why. */
typedef bool exchange_read_fn(server_exchange *x, const char *name, const qn_json_node *value,
                              server_error *error);

/** A parameter of a body. */
typedef struct exchange_parameter {
    const char *name;
    unsigned apis; /**< Bits 1 << server_api: whose it is; EXCHANGE_PROMPT_ALONE. */
    exchange_kind kind;
    size_t offset; /**< Of the field in the form's struct. */
    double min, max;
    exchange_read_fn *read;
    const char *only; /**< JSON as Python prints it. */
} exchange_parameter;

/**
 * Read each member of @p object by the table [n_parameters].  null is as if it were not there.
 * Unknown ones are refused with the nearest known name; @p docs names the page that lists them.
 */
bool exchange_read_members(server_exchange *x, const qn_json_node *object,
                           const exchange_parameter *parameters, size_t n_parameters,
                           const char *docs, server_error *error);

/** Name something that the body gave and that says nothing about the answer, once. */
bool exchange_ignore(server_exchange *x, const char *name, server_error *error);

/** 400 "PARAM: SEEN, expected EXPECTED" with exchange_bad_value.  Always false. */
bool exchange_refuse(server_error *error, const char *param, const qn_json_node *seen,
                     const char *expected);
/** The same with exchange_not_built. */
bool exchange_refuse_unbuilt(server_error *error, const char *param, const qn_json_node *seen,
                             const char *expected);
/** 503.  Always false. */
bool exchange_no_memory(server_error *error);
/** Is it QN_OK?  Else the error is server_error_of() it. */
bool exchange_is_ok(const server_exchange *x, qn_status status, const qn_error *why,
                    server_error *error);

/** The member, where @p object has it and it is not null; else NULL. */
const qn_json_node *exchange_member(const qn_json_node *object, const char *key);
/** Is @p node (may be NULL) this text? */
bool exchange_is_text(const qn_json_node *node, const char *text);
/** The bytes that a string stands for, NUL-terminated, owned by the caller (free); NULL: no memory,
 * which *error says. */
char *exchange_text(const qn_json_node *string, size_t *len, server_error *error);
/** Is it a whole number in int64_t? */
bool exchange_whole(int64_t *out, const qn_json_node *value);

/** Stop texts: one or a list. */
exchange_read_fn exchange_read_stops;
/** Stop ids. */
exchange_read_fn exchange_read_stop_ids;
/** An object of token ids and what is added to their logits. */
exchange_read_fn exchange_read_bias;
/** 64 bits. */
exchange_read_fn exchange_read_seed;
/** A text. */
exchange_read_fn exchange_read_salt;
/** One of the settings' names; else 404. */
exchange_read_fn exchange_read_model;

/** Take a prompt's ids (owned from now on, also on failure), which must be some and fit. */
bool exchange_add_prompt(server_exchange *x, int32_t *ids, size_t n_ids, server_error *error);
/** The same of a list of ids, which is called @p param. */
bool exchange_add_ids(server_exchange *x, const qn_json_node *list, const char *param,
                      server_error *error);
/** The same of a text, in which the names of control tokens are the tokens. */
bool exchange_add_text(server_exchange *x, const qn_json_node *string, server_error *error);

/** Render messages in OpenAI's form, by x->chat, as the one prompt; tools, where they are, become
 * the request's too.  @p messages and x->chat.tools_json must live as long as x->text. */
bool exchange_add_messages(server_exchange *x, qn_str messages, server_error *error);
#endif

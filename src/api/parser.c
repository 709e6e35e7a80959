/* SPDX-License-Identifier: Apache-2.0 */
#include "chat/parser.h"

#include "quern/quern.h"

#include "api/internal.h"

#include <errno.h>
#include <inttypes.h>

struct qn_parser {
    const qn_model *model; /* borrowed */
    qn_chat_parser *core;  /* owned */
};

qn_status qn_parser_open(qn_parser **out, const qn_model *model, const qn_parser_options *options,
                         qn_error *err)
{
    *out = NULL;
    if (options->prompt == NULL && options->n_prompt > 0) {
        return qn_fail(err, QN_E_INVAL, 0, __func__, "prompt: NULL, a list of %zu expected",
                       options->n_prompt);
    }
    qn_parser *parser = calloc(1, sizeof *parser);
    if (parser == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "parser: no memory");
    }
    parser->model = model;
    const qn_status status = qn_chat_parser_open(&parser->core, model->tokenizer, options, err);
    if (status < 0) {
        qn_parser_close(&parser);
        return status;
    }
    *out = parser;
    return QN_OK;
}

qn_status qn_parser_feed(qn_parser *parser, int32_t token, qn_error *err)
{
    const uint32_t n_vocab = parser->model->config.n_vocab;
    if (token < 0 || (uint32_t)token >= n_vocab) {
        return qn_fail(err, QN_E_INVAL, 0, __func__, "id %" PRId32 ": 0 to %u expected", token,
                       n_vocab - 1);
    }
    qn_chat_parser_feed(parser->core, token);
    return QN_OK;
}

void qn_parser_feed_text(qn_parser *parser, const char *text, size_t len)
{
    qn_chat_parser_feed_text(parser->core, (qn_str){.ptr = text, .len = len});
}

void qn_parser_end(qn_parser *parser)
{
    qn_chat_parser_end(parser->core);
}

uint64_t qn_parser_reasoning_tokens(const qn_parser *parser)
{
    return qn_chat_parser_n_reasoning(parser->core);
}

void qn_parser_close(qn_parser **parser)
{
    if (parser == NULL || *parser == NULL) {
        return;
    }
    qn_chat_parser_close(&(*parser)->core);
    free(*parser);
    *parser = NULL;
}

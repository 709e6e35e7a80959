/* SPDX-License-Identifier: Apache-2.0 */
#include "chat/output.h"

#include "quern/quern.h"

#include "api/internal.h"

#include <errno.h>
#include <inttypes.h>

struct qn_output {
    qn_chat_output splitter;
    const qn_model *model; /* borrowed */
    qn_output_fn *fn;
    void *context;
};

static void pass_on(void *context, qn_chat_part part, const char *text, size_t len)
{
    const qn_output *const output = context;
    output->fn(output->context, part == QN_CHAT_REASONING ? QN_OUTPUT_REASONING : QN_OUTPUT_TEXT,
               text, len);
}

qn_status qn_output_open(qn_output **out, const qn_model *model, const int32_t *prompt,
                         size_t n_prompt, qn_output_fn *fn, void *context, qn_error *err)
{
    *out = NULL;
    qn_output *const output = calloc(1, sizeof *output);
    if (output == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "output: no memory");
    }
    output->model = model;
    output->fn = fn;
    output->context = context;
    qn_chat_output_init(&output->splitter, model->tokenizer, prompt, n_prompt, pass_on, output);
    *out = output;
    return QN_OK;
}

qn_status qn_output_feed(qn_output *output, int32_t token, qn_error *err)
{
    const uint32_t n_vocab = output->model->config.n_vocab;
    if (token < 0 || (uint32_t)token >= n_vocab) {
        return qn_fail(err, QN_E_INVAL, 0, __func__, "id %" PRId32 ": 0 to %u expected", token,
                       n_vocab - 1);
    }
    return qn_chat_output_feed(&output->splitter, token, err);
}

void qn_output_end(qn_output *output)
{
    qn_chat_output_end(&output->splitter);
}

uint64_t qn_output_reasoning_tokens(const qn_output *output)
{
    return output->splitter.n_reasoning;
}

void qn_output_close(qn_output **output)
{
    if (output == NULL || *output == NULL) {
        return;
    }
    qn_chat_output_deinit(&(*output)->splitter);
    free(*output);
    *output = NULL;
}

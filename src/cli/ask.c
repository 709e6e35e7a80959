/* SPDX-License-Identifier: Apache-2.0 */
#include "ask.h"

#include "report.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define ASK(field)  offsetof(cli_ask, field)
#define TALK(field) offsetof(cli_talk, field)

const cli_option cli_talk_options[CLI_N_TALK_OPTIONS] = {
    {"system", 0, CLI_TEXT, "TEXT", TALK(system), 0, 0, "The system message"},
    {"tools", 0, CLI_TEXT, "FILE.json", TALK(tools), 0, 0,
     "Functions that the model may call, as a JSON array in OpenAI form"},
    CLI_THINKING(TALK(thinking)),
    CLI_EFFORT(TALK(effort)),
    {"keep-thinking", 0, CLI_FLAG, NULL, TALK(keep_thinking), 0, 0,
     "Keep what the model thought in earlier turns"},
};

qn_status cli_talk_fill(qn_chat_options *options, char **tools, const cli_talk *talk, qn_error *err)
{
    *options = (qn_chat_options){
        .no_thinking = talk->thinking == 1,
        .is_effort_high = talk->effort == 1,
        .keep_thinking = talk->keep_thinking,
    };
    *tools = NULL;
    const qn_status status =
        talk->tools != NULL ? cli_read_text(tools, &options->tools_len, talk->tools, err) : QN_OK;
    options->tools_json = *tools;
    return status;
}

const cli_option cli_ask_options[CLI_N_ASK_OPTIONS] = {
    {"max-tokens", 0, CLI_COUNT, "N", ASK(max_tokens), 0, 1 << 24,
     "Stop after N tokens; 0: only compute the prompt (default: until the model stops)"},
    {"min-tokens", 0, CLI_COUNT, "N", ASK(min_tokens), 0, 1 << 24,
     "Do not stop before N tokens (default 0)"},
    {"stop", 0, CLI_LIST, "TEXT", ASK(stops), 0, QN_STOPS_MAX,
     "Stop where the answer would say TEXT, which is left out; may be given several times"},
    {"stop-id", 0, CLI_LIST, "ID", ASK(stop_ids), 0, QN_STOPS_MAX,
     "Stop at this token; may be given several times"},
    {"ignore-eos", 0, CLI_FLAG, NULL, ASK(ignore_eos), 0, 0, "Go on after the model's stop tokens"},
    CLI_TEMPERATURE(ASK(temperature), ": the model's"),
    CLI_TOP_P(ASK(top_p), ": the model's"),
    CLI_TOP_K(ASK(top_k), ": the model's"),
    CLI_MIN_P(ASK(min_p), ": the model's"),
    {"repetition-penalty", 0, CLI_NUMBER, "X", ASK(repetition_penalty), 0.01, 10,
     "Divide logits of tokens that prompt or answer have by X; 1: off (default: the model's)"},
    {"presence-penalty", 0, CLI_NUMBER, "X", ASK(presence_penalty), -2, 2,
     "Subtract X from logits of tokens that the answer has (default 0)"},
    {"frequency-penalty", 0, CLI_NUMBER, "X", ASK(frequency_penalty), -2, 2,
     "Subtract X from a logit for each time that the answer has the token (default 0)"},
    {"logit-bias", 0, CLI_LIST, "ID:X,...", ASK(logit_bias), 0, CLI_LIST_MAX,
     "Add X to the logit of a token; -inf bans it; may be given several times"},
    {"seed", 0, CLI_COUNT, "N", ASK(seed), 0, 9007199254740991.0,
     "The same seed draws the same answer (default: a random one)"},
    CLI_DRAFT_TOKENS(ASK(draft_tokens), " 5; 0 where the model lacks the layer"),
    {"acceptance-length", 0, CLI_NUMBER, "X", ASK(acceptance_length), 1, QN_DRAFT_TOKENS_MAX + 1,
     "For benchmarks: accept drafts unseen so that steps emit X tokens on average; the answer is "
     "then not the model's, and the output says synthetic"},
};

qn_status cli_talk_encode(int32_t **ids, size_t *n_ids, const qn_model *model,
                          const qn_chat_options *options, const cli_talk *talk,
                          const cli_messages *messages, qn_error *err)
{
    qn_error why = {0};
    const qn_status status =
        qn_chat_encode(ids, n_ids, model, options, messages->json, messages->len, &why);
    const bool is_of_tools = strncmp(why.text, "tools", strlen("tools")) == 0;
    const char *const path = is_of_tools ? talk->tools : messages->path;
    if (status == QN_E_FORMAT && path != NULL) {
        return qn_fail(err, status, why.sys, why.where, "%s: %s", path, why.text);
    }
    *err = status < 0 ? why : *err;
    return status;
}

qn_status cli_talk_encode_text(int32_t **ids, size_t *n_ids, const qn_model *model,
                               const qn_chat_options *options, const cli_talk *talk,
                               const char *text, size_t len, qn_error *err)
{
    char *json = NULL;
    qn_status status = cli_user_message(&json, talk->system, text, len, err);
    if (status == QN_OK) {
        const cli_messages messages = {.json = json, .len = strlen(json)};
        status = cli_talk_encode(ids, n_ids, model, options, talk, &messages, err);
    }
    free(json);
    return status;
}

void cli_ask_init(cli_ask *ask)
{
    ask->temperature = ask->top_p = ask->min_p = (double)NAN;
    ask->repetition_penalty = ask->presence_penalty = ask->frequency_penalty = (double)NAN;
    ask->acceptance_length = (double)NAN;
    ask->top_k = ask->seed = ask->max_tokens = UINT64_MAX;
}

void cli_ask_warn(const cli_ask *ask)
{
    if (!isnan(ask->acceptance_length)) {
        (void)fprintf(stderr,
                      "quern: warning: --acceptance-length %g: synthetic, the answer is not the "
                      "model's\n",
                      ask->acceptance_length);
    }
}

static float or_default(double given, float otherwise)
{
    return isnan(given) ? otherwise : (float)given;
}

/* "ID:BIAS,ID:BIAS"; blanks may stand around the commas. */
static qn_status parse_bias(cli_asked *asked, const char *text, qn_error *err)
{
    uint32_t n = asked->sampling.n_logit_bias;
    for (const char *at = text + strspn(text, ", "); *at != '\0'; at += strspn(at, ", ")) {
        char *end = NULL;
        errno = 0;
        const long id = strtol(at, &end, 10);
        const bool has_id = end != at && errno == 0 && id >= 0 && id <= INT32_MAX && *end == ':';
        const char *const number = has_id ? end + 1 : at;
        const float bias = has_id ? strtof(number, &end) : 0.0F;
        if (!has_id || end == number || strchr(", ", *end) == NULL) {
            return qn_fail(err, QN_E_INVAL, 0, __func__,
                           "--logit-bias: \"%.32s\", expected ID:NUMBER pairs separated by commas",
                           at);
        }
        if (n == QN_LOGIT_BIAS_MAX) {
            return qn_fail(err, QN_E_INVAL, 0, __func__,
                           "--logit-bias: over %d pairs, expected at most that", QN_LOGIT_BIAS_MAX);
        }
        asked->bias[n++] = (qn_logit_bias){.token = (int32_t)id, .bias = bias};
        at = end;
    }
    asked->sampling.logit_bias = asked->bias;
    asked->sampling.n_logit_bias = n;
    return QN_OK;
}

qn_status cli_parse_draft(int *out, const char *option, const char *text, qn_error *err)
{
    char *end = NULL;
    const long n = strtol(text, &end, 10);
    if (strcmp(text, "auto") == 0) {
        *out = QN_DRAFT_AUTO;
    } else if (end != text && *end == '\0' && n >= 0 && n <= QN_DRAFT_TOKENS_MAX) {
        *out = n == 0 ? QN_DRAFT_NONE : (int)n;
    } else {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "%s: \"%.32s\", expected auto or a whole number in 0 .. %d", option, text,
                       QN_DRAFT_TOKENS_MAX);
    }
    return QN_OK;
}

static qn_status parse_stop_ids(qn_request *request, cli_asked *asked, const cli_list *list,
                                qn_error *err)
{
    for (size_t i = 0; i < list->n_items; i++) {
        char *end = NULL;
        errno = 0;
        const long id = strtol(list->items[i], &end, 10);
        if (end == list->items[i] || *end != '\0' || errno != 0 || id < 0 || id > INT32_MAX) {
            return qn_fail(err, QN_E_INVAL, 0, __func__,
                           "--stop-id: \"%.32s\", expected a token id", list->items[i]);
        }
        asked->stop_ids[i] = (int32_t)id;
    }
    request->stop_ids = asked->stop_ids;
    request->n_stop_ids = list->n_items;
    return QN_OK;
}

static void fill_sampling(qn_sampling *s, const cli_ask *ask)
{
    s->temperature = or_default(ask->temperature, s->temperature);
    s->top_p = or_default(ask->top_p, s->top_p);
    s->min_p = or_default(ask->min_p, s->min_p);
    s->repetition_penalty = or_default(ask->repetition_penalty, s->repetition_penalty);
    s->presence_penalty = or_default(ask->presence_penalty, s->presence_penalty);
    s->frequency_penalty = or_default(ask->frequency_penalty, s->frequency_penalty);
    s->top_k = ask->top_k == UINT64_MAX ? s->top_k : (uint32_t)ask->top_k;
    s->seed = ask->seed;
    if (ask->seed == UINT64_MAX && getrandom(&s->seed, sizeof s->seed, 0) == sizeof s->seed) {
        s->seed &= (1ULL << 53) - 1; /* exact in JSON numbers */
    }
}

qn_status cli_ask_fill(qn_request *request, cli_asked *asked, const cli_ask *ask,
                       const qn_model_info *info, qn_error *err)
{
    qn_status status = QN_OK;
    asked->sampling = info->sampling;
    fill_sampling(&asked->sampling, ask);
    for (size_t i = 0; status == QN_OK && i < ask->logit_bias.n_items; i++) {
        status = parse_bias(asked, ask->logit_bias.items[i], err);
    }
    if (status == QN_OK && ask->draft_tokens != NULL) {
        status = cli_parse_draft(&request->draft_tokens, "--draft-tokens", ask->draft_tokens, err);
    }
    if (status == QN_OK) {
        status = parse_stop_ids(request, asked, &ask->stop_ids, err);
    }
    request->sampling = &asked->sampling;
    request->stops = ask->stops.items;
    request->n_stops = ask->stops.n_items;
    request->prompt_only = ask->max_tokens == 0;
    request->max_tokens = ask->max_tokens == UINT64_MAX ? 0 : (uint32_t)ask->max_tokens;
    request->min_tokens = (uint32_t)ask->min_tokens;
    request->acceptance_length = or_default(ask->acceptance_length, 0.0F);
    request->ignore_eos = ask->ignore_eos;
    return status;
}

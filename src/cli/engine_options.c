/* SPDX-License-Identifier: Apache-2.0 */
#include "engine_options.h"

#include "ask.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ENGINE(field) offsetof(cli_engine, field)

/* As qn_engine_options has it. */
enum { SEQUENCES_DEFAULT = 64, ROWS_BESIDE = 64 };

const cli_option cli_engine_options[CLI_N_ENGINE_OPTIONS] = {
    {"max-num-seqs max-running-requests", 0, CLI_COUNT, "N", ENGINE(n_sequences), 1,
     QN_ENGINE_SEQUENCES_MAX, "Sequences that run at once (default 64)"},
    {"max-num-batched-tokens chunked-prefill-size max-prefill-tokens", 0, CLI_COUNT, "N",
     ENGINE(n_step_rows), ROWS_BESIDE + 1, QN_ENGINE_ROWS_MAX,
     "Rows of a step: prompts are computed in chunks of what decoding leaves of it (default 512, "
     "on a GPU 2048, or 64 more than the sequences)"},
    {"page-cache", 0, CLI_TEXT, "SIZE", ENGINE(page_cache), 0, 0,
     "Memory of the cache, such as 8G or 512M (default: what the sequences need, at most a quarter "
     "of the machine's, of a GPU's what is free)"},
    {"context max-model-len context-length", 0, CLI_COUNT, "N", ENGINE(context), 1, 1 << 24,
     "Positions of a sequence (default: the model's maximum)"},
    CLI_DRAFT_TOKENS(ENGINE(draft_tokens), " auto: as many as pay by batch and acceptance"),
    {"no-prefix-cache no-enable-prefix-caching disable-radix-cache", 0, CLI_FLAG, NULL,
     ENGINE(no_prefix_cache), 0, 0, "Compute every prompt whole, though another began the same"},
    {"enable-prefix-caching", 0, CLI_CLEAR, NULL, ENGINE(no_prefix_cache), 0, 0,
     "The opposite, which is the default"},
};

qn_status cli_parse_size(uint64_t *bytes, const char *option, const char *text, qn_error *err)
{
    static const char units[] = "KMGT";
    char *end = NULL;
    errno = 0;
    const double number = text[0] >= '0' && text[0] <= '9' ? strtod(text, &end) : 0.0;
    const char *unit = end != NULL && *end != '\0' ? strchr(units, *end) : NULL;
    const uint64_t scale = unit != NULL ? 1024ULL << 10 * (unit - units) : 1;
    if (unit != NULL) {
        end += strcmp(end + 1, "iB") == 0 ? 3 : strcmp(end + 1, "B") == 0 ? 2 : 1;
    }
    if (end == NULL || *end != '\0' || errno != 0 || !(number * (double)scale >= 1.0) ||
        number * (double)scale > 0x1p60) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "%s: \"%.32s\", expected a size such as 8G, 512M or 1.5T", option, text);
    }
    *bytes = (uint64_t)(number * (double)scale);
    return QN_OK;
}

qn_status cli_engine_fill(qn_engine_options *options, int *draft_tokens, const cli_engine *from,
                          qn_error *err)
{
    qn_status status = QN_OK;
    const uint64_t n_sequences = from->n_sequences > 0 ? from->n_sequences : SEQUENCES_DEFAULT;
    const uint64_t least = n_sequences + ROWS_BESIDE;
    const uint64_t n_rows = from->n_step_rows; /* 0: the engine has a default */
    *options = (qn_engine_options){0};
    *draft_tokens = QN_DRAFT_DEFAULT;
    if (n_rows > 0 && n_rows < least) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "--max-num-batched-tokens, --chunked-prefill-size: %llu, expected at least "
                       "%llu, %d more than "
                       "--max-num-seqs",
                       (unsigned long long)n_rows, (unsigned long long)least, ROWS_BESIDE);
    }
    if (from->draft_tokens != NULL) {
        status = cli_parse_draft(draft_tokens, "--draft-tokens", from->draft_tokens, err);
    }
    *options = (qn_engine_options){
        .n_sequences = (uint32_t)n_sequences,
        .n_step_rows = (uint32_t)n_rows,
        .context_tokens = (uint32_t)from->context,
        .no_mtp = *draft_tokens == QN_DRAFT_NONE,
        .no_prefix_cache = from->no_prefix_cache,
    };
    if (status == QN_OK && from->page_cache != NULL) {
        status = cli_parse_size(&options->cache_bytes, "--page-cache", from->page_cache, err);
    }
    return status;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "commands.h"
#include "report.h"

#include <stdlib.h>

typedef struct detokenize_values {
    cli_common common;
    const char *ids, *tokenizer_dir;
    bool as_json;
} detokenize_values;

#define FIELD(field) offsetof(detokenize_values, field)

static const cli_option options[] = {
    {"ids", 0, CLI_TEXT, "LIST", FIELD(ids), 0, 0,
     "Token ids separated by commas or blanks (default: read from stdin)"},
    {"tokenizer", 0, CLI_TEXT, "DIR", FIELD(tokenizer_dir), 0, 0,
     "Take tokenizer.json from this folder"},
    {"json", 0, CLI_FLAG, NULL, FIELD(as_json), 0, 0, "Print {\"text\"}"},
};

static int run(void *values, int n_arguments, char **arguments)
{
    const detokenize_values *v = values;
    qn_error err = {0};
    if (n_arguments == 0) {
        return cli_fail(QN_E_INVAL, "detokenize: no model, expected a folder or owner/name");
    }
    const qn_model_options model_options = {.tokenizer_only = true,
                                            .tokenizer_dir = v->tokenizer_dir};
    qn_model *model = NULL;
    int32_t *ids = NULL;
    size_t n_ids = 0;
    char *list = NULL;
    char *text = NULL;
    size_t len = 0;
    qn_status status = qn_model_open(&model, arguments[0], &model_options, &err);
    if (status == QN_OK && v->ids == NULL) {
        status = cli_read_text(&list, &len, NULL, &err);
    }
    if (status == QN_OK) {
        status = cli_parse_ids(&ids, &n_ids, v->ids != NULL ? v->ids : list, &err);
    }
    if (status == QN_OK) {
        status = qn_decode(&text, &len, model, ids, n_ids, &err);
    }
    int result;
    if (status != QN_OK) {
        result = cli_report(&err);
    } else if (v->as_json) {
        result = cli_print_json(json_pack("{so}", "text", json_stringn(text, len)));
    } else {
        cli_write(text, len);
        cli_write("\n", 1);
        result = cli_flush(CLI_DONE);
    }
    qn_free(text);
    free(ids);
    free(list);
    qn_model_close(&model);
    return result;
}

const cli_command cmd_detokenize = {
    .name = "detokenize",
    .summary = "Turn token ids into text",
    .synopsis = "MODEL [--ids LIST] [--json]",
    .description = "Prints the text of a list of token ids. Control tokens are spelled out; bytes "
                   "that form no character become U+FFFD.",
    .examples = "quern detokenize models/glm-nano --ids 1230,15,288\n"
                "quern tokenize models/glm-nano -p Hello | quern detokenize models/glm-nano\n",
    .groups = {{"Options", options, sizeof options / sizeof *options, 0}, CLI_COMMON_GROUP},
    .n_groups = 2,
    .n_arguments_max = 1,
    .run = run,
};

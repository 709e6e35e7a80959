/* SPDX-License-Identifier: Apache-2.0 */
#include "options.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COMMON(field) offsetof(cli_common, field)
#define MODEL(field)  offsetof(cli_model, field)

const cli_option cli_common_options[CLI_N_COMMON_OPTIONS] = {
    {"quiet", 'q', CLI_FLAG, NULL, COMMON(is_quiet), 0, 0, "Print results and errors only"},
    {"log-level", 0, CLI_CHOICE, "error|warn|info|debug", COMMON(log_level), 0, 0,
     "How much is logged to stderr (default warn)"},
    {"log-format", 0, CLI_CHOICE, "text|json", COMMON(log_as_json), 0, 0,
     "Form of log lines (default text)"},
    {"color", 0, CLI_CHOICE, "auto|always|never", COMMON(color), 0, 0,
     "Colour on the terminal (default auto; NO_COLOR is honoured)"},
    {"version", 0, CLI_FLAG, NULL, COMMON(wants_version), 0, 0,
     "Print version, commit, compiler and the kernels built in"},
    {"help", 'h', CLI_FLAG, NULL, COMMON(wants_help), 0, 0, "Print this page"},
};

const cli_option cli_model_options[CLI_N_MODEL_OPTIONS] = {
    {"tokenizer", 0, CLI_TEXT, "DIR", MODEL(tokenizer_dir), 0, 0,
     "Take tokenizer.json from this folder"},
    {"load-format", 0, CLI_CHOICE, "auto|dummy", MODEL(load_format), 0, 0,
     "dummy: seeded random weights of the configuration's shapes; only config.json is needed"},
    {"device", 0, CLI_TEXT, "auto|cpu", MODEL(device), 0, 0, "Where to compute (default auto)"},
    {"threads", 0, CLI_COUNT, "N", MODEL(n_threads), 1, 4096,
     "Threads that compute (default: one for each CPU granted)"},
    {"cpu-mask", 0, CLI_TEXT, "LEVEL", MODEL(cpu_mask), 0, 0,
     "Best kernel level allowed: ref, avx2, avx512, avx512bf16, amx"},
    {"compute", 0, CLI_CHOICE, "auto|f32|bf16|int8", MODEL(compute), 0, 0,
     "Arithmetic of matrix products (default auto: int8 with MXFP4 weights, else bf16)"},
    {"kv-dtype", 0, CLI_CHOICE, "auto|bf16|f32|fp8", MODEL(kv_dtype), 0, 0,
     "Storage of cache rows (default auto: f32 with compute f32, else bf16)"},
    {"chat-format", 0, CLI_TEXT, "auto|glm5|glm5.1|glm5.2", MODEL(chat_format), 0, 0,
     "Prompt format (default auto: by the template beside the model, then by config.json)"},
    {"strict", 0, CLI_FLAG, NULL, MODEL(strict), 0, 0,
     "What would be a warning about the model is an error"},
};

void cli_model_fill(qn_model_options *options, const cli_model *from)
{
    options->tokenizer_dir = from->tokenizer_dir;
    options->device = from->device;
    options->cpu_mask = from->cpu_mask;
    options->chat_format = from->chat_format;
    options->n_threads = (uint32_t)from->n_threads;
    options->compute = (qn_compute)from->compute; /* the words stand in the order of the enum */
    options->kv_dtype = (qn_kv_dtype)from->kv_dtype;
    options->use_dummy_weights = from->load_format == 1;
    options->strict = from->strict;
}

const cli_command *cli_command_find(const char *name)
{
    for (size_t i = 0; cli_commands[i] != NULL; i++) {
        if (strcmp(cli_commands[i]->name, name) == 0) {
            return cli_commands[i];
        }
    }
    return NULL;
}

/* ------------------------------------------------------------------------------- suggestions -- */

enum { WORD_MAX = 48 };

static size_t min3(size_t a, size_t b, size_t c)
{
    const size_t ab = a < b ? a : b;
    return ab < c ? ab : c;
}

/* Optimal string alignment distance: insert, delete, replace, swap neighbours. */
static size_t distance(const char *a, const char *b)
{
    const size_t n = strlen(a);
    const size_t m = strlen(b);
    size_t d[WORD_MAX + 1][WORD_MAX + 1];
    if (n > WORD_MAX || m > WORD_MAX) {
        return SIZE_MAX; /* nobody means that */
    }
    for (size_t i = 0; i <= n; i++) {
        for (size_t j = 0; j <= m; j++) {
            if (i == 0 || j == 0) {
                d[i][j] = i + j;
                continue;
            }
            d[i][j] =
                min3(d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                d[i - 2][j - 2] + 1 < d[i][j]) {
                d[i][j] = d[i - 2][j - 2] + 1;
            }
        }
    }
    return d[n][m];
}

const char *cli_nearest(const char *word, const char *(*get)(const void *list, size_t i),
                        const void *list, size_t n)
{
    const char *best = NULL;
    for (size_t i = 0; i < n && strlen(word) > 1; i++) { /* a word that was not finished */
        const char *here = get(list, i);
        if (strncmp(here, word, strlen(word)) == 0 &&
            (best == NULL || strlen(here) < strlen(best))) {
            best = here;
        }
    }
    if (best != NULL) {
        return best;
    }
    size_t best_distance = 1 + strlen(word) / 4; /* further away is another word */
    for (size_t i = 0; i < n; i++) {
        const size_t here = distance(word, get(list, i));
        if (here <= best_distance && (best == NULL || here < best_distance)) {
            best = get(list, i);
            best_distance = here;
        }
    }
    return best;
}

/* ------------------------------------------------------------------------------------ parsing */

/* An option and the struct field it fills. */
typedef struct found {
    const cli_option *option;
    void *field;
} found;

/* Options of the contract that come with later versions: said, not guessed at. */
static const char *const later_options[] = {
    "page-cache", "tp", "tensor-parallel-size", "tp-size", "dp", "deterministic",
};

typedef struct parse {
    const cli_command *command;
    void *values;
    qn_error *err;
} parse;

static found find(const parse *p, const char *name, size_t len, char letter)
{
    for (size_t g = 0; g < p->command->n_groups; g++) {
        const cli_group *group = &p->command->groups[g];
        for (size_t i = 0; i < group->n_options; i++) {
            const cli_option *o = &group->options[i];
            if (letter != 0 ? o->letter == letter
                            : strlen(o->name) == len && memcmp(o->name, name, len) == 0) {
                return (found){o, (char *)p->values + group->offset + o->offset};
            }
        }
    }
    return (found){0};
}

static const char *option_name(const void *list, size_t i)
{
    const cli_command *command = list;
    for (size_t g = 0; g < command->n_groups; g++) {
        if (i < command->groups[g].n_options) {
            return command->groups[g].options[i].name;
        }
        i -= command->groups[g].n_options;
    }
    return "";
}

static qn_status unknown(const parse *p, const char *seen, const char *name, size_t len)
{
    char word[WORD_MAX + 1];
    (void)snprintf(word, sizeof word, "%.*s", (int)(len < WORD_MAX ? len : WORD_MAX), name);
    for (size_t i = 0; i < sizeof later_options / sizeof *later_options; i++) {
        if (strcmp(word, later_options[i]) == 0) {
            return qn_fail(p->err, QN_E_INVAL, 0, __func__,
                           "%.64s: not supported by this version, expected an option of 'quern "
                           "help %s'",
                           seen, p->command->name);
        }
    }
    size_t n = 0;
    for (size_t g = 0; g < p->command->n_groups; g++) {
        n += p->command->groups[g].n_options;
    }
    const char *near = cli_nearest(word, option_name, p->command, n);
    if (near != NULL) {
        return qn_fail(p->err, QN_E_INVAL, 0, __func__, "%.64s: no such option, did you mean --%s?",
                       seen, near);
    }
    return qn_fail(p->err, QN_E_INVAL, 0, __func__,
                   "%.64s: no such option, expected one of 'quern help %s'", seen,
                   p->command->name);
}

static qn_status take_choice(const parse *p, found f, const char *text)
{
    const char *word = f.option->metavar;
    for (int i = 0;; i++) {
        const size_t len = strcspn(word, "|");
        if (strlen(text) == len && memcmp(text, word, len) == 0) {
            *(int *)f.field = i;
            return QN_OK;
        }
        if (word[len] == '\0') {
            return qn_fail(p->err, QN_E_INVAL, 0, __func__, "--%s: \"%s\", expected %s",
                           f.option->name, text, f.option->metavar);
        }
        word += len + 1;
    }
}

static qn_status take_number(const parse *p, found f, const char *text)
{
    const cli_option *o = f.option;
    char *end = NULL;
    errno = 0;
    const bool is_count = o->kind == CLI_COUNT;
    /* strtoull would take a sign and blanks. */
    const bool has_digit = text[0] >= '0' && text[0] <= '9';
    const uint64_t count = is_count ? strtoull(text, &end, 10) : 0;
    const double number = is_count ? (double)count : strtod(text, &end);
    if (end == text || *end != '\0' || errno == ERANGE || (is_count && !has_digit) ||
        !(number >= o->min && number <= o->max)) {
        return qn_fail(p->err, QN_E_INVAL, 0, __func__,
                       "--%s: \"%s\", expected a %s in %.15g .. %.15g", o->name, text,
                       is_count ? "whole number" : "number", o->min, o->max);
    }
    if (is_count) {
        *(uint64_t *)f.field = count;
    } else {
        *(double *)f.field = number;
    }
    return QN_OK;
}

static qn_status take_item(const parse *p, found f, const char *text)
{
    cli_list *const list = f.field;
    const size_t n_max = (size_t)f.option->max;
    if (list->n_items == n_max) {
        return qn_fail(p->err, QN_E_INVAL, 0, __func__,
                       "--%s: given more than %zu times, expected at most that", f.option->name,
                       n_max);
    }
    list->items[list->n_items++] = text;
    return QN_OK;
}

static qn_status take(const parse *p, found f, const char *text)
{
    switch (f.option->kind) {
    case CLI_FLAG: *(bool *)f.field = true; return QN_OK;
    case CLI_TEXT: *(const char **)f.field = text; return QN_OK;
    case CLI_CHOICE: return take_choice(p, f, text);
    case CLI_LIST: return take_item(p, f, text);
    case CLI_COUNT:
    case CLI_NUMBER: return take_number(p, f, text);
    }
    return QN_OK;
}

/* One argument that begins with a dash; may use the next one.  *at moves past what was used. */
static qn_status parse_option(const parse *p, int argc, char **argv, int *at)
{
    const char *seen = argv[*at];
    const bool is_long = seen[1] == '-';
    const char *name = seen + (is_long ? 2 : 1);
    const size_t len = is_long ? strcspn(name, "=") : 1;
    const char letter = name[0];
    const found f = is_long ? find(p, name, len, '\0') : find(p, name, len, letter);
    if (f.option == NULL) {
        return unknown(p, seen, name, is_long ? len : strlen(name));
    }
    const char *value = NULL;
    if (is_long && name[len] == '=') {
        value = name + len + 1;
    } else if (!is_long && name[1] != '\0') {
        value = name + 1; /* -pTEXT */
    }
    if (f.option->kind == CLI_FLAG && value != NULL) {
        return qn_fail(p->err, QN_E_INVAL, 0, __func__, "%s: a value, expected none", seen);
    }
    if (f.option->kind != CLI_FLAG && value == NULL) {
        if (*at + 1 >= argc) {
            return qn_fail(p->err, QN_E_INVAL, 0, __func__, "%s: no value, expected %s", seen,
                           f.option->metavar);
        }
        value = argv[++*at];
    }
    (*at)++;
    return take(p, f, value);
}

qn_status cli_parse(const cli_command *command, void *values, int argc, char **argv,
                    int *n_arguments, qn_error *err)
{
    const parse p = {command, values, err};
    bool options_over = false;
    *n_arguments = 0;
    for (int at = 0; at < argc;) {
        if (!options_over && strcmp(argv[at], "--") == 0) {
            options_over = true;
            at++;
        } else if (!options_over && argv[at][0] == '-' && argv[at][1] != '\0') {
            const qn_status status = parse_option(&p, argc, argv, &at);
            if (status < 0) {
                return status;
            }
        } else {
            argv[(*n_arguments)++] = argv[at++];
        }
    }
    const cli_common *common = values;
    if (!common->wants_help && (size_t)*n_arguments > command->n_arguments_max) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "%s: one argument too many, expected: quern %s %s",
                       argv[command->n_arguments_max], command->name, command->synopsis);
    }
    return QN_OK;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "options.h"

#include "server/nearest.h"

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
     "How much is logged to stderr (default warn; of serve info)"},
    {"log-format", 0, CLI_CHOICE, "text|json", COMMON(log_as_json), 0, 0,
     "Form of log lines (default text)"},
    {"color", 0, CLI_CHOICE, "auto|always|never", COMMON(color), 0, 0,
     "Colour on the terminal (default auto; NO_COLOR is honoured)"},
    {"version", 0, CLI_FLAG, NULL, COMMON(wants_version), 0, 0,
     "Print version, commit, compiler and the kernels built in"},
    {"help", 'h', CLI_FLAG, NULL, COMMON(wants_help), 0, 0, "Print this page"},
};

const cli_option cli_model_options[CLI_N_MODEL_OPTIONS] = {
    {"tokenizer tokenizer-path", 0, CLI_TEXT, "DIR", MODEL(tokenizer_dir), 0, 0,
     "Take tokenizer.json from this folder"},
    {"load-format", 0, CLI_CHOICE, "auto|dummy", MODEL(load_format), 0, 0,
     "dummy: seeded random weights of the configuration's shapes; only config.json is needed"},
    {"device", 0, CLI_TEXT, "DEVICE", MODEL(device), 0, 0,
     "Where to compute: auto (the CPU), cpu, cuda[:N], hip[:N]"},
    {"tuning", 0, CLI_TEXT, "FILE|DIR", MODEL(tuning), 0, 0,
     "GPU: which kernel a shape gets, as 'quern tune' writes it, or a folder of such files by "
     "device"
     " (default: what is built in)"},
    {"threads", 0, CLI_COUNT, "N", MODEL(n_threads), 1, 4096,
     "Threads that compute (default: one for each CPU granted)"},
    {"cpu-mask", 0, CLI_TEXT, "LEVEL", MODEL(cpu_mask), 0, 0,
     "Best kernel level allowed: ref, avx2, avx512, avx512bf16, amx"},
    {"compute", 0, CLI_CHOICE, "auto|f32|bf16|int8", MODEL(compute), 0, 0,
     "Arithmetic of matrix products (default auto: int8 with MXFP4 weights, else bf16; a GPU has "
     "bf16 alone)"},
    {"kv-dtype kv-cache-dtype", 0, CLI_CHOICE, "auto|bf16/bfloat16|f32/float32|fp8/fp8_e4m3",
     MODEL(kv_dtype), 0, 0,
     "Storage of cache rows (default auto: f32 with compute f32, else bf16; a GPU has bf16 and "
     "fp8); bfloat16, float32 and fp8_e4m3 are the same"},
    {"chat-format", 0, CLI_TEXT, "auto|glm5|glm5.1|glm5.2", MODEL(chat_format), 0, 0,
     "Prompt format (default auto: by the template beside the model, then by config.json)"},
    {"deterministic", 0, CLI_FLAG, NULL, MODEL(is_deterministic), 0, 0,
     "GPU: an answer's bits never depend on those beside it, as on the CPU; prompts take longer"},
    {"strict", 0, CLI_FLAG, NULL, MODEL(strict), 0, 0,
     "What would be a warning about the model, or about kernels that are not made for the machine, "
     "is an error"},
};

void cli_model_fill(qn_model_options *options, const cli_model *from)
{
    options->tokenizer_dir = from->tokenizer_dir;
    options->device = from->device;
    options->tuning = from->tuning;
    options->cpu_mask = from->cpu_mask;
    options->chat_format = from->chat_format;
    options->n_threads = (uint32_t)from->n_threads;
    options->dummy_seed = from->dummy_seed;
    options->compute = (qn_compute)from->compute; /* the words stand in the order of the enum */
    options->kv_dtype = (qn_kv_dtype)from->kv_dtype;
    options->use_dummy_weights = from->load_format == 1;
    options->strict = from->strict;
    options->is_deterministic = from->is_deterministic;
}

qn_status cli_parse_counts(uint32_t out[CLI_COUNTS_MAX], size_t *n_out, const char *option,
                           const char *text, unsigned long min, unsigned long max, qn_error *err)
{
    for (const char *at = text;; at++) {
        char *end = NULL;
        const unsigned long count = *at >= '0' && *at <= '9' ? strtoul(at, &end, 10) : 0;
        if (end == NULL || (*end != ',' && *end != '\0') || count < min || count > max ||
            *n_out == CLI_COUNTS_MAX) {
            return qn_fail(err, QN_E_INVAL, 0, __func__,
                           "%s: \"%.64s\", expected 1 to %d whole numbers in %lu .. %lu separated "
                           "by commas",
                           option, text, CLI_COUNTS_MAX, min, max);
        }
        for (size_t i = 0; i < *n_out; i++) {
            if (out[i] == count) {
                return qn_fail(err, QN_E_INVAL, 0, __func__,
                               "%s: \"%.64s\", expected each of them once", option, text);
            }
        }
        out[(*n_out)++] = (uint32_t)count;
        at = end;
        if (*at == '\0') {
            return QN_OK;
        }
    }
}

const char *cli_command_word(const cli_command *command)
{
    const char *const blank = strrchr(command->name, ' ');
    return blank == NULL ? command->name : blank + 1;
}

const cli_command *cli_command_find(const cli_command *const *list, const char *word)
{
    for (size_t i = 0; list[i] != NULL; i++) {
        if (strcmp(cli_command_word(list[i]), word) == 0) {
            return list[i];
        }
    }
    return NULL;
}

/* ------------------------------------------------------------------------------- suggestions -- */

/* Of a name in a list of names. */
static size_t word_len(const char *word)
{
    return strcspn(word, " ");
}

const char *cli_nearest(const char *word, const char *(*get)(const void *list, size_t i),
                        const void *list, size_t n)
{
    const char *best = NULL;
    for (size_t i = 0; i < n && strlen(word) > 1; i++) { /* a word that was not finished */
        const char *here = get(list, i);
        if (strncmp(here, word, strlen(word)) == 0 &&
            (best == NULL || word_len(here) < word_len(best))) {
            best = here;
        }
    }
    if (best != NULL) {
        return best;
    }
    size_t best_distance = 1 + strlen(word) / 4; /* further away is another word */
    for (size_t i = 0; i < n; i++) {
        const char *const name = get(list, i);
        const size_t here = nearest_distance(word, word_len(word), name, word_len(name));
        if (here <= best_distance && (best == NULL || here < best_distance)) {
            best = name;
            best_distance = here;
        }
    }
    return best;
}

/* ---------------------------------------------------------------------------------- the tables */

/* Of the contract, in commands that have not got them. */
static const cli_refused later_options[] = {
    {"page-cache", "it with serve, batch or bench engine"},
    {"tp tensor-parallel-size tp-size dp", "one device"},
};

/* The name [len] among those of an option; NULL. */
static const char *name_in(const char *names, const char *name, size_t len)
{
    for (; len > 0 && *names != '\0'; names += names[0] == ' ' ? 1 : 0) {
        const size_t n = word_len(names);
        if (n == len && memcmp(names, name, len) == 0) {
            return names;
        }
        names += n;
    }
    return NULL;
}

/* By name, or by @p letter where that is not 0. */
static cli_found find(const cli_command *command, void *values, const char *name, size_t len,
                      char letter)
{
    for (size_t g = 0; g < command->n_groups; g++) {
        const cli_group *group = &command->groups[g];
        for (size_t i = 0; i < group->n_options; i++) {
            const cli_option *o = &group->options[i];
            if (letter != 0 ? o->letter == letter : name_in(o->name, name, len) != NULL) {
                const size_t offset = group->offset + o->offset;
                return (cli_found){o, (char *)values + offset, (uint16_t)offset};
            }
        }
    }
    return (cli_found){0};
}

cli_found cli_find(const cli_command *command, void *values, const char *name, size_t len)
{
    return find(command, values, name, len, '\0');
}

/* Name number *i of a list of names; NULL where it has fewer, and then *i is less by as many. */
static const char *name_at(const char *names, size_t *i)
{
    for (; *names != '\0'; names += names[0] == ' ' ? 1 : 0) {
        if ((*i)-- == 0) {
            return names;
        }
        names += word_len(names);
    }
    return NULL;
}

/* Name number i of all that options have; NULL: there are not so many. */
static const char *option_name(const void *list, size_t i)
{
    const cli_command *command = list;
    const char *found = NULL;
    for (size_t g = 0; g < command->n_groups; g++) {
        const cli_group *const group = &command->groups[g];
        for (size_t o = 0; o < group->n_options && found == NULL; o++) {
            found = name_at(group->options[o].name, &i);
        }
    }
    return found;
}

/* What to do instead of an option that is refused; NULL: it is none. */
static const char *reason(const cli_refused *refused, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++) {
        if (name_in(refused[i].names, name, strlen(name)) != NULL) {
            return refused[i].expected;
        }
    }
    return NULL;
}

qn_status cli_fail_unknown(const cli_command *command, const char *what, const char *name,
                           qn_status status, qn_error *err)
{
    const char *expected = reason(command->refused, command->n_refused, name);
    if (expected == NULL) {
        expected = reason(later_options, sizeof later_options / sizeof *later_options, name);
    }
    if (expected != NULL) {
        return qn_fail(err, status, 0, __func__, "%s: not built, expected %s", what, expected);
    }
    size_t n = 0;
    while (option_name(command, n) != NULL) {
        n++;
    }
    const char *near = cli_nearest(name, option_name, command, n);
    if (near != NULL) {
        return qn_fail(err, status, 0, __func__, "%s: no such option, did you mean --%.*s?", what,
                       (int)word_len(near), near);
    }
    return qn_fail(err, status, 0, __func__, "%s: no such option, expected one of 'quern help %s'",
                   what, command->name);
}

void cli_show_words(char out[CLI_WORDS_BYTES], const cli_option *option)
{
    size_t used = 0;
    bool is_other = false;
    const char *const metavar = option->metavar != NULL ? option->metavar : "";
    for (const char *at = metavar; *at != '\0' && used + 1 < CLI_WORDS_BYTES; at++) {
        is_other = option->kind == CLI_CHOICE && (*at == '/' || (is_other && *at != '|'));
        if (!is_other) {
            out[used++] = *at;
        }
    }
    out[used] = '\0';
}

/* ------------------------------------------------------------------------------------- values */

bool cli_is_given(const void *values, size_t offset)
{
    const cli_given *const given = &((const cli_common *)values)->given;
    for (size_t i = 0; i < given->n; i++) {
        if (given->offsets[i] == offset) {
            return true;
        }
    }
    return false;
}

static void note_given(void *values, uint16_t offset)
{
    cli_given *const given = &((cli_common *)values)->given;
    if (!cli_is_given(values, offset) && given->n < CLI_GIVEN_MAX) {
        given->offsets[given->n++] = offset;
    }
}

static qn_status take_choice(cli_found f, const char *what, const char *text, qn_error *err)
{
    const size_t text_len = strlen(text);
    int place = 0;
    for (const char *word = f.option->metavar; *word != '\0';) {
        const size_t len = strcspn(word, "|/");
        if (text_len == len && memcmp(text, word, len) == 0) {
            *(int *)f.field = place;
            return QN_OK;
        }
        place += word[len] == '|' ? 1 : 0;
        word += len + (word[len] != '\0');
    }
    char words[CLI_WORDS_BYTES];
    cli_show_words(words, f.option);
    return qn_fail(err, QN_E_INVAL, 0, __func__, "%s: \"%s\", expected %s", what, text, words);
}

static qn_status take_number(cli_found f, const char *what, const char *text, qn_error *err)
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
        if (o->min == o->max) {
            return qn_fail(err, QN_E_INVAL, 0, __func__,
                           "%s: \"%s\", expected %.15g: nothing else is built", what, text, o->min);
        }
        return qn_fail(err, QN_E_INVAL, 0, __func__, "%s: \"%s\", expected a %s in %.15g .. %.15g",
                       what, text, is_count ? "whole number" : "number", o->min, o->max);
    }
    if (is_count) {
        *(uint64_t *)f.field = count;
    } else {
        *(double *)f.field = number;
    }
    return QN_OK;
}

static qn_status take_item(cli_found f, const char *what, const char *text, qn_error *err)
{
    cli_list *const list = f.field;
    const size_t n_max = (size_t)f.option->max;
    if (list->n_items == n_max) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "%s: given more than %zu times, expected at most that", what, n_max);
    }
    list->items[list->n_items++] = text;
    return QN_OK;
}

qn_status cli_take(void *values, cli_found found, const char *what, const char *text, qn_error *err)
{
    note_given(values, found.offset);
    switch (found.option->kind) {
    case CLI_FLAG: *(bool *)found.field = true; return QN_OK;
    case CLI_CLEAR: *(bool *)found.field = false; return QN_OK;
    case CLI_TEXT: *(const char **)found.field = text; return QN_OK;
    case CLI_CHOICE: return take_choice(found, what, text, err);
    case CLI_LIST:
    case CLI_WORDS: return take_item(found, what, text, err);
    case CLI_COUNT:
    case CLI_NUMBER: return take_number(found, what, text, err);
    }
    return QN_OK;
}

/* ------------------------------------------------------------------------------------ parsing */

enum { WORD_MAX = NEAREST_BYTES_MAX, TYPED_BYTES = WORD_MAX + 16 };

typedef struct parse {
    const cli_command *command;
    void *values;
    qn_error *err;
    cli_found last; /* of the options so far */
} parse;

/* What stands in one argument: "--name", "--name=value", "-l", "-lvalue", and "-tp", a name of two
 * letters that others write with one dash. */
typedef struct typed {
    const char *name;
    const char *value; /* NULL: none in this argument */
    size_t len;
    char letter; /* 0: a name */
    cli_found found;
} typed;

static typed read_typed(const parse *p, const char *seen)
{
    typed t = {.name = seen + (seen[1] == '-' ? 2 : 1)};
    t.len = strcspn(t.name, "=");
    if (seen[1] == '-' || t.len == 2) {
        t.found = find(p->command, p->values, t.name, t.len, '\0');
    }
    if (seen[1] == '-' || t.found.option != NULL) {
        t.value = t.name[t.len] == '=' ? t.name + t.len + 1 : NULL;
        return t;
    }
    t.letter = t.name[0];
    t.value = t.name[1] != '\0' ? t.name + 1 : NULL;
    t.found = find(p->command, p->values, NULL, 0, t.letter);
    return t;
}

/* One argument that begins with a dash; may use the next one.  *at moves past what was used. */
static qn_status parse_option(parse *p, int argc, char **argv, int *at)
{
    const char *seen = argv[*at];
    char what[TYPED_BYTES];
    typed t = read_typed(p, seen);
    const cli_option *const option = t.found.option;
    if (option == NULL) {
        char word[WORD_MAX + 1];
        (void)snprintf(what, sizeof what, "%s", seen);
        (void)snprintf(word, sizeof word, "%.*s", (int)(t.len < WORD_MAX ? t.len : WORD_MAX),
                       t.name);
        return cli_fail_unknown(p->command, what, word, QN_E_INVAL, p->err);
    }
    const char *const name = t.letter != 0 ? option->name : t.name;
    const size_t len = t.letter != 0 ? word_len(name) : t.len;
    const bool is_flag = option->kind == CLI_FLAG || option->kind == CLI_CLEAR;
    (void)snprintf(what, sizeof what, "--%.*s", (int)(len < WORD_MAX ? len : WORD_MAX), name);
    if (is_flag && t.value != NULL) {
        return qn_fail(p->err, QN_E_INVAL, 0, __func__, "%s: a value, expected none", seen);
    }
    if (!is_flag && t.value == NULL) {
        if (*at + 1 >= argc) {
            char words[CLI_WORDS_BYTES];
            cli_show_words(words, option);
            return qn_fail(p->err, QN_E_INVAL, 0, __func__, "%s: no value, expected %s", seen,
                           words);
        }
        t.value = argv[++*at];
    }
    (*at)++;
    p->last = t.found;
    return cli_take(p->values, t.found, what, t.value, p->err);
}

qn_status cli_parse(const cli_command *command, void *values, int argc, char **argv,
                    int *n_arguments, qn_error *err)
{
    parse p = {.command = command, .values = values, .err = err};
    bool options_over = false;
    qn_status status = QN_OK;
    *n_arguments = 0;
    for (int at = 0; at < argc && status == QN_OK;) {
        const bool is_full = (size_t)*n_arguments == command->n_arguments_max;
        if (!options_over && strcmp(argv[at], "--") == 0) {
            options_over = true;
            at++;
        } else if (!options_over && argv[at][0] == '-' && argv[at][1] != '\0') {
            status = parse_option(&p, argc, argv, &at);
        } else if (is_full && p.last.option != NULL && p.last.option->kind == CLI_WORDS) {
            status = cli_take(values, p.last, argv[at], argv[at], err);
            at++;
        } else {
            p.last = (cli_found){0};
            argv[(*n_arguments)++] = argv[at++];
        }
    }
    const cli_common *common = values;
    if (status == QN_OK && !common->wants_help && (size_t)*n_arguments > command->n_arguments_max) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "%s: one argument too many, expected: quern %s %s",
                       argv[command->n_arguments_max], command->name, command->synopsis);
    }
    return status;
}

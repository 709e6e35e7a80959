/* SPDX-License-Identifier: Apache-2.0 */
#include "inspect_view.h"

#include "base/json.h"
#include "printer.h"
#include "report.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LABEL_COLUMNS = 16, SHOWN_OF_A_CODE = 3 };

/* How to print, for the functions below. */
typedef struct view {
    const json_t *report;
    int n_columns;
    bool is_colored;
    const char *unit; /* of bytes in tables, and how many it is */
    double unit_bytes;
} view;

/* ------------------------------------------------------------------------------------ pieces -- */

static const char red[] = "\033[31;1m";
static const char yellow[] = "\033[33;1m";
static const char green[] = "\033[32;1m";
static const char bold[] = "\033[1m";
static const char dim[] = "\033[2m";

/* @p text between the escape sequences of a style. */
static void styled(const view *v, const char *style, const char *text)
{
    (void)printf("%s%s%s", v->is_colored ? style : "", text, v->is_colored ? "\033[0m" : "");
}

static void heading(const view *v, const char *text)
{
    (void)printf("\n");
    styled(v, bold, text);
    (void)printf("\n");
}

static void label(const char *text)
{
    (void)printf("  %-*s", LABEL_COLUMNS - 2, text);
}

/* Words wrapped to the terminal, every line but the first indented. */
static void wrap(const view *v, const char *text, int indent, int column)
{
    for (bool is_first = true; *text != '\0'; is_first = false) {
        const int len = (int)strcspn(text, " ");
        if (!is_first && column + 1 + len > v->n_columns) {
            (void)printf("\n%*s", indent, "");
            column = indent;
        } else if (!is_first) {
            (void)printf(" ");
            column++;
        }
        cli_print_clean(stdout, text, (size_t)len);
        column += len;
        text += len;
        text += *text == ' ' ? 1 : 0;
    }
    (void)printf("\n");
}

static const char *text_of(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

/* "57,825" */
static const char *grouped(char room[32], json_int_t n)
{
    char digits[32];
    const int len = snprintf(digits, sizeof digits, "%" JSON_INTEGER_FORMAT, n);
    size_t used = 0;
    for (int i = 0; i < len && used + 2 < 32; i++) {
        if (i > 0 && (len - i) % 3 == 0) {
            room[used++] = ',';
        }
        room[used++] = digits[i];
    }
    room[used] = '\0';
    return room;
}

/* "753.3 B", "4.1 M" */
static const char *scaled(char room[32], double n, const char *const units[3])
{
    const int i = n >= 1e9 ? 0 : n >= 1e6 ? 1 : 2;
    static const double sizes[3] = {1e9, 1e6, 1e3};
    (void)snprintf(room, 32, "%.1f %s", n / sizes[i], units[i]);
    return room;
}

static const char *parameters(char room[32], double n)
{
    static const char *const units[3] = {"B", "M", "K"};
    return scaled(room, n, units);
}

static const char *bytes(char room[32], double n)
{
    static const char *const units[3] = {"GB", "MB", "KB"};
    return scaled(room, n, units);
}

/* --------------------------------------------------------------------------------- the facts -- */

static void print_size(const json_t *r)
{
    char room[2][32];
    const json_t *const shards = json_object_get(r, "shards");
    const json_int_t n_shards = json_integer_value(json_object_get(shards, "found"));
    label("Size");
    if (json_is_integer(json_object_get(r, "bytes"))) {
        (void)printf("%s in ", bytes(room[0], qn_json_number(r, "bytes")));
    }
    (void)printf("%s tensors, %s shard%s\n",
                 grouped(room[0], json_integer_value(json_object_get(r, "tensor_count"))),
                 grouped(room[1], n_shards), n_shards == 1 ? "" : "s");
}

/* Only what is less than the whole. */
static void print_contents(const json_t *r)
{
    static const char *const words[][2] = {
        {"headers", "headers alone: of the data nothing is known"},
        {"index", "an index alone: of the tensors nothing is known but their names"},
        {"file", "one file: what else there is, is not known"},
        {"none", "no weights"},
    };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcmp(text_of(r, "contents"), words[i][0]) == 0) {
            label("Contents");
            (void)printf("%s\n", words[i][1]);
        }
    }
}

static void print_quantization(const json_t *r)
{
    char room[32];
    const json_t *const q = json_object_get(r, "quantization");
    const char *const found = text_of(q, "found");
    const char *const declared = text_of(q, "declared");
    const json_t *const n_excluded = json_object_get(q, "excluded");
    label("Quantization");
    (void)printf("%s found, ", found != NULL ? found : "not known what is");
    cli_print_clean(stdout, declared != NULL ? declared : "not known what is",
                    strlen(declared != NULL ? declared : "not known what is"));
    (void)printf(" declared");
    if (json_is_integer(n_excluded)) {
        (void)printf(", %s modules excluded", grouped(room, json_integer_value(n_excluded)));
    }
    (void)printf("\n");
}

static void print_config(const json_t *r)
{
    char room[32];
    const json_t *const c = json_object_get(r, "config");
    const json_t *const tokenizer = json_object_get(r, "tokenizer");
    if (json_is_object(c)) {
        label("Context");
        (void)printf("%s tokens, rope theta %g\n",
                     grouped(room, json_integer_value(json_object_get(c, "context_tokens"))),
                     qn_json_number(c, "rope_theta"));
        label("Vocabulary");
        (void)printf("%s", grouped(room, json_integer_value(json_object_get(c, "vocab_size"))));
        if (json_is_object(tokenizer)) {
            (void)printf(", tokenizer.json with %s tokens",
                         grouped(room, json_integer_value(json_object_get(tokenizer, "tokens"))));
        }
        (void)printf("\n");
    }
}

static void print_facts(const view *v, const char *name)
{
    const json_t *const r = v->report;
    const char *const architecture = text_of(r, "architecture");
    const bool is_file = strcmp(text_of(r, "contents"), "file") == 0;
    char room[2][32];
    if (v->is_colored) {
        (void)printf("%s", bold);
    }
    cli_print_clean(stdout, name, strlen(name));
    (void)printf("%s\n", v->is_colored ? "\033[0m" : "");
    label("Architecture");
    cli_print_clean(stdout, architecture != NULL ? architecture : "not known",
                    strlen(architecture != NULL ? architecture : "not known"));
    (void)printf("\n");
    if (json_is_integer(json_object_get(r, "parameters"))) {
        label("Parameters");
        (void)printf(is_file ? "%s in this file; of the whole model %s are active a token\n"
                             : "%s, %s active a token\n",
                     parameters(room[0], qn_json_number(r, "parameters")),
                     parameters(room[1], qn_json_number(r, "active_parameters")));
    }
    print_size(r);
    print_contents(r);
    print_quantization(r);
    print_config(r);
}

/* -------------------------------------------------------------------------------- the layers -- */

/* Columns of the map: kinds of matrices. */
static const char *const map_kinds[][2] = {
    {"attention", "attention"}, {"indexer", "indexer"},       {"router", "router"},
    {"dense_mlp", "dense"},     {"routed_expert", "experts"}, {"shared_expert", "shared"},
};
enum { N_MAP_KINDS = sizeof map_kinds / sizeof *map_kinds, MAP_COLUMNS = 9 };

static const char *storage_of(const json_t *layer, size_t i_kind)
{
    const char *const storage = text_of(json_object_get(layer, "storage"), map_kinds[i_kind][0]);
    return storage != NULL ? storage : "-";
}

/* Alike but for the indexer, which the pattern shows? */
static bool is_alike(const json_t *a, const json_t *b)
{
    bool is_same = json_equal(json_object_get(a, "mlp"), json_object_get(b, "mlp")) != 0;
    for (size_t i = 0; i < N_MAP_KINDS && is_same; i++) {
        const char *const x = storage_of(a, i);
        const char *const y = storage_of(b, i);
        is_same = strcmp(x, y) == 0 || (i == 1 && (*x == '-' || *y == '-'));
    }
    return is_same;
}

/* Layers first .. end - 1 as one line; @p name is "3-77". */
static void print_run(const view *v, const json_t *const *layers, size_t n_layers, const char *name)
{
    double n_bytes = 0.0;
    const char *const mlp = text_of(layers[0], "mlp");
    (void)printf("  %-8s%-8s", name, mlp != NULL ? mlp : "-");
    for (size_t i = 0; i < N_MAP_KINDS; i++) {
        const char *storage = "-";
        for (size_t k = 0; k < n_layers && *storage == '-'; k++) {
            storage = storage_of(layers[k], i);
        }
        (void)printf("%-*s", i == 0 ? MAP_COLUMNS + 1 : MAP_COLUMNS, storage);
    }
    for (size_t k = 0; k < n_layers; k++) {
        n_bytes += qn_json_number(layers[k], "bytes");
    }
    if (json_is_integer(json_object_get(layers[0], "bytes"))) {
        (void)printf("%7.1f\n", n_bytes / v->unit_bytes);
    } else {
        (void)printf("%7s\n", "-");
    }
}

/* "FFFSSSFSSS FSSS...": tens, as many as fit a line. */
static void print_pattern(const view *v, const char *pattern)
{
    const size_t n_tens = (size_t)(v->n_columns - LABEL_COLUMNS + 1) / 11;
    const size_t a_line = 10 * (n_tens > 0 ? n_tens : 1);
    const size_t len = strlen(pattern);
    label("Indexer");
    for (size_t i = 0; i < len; i++) {
        if (i > 0 && i % a_line == 0) {
            (void)printf("\n%*s", LABEL_COLUMNS, "");
        } else if (i > 0 && i % 10 == 0) {
            (void)printf(" ");
        }
        (void)printf("%c", pattern[i]);
    }
    (void)printf("\n");
}

static void print_layers(const view *v)
{
    enum { RUN_MAX = 256 };
    const json_t *const layers = json_object_get(v->report, "layers");
    const json_t *const mtp = json_object_get(v->report, "mtp");
    const bool has_mtp = json_object_get(mtp, "storage") != NULL;
    const size_t n = json_array_size(layers);
    const json_t *run[RUN_MAX];
    char name[48];
    if (n == 0 && !has_mtp) {
        return;
    }
    print_pattern(v, text_of(v->report, "indexer_pattern"));
    heading(v, "Layers");
    (void)printf("  %-8s%-8s", "", "MLP");
    for (size_t i = 0; i < N_MAP_KINDS; i++) {
        (void)printf("%-*s", i == 0 ? MAP_COLUMNS + 1 : MAP_COLUMNS, map_kinds[i][1]);
    }
    (void)printf("%7s\n", v->unit);
    for (size_t first = 0, end = 0; first < n; first = end) {
        size_t n_run = 0;
        for (end = first; end < n && n_run < RUN_MAX; end++) {
            run[n_run] = json_array_get(layers, end);
            bool is_of_run = true; /* alike to the first that has an indexer, or to the first */
            for (size_t k = 0; k < n_run && is_of_run; k++) {
                is_of_run = is_alike(run[k], run[n_run]);
            }
            if (!is_of_run) {
                break;
            }
            n_run++;
        }
        (void)snprintf(name, sizeof name, n_run == 1 ? "%zu" : "%zu-%zu", first, end - 1);
        print_run(v, run, n_run, name);
    }
    if (has_mtp) {
        run[0] = mtp;
        print_run(v, run, 1, "MTP");
    } else if (json_is_true(json_object_get(mtp, "declared")) &&
               strcmp(text_of(v->report, "contents"), "file") != 0) {
        (void)printf("  %-8s%s\n", "MTP", "not in the checkpoint");
    }
}

static void print_kinds(const view *v)
{
    const json_t *const kinds = json_object_get(v->report, "kinds");
    const double n_bytes = qn_json_number(v->report, "bytes");
    char room[32];
    if (json_array_size(kinds) == 0) {
        return;
    }
    heading(v, "Tensors");
    (void)printf("  %-16s%-10s%12s%12s%8s\n", "", "dtype", "tensors", v->unit, "%");
    for (size_t i = 0; i < json_array_size(kinds); i++) {
        const json_t *const kind = json_array_get(kinds, i);
        const double here = qn_json_number(kind, "bytes");
        (void)printf("  %-16s%-10s%12s%12.3f%8.2f\n", text_of(kind, "kind"), text_of(kind, "dtype"),
                     grouped(room, json_integer_value(json_object_get(kind, "tensors"))),
                     here / v->unit_bytes, n_bytes > 0.0 ? 100.0 * here / n_bytes : 0.0);
    }
}

/* A line a tensor. */
static void print_tensors(const view *v)
{
    const json_t *const tensors = json_object_get(v->report, "tensors");
    if (json_array_size(tensors) > 0) {
        heading(v, "All tensors (name, kind, dtype, shape, bytes, shard)");
    }
    for (size_t i = 0; i < json_array_size(tensors); i++) {
        const json_t *const tensor = json_array_get(tensors, i);
        const json_t *const shape = json_object_get(tensor, "shape");
        const char *const texts[] = {text_of(tensor, "name"), text_of(tensor, "kind"),
                                     text_of(tensor, "dtype"), text_of(tensor, "shard")};
        for (size_t k = 0; k < 3; k++) {
            const char *const text = texts[k] != NULL ? texts[k] : "-";
            (void)printf("  ");
            cli_print_clean(stdout, text, strlen(text));
        }
        (void)printf("  [");
        for (size_t k = 0; k < json_array_size(shape); k++) {
            (void)printf("%s%" JSON_INTEGER_FORMAT, k > 0 ? ", " : "",
                         json_integer_value(json_array_get(shape, k)));
        }
        (void)printf("]  %.0f  ", qn_json_number(tensor, "bytes"));
        cli_print_clean(stdout, texts[3] != NULL ? texts[3] : "-",
                        strlen(texts[3] != NULL ? texts[3] : "-"));
        (void)printf("\n");
    }
}

/* ------------------------------------------------------------------------------- the verdict -- */

/* The first few of a code in full, the others as a number. */
static void print_problem(const view *v, const json_t *problem, size_t i_of_code)
{
    enum { INDENT = 4 };
    char room[32];
    const char *const code = text_of(problem, "code");
    const bool is_error = strcmp(text_of(problem, "severity"), "error") == 0;
    const json_int_t n =
        json_integer_value(json_object_get(json_object_get(v->report, "problem_counts"), code));
    if (i_of_code == 0) {
        (void)printf("  ");
        styled(v, is_error ? red : yellow, is_error ? "error " : "warning ");
        styled(v, bold, code);
        (void)printf(n > 1 ? " (%s)\n" : "\n", grouped(room, n));
    }
    if (i_of_code < SHOWN_OF_A_CODE) {
        const char *const parts[] = {text_of(problem, "file"), text_of(problem, "tensor"),
                                     text_of(problem, "message")};
        char line[2048] = "";
        for (size_t i = 0; i < 3; i++) {
            const size_t used = strlen(line);
            if (parts[i] != NULL) {
                (void)snprintf(line + used, sizeof line - used, "%s%s", used > 0 ? ": " : "",
                               parts[i]);
            }
        }
        (void)printf("%*s", INDENT, "");
        wrap(v, line, INDENT, INDENT);
    } else if (i_of_code == SHOWN_OF_A_CODE) {
        (void)printf("%*s", INDENT, "");
        styled(v, dim, "and ");
        styled(v, dim, grouped(room, n - SHOWN_OF_A_CODE));
        styled(v, dim, " more\n");
    }
}

static void print_problems(const view *v)
{
    const json_t *const problems = json_object_get(v->report, "problems");
    const char *before = "";
    size_t i_of_code = 0;
    if (json_array_size(problems) > 0) {
        heading(v, "Problems");
    }
    for (size_t i = 0; i < json_array_size(problems); i++) {
        const json_t *const problem = json_array_get(problems, i);
        const char *const code = text_of(problem, "code");
        i_of_code = strcmp(code, before) == 0 ? i_of_code + 1 : 0;
        print_problem(v, problem, i_of_code);
        before = code;
    }
}

/* "added: a, b and 12 more" */
static void print_names(const view *v, const char *what, const json_t *names)
{
    enum { SHOWN = 4 };
    const size_t n = json_array_size(names);
    char line[1024] = "";
    for (size_t i = 0; i < n && i < SHOWN; i++) {
        const size_t used = strlen(line);
        (void)snprintf(line + used, sizeof line - used, "%s%s", i > 0 ? ", " : "",
                       json_string_value(json_array_get(names, i)));
    }
    const size_t used = strlen(line);
    if (n > SHOWN) {
        (void)snprintf(line + used, sizeof line - used, " and %zu more", n - SHOWN);
    }
    if (n > 0) {
        label(what);
        wrap(v, line, LABEL_COLUMNS, LABEL_COLUMNS);
    }
}

static void print_fix(const view *v)
{
    const json_t *const fix = json_object_get(v->report, "fix");
    const char *const path = text_of(fix, "path");
    if (!json_is_object(fix)) {
        return;
    }
    heading(v, "Fix");
    if (path == NULL) {
        (void)printf("  nothing to change in config.json\n");
        return;
    }
    print_names(v, "Names added", json_object_get(fix, "added"));
    print_names(v, "and removed", json_object_get(fix, "removed"));
    label("Written");
    wrap(v, path, LABEL_COLUMNS, LABEL_COLUMNS);
    (void)printf("%*sput it in the place of config.json\n", LABEL_COLUMNS, "");
}

static void print_verdict(const view *v)
{
    const json_t *const r = v->report;
    char room[32];
    const bool is_ok = json_is_true(json_object_get(r, "ok"));
    const json_int_t n_errors = json_integer_value(json_object_get(r, "errors"));
    const json_int_t n_warnings = json_integer_value(json_object_get(r, "warnings"));
    const bool is_verified = json_is_integer(json_object_get(r, "verified_bytes"));
    (void)printf("\n");
    styled(v, is_ok ? green : red, is_ok ? "OK" : "NOT OK");
    (void)printf(": %s error%s, ", grouped(room, n_errors), n_errors == 1 ? "" : "s");
    (void)printf("%s warning%s", grouped(room, n_warnings), n_warnings == 1 ? "" : "s");
    if (is_verified && qn_json_number(r, "verified_bytes") > 0) {
        (void)printf(", %s read", bytes(room, qn_json_number(r, "verified_bytes")));
    } else if (is_verified) {
        (void)printf("; no weights here to verify");
    } else if (strcmp(text_of(r, "contents"), "index") == 0) {
        (void)printf("; the index read, no weights are here");
    } else {
        (void)printf("; headers read, --verify reads every weight");
    }
    (void)printf("\n");
}

void inspect_view_print(const json_t *report, const char *name, bool is_colored)
{
    const bool is_small = qn_json_number(report, "bytes") < 1e9;
    const view v = {.report = report,
                    .n_columns = cli_columns(STDOUT_FILENO, 40),
                    .is_colored = is_colored,
                    .unit = is_small ? "MB" : "GB",
                    .unit_bytes = is_small ? 1e6 : 1e9};
    print_facts(&v, name);
    print_layers(&v);
    print_kinds(&v);
    print_tensors(&v);
    print_problems(&v);
    print_fix(&v);
    print_verdict(&v);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "usage.h"

#include "report.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { INDENT = 2, HELP_COLUMN = 32 };

static const char about[] =
    "quern runs GLM-5, GLM-5.1 and GLM-5.2 (glm_moe_dsa): checkpoints in bf16, FP8 and MXFP4, "
    "straight from their safetensors files.";

static const char first_steps[] =
    "quern run models/glm-nano -p \"What is 12 + 30?\"\n"
    "quern run models/glm-nano --thinking off -p \"What is 12 + 30?\"\n"
    "quern chat models/glm-nano\n"
    "quern tokenize models/glm-nano -p \"Hello\"\n";

static const char exit_statuses[] =
    "0 done; 1 the operation failed; 2 wrong usage; 3 the input (model, file, JSON) is bad; "
    "4 a resource is missing (memory, device, port); 130 interrupted. Every other status than 0 "
    "comes "
    "with one line on standard error: quern: error: WHAT: SEEN, EXPECTED.";

/* Print words from column `from` on, wrapped to the terminal and indented by `indent`. */
static void wrap(const char *text, int indent, int from)
{
    const int columns = cli_columns(STDOUT_FILENO, 40);
    int column = from;
    bool at_start = true;
    while (*text != '\0') {
        text += strspn(text, " ");
        const int len = (int)strcspn(text, " \n");
        if (!at_start && column + 1 + len > columns) {
            (void)printf("\n%*s", indent, "");
            column = indent;
            at_start = true;
        }
        (void)printf("%s%.*s", at_start ? "" : " ", len, text);
        column += len + (at_start ? 0 : 1);
        at_start = false;
        text += len;
        if (*text == '\n') {
            (void)printf("\n%*s", text[1] == '\n' || text[1] == '\0' ? 0 : indent, "");
            column = indent;
            at_start = true;
            text++;
        }
    }
    (void)printf("\n");
}

/* "-p, --prompt TEXT", a line for each name, and the help behind the last. */
static void print_option(const cli_option *o)
{
    char words[CLI_WORDS_BYTES];
    char letter[8] = "    ";
    int used = 0;
    cli_show_words(words, o);
    if (o->letter != 0) {
        (void)snprintf(letter, sizeof letter, "-%c, ", o->letter);
    }
    for (const char *at = o->name; *at != '\0';) {
        const int len = (int)strcspn(at, " ");
        used = printf("%s%*s%s--%.*s%s%s", at != o->name ? "\n" : "", INDENT, "",
                      at == o->name ? letter : "    ", len, at, words[0] != '\0' ? " " : "", words);
        used -= at != o->name ? 1 : 0;
        at += len + (at[len] == ' ');
    }
    if (used > HELP_COLUMN - 2) {
        (void)printf("\n%*s", HELP_COLUMN, "");
    } else {
        (void)printf("%*s", HELP_COLUMN - used, "");
    }
    wrap(o->help, HELP_COLUMN, HELP_COLUMN);
}

static void print_examples(const char *lines)
{
    for (const char *at = lines; *at != '\0';) {
        const int len = (int)strcspn(at, "\n");
        (void)printf("%*s%.*s\n", INDENT, "", len, at);
        at += len + (at[len] == '\n' ? 1 : 0);
    }
}

static void print_commands(const cli_command *const *list)
{
    for (; *list != NULL; list++) {
        (void)printf("%*s%-12s", INDENT, "", cli_command_word(*list));
        wrap((*list)->summary, INDENT + 12, INDENT + 12);
    }
}

void usage_command(const cli_command *command)
{
    const int used = printf("Usage: quern %s ", command->name);
    wrap(command->synopsis, used, used);
    (void)printf("\n");
    wrap(command->description, 0, 0);
    if (command->kinds != NULL) {
        (void)printf("\nKinds:\n");
        print_commands(command->kinds);
    }
    for (size_t g = 0; g < command->n_groups; g++) {
        (void)printf("\n%s:\n", command->groups[g].title);
        for (size_t i = 0; i < command->groups[g].n_options; i++) {
            print_option(&command->groups[g].options[i]);
        }
    }
    (void)printf("\nExamples:\n");
    print_examples(command->examples);
    (void)printf("\nExit status:\n%*s", INDENT, "");
    wrap(exit_statuses, INDENT, INDENT);
}

void usage_program(void)
{
    wrap(about, 0, 0);
    (void)printf("\nUsage: quern COMMAND [options] [arguments]\n\nCommands:\n");
    print_commands(cli_commands);
    (void)printf("\nFirst steps (models/glm-nano is a small trained model that comes with the "
                 "source):\n");
    print_examples(first_steps);
    (void)printf("\n'quern help COMMAND' and 'quern COMMAND --help' say more; 'quern --version' "
                 "says what this is.\n");
}

void usage_version(void)
{
    const qn_build *build = qn_build_get();
    (void)printf("quern %s (commit %s, %s, kernels: %s; GPU kernels: %s)\n", build->version,
                 build->commit, build->compiler, build->kernels, build->gpu_kernels);
}

/* ---------------------------------------------------------------------------------- man pages --
 */

/* Text with what roff would read as a request or an escape made literal; a line break stays one. */
static void roff(const char *text)
{
    for (bool at_start = true; *text != '\0'; text++) {
        if (at_start && (*text == '.' || *text == '\'')) {
            (void)printf("\\&");
        }
        at_start = *text == '\n';
        switch (*text) {
        case '\\': (void)printf("\\e"); break;
        case '-': (void)printf("\\-"); break;
        case '\n': (void)printf(text[1] == '\n' ? "\n.PP" : "\n"); break;
        default: (void)printf("%c", *text); break;
        }
    }
    (void)printf("\n");
}

/* A tag for each name, close together, and the help behind the last. */
static void roff_option(const cli_option *o)
{
    char words[CLI_WORDS_BYTES];
    cli_show_words(words, o);
    for (const char *at = o->name; *at != '\0'; at += *at == ' ') {
        (void)printf("%s.TP\n", at != o->name ? ".PD 0\n" : "");
        if (o->letter != 0 && at == o->name) {
            (void)printf("\\fB\\-%c\\fR, ", o->letter);
        }
        (void)printf("\\fB\\-\\-");
        for (; *at != '\0' && *at != ' '; at++) {
            (void)printf(*at == '-' ? "\\-" : "%c", *at);
        }
        (void)printf("\\fR");
        if (words[0] != '\0') {
            (void)printf(" \\fI%s\\fR", words);
        }
        (void)printf("\n");
    }
    if (strchr(o->name, ' ') != NULL) {
        (void)printf(".PD\n");
    }
    roff(o->help);
}

static void roff_options(const cli_command *command)
{
    (void)printf(".SH OPTIONS\n");
    for (size_t g = 0; g < command->n_groups; g++) {
        (void)printf(".SS %s\n", command->groups[g].title);
        for (size_t i = 0; i < command->groups[g].n_options; i++) {
            roff_option(&command->groups[g].options[i]);
        }
    }
}

static void roff_examples(const char *lines)
{
    (void)printf(".SH EXAMPLES\n.nf\n");
    roff(lines);
    (void)printf(".fi\n");
}

static void roff_commands(const cli_command *const *list)
{
    for (; *list != NULL; list++) {
        (void)printf(".TP\n\\fB%s\\fR\n", cli_command_word(*list));
        roff((*list)->summary);
    }
}

/* "quern-bench-engine", in roff. */
static void roff_page_name(const cli_command *command)
{
    (void)printf("quern\\-");
    for (const char *at = command->name; *at != '\0'; at++) {
        (void)printf(*at == ' ' ? "\\-" : "%c", *at);
    }
}

static void man_program(void)
{
    (void)printf(".TH QUERN 1 \"\" \"quern %s\" \"Quern\"\n.SH NAME\nquern \\- run GLM\\-5 family "
                 "models\n.SH SYNOPSIS\n\\fBquern\\fR \\fICOMMAND\\fR [options] [arguments]\n"
                 ".SH DESCRIPTION\n",
                 qn_build_get()->version);
    roff(about);
    (void)printf(".SH COMMANDS\n");
    roff_commands(cli_commands);
    roff_examples(first_steps);
}

static void man_command(const cli_command *command)
{
    (void)printf(".TH QUERN\\-");
    for (const char *at = command->name; *at != '\0'; at++) {
        /* names of commands are small letters */
        (void)printf(*at == ' ' ? "\\-" : "%c", *at - 'a' + 'A');
    }
    (void)printf(" 1 \"\" \"quern %s\" \"Quern\"\n.SH NAME\n", qn_build_get()->version);
    roff_page_name(command);
    (void)printf(" \\- ");
    roff(command->summary);
    (void)printf(".SH SYNOPSIS\n\\fBquern %s\\fR ", command->name);
    roff(command->synopsis);
    (void)printf(".SH DESCRIPTION\n");
    roff(command->description);
    if (command->kinds != NULL) {
        (void)printf(".SS Kinds\n");
        roff_commands(command->kinds);
    }
    roff_options(command);
    roff_examples(command->examples);
}

/* The pages of a list but for one.  Returns what stands before the next. */
static const char *roff_others(const cli_command *const *list, const cli_command *but,
                               const char *separator)
{
    for (; *list != NULL; list++) {
        if (*list != but) {
            (void)printf("%s\\fB", separator);
            roff_page_name(*list);
            (void)printf("\\fR(1)");
            separator = ", ";
        }
    }
    return separator;
}

void usage_man(const cli_command *command)
{
    if (command == NULL) {
        man_program();
    } else {
        man_command(command);
    }
    (void)printf(".SH \"EXIT STATUS\"\n");
    roff(exit_statuses);
    (void)printf(".SH \"SEE ALSO\"\n");
    const char *separator = roff_others(cli_commands, command, "");
    if (command != NULL && command->kinds != NULL) {
        (void)roff_others(command->kinds, command, separator);
    }
    (void)printf("\n");
}

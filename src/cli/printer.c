/* SPDX-License-Identifier: Apache-2.0 */
#include "printer.h"

#include "report.h"

#include <stdio.h>
#include <unistd.h>

void cli_printer_init(cli_printer *printer, const cli_common *common)
{
    *printer = (cli_printer){
        .is_tty = isatty(STDOUT_FILENO) != 0,
        .is_colored = cli_is_colored(STDOUT_FILENO, common->color),
        .is_quiet = common->is_quiet,
        .is_at_line_start = true,
    };
}

static void set_dim(cli_printer *p, bool is_dim)
{
    if (p->is_colored && p->is_dimmed != is_dim) {
        (void)fputs(is_dim ? "\033[2m" : "\033[0m", stdout);
    }
    p->is_dimmed = is_dim;
}

/* Bytes of a control character other than line feed and tab at @p text; 0: none is there. */
static size_t control_at(const char *text, size_t len)
{
    const unsigned char first = (unsigned char)text[0];
    if (first == 0xc2 && len > 1 && (unsigned char)text[1] < 0xa0) {
        return 2; /* C1 */
    }
    return (first < ' ' && first != '\n' && first != '\t') || first == 0x7f ? 1 : 0;
}

void cli_print_clean(FILE *stream, const char *text, size_t len)
{
    size_t first = 0;
    for (size_t at = 0; at < len;) {
        const size_t n = control_at(text + at, len - at);
        if (n > 0) {
            (void)!fwrite(text + first, 1, at - first, stream);
            (void)fputs("\xef\xbf\xbd", stream);
            first = at + n;
        }
        at += n > 0 ? n : 1;
    }
    (void)!fwrite(text + first, 1, len - first, stream);
}

/* To a terminal cleaned, elsewhere as it is. */
static void write_text(FILE *stream, bool is_tty, const char *text, size_t len)
{
    if (is_tty) {
        cli_print_clean(stream, text, len);
    } else {
        (void)!fwrite(text, 1, len, stream);
    }
    (void)fflush(stream);
}

/* On a terminal, dimmed; elsewhere to stderr, so that a pipe gets the answer alone. */
static void show_reasoning(cli_printer *p, const char *text, size_t len)
{
    if (p->is_tty) {
        set_dim(p, true);
        write_text(stdout, true, text, len);
    } else if (!p->is_quiet) {
        write_text(stderr, isatty(STDERR_FILENO) != 0, text, len);
    }
    p->has_reasoning = true;
}

static void show_answer(cli_printer *p, const char *text, size_t len)
{
    if (p->is_tty && p->has_reasoning && !p->has_answer) {
        set_dim(p, false);
        cli_write("\n\n", 2);
    }
    set_dim(p, false);
    write_text(stdout, p->is_tty, text, len);
    p->is_at_line_start = text[len - 1] == '\n';
    p->has_answer = true;
}

/* A line of its own: "tool call: NAME ARGUMENTS". */
static void show_call(cli_printer *p, const qn_event *event)
{
    static const char label[] = "tool call: ";
    if (!p->is_at_line_start) {
        show_answer(p, "\n", 1);
    }
    show_answer(p, label, sizeof label - 1);
    if (event->name_len > 0) {
        show_answer(p, event->name, event->name_len);
    }
    show_answer(p, " ", 1);
    show_answer(p, event->text, event->len);
    show_answer(p, "\n", 1);
}

void cli_printer_show(cli_printer *printer, const qn_event *event)
{
    switch (event->kind) {
    case QN_EVENT_REASONING: show_reasoning(printer, event->text, event->len); break;
    case QN_EVENT_TEXT: show_answer(printer, event->text, event->len); break;
    case QN_EVENT_TOOL_CALL: show_call(printer, event); break;
    case QN_EVENT_WARNING:
        if (!printer->is_quiet) {
            (void)fflush(stdout);
            (void)fputs("quern: warning: answer: ", stderr);
            cli_print_clean(stderr, event->text, event->len);
            (void)fputc('\n', stderr);
        }
        break;
    case QN_EVENT_CALL_BEGIN:
    case QN_EVENT_CALL_PIECE:
    case QN_EVENT_PROMPT_TOKEN:
    case QN_EVENT_TOKEN:
    case QN_EVENT_END: break;
    }
}

void cli_printer_end(cli_printer *printer)
{
    set_dim(printer, false);
    if ((printer->has_answer || (printer->is_tty && printer->has_reasoning)) &&
        !printer->is_at_line_start) {
        cli_write("\n", 1);
    }
    if (!printer->is_tty && printer->has_reasoning && !printer->is_quiet) {
        (void)fputc('\n', stderr);
    }
    (void)fflush(stdout);
}

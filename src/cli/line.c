/* SPDX-License-Identifier: Apache-2.0 */
#include "line.h"

#include "report.h"
#include "signals.h"

#include <errno.h>
#include <histedit.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    TEXT_BYTES_MAX = 64 << 20,
    HISTORY_ENTRIES_MAX = 1000,
    HISTORY_BYTES_MAX = 64 << 10, /* of one entry: larger pastes are not worth keeping */
    PROMPT_BYTES_MAX = 256,
};

/* Terminals that know it put marks around what is pasted. */
static const char paste_on[] = "\033[?2004h";
static const char paste_off[] = "\033[?2004l";
static const char paste_begins[] = "\033[200~";
static const char paste_ends[] = "\033[201~";

static const char fence[] = "\"\"\"";

struct line_reader {
    FILE *screen;       /* where prompts go; NULL: no terminal */
    EditLine *editor;   /* owned; NULL: plain lines */
    History *history;   /* owned, as the next one; NULL without an editor */
    char *history_path; /* NULL: in memory only */
    bool is_colored;
    line_result ended; /* why the editor got no more characters */
    char prompt[PROMPT_BYTES_MAX];
    char bytes[4096]; /* read ahead */
    size_t n_bytes, i_byte;
    char *text; /* owned: what was read last, as the next one */
    size_t len;
    char *line; /* one plain line */
    size_t line_len;
};

/* ------------------------------------------------------------------------------------ characters
 */

/* Stop as a shell expects it, with the terminal as it was, and take it up again. */
static void suspend(line_reader *r)
{
    if (r->editor != NULL) {
        (void)el_set(r->editor, EL_PREP_TERM, 0);
        (void)fputs(paste_off, r->screen);
        (void)fflush(r->screen);
    }
    (void)raise(SIGSTOP);
    if (r->editor != NULL) {
        (void)fputs(paste_on, r->screen);
        (void)fflush(r->screen);
        (void)el_set(r->editor, EL_PREP_TERM, 1);
        (void)el_set(r->editor, EL_REFRESH);
    }
}

static line_result heed(line_reader *r, int signal_number)
{
    switch (signal_number) {
    case SIGINT: r->n_bytes = r->i_byte = 0; return LINE_INTERRUPT;
    case SIGTSTP: suspend(r); return LINE_TEXT;
    case SIGWINCH:
        if (r->editor != NULL) {
            /* The editor keeps its idea of the cursor's column, which may lie beyond the new width,
             * and writes there: the line is drawn anew, which sets it back. */
            el_resize(r->editor);
            (void)fputs("\r\033[J", r->screen);
            (void)fflush(r->screen);
            (void)el_set(r->editor, EL_REFRESH);
        }
        return LINE_TEXT;
    default: return LINE_TERMINATE;
    }
}

/* LINE_TEXT with one byte of standard input, or why there is none. */
static line_result next_byte(line_reader *r, char *out)
{
    while (r->i_byte == r->n_bytes) {
        struct pollfd waits[] = {{.fd = STDIN_FILENO, .events = POLLIN},
                                 {.fd = cli_signals_fd(), .events = POLLIN}};
        const int n_ready = poll(waits, 2, -1);
        for (int number; (number = cli_signals_take()) != 0;) {
            const line_result result = heed(r, number);
            if (result != LINE_TEXT) {
                return result;
            }
        }
        if (n_ready <= 0 || waits[0].revents == 0) {
            continue;
        }
        const ssize_t n = read(STDIN_FILENO, r->bytes, sizeof r->bytes);
        if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN)) {
            return LINE_END; /* a terminal that is gone is an end too */
        }
        r->n_bytes = n > 0 ? (size_t)n : 0;
        r->i_byte = 0;
    }
    *out = r->bytes[r->i_byte++];
    return LINE_TEXT;
}

/* The editor's source of characters; bytes that are not UTF-8 are dropped. */
static int read_character(EditLine *editor, wchar_t *out)
{
    line_reader *r = NULL;
    mbstate_t state = {0};
    (void)el_get(editor, EL_CLIENTDATA, &r);
    for (char byte = 0; (r->ended = next_byte(r, &byte)) == LINE_TEXT;) {
        const size_t n = mbrtowc(out, &byte, 1, &state);
        if (n <= 1) {
            /* What Linux makes of a Ctrl-D that was typed before the terminal was the editor's. */
            *out = *out == L'\0' ? L'\004' : *out;
            return 1;
        }
        if (n == (size_t)-1) {
            state = (mbstate_t){0};
        }
    }
    return r->ended == LINE_END ? 0 : -1;
}

/* The editor's command for the mark before a paste: all up to the mark behind it goes into the
 * line, line breaks included. */
static unsigned char insert_paste(EditLine *editor, int key)
{
    enum { MARK_LEN = sizeof paste_ends - 1 };
    line_reader *r = NULL;
    char *text = NULL;
    size_t len = 0;
    bool is_whole = false;
    (void)key;
    (void)el_get(editor, EL_CLIENTDATA, &r);
    FILE *const stream = open_memstream(&text, &len);
    if (stream == NULL) {
        return CC_ERROR;
    }
    char before = 0;
    for (char byte = 0; !is_whole && (r->ended = next_byte(r, &byte)) == LINE_TEXT; before = byte) {
        /* The editor's terminal turns each of carriage return and line feed into the other, so a
         * line break comes as \n, \r or \n\r. */
        const bool is_second = byte == '\r' && before == '\n';
        if (byte != '\0' && !is_second && len < TEXT_BYTES_MAX) {
            (void)fputc(byte == '\r' ? '\n' : byte, stream);
        }
        is_whole = byte == paste_ends[MARK_LEN - 1] && fflush(stream) == 0 && len >= MARK_LEN &&
                   memcmp(text + len - MARK_LEN, paste_ends, MARK_LEN) == 0;
    }
    const bool has_memory = fclose(stream) == 0;
    bool is_inserted = false;
    if (is_whole && has_memory) {
        len -= MARK_LEN;
        len -= len > 0 && text[len - 1] == '\n' ? 1 : 0;
        text[len] = '\0';
        is_inserted = len == 0 || el_insertstr(editor, text) == 0;
    }
    free(text);
    return !is_whole ? CC_EOF : is_inserted ? CC_REFRESH : CC_ERROR;
}

static char *show_prompt(EditLine *editor)
{
    line_reader *r = NULL;
    (void)el_get(editor, EL_CLIENTDATA, &r);
    return r->prompt;
}

/* ----------------------------------------------------------------------------------------- lines
 */

static void set_prompt(line_reader *r, const char *prompt)
{
    /* Without colour: the editor leaves out an escape sequence at the end of a prompt. */
    (void)snprintf(r->prompt, sizeof r->prompt, "%.200s", prompt);
}

static line_result edit_line(line_reader *r, const char **line, size_t *len)
{
    int n = 0;
    r->ended = LINE_TEXT;
    el_resize(r->editor); /* it may have changed during the answer */
    /* The editor would do so after the prompt, and a terminal changes what comes in between. */
    (void)el_set(r->editor, EL_PREP_TERM, 1);
    *line = el_gets(r->editor, &n);
    if (*line == NULL || n <= 0) {
        /* The cursor may stand within the line, whose rest would lie below what comes next. */
        (void)fputs(r->ended == LINE_INTERRUPT ? "\033[J^C\n" : "\n", r->screen);
        (void)fflush(r->screen);
        return r->ended == LINE_TEXT ? LINE_END : r->ended; /* the editor's own end: Ctrl-D */
    }
    *len = (size_t)n;
    return LINE_TEXT;
}

static line_result plain_line(line_reader *r, const char **line, size_t *len)
{
    line_result result = LINE_TEXT;
    size_t n = 0;
    free(r->line);
    r->line = NULL;
    FILE *const stream = open_memstream(&r->line, &r->line_len);
    if (r->screen != NULL) {
        (void)fputs(r->prompt, r->screen);
        (void)fflush(r->screen);
    }
    for (char byte = 0; stream != NULL && byte != '\n' && n <= TEXT_BYTES_MAX;) {
        result = next_byte(r, &byte);
        if (result != LINE_TEXT) {
            break;
        }
        (void)fputc(byte, stream);
        n++;
    }
    if (stream == NULL || fclose(stream) != 0) {
        return LINE_FAILED;
    }
    if (r->screen != NULL && result != LINE_TEXT) {
        (void)fputc('\n', r->screen);
    }
    *line = r->line;
    *len = r->line_len;
    return result == LINE_END && n > 0 ? LINE_TEXT : result; /* a last line without its end */
}

/* A line without what ends it. */
static line_result read_line(line_reader *r, const char *prompt, const char **line, size_t *len)
{
    set_prompt(r, prompt);
    const line_result result =
        r->editor != NULL ? edit_line(r, line, len) : plain_line(r, line, len);
    if (result == LINE_TEXT) {
        *len -= *len > 0 && (*line)[*len - 1] == '\n' ? 1 : 0;
        *len -= *len > 0 && (*line)[*len - 1] == '\r' ? 1 : 0;
    }
    return result;
}

/* Lines until the text is whole, into @p out. */
static line_result read_lines(line_reader *r, const char *prompt, FILE *out)
{
    const char *line = NULL;
    size_t len = 0;
    size_t n_lines = 0;
    size_t n_bytes = 0;
    bool is_block = false;
    for (bool is_first = true;; is_first = false) {
        const line_result result = read_line(r, is_first ? prompt : "... ", &line, &len);
        if (result != LINE_TEXT) {
            return result == LINE_END && n_lines > 0 ? LINE_TEXT : result;
        }
        const bool is_fence = len == sizeof fence - 1 && memcmp(line, fence, len) == 0;
        if (is_fence && (is_first || is_block)) {
            is_block = is_first;
            if (is_block) {
                continue;
            }
            return LINE_TEXT;
        }
        const bool goes_on = !is_block && len > 0 && line[len - 1] == '\\';
        len -= goes_on ? 1 : 0;
        if (n_lines++ > 0) {
            (void)fputc('\n', out);
        }
        (void)fwrite(line, 1, len, out);
        n_bytes += len + 1;
        if (n_bytes > TEXT_BYTES_MAX) {
            return LINE_FAILED;
        }
        if (!goes_on && !is_block) {
            return LINE_TEXT;
        }
    }
}

line_result line_read(line_reader *reader, const char *prompt, const char **text, size_t *len)
{
    line_reader *const r = reader;
    free(r->text);
    r->text = NULL;
    FILE *const out = open_memstream(&r->text, &r->len);
    line_result result = out != NULL ? read_lines(r, prompt, out) : LINE_FAILED;
    if (out != NULL && fclose(out) != 0) {
        result = LINE_FAILED;
    }
    if (result == LINE_FAILED) {
        (void)cli_fail(QN_E_NOMEM, "input: over %d bytes or no memory, expected a shorter text",
                       TEXT_BYTES_MAX);
        return result;
    }
    if (result == LINE_TEXT && r->history != NULL && r->len > 0 && r->len <= HISTORY_BYTES_MAX) {
        HistEvent event;
        (void)history(r->history, &event, H_ENTER, r->text);
    }
    *text = r->text;
    *len = r->len;
    return result;
}

bool line_is_terminal(const line_reader *reader)
{
    return reader->screen != NULL;
}

/* -------------------------------------------------------------------------------- open and close
 */

/* Keys beyond those that the editor finds in the terminal's description. */
static void bind_keys(EditLine *editor)
{
    static const char *const keys[][2] = {
        {paste_begins, "quern-paste"},
        {"\033[3~", "ed-delete-next-char"},
        {"\033[H", "ed-move-to-beg"},
        {"\033[F", "ed-move-to-end"},
        {"\033[1~", "ed-move-to-beg"},
        {"\033[4~", "ed-move-to-end"},
        {"\033[1;5D", "ed-prev-word"},
        {"\033[1;5C", "em-next-word"},
        {"\027", "ed-delete-prev-word"},
        {"\022", "em-inc-search-prev"},
        {"\t", "ed-insert"},
    };
    /* Of narrow strings the editor would make copies that it never frees. */
    (void)el_wset(editor, EL_ADDFN, L"quern-paste", L"Insert what is pasted", insert_paste);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        (void)el_set(editor, EL_BIND, keys[i][0], keys[i][1], NULL);
    }
}

static void open_editor(line_reader *r)
{
    HistEvent event;
    r->history = history_init();
    r->editor = r->history != NULL ? el_init("quern", stdin, r->screen, stderr) : NULL;
    if (r->editor == NULL) {
        return; /* plain lines serve as well */
    }
    (void)history(r->history, &event, H_SETSIZE, HISTORY_ENTRIES_MAX);
    (void)history(r->history, &event, H_SETUNIQUE, 1);
    if (r->history_path != NULL) {
        (void)history(r->history, &event, H_LOAD, r->history_path); /* none yet: nothing to load */
    }
    (void)el_set(r->editor, EL_CLIENTDATA, r);
    (void)el_set(r->editor, EL_SIGNAL, 0);
    (void)el_set(r->editor, EL_EDITOR, "emacs");
    (void)el_set(r->editor, EL_HIST, history, r->history);
    (void)el_set(r->editor, EL_PROMPT_ESC, show_prompt, '\1');
    (void)el_set(r->editor, EL_GETCFN, read_character);
    bind_keys(r->editor);
    (void)fputs(paste_on, r->screen);
    (void)fflush(r->screen);
}

qn_status line_open(line_reader **out, const char *history_path, bool is_colored, qn_error *err)
{
    line_reader *const r = calloc(1, sizeof *r);
    *out = r;
    if (r == NULL || (history_path != NULL && (r->history_path = strdup(history_path)) == NULL)) {
        free(r);
        *out = NULL;
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "input: no memory");
    }
    r->is_colored = is_colored;
    if (isatty(STDIN_FILENO) != 0) {
        r->screen = isatty(STDOUT_FILENO) != 0   ? stdout
                    : isatty(STDERR_FILENO) != 0 ? stderr
                                                 : NULL;
    }
    if (r->screen != NULL && !cli_is_dumb()) {
        open_editor(r);
    }
    return QN_OK;
}

static bool write_history(FILE *file, void *context)
{
    HistEvent event;
    return history(context, &event, H_SAVE_FP, file) >= 0;
}

qn_status line_close(line_reader **reader, qn_error *err)
{
    line_reader *const r = *reader;
    qn_status status = QN_OK;
    if (r == NULL) {
        return QN_OK;
    }
    if (r->editor != NULL) {
        el_end(r->editor);
        (void)fputs(paste_off, r->screen);
        (void)fflush(r->screen);
    }
    if (r->editor != NULL && r->history_path != NULL) {
        status = cli_replace_private_file(r->history_path, write_history, r->history, err);
    }
    if (r->history != NULL) {
        history_end(r->history);
    }
    free(r->history_path);
    free(r->text);
    free(r->line);
    free(r);
    *reader = NULL;
    return status;
}

/* SPDX-License-Identifier: Apache-2.0 */
/** @file report.h  What every command does at its edges: errors, exit statuses, files, signals. */
#ifndef QN_CLI_REPORT_H
#define QN_CLI_REPORT_H
#include "quern/quern.h"

#include <jansson.h>
#include <stdio.h>

/** Exit statuses (docs/running.md). */
enum {
    CLI_DONE = 0,
    CLI_FAILED = 1,
    CLI_USAGE = 2,
    CLI_BAD_INPUT = 3,
    CLI_NO_RESOURCE = 4,
    CLI_INTERRUPTED = 130,
};

/** Print "quern: error: TEXT" and return the exit status that belongs to the failure. */
int cli_report(const qn_error *err);
/** The same for a failure found here. */
QN_PRINTF(2, 3)
int cli_fail(qn_status status, const char *format, ...);

/** Print "quern: warning: TEXT", or the same as a line of the log in JSON. */
QN_PRINTF(1, 2)
void cli_warn(const char *format, ...);
/** From now on in JSON, or not. */
void cli_warn_as_json(bool as_json);

/** Is the terminal one without escape sequences (TERM unset or "dumb")? */
bool cli_is_dumb(void);
/** Colour and width of the terminal a stream is connected to. */
bool cli_is_colored(int fd, int color_option);
/** 120 at most; 80 where it is no terminal, or narrower than @p n_min. */
int cli_columns(int fd, int n_min);

/**
 * A whole file, or standard input where @p path is NULL or "-"; NUL-terminated, owned by the caller
 * (free).  At most 64 MiB.
 */
QN_MUST_CHECK qn_status cli_read_text(char **text, size_t *len, const char *path, qn_error *err);

/**
 * Write a file under another name beside @p path, then give it that name, which may replace a file:
 * whole or not there, and readable by whom the umask allows.
 *
 * @param write  returns false where it failed; what the stream remembers is looked at as well
 */
QN_MUST_CHECK qn_status cli_replace_file(const char *path, bool (*write)(FILE *file, void *context),
                                         void *context, qn_error *err);
/** The same, readable by its owner alone: what somebody said. */
QN_MUST_CHECK qn_status cli_replace_private_file(const char *path,
                                                 bool (*write)(FILE *file, void *context),
                                                 void *context, qn_error *err);

/**
 * What was typed, as a line that a shell reads as the same words; *** for keys and headers.  Cut
 * where @p out is too small.
 */
void cli_show_command(char *out, size_t size);

/** Could cli_replace_file() write there?  Leaves what is there as it is.  QN_E_IO. */
QN_MUST_CHECK qn_status cli_check_writable(const char *path, qn_error *err);

/**
 * Append {"role", "content"} to an array.
 *
 * @param what  names the text in errors
 * Returns  QN_OK; QN_E_FORMAT for NUL or bytes that are not UTF-8; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status cli_append_message(json_t *messages, const char *role, const char *what,
                                           const char *text, size_t len, qn_error *err);

/**
 * A conversation of one user message, after a system message unless @p system is NULL, as the JSON
 * that qn_chat_encode() takes; owned by the caller (free).
 * Returns  QN_OK; QN_E_FORMAT for bytes that are not UTF-8; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status cli_user_message(char **json, const char *system, const char *text,
                                         size_t len, qn_error *err);

/** Ids separated by commas or blanks; owned by the caller (free). */
QN_MUST_CHECK qn_status cli_parse_ids(int32_t **ids, size_t *n_ids, const char *text,
                                      qn_error *err);

/** Write to standard output; cli_flush() reports what could not be written. */
void cli_write(const char *text, size_t len);
/** Flush standard output; the exit status: @p status, or CLI_FAILED when writing failed. */
int cli_flush(int status);
/** Print one JSON object and a newline, and release it.  Returns the exit status as cli_flush. */
int cli_print_json(json_t *object);
/** JSON string of a text that a user gave, such as a path; '?' for bytes that are not ASCII where
 * it is not UTF-8. */
json_t *cli_json_text(const char *text);
/** JSON array of ids. */
json_t *cli_json_ids(const int32_t *ids, size_t n_ids);

/** Ctrl-C, SIGTERM and SIGHUP set a flag once; a second one ends the process. */
void cli_catch_interrupt(void);
/** As if one had come.  Signal handlers too. */
void cli_interrupt(void);
bool cli_is_interrupted(void);
#endif

/* SPDX-License-Identifier: Apache-2.0 */
/** @file batch_input.h  Lines of a file or pipe, one at a time: whoever has other work does not
 * wait for the next. */
#ifndef QN_CLI_BATCH_INPUT_H
#define QN_CLI_BATCH_INPUT_H
#include "quern/quern.h"

enum { BATCH_LINE_BYTES_MAX = 64 << 20 };

/** Caller's storage; all-zero is closed. */
typedef struct batch_input {
    const char *name; /**< In errors. */
    char *buffer;     /**< [capacity] owned; bytes read and not given out: [begin, end). */
    size_t begin, end, capacity;
    uint64_t n_lines; /**< Given out. */
    uint64_t n_total; /**< Lines of the file; 0: not known, as of a pipe. */
    int fd;           /**< -1: none. */
    bool has_ended;   /**< Nothing more can be read. */
    bool is_too_long; /**< The line that is being read: its bytes are dropped. */
} batch_input;

/** One line, borrowed until the next. */
typedef struct batch_line {
    const char *text; /**< [len] without break and byte-order mark; NULL: it has too many bytes. */
    size_t len;
    uint64_t number; /**< From 1; 0: there are no more lines. */
} batch_line;

/** @p path may be "-".  QN_E_NOT_FOUND; QN_E_FORMAT for a folder; QN_E_IO; QN_E_NOMEM. */
QN_MUST_CHECK qn_status batch_input_open(batch_input *out, const char *path, qn_error *err);
/** Closing twice is fine. */
void batch_input_close(batch_input *input);

/**
 * The next line.
 *
 * @param wait_ms  how long to wait for it
 * Returns  QN_OK; QN_AGAIN where it is not there yet; QN_E_IO; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status batch_input_next(batch_input *input, batch_line *line, int wait_ms,
                                         qn_error *err);
#endif

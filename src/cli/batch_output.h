/* SPDX-License-Identifier: Apache-2.0 */
/** @file batch_output.h  The file of a batch's records: each is written whole, and a run that was
 * stopped goes on with what the file has. */
#ifndef QN_CLI_BATCH_OUTPUT_H
#define QN_CLI_BATCH_OUTPUT_H
#include "quern/quern.h"

#include <jansson.h>
#include <stdio.h>

/** What becomes of a file that is there. */
typedef enum batch_existing {
    BATCH_REFUSE,    /**< It is an error. */
    BATCH_RESUME,    /**< Records are added to it. */
    BATCH_OVERWRITE, /**< It is emptied. */
} batch_existing;

/** Caller's storage; all-zero is closed. */
typedef struct batch_output {
    const char *path;
    FILE *file; /**< NULL: closed. */
    /** Owned: what the records of the file that stay speak of, as keys: custom_id, and the numbers
     * of lines that have none of their own.  Values are false. */
    json_t *ids, *lines;
    uint64_t n_whole_bytes; /**< Of the file, up to a record that was not finished. */
    uint64_t n_again;       /**< Records of failures of the machine: these requests run again. */
    batch_existing existing;
    bool is_new; /**< We made it, and nothing is in it. */
    bool has_begun;
} batch_output;

/**
 * Open, lock and read the file, and change nothing in it.
 *
 * @param path   "-": standard output
 * @param input  file descriptor that must not be the same file, which would never end
 * Returns  QN_OK; QN_E_INVAL where it exists; QN_E_FORMAT for a line that is no record; QN_E_IO;
 *          QN_E_NOMEM
 */
QN_MUST_CHECK qn_status batch_output_open(batch_output *out, const char *path,
                                          batch_existing existing, int input, qn_error *err);

/** From now on records are written: what is to go from the file goes.  QN_E_IO; QN_E_NOMEM. */
QN_MUST_CHECK qn_status batch_output_begin(batch_output *output, qn_error *err);

/** Write a record, @p len bytes that end in a line break.  QN_E_IO. */
QN_MUST_CHECK qn_status batch_output_add(batch_output *output, const char *record, size_t len,
                                         qn_error *err);

/** A file that was made and never begun vanishes.  Closing twice is fine. */
void batch_output_close(batch_output *output);
#endif

/* SPDX-License-Identifier: Apache-2.0 */
/** @file writer.h  Text and JSON into a buffer: a failure is looked at once, at the end. */
#ifndef QN_SERVER_WRITER_H
#define QN_SERVER_WRITER_H
#include "base/buf.h"

/** Appends to a buffer until something fails. */
typedef struct server_writer {
    qn_buf *out;
    qn_error *err;
    qn_status status; /**< Of the first that failed. */
} server_writer;

/** A text as it stands. */
void writer_put(server_writer *w, const char *text);
/** Bytes as they stand. */
void writer_put_bytes(server_writer *w, qn_str bytes);
/** A JSON string of bytes. */
void writer_put_string(server_writer *w, qn_str bytes);
/** A whole number. */
void writer_put_whole(server_writer *w, uint64_t number);
/** A number of 9 digits, which tell f32 values apart; never a whole one without ".0". */
void writer_put_real(server_writer *w, double number);
#endif

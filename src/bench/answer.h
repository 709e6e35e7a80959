/* SPDX-License-Identifier: Apache-2.0 */
/** @file answer.h  The body of one answer as it comes, in any pieces: server-sent events or one
 * JSON text, to what its record says. */
#ifndef QN_BENCH_ANSWER_H
#define QN_BENCH_ANSWER_H
#include "client.h"

enum {
    BENCH_EVENT_BYTES_MAX = 16 << 20,   /**< Of one line, one event, or an answer in one piece. */
    BENCH_ANSWER_BYTES_MAX = 256 << 20, /**< Of all: one without end is malformed. */
    BENCH_REFUSAL_BYTES_MAX = 4096,     /**< Of a body that is no answer: read on, not kept. */
};

/** What the body is. */
typedef enum bench_form {
    BENCH_FORM_UNKNOWN, /**< Nothing but blanks so far. */
    BENCH_FORM_EVENTS,
    BENCH_FORM_WHOLE,   /**< It begins with '{': one JSON text, for a request that was streamed. */
    BENCH_FORM_REFUSAL, /**< Of a status other than 200. */
} bench_form;

/** A reader of answers, one after another; keeps its memory.  All-zero is closed. */
typedef struct bench_answer {
    bench_record *record; /**< Borrowed: of the answer that is read. */
    bench_api api;
    bench_form form;
    uint32_t n_bom;    /**< Bytes of a byte order mark that it began with. */
    bool skips_lf;     /**< The last byte was a CR: a LF now is of the same line end. */
    bool is_named;     /**< The event has a name ... */
    bool is_error;     /**< ... which is "error". */
    bool has_data;     /**< The event has data. */
    bool has_odd_line; /**< A line was no field of an event; the first is shown in odd_line. */
    bool is_done;      /**< [DONE] came; nothing is read behind it. */
    bool has_tokens;   /**< The event brought some. */
    uint64_t n_bytes;
    uint64_t n_events;    /**< With data. */
    uint64_t n_fresh;     /**< Of those, by the last bench_answer_feed(). */
    double at_s;          /**< When the bytes came that are read. */
    double done_s;        /**< When [DONE] came. */
    uint32_t chunks_max;  /**< There is room for. */
    qn_buf line;          /**< Of the line that has not ended. */
    qn_buf data;          /**< Of the event that has not ended, or of the text in one piece. */
    qn_buf text;          /**< Of record.text. */
    bench_end fault;      /**< BENCH_DONE; BENCH_FAILED or BENCH_MALFORMED, whichever came first. */
    char odd_line[48];    /**< Beginning of it. */
    char usage_fault[96]; /**< What is wrong in the last usage; "": nothing. */
    char message[BENCH_MESSAGE_BYTES]; /**< Of the fault. */
} bench_answer;

/** Begin to read into @p record, borrowed until bench_answer_end(). */
void bench_answer_begin(bench_answer *answer, bench_api api, bench_record *record);

/**
 * Take @p n_bytes of the body, which came at @p at_s.
 *
 * @param status  of HTTP
 * Returns  QN_OK; QN_AGAIN: enough, nothing that follows will be read; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status bench_answer_feed(bench_answer *answer, int status, const char *bytes,
                                          size_t n_bytes, double at_s, qn_error *err);

/**
 * The transfer has ended: say in the record how the request did.  The first that applies:
 *
 *   1. cancelled               (@p how)
 *   2. rate_limited, http_5xx, http_4xx, http_other  by a status other than 200, however its body
 * ended
 *   3. stream_error, malformed whichever of the events was first
 *   4. connect, timeout, cut_off, malformed  (@p how), unless [DONE] had come
 *   5. empty                   [DONE], or a finish reason and usage, came, and no token
 *   6. cut_off                 no finish reason; or neither [DONE] nor usage
 *   7. wrong_usage
 *   8. done
 *
 * @param how      how the transfer ended: BENCH_DONE as HTTP has it, or why not
 * @param status   of HTTP; 0: none came
 * @param message  what was seen where @p how is not BENCH_DONE
 * @param now_s    the end, where no [DONE] came
 * Returns  QN_OK; QN_E_NOMEM, the record is one all the same
 */
QN_MUST_CHECK qn_status bench_answer_end(bench_answer *answer, bench_end how, int status,
                                         const char *message, double now_s, qn_error *err);

/** Free its memory. */
void bench_answer_deinit(bench_answer *answer);
#endif

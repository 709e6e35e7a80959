/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file board.h  What each request is doing, for /server_info and for the watchdog's diagnosis: a
 * fixed table of atomics that any thread reads while others write.  And the watchdog, a thread of
 * its own that ends a hung process.
 */
#ifndef QN_SERVER_BOARD_H
#define QN_SERVER_BOARD_H
#include "quern/status.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BOARD_ID_BYTES = 65 /**< Of a request's id, with its NUL. */ };

/** Where a request is. */
typedef enum board_stage {
    BOARD_FREE,    /**< The entry is nobody's. */
    BOARD_READING, /**< Its body is parsed and tokenized. */
    BOARD_QUEUED,
    BOARD_PREFILL, /**< A step has begun it, no token yet. */
    BOARD_DECODE,
    BOARD_ENDING, /**< Cancelled, or its last bytes are on their way. */
} board_stage;

/** One request. */
typedef struct board_entry {
    _Atomic char id[BOARD_ID_BYTES]; /**< Of the request, as in the log; "" before. */
    _Atomic uint64_t begun_ns;       /**< By qn_clock_ns(). */
    _Atomic uint64_t n_prompt, n_generated;
    _Atomic int stage; /**< board_stage */
} board_entry;

/** Opaque. */
typedef struct server_board server_board;

/** @p n_entries requests at once.  QN_E_NOMEM. */
QN_MUST_CHECK qn_status board_open(server_board **out, size_t n_entries, qn_error *err);

/** The watchdog ends.  Accepts NULL; sets *board to NULL. */
void board_close(server_board **board);

/** A free entry for the request @p id, zeroed but for its stage BOARD_READING; NULL when all are
 * taken.  Loop's thread. */
board_entry *board_take(server_board *board, const char *id);
/** Its request has gone, and nobody writes to it any more.  Loop's thread. */
void board_give_back(server_board *board, board_entry *entry);

/** "queued" */
const char *board_stage_name(board_stage stage);

/** Threads that the watchdog watches. */
typedef enum board_thread { BOARD_LOOP, BOARD_WORKER, BOARD_N_THREADS } board_thread;

/** This thread begins something that must end within the watchdog's time; @p what is static. */
void board_busy(server_board *board, board_thread thread, const char *what);
/** It waits for others, for however long. */
void board_idle(server_board *board, board_thread thread);
/** How long it has been busy with one thing; 0: it waits.  Any thread. */
double board_busy_s(const server_board *board, board_thread thread);

/** The device is lost, and this process cannot do without.  Any thread. */
void board_device_lost(server_board *board);

/**
 * Start the watchdog: a thread that has been busy with one thing for @p timeout_s ends the process
 * by abort(), after telling on stderr which thread, in what, for how long, and what each request
 * was doing.  Time in which the whole process stood still does not count.  0: it never does.
 * Under systemd (NOTIFY_SOCKET, WATCHDOG_USEC) it also pings while all is well; when the device is
 * lost it asks for what follows pings that stay away, to be ended and started again.
 * Returns  QN_OK; QN_E_IO: no thread
 */
QN_MUST_CHECK qn_status board_watch(server_board *board, double timeout_s, qn_error *err);
#endif

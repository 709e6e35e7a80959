/* SPDX-License-Identifier: Apache-2.0 */
#include "server/board.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/env.h"
#include "server/notify.h"
#include "server/thread.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

enum {
    LINE_BYTES = 256, /* of an entry as text, with room to spare */
    WRITE_MS = 1000,  /* for which last words wait */
    TICKS = 8,        /* looks of the watchdog in the time that a thread has */
};

/* What a thread is doing. */
typedef struct activity {
    const char *_Atomic what;  /* NULL: it waits */
    _Atomic uint64_t begun_ns; /* written before what */
    uint64_t seen_ns;          /* begun_ns as the watchdog last saw it; its own, as the next */
    uint64_t watched_ns;       /* that it has seen the same */
} activity;

struct server_board {
    activity activities[BOARD_N_THREADS];

    _Atomic bool is_device_lost;

    /* The watchdog. */
    pthread_t thread;
    bool is_watched;
    uint64_t timeout_ns; /* 0: it only pings */
    uint64_t ping_ns;    /* between pings; 0: none */
    uint64_t tick_ns;
    pthread_mutex_t mutex;
    pthread_cond_t stops;
    bool must_stop; /* under the lock */

    size_t i_next; /* where the loop looks for a free entry first */
    size_t n_entries;
    board_entry entries[];
};

/* ------------------------------------------------------------------- text without any allocation
 */

/* A text that is cut where it has no more room.  Nothing here may take a lock: a hung thread might
 * hold it. */
typedef struct line {
    char *out;
    size_t n_bytes; /* room */
    size_t len;
} line;

static void put(line *to, const char *text)
{
    for (size_t i = 0; text[i] != '\0' && to->len < to->n_bytes; i++) {
        to->out[to->len++] = text[i];
    }
}

/* With commas: 1,024. */
static void put_number(line *to, uint64_t number)
{
    char digits[32];
    size_t at = sizeof digits - 1;
    digits[at] = '\0';
    for (size_t n_digits = 0; n_digits == 0 || number > 0; n_digits++) {
        if (n_digits > 0 && n_digits % 3 == 0) {
            digits[--at] = ',';
        }
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    }
    put(to, digits + at);
}

/* Seconds with one decimal. */
static void put_seconds(line *to, uint64_t duration_ns)
{
    const char tenths[] = {'.', (char)('0' + duration_ns / 100000000U % 10), '\0'};
    put_number(to, duration_ns / 1000000000U);
    put(to, tenths);
}

const char *board_stage_name(board_stage stage)
{
    static const char *const names[] = {
        [BOARD_FREE] = "free",       [BOARD_READING] = "reading", [BOARD_QUEUED] = "queued",
        [BOARD_PREFILL] = "prefill", [BOARD_DECODE] = "decode",   [BOARD_ENDING] = "ending",
    };
    return names[stage];
}

/* One request as a line of [LINE_BYTES]; its id may be torn where the entry is being taken.
 * Returns its bytes. */
static size_t format_entry(char *out, const board_entry *entry, uint64_t now_ns)
{
    const board_stage stage = (board_stage)atomic_load(&entry->stage);
    const uint64_t begun_ns = atomic_load(&entry->begun_ns);
    line text = {.out = out, .n_bytes = LINE_BYTES};
    line *const to = &text;
    char id[BOARD_ID_BYTES];
    for (size_t i = 0; i < sizeof id; i++) {
        id[i] = atomic_load(&entry->id[i]);
    }
    id[sizeof id - 1] = '\0';
    put(to, "request ");
    put(to, id);
    put(to, ": ");
    put(to, board_stage_name(stage));
    put(to, ", ");
    put_number(to, now_ns > begun_ns ? (now_ns - begun_ns) / 1000000000U : 0);
    put(to, " s, ");
    put_number(to, atomic_load(&entry->n_prompt));
    put(to, " prompt tokens, ");
    put_number(to, atomic_load(&entry->n_generated));
    put(to, " generated\n");
    return to->len;
}

/* --------------------------------------------------------------------------------- the entries */

static void set_id(board_entry *entry, const char *id)
{
    const size_t len = strnlen(id, BOARD_ID_BYTES - 1);
    for (size_t i = 0; i < len; i++) {
        atomic_store(&entry->id[i], id[i]);
    }
    atomic_store(&entry->id[len], '\0');
}

board_entry *board_take(server_board *board, const char *id)
{
    for (size_t i = 0; i < board->n_entries; i++) {
        board_entry *const entry = &board->entries[board->i_next];
        board->i_next = board->i_next + 1 < board->n_entries ? board->i_next + 1 : 0;
        if (atomic_load(&entry->stage) == BOARD_FREE) {
            set_id(entry, id);
            atomic_store(&entry->begun_ns, qn_clock_ns());
            atomic_store(&entry->n_prompt, 0);
            atomic_store(&entry->n_generated, 0);
            atomic_store(&entry->stage, BOARD_READING);
            return entry;
        }
    }
    return NULL;
}

void board_give_back(server_board *board, board_entry *entry)
{
    QN_ASSERT(entry >= board->entries && entry < board->entries + board->n_entries);
    QN_ASSERT(atomic_load(&entry->stage) != BOARD_FREE);
    atomic_store(&entry->stage, BOARD_FREE);
}

/* --------------------------------------------------------------------------------- the watchdog */

void board_busy(server_board *board, board_thread thread, const char *what)
{
    atomic_store(&board->activities[thread].begun_ns, qn_clock_ns());
    atomic_store(&board->activities[thread].what, what);
}

void board_idle(server_board *board, board_thread thread)
{
    atomic_store(&board->activities[thread].what, NULL);
}

double board_busy_s(const server_board *board, board_thread thread)
{
    const activity *const at = &board->activities[thread];
    const char *const what = atomic_load(&at->what);
    const uint64_t begun_ns = atomic_load(&at->begun_ns);
    const uint64_t now_ns = qn_clock_ns(); /* not before begun_ns */
    return what != NULL ? qn_clock_seconds(begun_ns, now_ns) : 0.0;
}

void board_device_lost(server_board *board)
{
    atomic_store(&board->is_device_lost, true);
}

/* Write all of it.  False: stderr does not take it within a second, and abort() has to come. */
static bool write_all(const char *text, size_t len)
{
    for (size_t at = 0; at < len;) {
        struct pollfd descriptor = {.fd = STDERR_FILENO, .events = POLLOUT};
        if (poll(&descriptor, 1, WRITE_MS) == 0) {
            return false;
        }
        const ssize_t n = write(STDERR_FILENO, text + at, len - at);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        at += (size_t)n;
    }
    return true;
}

/* The last words of the process. */
_Noreturn static void end_process(const server_board *board, board_thread thread, const char *what)
{
    static const char *const names[] = {[BOARD_LOOP] = "loop", [BOARD_WORKER] = "worker"};
    const uint64_t now_ns = qn_clock_ns();
    char bytes[512];
    line to = {.out = bytes, .n_bytes = sizeof bytes};
    put(&to, "quern: error: watchdog: thread ");
    put(&to, names[thread]);
    put(&to, ": busy for ");
    put_seconds(&to, board->activities[thread].watched_ns);
    put(&to, " s with ");
    put(&to, what);
    put(&to, ", its end within ");
    put_seconds(&to, board->timeout_ns);
    put(&to, " s (--watchdog-timeout) expected; what requests were doing:\n");
    bool goes_on = write_all(to.out, to.len);
    for (size_t i = 0; goes_on && i < board->n_entries; i++) {
        if (atomic_load(&board->entries[i].stage) != BOARD_FREE) {
            char text[LINE_BYTES];
            goes_on = write_all(text, format_entry(text, &board->entries[i], now_ns));
        }
    }
    abort();
}

/*
 * Has a thread been at one thing for too long?  Time counts only while this thread runs too, a few
 * ticks at most for each look: a process that was stopped, or a machine that slept, does not hang.
 */
static void look(server_board *board, uint64_t elapsed_ns)
{
    const uint64_t counted_ns = elapsed_ns < 2 * board->tick_ns ? elapsed_ns : 2 * board->tick_ns;
    for (board_thread i = 0; i < BOARD_N_THREADS; i++) {
        activity *const at = &board->activities[i];
        const char *const what = atomic_load(&at->what);
        const uint64_t begun_ns = atomic_load(&at->begun_ns);
        if (what == NULL || begun_ns != at->seen_ns) {
            at->seen_ns = begun_ns;
            at->watched_ns = 0;
            continue;
        }
        at->watched_ns += counted_ns;
        if (board->timeout_ns > 0 && at->watched_ns > board->timeout_ns) {
            end_process(board, i, what);
        }
    }
}

/* Sleep until then; false: leave. */
static bool sleep_until(server_board *board, uint64_t end_ns)
{
    const struct timespec end = {.tv_sec = (time_t)(end_ns / 1000000000U),
                                 .tv_nsec = (long)(end_ns % 1000000000U)};
    (void)pthread_mutex_lock(&board->mutex);
    while (!board->must_stop &&
           pthread_cond_timedwait(&board->stops, &board->mutex, &end) != ETIMEDOUT) {
    }
    const bool goes_on = !board->must_stop;
    (void)pthread_mutex_unlock(&board->mutex);
    return goes_on;
}

static void *watch(void *argument)
{
    server_board *const board = argument;
    uint64_t now_ns = qn_clock_ns();
    uint64_t pinged_ns = now_ns;
    bool was_lost = false; /* a look ago: the requests of that step have had their errors */
    while (sleep_until(board, now_ns + board->tick_ns)) {
        const uint64_t before_ns = now_ns;
        now_ns = qn_clock_ns();
        look(board, now_ns - before_ns);
        if (board->ping_ns > 0 && was_lost) {
            server_notify("WATCHDOG=trigger");
        } else if (board->ping_ns > 0 && now_ns - pinged_ns >= board->ping_ns) {
            pinged_ns = now_ns;
            server_notify("WATCHDOG=1");
        }
        was_lost = atomic_load(&board->is_device_lost);
    }
    return NULL;
}

/* Half the time within which the service manager expects a ping; 0: it expects none. */
static uint64_t ping_interval_ns(void)
{
    const char *const text = qn_env_get(QN_ENV_WATCHDOG_USEC);
    char *end = NULL;
    const unsigned long long usec = text != NULL ? strtoull(text, &end, 10) : 0;
    const bool is_number = end != NULL && *end == '\0' && text[0] != '-';
    return is_number && usec < UINT64_MAX / 1000 ? usec * 1000 / 2 : 0;
}

qn_status board_watch(server_board *board, double timeout_s, qn_error *err)
{
    QN_ASSERT(!board->is_watched && timeout_s >= 0.0);
    enum { TICK_NS_MIN = 1000 * 1000 };
    const uint64_t longest_ns = 1000000000U; /* a tick: a second is soon enough */
    board->timeout_ns = (uint64_t)(timeout_s * 1e9);
    board->ping_ns = ping_interval_ns();
    if (board->timeout_ns == 0 && board->ping_ns == 0) {
        return QN_OK;
    }
    board->tick_ns = longest_ns;
    const uint64_t waits_ns[] = {board->timeout_ns / TICKS, board->ping_ns / 2};
    for (size_t i = 0; i < sizeof waits_ns / sizeof waits_ns[0]; i++) {
        const bool is_less = waits_ns[i] > 0 && waits_ns[i] < board->tick_ns;
        board->tick_ns = is_less ? waits_ns[i] : board->tick_ns;
    }
    board->tick_ns = board->tick_ns > TICK_NS_MIN ? board->tick_ns : TICK_NS_MIN;
    const qn_status status = thread_start(&board->thread, watch, board, "quern-watchdog", err);
    board->is_watched = status == QN_OK;
    return status;
}

/* ------------------------------------------------------------------------------- open and close */

qn_status board_open(server_board **out, size_t n_entries, qn_error *err)
{
    *out = NULL;
    server_board *const board =
        n_entries < SIZE_MAX / sizeof(board_entry) - sizeof(server_board)
            ? calloc(1, sizeof *board + n_entries * sizeof board->entries[0])
            : NULL;
    if (board == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "board: no memory for %zu requests",
                       n_entries);
    }
    board->n_entries = n_entries;
    pthread_condattr_t attributes;
    (void)pthread_condattr_init(&attributes); /* none of these can fail as they are called */
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&board->stops, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    (void)pthread_mutex_init(&board->mutex, NULL);
    *out = board;
    return QN_OK;
}

void board_close(server_board **board)
{
    server_board *const b = *board;
    if (b == NULL) {
        return;
    }
    if (b->is_watched) {
        (void)pthread_mutex_lock(&b->mutex);
        b->must_stop = true;
        (void)pthread_cond_signal(&b->stops);
        (void)pthread_mutex_unlock(&b->mutex);
        (void)pthread_join(b->thread, NULL);
    }
    (void)pthread_cond_destroy(&b->stops);
    (void)pthread_mutex_destroy(&b->mutex);
    free(b);
    *board = NULL;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "quant/mill.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "base/try.h"
#include "quant/ending.h"
#include "quant/piece.h"
#include "quant/shard.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>
#include <xxhash.h>

enum { SAMPLE_BYTES = 256 << 20 };

/* A shard while its pieces are worked on. */
typedef struct job {
    struct qn_mill *mill;
    qn_piece_io io;
    qn_piece *pieces; /* [n_pieces] owned */
    size_t n_pieces;
    uint64_t done_before;        /* bytes of the source that earlier shards had */
    bool *is_same;               /* [n_shards] of shards that are checked; borrowed */
    atomic_size_t i_next;        /* piece, or shard */
    atomic_uint_fast64_t n_done; /* bytes of the source, of this shard */
    atomic_bool is_failed;       /* nobody takes another piece */
    atomic_bool is_cancelled;    /* and nobody finishes one that takes long */
    pthread_mutex_t lock;        /* over the three below */
    size_t i_failed;             /* the first piece that failed */
    qn_status status;
    qn_error err;
} job;

/* A thread that finishes a shard. */
typedef struct finisher {
    pthread_t thread;
    bool is_running;
    qn_ending ending;
    qn_status status;
    qn_error err;
} finisher;

struct qn_mill {
    qn_mill_options options;
    qn_pool *pool;        /* owned */
    qn_piece_room *rooms; /* [n_threads] owned */
    uint32_t n_threads;
    uint32_t *n_waiting;   /* [n_shards] owned; see qn_ending */
    uint64_t total_bytes;  /* of the source's shards that are still to be done */
    finisher finishers[2]; /* of the shard before, and of this one */
};

/* --------------------------------------------------------------------------- open and close -- */

qn_status qn_mill_open(qn_mill **out, const qn_mill_options *options, qn_error *err)
{
    qn_status status = QN_OK;
    *out = NULL;
    qn_mill *mill = calloc(1, sizeof *mill);
    if (mill == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "quantize: no memory to start");
    }
    mill->options = *options;
    QN_TRY(status, qn_pool_open(&mill->pool, options->n_threads, err), fail);
    mill->rooms = calloc(qn_pool_threads(mill->pool), sizeof *mill->rooms);
    mill->n_waiting = calloc(options->plan->n_shards, sizeof *mill->n_waiting);
    if (mill->rooms == NULL || mill->n_waiting == NULL) {
        status = qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "quantize: no memory to start");
        goto fail;
    }
    while (mill->n_threads < qn_pool_threads(mill->pool)) {
        QN_TRY(status, qn_piece_room_init(&mill->rooms[mill->n_threads], options->plan, err), fail);
        mill->n_threads++;
    }
    mill->total_bytes = options->plan->source_bytes;
    *out = mill;
    return QN_OK;

fail:
    qn_mill_close(&mill);
    return status;
}

void qn_mill_close(qn_mill **mill)
{
    qn_mill *const m = *mill;
    if (m == NULL) {
        return;
    }
    qn_pool_close(&m->pool);
    for (uint32_t i = 0; i < m->n_threads; i++) {
        qn_piece_room_deinit(&m->rooms[i]);
    }
    free(m->rooms);
    free(m->n_waiting);
    free(m);
    *mill = NULL;
}

/* ----------------------------------------------------------------------------------- pieces -- */

/* Remember the failure of the first piece: pieces are taken in order, so whoever fails first, all
 * before it are under way, and the same one is reported for any number of threads. */
static void fail_job(job *j, size_t i_piece, qn_status status, const qn_error *err)
{
    (void)pthread_mutex_lock(&j->lock);
    if (j->status == QN_OK || i_piece < j->i_failed) {
        j->status = status;
        j->i_failed = i_piece;
        j->err = *err;
    }
    (void)pthread_mutex_unlock(&j->lock);
    atomic_store(&j->is_failed, true);
}

/* Ask for what is read next while this piece is worked on. */
static void read_ahead(const job *j, size_t i_piece)
{
    const size_t i_ahead = i_piece + j->mill->n_threads;
    if (i_ahead < j->n_pieces) {
        const qn_piece *const ahead = &j->pieces[i_ahead];
        const uint64_t n_bytes = qn_piece_source_bytes(ahead);
        (void)posix_fadvise(j->io.source_fd,
                            (off_t)(ahead->tensor->offset + ahead->first * (n_bytes / ahead->n)),
                            (off_t)n_bytes, POSIX_FADV_WILLNEED);
    }
}

static bool tell_progress(job *j)
{
    const qn_mill_options *const o = &j->mill->options;
    qn_error err = {0};
    const uint64_t done = j->done_before + atomic_load(&j->n_done);
    if (o->progress == NULL || o->progress(o->progress_context, done, j->mill->total_bytes)) {
        return true;
    }
    (void)qn_fail(&err, QN_E_CANCELLED, 0, __func__,
                  "quantize: interrupted after %" PRIu64 " of %" PRIu64
                  " bytes, all expected; --resume goes on",
                  done, j->mill->total_bytes);
    fail_job(j, SIZE_MAX, QN_E_CANCELLED, &err);
    atomic_store(&j->is_cancelled, true);
    return false;
}

/* One thread's share: pieces until there are none. */
static void work(void *context, size_t first, size_t end, uint32_t i_thread)
{
    job *const j = context;
    qn_error err = {0};
    (void)first;
    (void)end;
    while (!atomic_load(&j->is_failed)) {
        const size_t i_piece = atomic_fetch_add(&j->i_next, 1);
        if (i_piece >= j->n_pieces) {
            return;
        }
        qn_piece *const piece = &j->pieces[i_piece];
        read_ahead(j, i_piece);
        const qn_status status = qn_piece_run(piece, &j->io, &j->mill->rooms[i_thread], &err);
        if (status < 0) {
            fail_job(j, i_piece, status, &err);
            return;
        }
        if (j->io.target_fd >= 0) { /* begin to write it, so that the end does not wait for all */
            (void)sync_file_range(j->io.target_fd, (off_t)piece->written[0].offset,
                                  (off_t)piece->written[0].n_bytes, SYNC_FILE_RANGE_WRITE);
        }
        (void)atomic_fetch_add(&j->n_done, qn_piece_source_bytes(piece));
        if (i_thread == 0 && !tell_progress(j)) { /* the caller's own thread */
            return;
        }
    }
}

/* Cut the shard into pieces; for a sample only what is encoded, and no more than SAMPLE_BYTES. */
static qn_status cut(job *j, const qn_plan_shard *shard, bool is_sample, qn_error *err)
{
    const uint64_t bytes_max = is_sample ? SAMPLE_BYTES : UINT64_MAX;
    uint64_t n_bytes = 0;
    size_t n = 0;
    for (size_t i = 0; i < shard->n_tensors; i++) {
        n += qn_piece_count(&shard->tensors[i]);
    }
    j->pieces = calloc(n + 1, sizeof *j->pieces);
    if (j->pieces == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "%.300s: no memory for its pieces",
                       shard->file);
    }
    for (size_t i = 0; i < shard->n_tensors; i++) {
        const qn_plan_tensor *const tensor = &shard->tensors[i];
        const uint64_t n_here =
            is_sample && tensor->action != QN_PLAN_ENCODE ? 0 : qn_piece_count(tensor);
        for (uint64_t k = 0; k < n_here && n_bytes < bytes_max; k++) {
            j->pieces[j->n_pieces] = qn_piece_get(tensor, k);
            n_bytes += qn_piece_source_bytes(&j->pieces[j->n_pieces++]);
        }
    }
    return QN_OK;
}

/* Work on every piece of shard i, which writes to @p target_fd (-1: nowhere). */
static qn_status run_pieces(job *j, qn_mill *mill, size_t i_shard, int target_fd, qn_error *err)
{
    const qn_mill_options *const o = &mill->options;
    const qn_plan_shard *const shard = &o->plan->shards[i_shard];
    qn_status status = QN_OK;
    j->mill = mill;
    j->io = (qn_piece_io){
        .plan = o->plan,
        .kernels = o->kernels,
        .target = o->target,
        .scale = o->scale,
        .source_fd = -1,
        .target_fd = target_fd,
        .file = shard->file,
    };
    (void)pthread_mutex_init(&j->lock, NULL);
    for (uint32_t i = 0; i < mill->n_threads; i++) {
        memset(mill->rooms[i].stats, 0, sizeof mill->rooms[i].stats);
    }
    QN_TRY(status, cut(j, shard, target_fd < 0, err), fail);
    QN_TRY(status, qn_shard_open(&j->io.source_fd, o->plan, i_shard, err), fail);
    qn_pool_run(mill->pool, mill->n_threads, work, j);
    status = j->status;
    if (status < 0 && err != NULL) {
        *err = j->err;
    }
    if (status == QN_OK || status == QN_E_FORMAT) { /* NaN may be what a change has left */
        const qn_status same = qn_shard_check(o->plan, i_shard, err);
        status = same < 0 ? same : status;
    }
fail:
    if (j->io.source_fd >= 0) {
        (void)close(j->io.source_fd);
    }
    (void)pthread_mutex_destroy(&j->lock);
    return status;
}

/* ----------------------------------------------------------------------------------- shards -- */

/* What the shard's tensors were and became, and what that lost. */
static void sum_up(qn_kind_stats stats[QN_N_STATS], const job *j, const qn_plan_shard *shard)
{
    for (uint32_t i = 0; i < j->mill->n_threads; i++) {
        for (size_t k = 0; k < QN_N_STATS; k++) {
            qn_kind_stats_add(&stats[k], &j->mill->rooms[i].stats[k]);
        }
    }
    qn_plan_add_stats(stats, shard);
    for (size_t i = 0; i < j->n_pieces; i++) {
        const qn_piece *const piece = &j->pieces[i];
        qn_mxfp4_error *const error =
            &stats[qn_stats_index(piece->tensor->kind, piece->tensor->is_mtp)].error;
        error->x_sq += piece->x_sq;
        error->error_sq += piece->error_sq;
    }
}

/* Write the header and note it and what the pieces wrote. */
static qn_status note_written(qn_ending *ending, const job *j, const qn_plan_shard *shard,
                              qn_error *err)
{
    qn_buf head;
    qn_status status = QN_OK;
    qn_buf_init(&head, QN_SAFETENSORS_HEADER_MAX);
    ending->written = calloc(2 * j->n_pieces + 1, sizeof *ending->written);
    if (ending->written == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "%.300s: no memory to finish it",
                       shard->file);
    }
    QN_TRY(status, qn_plan_head_append(&head, shard, err), fail);
    QN_TRY(status,
           qn_target_write(j->io.target, ending->fd, shard->file, head.ptr, head.len, 0, err),
           fail);
    ending->written[ending->n_written++] =
        (qn_written){.n_bytes = head.len, .hash = XXH3_64bits(head.ptr, head.len)};
    for (size_t i = 0; i < 2 * j->n_pieces; i++) {
        ending->written[ending->n_written++] = j->pieces[i / 2].written[i % 2];
    }
fail:
    qn_buf_deinit(&head);
    return status;
}

/* Everything of shard i but its end. */
static qn_status write_shard(qn_ending *ending, qn_mill *mill, size_t i_shard, uint64_t done_before,
                             qn_error *err)
{
    const qn_plan_shard *const shard = &mill->options.plan->shards[i_shard];
    qn_kind_stats *const stats = calloc(QN_N_STATS, sizeof *stats);
    job j = {.done_before = done_before, .i_failed = SIZE_MAX};
    qn_status status = QN_OK;
    *ending = (qn_ending){
        .mill = &mill->options,
        .i_shard = i_shard,
        .fd = -1,
        .n_waiting = mill->n_waiting,
    };
    if (stats == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "%.300s: no memory for it", shard->file);
    }
    QN_TRY(status,
           qn_target_create(&ending->fd, mill->options.target, shard->file, shard->out_bytes, err),
           fail);
    QN_TRY(status, run_pieces(&j, mill, i_shard, ending->fd, err), fail);
    QN_TRY(status, note_written(ending, &j, shard, err), fail);
    sum_up(stats, &j, shard);
    ending->kinds = qn_kinds_json(stats);
fail:
    free(j.pieces);
    free(stats);
    if (status < 0 && ending->fd >= 0) {
        (void)close(ending->fd);
        free(ending->written);
        qn_target_drop(mill->options.target, shard->file);
    }
    return status;
}

static void *finish_shard(void *context)
{
    finisher *const f = context;
    f->status = qn_ending_run(&f->ending, &f->err);
    return NULL;
}

/* Wait for the shard before. */
static qn_status join_finisher(finisher *f, qn_error *err)
{
    if (!f->is_running) {
        return QN_OK;
    }
    (void)pthread_join(f->thread, NULL);
    f->is_running = false;
    if (f->status < 0 && err != NULL) {
        *err = f->err;
    }
    return f->status;
}

/* Finish a shard beside the next one's work; here where there is none, or no thread to be had. */
static qn_status start_finisher(finisher *f, bool is_last, qn_error *err)
{
    f->is_running = !is_last && pthread_create(&f->thread, NULL, finish_shard, f) == 0;
    return f->is_running ? QN_OK : qn_ending_run(&f->ending, err);
}

/* A thread that hashes what is done. */
typedef struct checker {
    job *j;
    uint32_t i_thread;
} checker;

static bool note_read(void *context, size_t n_bytes)
{
    const checker *const c = context;
    (void)atomic_fetch_add(&c->j->n_done, n_bytes);
    return c->i_thread == 0 ? tell_progress(c->j) : !atomic_load(&c->j->is_cancelled);
}

/* One thread's share: shards that are done, until there are none. */
static void check(void *context, size_t first, size_t end, uint32_t i_thread)
{
    job *const j = context;
    const qn_mill_options *const o = &j->mill->options;
    checker c = {.j = j, .i_thread = i_thread};
    qn_error err = {0};
    (void)first;
    (void)end;
    while (!atomic_load(&j->is_failed)) {
        const size_t i = atomic_fetch_add(&j->i_next, 1);
        if (i >= o->plan->n_shards) {
            return;
        }
        const qn_status status = qn_manifest_get(o->manifest, i).is_done
                                     ? qn_ending_check(&j->is_same[i], o, i, note_read, &c, &err)
                                     : QN_OK;
        if (status < 0 && status != QN_E_CANCELLED) { /* of which was told */
            fail_job(j, i, status, &err);
        }
    }
}

/* Which of the shards that are done stand as they should. */
static qn_status check_done(qn_mill *mill, bool *is_same, qn_error *err)
{
    const qn_mill_options *const o = &mill->options;
    job j = {.mill = mill, .is_same = is_same, .i_failed = SIZE_MAX};
    mill->total_bytes = 0;
    for (size_t i = 0; i < o->plan->n_shards; i++) {
        mill->total_bytes += qn_manifest_get(o->manifest, i).bytes;
    }
    if (mill->total_bytes == 0) {
        return QN_OK;
    }
    qn_log(QN_LOG_INFO, "checking %s that are done", qn_show_size(mill->total_bytes).text);
    (void)pthread_mutex_init(&j.lock, NULL);
    qn_pool_run(mill->pool, mill->n_threads, check, &j);
    (void)pthread_mutex_destroy(&j.lock);
    if (j.status < 0 && err != NULL) {
        *err = j.err;
    }
    return j.status;
}

/* What earlier runs have finished is left, and sources that they had no time to delete go. */
static qn_status begin(qn_mill *mill, size_t *n_resumed, qn_error *err)
{
    const qn_mill_options *const o = &mill->options;
    qn_status status = QN_OK;
    bool *const is_same = calloc(o->plan->n_shards, sizeof *is_same);
    if (is_same == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "quantize: no memory to start");
    }
    QN_TRY(status, check_done(mill, is_same, err), fail);
    mill->total_bytes = 0;
    for (size_t i = 0; i < o->plan->n_shards; i++) {
        *n_resumed += is_same[i] ? 1 : 0;
        if (!is_same[i]) {
            mill->total_bytes += o->plan->shards[i].source_bytes;
            qn_manifest_clear_done(o->manifest, i);
            qn_ending_wait(mill->n_waiting, o->plan, i, 1);
        }
    }
    if (o->progress != NULL && !o->progress(o->progress_context, 0, mill->total_bytes)) {
        status = qn_fail(err, QN_E_CANCELLED, 0, __func__,
                         "quantize: interrupted before it went on, all expected");
        goto fail;
    }
    for (size_t i = 0; o->deletes_source && i < o->plan->n_shards; i++) {
        QN_TRY(status, qn_ending_delete(o, mill->n_waiting, i, err), fail);
    }
fail:
    free(is_same);
    return status;
}

qn_status qn_mill_run(qn_mill *mill, size_t *n_resumed, uint64_t *n_bytes, qn_error *err)
{
    const qn_mill_options *const o = &mill->options;
    finisher *before = &mill->finishers[0];
    finisher *now = &mill->finishers[1];
    *n_resumed = 0;
    *n_bytes = 0;
    qn_status status = begin(mill, n_resumed, err);
    size_t n_done = *n_resumed;
    for (size_t i = 0; status == QN_OK && i < o->plan->n_shards; i++) {
        if (qn_manifest_get(o->manifest, i).is_done) {
            continue;
        }
        *now = (finisher){0};
        QN_TRY(status, write_shard(&now->ending, mill, i, *n_bytes, err), fail);
        *n_bytes += o->plan->shards[i].source_bytes;
        status = join_finisher(before, err);
        const bool is_last = ++n_done == o->plan->n_shards;
        const qn_status started = start_finisher(now, is_last, status < 0 ? NULL : err);
        status = status < 0 ? status : started;
        finisher *const other = before;
        before = now;
        now = other;
    }
fail:
    if (status < 0) {
        (void)join_finisher(before, NULL);
        return status;
    }
    return join_finisher(before, err);
}

qn_status qn_mill_sample(qn_mill *mill, uint64_t *n_bytes, double *seconds, qn_error *err)
{
    const qn_plan *const plan = mill->options.plan;
    job j = {.i_failed = SIZE_MAX};
    size_t i_most = plan->n_shards;
    *n_bytes = 0;
    *seconds = 0.0;
    for (size_t i = 0; i < plan->n_shards; i++) {
        if (!plan->shards[i].is_final &&
            (i_most == plan->n_shards ||
             plan->shards[i].encode_elements > plan->shards[i_most].encode_elements)) {
            i_most = i;
        }
    }
    if (i_most == plan->n_shards) {
        return QN_OK;
    }
    const uint64_t begin_ns = qn_clock_ns();
    const qn_status status = run_pieces(&j, mill, i_most, -1, err);
    *n_bytes = atomic_load(&j.n_done);
    *seconds = qn_clock_seconds(begin_ns, qn_clock_ns());
    free(j.pieces);
    return status;
}

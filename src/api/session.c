/* SPDX-License-Identifier: Apache-2.0 */
#include "quern/quern.h"

#include "api/internal.h"
#include "api/record.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/try.h"
#include "engine/sequence.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <sys/stat.h>

/* Logits of this many rows are kept at once where every position's are wanted. */
enum { LOGIT_ROWS = 16 };

struct qn_session {
    const qn_model *model; /* borrowed */
    qn_sequence *sequence; /* owned */
    qn_recorder *recorder; /* owned; NULL where no file is wanted */
    bool wants_logits_file;
    qn_sampling sampling;
    qn_session_stats stats;
};

static qn_status check_sampling(const qn_sampling *s, qn_error *err)
{
    if (!(s->temperature >= 0.0F && s->temperature <= 100.0F)) {
        return qn_fail(err, QN_E_INVAL, 0, __func__, "temperature: %g, 0 to 100 expected",
                       (double)s->temperature);
    }
    if (!(s->top_p > 0.0F && s->top_p <= 1.0F)) {
        return qn_fail(err, QN_E_INVAL, 0, __func__, "top_p: %g, above 0 and at most 1 expected",
                       (double)s->top_p);
    }
    if (!(s->min_p >= 0.0F && s->min_p <= 1.0F)) {
        return qn_fail(err, QN_E_INVAL, 0, __func__, "min_p: %g, 0 to 1 expected",
                       (double)s->min_p);
    }
    return QN_OK;
}

static bool is_same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/*
 * Would writing to @p path change the model's folder @p dir?  Its files may be links to elsewhere,
 * as in the Hugging Face cache, so each is compared with what the path leads to.
 */
static bool is_of_model(const char *dir, const char *path)
{
    char parent[PATH_MAX];
    struct stat folder;
    struct stat there;
    const qn_str parent_part = qn_path_parent(path, NULL);
    (void)snprintf(parent, sizeof parent, "%.*s", (int)parent_part.len, parent_part.ptr);
    if (stat(dir, &folder) == 0 && stat(parent, &there) == 0 && is_same_file(&folder, &there)) {
        return true;
    }
    DIR *const list = stat(path, &there) == 0 ? opendir(dir) : NULL;
    bool is_found = false;
    for (const struct dirent *item; list != NULL && !is_found && (item = readdir(list)) != NULL;) {
        struct stat file;
        is_found = fstatat(dirfd(list), item->d_name, &file, 0) == 0 && is_same_file(&file, &there);
    }
    if (list != NULL) {
        (void)closedir(list);
    }
    return is_found;
}

static qn_status check_options(const qn_model *model, const qn_session_options *o, qn_error *err)
{
    if (model == NULL) {
        return qn_fail(err, QN_E_INVAL, 0, __func__, "session: no model, an open one expected");
    }
    if (model->glm == NULL) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "%s: opened without weights, a model with weights expected", model->name);
    }
    if (o->context_tokens > model->config.n_context_max) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "context_tokens (--context): %u, at most the model's %u expected",
                       o->context_tokens, model->config.n_context_max);
    }
    if (o->chunk_tokens > QN_CHUNK_TOKENS_MAX) {
        return qn_fail(err, QN_E_INVAL, 0, __func__, "chunk_tokens: %u, at most %d expected",
                       o->chunk_tokens, QN_CHUNK_TOKENS_MAX);
    }
    const char *const paths[] = {o->logits_path, o->trace_path};
    for (size_t i = 0; i < 2; i++) {
        if (paths[i] != NULL && is_of_model(model->path, paths[i])) {
            return qn_fail(
                err, QN_E_INVAL, 0, __func__,
                "%.200s: in the folder of the model or a file of it, another place expected",
                paths[i]);
        }
    }
    return o->sampling == NULL ? QN_OK : check_sampling(o->sampling, err);
}

qn_status qn_session_open(qn_session **out, qn_model *model, const qn_session_options *options,
                          qn_error *err)
{
    static const qn_session_options defaults = {0};
    const qn_session_options *const o = options != NULL ? options : &defaults;
    qn_status status = QN_OK;
    *out = NULL;
    status = check_options(model, o, err);
    if (status < 0) {
        return status;
    }
    qn_session *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "session: no memory");
    }
    s->model = model;
    s->sampling = o->sampling != NULL ? *o->sampling : model->info.sampling;
    s->wants_logits_file = o->logits_path != NULL;
    const uint32_t n_chunk_rows = o->chunk_tokens > 0 ? o->chunk_tokens : QN_CHUNK_TOKENS_MAX;
    const qn_sequence_options sequence_options = {
        .kernels = &model->kernels,
        .kv_dtype = model->kv_dtype,
        .n_tokens_max = o->context_tokens > 0 ? o->context_tokens : model->config.n_context_max,
        .n_rows_max = s->wants_logits_file && n_chunk_rows > LOGIT_ROWS ? LOGIT_ROWS : n_chunk_rows,
        .wants_all_logits = s->wants_logits_file,
    };
    QN_TRY(status, qn_sequence_open(&s->sequence, model->glm, &sequence_options, err), fail);
    if (o->logits_path != NULL || o->trace_path != NULL) {
        QN_TRY(status,
               qn_recorder_open(&s->recorder, &model->config, o->logits_path, o->trace_path, err),
               fail);
    }
    *out = s;
    return QN_OK;

fail:
    qn_session_close(&s);
    return status;
}

void qn_session_close(qn_session **session)
{
    if (session == NULL || *session == NULL) {
        return;
    }
    qn_recorder_close(&(*session)->recorder);
    qn_sequence_close(&(*session)->sequence);
    free(*session);
    *session = NULL;
}

/* Compute the next rows and record them; a trace holds prompt rows only. */
static qn_status step(qn_session *s, bool is_prompt, qn_error *err)
{
    const uint32_t first = qn_sequence_computed(s->sequence);
    const uint32_t n_rows = qn_sequence_next_rows(s->sequence);
    const qn_probe *probe = NULL;
    if (s->recorder != NULL && is_prompt) {
        probe = qn_recorder_begin_step(s->recorder, n_rows);
    }
    qn_sequence_step(s->sequence, probe);
    if (s->recorder == NULL) {
        return QN_OK;
    }
    return qn_recorder_end_step(s->recorder, n_rows, qn_sequence_ids(s->sequence) + first,
                                qn_sequence_step_logits(s->sequence), err);
}

/*
 * What is still to be computed before going on: the token drawn last, which costs nothing where no
 * other follows, or after a cancelled prompt its last position, for the logits.  No prompt rows: a
 * trace has that position already.
 */
static qn_status catch_up(qn_session *s, qn_error *err)
{
    return qn_sequence_computed(s->sequence) < qn_sequence_count(s->sequence) ? step(s, false, err)
                                                                              : QN_OK;
}

static double seconds_since(uint64_t start_ns)
{
    return (double)(qn_clock_ns() - start_ns) * 1e-9;
}

static qn_status check_prompt(const qn_session *s, const int32_t *ids, size_t n_ids, qn_error *err)
{
    const uint32_t n_vocab = s->model->config.n_vocab;
    const size_t n_free = qn_sequence_room(s->sequence);
    if (ids == NULL && n_ids > 0) {
        return qn_fail(err, QN_E_INVAL, 0, __func__, "prompt: NULL, %zu ids expected", n_ids);
    }
    if (n_ids > n_free) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "prompt: %zu tokens, at most the %zu that are free of a context "
                       "(--context) of %zu expected",
                       n_ids, n_free, n_free + qn_sequence_count(s->sequence));
    }
    for (size_t i = 0; i < n_ids; i++) {
        if (ids[i] < 0 || (uint32_t)ids[i] >= n_vocab) {
            return qn_fail(err, QN_E_INVAL, 0, __func__,
                           "prompt: id %" PRId32 " at %zu, 0 to %u expected", ids[i], i,
                           n_vocab - 1);
        }
    }
    return QN_OK;
}

qn_status qn_session_feed(qn_session *session, const int32_t *ids, size_t n_ids, qn_progress_fn *fn,
                          void *context, qn_error *err)
{
    qn_session *const s = session;
    const uint64_t start_ns = qn_clock_ns();
    qn_status status = check_prompt(s, ids, n_ids, err);
    if (status < 0) {
        return status;
    }
    QN_TRY(status, catch_up(s, err), fail);
    const uint32_t first = qn_sequence_count(s->sequence);
    for (size_t i = 0; i < n_ids; i++) {
        qn_sequence_append(s->sequence, ids[i]);
    }
    while (qn_sequence_next_rows(s->sequence) > 0) {
        const uint32_t n_done = qn_sequence_computed(s->sequence) - first;
        if (fn != NULL && !fn(context, n_done, n_ids)) {
            status =
                qn_fail(err, QN_E_CANCELLED, 0, __func__,
                        "prompt: cancelled after %u of %zu tokens, all expected", n_done, n_ids);
            goto fail;
        }
        QN_TRY(status, step(s, true, err), fail);
    }
fail:
    qn_sequence_drop_pending(s->sequence); /* none unless it failed */
    s->stats.n_prompt_tokens = qn_sequence_count(s->sequence) - s->stats.n_generated_tokens;
    s->stats.prefill_s += seconds_since(start_ns);
    return status;
}

qn_status qn_session_next(int32_t *token, qn_session *session, qn_error *err)
{
    qn_session *const s = session;
    const uint64_t start_ns = qn_clock_ns();
    qn_status status = QN_OK;
    *token = -1;
    if (qn_sequence_count(s->sequence) == 0) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "session: nothing fed, a prompt of at least one token expected");
    }
    if (qn_sequence_room(s->sequence) == 0) {
        return QN_AGAIN;
    }
    QN_TRY(status, catch_up(s, err), fail);
    QN_TRY(status, qn_sequence_draw(token, s->sequence, &s->sampling, err), fail);
    qn_sequence_append(s->sequence, *token);
    s->stats.n_generated_tokens++;
fail:
    s->stats.decode_s += seconds_since(start_ns);
    return status;
}

const float *qn_session_logits(qn_session *session)
{
    return qn_sequence_logits(session->sequence);
}

qn_session_stats qn_session_get_stats(const qn_session *session)
{
    qn_session_stats stats = session->stats;
    stats.kv_bytes = qn_sequence_cache_bytes(session->sequence);
    return stats;
}

qn_status qn_session_finish_files(qn_session *session, qn_error *err)
{
    if (session->recorder == NULL) {
        return QN_OK;
    }
    /* The file of logits has every position, that of the last token drawn included. */
    const qn_status status = session->wants_logits_file ? catch_up(session, err) : QN_OK;
    return status < 0 ? status : qn_recorder_finish(session->recorder, err);
}

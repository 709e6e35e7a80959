/* SPDX-License-Identifier: Apache-2.0 */
#include "eval/text.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/try.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { WINDOW_TOKENS = 512, TEXT_BYTES_MAX = 1 << 30 };

static const char spool_name[] = "logits of the first side (--spool)";

static qn_status no_memory(qn_error *err)
{
    return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "text: no memory");
}

/* -------------------------------------------------------------------------------------- opening */

/* The tokens of the file, of which the first @p options->text_tokens count. */
static qn_status encode(int32_t **ids, size_t *n_ids, const qn_model *model,
                        const qn_eval_options *options, qn_error *err)
{
    qn_status status = QN_OK;
    qn_buf bytes;
    qn_buf_init(&bytes, TEXT_BYTES_MAX);
    QN_TRY(status, qn_file_read(&bytes, options->text, err), fail);
    for (size_t i = 0; i < bytes.len;) {
        const size_t len = qn_utf8_len((const uint8_t *)bytes.ptr + i, bytes.len - i);
        if (len == 0) {
            status = qn_fail(err, QN_E_FORMAT, 0, __func__,
                             "%.250s: byte %zu is not of UTF-8, a text expected", options->text, i);
            goto fail;
        }
        i += len;
    }
    QN_TRY(status,
           qn_encode(ids, n_ids, model, bytes.len > 0 ? bytes.ptr : "", bytes.len,
                     QN_CONTROL_AS_TEXT, err),
           fail);
    if (*n_ids == 0) {
        status = qn_fail(err, QN_E_FORMAT, 0, __func__, "%.250s: no token, a text expected",
                         options->text);
        qn_free(*ids);
        *ids = NULL;
        goto fail;
    }
    if (options->text_tokens > 0 && options->text_tokens < *n_ids) {
        *n_ids = options->text_tokens;
    }
fail:
    qn_buf_deinit(&bytes);
    return status;
}

/* An unnamed file, on a disk that has the room now. */
static qn_status open_spool(qn_text *text, const char *dir, qn_error *err)
{
    struct statvfs disk;
    char path[512];
    (void)snprintf(path, sizeof path, "%.400s/quern-eval-XXXXXX", dir);
    text->spool_bytes = text->n_tokens * (uint64_t)text->n_vocab * sizeof(float);
    text->spool_fd = mkostemp(path, O_CLOEXEC);
    if (text->spool_fd < 0) {
        return qn_fail(err, QN_E_IO, errno, __func__,
                       "%.250s: %s, a folder for %" PRIu64 " bytes of logits expected (--spool)",
                       dir, strerror(errno), text->spool_bytes);
    }
    (void)unlink(path);
    if (fstatvfs(text->spool_fd, &disk) == 0 &&
        (uint64_t)disk.f_bavail * disk.f_frsize < text->spool_bytes) {
        return qn_fail(err, QN_E_IO, ENOSPC, __func__,
                       "%.250s: %" PRIu64 " bytes free, %" PRIu64
                       " for the logits of %zu tokens expected (--spool, --text-tokens)",
                       dir, (uint64_t)disk.f_bavail * disk.f_frsize, text->spool_bytes,
                       text->n_tokens);
    }
    return QN_OK;
}

/* Windows by the length of the context. */
static qn_status cut(qn_text *text, const qn_model_info *info, const qn_eval_options *options,
                     qn_error *err)
{
    const uint32_t n_context = info->n_context_max;
    const uint32_t n_default = n_context < WINDOW_TOKENS ? n_context : WINDOW_TOKENS;
    const uint32_t n_window = options->window_tokens > 0 ? options->window_tokens : n_default;
    if (n_window > n_context || n_window < text->n_prefix + 2) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "window_tokens (--context-tokens): %u, %zu to %u expected", n_window,
                       text->n_prefix + 2, n_context);
    }
    text->window_tokens = n_window - (uint32_t)text->n_prefix;
    text->n_windows = (text->n_tokens + text->window_tokens - 1) / text->window_tokens;
    text->n_vocab = info->n_vocab;
    return QN_OK;
}

static qn_status allocate(qn_text *text, size_t n_sides, qn_error *err)
{
    for (size_t i = 0; i < n_sides; i++) {
        text->windows[i] = calloc(text->n_windows, sizeof *text->windows[i]);
        if (text->windows[i] == NULL) {
            return no_memory(err);
        }
    }
    if (n_sides > 1) {
        text->divergence.kl = calloc(text->n_tokens, sizeof *text->divergence.kl);
        text->divergence.windows = calloc(text->n_windows, sizeof *text->divergence.windows);
        if (text->divergence.kl == NULL || text->divergence.windows == NULL) {
            return no_memory(err);
        }
    }
    return QN_OK;
}

qn_status qn_text_open(qn_text *text, const qn_model *model, const qn_eval_options *options,
                       size_t n_sides, qn_error *err)
{
    static const char prefix[] = "[gMASK]<sop>"; /* how every prompt of these models begins */
    qn_status status = QN_OK;
    *text = (qn_text){.spool_fd = -1};
    QN_TRY(status, encode(&text->ids, &text->n_tokens, model, options, err), fail);
    QN_TRY(status,
           qn_encode(&text->prefix, &text->n_prefix, model, prefix, strlen(prefix),
                     QN_CONTROL_MATCH, err),
           fail);
    QN_TRY(status, cut(text, qn_model_get_info(model), options, err), fail);
    QN_TRY(status, allocate(text, n_sides, err), fail);
    if (n_sides > 1) {
        const char *const dir = options->spool_dir != NULL ? options->spool_dir : "/var/tmp";
        QN_TRY(status, open_spool(text, dir, err), fail);
    }
    return QN_OK;

fail:
    qn_text_close(text);
    return status;
}

void qn_text_close(qn_text *text)
{
    if (text->ids == NULL) {
        return; /* was never opened */
    }
    if (text->spool_fd >= 0) {
        (void)close(text->spool_fd);
    }
    for (size_t i = 0; i < QN_SIDES_MAX; i++) {
        free(text->windows[i]);
    }
    free(text->divergence.kl);
    free(text->divergence.windows);
    qn_free(text->prefix);
    qn_free(text->ids);
    *text = (qn_text){.spool_fd = -1};
}

qn_status qn_text_check(const qn_text *text, const qn_model *model, const qn_eval_options *options,
                        qn_error *err)
{
    const qn_model_info *const info = qn_model_get_info(model);
    int32_t *ids = NULL;
    size_t n_ids = 0;
    qn_status status = encode(&ids, &n_ids, model, options, err);
    if (status < 0) {
        return status;
    }
    if (ids == NULL || n_ids != text->n_tokens ||
        memcmp(ids, text->ids, n_ids * sizeof *ids) != 0 || info->n_vocab != text->n_vocab) {
        status = qn_fail(err, QN_E_FORMAT, 0, __func__,
                         "%.200s: makes other tokens of %.200s than the first model, the same "
                         "expected",
                         info->name, options->text);
    }
    qn_free(ids);
    return status;
}

/* -------------------------------------------------------------------------------------- reading */

/* One side in a window. */
typedef struct reading {
    qn_text *text;
    uint32_t i_side;
    size_t i_window;
    float *row; /* [n_vocab] owned: the first side's logits, while the second reads */
} reading;

/* Logarithm of the sum of exponentials; *top: the likeliest, ties to the lower id. */
static double log_sum(const float *logits, uint32_t n, uint32_t *top)
{
    double sum = 0.0;
    *top = 0;
    for (uint32_t i = 1; i < n; i++) {
        *top = logits[i] > logits[*top] ? i : *top;
    }
    const double max = (double)logits[*top];
    for (uint32_t i = 0; i < n; i++) {
        sum += exp((double)logits[i] - max);
    }
    return max + log(sum);
}

/* How far the second side's prediction of token @p i is from the first's. */
static qn_status diverge(reading *r, size_t i, const float *q, double q_sum, uint32_t q_top,
                         qn_error *err)
{
    qn_divergence *const d = &r->text->divergence;
    const uint32_t n = r->text->n_vocab;
    const size_t row_bytes = n * sizeof(float);
    const float *const p = r->row;
    uint32_t p_top = 0;
    double kl = 0.0;
    const qn_status status =
        qn_read_at(r->text->spool_fd, r->row, row_bytes, i * row_bytes, spool_name, err);
    if (status < 0) {
        return status;
    }
    const double p_sum = log_sum(p, n, &p_top);
    for (uint32_t k = 0; k < n; k++) {
        const double log_p = (double)p[k] - p_sum;
        kl += exp(log_p) * (log_p - ((double)q[k] - q_sum));
    }
    if (!isfinite(kl)) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__,
                       "text: token %zu: a divergence that is no number, finite logits expected",
                       i);
    }
    d->kl[i] = fmax(kl, 0.0); /* rounding alone makes it less */
    d->n_same_top += p_top == q_top ? 1 : 0;
    d->windows[r->i_window].sum += d->kl[i];
    d->windows[r->i_window].n_tokens++;
    return QN_OK;
}

/* The prediction of token @p i of the text. */
static qn_status take_row(reading *r, size_t i, const float *logits, qn_error *err)
{
    qn_text *const text = r->text;
    const size_t row_bytes = text->n_vocab * sizeof(float);
    uint32_t top = 0;
    const double sum = log_sum(logits, text->n_vocab, &top);
    const double loss = sum - (double)logits[text->ids[i]];
    if (!isfinite(loss)) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__,
                       "text: token %zu: a probability that is no number, finite logits expected",
                       i);
    }
    text->windows[r->i_side][r->i_window].sum += loss;
    text->windows[r->i_side][r->i_window].n_tokens++;
    if (text->spool_fd < 0) {
        return QN_OK;
    }
    return r->i_side > 0
               ? diverge(r, i, logits, sum, top, err)
               : qn_write_at(text->spool_fd, logits, row_bytes, i * row_bytes, spool_name, err);
}

/* A qn_logits_fn: the row at a position predicts the token at the next one. */
static qn_status take_rows(void *context, uint32_t position, uint32_t n_rows, const int32_t *ids,
                           const float *logits, qn_error *err)
{
    reading *const r = context;
    const qn_text *const text = r->text;
    const size_t first = r->i_window * text->window_tokens;
    qn_status status = QN_OK;
    (void)ids;
    for (uint32_t k = 0; k < n_rows && status == QN_OK; k++) {
        const size_t next = (size_t)position + k + 1;
        const bool is_of_text = next >= text->n_prefix &&
                                next - text->n_prefix < text->window_tokens &&
                                first + next - text->n_prefix < text->n_tokens;
        if (is_of_text) {
            status =
                take_row(r, first + next - text->n_prefix, logits + (size_t)k * text->n_vocab, err);
        }
    }
    return status;
}

/* The window's ids behind the prefix. */
static qn_status submit(qn_session *session, const reading *r, int32_t *room, qn_error *err)
{
    const qn_text *const text = r->text;
    const size_t first = r->i_window * text->window_tokens;
    const size_t n_left = text->n_tokens - first;
    const size_t n = n_left < text->window_tokens ? n_left : text->window_tokens;
    memcpy(room, text->prefix, text->n_prefix * sizeof *room);
    memcpy(room + text->n_prefix, text->ids + first, n * sizeof *room);
    const qn_request request = {.ids = room,
                                .n_ids = text->n_prefix + n,
                                .prompt_only = true,
                                .draft_tokens = QN_DRAFT_NONE};
    return qn_session_submit(session, &request, err);
}

static qn_status read_window(qn_session *session, const reading *r, int32_t *room,
                             bool (*goes_on)(void *context, uint64_t n_done), void *context,
                             qn_error *err)
{
    qn_event event;
    qn_status status = submit(session, r, room, err);
    while (status == QN_OK) {
        status = qn_session_step(session, err);
        while (qn_session_poll(&event, session)) {
            continue; /* END, of which nothing is to be learned */
        }
        if (status == QN_OK && !goes_on(context, r->i_window * r->text->window_tokens)) {
            return qn_fail(err, QN_E_CANCELLED, 0, __func__,
                           "text: interrupted, expected to go on");
        }
    }
    return status == QN_AGAIN ? QN_OK : status;
}

qn_status qn_text_read(qn_text *text, qn_model *model, uint32_t i_side,
                       bool (*goes_on)(void *context, uint64_t n_done), void *context,
                       qn_error *err)
{
    const uint64_t start_ns = qn_clock_ns();
    const size_t n_room = text->n_prefix + text->window_tokens;
    qn_status status = QN_OK;
    qn_session *session = NULL;
    reading r = {.text = text, .i_side = i_side};
    const qn_session_options options = {
        .logits_fn = take_rows, .context = &r, .context_tokens = (uint32_t)n_room};
    int32_t *const room = malloc(n_room * sizeof *room);
    r.row = malloc(text->n_vocab * sizeof *r.row);
    if (room == NULL || r.row == NULL) {
        status = no_memory(err);
        goto fail;
    }
    QN_TRY(status, qn_session_open(&session, model, &options, err), fail);
    for (; r.i_window < text->n_windows; r.i_window++) {
        QN_TRY(status, read_window(session, &r, room, goes_on, context, err), fail);
    }
    text->seconds[i_side] = qn_clock_seconds(start_ns, qn_clock_ns());
fail:
    qn_session_close(&session);
    free(room);
    free(r.row);
    return status;
}

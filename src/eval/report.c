/* SPDX-License-Identifier: Apache-2.0 */
#include "eval/report.h"

#include "base/file.h"
#include "base/json.h"
#include "base/try.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static const size_t file_bytes_max = (size_t)1 << 34;

/* --------------------------------------------------------------------------------------- reading
 */

static qn_status refuse_header(const char *path, const char *key, const json_t *seen,
                               const json_t *expected, qn_error *err)
{
    char seen_text[96];
    char expected_text[96];
    qn_json_show(seen_text, sizeof seen_text, seen);
    qn_json_show(expected_text, sizeof expected_text, expected);
    return qn_fail(err, QN_E_FORMAT, 0, __func__,
                   "%.250s: a report of another run: %s: %s, %s expected", path, key, seen_text,
                   expected_text);
}

/* The header is another: of what? */
static qn_status compare_headers(const char *path, qn_str line, qn_str header, qn_error *err)
{
    json_t *seen = NULL;
    json_t *expected = NULL;
    const char *key = NULL;
    json_t *value = NULL;
    qn_status status = QN_OK;
    QN_TRY(status, qn_json_parse(&seen, line, path, err), fail);
    QN_TRY(status, qn_json_parse(&expected, header, path, err), fail);
    json_object_foreach(expected, key, value)
    {
        if (!json_equal(json_object_get(seen, key), value)) {
            status = refuse_header(path, key, json_object_get(seen, key), value, err);
            goto fail;
        }
    }
    status = qn_fail(
        err, QN_E_FORMAT, 0, __func__,
        "%.250s: a report with settings of another version, those of this one expected", path);
fail:
    json_decref(seen);
    json_decref(expected);
    return status;
}

static void take_name(char out[16], const json_t *object, const char *key)
{
    const char *const name = json_string_value(json_object_get(object, key));
    (void)snprintf(out, 16, "%.15s", name != NULL ? name : "");
}

static void take_info(qn_side_info *info, const json_t *object)
{
    take_name(info->quantization, object, "quantization");
    take_name(info->weights, object, "weights");
    take_name(info->device, object, "device");
    take_name(info->compute, object, "compute");
    take_name(info->kv_dtype, object, "kv_dtype");
    const json_t *const draft = json_object_get(object, "draft_tokens");
    info->draft_tokens = json_is_string(draft) ? QN_DRAFT_AUTO : (int)json_integer_value(draft);
}

/* Sixteen hexadecimal digits, small ones; @p text may be NULL. */
static bool take_hash(uint64_t *hash, const char *text)
{
    static const char digits[] = "0123456789abcdef";
    enum { N_HEX = 16 };
    if (text == NULL || strlen(text) != N_HEX || strspn(text, digits) != N_HEX) {
        return false;
    }
    *hash = strtoull(text, NULL, N_HEX);
    return true;
}

/* Counts and verdict of an answer. */
static qn_status take_outcome(qn_outcome *out, const json_t *object, const char *what,
                              qn_error *err)
{
    static const uint64_t count_max = (uint64_t)1 << 53;
    const struct {
        const char *key;
        uint64_t *to;
    } counts[] = {
        {"prompt_tokens", &out->n_prompt_tokens},       {"completion_tokens", &out->n_tokens},
        {"reasoning_tokens", &out->n_reasoning_tokens}, {"steps", &out->n_steps},
        {"step_tokens", &out->n_step_tokens},
    };
    qn_status status = QN_OK;
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        QN_TRY(status,
               qn_json_get_u64(counts[i].to, object, counts[i].key, 0, count_max, what, err), fail);
    }
    QN_TRY(status, qn_json_get_f64(&out->seconds, object, "time_s", 0.0, 1e12, what, err), fail);
    QN_TRY(status, qn_json_get_bool(&out->is_right, object, "right", what, err), fail);
    QN_TRY(status, qn_json_get_bool(&out->is_cut, object, "cut", what, err), fail);
    if (!take_hash(&out->ids_hash, json_string_value(json_object_get(object, "ids_hash")))) {
        status = qn_fail(err, QN_E_FORMAT, 0, __func__,
                         "%s: ids_hash: 16 hexadecimal digits expected", what);
    }
    out->is_done = true;
fail:
    return status;
}

/* One line behind the header. */
static qn_status take_line(qn_answers *answers, qn_str line, const char *what, qn_error *err)
{
    qn_status status = QN_OK;
    json_t *object = NULL;
    uint64_t i_side = 0;
    uint64_t i_problem = 0;
    const uint32_t n_problems = answers->set->n_problems;
    QN_TRY(status, qn_json_parse(&object, line, what, err), fail);
    QN_TRY(status, qn_json_get_u64(&i_side, object, "side", 0, answers->n_sides - 1, what, err),
           fail);
    QN_TRY(status, qn_json_get_u64(&i_problem, object, "problem", 0, n_problems - 1, what, err),
           fail);
    qn_outcome *const outcome = &answers->outcomes[i_side][i_problem];
    if (outcome->is_done) {
        status = qn_fail(err, QN_E_FORMAT, 0, __func__,
                         "%s: problem %" PRIu64 " a second time, one line each expected", what,
                         i_problem);
        goto fail;
    }
    QN_TRY(status, take_outcome(outcome, object, what, err), fail);
    take_info(&answers->infos[i_side], object);
fail:
    json_decref(object);
    return status;
}

/* A first line that is not whole is ours only where it begins like the header: else it is some
 * other file, which must not be cut. */
static qn_status check_rest(qn_str text, uint64_t good_bytes, const char *path, qn_str header,
                            qn_error *err)
{
    if (good_bytes > 0 || text.len == 0 ||
        (text.len <= header.len && memcmp(text.ptr, header.ptr, text.len) == 0)) {
        return QN_OK;
    }
    return qn_fail(err, QN_E_FORMAT, 0, __func__, "%.250s: no report, one of this run expected",
                   path);
}

/* Whole lines of @p text; *good_bytes: how many bytes they have. */
static qn_status take_lines(qn_answers *answers, uint64_t *good_bytes, qn_str text,
                            const char *path, qn_str header, qn_error *err)
{
    qn_status status = QN_OK;
    qn_str rest = text;
    for (size_t number = 1; rest.len > 0; number++) {
        const char *const end = memchr(rest.ptr, '\n', rest.len);
        if (end == NULL) {
            break;
        }
        const qn_str line = {.ptr = rest.ptr, .len = (size_t)(end - rest.ptr)};
        char what[300];
        (void)snprintf(what, sizeof what, "%.250s: line %zu", path, number);
        if (number > 1) {
            status = take_line(answers, line, what, err);
        } else if (!qn_str_equal(line, header)) {
            status = compare_headers(path, line, header, err);
        }
        if (status < 0) {
            return status;
        }
        *good_bytes += line.len + 1;
        rest = (qn_str){.ptr = end + 1, .len = rest.len - line.len - 1};
    }
    return check_rest(text, *good_bytes, path, header, err);
}

/* --------------------------------------------------------------------------------------- writing
 */

/* Write all of it behind the whole lines; after a failure only those are left. */
static qn_status write_line(qn_report *report, qn_str line, qn_error *err)
{
    const qn_status status =
        qn_write_at(report->fd, line.ptr, line.len, report->good_bytes, report->path, err);
    if (status < 0) {
        (void)!ftruncate(report->fd, (off_t)report->good_bytes);
        return status;
    }
    report->good_bytes += line.len;
    return QN_OK;
}

static qn_status write_header(qn_report *report, qn_str header, qn_error *err)
{
    qn_status status = QN_OK;
    qn_buf line;
    qn_buf_init(&line, file_bytes_max);
    QN_TRY(status, qn_buf_append(&line, header.ptr, header.len, err), fail);
    QN_TRY(status, qn_buf_append(&line, "\n", 1, err), fail);
    QN_TRY(status, write_line(report, qn_buf_view(&line), err), fail);
fail:
    qn_buf_deinit(&line);
    return status;
}

static qn_status open_file(qn_report *report, bool resumes, qn_error *err)
{
    const int flags = O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK | (resumes ? 0 : O_EXCL);
    report->fd = open(report->path, flags, 0666);
    if (report->fd < 0 && errno == EEXIST) {
        return qn_fail(err, QN_E_IO, EEXIST, __func__,
                       "%.250s: exists, a new name expected, or --resume to go on with it",
                       report->path);
    }
    if (report->fd < 0) {
        return qn_fail(err, QN_E_IO, errno, __func__, "%.250s: %s, expected to be writable",
                       report->path, strerror(errno));
    }
    if (flock(report->fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK) {
        return qn_fail(err, QN_E_IO, EWOULDBLOCK, __func__,
                       "%.250s: in use by another process, one at a time expected", report->path);
    }
    return QN_OK;
}

/* What the file that was locked holds. */
static qn_status read_file(qn_buf *out, const qn_report *report, qn_error *err)
{
    qn_status status = QN_OK;
    struct stat info;
    if (fstat(report->fd, &info) < 0 || !S_ISREG(info.st_mode)) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__, "%.250s: no file, a regular one expected",
                       report->path);
    }
    if ((uint64_t)info.st_size > out->bytes_max) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__, "%.250s: %jd bytes, at most %zu expected",
                       report->path, (intmax_t)info.st_size, out->bytes_max);
    }
    const size_t n_bytes = (size_t)info.st_size;
    QN_TRY(status, qn_buf_reserve(out, n_bytes, err), fail);
    QN_TRY(status, qn_read_at(report->fd, out->ptr, n_bytes, 0, report->path, err), fail);
    out->len = n_bytes;
fail:
    return status;
}

qn_status qn_report_open(qn_report *report, const char *path, qn_str header, bool resumes,
                         qn_answers *answers, qn_error *err)
{
    qn_status status = QN_OK;
    qn_buf text;
    qn_buf_init(&text, file_bytes_max);
    *report = (qn_report){.path = path, .fd = -1};
    QN_TRY(status, open_file(report, resumes, err), fail);
    QN_TRY(status, read_file(&text, report, err), fail);
    QN_TRY(status, take_lines(answers, &report->good_bytes, qn_buf_view(&text), path, header, err),
           fail);
    if (ftruncate(report->fd, (off_t)report->good_bytes) < 0) {
        status = qn_fail(err, QN_E_IO, errno, __func__, "%.250s: %s, expected to be writable", path,
                         strerror(errno));
        goto fail;
    }
    if (report->good_bytes == 0) {
        QN_TRY(status, write_header(report, header, err), fail);
    }
    qn_buf_deinit(&text);
    return QN_OK;

fail:
    qn_buf_deinit(&text);
    qn_report_close(report);
    return status;
}

void qn_report_close(qn_report *report)
{
    if (report->path != NULL && report->fd >= 0) {
        (void)close(report->fd); /* every line was written by a call that succeeded */
    }
    *report = (qn_report){.fd = -1};
}

qn_status qn_draft_append(qn_buf *out, int draft_tokens, qn_error *err)
{
    return draft_tokens == QN_DRAFT_AUTO ? qn_buf_append_printf(out, err, "\"auto\"")
                                         : qn_buf_append_printf(out, err, "%d", draft_tokens);
}

/* , "KEY": "TEXT" */
static qn_status append_text(qn_buf *out, const char *key, qn_str text, qn_error *err)
{
    const qn_status status = qn_buf_append_printf(out, err, ", \"%s\": ", key);
    return status == QN_OK ? qn_json_quote_append(out, text, err) : status;
}

/* Which problem it is. */
static qn_status append_problem(qn_buf *out, const qn_task_set *set, uint32_t i_problem,
                                qn_error *err)
{
    const qn_problem *const p = &set->problems[i_problem];
    qn_status status = QN_OK;
    QN_TRY(status, append_text(out, "task", qn_str_of(set->tasks[p->i_task].name), err), fail);
    QN_TRY(status, append_text(out, "file", qn_str_of(set->files[p->i_file].path), err), fail);
    QN_TRY(status, qn_buf_append_printf(out, err, ", \"line\": %u", p->line), fail);
    if (p->id.len > 0) {
        QN_TRY(status, append_text(out, "id", p->id, err), fail);
    }
    QN_TRY(status, append_text(out, "score", qn_str_of(qn_score_names[p->score]), err), fail);
    QN_TRY(status, append_text(out, "answer", (qn_str){p->answer, p->answer_len}, err), fail);
fail:
    return status;
}

/* What was said. */
static qn_status append_reply(qn_buf *out, const qn_reply *reply, qn_error *err)
{
    qn_status status = QN_OK;
    const char *const finish = qn_finish_name(reply->finish);
    QN_TRY(status, append_text(out, "text", qn_buf_view(&reply->text), err), fail);
    QN_TRY(status, append_text(out, "reasoning", qn_buf_view(&reply->reasoning), err), fail);
    /* As a text: numbers and keys are then any that a model may write. */
    QN_TRY(status, append_text(out, "tool_calls", qn_buf_view(&reply->calls), err), fail);
    QN_TRY(status, append_text(out, "finish_reason", qn_str_of(finish), err), fail);
fail:
    return status;
}

static qn_status append_outcome(qn_buf *out, const qn_outcome *o, qn_error *err)
{
    qn_status status = QN_OK;
    QN_TRY(status,
           qn_buf_append_printf(
               out, err,
               ", \"right\": %s, \"cut\": %s, \"prompt_tokens\": %" PRIu64
               ", \"completion_tokens\": %" PRIu64 ", \"reasoning_tokens\": %" PRIu64
               ", \"steps\": %" PRIu64 ", \"step_tokens\": %" PRIu64 ", \"ids_hash\": \"%016" PRIx64
               "\", \"time_s\": ",
               o->is_right ? "true" : "false", o->is_cut ? "true" : "false", o->n_prompt_tokens,
               o->n_tokens, o->n_reasoning_tokens, o->n_steps, o->n_step_tokens, o->ids_hash),
           fail);
    QN_TRY(status, qn_buf_append_real(out, o->seconds, 9, err), fail);
    QN_TRY(status, qn_buf_append(out, "}\n", 2, err), fail);
fail:
    return status;
}

qn_status qn_report_append(qn_report *report, const qn_answers *answers, uint32_t i_side,
                           uint32_t i_problem, const qn_reply *reply, qn_error *err)
{
    qn_status status = QN_OK;
    const qn_side_info *const info = &answers->infos[i_side];
    qn_buf line;
    if (report->path == NULL) {
        return QN_OK;
    }
    qn_buf_init(&line, file_bytes_max);
    QN_TRY(status,
           qn_buf_append_printf(&line, err, "{\"side\": %u, \"problem\": %u", i_side, i_problem),
           fail);
    QN_TRY(status, append_text(&line, "model", qn_str_of(answers->models[i_side]), err), fail);
    QN_TRY(status, append_problem(&line, answers->set, i_problem, err), fail);
    QN_TRY(status, append_reply(&line, reply, err), fail);
    QN_TRY(status, append_text(&line, "quantization", qn_str_of(info->quantization), err), fail);
    QN_TRY(status, append_text(&line, "weights", qn_str_of(info->weights), err), fail);
    QN_TRY(status, append_text(&line, "device", qn_str_of(info->device), err), fail);
    QN_TRY(status, append_text(&line, "compute", qn_str_of(info->compute), err), fail);
    QN_TRY(status, append_text(&line, "kv_dtype", qn_str_of(info->kv_dtype), err), fail);
    QN_TRY(status, qn_buf_append_printf(&line, err, ", \"draft_tokens\": "), fail);
    QN_TRY(status, qn_draft_append(&line, info->draft_tokens, err), fail);
    QN_TRY(status, append_outcome(&line, &answers->outcomes[i_side][i_problem], err), fail);
    QN_TRY(status, write_line(report, qn_buf_view(&line), err), fail);
fail:
    qn_buf_deinit(&line);
    return status;
}

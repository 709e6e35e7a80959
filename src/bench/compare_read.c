/* SPDX-License-Identifier: Apache-2.0 */
#include "base/file.h"
#include "base/json.h"
#include "base/try.h"
#include "compare_parts.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { RESULT_BYTES_MAX = 256 << 20 };
#define REQUESTS_BYTES_MAX ((size_t)2 << 30)

static int compare_requests(const void *x, const void *y)
{
    const compare_request *const a = x;
    const compare_request *const b = y;
    return a->run != b->run ? (a->run > b->run) - (a->run < b->run)
                            : (a->id > b->id) - (a->id < b->id);
}

static qn_status read_request(compare_request *out, qn_str line, const char *what, qn_error *err)
{
    json_t *object = NULL;
    qn_status status = QN_OK;
    QN_TRY(status, qn_json_parse(&object, line, what, err), done);
    QN_TRY(status, qn_json_get_u64(&out->run, object, "run", 0, UINT32_MAX, what, err), done);
    QN_TRY(status, qn_json_get_u64(&out->id, object, "id", 0, INT64_MAX, what, err), done);
    out->ttft_ms = qn_json_number(object, "ttft_ms");
    out->tpot_ms = qn_json_number(object, "tpot_ms");
    out->e2el_ms = qn_json_number(object, "e2el_ms");
    out->n_prompt = qn_json_number(object, "prompt_tokens");
    out->n_output = qn_json_number(object, "output_tokens");
    out->is_done = strcmp(qn_json_text(object, "end"), "done") == 0;
done:
    json_decref(object);
    return status;
}

/* Room for one more. */
static qn_status grow(compare_side *side, size_t *capacity, const char *path, qn_error *err)
{
    if (side->n_requests < *capacity) {
        return QN_OK;
    }
    const size_t n = *capacity == 0 ? 1024 : *capacity * 2;
    compare_request *const more = realloc(side->requests, n * sizeof *more);
    if (more == NULL) {
        return qn_fail(err, QN_E_NOMEM, 0, __func__, "%.256s: no memory", path);
    }
    side->requests = more;
    *capacity = n;
    return QN_OK;
}

static qn_status read_requests(compare_side *out, qn_str text, const char *name, qn_error *err)
{
    qn_status status = QN_OK;
    size_t capacity = 0;
    size_t len = 0;
    char what[PATH_MAX + 32];
    for (size_t at = 0, i_line = 1; at < text.len; at += len + 1, i_line++) {
        const char *const end = memchr(text.ptr + at, '\n', text.len - at);
        len = end == NULL ? text.len - at : (size_t)(end - text.ptr) - at;
        QN_TRY(status, grow(out, &capacity, name, err), done);
        (void)snprintf(what, sizeof what, "%s: line %zu", name, i_line);
        QN_TRY(
            status,
            read_request(&out->requests[out->n_requests], (qn_str){text.ptr + at, len}, what, err),
            done);
        out->n_requests++;
    }
    if (out->n_requests > 0) {
        qsort(out->requests, out->n_requests, sizeof *out->requests, compare_requests);
    }
    out->has_requests = true;
done:
    return status;
}

qn_status compare_parse(compare_side *out, qn_str result, const char *result_name,
                        const qn_str *requests, const char *requests_name, qn_error *err)
{
    qn_status status = qn_json_parse(&out->result, result, result_name, err);
    if (status < 0) {
        return status;
    }
    const char *const format = qn_json_text(out->result, "format");
    if (strcmp(format, "quern-bench-serve/1") != 0) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__,
                       "%.256s: format: \"%.64s\", expected \"quern-bench-serve/1\"", result_name,
                       format);
    }
    if (json_array_size(json_object_get(out->result, "runs")) == 0) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__, "%.256s: runs: none, expected at least one",
                       result_name);
    }
    return requests == NULL ? QN_OK : read_requests(out, *requests, requests_name, err);
}

qn_status compare_open(compare_side *out, const char *path, qn_error *err)
{
    char result_name[PATH_MAX];
    char requests_name[PATH_MAX];
    struct stat there;
    qn_buf result;
    qn_buf requests;
    qn_status status = QN_OK;
    *out = (compare_side){.path = path};
    qn_buf_init(&result, RESULT_BYTES_MAX);
    qn_buf_init(&requests, REQUESTS_BYTES_MAX);
    if (strlen(path) > PATH_MAX - 32) {
        return qn_fail(err, QN_E_INVAL, 0, __func__, "%.64s...: %zu bytes, expected a shorter name",
                       path, strlen(path));
    }
    const bool is_folder = stat(path, &there) == 0 && S_ISDIR(there.st_mode);
    const char *const slash = strrchr(path, '/');
    const int folder_len = is_folder       ? (int)strlen(path)
                           : slash == NULL ? 0
                                           : (int)(slash - path) + 1;
    (void)snprintf(result_name, sizeof result_name, is_folder ? "%s/result.json" : "%s", path);
    (void)snprintf(requests_name, sizeof requests_name, "%.*s%srequests.jsonl", folder_len, path,
                   is_folder ? "/" : "");
    const bool has_requests = stat(requests_name, &there) == 0;
    QN_TRY(status, qn_file_read(&result, result_name, err), done);
    if (has_requests) {
        QN_TRY(status, qn_file_read(&requests, requests_name, err), done);
    }
    const qn_str lines = qn_buf_view(&requests);
    status = compare_parse(out, qn_buf_view(&result), result_name, has_requests ? &lines : NULL,
                           requests_name, err);
done:
    qn_buf_deinit(&result);
    qn_buf_deinit(&requests);
    return status;
}

void compare_close(compare_side *side)
{
    json_decref(side->result);
    free(side->requests);
    *side = (compare_side){0};
}

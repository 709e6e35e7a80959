/* SPDX-License-Identifier: Apache-2.0 */
#include "batch_output.h"

#include "report.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static qn_status fail_io(const batch_output *output, int why, qn_error *err)
{
    return qn_fail(err, QN_E_IO, why, __func__, "%s: %s, expected to be writable", output->path,
                   strerror(why));
}

/* ------------------------------------------------------------------------------------- reading */

/* Does a record stay?  A failure of the machine goes, for its request runs again. */
static bool is_kept(const json_t *record)
{
    const json_t *const code = json_object_get(json_object_get(record, "response"), "status_code");
    return json_integer_value(code) < 500;
}

/* Failures of a line tell its number; of a duplicate the id is that of another line. */
static int remember(batch_output *output, const json_t *record)
{
    const json_t *const error = json_object_get(record, "error");
    const json_t *const id = json_object_get(record, "custom_id");
    const char *const code = json_string_value(json_object_get(error, "code"));
    if (json_is_string(id) && (code == NULL || strcmp(code, "duplicate_custom_id") != 0)) {
        return json_object_set_new(output->ids, json_string_value(id), json_false());
    }
    char line[32];
    (void)snprintf(line, sizeof line, "%lld",
                   (long long)json_integer_value(json_object_get(error, "line")));
    return json_object_set_new(output->lines, line, json_false());
}

static json_t *parse_record(const char *text, size_t len)
{
    json_t *const record = json_loadb(text, len, JSON_ALLOW_NUL, NULL); /* answers may have it */
    if (json_object_get(record, "custom_id") != NULL &&
        json_object_get(record, "response") != NULL) {
        return record;
    }
    json_decref(record);
    return NULL;
}

/* What a write that did not end leaves: the begin of a record, maybe with NUL bytes behind. */
static bool is_torn(const char *text, size_t len)
{
    static const char begin[] = "{\"id\": \"batch_req_";
    const size_t n_max = len < sizeof begin - 1 ? len : sizeof begin - 1;
    const size_t n = strnlen(text, n_max);
    return n > 0 && memcmp(text, begin, n) == 0;
}

static qn_status read_records(batch_output *output, FILE *file, qn_error *err)
{
    char *text = NULL;
    size_t capacity = 0;
    uint64_t n_lines = 0;
    qn_status status = QN_OK;
    for (ssize_t len; status == QN_OK && (len = getline(&text, &capacity, file)) > 0;) {
        const bool is_line = text[len - 1] == '\n';
        if (!is_line && is_torn(text, (size_t)len)) {
            break;
        }
        n_lines++;
        json_t *const record = is_line ? parse_record(text, (size_t)len) : NULL;
        if (record == NULL) {
            status = qn_fail(err, QN_E_FORMAT, 0, __func__,
                             "%s: line %llu is no record of a batch, expected a file that quern "
                             "batch wrote",
                             output->path, (unsigned long long)n_lines);
        } else if (!is_kept(record)) {
            output->n_again++;
        } else if (remember(output, record) != 0) {
            status =
                qn_fail(err, QN_E_NOMEM, 0, __func__, "%s: no memory to read it", output->path);
        }
        json_decref(record);
        output->n_whole_bytes += (uint64_t)len;
    }
    free(text);
    return status == QN_OK && ferror(file) ? fail_io(output, errno, err) : status;
}

/* ------------------------------------------------------------------------------------- opening */

static qn_status open_file(batch_output *output, qn_error *err)
{
    int fd = open(output->path, O_RDWR | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666);
    bool can_read = output->is_new = fd >= 0;
    if (fd < 0 && errno == EEXIST) {
        struct stat there;
        const bool is_file = stat(output->path, &there) == 0 && S_ISREG(there.st_mode);
        if (is_file && output->existing == BATCH_REFUSE) {
            return qn_fail(err, QN_E_INVAL, 0, __func__,
                           "%s: exists, expected --resume to go on with it or --overwrite to "
                           "empty it",
                           output->path);
        }
        if (!is_file && output->existing == BATCH_RESUME) {
            return qn_fail(err, QN_E_INVAL, 0, __func__,
                           "--resume: %s is no regular file, expected one", output->path);
        }
        can_read = is_file;
        fd = open(output->path, (can_read ? O_RDWR : O_WRONLY) | O_APPEND | O_CLOEXEC);
    }
    output->file = fd >= 0 ? fdopen(fd, can_read ? "a+" : "a") : NULL;
    if (output->file == NULL) {
        const int why = errno;
        if (fd >= 0) {
            (void)close(fd);
        }
        return fail_io(output, why, err);
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        return qn_fail(err, QN_E_IO, errno, __func__,
                       "%s: another process writes it, expected to be the only one", output->path);
    }
    return QN_OK;
}

static bool is_same_file(int a, int b)
{
    struct stat first;
    struct stat second;
    return fstat(a, &first) == 0 && fstat(b, &second) == 0 && S_ISREG(first.st_mode) &&
           first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

qn_status batch_output_open(batch_output *out, const char *path, batch_existing existing, int input,
                            qn_error *err)
{
    *out = (batch_output){
        .path = path, .existing = existing, .ids = json_object(), .lines = json_object()};
    if (out->ids == NULL || out->lines == NULL) {
        return qn_fail(err, QN_E_NOMEM, 0, __func__, "%s: no memory", path);
    }
    if (strcmp(path, "-") == 0) {
        out->path = "standard output";
        out->file = stdout;
    }
    qn_status status = out->file != NULL ? QN_OK : open_file(out, err);
    if (status == QN_OK && is_same_file(input, fileno(out->file))) {
        status =
            qn_fail(err, QN_E_INVAL, 0, __func__, "%s: input and output, expected two files", path);
    }
    if (status == QN_OK && existing == BATCH_RESUME) {
        status = read_records(out, out->file, err);
    }
    return status;
}

/* ------------------------------------------------------------------------------------- writing */

/* Copy the records that stay. */
static bool write_kept(FILE *file, void *context)
{
    batch_output *const output = context;
    char *text = NULL;
    size_t capacity = 0;
    bool is_written = fseek(output->file, 0, SEEK_SET) == 0;
    for (uint64_t at = 0; is_written && at < output->n_whole_bytes;) {
        const ssize_t len = getline(&text, &capacity, output->file);
        json_t *const record = len > 0 ? parse_record(text, (size_t)len) : NULL;
        is_written = record != NULL &&
                     (!is_kept(record) || fwrite(text, 1, (size_t)len, file) == (size_t)len);
        at += len > 0 ? (uint64_t)len : 0;
        json_decref(record);
    }
    free(text);
    return is_written;
}

qn_status batch_output_begin(batch_output *output, qn_error *err)
{
    qn_status status = QN_OK;
    output->has_begun = true;
    if (output->file == stdout || output->is_new || output->existing == BATCH_REFUSE) {
        return QN_OK;
    }
    if (output->n_again > 0) {
        status = cli_replace_private_file(output->path, write_kept, output, err);
        (void)fclose(output->file);
        output->file = NULL;
        return status == QN_OK ? open_file(output, err) : status;
    }
    struct stat there; /* a device cannot be cut, and need not */
    (void)fseek(output->file, 0, SEEK_END);
    if (fstat(fileno(output->file), &there) == 0 && S_ISREG(there.st_mode) &&
        ftruncate(fileno(output->file), (off_t)output->n_whole_bytes) != 0) {
        return fail_io(output, errno, err);
    }
    return QN_OK;
}

/* One write. */
qn_status batch_output_add(batch_output *output, const char *record, size_t len, qn_error *err)
{
    const bool is_written =
        fwrite(record, 1, len, output->file) == len && fflush(output->file) == 0;
    return is_written ? QN_OK : fail_io(output, errno, err);
}

void batch_output_close(batch_output *output)
{
    if (output->file != NULL && output->file != stdout) {
        if (output->is_new && !output->has_begun) {
            (void)unlink(output->path);
        }
        (void)fclose(output->file);
    }
    json_decref(output->ids);
    json_decref(output->lines);
    *output = (batch_output){0};
}

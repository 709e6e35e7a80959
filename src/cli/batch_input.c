/* SPDX-License-Identifier: Apache-2.0 */
#include "batch_input.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { READ_BYTES = 1 << 16 };

/* So that a bar can tell how much is left; from where the file stands. */
static uint64_t count_lines(int fd, char *room)
{
    uint64_t n_lines = 0;
    char last = '\n';
    off_t at = lseek(fd, 0, SEEK_CUR);
    for (ssize_t n; (n = pread(fd, room, READ_BYTES, at)) > 0; at += n) {
        for (const char *p = room; (p = memchr(p, '\n', (size_t)(room + n - p))) != NULL; p++) {
            n_lines++;
        }
        last = room[n - 1];
    }
    return n_lines + (last != '\n');
}

qn_status batch_input_open(batch_input *out, const char *path, qn_error *err)
{
    const bool is_stdin = strcmp(path, "-") == 0;
    struct stat there;
    *out = (batch_input){.name = is_stdin ? "standard input" : path,
                         .capacity = (size_t)2 * READ_BYTES};
    out->fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (out->fd < 0 || fstat(out->fd, &there) != 0 || S_ISDIR(there.st_mode)) {
        const int why = out->fd >= 0 && S_ISDIR(there.st_mode) ? EISDIR : errno;
        batch_input_close(out);
        return qn_fail(err,
                       why == ENOENT   ? QN_E_NOT_FOUND
                       : why == EISDIR ? QN_E_FORMAT
                                       : QN_E_IO,
                       why, __func__, "%s: %s, expected a readable file", path, strerror(why));
    }
    out->buffer = malloc(out->capacity);
    if (out->buffer == NULL) {
        batch_input_close(out);
        return qn_fail(err, QN_E_NOMEM, 0, __func__, "%s: no memory to read it", path);
    }
    out->n_total = S_ISREG(there.st_mode) ? count_lines(out->fd, out->buffer) : 0;
    return QN_OK;
}

void batch_input_close(batch_input *input)
{
    if (input->fd > STDERR_FILENO) {
        (void)close(input->fd);
    }
    free(input->buffer);
    *input = (batch_input){.fd = -1, .has_ended = true};
}

/* Make room behind what is there.  A line that outgrows its maximum is dropped as it comes. */
static qn_status make_room(batch_input *input, qn_error *err)
{
    memmove(input->buffer, input->buffer + input->begin, input->end - input->begin);
    input->end -= input->begin;
    input->begin = 0;
    if (input->end > BATCH_LINE_BYTES_MAX) {
        input->is_too_long = true;
        input->end = 0;
    }
    if (input->capacity - input->end < READ_BYTES) {
        char *const larger = realloc(input->buffer, 2 * input->capacity);
        if (larger == NULL) {
            return qn_fail(err, QN_E_NOMEM, 0, __func__, "%s: no memory for line %llu", input->name,
                           (unsigned long long)input->n_lines + 1);
        }
        input->buffer = larger;
        input->capacity *= 2;
    }
    return QN_OK;
}

static qn_status read_more(batch_input *input, int wait_ms, qn_error *err)
{
    struct pollfd wanted = {.fd = input->fd, .events = POLLIN};
    qn_status status = make_room(input, err);
    if (status < 0) {
        return status;
    }
    if (poll(&wanted, 1, wait_ms) <= 0) {
        return QN_AGAIN; /* nothing there, or a signal */
    }
    const ssize_t n = read(input->fd, input->buffer + input->end, READ_BYTES);
    if (n < 0) {
        return errno == EINTR || errno == EAGAIN
                   ? QN_AGAIN
                   : qn_fail(err, QN_E_IO, errno, __func__, "%s: %s, expected a readable file",
                             input->name, strerror(errno));
    }
    input->end += (size_t)n;
    input->has_ended = n == 0;
    return QN_OK;
}

/* The mark that some editors put before the first line. */
static void skip_mark(batch_line *line)
{
    static const char mark[] = "\xef\xbb\xbf";
    const size_t n = sizeof mark - 1;
    if (line->number == 1 && line->text != NULL && line->len >= n &&
        memcmp(line->text, mark, n) == 0) {
        line->text += n;
        line->len -= n;
    }
}

qn_status batch_input_next(batch_input *input, batch_line *line, int wait_ms, qn_error *err)
{
    qn_status status = QN_OK;
    size_t n_seen = 0; /* bytes of the line without a break in them */
    for (;;) {
        const char *const text = input->buffer + input->begin;
        const size_t len = input->end - input->begin;
        n_seen = n_seen < len ? n_seen : 0; /* it was dropped */
        const char *const line_end = len > 0 ? memchr(text + n_seen, '\n', len - n_seen) : NULL;
        if (line_end != NULL || (input->has_ended && (len > 0 || input->is_too_long))) {
            line->len = line_end != NULL ? (size_t)(line_end - text) : len;
            const bool fits = !input->is_too_long && line->len <= BATCH_LINE_BYTES_MAX;
            line->text = fits ? text : NULL;
            line->number = ++input->n_lines;
            input->begin += line->len + (line_end != NULL);
            input->is_too_long = false;
            skip_mark(line);
            return QN_OK;
        }
        if (input->has_ended) {
            *line = (batch_line){0};
            return QN_OK;
        }
        n_seen = len;
        status = read_more(input, wait_ms, err);
        if (status != QN_OK) {
            return status;
        }
    }
}

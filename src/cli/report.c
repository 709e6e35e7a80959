/* SPDX-License-Identifier: Apache-2.0 */
#include "report.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TEXT_BYTES_MAX = 64 << 20 };

static volatile sig_atomic_t g_is_interrupted; /* set by the signal handler alone */
static bool g_warns_as_json;                   /* set once */

static int exit_status_of(qn_status status)
{
    switch (status) {
    case QN_OK:
    case QN_AGAIN: return CLI_DONE;
    case QN_E_INVAL: return CLI_USAGE;
    case QN_E_FORMAT:
    case QN_E_NOT_FOUND: return CLI_BAD_INPUT;
    case QN_E_NOMEM:
    case QN_E_DEVICE: return CLI_NO_RESOURCE;
    case QN_E_CANCELLED: return CLI_INTERRUPTED;
    case QN_E_IO: return CLI_FAILED;
    }
    return CLI_FAILED;
}

int cli_report(const qn_error *err)
{
    (void)fflush(stdout);
    (void)fprintf(stderr, "quern: error: %s\n", err->text);
    return exit_status_of(err->status);
}

int cli_fail(qn_status status, const char *format, ...)
{
    char text[sizeof((qn_error *)0)->text];
    qn_error err = {0};
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    (void)qn_fail(&err, status, 0, __func__, "%s", text);
    return cli_report(&err);
}

void cli_warn(const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    json_t *const line =
        g_warns_as_json ? json_pack("{ss, so}", "level", "warn", "msg", cli_json_text(text)) : NULL;
    char *const dumped = line != NULL ? json_dumps(line, 0) : NULL;
    (void)fprintf(stderr, "%s%s\n",
                  dumped != NULL ? "" : "quern: warning: ", dumped != NULL ? dumped : text);
    free(dumped);
    json_decref(line);
}

void cli_warn_as_json(bool as_json)
{
    g_warns_as_json = as_json;
}

bool cli_is_dumb(void)
{
    const char *const term = getenv("TERM");
    return term == NULL || term[0] == '\0' || strcmp(term, "dumb") == 0;
}

bool cli_is_colored(int fd, int color_option)
{
    if (color_option != 0) {
        return color_option == 1;
    }
    const char *no_color = getenv("NO_COLOR");
    return isatty(fd) != 0 && (no_color == NULL || no_color[0] == '\0') && !cli_is_dumb();
}

int cli_columns(int fd, int n_min)
{
    struct winsize size;
    if (ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col >= n_min) {
        return size.ws_col < 120 ? size.ws_col : 120;
    }
    return 80;
}

/* Does what follows hold a secret? */
static bool is_secret(const char *argument, size_t len)
{
    static const char *const names[] = {"--api-key", "--header"};
    bool is_one = false;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        is_one |= strlen(names[i]) == len && memcmp(names[i], argument, len) == 0;
    }
    return is_one;
}

/* A word as a shell reads it back. */
static void write_word(FILE *file, const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_@%+=:,./-";
    if (word[0] != '\0' && word[strspn(word, plain)] == '\0') {
        (void)fputs(word, file);
        return;
    }
    (void)fputc('\'', file);
    for (const char *at = word; *at != '\0'; at++) {
        (void)(*at == '\'' ? fputs("'\\''", file) : fputc(*at, file));
    }
    (void)fputc('\'', file);
}

void cli_show_command(char *out, size_t size)
{
    enum { BYTES_MAX = 8192 };
    char bytes[BYTES_MAX];
    const int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    const ssize_t n_read = fd >= 0 ? read(fd, bytes, sizeof bytes - 1) : 0;
    FILE *const file = fmemopen(out, size, "w"); /* ends what it holds by NUL */
    bool hides = false;
    if (fd >= 0) {
        (void)close(fd);
    }
    bytes[n_read > 0 ? n_read : 0] = '\0';
    out[0] = '\0';
    for (const char *at = bytes; file != NULL && at < bytes + n_read; at += strlen(at) + 1) {
        const size_t len = strcspn(at, "=");
        if (at != bytes) {
            (void)fputc(' ', file);
        }
        if (at[len] == '=' && is_secret(at, len)) {
            (void)fprintf(file, "%.*s=***", (int)len, at);
        } else {
            write_word(file, at == bytes ? "quern" : hides ? "***" : at);
        }
        hides = at[len] == '\0' && is_secret(at, len);
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    out[size - 1] = '\0';
}

static const int interrupts[] = {SIGINT, SIGTERM, SIGHUP};
enum { N_INTERRUPTS = sizeof interrupts / sizeof interrupts[0] };

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    g_is_interrupted = 1;
}

void cli_catch_interrupt(void)
{
    /* Restarted calls, since a write that was interrupted would lose what the stream holds. */
    const struct sigaction action = {.sa_handler = on_interrupt,
                                     .sa_flags = (int)(SA_RESETHAND | SA_RESTART)};
    for (int i = 0; i < N_INTERRUPTS; i++) {
        struct sigaction old;
        if (sigaction(interrupts[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN) {
            (void)sigaction(interrupts[i], &action, NULL); /* nohup's and a shell's wish counts */
        }
    }
}

/* While text is read, which may be for ever, an interrupt ends the read. */
static void let_reads_be_interrupted(bool may_be)
{
    for (int i = 0; i < N_INTERRUPTS; i++) {
        struct sigaction action;
        if (sigaction(interrupts[i], NULL, &action) == 0 && action.sa_handler == on_interrupt) {
            action.sa_flags = may_be ? action.sa_flags & ~SA_RESTART : action.sa_flags | SA_RESTART;
            (void)sigaction(interrupts[i], &action, NULL);
        }
    }
}

void cli_interrupt(void)
{
    g_is_interrupted = 1;
}

bool cli_is_interrupted(void)
{
    return g_is_interrupted != 0;
}

qn_status cli_read_text(char **text, size_t *len, const char *path, qn_error *err)
{
    const bool is_stdin = path == NULL || strcmp(path, "-") == 0;
    const char *what = is_stdin ? "standard input" : path;
    qn_status status = QN_OK;
    FILE *file = is_stdin ? stdin : fopen(path, "rb");
    size_t capacity = 65536;
    size_t used = 0;
    if (file == NULL) {
        return qn_fail(err, errno == ENOENT ? QN_E_NOT_FOUND : QN_E_IO, errno, __func__,
                       "%s: %s, expected a readable file", what, strerror(errno));
    }
    char *bytes = malloc(capacity);
    let_reads_be_interrupted(true);
    if (bytes == NULL) {
        status = qn_fail(err, QN_E_NOMEM, 0, __func__, "%s: no memory to read it", what);
        goto fail;
    }
    while (!feof(file) && !ferror(file) && used <= TEXT_BYTES_MAX && !cli_is_interrupted()) {
        if (used + 1 >= capacity) {
            capacity *= 2;
            char *larger = realloc(bytes, capacity);
            if (larger == NULL) {
                status = qn_fail(err, QN_E_NOMEM, 0, __func__, "%s: no memory to read it", what);
                goto fail;
            }
            bytes = larger;
        }
        used += fread(bytes + used, 1, capacity - used - 1, file);
    }
    if (cli_is_interrupted()) {
        status =
            qn_fail(err, QN_E_CANCELLED, 0, __func__, "%s: interrupted, expected to be read", what);
        goto fail;
    }
    if (used > TEXT_BYTES_MAX) {
        status = qn_fail(err, QN_E_FORMAT, 0, __func__, "%s: over %d bytes, expected at most that",
                         what, TEXT_BYTES_MAX);
        goto fail;
    }
    if (ferror(file)) {
        status = qn_fail(err, errno == EISDIR ? QN_E_FORMAT : QN_E_IO, errno, __func__,
                         "%s: %s, expected a readable file", what, strerror(errno));
        goto fail;
    }
    bytes[used] = '\0';
    *text = bytes;
    *len = used;
    bytes = NULL;
fail:
    let_reads_be_interrupted(false);
    free(bytes);
    if (!is_stdin) {
        (void)fclose(file);
    }
    return status;
}

/* Write to what is no regular file: a device, a pipe. */
static bool write_through(const char *path, bool (*write)(FILE *file, void *context), void *context)
{
    FILE *const file = fopen(path, "w");
    const bool is_written = file != NULL && write(file, context) && fflush(file) == 0;
    const int why = errno;
    const bool is_closed = file != NULL && fclose(file) == 0;
    errno = is_written ? errno : why;
    return is_written && is_closed;
}

/* Write a file beside @p path and give it that name. */
static bool write_beside(const char *path, mode_t mode, bool (*write)(FILE *file, void *context),
                         void *context)
{
    char part[PATH_MAX];
    if ((size_t)snprintf(part, sizeof part, "%s.XXXXXX", path) >= sizeof part) {
        errno = ENAMETOOLONG;
        return false;
    }
    errno = 0;
    const int fd = mkostemp(part, O_CLOEXEC);
    FILE *const file = fd >= 0 ? fdopen(fd, "w") : NULL;
    const bool is_written = file != NULL && write(file, context) && fflush(file) == 0 &&
                            !ferror(file) && fchmod(fd, mode) == 0 && fsync(fd) == 0 &&
                            rename(part, path) == 0;
    const int why = errno;
    if (file != NULL) {
        (void)fclose(file);
    } else if (fd >= 0) {
        (void)close(fd);
    }
    if (!is_written && fd >= 0) {
        (void)unlink(part);
    }
    errno = why;
    return is_written;
}

static qn_status replace_file(const char *path, mode_t new_mode,
                              bool (*write)(FILE *file, void *context), void *context,
                              qn_error *err)
{
    char resolved[PATH_MAX];
    struct stat there;
    const bool is_there = stat(path, &there) == 0;
    const char *const target = is_there && realpath(path, resolved) != NULL ? resolved : path;
    const bool is_file = !is_there || S_ISREG(there.st_mode);
    const mode_t mode = is_there ? there.st_mode & 0777 : new_mode;
    if (is_file ? write_beside(target, mode, write, context)
                : write_through(target, write, context)) {
        return QN_OK;
    }
    return qn_fail(err, QN_E_IO, errno, __func__, "%s: %s, expected to be writable", path,
                   errno != 0 ? strerror(errno) : "no memory");
}

qn_status cli_replace_file(const char *path, bool (*write)(FILE *file, void *context),
                           void *context, qn_error *err)
{
    const mode_t mask = umask(0);
    (void)umask(mask);
    return replace_file(path, 0666 & ~mask, write, context, err);
}

qn_status cli_replace_private_file(const char *path, bool (*write)(FILE *file, void *context),
                                   void *context, qn_error *err)
{
    return replace_file(path, S_IRUSR | S_IWUSR, write, context, err);
}

/* Get as far as the first byte. */
static bool only_begin(FILE *file, void *context)
{
    (void)file;
    *(bool *)context = true;
    return false;
}

qn_status cli_check_writable(const char *path, qn_error *err)
{
    char resolved[PATH_MAX];
    struct stat there;
    bool is_begun = false;
    const bool is_there = stat(path, &there) == 0;
    const char *const target = is_there && realpath(path, resolved) != NULL ? resolved : path;
    if (!is_there || S_ISREG(there.st_mode)) {
        (void)write_beside(target, S_IRUSR, only_begin, &is_begun);
    } else {
        errno = S_ISDIR(there.st_mode) ? EISDIR : 0;
        is_begun = errno == 0 && access(target, W_OK) == 0;
    }
    return is_begun ? QN_OK
                    : qn_fail(err, QN_E_IO, errno, __func__, "%s: %s, expected to be writable",
                              path, strerror(errno));
}

qn_status cli_append_message(json_t *messages, const char *role, const char *what, const char *text,
                             size_t len, qn_error *err)
{
    const char *nul = len > 0 ? memchr(text, '\0', len) : NULL;
    if (nul != NULL) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__, "%s: a NUL byte at %td, expected text", what,
                       nul - text);
    }
    json_t *content = json_stringn(text, len);
    if (content == NULL) { /* without memory, or not UTF-8: then the unchecked string can be made */
        json_t *unchecked = json_stringn_nocheck(text, len);
        const bool has_memory = unchecked != NULL;
        json_decref(unchecked);
        return has_memory ? qn_fail(err, QN_E_FORMAT, 0, __func__,
                                    "%s: bytes that are not UTF-8, expected text", what)
                          : qn_fail(err, QN_E_NOMEM, 0, __func__, "%s: no memory", what);
    }
    if (json_array_append_new(messages, json_pack("{ss, so}", "role", role, "content", content)) !=
        0) {
        return qn_fail(err, QN_E_NOMEM, 0, __func__, "%s: no memory", what);
    }
    return QN_OK;
}

qn_status cli_user_message(char **json, const char *system, const char *text, size_t len,
                           qn_error *err)
{
    qn_status status = QN_OK;
    json_t *messages = json_array();
    *json = NULL;
    if (system != NULL) {
        status = cli_append_message(messages, "system", "--system", system, strlen(system), err);
    }
    if (status == QN_OK) {
        status = cli_append_message(messages, "user", "prompt", text, len, err);
    }
    if (status == QN_OK) {
        *json = json_dumps(messages, JSON_COMPACT);
        status = *json != NULL ? QN_OK : qn_fail(err, QN_E_NOMEM, 0, __func__, "prompt: no memory");
    }
    json_decref(messages);
    return status;
}

qn_status cli_parse_ids(int32_t **ids, size_t *n_ids, const char *text, qn_error *err)
{
    int32_t *list = malloc((strlen(text) / 2 + 1) * sizeof *list);
    if (list == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "--ids: no memory");
    }
    size_t n = 0;
    for (const char *at = text + strspn(text, ", \t\n"); *at != '\0'; at += strspn(at, ", \t\n")) {
        char *end = NULL;
        errno = 0;
        const long id = strtol(at, &end, 10);
        if (end == at || errno != 0 || id < 0 || id > INT32_MAX || strchr(", \t\n", *end) == NULL) {
            free(list);
            return qn_fail(err, QN_E_INVAL, 0, __func__,
                           "--ids: \"%.32s\", expected token ids separated by commas", at);
        }
        list[n++] = (int32_t)id;
        at = end;
    }
    *ids = list;
    *n_ids = n;
    return QN_OK;
}

void cli_write(const char *text, size_t len)
{
    (void)!fwrite(text, 1, len, stdout); /* the stream remembers a failure */
}

int cli_flush(int status)
{
    if (fflush(stdout) == 0 && !ferror(stdout)) {
        return status;
    }
    return cli_fail(QN_E_IO, "standard output: %s, expected to be writable", strerror(errno));
}

int cli_print_json(json_t *object)
{
    /* 9 digits tell f32 values apart and keep times short. */
    char *text = json_dumps(object, JSON_REAL_PRECISION(9));
    json_decref(object);
    if (text == NULL) {
        return cli_fail(QN_E_NOMEM, "JSON output: no memory");
    }
    cli_write(text, strlen(text));
    cli_write("\n", 1);
    free(text);
    return cli_flush(CLI_DONE);
}

json_t *cli_json_text(const char *text)
{
    json_t *value = json_string(text);
    if (value != NULL) {
        return value;
    }
    char *copy = strdup(text);
    for (char *at = copy; at != NULL && *at != '\0'; at++) {
        if ((*at & 0x80) != 0) {
            *at = '?';
        }
    }
    value = copy != NULL ? json_string(copy) : NULL;
    free(copy);
    return value;
}

json_t *cli_json_ids(const int32_t *ids, size_t n_ids)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n_ids; i++) {
        if (json_array_append_new(list, json_integer(ids[i])) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

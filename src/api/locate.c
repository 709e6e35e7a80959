/* SPDX-License-Identifier: Apache-2.0 */
#include "api/locate.h"

#include "base/env.h"
#include "base/file.h"
#include "base/try.h"

#include <ctype.h>
#include <errno.h>
#include <sys/stat.h>

static const char small_model[] = "models/glm-nano is the small model that comes with the source";

enum {
    NAME_BYTES_MAX = 256,     /* of owner/name; the hub allows 96 for each half */
    REVISION_BYTES_MAX = 256, /* of refs/main, a commit's 40 hexadecimal digits */
};

static bool is_folder(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

/* Letters, digits, '-', '_' and '.', not led by a dot. */
static bool is_hub_word(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (!isalnum((unsigned char)text[i]) && strchr("-_.", text[i]) == NULL) {
            return false;
        }
    }
    return len > 0 && text[0] != '.';
}

/* Could @p name be OWNER/NAME of the hub? */
static bool is_hub_name(const char *name)
{
    const char *const slash = strchr(name, '/');
    return slash != NULL && strlen(name) <= NAME_BYTES_MAX &&
           is_hub_word(name, (size_t)(slash - name)) && is_hub_word(slash + 1, strlen(slash + 1));
}

/* HUB/models--owner--name: where the cache keeps a model. */
static qn_status append_cache_folder(qn_buf *out, const char *name, qn_error *err)
{
    qn_status status = QN_OK;
    const char *const hf_home = qn_env_get(QN_ENV_HF_HOME);
    const char *const home = qn_env_get(QN_ENV_HOME);
    const int owner_len = (int)(strchr(name, '/') - name);
    if (hf_home != NULL) {
        QN_TRY(status, qn_buf_append_printf(out, err, "%s", hf_home), fail);
    } else {
        QN_TRY(status,
               qn_buf_append_printf(out, err, "%s/.cache/huggingface", home != NULL ? home : ""),
               fail);
    }
    QN_TRY(status,
           qn_buf_append_printf(out, err, "/hub/models--%.*s--%s", owner_len, name,
                                name + owner_len + 1),
           fail);
fail:
    return status;
}

/* Add /snapshots/REVISION for what refs/main says; *is_there tells whether such a folder exists. */
static qn_status append_snapshot(qn_buf *folder, bool *is_there, qn_error *err)
{
    qn_status status = QN_OK;
    qn_buf revision;
    *is_there = false;
    qn_buf_init(&revision, REVISION_BYTES_MAX);
    const size_t folder_len = folder->len;
    QN_TRY(status, qn_buf_append_printf(folder, err, "/refs/main"), fail);
    status = qn_file_read(&revision, folder->ptr, err);
    folder->ptr[folder_len] = '\0';
    folder->len = folder_len;
    if (status == QN_E_NOT_FOUND) {
        status = QN_OK; /* not in the cache: no error of the cache */
        goto fail;
    }
    QN_TRY(status, status, fail);
    while (revision.len > 0 && isspace((unsigned char)revision.ptr[revision.len - 1])) {
        revision.len--;
    }
    if (!is_hub_word(revision.ptr, revision.len)) {
        status = qn_fail(err, QN_E_FORMAT, 0, __func__,
                         "%s/refs/main: %zu bytes that are no revision, a commit's name expected",
                         folder->ptr, revision.len);
        goto fail;
    }
    QN_TRY(status,
           qn_buf_append_printf(folder, err, "/snapshots/%.*s", (int)revision.len, revision.ptr),
           fail);
    *is_there = is_folder(folder->ptr);
fail:
    qn_buf_deinit(&revision);
    return status;
}

/* The snapshot of OWNER/NAME in the cache. */
static qn_status find_in_cache(char **path, const char *name, qn_error *err)
{
    qn_status status = QN_OK;
    bool is_there = false;
    qn_buf folder;
    qn_buf_init(&folder, 1 << 20);
    QN_TRY(status, append_cache_folder(&folder, name, err), fail);
    QN_TRY(status, append_snapshot(&folder, &is_there, err), fail);
    if (!is_there) {
        status = qn_fail(err, QN_E_NOT_FOUND, ENOENT, __func__,
                         "%s: no such folder and not in the cache (%.200s), get it with: hf "
                         "download %s (%s)",
                         name, folder.ptr, name, small_model);
        goto fail;
    }
    *path = folder.ptr; /* taken */
    return QN_OK;

fail:
    qn_buf_deinit(&folder);
    return status;
}

qn_status qn_locate_model(char **path, const char *name, qn_error *err)
{
    *path = NULL;
    if (name[0] == '\0') {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "model: an empty name, a folder or owner/name expected");
    }
    struct stat info;
    if (stat(name, &info) == 0) {
        if (!S_ISDIR(info.st_mode)) {
            return qn_fail(err, QN_E_FORMAT, 0, __func__,
                           "%s: a file, a model's folder with config.json expected", name);
        }
        *path = strdup(name);
        return *path != NULL ? QN_OK
                             : qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "%s: no memory", name);
    }
    if (errno != ENOENT) {
        return qn_fail(err, errno == EIO ? QN_E_IO : QN_E_FORMAT, errno, __func__,
                       "%.300s: %s, a model's folder or owner/name expected", name,
                       strerror(errno));
    }
    if (is_hub_name(name)) {
        return find_in_cache(path, name, err);
    }
    return qn_fail(err, QN_E_NOT_FOUND, ENOENT, __func__,
                   "%s: no such folder, a model's folder or owner/name expected (%s)", name,
                   small_model);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "quant/sources.h"

#include "base/assert.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/try.h"
#include "format/checkpoint.h"
#include "quant/manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DEPTH_MAX = 16, PIECE_BYTES = 1 << 20 };

static qn_status no_memory(const char *dir, qn_error *err)
{
    return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "%.300s: no memory to list its files", dir);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* One more name, copied; there is room for it. */
static qn_status add_file(qn_sources *sources, const char *name, const char *dir, qn_error *err)
{
    QN_ASSERT(sources->files != NULL);
    sources->files[sources->n_files] = strdup(name);
    if (sources->files[sources->n_files] == NULL) {
        return no_memory(dir, err);
    }
    sources->n_files++;
    return QN_OK;
}

static qn_status make_room(qn_sources *sources, size_t n_files, const char *dir, qn_error *err)
{
    char **const files = realloc((void *)sources->files, (n_files + 1) * sizeof *files);
    if (files == NULL) {
        return no_memory(dir, err);
    }
    sources->files = files;
    return QN_OK;
}

/* The distinct files of a weight_map. */
static qn_status list_mapped(qn_sources *sources, const char *dir, qn_error *err)
{
    qn_status status = QN_OK;
    const char *tensor = NULL;
    json_t *file = NULL;
    sources->map = json_object_get(sources->index, "weight_map");
    if (!json_is_object(sources->map) || json_object_size(sources->map) == 0) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__,
                       "%.300s/" QN_INDEX_NAME ": weight_map: %s, an object with members expected",
                       dir, qn_json_type_name(sources->map));
    }
    json_t *const seen = json_object(); /* each file once */
    if (seen == NULL) {
        return no_memory(dir, err);
    }
    json_object_foreach(sources->map, tensor, file)
    {
        const char *const name = json_string_value(file);
        if (name == NULL || !qn_is_shard_name(name)) {
            status = qn_fail(err, QN_E_FORMAT, 0, __func__,
                             "%.200s/" QN_INDEX_NAME
                             ": weight_map: %.100s: %.100s, a file of the folder that ends in "
                             ".safetensors expected",
                             dir, tensor, name != NULL ? name : qn_json_type_name(file));
            goto fail;
        }
        if (json_object_set_new(seen, name, json_true()) != 0) {
            status = no_memory(dir, err);
            goto fail;
        }
    }
    QN_TRY(status, make_room(sources, json_object_size(seen), dir, err), fail);
    json_object_foreach(seen, tensor, file)
    {
        QN_TRY(status, add_file(sources, tensor, dir, err), fail);
    }
fail:
    json_decref(seen);
    return status;
}

/* Manifest and index are JSON, where a name has to be text. */
static qn_status check_text(const char *name, const char *dir, qn_error *err)
{
    const size_t n_bytes = strlen(name);
    for (size_t i = 0; i < n_bytes;) {
        const size_t len = qn_utf8_len((const uint8_t *)name + i, n_bytes - i);
        if (len == 0) {
            return qn_fail(err, QN_E_FORMAT, 0, __func__,
                           "%.250s/%.250s: byte %zu of the name is not of UTF-8, text expected",
                           dir, name, i);
        }
        i += len;
    }
    return QN_OK;
}

static qn_status add_listed(qn_sources *sources, const char *name, const char *dir, qn_error *err)
{
    const qn_status status = make_room(sources, sources->n_files + 1, dir, err);
    return status == QN_OK ? add_file(sources, name, dir, err) : status;
}

static qn_status open_folder(DIR **folder, const char *dir, qn_error *err)
{
    *folder = opendir(dir);
    return *folder != NULL ? QN_OK
                           : qn_fail(err,
                                     errno == ENOENT   ? QN_E_NOT_FOUND
                                     : errno == ENOMEM ? QN_E_NOMEM
                                                       : QN_E_IO,
                                     errno, __func__, "%.300s: %s, a readable folder expected", dir,
                                     strerror(errno));
}

/* Every *.safetensors of the folder. */
static qn_status list_folder(qn_sources *sources, const char *dir, qn_error *err)
{
    const char *name = NULL;
    DIR *folder = NULL;
    qn_status status = open_folder(&folder, dir, err);
    if (status < 0) {
        return status;
    }
    do {
        status = qn_folder_next(&name, folder, dir, err);
        if (status == QN_OK && name != NULL && qn_is_shard_name(name)) {
            status = add_listed(sources, name, dir, err);
        }
    } while (status == QN_OK && name != NULL);
    (void)closedir(folder);
    return status;
}

/* Without an index, model.safetensors alone where there is one. */
static qn_status take_listed(qn_sources *out, const qn_sources *listed, const char *dir,
                             qn_error *err)
{
    qn_status status = QN_OK;
    bool has_single = false;
    for (size_t i = 0; i < listed->n_files; i++) {
        has_single |= strcmp(listed->files[i], QN_SINGLE_NAME) == 0;
    }
    for (size_t i = 0; status == QN_OK && i < listed->n_files; i++) {
        const char *const name = listed->files[i];
        if (has_single && strcmp(name, QN_SINGLE_NAME) != 0) {
            continue;
        }
        status = check_text(name, dir, err);
        status = status == QN_OK ? add_listed(out, name, dir, err) : status;
    }
    return status;
}

/* What stands beside the shards that count is not part of the output. */
static void warn_of_others(const qn_sources *sources, const qn_sources *listed, const char *dir)
{
    const char *other = NULL;
    size_t n_others = 0;
    for (size_t i = 0; i < listed->n_files; i++) {
        if (bsearch((const void *)&listed->files[i], (const void *)sources->files, sources->n_files,
                    sizeof *sources->files, by_text) == NULL) {
            other = listed->files[i];
            n_others++;
        }
    }
    if (n_others > 0) {
        qn_log(QN_LOG_WARN, "%.200s: %.200s%s left out: %s", dir, other,
               n_others > 1 ? " and others are" : " is",
               sources->index != NULL ? "the index does not name them"
                                      : QN_SINGLE_NAME " is the model");
    }
}

qn_status qn_sources_open(qn_sources *out, const char *dir, bool may_lack, qn_error *err)
{
    qn_sources listed = {0};
    qn_status status = QN_OK;
    char *const path = qn_path_join(dir, QN_INDEX_NAME);
    *out = (qn_sources){0};
    if (path == NULL) {
        return no_memory(dir, err);
    }
    QN_TRY(status, list_folder(&listed, dir, err), fail);
    status = qn_json_load(&out->index, path, QN_INDEX_BYTES_MAX, err);
    if (status == QN_E_NOT_FOUND) {
        status = take_listed(out, &listed, dir, err);
    } else if (status == QN_OK) {
        status = list_mapped(out, dir, err);
    }
    if (status == QN_OK && out->n_files == 0 && !may_lack) {
        status = qn_fail(err, QN_E_NOT_FOUND, ENOENT, __func__,
                         "%.300s: no *.safetensors, a folder with weights expected", dir);
    }
    QN_TRY(status, status, fail);
    if (out->n_files > 0) {
        qsort((void *)out->files, out->n_files, sizeof *out->files, by_text);
        warn_of_others(out, &listed, dir);
    }
fail:
    if (status < 0) {
        qn_sources_close(out);
    }
    qn_sources_close(&listed);
    free(path);
    return status;
}

void qn_sources_close(qn_sources *sources)
{
    for (size_t i = 0; i < sources->n_files; i++) {
        free(sources->files[i]);
    }
    free((void *)sources->files);
    json_decref(sources->index);
    *sources = (qn_sources){0};
}

/* --------------------------------------------------------------------------------- the rest -- */

/* One walk through the folder. */
typedef struct walk {
    const char *dir;
    const qn_target *target; /* NULL: only count */
    uint64_t n_bytes;
    char *piece; /* [PIECE_BYTES] owned; NULL without a target */
    qn_error *err;
} walk;

static bool is_left_out(const char *name, bool is_top)
{
    static const char *const ours[] = {QN_CONFIG_NAME, QN_INDEX_NAME, QN_MANIFEST_NAME};
    bool is_ours = false;
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) {
        is_ours |= is_top && strcmp(name, ours[i]) == 0;
    }
    return is_ours || name[0] == '.' || fnmatch("*.safetensors", name, 0) == 0 ||
           fnmatch("README*.md", name, 0) == 0;
}

static qn_status copy_bytes(const walk *w, int from, int to, const char *name, const char *path,
                            uint64_t size_bytes)
{
    qn_status status = QN_OK;
    for (uint64_t at = 0; status == QN_OK && at < size_bytes; at += PIECE_BYTES) {
        const uint64_t left = size_bytes - at;
        const size_t n = left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;
        QN_TRY(status, qn_read_at(from, w->piece, n, at, path, w->err), fail);
        QN_TRY(status, qn_target_write(w->target, to, name, w->piece, n, at, w->err), fail);
    }
fail:
    return status;
}

/* @p name is the path below the folder. */
static qn_status copy_file(walk *w, const char *name, const char *path)
{
    qn_status status = QN_OK;
    uint64_t size_bytes = 0;
    int from = -1;
    int to = -1;
    QN_TRY(status, qn_file_open(&from, &size_bytes, path, w->err), fail);
    w->n_bytes += size_bytes;
    if (w->target == NULL) {
        goto fail;
    }
    QN_TRY(status, qn_target_create(&to, w->target, name, 0, w->err), fail);
    QN_TRY(status, copy_bytes(w, from, to, name, path, size_bytes), fail);
    QN_TRY(status, qn_target_sync(w->target, to, name, w->err), fail);
    QN_TRY(status, qn_target_commit(w->target, name, w->err), fail);
fail:
    if (from >= 0) {
        (void)close(from);
    }
    if (to >= 0) {
        (void)close(to);
        if (status < 0) {
            qn_target_drop(w->target, name);
        }
    }
    return status;
}

static qn_status walk_folder(walk *w, const char *below, uint32_t depth);

/* A file or folder; @p name is its path below the folder that is walked. */
static qn_status walk_item(walk *w, const char *name, uint32_t depth)
{
    char path[PATH_MAX];
    struct stat info;
    qn_status status = QN_OK;
    const int len = snprintf(path, sizeof path, "%s/%s", w->dir, name);
    errno = ENAMETOOLONG;
    if (len < 0 || (size_t)len >= sizeof path || stat(path, &info) != 0) {
        const bool is_link = errno == ENOENT || errno == ELOOP || errno == ENAMETOOLONG;
        return qn_fail(w->err, is_link ? QN_E_FORMAT : QN_E_IO, errno, __func__,
                       "%.300s: cannot be read: %s, a file or folder expected", path,
                       strerror(errno));
    }
    if (!S_ISDIR(info.st_mode)) {
        const char *last = NULL;
        (void)qn_path_parent(path, &last);
        if (strlen(last) > QN_TARGET_NAME_MAX) {
            return qn_fail(w->err, QN_E_FORMAT, ENAMETOOLONG, __func__,
                           "%.300s: a name of %zu bytes, at most %d expected", path, strlen(last),
                           (int)QN_TARGET_NAME_MAX);
        }
        return copy_file(w, name, path);
    }
    if (w->target != NULL) {
        QN_TRY(status, qn_target_make_folder(w->target, name, w->err), fail);
    }
    QN_TRY(status, walk_folder(w, name, depth + 1), fail);
    if (w->target != NULL) {
        QN_TRY(status, qn_target_sync_names(w->target, name, w->err), fail);
    }
fail:
    return status;
}

/* What stands in the folder @p below ("" at the top), and below it. */
static qn_status walk_folder(walk *w, const char *below, uint32_t depth)
{
    char path[PATH_MAX];
    char name[PATH_MAX];
    const char *last = NULL;
    qn_status status = QN_OK;
    (void)snprintf(path, sizeof path, "%s/%s", w->dir, below);
    DIR *folder = NULL;
    if (depth > DEPTH_MAX) {
        return qn_fail(w->err, QN_E_FORMAT, 0, __func__, "%.300s: too deep, at most %d expected",
                       path, DEPTH_MAX);
    }
    status = open_folder(&folder, path, w->err);
    if (status < 0) {
        return status;
    }
    do {
        status = qn_folder_next(&last, folder, path, w->err);
        if (status == QN_OK && last != NULL && !is_left_out(last, depth == 0)) {
            (void)snprintf(name, sizeof name, "%s%s%s", below, depth > 0 ? "/" : "",
                           last); /* cut where no path would be that long */
            status = walk_item(w, name, depth);
        }
    } while (status == QN_OK && last != NULL);
    (void)closedir(folder);
    return status;
}

qn_status qn_sources_copy_rest(uint64_t *n_bytes, const char *dir, const qn_target *target,
                               qn_error *err)
{
    walk w = {.dir = dir, .target = target, .err = err};
    *n_bytes = 0;
    if (target != NULL) {
        w.piece = malloc(PIECE_BYTES);
        if (w.piece == NULL) {
            return no_memory(dir, err);
        }
    }
    const qn_status status = walk_folder(&w, "", 0);
    free(w.piece);
    *n_bytes = w.n_bytes;
    return status;
}

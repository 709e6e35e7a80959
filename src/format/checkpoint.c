/* SPDX-License-Identifier: Apache-2.0 */
#include "format/checkpoint.h"

#include "base/assert.h"
#include "base/file.h"
#include "base/json.h"
#include "base/try.h"

#include <errno.h>
#include <stdatomic.h>
#include <unistd.h>

enum {
    INDEX_BYTES_MAX = 256 << 20,
    SHARDS_MAX = 100000,
    FETCH_PIECE_BYTES = 1 << 20, /* what the threads divide a tensor by */
};

typedef struct shard {
    char *path;           /* owned */
    const char *name;     /* the last part of path */
    qn_safetensors *file; /* owned */
} shard;

typedef struct entry {
    const qn_tensor *tensor; /* borrowed from its shard */
    uint32_t i_shard;
} entry;

struct qn_checkpoint {
    char *dir;     /* owned */
    shard *shards; /* owned, in order of name */
    size_t n_shards;
    entry *entries; /* owned, in order of name */
    size_t n_entries;
    uint64_t size_bytes;
};

static qn_status no_memory(const char *dir, qn_error *err)
{
    return qn_fail(err, QN_E_NOMEM, ENOMEM, "qn_checkpoint_open", "%s: no memory to open it", dir);
}

/* Add a shard, not yet opened. */
static qn_status add_shard(qn_checkpoint *checkpoint, const char *dir, const char *name,
                           qn_error *err)
{
    const size_t n = checkpoint->n_shards;
    if (n >= SHARDS_MAX) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__, "%s: more than %d shards, fewer expected",
                       dir, SHARDS_MAX);
    }
    if ((n & (n - 1)) == 0) { /* full at each power of two */
        shard *const shards = realloc(checkpoint->shards, (n == 0 ? 1 : 2 * n) * sizeof *shards);
        if (shards == NULL) {
            return no_memory(dir, err);
        }
        checkpoint->shards = shards;
    }
    char *const path = qn_path_join(dir, name);
    if (path == NULL) {
        return no_memory(dir, err);
    }
    checkpoint->shards[n] = (shard){.path = path, .name = path + strlen(dir) + 1};
    checkpoint->n_shards++;
    return QN_OK;
}

static int by_shard_name(const void *a, const void *b)
{
    return strcmp(((const shard *)a)->name, ((const shard *)b)->name);
}

static int by_tensor_name(const void *a, const void *b)
{
    return qn_str_compare(((const entry *)a)->tensor->name, ((const entry *)b)->tensor->name);
}

static const entry *find_entry(const qn_checkpoint *checkpoint, qn_str name)
{
    const qn_tensor tensor = {.name = name};
    const entry key = {.tensor = &tensor};
    return checkpoint->n_entries == 0 ? NULL
                                      : bsearch(&key, checkpoint->entries, checkpoint->n_entries,
                                                sizeof key, by_tensor_name);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Add each of the @p n_names names once, in order.  Sorts them. */
static qn_status add_shards(qn_checkpoint *checkpoint, const char *dir, const char **names,
                            size_t n_names, qn_error *err)
{
    qn_status status = QN_OK;
    qsort(names, n_names, sizeof *names, by_text);
    for (size_t i = 0; i < n_names && status == QN_OK; i++) {
        if (i == 0 || strcmp(names[i - 1], names[i]) != 0) {
            status = add_shard(checkpoint, dir, names[i], err);
        }
    }
    return status;
}

bool qn_is_shard_name(const char *name)
{
    static const char suffix[] = ".safetensors";
    return name != NULL && name[0] != '.' && strchr(name, '/') == NULL &&
           strlen(name) > strlen(suffix) && qn_str_ends(qn_str_of(name), suffix);
}

/* The files that the index names. */
static qn_status add_indexed_shards(qn_checkpoint *checkpoint, const char *dir,
                                    const char *index_path, json_t *map, qn_error *err)
{
    qn_status status = QN_OK;
    size_t n_names = 0;
    const char **const names = calloc(json_object_size(map) + 1, sizeof *names);
    if (names == NULL) {
        return no_memory(dir, err);
    }
    const char *tensor_name;
    json_t *file;
    json_object_foreach(map, tensor_name, file)
    {
        names[n_names] = json_string_value(file);
        if (!qn_is_shard_name(names[n_names])) {
            char seen[64];
            qn_json_show(seen, sizeof seen, file);
            status = qn_fail(err, QN_E_FORMAT, 0, __func__,
                             "%s: weight_map: %.200s: %s, a *.safetensors of the folder expected",
                             index_path, tensor_name, seen);
            goto fail;
        }
        n_names++;
    }
    status = add_shards(checkpoint, dir, names, n_names, err);
fail:
    free(names);
    return status;
}

/* Every *.safetensors of the folder, in order of name. */
static qn_status add_found_shards(qn_checkpoint *checkpoint, const char *dir, qn_error *err)
{
    qn_status status = QN_OK;
    DIR *const list = opendir(dir);
    if (list == NULL) {
        if (errno == ENOMEM) {
            return no_memory(dir, err);
        }
        return qn_fail(err, errno == ENOENT ? QN_E_NOT_FOUND : QN_E_IO, errno, __func__,
                       "%s: cannot open: %s, a model's folder expected", dir, strerror(errno));
    }
    const char *name = NULL;
    while (status == QN_OK && (status = qn_folder_next(&name, list, dir, err)) == QN_OK &&
           name != NULL) {
        if (qn_is_shard_name(name)) {
            status = add_shard(checkpoint, dir, name, err);
        }
    }
    (void)closedir(list);
    if (status == QN_OK && checkpoint->shards == NULL) {
        return qn_fail(err, QN_E_NOT_FOUND, 0, __func__,
                       "%s: no weights, %s or *.safetensors expected", dir, QN_INDEX_NAME);
    }
    if (status == QN_OK) {
        qsort(checkpoint->shards, checkpoint->n_shards, sizeof(shard), by_shard_name);
    }
    return status;
}

/* Map every shard and count its tensors into n_entries. */
static qn_status open_shards(qn_checkpoint *checkpoint, const char *index_path, qn_error *err)
{
    for (size_t i = 0; i < checkpoint->n_shards; i++) {
        shard *const one = &checkpoint->shards[i];
        const qn_status status = qn_safetensors_open(&one->file, one->path, err);
        if (status == QN_E_NOT_FOUND) {
            return qn_fail(err, QN_E_NOT_FOUND, ENOENT, __func__,
                           "%s: no such file, a shard that %s names expected", one->path,
                           index_path);
        }
        if (status < 0) {
            return status;
        }
        checkpoint->n_entries += qn_safetensors_count(one->file);
        checkpoint->size_bytes += qn_safetensors_bytes(one->file);
    }
    return QN_OK;
}

/* One sorted list of all tensors; a name in two shards is an error. */
static qn_status list_tensors(qn_checkpoint *checkpoint, const char *dir, qn_error *err)
{
    entry *const entries = calloc(checkpoint->n_entries + 1, sizeof *entries);
    if (entries == NULL) {
        return no_memory(dir, err);
    }
    checkpoint->entries = entries;
    size_t n = 0;
    for (size_t i_shard = 0; i_shard < checkpoint->n_shards; i_shard++) {
        const qn_safetensors *const file = checkpoint->shards[i_shard].file;
        for (size_t i = 0; i < qn_safetensors_count(file); i++) {
            entries[n++] =
                (entry){.tensor = qn_safetensors_get(file, i), .i_shard = (uint32_t)i_shard};
        }
    }
    qsort(entries, n, sizeof *entries, by_tensor_name);
    for (size_t i = 1; i < n; i++) {
        if (by_tensor_name(&entries[i - 1], &entries[i]) == 0) {
            return qn_fail(err, QN_E_FORMAT, 0, __func__,
                           "%s: tensor %.200s: in %s and in %s, one shard expected", dir,
                           entries[i].tensor->name.ptr,
                           checkpoint->shards[entries[i - 1].i_shard].name,
                           checkpoint->shards[entries[i].i_shard].name);
        }
    }
    return QN_OK;
}

/* The index and the shards must name the same tensors in the same places. */
static qn_status check_index(const qn_checkpoint *checkpoint, const char *index_path, json_t *map,
                             qn_error *err)
{
    const char *name;
    json_t *file;
    json_object_foreach(map, name, file)
    {
        const entry *const found = find_entry(checkpoint, qn_str_of(name));
        const char *const seen =
            found == NULL ? "in no shard" : checkpoint->shards[found->i_shard].name;
        if (strcmp(seen, json_string_value(file)) != 0) {
            return qn_fail(err, QN_E_FORMAT, 0, __func__,
                           "%s: tensor %.200s: %s, in %s expected by weight_map", index_path, name,
                           seen, json_string_value(file));
        }
    }
    for (size_t i = 0; i < checkpoint->n_entries; i++) {
        const entry *const one = &checkpoint->entries[i];
        if (json_object_get(map, one->tensor->name.ptr) == NULL) {
            return qn_fail(err, QN_E_FORMAT, 0, __func__,
                           "%s: tensor %.200s: not in weight_map, as it is in %s it was expected",
                           index_path, one->tensor->name.ptr,
                           checkpoint->shards[one->i_shard].name);
        }
    }
    return QN_OK;
}

/* The index where there is one: *index stays NULL without. */
static qn_status load_index(json_t **index, const char *index_path, qn_error *err)
{
    const qn_status status = qn_json_load(index, index_path, INDEX_BYTES_MAX, err);
    if (status == QN_E_NOT_FOUND) {
        return QN_OK;
    }
    if (status == QN_OK && !json_is_object(json_object_get(*index, "weight_map"))) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__, "%s: weight_map: %s, an object expected",
                       index_path, qn_json_type_name(json_object_get(*index, "weight_map")));
    }
    return status;
}

qn_status qn_checkpoint_open(qn_checkpoint **out, const char *dir, qn_error *err)
{
    qn_status status = QN_OK;
    *out = NULL;
    json_t *index = NULL;
    qn_checkpoint *checkpoint = calloc(1, sizeof *checkpoint);
    char *const index_path = qn_path_join(dir, QN_INDEX_NAME);
    char *const single_path = qn_path_join(dir, QN_SINGLE_NAME);
    if (checkpoint != NULL) {
        checkpoint->dir = strdup(dir);
    }
    if (checkpoint == NULL || checkpoint->dir == NULL || index_path == NULL ||
        single_path == NULL) {
        status = no_memory(dir, err);
        goto fail;
    }
    QN_TRY(status, load_index(&index, index_path, err), fail);
    json_t *const map = json_object_get(index, "weight_map");
    if (map != NULL) {
        QN_TRY(status, add_indexed_shards(checkpoint, dir, index_path, map, err), fail);
    } else if (access(single_path, F_OK) == 0) {
        QN_TRY(status, add_shard(checkpoint, dir, QN_SINGLE_NAME, err), fail);
    } else {
        QN_TRY(status, add_found_shards(checkpoint, dir, err), fail);
    }
    QN_TRY(status, open_shards(checkpoint, index_path, err), fail);
    QN_TRY(status, list_tensors(checkpoint, dir, err), fail);
    if (map != NULL) {
        QN_TRY(status, check_index(checkpoint, index_path, map, err), fail);
    }
fail:
    json_decref(index);
    free(index_path);
    free(single_path);
    if (status < 0) {
        qn_checkpoint_close(&checkpoint);
    }
    *out = checkpoint;
    return status;
}

void qn_checkpoint_close(qn_checkpoint **checkpoint)
{
    qn_checkpoint *const c = *checkpoint;
    if (c == NULL) {
        return;
    }
    for (size_t i = 0; i < c->n_shards; i++) {
        qn_safetensors_close(&c->shards[i].file);
        free(c->shards[i].path);
    }
    free(c->shards);
    free(c->entries);
    free(c->dir);
    free(c);
    *checkpoint = NULL;
}

/* Bytes of a shard to be read, and the first failure. */
typedef struct fetch {
    const shard *shard;
    const uint8_t *data;
    size_t n_bytes;
    atomic_flag has_failed; /* whoever sets it writes the next two; the loop's end publishes them */
    qn_error *err;
    qn_status status;
} fetch;

static void fetch_range(void *context, size_t first, size_t end, uint32_t i_thread)
{
    (void)i_thread;
    fetch *const f = context;
    qn_error err = {0};
    const size_t from = first * FETCH_PIECE_BYTES;
    const size_t to = end * FETCH_PIECE_BYTES;
    const size_t n_bytes = (to < f->n_bytes ? to : f->n_bytes) - from;
    const qn_status status =
        qn_safetensors_populate(f->shard->file, f->data + from, n_bytes, f->shard->path, &err);
    if (status < 0 && !atomic_flag_test_and_set(&f->has_failed)) {
        if (f->err != NULL) {
            *f->err = err;
        }
        f->status = status;
    }
}

static const shard *shard_of(const qn_checkpoint *checkpoint, const qn_tensor *tensor)
{
    const entry *const found = find_entry(checkpoint, tensor->name);
    QN_ASSERT(found != NULL);
    return &checkpoint->shards[found->i_shard];
}

qn_status qn_checkpoint_fetch(const qn_checkpoint *checkpoint, const qn_tensor *tensor,
                              qn_pool *pool, qn_error *err)
{
    if (tensor->size_bytes == 0) {
        return QN_OK;
    }
    fetch f = {
        .shard = shard_of(checkpoint, tensor),
        .data = tensor->data,
        .n_bytes = tensor->size_bytes,
        .err = err,
        .has_failed = ATOMIC_FLAG_INIT,
    };
    qn_pool_run(pool, (f.n_bytes - 1) / FETCH_PIECE_BYTES + 1, fetch_range, &f);
    return f.status;
}

void qn_checkpoint_release(const qn_checkpoint *checkpoint, const qn_tensor *tensor)
{
    qn_safetensors_release(shard_of(checkpoint, tensor)->file, tensor->data, tensor->size_bytes);
}

size_t qn_checkpoint_count(const qn_checkpoint *checkpoint)
{
    return checkpoint->n_entries;
}

const qn_tensor *qn_checkpoint_get(const qn_checkpoint *checkpoint, size_t i_tensor)
{
    return checkpoint->entries[i_tensor].tensor;
}

const qn_tensor *qn_checkpoint_find(const qn_checkpoint *checkpoint, qn_str name, size_t *i_tensor)
{
    const entry *const found = find_entry(checkpoint, name);
    if (found == NULL) {
        return NULL;
    }
    if (i_tensor != NULL) {
        *i_tensor = (size_t)(found - checkpoint->entries);
    }
    return found->tensor;
}

const char *qn_checkpoint_path(const qn_checkpoint *checkpoint)
{
    return checkpoint->dir;
}

const char *qn_checkpoint_file_of(const qn_checkpoint *checkpoint, const qn_tensor *tensor)
{
    const entry *const found = find_entry(checkpoint, tensor->name);
    QN_ASSERT(found != NULL);
    return checkpoint->shards[found->i_shard].path;
}

uint64_t qn_checkpoint_bytes(const qn_checkpoint *checkpoint)
{
    return checkpoint->size_bytes;
}

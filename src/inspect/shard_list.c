/* SPDX-License-Identifier: Apache-2.0 */
#include "inspect/shard_list.h"

#include "base/file.h"
#include "base/json_doc.h"
#include "base/try.h"
#include "format/checkpoint.h"

#include <errno.h>
#include <unistd.h>

enum { INDEX_BYTES_MAX = 256 << 20 };

static qn_status no_memory(const char *dir, qn_error *err)
{
    return qn_fail(err, QN_E_NOMEM, ENOMEM, "qn_shard_list_open", "%s: no memory to list it", dir);
}

/* --------------------------------------------------------------------------------- the index -- */

static int by_tensor(const void *a, const void *b)
{
    return qn_str_compare(((const qn_index_entry *)a)->tensor, ((const qn_index_entry *)b)->tensor);
}

/* What a string stands for, with a NUL behind it.  There is room for it. */
static qn_status keep(qn_str *out, qn_buf *texts, const qn_json_node *string, qn_error *err)
{
    const size_t begin = texts->len;
    qn_status status = qn_json_string_append(texts, string, err);
    *out = (qn_str){.ptr = texts->ptr + begin, .len = texts->len - begin};
    return status == QN_OK ? qn_buf_append(texts, "", 1, err) : status;
}

/* One member of weight_map; a file that cannot be one is a problem and then none. */
static qn_status read_entry(qn_inventory *inventory, const qn_json_node *key, qn_problems *problems,
                            qn_error *err)
{
    qn_buf *const texts = &inventory->index_texts;
    qn_index_entry *const entry = &inventory->index[inventory->n_index++];
    const bool is_string = key[1].kind == QN_JSON_STRING;
    qn_status status = keep(&entry->tensor, texts, key, err);
    if (status == QN_OK && is_string) {
        status = keep(&entry->file, texts, key + 1, err);
    }
    if (status == QN_OK && (!is_string || !qn_is_shard_name(entry->file.ptr))) {
        char seen[64];
        qn_json_node_show(seen, sizeof seen, key + 1);
        entry->file = qn_str_of("");
        qn_problems_add(problems, QN_PROBLEM_INDEX_ENTRY, entry->tensor, QN_INDEX_NAME,
                        "weight_map: %s, a *.safetensors of the folder expected", seen);
    }
    return status;
}

/* weight_map to a sorted list. */
static qn_status read_map(qn_inventory *inventory, const qn_json_node *map, size_t text_bytes,
                          qn_problems *problems, qn_error *err)
{
    qn_buf_init(&inventory->index_texts, text_bytes); /* quotes are longer than NULs */
    inventory->index = calloc((size_t)map->n_children + 1, sizeof *inventory->index);
    if (inventory->index == NULL) {
        return no_memory(QN_INDEX_NAME, err);
    }
    qn_status status = qn_buf_reserve(&inventory->index_texts, text_bytes, err); /* for all */
    const qn_json_node *key = map + 1;
    for (uint32_t i = 0; i < map->n_children && status == QN_OK; i++) {
        status = read_entry(inventory, key, problems, err);
        key = qn_json_after(key + 1);
    }
    if (status == QN_OK) {
        qsort(inventory->index, inventory->n_index, sizeof *inventory->index, by_tensor);
    }
    return status;
}

/* The index where there is one; a broken one is a problem and then none. */
static qn_status read_index(qn_inventory *inventory, const char *path, qn_problems *problems,
                            qn_error *err)
{
    qn_buf text;
    qn_json_doc doc = {0};
    qn_buf_init(&text, INDEX_BYTES_MAX);
    qn_status status = qn_file_read(&text, path, err);
    const bool is_there = status != QN_E_NOT_FOUND;
    if (status == QN_OK) {
        status = qn_json_doc_open(&doc, qn_buf_view(&text), QN_INDEX_NAME, err);
    }
    const qn_json_node *const map = qn_json_member(doc.nodes, "weight_map");
    if (status == QN_OK && (map == NULL || map->kind != QN_JSON_OBJECT || map->n_children == 0)) {
        char seen[64];
        qn_json_node_show(seen, sizeof seen, map != NULL ? map : doc.nodes);
        status = qn_fail(err, QN_E_FORMAT, 0, __func__, "%s: %s%s, names of tensors expected%s",
                         QN_INDEX_NAME, map != NULL ? "weight_map: " : "", seen,
                         map != NULL ? "" : " in weight_map");
    }
    if (status == QN_OK && map != NULL) {
        inventory->has_index = true;
        status = read_map(inventory, map, text.len, problems, err);
    } else if (status != QN_E_NOMEM) {
        if (is_there && !qn_problems_add_instead(problems, path)) {
            const char *const name = err != NULL ? strstr(err->text, QN_INDEX_NAME) : NULL;
            qn_problems_add_error(problems, QN_PROBLEM_INDEX_BROKEN, (qn_str){0}, QN_INDEX_NAME,
                                  name != NULL ? name : "it cannot be read, JSON expected");
        }
        status = QN_OK;
    }
    qn_json_doc_close(&doc);
    qn_buf_deinit(&text);
    return status;
}

/* ------------------------------------------------------------------------------------- files -- */

static int by_shard_name(const void *a, const void *b)
{
    return strcmp(((const qn_shard *)a)->name, ((const qn_shard *)b)->name);
}

qn_shard *qn_shard_list_find(const qn_inventory *inventory, qn_str name)
{
    const qn_shard key = {.name = name.ptr};
    return inventory->n_shards == 0
               ? NULL
               : bsearch(&key, inventory->shards, inventory->n_shards, sizeof key, by_shard_name);
}

static qn_status add_shard(qn_inventory *inventory, const char *dir, const char *name,
                           qn_error *err)
{
    const size_t n = inventory->n_shards;
    if (n >= QN_SHARDS_MAX) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__, "%s: more than %d shards, fewer expected",
                       dir, QN_SHARDS_MAX);
    }
    if ((n & (n - 1)) == 0) { /* full at each power of two */
        qn_shard *const shards =
            realloc(inventory->shards, (n == 0 ? 1 : 2 * n) * sizeof *inventory->shards);
        if (shards == NULL) {
            return no_memory(dir, err);
        }
        inventory->shards = shards;
    }
    char *const path = qn_path_join(dir, name);
    if (path == NULL) {
        return no_memory(dir, err);
    }
    inventory->shards[n] = (qn_shard){.path = path, .name = path + strlen(dir) + 1};
    inventory->n_shards++;
    return QN_OK;
}

static int by_file(const void *a, const void *b)
{
    return qn_str_compare(((const qn_index_entry *)a)->file, ((const qn_index_entry *)b)->file);
}

/* Every file that the index names, once. */
static qn_status add_indexed(qn_inventory *inventory, const char *dir, qn_error *err)
{
    qn_status status = QN_OK;
    qn_index_entry *const files = calloc(inventory->n_index + 1, sizeof *files);
    if (files == NULL) {
        return no_memory(dir, err);
    }
    memcpy(files, inventory->index, inventory->n_index * sizeof *files);
    qsort(files, inventory->n_index, sizeof *files, by_file);
    for (size_t i = 0; i < inventory->n_index && status == QN_OK; i++) {
        if (files[i].file.len > 0 && (i == 0 || by_file(&files[i - 1], &files[i]) != 0)) {
            status = add_shard(inventory, dir, files[i].file.ptr, err);
        }
    }
    free(files);
    return status;
}

/* What else lies in the folder: weights without an index, or files that nothing names. */
static qn_status add_found(qn_inventory *inventory, const char *dir, DIR *list,
                           qn_problems *problems, qn_error *err)
{
    const char *name = NULL;
    qn_status status = QN_OK;
    char gguf[256] = "";
    qn_shard *const first = qn_shard_list_find(inventory, qn_str_of(QN_SINGLE_NAME));
    const bool is_settled = inventory->has_index || first != NULL;
    const size_t n_settled = inventory->n_shards;
    while (status == QN_OK && (status = qn_folder_next(&name, list, dir, err)) == QN_OK &&
           name != NULL) {
        if (name[0] != '.' && qn_str_ends(qn_str_of(name), ".gguf")) {
            (void)snprintf(gguf, sizeof gguf, "%s", name);
        } else if (!qn_is_shard_name(name)) {
            continue;
        } else if (!is_settled) {
            status = add_shard(inventory, dir, name, err);
        } else if (qn_shard_list_find(inventory, qn_str_of(name)) == NULL) {
            qn_problems_add(problems, QN_PROBLEM_SHARD_UNUSED, (qn_str){0}, name,
                            "%s, a file of the checkpoint expected",
                            inventory->has_index ? "the index does not name it"
                                                 : "beside model.safetensors it is not read");
        }
    }
    if (status < 0) {
        return status;
    }
    if (inventory->n_shards > n_settled) {
        qsort(inventory->shards, inventory->n_shards, sizeof(qn_shard), by_shard_name);
    }
    if (inventory->n_shards == 0 && gguf[0] != '\0') {
        qn_problems_add(problems, QN_PROBLEM_FORMAT_GGUF, (qn_str){0}, gguf,
                        "weights of llama.cpp (GGUF), safetensors expected");
    }
    return status;
}

qn_status qn_shard_list_open(qn_inventory *inventory, const char *dir, const char *file,
                             qn_problems *problems, qn_error *err)
{
    qn_status status = QN_OK;
    if (file != NULL) {
        return add_shard(inventory, dir, file, err);
    }
    char *const index_path = qn_path_join(dir, QN_INDEX_NAME);
    char *const single_path = qn_path_join(dir, QN_SINGLE_NAME);
    DIR *const list = opendir(dir);
    const int sys = errno;
    if (index_path == NULL || single_path == NULL || (list == NULL && sys == ENOMEM)) {
        status = no_memory(dir, err);
        goto fail;
    }
    if (list == NULL) {
        status = qn_fail(err, sys == ENOENT ? QN_E_NOT_FOUND : QN_E_IO, sys, __func__,
                         "%s: cannot open: %s, a model's folder expected", dir, strerror(sys));
        goto fail;
    }
    QN_TRY(status, read_index(inventory, index_path, problems, err), fail);
    if (inventory->has_index) {
        QN_TRY(status, add_indexed(inventory, dir, err), fail);
    } else if (access(single_path, F_OK) == 0) {
        QN_TRY(status, add_shard(inventory, dir, QN_SINGLE_NAME, err), fail);
    }
    QN_TRY(status, add_found(inventory, dir, list, problems, err), fail);
fail:
    if (list != NULL) {
        (void)closedir(list);
    }
    free(index_path);
    free(single_path);
    return status;
}

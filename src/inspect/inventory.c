/* SPDX-License-Identifier: Apache-2.0 */
#include "inspect/inventory.h"

#include "base/file.h"
#include "base/json_doc.h"
#include "base/try.h"
#include "inspect/shard_list.h"
#include "inspect/sorted.h"

#include <errno.h>
#include <inttypes.h>
#include <unistd.h>

/* --------------------------------------------------------------------------------- one header */

static void take_fault(void *context, qn_header_fault fault, qn_str tensor, const char *message)
{
    static const qn_problem_code codes[] = {
        [QN_HEADER_METADATA] = QN_PROBLEM_HEADER_BROKEN,
        [QN_HEADER_ENTRY] = QN_PROBLEM_HEADER_ENTRY,
        [QN_HEADER_DTYPE] = QN_PROBLEM_TENSOR_DTYPE,
        [QN_HEADER_OFFSETS] = QN_PROBLEM_OFFSETS,
        [QN_HEADER_REPEATED] = QN_PROBLEM_TENSOR_DUPLICATE,
    };
    qn_shard *const shard = context;
    qn_problems_add_error(&shard->faults, codes[fault], tensor, shard->name, message);
    if (fault == QN_HEADER_ENTRY || fault == QN_HEADER_DTYPE) { /* its name at least is known */
        shard->faults.has_lost |= qn_buf_append(&shard->lost, tensor.ptr, tensor.len + 1, NULL) < 0;
    }
}

/* The header of an open file. */
static qn_status read_header(qn_shard *shard, int fd, qn_error *err)
{
    uint8_t length[QN_SAFETENSORS_LENGTH_BYTES] = {0};
    uint64_t n_bytes = 0;
    char *text = NULL;
    qn_status status = QN_OK;
    const size_t n_first = shard->file_bytes < sizeof length ? shard->file_bytes : sizeof length;
    QN_TRY(status, qn_read_at(fd, length, n_first, 0, shard->name, err), fail);
    QN_TRY(status,
           qn_safetensors_header_length(&n_bytes, length, shard->file_bytes, shard->name, err),
           fail);
    text = malloc(n_bytes + 1);
    if (text == NULL) {
        status =
            qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "%s: no memory to read it", shard->name);
        goto fail;
    }
    QN_TRY(status, qn_read_at(fd, text, n_bytes, sizeof length, shard->name, err), fail);
    QN_TRY(status,
           qn_safetensors_header_open(&shard->header, (qn_str){text, n_bytes}, INT64_MAX,
                                      shard->name, take_fault, shard, err),
           fail);
    shard->header_bytes = sizeof length + n_bytes;
    shard->is_read = true;
fail:
    free(text);
    return status;
}

static void read_shard(qn_shard *shard)
{
    int fd = -1;
    qn_error err = {0};
    qn_buf_init(&shard->lost, QN_SAFETENSORS_HEADER_MAX);
    qn_status status = qn_file_open(&fd, &shard->file_bytes, shard->path, &err);
    shard->is_missing = status == QN_E_NOT_FOUND;
    qn_problem_code code = QN_PROBLEM_SHARD_UNREADABLE;
    if (status == QN_OK && shard->file_bytes == 0) {
        status = qn_fail(&err, QN_E_FORMAT, 0, __func__, "%s: an empty file, a header expected",
                         shard->name);
    } else if (status == QN_OK) {
        status = read_header(shard, fd, &err);
        code = QN_PROBLEM_HEADER_BROKEN;
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    if (status == QN_E_NOMEM) {
        shard->faults.has_lost = true;
    } else if (status < 0 && !shard->is_missing &&
               !qn_problems_add_instead(&shard->faults, shard->path)) {
        const bool is_cut = code == QN_PROBLEM_HEADER_BROKEN && status == QN_E_IO;
        const char *const name = strstr(err.text, shard->name); /* behind the folder's */
        qn_problems_add_error(&shard->faults, is_cut ? QN_PROBLEM_SHARD_UNREADABLE : code,
                              (qn_str){0}, shard->name, name != NULL ? name : err.text);
    }
}

static void read_shards(void *context, size_t first, size_t end, uint32_t i_thread)
{
    (void)i_thread;
    qn_inventory *const inventory = context;
    for (size_t i = first; i < end; i++) {
        read_shard(&inventory->shards[i]);
    }
}

/* ------------------------------------------------------------------------------ all of them -- */

static bool ends_behind_header(const qn_shard *shard)
{
    return shard->header.data_bytes > 0 && shard->file_bytes == shard->header_bytes;
}

/* Shards that all end behind their header were fetched so; one among others was cut. */
static qn_contents find_contents(const qn_inventory *inventory)
{
    size_t n_there = 0;
    size_t n_headers = 0;
    for (size_t i = 0; i < inventory->n_shards; i++) {
        n_there += inventory->shards[i].is_missing ? 0 : 1;
        n_headers += inventory->shards[i].is_read && ends_behind_header(&inventory->shards[i]);
    }
    if (n_there == 0) {
        return inventory->n_index > 0 ? QN_CONTENTS_INDEX : QN_CONTENTS_NONE;
    }
    return n_headers == n_there ? QN_CONTENTS_HEADERS : QN_CONTENTS_WEIGHTS;
}

/* Does the file hold what its header says, no less and no more? */
static void check_length(const qn_inventory *inventory, qn_shard *shard)
{
    const uint64_t data_bytes = shard->file_bytes - shard->header_bytes;
    if (!shard->is_read || !shard->header.is_sound || data_bytes == shard->header.data_bytes ||
        inventory->contents == QN_CONTENTS_HEADERS) {
        return;
    }
    qn_problems_add(&shard->faults,
                    data_bytes < shard->header.data_bytes ? QN_PROBLEM_SHARD_TRUNCATED
                                                          : QN_PROBLEM_SHARD_TRAILING,
                    (qn_str){0}, shard->name,
                    "%" PRIu64 " bytes of data, %" PRIu64 " expected by the header", data_bytes,
                    shard->header.data_bytes);
}

/* What each shard has told, in order of name, and sums. */
static void collect_shards(qn_inventory *inventory, qn_problems *problems)
{
    inventory->contents = find_contents(inventory);
    inventory->is_complete = !inventory->is_file;
    for (size_t i = 0; i < inventory->n_shards; i++) {
        qn_shard *const shard = &inventory->shards[i];
        check_length(inventory, shard);
        if (shard->is_missing && inventory->contents != QN_CONTENTS_INDEX) {
            qn_problems_add(&shard->faults, QN_PROBLEM_SHARD_MISSING, (qn_str){0}, shard->name,
                            "no such file, a shard that the index names expected");
        }
        qn_problems_move(problems, &shard->faults);
        inventory->file_bytes += shard->file_bytes;
        inventory->header_bytes += shard->header_bytes;
        inventory->data_bytes += shard->header.data_bytes;
        inventory->n_entries += shard->header.n_tensors;
        if (!shard->is_read && !inventory->has_index) {
            inventory->is_complete = false;
        }
    }
}

/* ---------------------------------------------------------------------------------- tensors -- */

/* Of one name and shard the entry that is more than a name first. */
static int by_name_and_shard(const void *a, const void *b)
{
    const qn_entry *const x = a;
    const qn_entry *const y = b;
    const int order = qn_str_compare(x->tensor->name, y->tensor->name);
    if (order != 0 || x->i_shard == y->i_shard) {
        return order != 0 ? order : (int)y->is_known - (int)x->is_known;
    }
    return x->i_shard < y->i_shard ? -1 : 1;
}

static int by_name(const void *a, const void *b)
{
    return qn_str_compare(((const qn_entry *)a)->tensor->name, ((const qn_entry *)b)->tensor->name);
}

const qn_entry *qn_inventory_find(const qn_inventory *inventory, qn_str name)
{
    const qn_tensor tensor = {.name = name};
    const qn_entry key = {.tensor = &tensor};
    return inventory->n_entries == 0
               ? NULL
               : bsearch(&key, inventory->entries, inventory->n_entries, sizeof key, by_name);
}

const qn_entry *qn_inventory_find_part(const qn_inventory *inventory, qn_str module,
                                       const char *part)
{
    char name[512];
    const int len = snprintf(name, sizeof name, "%.*s.%s", (int)module.len, module.ptr, part);
    return module.len < sizeof name && (size_t)len < sizeof name
               ? qn_inventory_find(inventory, (qn_str){name, (size_t)len})
               : NULL;
}

bool qn_inventory_lists(const qn_inventory *inventory, qn_str name)
{
    return qn_sorted_find(inventory->index, inventory->n_index, sizeof *inventory->index, name) !=
           NULL;
}

const char *qn_inventory_file_of(const qn_inventory *inventory, const qn_entry *entry)
{
    return entry->i_shard < inventory->n_shards ? inventory->shards[entry->i_shard].name : NULL;
}

/* Of each name the entry of the first shard; more than one is a problem unless the second is only
 * known by name. */
static void drop_repeated(qn_inventory *inventory, qn_problems *problems)
{
    size_t n = 0;
    for (size_t i = 0; i < inventory->n_entries; i++) {
        const qn_entry *const entry = &inventory->entries[i];
        if (n == 0 || by_name(&inventory->entries[n - 1], entry) != 0) {
            inventory->entries[n++] = *entry;
        } else if (entry->is_known) {
            inventory->entries[n - 1].is_repeated = true;
            qn_problems_add(problems, QN_PROBLEM_TENSOR_DUPLICATE, entry->tensor->name,
                            qn_inventory_file_of(inventory, entry),
                            "here and in %s, in one shard expected",
                            qn_inventory_file_of(inventory, &inventory->entries[n - 1]));
        }
    }
    inventory->n_entries = n;
}

static size_t count_lost(const qn_shard *shard)
{
    size_t n = 0;
    for (size_t i = 0; i < shard->lost.len; i++) {
        n += shard->lost.ptr[i] == '\0';
    }
    return n;
}

/* One entry for each tensor of a header and for each name that stands for nothing more. */
static qn_status list_entries(qn_inventory *inventory, qn_error *err)
{
    size_t n_names = inventory->n_index;
    for (size_t i = 0; i < inventory->n_shards; i++) {
        n_names += count_lost(&inventory->shards[i]);
    }
    qn_entry *const entries =
        calloc(inventory->n_entries + n_names + 1, sizeof *inventory->entries);
    qn_tensor *const names = calloc(n_names + 1, sizeof *names);
    inventory->entries = entries;
    inventory->names = names;
    if (entries == NULL || names == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "tensors: no memory to list them");
    }
    size_t n = 0;
    n_names = 0;
    for (uint32_t i_shard = 0; i_shard < inventory->n_shards; i_shard++) {
        const qn_shard *const shard = &inventory->shards[i_shard];
        for (size_t i = 0; i < shard->header.n_tensors; i++) {
            entries[n++] = (qn_entry){&shard->header.tensors[i], i_shard, true, false};
        }
        for (size_t at = 0; at < shard->lost.len; at += names[n_names++].name.len + 1) {
            names[n_names].name = qn_str_of(shard->lost.ptr + at);
            entries[n++] = (qn_entry){&names[n_names], i_shard, false, false};
        }
    }
    for (size_t i = 0; i < inventory->n_index; i++) {
        const qn_shard *const shard = qn_shard_list_find(inventory, inventory->index[i].file);
        if (shard == NULL || !shard->is_read) {
            names[n_names].name = inventory->index[i].tensor;
            entries[n++] = (qn_entry){&names[n_names++], QN_NO_SHARD, false, false};
        }
    }
    inventory->n_entries = n;
    return QN_OK;
}

/* The index and the shards must name the same tensors in the same places. */
static void check_index(const qn_inventory *inventory, qn_problems *problems)
{
    size_t i_index = 0; /* both lists are in order of name */
    for (size_t i = 0; i < inventory->n_entries || i_index < inventory->n_index;) {
        const qn_entry *const entry = i < inventory->n_entries ? &inventory->entries[i] : NULL;
        const qn_index_entry *const listed =
            i_index < inventory->n_index ? &inventory->index[i_index] : NULL;
        const int order = entry == NULL    ? 1
                          : listed == NULL ? -1
                                           : qn_str_compare(entry->tensor->name, listed->tensor);
        const qn_shard *const shard =
            listed != NULL ? qn_shard_list_find(inventory, listed->file) : NULL;
        i += order <= 0 ? 1 : 0;
        i_index += order >= 0 ? 1 : 0;
        if (order < 0 && entry != NULL) {
            qn_problems_add(problems, QN_PROBLEM_INDEX_LACKS_TENSOR, entry->tensor->name,
                            qn_inventory_file_of(inventory, entry),
                            "not in weight_map, as it is in this shard it was expected");
        } else if (order > 0 && listed != NULL) {
            qn_problems_add(problems, QN_PROBLEM_INDEX_TENSOR_MISSING, listed->tensor,
                            listed->file.ptr, "in no shard, in this one expected by weight_map");
        } else if (entry != NULL && shard != NULL && shard->is_read && !entry->is_repeated &&
                   shard != &inventory->shards[entry->i_shard]) {
            qn_problems_add(problems, QN_PROBLEM_INDEX_WRONG_SHARD, listed->tensor,
                            qn_inventory_file_of(inventory, entry),
                            "in this shard, in %s expected by weight_map", listed->file.ptr);
        }
    }
}

qn_status qn_inventory_open(qn_inventory *out, const char *dir, const char *file, qn_pool *pool,
                            qn_problems *problems, qn_error *err)
{
    qn_status status = QN_OK;
    *out = (qn_inventory){.is_file = file != NULL};
    QN_TRY(status, qn_shard_list_open(out, dir, file, problems, err), fail);
    qn_pool_run(pool, out->n_shards, read_shards, out);
    if (out->is_file && out->shards[0].is_missing) {
        status = qn_fail(err, QN_E_NOT_FOUND, ENOENT, __func__,
                         "%s: no such file, a *.safetensors file expected", out->shards[0].path);
        goto fail;
    }
    collect_shards(out, problems);
    QN_TRY(status, list_entries(out, err), fail);
    qsort(out->entries, out->n_entries, sizeof *out->entries, by_name_and_shard);
    drop_repeated(out, problems);
    if (out->has_index) {
        check_index(out, problems);
    }
fail:
    if (status < 0) {
        qn_inventory_close(out);
    }
    return status;
}

void qn_inventory_close(qn_inventory *inventory)
{
    for (size_t i = 0; i < inventory->n_shards; i++) {
        qn_shard *const shard = &inventory->shards[i];
        qn_safetensors_header_close(&shard->header);
        qn_problems_deinit(&shard->faults);
        qn_buf_deinit(&shard->lost);
        free(shard->path);
    }
    qn_buf_deinit(&inventory->index_texts);
    free(inventory->shards);
    free(inventory->entries);
    free(inventory->index);
    free(inventory->names);
    *inventory = (qn_inventory){0};
}

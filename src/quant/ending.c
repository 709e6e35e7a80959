/* SPDX-License-Identifier: Apache-2.0 */
#include "quant/ending.h"

#include "base/file.h"
#include "base/try.h"
#include "quant/shard.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum { PIECE_BYTES = 4 << 20 };

static const qn_plan_shard *shard_of(const qn_mill_options *mill, size_t i_shard)
{
    return &mill->plan->shards[i_shard];
}

/* ---------------------------------------------------------------------------------- hashing -- */

/* Reads a file once for its hash. */
typedef struct hasher {
    XXH3_state_t *state;     /* owned; aligned as it has to be */
    char *piece;             /* [PIECE_BYTES] owned */
    char *path;              /* owned; for messages */
    qn_ending_read_fn *told; /* may be NULL */
    void *context;           /* given to it */
} hasher;

static void hasher_deinit(hasher *h)
{
    (void)XXH3_freeState(h->state);
    free(h->piece);
    free(h->path);
    *h = (hasher){0};
}

static qn_status hasher_init(hasher *h, const qn_mill_options *mill, size_t i_shard, qn_error *err)
{
    *h = (hasher){
        .state = XXH3_createState(),
        .piece = malloc(PIECE_BYTES),
        .path = qn_path_join(mill->target->path, shard_of(mill, i_shard)->file),
    };
    if (h->state == NULL || h->piece == NULL || h->path == NULL) {
        hasher_deinit(h);
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "quantize: no memory to hash a shard");
    }
    (void)XXH3_128bits_reset(h->state);
    return QN_OK;
}

/* Take the next bytes of the file; *hash is that of these alone. */
static qn_status hasher_read(hasher *h, int fd, const qn_written *part, uint64_t *hash,
                             qn_error *err)
{
    XXH3_state_t *const alone = XXH3_createState();
    qn_status status = QN_OK;
    if (alone == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "quantize: no memory to hash a shard");
    }
    (void)XXH3_64bits_reset(alone);
    for (uint64_t at = 0; at < part->n_bytes;) {
        const uint64_t left = part->n_bytes - at;
        const size_t n = left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;
        QN_TRY(status, qn_read_at(fd, h->piece, n, part->offset + at, h->path, err), fail);
        (void)XXH3_64bits_update(alone, h->piece, n);
        (void)XXH3_128bits_update(h->state, h->piece, n);
        at += n;
        if (h->told != NULL && !h->told(h->context, n)) {
            status = QN_E_CANCELLED;
            goto fail;
        }
    }
    *hash = XXH3_64bits_digest(alone);
fail:
    (void)XXH3_freeState(alone);
    return status;
}

/* As xxhsum prints it. */
static void hasher_print(const hasher *h, char out[QN_SHARD_HASH_BYTES])
{
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(h->state));
    for (size_t i = 0; i < sizeof canonical.digest; i++) {
        (void)snprintf(out + 2 * i, 3, "%02x", canonical.digest[i]);
    }
}

/* ----------------------------------------------------------------------------------- finish -- */

static int by_offset(const void *a, const void *b)
{
    const qn_written *const x = a;
    const qn_written *const y = b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

/* Read what was written, in the order of the file; each part has to be what its thread wrote. */
static qn_status verify(const qn_ending *ending, char hash[QN_SHARD_HASH_BYTES], qn_error *err)
{
    hasher h;
    uint64_t at = 0;
    qn_status status = QN_OK;
    QN_TRY(status, hasher_init(&h, ending->mill, ending->i_shard, err), fail);
    qsort(ending->written, ending->n_written, sizeof *ending->written, by_offset);
    for (size_t i = 0; i < ending->n_written; i++) {
        const qn_written *const part = &ending->written[i];
        uint64_t seen = 0;
        if (part->n_bytes == 0) {
            continue;
        }
        QN_TRY(status, hasher_read(&h, ending->fd, part, &seen, err), fail);
        if (seen != part->hash || part->offset != at) {
            status = qn_fail(err, QN_E_IO, EIO, __func__,
                             "%.300s: bytes %" PRIu64 " to %" PRIu64 ": hash %016" PRIx64
                             ", %016" PRIx64 " expected: the disk has lost what was written",
                             h.path, part->offset, part->offset + part->n_bytes, seen, part->hash);
            goto fail;
        }
        at += part->n_bytes;
    }
    hasher_print(&h, hash);
fail:
    hasher_deinit(&h);
    return status;
}

static qn_status write_manifest(const qn_mill_options *mill, qn_error *err)
{
    qn_buf text;
    qn_buf_init(&text, QN_MANIFEST_BYTES_MAX);
    qn_status status = qn_manifest_append(&text, mill->manifest, err);
    if (status == QN_OK) {
        status = qn_target_replace(mill->target, QN_MANIFEST_NAME, qn_buf_view(&text), err);
    }
    qn_buf_deinit(&text);
    return status;
}

static qn_status finish_file(qn_ending *ending, char hash[QN_SHARD_HASH_BYTES], qn_error *err)
{
    const qn_mill_options *const mill = ending->mill;
    const char *const file = shard_of(mill, ending->i_shard)->file;
    qn_status status = QN_OK;
    QN_TRY(status, qn_target_sync(mill->target, ending->fd, file, err), fail);
    if (mill->deletes_source) { /* then what is read again comes from the disk */
        (void)posix_fadvise(ending->fd, 0, 0, POSIX_FADV_DONTNEED);
    }
    QN_TRY(status, verify(ending, hash, err), fail);
    QN_TRY(status, qn_target_commit(mill->target, file, err), fail);
fail:
    if (status < 0) {
        qn_target_drop(mill->target, file);
    }
    return status;
}

qn_status qn_ending_run(qn_ending *ending, qn_error *err)
{
    const qn_mill_options *const mill = ending->mill;
    const qn_plan_shard *const shard = shard_of(mill, ending->i_shard);
    char hash[QN_SHARD_HASH_BYTES] = "";
    json_t *const kinds = ending->kinds;
    qn_status status = QN_OK;
    QN_TRY(status, finish_file(ending, hash, err), fail);
    ending->kinds = NULL;
    status =
        qn_manifest_set_done(mill->manifest, ending->i_shard, shard->out_bytes, hash, kinds, err);
    status = status == QN_OK ? write_manifest(mill, err) : status; /* syncs the shard's name too */
    if (status < 0) {
        qn_target_remove(mill->target, shard->file);
        qn_manifest_clear_done(mill->manifest, ending->i_shard);
        goto fail;
    }
    qn_ending_wait(ending->n_waiting, mill->plan, ending->i_shard, -1);
    for (size_t i = 0; mill->deletes_source && i < mill->plan->n_shards; i++) {
        QN_TRY(status, qn_ending_delete(mill, ending->n_waiting, i, err), fail);
    }
fail:
    json_decref(ending->kinds);
    free(ending->written);
    (void)close(ending->fd);
    *ending = (qn_ending){.fd = -1};
    return status;
}

/* ------------------------------------------------------------------------------ done before -- */

qn_status qn_ending_check(bool *is_same, const qn_mill_options *mill, size_t i_shard,
                          qn_ending_read_fn *told, void *context, qn_error *err)
{
    const qn_manifest_shard known = qn_manifest_get(mill->manifest, i_shard);
    char seen[QN_SHARD_HASH_BYTES] = "";
    hasher h;
    uint64_t size_bytes = 0;
    uint64_t ignored = 0;
    int fd = -1;
    *is_same = false;
    qn_status status = hasher_init(&h, mill, i_shard, err);
    if (status < 0) {
        return status;
    }
    h.told = told;
    h.context = context;
    status = qn_file_open(&fd, &size_bytes, h.path, err);
    if (status == QN_E_NOT_FOUND) {
        status = QN_OK;
    } else if (status == QN_OK && size_bytes == known.bytes) {
        const qn_written whole = {.n_bytes = size_bytes};
        status = hasher_read(&h, fd, &whole, &ignored, err);
        hasher_print(&h, seen);
        *is_same = status == QN_OK && strcmp(seen, known.xxh128) == 0;
    }
    if (status == QN_OK && !*is_same && shard_of(mill, i_shard)->is_final) {
        status = qn_fail(
            err, QN_E_FORMAT, 0, __func__,
            "%.300s: %" PRIu64 " bytes with hash %s, %" PRIu64
            " bytes with hash %s expected: damaged, and what it was made of was deleted",
            h.path, size_bytes, seen[0] != '\0' ? seen : "unknown", known.bytes, known.xxh128);
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    hasher_deinit(&h);
    return status;
}

/* ---------------------------------------------------------------------------------- sources -- */

void qn_ending_wait(uint32_t *n_waiting, const qn_plan *plan, size_t i_shard, int by)
{
    const qn_plan_shard *const shard = &plan->shards[i_shard];
    n_waiting[i_shard] += (uint32_t)by;
    for (size_t i = 0; i < shard->n_tensors; i++) {
        const qn_plan_tensor *const scale = shard->tensors[i].scale;
        if (scale != NULL && scale->i_shard != i_shard) {
            n_waiting[scale->i_shard] += (uint32_t)by; /* once for each tensor */
        }
    }
}

qn_status qn_ending_delete(const qn_mill_options *mill, const uint32_t *n_waiting, size_t i_shard,
                           qn_error *err)
{
    const qn_plan_shard *const shard = shard_of(mill, i_shard);
    char *const path = qn_path_join(mill->plan->source, shard->file);
    struct stat info;
    qn_status status = QN_OK;
    if (path == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "quantize: no memory to delete a shard");
    }
    if (n_waiting[i_shard] == 0 && qn_manifest_get(mill->manifest, i_shard).is_done &&
        lstat(path, &info) == 0) {
        status = qn_shard_check(mill->plan, i_shard, err);
        if (status == QN_OK && unlink(path) != 0) {
            status = qn_fail(err, QN_E_IO, errno, __func__,
                             "%.300s: cannot delete: %s, a file that may be deleted expected", path,
                             strerror(errno));
        }
    }
    free(path);
    return status;
}

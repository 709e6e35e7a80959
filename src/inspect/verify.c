/* SPDX-License-Identifier: Apache-2.0 */
/* Every byte of every tensor, read on all threads in rounds of pieces, each small enough to stay in
 * a cache between the read and the look at it. */
#include "base/file.h"
#include "base/try.h"
#include "inspect/doctor.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    PIECE_BYTES = 1 << 20,
    PIECES_A_THREAD = 16, /* of one round: between two rounds threads meet, and progress is told */
};

/* What the bytes of a tensor are. */
typedef enum meaning {
    AS_ANY, /* codes and integers: every value is a number */
    AS_BF16,
    AS_F16,
    AS_F32,
    AS_F64,
    AS_E4M3,
    AS_E5M2,
    AS_E8M0,      /* scales of MXFP4 */
    AS_F32_SCALE, /* scales of FP8 */
} meaning;

/* Scale bytes above this make 6 * 2^(byte - 127) more than a bf16 holds. */
enum { E8M0_MAX = 252 };
/* So do scales above this of 448, the largest e4m3. */
static const float fp8_scale_max = 0x1.FEp127F / 448.0F;
/* Bits of the least f32 that no finite bf16 is next to. */
static const uint32_t f32_to_inf = 0x7f7f8000;

/* A part of a tensor, and what was wrong in it. */
typedef struct piece {
    const qn_entry *entry;
    uint64_t offset; /* in the tensor */
    size_t n_bytes;
    meaning as;
    uint64_t n_wrong[2]; /* elements that are no numbers, and that are out of range ... */
    uint64_t first[2];   /* ... and the index of the first */
    bool is_zero;        /* all its bytes are */
    int sys;             /* errno of a read that failed; -1: the file ended */
} piece;

typedef struct verify {
    const qn_doctor *doctor;
    int *fds; /* [n_shards] owned; -1: closed */
    piece *pieces;
    uint8_t *rooms; /* [n_threads][PIECE_BYTES] */
} verify;

/* ------------------------------------------------------------------------------ the elements -- */

static meaning meaning_of(const qn_tensor *tensor)
{
    qn_tensor_name name;
    qn_tensor_name_parse(&name, tensor->name);
    const bool is_scale = qn_str_contains(name.part, "scale");
    switch (tensor->dtype) {
    case QN_DTYPE_BF16: return AS_BF16;
    case QN_DTYPE_F16: return AS_F16;
    case QN_DTYPE_F32: return is_scale ? AS_F32_SCALE : AS_F32;
    case QN_DTYPE_F64: return AS_F64;
    case QN_DTYPE_F8_E4M3: return AS_E4M3;
    case QN_DTYPE_F8_E5M2: return AS_E5M2;
    case QN_DTYPE_F8_E8M0: return AS_E8M0;
    case QN_DTYPE_U8: return is_scale ? AS_E8M0 : AS_ANY;
    default: return AS_ANY;
    }
}

static uint32_t element_bytes(meaning as)
{
    switch (as) {
    case AS_BF16:
    case AS_F16: return 2;
    case AS_F32:
    case AS_F32_SCALE: return 4;
    case AS_F64: return 8;
    default: return 1;
    }
}

/* Is the element of these bits no number (0), out of range (1), or right (-1)? */
static int judge(meaning as, uint64_t bits)
{
    switch (as) {
    case AS_ANY: break;
    case AS_BF16: return (bits & 0x7f80) == 0x7f80 ? 0 : -1;
    case AS_F16: return (bits & 0x7c00) == 0x7c00 ? 0 : -1;
    case AS_F32: return (bits & 0x7fffffff) >= f32_to_inf ? 0 : -1;
    case AS_F64: return (bits & 0x7ff0000000000000) == 0x7ff0000000000000 ? 0 : -1;
    case AS_E4M3: return (bits & 0x7f) == 0x7f ? 0 : -1;
    case AS_E5M2: return (bits & 0x7c) == 0x7c ? 0 : -1;
    case AS_E8M0: return bits == 255 ? 0 : bits > E8M0_MAX ? 1 : -1;
    case AS_F32_SCALE: {
        float scale;
        const uint32_t low = (uint32_t)bits;
        memcpy(&scale, &low, sizeof scale);
        return !isfinite(scale) ? 0 : signbit(scale) || scale > fp8_scale_max ? 1 : -1;
    }
    }
    return -1;
}

/* Element by element, once it is known that something is wrong. */
static void find_wrong(piece *p, const uint8_t *bytes)
{
    const uint32_t size = element_bytes(p->as);
    for (size_t at = 0; at + size <= p->n_bytes; at += size) {
        uint64_t bits = 0;
        for (uint32_t i = 0; i < size; i++) {
            bits |= (uint64_t)bytes[at + i] << 8 * i;
        }
        const int kind = judge(p->as, bits);
        if (kind >= 0 && p->n_wrong[kind]++ == 0) {
            p->first[kind] = (p->offset + at) / size;
        }
    }
}

/* Is there an element whose bits under @p mask are all set?  Loops that a compiler turns into
 * vector instructions: no early exit, one accumulator. */
static bool has_16(const uint8_t *bytes, size_t n_bytes, uint16_t mask)
{
    uint16_t found = 0;
    for (size_t i = 0; i < n_bytes / 2; i++) {
        uint16_t bits;
        memcpy(&bits, bytes + 2 * i, sizeof bits);
        found |= (uint16_t)((bits & mask) == mask);
    }
    return found != 0;
}

static bool has_32(const uint8_t *bytes, size_t n_bytes, uint32_t mask)
{
    uint32_t found = 0;
    for (size_t i = 0; i < n_bytes / 4; i++) {
        uint32_t bits;
        memcpy(&bits, bytes + 4 * i, sizeof bits);
        found |= (uint32_t)((bits & mask) == mask);
    }
    return found != 0;
}

static bool has_8(const uint8_t *bytes, size_t n_bytes, uint8_t mask)
{
    uint8_t found = 0;
    for (size_t i = 0; i < n_bytes; i++) {
        found |= (uint8_t)((bytes[i] & mask) == mask);
    }
    return found != 0;
}

static bool has_above(const uint8_t *bytes, size_t n_bytes, uint8_t most)
{
    uint8_t found = 0;
    for (size_t i = 0; i < n_bytes; i++) {
        found |= (uint8_t)(bytes[i] > most);
    }
    return found != 0;
}

/* May something be wrong?  True where it is. */
static bool is_suspect(meaning as, const uint8_t *bytes, size_t n_bytes)
{
    switch (as) {
    case AS_ANY: return false;
    case AS_BF16: return has_16(bytes, n_bytes, 0x7f80);
    case AS_F16: return has_16(bytes, n_bytes, 0x7c00);
    case AS_F32: return has_32(bytes, n_bytes, 0x7f000000); /* of f32_to_inf, all that is above */
    case AS_E4M3: return has_8(bytes, n_bytes, 0x7f);
    case AS_E5M2: return has_8(bytes, n_bytes, 0x7c);
    case AS_E8M0: return has_above(bytes, n_bytes, E8M0_MAX);
    case AS_F64:
    case AS_F32_SCALE: break;
    }
    return true; /* few of these */
}

/* ------------------------------------------------------------------------------- the reading -- */

static void verify_piece(const verify *v, piece *p, uint8_t *room)
{
    const qn_shard *const shard = &v->doctor->inventory.shards[p->entry->i_shard];
    const uint64_t from = shard->header_bytes + p->entry->tensor->offset + p->offset;
    qn_error err = {0};
    if (qn_read_at(v->fds[p->entry->i_shard], room, p->n_bytes, from, shard->name, &err) < 0) {
        p->sys = err.sys > 0 ? err.sys : -1;
        return;
    }
    p->is_zero = room[0] == 0 && memcmp(room, room + 1, p->n_bytes - 1) == 0;
    if (is_suspect(p->as, room, p->n_bytes)) {
        find_wrong(p, room);
    }
}

static void verify_pieces(void *context, size_t first, size_t end, uint32_t i_thread)
{
    const verify *const v = context;
    for (size_t i = first; i < end; i++) {
        verify_piece(v, &v->pieces[i], v->rooms + (size_t)i_thread * PIECE_BYTES);
    }
}

/* Are all of the tensor's bytes in its file? */
static bool is_whole(const qn_inventory *inventory, const qn_entry *entry)
{
    if (!entry->is_known) {
        return false;
    }
    const qn_shard *const shard = &inventory->shards[entry->i_shard];
    const uint64_t data_bytes = shard->file_bytes - shard->header_bytes;
    return entry->tensor->offset <= data_bytes &&
           entry->tensor->size_bytes <= data_bytes - entry->tensor->offset;
}

/* Tensors in the order in which they lie on the disk. */
static int by_place(const void *a, const void *b)
{
    const qn_entry *const x = a;
    const qn_entry *const y = b;
    if (x->i_shard != y->i_shard) {
        return x->i_shard < y->i_shard ? -1 : 1;
    }
    return (x->tensor->offset > y->tensor->offset) - (x->tensor->offset < y->tensor->offset);
}

/* May a tensor be all zero?  Biases are at times; no matrix and no scale is. */
static bool may_be_zero(const qn_tensor *tensor)
{
    qn_tensor_name name;
    qn_tensor_name_parse(&name, tensor->name);
    return !qn_str_contains(name.part, "scale") &&
           (tensor->rank < 2 || !qn_str_equal(name.part, qn_str_of("weight")));
}

/* What the pieces of one tensor have told, summed up in @p sum, becomes problems. */
static void report(qn_doctor *d, const piece *sum)
{
    const qn_entry *const entry = sum->entry;
    if (entry == NULL) {
        return; /* before the first */
    }
    const char *const file = qn_inventory_file_of(&d->inventory, entry);
    if (sum->n_wrong[0] > 0) {
        const bool is_byte = sum->as == AS_E8M0;
        qn_problems_add(&d->problems, is_byte ? QN_PROBLEM_SCALE_NAN : QN_PROBLEM_WEIGHT_NOT_FINITE,
                        entry->tensor->name, file,
                        "%" PRIu64 " of %s, the first at index %" PRIu64 "; %s expected",
                        sum->n_wrong[0],
                        is_byte             ? "scale byte 255 (NaN)"
                        : sum->as == AS_F32 ? "NaN or Inf, as f32 or rounded to bf16"
                                            : "NaN or Inf",
                        sum->first[0], is_byte ? "at most 252" : "numbers");
    }
    if (sum->n_wrong[1] > 0) {
        const bool is_byte = sum->as == AS_E8M0;
        qn_problems_add(&d->problems, QN_PROBLEM_SCALE_RANGE, entry->tensor->name, file,
                        "%" PRIu64 " scale%s out of range, the first at index %" PRIu64
                        "; %s expected",
                        sum->n_wrong[1], sum->n_wrong[1] == 1 ? "" : "s", sum->first[1],
                        is_byte ? "bytes up to 252 (above, values overflow bf16)"
                                : "0 to 7.5e35 (above, values overflow bf16)");
    }
    if (sum->is_zero && !may_be_zero(entry->tensor)) {
        qn_problems_add(&d->problems, QN_PROBLEM_WEIGHTS_ZERO, entry->tensor->name, file,
                        "%" PRIu64 " bytes, all of them 0, others expected: a file that was "
                        "allocated and not filled?",
                        entry->tensor->size_bytes);
    }
}

/* Adds a piece to the sum of its tensor, after the one before it is reported. */
static qn_status take_piece(qn_doctor *d, piece *sum, const piece *p, qn_error *err)
{
    if (p->sys != 0) {
        return qn_fail(err, QN_E_IO, p->sys > 0 ? p->sys : 0, __func__,
                       "%s: cannot read: %s, all of tensor %.200s expected",
                       qn_inventory_file_of(&d->inventory, p->entry),
                       p->sys > 0 ? strerror(p->sys) : "it has become shorter",
                       p->entry->tensor->name.ptr);
    }
    if (sum->entry != p->entry) {
        report(d, sum);
        *sum = (piece){.entry = p->entry, .as = p->as, .is_zero = true};
    }
    sum->is_zero &= p->is_zero;
    for (int i = 0; i < 2; i++) {
        sum->first[i] = sum->n_wrong[i] == 0 ? p->first[i] : sum->first[i];
        sum->n_wrong[i] += p->n_wrong[i];
    }
    d->verified_bytes += p->n_bytes;
    return QN_OK;
}

/* Where the next piece begins. */
typedef struct cursor {
    const qn_entry *next, *end;
    uint64_t offset; /* in the tensor */
} cursor;

/* The next pieces, at most @p n_max. */
static size_t cut_pieces(cursor *at, const qn_inventory *inventory, piece *pieces, size_t n_max)
{
    size_t n = 0;
    while (n < n_max && at->next < at->end) {
        const qn_tensor *const tensor = at->next->tensor;
        if (!is_whole(inventory, at->next) || at->offset == tensor->size_bytes) {
            at->next++;
            at->offset = 0;
            continue;
        }
        const uint64_t rest = tensor->size_bytes - at->offset;
        pieces[n++] = (piece){.entry = at->next,
                              .offset = at->offset,
                              .n_bytes = rest < PIECE_BYTES ? (size_t)rest : PIECE_BYTES,
                              .as = meaning_of(tensor)};
        at->offset += pieces[n - 1].n_bytes;
    }
    return n;
}

static void close_file(const verify *v, size_t i_shard)
{
    if (v->fds[i_shard] >= 0) {
        (void)close(v->fds[i_shard]);
        v->fds[i_shard] = -1;
    }
}

/* Files of the pieces of a round are open, no others. */
static qn_status open_files(const verify *v, size_t n_pieces, qn_error *err)
{
    const uint32_t i_first = v->pieces[0].entry->i_shard;
    const uint32_t i_last = v->pieces[n_pieces - 1].entry->i_shard;
    qn_status status = QN_OK;
    for (uint32_t i = 0; i < i_first; i++) {
        close_file(v, i);
    }
    for (uint32_t i = i_first; i <= i_last && status == QN_OK; i++) {
        const qn_shard *const shard = &v->doctor->inventory.shards[i];
        uint64_t n_bytes = 0;
        if (v->fds[i] < 0 && shard->is_read) {
            status = qn_file_open(&v->fds[i], &n_bytes, shard->path, err);
        }
    }
    return status;
}

/* What a round has told, and how far that is. */
static qn_status take_round(qn_doctor *d, piece *sum, const piece *pieces, size_t n_pieces,
                            qn_error *err)
{
    const qn_inspect_request *const request = d->request;
    qn_status status = QN_OK;
    for (size_t i = 0; i < n_pieces && status == QN_OK; i++) {
        status = take_piece(d, sum, &pieces[i], err);
    }
    if (status == QN_OK && request->progress != NULL &&
        !request->progress(request->progress_context, d->verified_bytes, d->inventory.data_bytes)) {
        status = qn_fail(err, QN_E_CANCELLED, 0, __func__,
                         "inspect: cancelled after %" PRIu64 " bytes, all %" PRIu64 " expected",
                         d->verified_bytes, d->inventory.data_bytes);
    }
    return status;
}

static qn_status run_rounds(verify *v, qn_doctor *d, cursor *at, qn_pool *pool, qn_error *err)
{
    const size_t n_max = (size_t)qn_pool_threads(pool) * PIECES_A_THREAD;
    piece sum = {0};
    qn_status status = QN_OK;
    size_t n = cut_pieces(at, &d->inventory, v->pieces, n_max);
    while (n > 0 && status == QN_OK) {
        status = open_files(v, n, err);
        if (status == QN_OK) {
            qn_pool_run(pool, n, verify_pieces, v);
            status = take_round(d, &sum, v->pieces, n, err);
        }
        n = cut_pieces(at, &d->inventory, v->pieces, n_max);
    }
    report(d, &sum);
    return status;
}

qn_status qn_doctor_verify(qn_doctor *d, qn_pool *pool, qn_error *err)
{
    const qn_inventory *const inventory = &d->inventory;
    const uint32_t n_threads = qn_pool_threads(pool);
    qn_status status = QN_OK;
    verify v = {
        .doctor = d,
        .fds = calloc(inventory->n_shards + 1, sizeof *v.fds),
        .pieces = calloc((size_t)n_threads * PIECES_A_THREAD, sizeof *v.pieces),
        .rooms = malloc((size_t)n_threads * PIECE_BYTES),
    };
    qn_entry *const entries = calloc(inventory->n_entries + 1, sizeof *entries);
    for (size_t i = 0; v.fds != NULL && i < inventory->n_shards; i++) {
        v.fds[i] = -1;
    }
    if (v.fds == NULL || v.pieces == NULL || v.rooms == NULL || entries == NULL) {
        status = qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "inspect: no memory to read tensors");
        goto fail;
    }
    memcpy(entries, inventory->entries, inventory->n_entries * sizeof *entries);
    qsort(entries, inventory->n_entries, sizeof *entries, by_place);
    cursor at = {.next = entries, .end = entries + inventory->n_entries};
    QN_TRY(status, run_rounds(&v, d, &at, pool, err), fail);
fail:
    for (size_t i = 0; v.fds != NULL && i < inventory->n_shards; i++) {
        close_file(&v, i);
    }
    free(v.fds);
    free(v.pieces);
    free(v.rooms);
    free(entries);
    return status;
}

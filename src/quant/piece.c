/* SPDX-License-Identifier: Apache-2.0 */
#include "quant/piece.h"

#include "base/file.h"
#include "base/numbers.h"
#include "base/try.h"
#include "quant/shard.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum {
    PIECE_BYTES = 4 << 20,          /* of the source; FP8 half of it */
    COPY_BYTES = PIECE_BYTES,       /* one unit is one byte */
    FP8_ELEMENTS = PIECE_BYTES / 2, /* at least one row */
    CHUNK_ELEMENTS = 64 << 10,      /* a multiple of a block */
};

/* ---------------------------------------------------------------------------------- cutting -- */

static bool is_dequantized(const qn_plan_tensor *tensor)
{
    return tensor->scale != NULL;
}

static uint64_t row_elements(const qn_plan_tensor *tensor)
{
    return tensor->rank > 0 ? tensor->shape[tensor->rank - 1] : 1;
}

/* How many units the tensor has, and how many of them a piece. */
static void units_of(uint64_t *n_units, uint64_t *n_a_piece, const qn_plan_tensor *tensor)
{
    const uint64_t block_bytes = (uint64_t)QN_MXFP4_BLOCK * qn_dtype_bytes(tensor->dtype);
    if (is_dequantized(tensor)) {
        const uint64_t n_in = row_elements(tensor);
        *n_units = n_in > 0 ? tensor->shape[0] : 0;
        *n_a_piece = n_in > 0 && n_in < FP8_ELEMENTS ? FP8_ELEMENTS / n_in : 1;
    } else if (tensor->action == QN_PLAN_ENCODE) {
        *n_units = tensor->size_bytes / block_bytes;
        *n_a_piece = PIECE_BYTES / block_bytes;
    } else {
        *n_units = tensor->action == QN_PLAN_COPY ? tensor->size_bytes : 0;
        *n_a_piece = COPY_BYTES;
    }
}

uint64_t qn_piece_count(const qn_plan_tensor *tensor)
{
    uint64_t n_units = 0;
    uint64_t n_a_piece = 1;
    units_of(&n_units, &n_a_piece, tensor);
    return (n_units + n_a_piece - 1) / n_a_piece;
}

qn_piece qn_piece_get(const qn_plan_tensor *tensor, uint64_t i_piece)
{
    uint64_t n_units = 0;
    uint64_t n_a_piece = 1;
    units_of(&n_units, &n_a_piece, tensor);
    const uint64_t first = i_piece * n_a_piece;
    const uint64_t n_left = n_units - first;
    return (qn_piece){
        .tensor = tensor,
        .first = first,
        .n = n_left < n_a_piece ? n_left : n_a_piece,
    };
}

/* Bytes of the source that one unit has. */
static uint64_t unit_bytes(const qn_plan_tensor *tensor)
{
    return is_dequantized(tensor)             ? row_elements(tensor)
           : tensor->action == QN_PLAN_ENCODE ? QN_MXFP4_BLOCK * qn_dtype_bytes(tensor->dtype)
                                              : 1;
}

/* Elements that are worked on at a time, few enough to stay in a core's cache; of FP8 whole rows.
 */
static uint64_t chunk_elements(const qn_plan_tensor *tensor)
{
    const uint64_t n_in = row_elements(tensor);
    return !is_dequantized(tensor)  ? CHUNK_ELEMENTS
           : n_in >= CHUNK_ELEMENTS ? n_in
                                    : CHUNK_ELEMENTS / n_in * n_in;
}

uint64_t qn_piece_source_bytes(const qn_piece *piece)
{
    return piece->n * unit_bytes(piece->tensor);
}

/* ------------------------------------------------------------------------------------- room -- */

/* Of the largest piece. */
typedef struct room_size {
    uint64_t in_bytes, encode_elements, fp8_elements, wide_elements, fp8_scales;
} room_size;

static void at_least(uint64_t *value, uint64_t least)
{
    *value = *value > least ? *value : least;
}

static void add_to_size(room_size *size, const qn_plan_tensor *tensor)
{
    if (qn_piece_count(tensor) == 0) {
        return;
    }
    const qn_piece first = qn_piece_get(tensor, 0);
    const uint64_t in_bytes = qn_piece_source_bytes(&first);
    at_least(&size->in_bytes, in_bytes);
    if (tensor->action == QN_PLAN_ENCODE) {
        at_least(&size->encode_elements, in_bytes / qn_dtype_bytes(tensor->dtype));
    }
    if (is_dequantized(tensor)) {
        const uint64_t n_scale_rows = first.n / QN_FP8_BLOCK + 2; /* begins anywhere in a block */
        at_least(&size->fp8_elements, in_bytes);
        at_least(&size->wide_elements, chunk_elements(tensor));
        at_least(&size->fp8_scales, n_scale_rows * row_elements(tensor->scale));
    }
}

qn_status qn_piece_room_init(qn_piece_room *room, const qn_plan *plan, qn_error *err)
{
    room_size size = {0};
    *room = (qn_piece_room){0};
    for (size_t i = 0; i < plan->n_shards; i++) {
        for (size_t k = 0; k < plan->shards[i].n_tensors; k++) {
            add_to_size(&size, &plan->shards[i].tensors[k]);
        }
    }
    room->in = malloc(size.in_bytes + 1);
    room->codes = malloc(size.encode_elements / 2 + 1);
    room->scales = malloc(size.encode_elements / QN_MXFP4_BLOCK + 1);
    room->bf16 = malloc(2 * size.fp8_elements + 1);
    room->wide = malloc((size.wide_elements + 1) * sizeof *room->wide);
    room->fp8_scales = malloc((size.fp8_scales + 1) * sizeof *room->fp8_scales);
    if (room->in == NULL || room->codes == NULL || room->scales == NULL || room->bf16 == NULL ||
        room->wide == NULL || room->fp8_scales == NULL) {
        qn_piece_room_deinit(room);
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__,
                       "quantize: no memory for the buffers of a thread");
    }
    return QN_OK;
}

void qn_piece_room_deinit(qn_piece_room *room)
{
    free(room->in);
    free(room->codes);
    free(room->scales);
    free(room->bf16);
    free(room->wide);
    free(room->fp8_scales);
    *room = (qn_piece_room){0};
}

/* -------------------------------------------------------------------------------------- run -- */

/* The first element of x that is NaN or Inf, as "tensor NAME[row, column]". */
static qn_status refuse_element(const qn_piece *piece, const qn_piece_io *io, const uint8_t *x,
                                bool is_f32, uint64_t first, uint64_t n, qn_error *err)
{
    const uint64_t n_in = row_elements(piece->tensor);
    uint64_t i = 0;
    float value = 0.0F;
    for (i = 0; i < n; i++) {
        uint32_t bits = 0;
        memcpy(is_f32 ? (uint8_t *)&bits : (uint8_t *)&bits + 2, x + i * (is_f32 ? 4 : 2),
               is_f32 ? 4 : 2);
        value = qn_f32_from_bits(bits);
        if (!isfinite(value)) {
            break;
        }
    }
    return qn_fail(err, QN_E_FORMAT, 0, __func__,
                   "%.200s/%.60s: tensor %.*s[%" PRIu64 ", %" PRIu64
                   "]: %s, a finite number expected",
                   io->plan->source, io->file, (int)piece->tensor->name.len,
                   piece->tensor->name.ptr, (first + i) / n_in, (first + i) % n_in,
                   isnan(value)   ? "NaN"
                   : value > 0.0F ? "Inf"
                                  : "-Inf");
}

static qn_status write_part(qn_piece *piece, size_t i_part, const qn_piece_io *io,
                            const uint8_t *bytes, uint64_t offset, uint64_t n_bytes, qn_error *err)
{
    piece->written[i_part] = (qn_written){.offset = offset, .n_bytes = n_bytes};
    if (io->target_fd < 0) {
        return QN_OK;
    }
    piece->written[i_part].hash = XXH3_64bits(bytes, n_bytes);
    return qn_target_write(io->target, io->target_fd, io->file, bytes, n_bytes, offset, err);
}

/* The scales of the rows of a piece; they may stand in another shard. */
static qn_status read_fp8_scales(const qn_piece *piece, const qn_piece_io *io, float *scales,
                                 qn_error *err)
{
    char path[PATH_MAX];
    const qn_plan_tensor *const scale = piece->tensor->scale;
    const bool is_here = scale->i_shard == piece->tensor->i_shard;
    const uint64_t n_columns = row_elements(scale);
    const uint64_t first = piece->first / QN_FP8_BLOCK;
    const uint64_t end = (piece->first + piece->n + QN_FP8_BLOCK - 1) / QN_FP8_BLOCK;
    int fd = io->source_fd;
    qn_status status = QN_OK;
    if (!is_here) {
        QN_TRY(status, qn_shard_open(&fd, io->plan, scale->i_shard, err), fail);
    }
    (void)qn_shard_path(path, io->plan, scale->i_shard);
    QN_TRY(status,
           qn_read_at(fd, scales, (size_t)((end - first) * n_columns * sizeof *scales),
                      scale->offset + first * n_columns * sizeof *scales, path, err),
           fail);
fail:
    if (!is_here && fd >= 0) {
        (void)close(fd);
    }
    return status;
}

/* FP8 rows of the piece to f32: one rounding of code * scale. */
static void dequantize(const qn_piece *piece, const qn_piece_io *io, qn_piece_room *room,
                       uint64_t first_row, uint64_t n_rows)
{
    const uint64_t n_in = row_elements(piece->tensor);
    const uint64_t n_columns = row_elements(piece->tensor->scale);
    const uint64_t first_block = piece->first / QN_FP8_BLOCK;
    for (uint64_t i = 0; i < n_rows; i++) {
        const uint64_t i_row = first_row + i;
        const uint64_t i_scale = (piece->first + i_row) / QN_FP8_BLOCK - first_block;
        const qn_weight row = {
            .kind = QN_WEIGHT_FP8_BLOCK,
            .n_out = 1,
            .n_in = (uint32_t)n_in,
            .data = room->in + i_row * n_in,
            .scale = (const uint8_t *)(room->fp8_scales + i_scale * n_columns),
        };
        io->kernels->dequant_row(room->wide + i * n_in, &row, 0);
    }
}

/* Elements of the piece as the kernels take them. */
static const uint8_t *elements_at(const qn_piece *piece, const qn_piece_io *io, qn_piece_room *room,
                                  uint64_t first, uint64_t n)
{
    if (!is_dequantized(piece->tensor)) {
        return room->in + first * qn_dtype_bytes(piece->tensor->dtype);
    }
    const uint64_t n_in = row_elements(piece->tensor);
    dequantize(piece, io, room, first / n_in, n / n_in);
    return (const uint8_t *)room->wide;
}

/* Blocks to codes and scales, and what that lost. */
static qn_status encode(qn_piece *piece, const qn_piece_io *io, qn_piece_room *room, uint64_t first,
                        uint64_t n_elements, qn_error *err)
{
    const qn_plan_tensor *const tensor = piece->tensor;
    const bool is_f32 = is_dequantized(tensor) || tensor->dtype == QN_DTYPE_F32;
    const uint64_t n_chunk = chunk_elements(tensor);
    qn_kind_stats lost = {0};
    qn_status status = QN_OK;
    for (uint64_t at = 0; at < n_elements; at += n_chunk) {
        const uint64_t n = n_elements - at < n_chunk ? n_elements - at : n_chunk;
        const qn_mxfp4_args args = {
            .codes = room->codes + at / 2,
            .scales = room->scales + at / QN_MXFP4_BLOCK,
            .x = elements_at(piece, io, room, at, n),
            .kind = is_f32 ? QN_WEIGHT_F32 : QN_WEIGHT_BF16,
            .rule = io->scale,
            .n_blocks = (size_t)(n / QN_MXFP4_BLOCK),
        };
        if (io->kernels->mxfp4_encode(&args) < args.n_blocks) {
            return refuse_element(piece, io, args.x, is_f32, first + at, n, err);
        }
        io->kernels->mxfp4_measure(&lost.error, &args);
    }
    piece->x_sq = lost.error.x_sq;
    piece->error_sq = lost.error.error_sq;
    lost.error.x_sq = lost.error.error_sq = 0.0;
    qn_kind_stats_add(&room->stats[qn_stats_index(tensor->kind, tensor->is_mtp)], &lost);
    QN_TRY(
        status,
        write_part(piece, 0, io, room->codes, tensor->out_offset + first / 2, n_elements / 2, err),
        fail);
    QN_TRY(status,
           write_part(piece, 1, io, room->scales, tensor->scale_out_offset + first / QN_MXFP4_BLOCK,
                      n_elements / QN_MXFP4_BLOCK, err),
           fail);
fail:
    return status;
}

/* FP8 rounded once more, to the type that the rest of the model has. */
static qn_status write_bf16(qn_piece *piece, const qn_piece_io *io, qn_piece_room *room,
                            uint64_t first, uint64_t n_elements, qn_error *err)
{
    const uint64_t n_chunk = chunk_elements(piece->tensor);
    uint16_t largest = 0;
    for (uint64_t at = 0; at < n_elements; at += n_chunk) {
        const uint64_t n = n_elements - at < n_chunk ? n_elements - at : n_chunk;
        (void)elements_at(piece, io, room, at, n);
        io->kernels->to_bf16(room->bf16 + 2 * at, room->wide, (size_t)n);
    }
    for (uint64_t i = 0; i < n_elements; i++) {
        uint16_t bits = 0;
        memcpy(&bits, room->bf16 + 2 * i, sizeof bits);
        bits &= 0x7fff;
        largest = bits > largest ? bits : largest;
    }
    if (largest >= 0x7f80) {
        return refuse_element(piece, io, room->bf16, false, first, n_elements, err);
    }
    return write_part(piece, 0, io, room->bf16, piece->tensor->out_offset + 2 * first,
                      2 * n_elements, err);
}

qn_status qn_piece_run(qn_piece *piece, const qn_piece_io *io, qn_piece_room *room, qn_error *err)
{
    const qn_plan_tensor *const tensor = piece->tensor;
    const uint64_t n_bytes = qn_piece_source_bytes(piece);
    const uint64_t at = piece->first * unit_bytes(tensor);
    const uint64_t element_bytes = qn_dtype_bytes(tensor->dtype);
    char path[PATH_MAX];
    qn_status status = QN_OK;
    (void)qn_shard_path(path, io->plan, tensor->i_shard);
    QN_TRY(status,
           qn_read_at(io->source_fd, room->in, (size_t)n_bytes, tensor->offset + at, path, err),
           fail);
    if (is_dequantized(tensor)) {
        QN_TRY(status, read_fp8_scales(piece, io, room->fp8_scales, err), fail);
    }
    if (tensor->action == QN_PLAN_COPY) {
        status = write_part(piece, 0, io, room->in, tensor->out_offset + at, n_bytes, err);
    } else if (tensor->action == QN_PLAN_TO_BF16) {
        status = write_bf16(piece, io, room, at, n_bytes, err); /* a code is a byte */
    } else {
        status = encode(piece, io, room, at / element_bytes, n_bytes / element_bytes, err);
    }
fail:
    return status;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "quant/plan.h"

#include "base/file.h"
#include "base/json_doc.h"
#include "base/try.h"
#include "kernels/weight.h"
#include "quant/shard.h"
#include "quant/sources.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <xxhash.h>

static const char scale_suffix[] = "_scale_inv"; /* of FP8; its first part is that of MXFP4 */

enum {
    SUFFIX_BYTES = sizeof scale_suffix - 1,
    MXFP4_SUFFIX_BYTES = sizeof "_scale" - 1,
    LENGTH_BYTES = 8,
    HEAD_ALIGN = 8,
};

/* Everything that planning needs and the plan itself does not keep. */
typedef struct planner {
    qn_plan *plan;
    const char *target;
    const qn_manifest *manifest; /* may be NULL */
    qn_recipe *recipe;
    qn_fp8_rest fp8;
    qn_plan_tensor **by_name; /* owned; of all shards, in order of name */
    size_t n_by_name;
    qn_error *err;
} planner;

static qn_status no_memory(const planner *p)
{
    return qn_fail(p->err, QN_E_NOMEM, ENOMEM, __func__, "%.200s: no memory to plan",
                   p->plan->source);
}

/* "SOURCE/FILE: tensor NAME: " and what is wrong with it. */
QN_PRINTF(3, 4)
static qn_status refuse(const planner *p, const qn_plan_tensor *tensor, const char *format, ...)
{
    char text[300];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return qn_fail(p->err, QN_E_FORMAT, 0, __func__, "%.150s/%.60s: tensor %.*s: %s",
                   p->plan->source, p->plan->shards[tensor->i_shard].file,
                   (int)(tensor->name.len < 150 ? tensor->name.len : 150), tensor->name.ptr, text);
}

/* ---------------------------------------------------------------------------------- headers -- */

static int by_offset(const void *a, const void *b)
{
    const qn_plan_tensor *const x = a;
    const qn_plan_tensor *const y = b;
    if (x->offset != y->offset) {
        return x->offset < y->offset ? -1 : 1;
    }
    return qn_str_compare(x->name, y->name); /* tensors without elements */
}

/* Copy what a header says into the shard. */
static qn_status take_tensors(const planner *p, qn_plan_shard *shard, const qn_safetensors *file)
{
    const uint64_t head_bytes = qn_safetensors_head(file).len;
    size_t names_bytes = 1;
    shard->n_tensors = qn_safetensors_count(file);
    for (size_t i = 0; i < shard->n_tensors; i++) {
        names_bytes += qn_safetensors_get(file, i)->name.len + SUFFIX_BYTES + 1;
    }
    char *end = calloc(1, names_bytes);
    shard->names = end;
    shard->tensors = calloc(shard->n_tensors + 1, sizeof *shard->tensors);
    if (end == NULL || shard->tensors == NULL) {
        return no_memory(p);
    }
    for (size_t i = 0; i < shard->n_tensors; i++) {
        const qn_tensor *const from = qn_safetensors_get(file, i);
        qn_plan_tensor *const to = &shard->tensors[i];
        qn_tensor_name name;
        memcpy(end, from->name.ptr, from->name.len);
        memcpy(end + from->name.len, scale_suffix, SUFFIX_BYTES);
        *to = (qn_plan_tensor){
            .name = {end, from->name.len},
            .dtype = from->dtype,
            .rank = from->rank,
            .i_shard = (uint32_t)(shard - p->plan->shards),
            .offset = head_bytes + from->offset,
            .size_bytes = from->size_bytes,
        };
        memcpy(to->shape, from->shape, sizeof to->shape);
        qn_tensor_name_parse(&name, to->name);
        to->kind = name.kind;
        to->is_mtp = name.layer >= 0 && (uint32_t)name.layer >= p->recipe->n_layers;
        end += from->name.len + SUFFIX_BYTES + 1;
    }
    qsort(shard->tensors, shard->n_tensors, sizeof *shard->tensors, by_offset);
    return QN_OK;
}

/* The file at @p path: what its header says and, of the source, what it is known by.  That comes
 * first, so that a file which takes its place meanwhile is another one whenever it is opened. */
static qn_status read_head(const planner *p, qn_plan_shard *shard, const char *path)
{
    qn_safetensors *file = NULL;
    struct stat info = {0};
    qn_status status = QN_OK;
    const int why = stat(path, &info) == 0 ? 0 : errno;
    QN_TRY(status, qn_safetensors_open(&file, path, p->err), fail);
    if (why != 0) {
        status = qn_fail(p->err, QN_E_IO, why, __func__, "%.300s: %s, a readable file expected",
                         path, strerror(why));
        goto fail;
    }
    QN_TRY(status, take_tensors(p, shard, file), fail);
    if (!shard->is_gone) {
        const qn_str head = qn_safetensors_head(file);
        shard->source_bytes = (uint64_t)info.st_size;
        shard->source_mtime_ns = qn_mtime_ns(&info);
        shard->source_inode = (uint64_t)info.st_ino;
        (void)snprintf(shard->head_hash, sizeof shard->head_hash, "%016" PRIx64,
                       (uint64_t)XXH3_64bits(head.ptr, head.len));
    }
fail:
    qn_safetensors_close(&file);
    return status;
}

/* Is the source what it was when the manifest was begun? */
static qn_status check_same(const planner *p, const qn_plan_shard *shard,
                            const qn_manifest_shard *known)
{
    char seen_time[QN_TIME_BYTES];
    char known_time[QN_TIME_BYTES];
    if (shard->source_bytes == known->source_bytes &&
        shard->source_mtime_ns == known->source_mtime_ns &&
        strcmp(shard->head_hash, known->source_head) == 0) {
        return QN_OK;
    }
    qn_time_print(seen_time, shard->source_mtime_ns);
    qn_time_print(known_time, known->source_mtime_ns);
    return qn_fail(p->err, QN_E_FORMAT, 0, __func__,
                   "%.150s/%.100s: changed since %.100s was begun: %" PRIu64
                   " bytes of %s, header %s; %" PRIu64 " bytes of %s, header %s expected",
                   p->plan->source, shard->file, p->target, shard->source_bytes, seen_time,
                   shard->head_hash, known->source_bytes, known_time, known->source_head);
}

/* What an earlier run knows of the shard; of one whose source it deleted, all. */
static qn_status read_known(const planner *p, qn_plan_shard *shard, const qn_manifest_shard *known,
                            const char *source_path)
{
    struct stat info;
    qn_error why = {0};
    shard->is_done = known->is_done;
    shard->is_gone = shard->is_final =
        known->is_done && lstat(source_path, &info) != 0 && errno == ENOENT;
    if (!shard->is_gone) {
        const qn_status status = read_head(p, shard, source_path);
        return status == QN_OK ? check_same(p, shard, known) : status;
    }
    char *const path = qn_path_join(p->target, shard->file);
    if (path == NULL) {
        return no_memory(p);
    }
    shard->source_bytes = known->source_bytes;
    shard->source_mtime_ns = known->source_mtime_ns;
    (void)snprintf(shard->head_hash, sizeof shard->head_hash, "%s", known->source_head);
    planner inner = *p;
    inner.err = &why;
    qn_status status = read_head(&inner, shard, path);
    if (status == QN_E_NOT_FOUND || status == QN_E_FORMAT) {
        status = qn_fail(p->err, QN_E_FORMAT, 0, __func__,
                         "%.500s: damaged, and its source was deleted", why.text);
    } else if (status < 0 && p->err != NULL) {
        *p->err = why;
    }
    free(path);
    return status;
}

static qn_status read_shard(const planner *p, size_t i_shard)
{
    qn_plan_shard *const shard = &p->plan->shards[i_shard];
    char *const path = qn_path_join(p->plan->source, shard->file);
    qn_status status = QN_OK;
    if (path == NULL) {
        return no_memory(p);
    }
    if (p->manifest == NULL) {
        status = read_head(p, shard, path);
    } else {
        const qn_manifest_shard known = qn_manifest_get(p->manifest, i_shard);
        status = read_known(p, shard, &known, path);
    }
    free(path);
    return status;
}

/* ------------------------------------------------------------------------------------ names -- */

static int by_name(const void *a, const void *b)
{
    return qn_str_compare((*(qn_plan_tensor *const *)a)->name, (*(qn_plan_tensor *const *)b)->name);
}

static qn_plan_tensor *find(const planner *p, qn_str name)
{
    qn_plan_tensor key = {.name = name};
    qn_plan_tensor *const key_at = &key;
    qn_plan_tensor **const found =
        bsearch(&key_at, p->by_name, p->n_by_name, sizeof(qn_plan_tensor *), by_name);
    return found != NULL ? *found : NULL;
}

/* The tensor whose name is that of @p tensor and the first characters of "_scale_inv". */
static qn_plan_tensor *find_beside(const planner *p, const qn_plan_tensor *tensor, size_t n_more)
{
    return find(p, (qn_str){tensor->name.ptr, tensor->name.len + n_more});
}

/* One list of all tensors; a name may be there once. */
static qn_status list_names(planner *p)
{
    size_t n = 0;
    for (size_t i = 0; i < p->plan->n_shards; i++) {
        n += p->plan->shards[i].n_tensors;
    }
    p->by_name = calloc(n + 1, sizeof(qn_plan_tensor *));
    if (p->by_name == NULL) {
        return no_memory(p);
    }
    for (size_t i = 0; i < p->plan->n_shards; i++) {
        qn_plan_shard *const shard = &p->plan->shards[i];
        for (size_t k = 0; k < shard->n_tensors; k++) {
            p->by_name[p->n_by_name++] = &shard->tensors[k];
        }
    }
    qsort(p->by_name, n, sizeof(qn_plan_tensor *), by_name);
    for (size_t i = 1; i < n; i++) {
        if (by_name(&p->by_name[i - 1], &p->by_name[i]) == 0) {
            return refuse(p, p->by_name[i], "also in %s, one shard expected",
                          p->plan->shards[p->by_name[i - 1]->i_shard].file);
        }
    }
    return QN_OK;
}

/* An index and the shards must name the same tensors in the same places.  The output of a shard
 * that is gone has other tensors, so it proves nothing. */
static qn_status check_index(const planner *p, const json_t *map)
{
    const char *name = NULL;
    json_t *file = NULL;
    bool may_be_gone = false;
    for (size_t i = 0; i < p->plan->n_shards; i++) {
        may_be_gone |= p->plan->shards[i].is_gone;
    }
    for (size_t i = 0; map != NULL && i < p->n_by_name; i++) {
        const qn_plan_tensor *const one = p->by_name[i];
        const qn_plan_shard *const shard = &p->plan->shards[one->i_shard];
        const char *const seen =
            json_string_value(json_object_getn(map, one->name.ptr, one->name.len));
        if (!shard->is_gone && (seen == NULL || strcmp(seen, shard->file) != 0)) {
            return refuse(p, one, "%s by the index, in this shard expected",
                          seen == NULL ? "nowhere" : seen);
        }
    }
    json_object_foreach((json_t *)map, name, file)
    {
        if (!may_be_gone && find(p, qn_str_of(name)) == NULL) {
            return qn_fail(p->err, QN_E_FORMAT, 0, __func__,
                           "%.200s: tensor %.200s: in no shard, in %.100s expected by the index",
                           p->plan->source, name, json_string_value(file));
        }
    }
    return QN_OK;
}

/* -------------------------------------------------------------------------------- decisions -- */

/* The FP8 tensor whose scale this is; NULL where it is no scale. */
static qn_plan_tensor *scaled_by(const planner *p, const qn_plan_tensor *scale)
{
    const bool is_inv = qn_str_ends(scale->name, scale_suffix);
    if (scale->dtype != QN_DTYPE_F32 || (!is_inv && !qn_str_ends(scale->name, "_scale"))) {
        return NULL;
    }
    const size_t n_more = is_inv ? SUFFIX_BYTES : MXFP4_SUFFIX_BYTES;
    qn_plan_tensor *const weight = find(p, (qn_str){scale->name.ptr, scale->name.len - n_more});
    const bool is_fp8 = weight != NULL && (weight->dtype == QN_DTYPE_F8_E4M3 ||
                                           p->plan->shards[weight->i_shard].is_gone);
    return is_fp8 ? weight : NULL;
}

/* The scale of an FP8 tensor, of the shape that 128 x 128 blocks need. */
static qn_status find_scale(const planner *p, qn_plan_tensor *weight)
{
    const uint64_t rows = (weight->shape[0] + QN_FP8_BLOCK - 1) / QN_FP8_BLOCK;
    const uint64_t columns = (weight->shape[1] + QN_FP8_BLOCK - 1) / QN_FP8_BLOCK;
    qn_plan_shard *const shard = &p->plan->shards[weight->i_shard];
    const qn_plan_tensor *scale = find_beside(p, weight, SUFFIX_BYTES);
    scale = scale != NULL ? scale : find_beside(p, weight, MXFP4_SUFFIX_BYTES);
    if (scale == NULL && shard->is_done) { /* deleted with another shard, once this one was made */
        shard->is_final = true;
        return QN_OK;
    }
    if (scale == NULL || weight->rank != 2 || weight->shape[1] > UINT32_MAX) {
        return refuse(p, weight, "F8_E4M3 of rank %u %s, a matrix with %s expected", weight->rank,
                      scale == NULL ? "without a scale" : "with one", "NAME_scale_inv");
    }
    if (scale->dtype != QN_DTYPE_F32 || scale->rank != 2 || scale->shape[0] != rows ||
        scale->shape[1] != columns) {
        char seen[100];
        qn_shape_print(seen, sizeof seen, scale->shape, scale->rank);
        return refuse(p, scale, "%s %s, F32 [%" PRIu64 ", %" PRIu64 "] expected",
                      qn_dtype_name(scale->dtype), seen, rows, columns);
    }
    weight->scale = scale;
    return QN_OK;
}

/* A selected matrix has to be of a type that is read, with whole blocks. */
static qn_status check_encoded(const planner *p, const qn_plan_tensor *tensor)
{
    char seen[100];
    qn_shape_print(seen, sizeof seen, tensor->shape, tensor->rank);
    if (tensor->dtype != QN_DTYPE_BF16 && tensor->dtype != QN_DTYPE_F32 &&
        tensor->dtype != QN_DTYPE_F8_E4M3) {
        return refuse(p, tensor, "%s, BF16, F32 or F8_E4M3 expected", qn_dtype_name(tensor->dtype));
    }
    if (tensor->shape[tensor->rank - 1] % QN_MXFP4_BLOCK != 0) {
        return refuse(p, tensor, "%s, rows of a multiple of %d expected", seen, QN_MXFP4_BLOCK);
    }
    return QN_OK;
}

/* Codes of another format: not something to copy beside MXFP4 without a word. */
static bool is_quantized_already(const qn_plan_tensor *tensor)
{
    return (tensor->dtype == QN_DTYPE_U8 || tensor->dtype == QN_DTYPE_I8 ||
            tensor->dtype == QN_DTYPE_I32 || tensor->dtype == QN_DTYPE_F8_E8M0) &&
           tensor->rank >= 2;
}

static qn_status decide(const planner *p, qn_plan_tensor *tensor)
{
    qn_str module = {0};
    qn_tensor_name name;
    qn_rule_format format = QN_RULE_KEEP;
    qn_tensor_name_parse(&name, tensor->name);
    if (qn_recipe_is_linear(&module, tensor->name, tensor->rank)) {
        format = qn_recipe_decide(p->recipe, module, name.layer);
    }
    if (p->plan->shards[tensor->i_shard].is_gone) {
        return QN_OK; /* was decided when it was written */
    }
    if (is_quantized_already(tensor)) {
        return refuse(p, tensor,
                      "%s: quantized already, a checkpoint in bf16, or in FP8 of 128 x 128 blocks, "
                      "expected",
                      qn_dtype_name(tensor->dtype));
    }
    if (format == QN_RULE_MXFP4) {
        tensor->action = QN_PLAN_ENCODE;
        const qn_status status = check_encoded(p, tensor);
        if (status < 0) {
            return status;
        }
    } else if (tensor->dtype == QN_DTYPE_F8_E4M3 && p->fp8 == QN_FP8_TO_BF16) {
        tensor->action = QN_PLAN_TO_BF16;
    }
    if (tensor->dtype != QN_DTYPE_F8_E4M3) {
        return QN_OK;
    }
    const qn_status status = find_scale(p, tensor);
    if (tensor->action == QN_PLAN_COPY) {
        tensor->scale = NULL;
    }
    return status;
}

/* The scales of MXFP4 need a name of their own, in any shard, and an FP8 scale that belongs to
 * nothing would be taken for them. */
static qn_status check_scale_names(const planner *p, const qn_plan_tensor *tensor)
{
    static const size_t lengths[] = {MXFP4_SUFFIX_BYTES, SUFFIX_BYTES};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        const qn_plan_tensor *const taken = find_beside(p, tensor, lengths[i]);
        if (tensor->action == QN_PLAN_ENCODE && taken != NULL && taken->action != QN_PLAN_DROP) {
            return refuse(p, taken,
                          "%s beside a matrix in %s that gets scales of MXFP4, none expected",
                          qn_dtype_name(taken->dtype), qn_dtype_name(tensor->dtype));
        }
    }
    return QN_OK;
}

static qn_status decide_all(const planner *p)
{
    qn_status status = QN_OK;
    for (size_t i = 0; i < p->n_by_name; i++) {
        QN_TRY(status, decide(p, p->by_name[i]), fail);
    }
    QN_TRY(status, qn_recipe_check(p->recipe, p->err), fail);
    for (size_t i = 0; i < p->n_by_name; i++) {
        const qn_plan_tensor *const weight = scaled_by(p, p->by_name[i]);
        p->by_name[i]->is_scale = weight != NULL;
        if (weight != NULL &&
            !(weight->action == QN_PLAN_COPY && weight->dtype == QN_DTYPE_F8_E4M3)) {
            p->by_name[i]->action = QN_PLAN_DROP;
        }
    }
    for (size_t i = 0; i < p->n_by_name; i++) {
        QN_TRY(status, check_scale_names(p, p->by_name[i]), fail);
    }
fail:
    return status;
}

/* ----------------------------------------------------------------------------------- layout -- */

/* Files list tensors by dtype, then by name: the widest first, in the order in which the
 * safetensors library numbers types. */
static int dtype_order(qn_dtype dtype)
{
    static const int order[] = {
        [QN_DTYPE_I64] = 0,     [QN_DTYPE_F64] = 1, [QN_DTYPE_F32] = 2,     [QN_DTYPE_I32] = 3,
        [QN_DTYPE_BF16] = 4,    [QN_DTYPE_F16] = 5, [QN_DTYPE_F8_E8M0] = 6, [QN_DTYPE_F8_E4M3] = 7,
        [QN_DTYPE_F8_E5M2] = 8, [QN_DTYPE_I8] = 9,  [QN_DTYPE_U8] = 10,     [QN_DTYPE_BOOL] = 11,
    };
    return order[dtype];
}

static int by_place(const void *a, const void *b)
{
    const qn_plan_output *const x = a;
    const qn_plan_output *const y = b;
    const int by_dtype = dtype_order(x->dtype) - dtype_order(y->dtype);
    return by_dtype != 0 ? by_dtype : qn_str_compare(x->name, y->name);
}

/* The one or two tensors that one of the source becomes. */
static void add_outputs(qn_plan_shard *shard, qn_plan_tensor *tensor)
{
    qn_plan_output output = {
        .from = tensor,
        .name = tensor->name,
        .dtype = tensor->dtype,
        .size_bytes = tensor->size_bytes,
    };
    memcpy(output.shape, tensor->shape, sizeof output.shape);
    if (tensor->action == QN_PLAN_TO_BF16) {
        output.dtype = QN_DTYPE_BF16;
        output.size_bytes = 2 * tensor->size_bytes; /* a code is a byte */
    } else if (tensor->action == QN_PLAN_ENCODE) {
        const uint64_t n_elements = tensor->size_bytes / qn_dtype_bytes(tensor->dtype);
        qn_plan_output scale = output;
        const uint32_t last = tensor->rank - 1;
        shard->encode_elements += n_elements;
        output.dtype = scale.dtype = QN_DTYPE_U8;
        output.shape[last] /= 2;
        output.size_bytes = n_elements / 2;
        scale.shape[last] /= QN_MXFP4_BLOCK;
        scale.size_bytes = n_elements / QN_MXFP4_BLOCK;
        scale.name.len += MXFP4_SUFFIX_BYTES;
        scale.is_scale = true;
        shard->outputs[shard->n_outputs++] = scale;
    }
    shard->outputs[shard->n_outputs++] = output;
}

static qn_status lay_out(const planner *p, qn_plan_shard *shard)
{
    qn_buf head;
    qn_buf_init(&head,
                4 * (size_t)QN_SAFETENSORS_HEADER_MAX); /* more than any source's can become */
    shard->outputs = calloc(2 * shard->n_tensors + 1, sizeof *shard->outputs);
    if (shard->outputs == NULL) {
        return no_memory(p);
    }
    for (size_t i = 0; i < shard->n_tensors; i++) {
        if (shard->tensors[i].action != QN_PLAN_DROP) {
            add_outputs(shard, &shard->tensors[i]);
        }
    }
    qsort(shard->outputs, shard->n_outputs, sizeof *shard->outputs, by_place);
    qn_status status = qn_plan_head_append(&head, shard, p->err);
    uint64_t at = shard->out_head_bytes = head.len;
    if (status == QN_OK &&
        (head.len - LENGTH_BYTES > QN_SAFETENSORS_HEADER_MAX ||
         !qn_json_scan((qn_str){head.ptr + LENGTH_BYTES, head.len - LENGTH_BYTES}, NULL))) {
        status = qn_fail(p->err, QN_E_FORMAT, 0, __func__,
                         "%.200s/%.100s: makes a header of %zu tensors and %zu bytes, one that "
                         "quern reads expected: more and smaller shards",
                         p->plan->source, shard->file, shard->n_outputs, head.len);
    }
    qn_buf_deinit(&head);
    for (size_t i = 0; i < shard->n_outputs; i++) {
        const qn_plan_output *const output = &shard->outputs[i];
        *(output->is_scale ? &output->from->scale_out_offset : &output->from->out_offset) = at;
        *(output->is_scale ? &output->from->scale_out_bytes : &output->from->out_bytes) =
            output->size_bytes;
        at += output->size_bytes;
    }
    shard->out_bytes = at;
    return status;
}

static qn_status append_entry(qn_buf *out, const qn_plan_output *output, uint64_t begin,
                              qn_error *err)
{
    qn_status status = QN_OK;
    QN_TRY(status, qn_json_quote_append(out, output->name, err), fail);
    QN_TRY(status,
           qn_buf_append_printf(out, err, ":{\"dtype\":\"%s\",\"shape\":[",
                                qn_dtype_name(output->dtype)),
           fail);
    for (uint32_t i = 0; i < output->from->rank; i++) {
        QN_TRY(status,
               qn_buf_append_printf(out, err, i > 0 ? ",%" PRIu64 : "%" PRIu64, output->shape[i]),
               fail);
    }
    QN_TRY(status,
           qn_buf_append_printf(out, err, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", begin,
                                begin + output->size_bytes),
           fail);
fail:
    return status;
}

qn_status qn_plan_head_append(qn_buf *out, const qn_plan_shard *shard, qn_error *err)
{
    static const char blanks[HEAD_ALIGN] = "        ";
    const uint8_t no_length[LENGTH_BYTES] = {0};
    const size_t first = out->len;
    uint64_t at = 0;
    qn_status status = QN_OK;
    QN_TRY(status, qn_buf_append(out, no_length, LENGTH_BYTES, err), fail);
    QN_TRY(status, qn_buf_append_printf(out, err, "{\"__metadata__\":{\"format\":\"pt\"}"), fail);
    for (size_t i = 0; i < shard->n_outputs; i++) {
        QN_TRY(status, qn_buf_append(out, ",", 1, err), fail);
        QN_TRY(status, append_entry(out, &shard->outputs[i], at, err), fail);
        at += shard->outputs[i].size_bytes;
    }
    QN_TRY(status, qn_buf_append(out, "}", 1, err), fail);
    const size_t n_blanks = (HEAD_ALIGN - (out->len - first) % HEAD_ALIGN) % HEAD_ALIGN;
    QN_TRY(status, qn_buf_append(out, blanks, n_blanks, err), fail);
    const uint64_t length = out->len - first - LENGTH_BYTES;
    for (uint32_t i = 0; i < LENGTH_BYTES; i++) {
        out->ptr[first + i] = (char)(uint8_t)(length >> 8 * i); /* little-endian */
    }
fail:
    return status;
}

void qn_plan_add_stats(qn_kind_stats stats[QN_N_STATS], const qn_plan_shard *shard)
{
    for (size_t i = 0; i < shard->n_tensors; i++) {
        const qn_plan_tensor *const tensor = &shard->tensors[i];
        qn_kind_stats *const row = &stats[qn_stats_index(tensor->kind, tensor->is_mtp)];
        row->n_tensors += tensor->is_scale ? 0 : 1;
        row->n_encoded += tensor->action == QN_PLAN_ENCODE ? 1 : 0;
        row->n_to_bf16 += tensor->action == QN_PLAN_TO_BF16 ? 1 : 0;
        row->n_fp8 += tensor->action == QN_PLAN_COPY && tensor->dtype == QN_DTYPE_F8_E4M3 ? 1 : 0;
        row->bytes_before += tensor->size_bytes;
        row->bytes_after += tensor->out_bytes + tensor->scale_out_bytes;
    }
}

/* ------------------------------------------------------------------------------ open, close -- */

/* A file that came since the manifest was begun: its tensors would be lost. */
static qn_status check_known(const planner *p, const qn_sources *sources)
{
    size_t i_known = 0;
    for (size_t i = 0; i < sources->n_files; i++) { /* both are in order of name */
        while (i_known < p->plan->n_shards &&
               strcmp(p->plan->shards[i_known].file, sources->files[i]) < 0) {
            i_known++;
        }
        if (i_known == p->plan->n_shards ||
            strcmp(p->plan->shards[i_known].file, sources->files[i]) != 0) {
            return qn_fail(p->err, QN_E_FORMAT, 0, __func__,
                           "%.250s/%.100s: was not there when %.100s was begun, the same shards "
                           "expected",
                           p->plan->source, sources->files[i], p->target);
        }
    }
    return QN_OK;
}

/* The files: of the manifest, whose sources may be gone, else of the source. */
static qn_status list_shards(const planner *p, qn_sources *sources)
{
    qn_plan *const plan = p->plan;
    const size_t n = p->manifest != NULL ? qn_manifest_count(p->manifest) : sources->n_files;
    if (n > QN_MANIFEST_SHARDS_MAX) {
        return qn_fail(p->err, QN_E_FORMAT, 0, __func__, "%.300s: %zu shards, at most %d expected",
                       plan->source, n, (int)QN_MANIFEST_SHARDS_MAX);
    }
    plan->shards = calloc(n, sizeof *plan->shards);
    if (plan->shards == NULL) {
        return no_memory(p);
    }
    plan->n_shards = n;
    for (size_t i = 0; i < n; i++) {
        plan->shards[i].file =
            strdup(p->manifest != NULL ? qn_manifest_get(p->manifest, i).file : sources->files[i]);
        if (plan->shards[i].file == NULL) {
            return no_memory(p);
        }
    }
    return check_known(p, sources);
}

qn_status qn_plan_open(qn_plan *out, const char *source, const char *target,
                       const qn_manifest *manifest, qn_recipe *recipe, qn_fp8_rest fp8,
                       qn_error *err)
{
    *out = (qn_plan){.source = source};
    planner p = {
        .plan = out,
        .target = target,
        .manifest = manifest,
        .recipe = recipe,
        .fp8 = fp8,
        .err = err,
    };
    qn_sources sources = {0};
    qn_status status = QN_OK;
    QN_TRY(status, qn_sources_open(&sources, source, manifest != NULL, err), fail);
    QN_TRY(status, list_shards(&p, &sources), fail);
    for (size_t i = 0; i < out->n_shards; i++) {
        QN_TRY(status, read_shard(&p, i), fail);
    }
    QN_TRY(status, list_names(&p), fail);
    QN_TRY(status, check_index(&p, sources.map), fail);
    QN_TRY(status, decide_all(&p), fail);
    for (size_t i = 0; i < out->n_shards; i++) {
        qn_plan_shard *const shard = &out->shards[i];
        QN_TRY(status, lay_out(&p, shard), fail);
        out->source_bytes += shard->source_bytes;
        out->out_bytes += shard->out_bytes;
    }
fail:
    qn_sources_close(&sources);
    free((void *)p.by_name);
    if (status < 0) {
        qn_plan_close(out);
    }
    return status;
}

void qn_plan_close(qn_plan *plan)
{
    for (size_t i = 0; i < plan->n_shards; i++) {
        free(plan->shards[i].file);
        free(plan->shards[i].names);
        free(plan->shards[i].tensors);
        free(plan->shards[i].outputs);
    }
    free(plan->shards);
    *plan = (qn_plan){0};
}

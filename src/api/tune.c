/* SPDX-License-Identifier: Apache-2.0 */
#include "api/tune.h"

#include "api/internal.h"
#include "base/file.h"
#include "base/log.h"
#include "base/try.h"
#include "kernels/gpu_tune.h"
#include "model/gpu_products.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

enum {
    KEYS_MAX = QN_GPU_PRODUCTS_MAX + 3, /* attention of two cache formats, and the indexer */
    ROWS_MAX = KEYS_MAX * QN_TUNE_N_ROWS_MAX,
    TABLE_BYTES_MAX = 8 << 20,
    POSITIONS_MAX = 16384, /* of a row of attention */
    LAUNCHES = 7,
    LAUNCHES_QUICK = 3,
    GPUS_MAX = 16,
};

/* What is measured, and what came of it. */
typedef struct tuning {
    const qn_tune_job *job;
    qn_gpu_tuner tuner;
    qn_gpu_tuning_key keys[KEYS_MAX];
    uint32_t n_keys;
    uint64_t n_before; /* numbers of rows of the shapes in front of this one */
    qn_gpu_tuning_row rows[ROWS_MAX];
    uint32_t n_rows;
    uint32_t n_wrong;
    const qn_gpu_tuning_row *lost; /* the first for which all but the portable kernel were wrong */
} tuning;

/* ------------------------------------------------------------------------------------ shapes -- */

static qn_status list_products(tuning *t, qn_error *err)
{
    const qn_tune_job *const j = t->job;
    qn_gpu_product products[QN_GPU_PRODUCTS_MAX];
    uint32_t n = 0;
    const qn_glm_options options = {.gpu = j->gpu, .gpu_kernels = j->kernels, .rules = j->rules};
    const qn_status status = qn_gpu_list_stored_products(products, &n, j->config, j->checkpoint,
                                                         j->experts, &options, err);
    for (uint32_t i = 0; i < n; i++) {
        t->keys[t->n_keys++] = qn_gpu_matmul_key(&products[i].shape);
    }
    return status;
}

static void list_attention(tuning *t)
{
    const qn_config *const c = t->job->config;
    for (uint32_t kind = QN_GPU_KV_BF16; kind <= QN_GPU_KV_FP8; kind++) {
        t->keys[t->n_keys++] = (qn_gpu_tuning_key){.op = QN_GPU_TUNED_ATTEND,
                                                   .kind = kind,
                                                   .n_out = c->n_heads,
                                                   .n_in = c->kv_rank + c->rope_dim,
                                                   .n_groups = 1};
    }
    if (t->tuner.n_positions > c->index_topk) { /* else no row needs scores */
        t->keys[t->n_keys++] = (qn_gpu_tuning_key){.op = QN_GPU_TUNED_INDEX,
                                                   .kind = QN_GPU_KV_BF16,
                                                   .n_out = c->n_index_heads,
                                                   .n_in = c->index_dim,
                                                   .n_groups = 1};
    }
}

/* ----------------------------------------------------------------------------------- measure -- */

static bool show(void *context, uint32_t i_rows)
{
    const tuning *const t = context;
    const qn_tune_options *const o = t->job->options;
    return o->progress == NULL ||
           o->progress(o->progress_context, t->n_before + i_rows, (uint64_t)t->n_keys * o->n_rows);
}

static uint32_t up_to_power(uint32_t n)
{
    uint32_t power = 1;
    while (power < n) {
        power *= 2;
    }
    return power;
}

static qn_status measure(tuning *t, const qn_gpu_tuning_key *key, qn_error *err)
{
    const qn_tune_options *const o = t->job->options;
    qn_gpu_tuner tuner = t->tuner;
    uint32_t rows[QN_TUNE_N_ROWS_MAX];
    uint32_t n = 0;
    uint32_t n_wrong = 0;
    const uint32_t n_each = key->op == QN_GPU_TUNED_MOE ? t->job->config->n_experts_used : 1;
    for (size_t i = 0; i < o->n_rows; i++) {
        rows[i] = up_to_power(o->rows[i] * n_each);
    }
    if (key->op == QN_GPU_TUNED_ATTEND) {
        tuner.row_bytes = qn_kv_row_bytes(key->kind == QN_GPU_KV_FP8 ? QN_KV_FP8 : QN_KV_BF16,
                                          t->job->config->kv_rank, tuner.rope_dim);
    }
    const qn_status status =
        qn_gpu_tune(t->rows + t->n_rows, &n, &n_wrong, &tuner, key, rows, (uint32_t)o->n_rows, err);
    for (uint32_t i = 0; i < n && n_wrong > 0 && t->lost == NULL; i++) {
        const qn_gpu_tuning_row *const row = &t->rows[t->n_rows + i];
        t->lost = qn_gpu_tuning_source(row) == QN_GPU_FALLBACK ? row : NULL;
    }
    t->n_rows += n;
    t->n_wrong += n_wrong;
    t->n_before += o->n_rows;
    return status;
}

static qn_status measure_all(tuning *t, qn_error *err)
{
    const qn_tune_job *const j = t->job;
    const qn_config *const c = j->config;
    qn_status status = QN_OK;
    qn_gpu_stream *stream = NULL;
    QN_TRY(status, qn_gpu_stream_open(&stream, j->gpu, err), fail);
    t->tuner = (qn_gpu_tuner){
        .gpu = j->gpu,
        .ops = {.kernels = j->kernels, .stream = stream},
        .cold_bytes = j->cold_bytes,
        .n_launches = j->options->is_quick ? LAUNCHES_QUICK : LAUNCHES,
        .is_quick = j->options->is_quick,
        .n_experts_used = c->n_experts_used,
        .n_positions = c->n_context_max < POSITIONS_MAX ? c->n_context_max : POSITIONS_MAX,
        .rope_dim = c->rope_dim,
        .progress = show,
        .progress_context = t,
    };
    t->tuner.n_positions = t->tuner.n_positions / QN_PAGE_TOKENS * QN_PAGE_TOKENS;
    t->tuner.n_topk = c->index_topk < t->tuner.n_positions ? c->index_topk : t->tuner.n_positions;
    QN_TRY(status, list_products(t, err), fail);
    list_attention(t);
    for (uint32_t i = 0; i < t->n_keys; i++) {
        QN_TRY(status, measure(t, &t->keys[i], err), fail);
    }
fail:
    qn_gpu_stream_close(&stream);
    return status;
}

/* ------------------------------------------------------------------------------------- table -- */

static qn_status write_notes(qn_buf *out, const tuning *t, qn_error *err)
{
    const qn_gpu_info *const device = qn_gpu_get_info(t->job->gpu);
    const qn_build *const build = qn_build_get();
    const char *const command = t->job->options->command;
    char date[32] = "";
    struct tm now;
    const time_t seconds = time(NULL);
    if (gmtime_r(&seconds, &now) != NULL) {
        (void)strftime(date, sizeof date, "%Y-%m-%d", &now);
    }
    return qn_buf_append_printf(out, err,
                                "# Which GPU kernel a shape gets, measured (docs/tuning.md).\n"
                                "# device: %s\n"
                                "# date: %s\n"
                                "# driver: %s\n"
                                "# version: %s, commit %s\n"
                                "# command: %s\n"
                                "%s\n",
                                device->name, date, device->driver, build->version, build->commit,
                                command != NULL ? command : "-", qn_gpu_tuning_head);
}

static qn_status write_row(qn_buf *out, const qn_gpu_tuning_row *r, qn_error *err)
{
    const qn_gpu_tuning_key *const k = &r->key;
    return qn_buf_append_printf(out, err, "%s,%s,%u,%u,%u,%u,%u,%s,%u,%u,%.2f\n",
                                qn_gpu_tuned_op_name(k->op), qn_gpu_tuned_kind_name(k->op, k->kind),
                                k->n_out, k->n_in, k->is_pair, k->n_groups, r->n_rows, r->variant,
                                r->n_strips, r->n_splits, (double)r->us);
}

static bool is_measured(const tuning *t, const qn_gpu_tuning_key *key)
{
    for (uint32_t i = 0; i < t->n_rows; i++) {
        if (memcmp(&t->rows[i].key, key, sizeof *key) == 0) {
            return true;
        }
    }
    return false;
}

/* What was measured, then what is taken over. */
static qn_status write_rows(qn_buf *out, const tuning *t, qn_error *err)
{
    uint32_t n_before = 0;
    const qn_gpu_tuning_row *const before =
        t->job->before != NULL ? qn_gpu_tuning_rows(t->job->before, &n_before) : NULL;
    qn_status status = QN_OK;
    for (uint32_t i = 0; i < t->n_rows && status == QN_OK; i++) {
        status = write_row(out, &t->rows[i], err);
    }
    for (uint32_t i = 0; i < n_before && status == QN_OK; i++) {
        if (!is_measured(t, &before[i].key)) {
            status = write_row(out, &before[i], err);
        }
    }
    return status;
}

/* Once more through the parser, which whoever reads the table will ask. */
static qn_status write_table(char **table, const tuning *t, qn_error *err)
{
    qn_status status = QN_OK;
    qn_gpu_tuning *parsed = NULL;
    qn_buf out;
    qn_buf_init(&out, TABLE_BYTES_MAX);
    QN_TRY(status, write_notes(&out, t, err), fail);
    QN_TRY(status, write_rows(&out, t, err), fail);
    QN_TRY(status, qn_gpu_tuning_parse(&parsed, qn_buf_view(&out), "the new table", err), fail);
    *table = strdup(out.ptr);
    if (*table == NULL) {
        status = qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "tuning: no memory");
    }
fail:
    qn_gpu_tuning_close(&parsed);
    qn_buf_deinit(&out);
    return status;
}

qn_status qn_tune_on(char **table, const qn_tune_job *job, qn_error *err)
{
    *table = NULL;
    tuning *const t = calloc(1, sizeof *t);
    if (t == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "tuning: no memory");
    }
    t->job = job;
    qn_status status = measure_all(t, err);
    if (status == QN_OK && t->lost != NULL) {
        const qn_gpu_tuning_key *const k = &t->lost->key;
        status = qn_fail(err, QN_E_DEVICE, 0, __func__,
                         "tuning: %s of %u x %u, %u rows: wrong results of all kernels but the "
                         "portable one, right ones expected of those made for %s",
                         qn_gpu_tuned_op_name(k->op), k->n_out, k->n_in, t->lost->n_rows,
                         qn_gpu_get_info(job->gpu)->name);
    }
    if (status == QN_OK) {
        status = write_table(table, t, err);
    }
    if (status == QN_OK && t->n_wrong > 0) {
        qn_log(QN_LOG_WARN, "tuning: %u measurements were left out, their results were wrong",
               t->n_wrong);
    }
    free(t);
    return status;
}

/* ----------------------------------------------------------------------------------- whole job --
 */

static qn_status check_rows(const qn_tune_options *o, qn_error *err)
{
    for (size_t i = 0; i < o->n_rows; i++) {
        const uint32_t n = o->rows[i];
        if (n < 1 || n > QN_TUNE_ROWS_MAX || (n & (n - 1)) != 0 || (i > 0 && n <= o->rows[i - 1])) {
            return qn_fail(err, QN_E_INVAL, 0, __func__,
                           "rows (--rows): %u, powers of two in 1 .. %d expected, ascending", n,
                           QN_TUNE_ROWS_MAX);
        }
    }
    return o->n_rows <= QN_TUNE_N_ROWS_MAX
               ? QN_OK
               : qn_fail(err, QN_E_INVAL, 0, __func__, "rows (--rows): %zu, at most %d expected",
                         o->n_rows, QN_TUNE_N_ROWS_MAX);
}

/* The GPU that is named, or the first that there is. */
static qn_status open_gpu(qn_gpu **out, const char *name, qn_error *err)
{
    const bool is_auto = name == NULL || strcmp(name, "auto") == 0;
    qn_device devices[GPUS_MAX];
    const size_t n = is_auto ? qn_devices(devices, GPUS_MAX) : 0;
    const char *reason = "";
    for (size_t i = 0; i < n; i++) {
        const bool is_gpu = strcmp(devices[i].name, "cpu") != 0;
        if (is_gpu && devices[i].is_usable) {
            return qn_gpu_open(out, devices[i].name, err);
        }
        reason = is_gpu && reason[0] == '\0' ? devices[i].reason : reason;
    }
    if (is_auto) {
        return qn_fail(err, QN_E_DEVICE, 0, __func__,
                       "tune: no GPU that can be used%s%s, one expected",
                       reason[0] != '\0' ? ": " : "", reason);
    }
    if (strcmp(name, "cpu") == 0) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "device (--device): cpu, a GPU expected: kernels of CPUs need no tuning");
    }
    return qn_gpu_open(out, name, err);
}

qn_status qn_parse_expert_kind(qn_weight_kind *out, const char *name, bool is_dummy, qn_error *err)
{
    static const struct {
        const char *name;
        qn_weight_kind kind;
    } kinds[] = {
        {"bf16", QN_WEIGHT_BF16}, {"fp8", QN_WEIGHT_FP8_BLOCK}, {"mxfp4", QN_WEIGHT_MXFP4}};
    *out = QN_WEIGHT_BF16;
    if (name != NULL && !is_dummy) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "expert_weights (--experts): given, expected with dummy weights alone: "
                       "those of a checkpoint are as they are");
    }
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (name == NULL || strcmp(name, kinds[i].name) == 0) {
            *out = kinds[i].kind;
            return QN_OK;
        }
    }
    return qn_fail(err, QN_E_INVAL, 0, __func__,
                   "expert_weights (--experts): \"%.32s\", expected bf16, fp8 or mxfp4", name);
}

/* What says which shapes there are. */
typedef struct source {
    qn_model *model;           /* its config alone */
    qn_checkpoint *checkpoint; /* NULL: dummy weights, by the next two */
    qn_quant_rules rules;
    qn_weight_kind experts;
} source;

static qn_status read_rules(source *from, qn_error *err)
{
    char *const path = qn_path_join(from->model->path, "config.json");
    if (path == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "tuning: no memory");
    }
    const qn_status status = qn_quant_rules_load(&from->rules, path, err);
    free(path);
    return status;
}

static qn_status open_source(source *from, const char *name, const qn_tune_options *o,
                             qn_error *err)
{
    const bool is_dummy = o->model != NULL && o->model->use_dummy_weights;
    const qn_model_options options = {
        .tokenizer_only = true, .tokenizer_optional = true, .use_dummy_weights = is_dummy};
    qn_status status = QN_OK;
    QN_TRY(status, qn_parse_expert_kind(&from->experts, o->expert_weights, is_dummy, err), fail);
    QN_TRY(status, qn_model_open(&from->model, name, &options, err), fail);
    if (is_dummy) {
        status = read_rules(from, err);
    } else {
        status = qn_checkpoint_open(&from->checkpoint, from->model->path, err);
    }
fail:
    return status;
}

static void close_source(source *from)
{
    qn_quant_rules_close(&from->rules);
    qn_checkpoint_close(&from->checkpoint);
    qn_model_close(&from->model);
}

qn_status qn_tune(char **table, const char *model, const qn_tune_options *options, qn_error *err)
{
    static const uint32_t all_rows[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096};
    qn_tune_options o = options != NULL ? *options : (qn_tune_options){0};
    const qn_model_options *const m = o.model;
    source from = {0};
    qn_gpu_kernels *kernels = NULL;
    qn_gpu_tuning *before = NULL;
    qn_tune_job j = {.options = &o};
    qn_status status = QN_OK;
    *table = NULL;
    if (o.n_rows == 0) {
        o.rows = all_rows;
        o.n_rows = sizeof all_rows / sizeof *all_rows;
    }
    QN_TRY(status, check_rows(&o, err), fail);
    if (m != NULL && m->tuning != NULL) {
        QN_TRY(status, qn_gpu_tuning_load(&before, m->tuning, NULL, err), fail);
        qn_gpu_tuning_close(&before);
    }
    QN_TRY(status, open_source(&from, model, &o, err), fail);
    j.config = &from.model->config;
    j.checkpoint = from.checkpoint;
    j.rules = &from.rules;
    j.experts = o.expert_weights != NULL ? &from.experts : NULL;
    QN_TRY(status, open_gpu(&j.gpu, m != NULL ? m->device : NULL, err), fail);
    if (m != NULL && m->tuning != NULL) {
        QN_TRY(status, qn_gpu_tuning_load(&before, m->tuning, qn_gpu_get_info(j.gpu), err), fail);
    }
    QN_TRY(status, qn_gpu_kernels_open(&kernels, j.gpu, qn_gpu_modules, qn_gpu_n_modules, err),
           fail);
    j.kernels = kernels;
    j.before = before;
    j.cold_bytes = 2 * qn_gpu_get_info(j.gpu)->l2_bytes;
    status = qn_tune_on(table, &j, err);
fail:
    qn_gpu_tuning_close(&before);
    qn_gpu_kernels_close(&kernels);
    qn_gpu_close(&j.gpu);
    close_source(&from);
    return status;
}

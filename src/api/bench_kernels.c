/* SPDX-License-Identifier: Apache-2.0 */
#include "api/bench_kernels.h"

#include "quern/tools.h"

#include "api/tune.h"
#include "base/assert.h"
#include "base/huge.h"
#include "base/try.h"

#include <jansson.h>
#include <stdlib.h>

enum { KERNELS_MAX = QN_GLM_PRODUCTS_MAX + 16, CONTEXT_DEFAULT = 4096 };

/* What is timed, and where the timings go. */
typedef struct job {
    const qn_bench_kernels_options *options;
    qn_model *model;
    qn_pool *own_pool; /* where the model has none */
    qn_glm_product products[QN_GLM_PRODUCTS_MAX];
    uint32_t n_products;
    bool has_mtp;
    qn_kernel_choice kernels[KERNELS_MAX];
    size_t n_kernels;
    qn_bench_machine machine;
    json_t *timings;
} job;

static qn_status no_memory(qn_error *err)
{
    return qn_fail(err, QN_E_NOMEM, 0, "qn_bench_kernels", "timings: no memory");
}

/* The model with its weights, or its config alone; and the kernels that serve it. */
static qn_status open_model(job *j, const char *name, qn_error *err)
{
    const qn_model_options *const from = j->options->model;
    qn_model_options options = from != NULL ? *from : (qn_model_options){0};
    qn_status status = QN_OK;
    options.tokenizer_optional = true;
    options.tokenizer_only = options.use_dummy_weights;
    qn_weight_kind experts = QN_WEIGHT_BF16;
    QN_TRY(
        status,
        qn_parse_expert_kind(&experts, j->options->expert_weights, options.use_dummy_weights, err),
        fail);
    QN_TRY(status, qn_model_open(&j->model, name, &options, err), fail);
    qn_model *const m = j->model;
    if (m->gpu != NULL) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "device (--device): %s, cpu expected: qn_tune() times kernels of GPUs",
                       m->info.device);
    }
    if (m->glm == NULL) {
        QN_TRY(status, qn_pool_open(&j->own_pool, options.n_threads, err), fail);
        QN_TRY(status,
               qn_glm_list_config_products(j->products, &j->n_products, &m->config, QN_WEIGHT_BF16,
                                           experts, err),
               fail);
        j->has_mtp = m->config.n_mtp_layers > 0;
    } else {
        j->n_products = qn_glm_list_products(j->products, m->glm);
        j->has_mtp = m->info.has_mtp;
    }
    j->n_kernels =
        qn_list_kernels(j->kernels, KERNELS_MAX, m, j->products, j->n_products, j->has_mtp);
fail:
    return status;
}

static qn_status open_machine(job *j, qn_error *err)
{
    QN_ASSERT(j->model != NULL);
    const uint32_t n_max = j->model->config.n_context_max;
    const uint32_t n = j->options->context_tokens;
    qn_bench_machine *const m = &j->machine;
    *m = (qn_bench_machine){
        .model = j->model,
        .pool = j->own_pool != NULL ? j->own_pool : j->model->pool,
        .n_cold = qn_roof_cold_bytes(),
        .context_tokens = n > 0                     ? n
                          : n_max < CONTEXT_DEFAULT ? n_max
                                                    : CONTEXT_DEFAULT,
    };
    if (m->context_tokens > n_max) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "context_tokens (--context): %u, expected at most the model's %u", n, n_max);
    }
    m->cold = qn_huge_alloc(m->n_cold);
    if (m->cold == NULL) {
        return no_memory(err);
    }
    memset(m->cold, 1, m->n_cold);
    m->roof = qn_roof_measure(j->model->cpu_flags, m->cold, m->n_cold, m->pool);
    return QN_OK;
}

/* ------------------------------------------------------------------------------------- timings */

static json_t *timing_json(const qn_kernel_choice *kernel, const qn_bench_call *c, qn_timing t,
                           const qn_roof *roof)
{
    static const char *const acts[] = {"f32", "bf16", "int8"};
    const double by_bytes = c->is_cold ? c->bytes / roof->bytes_per_s : 0.0;
    const double by_ops = c->has_act ? c->ops / roof->ops_per_s[c->act] : 0.0;
    const double limit_s = by_bytes > by_ops ? by_bytes : by_ops;
    const char *const limit = limit_s == 0.0      ? NULL
                              : by_bytes > by_ops ? "reading"
                                                  : roof->ops_names[c->act];
    return json_pack(
        "{ss, ss, ss, ss, ss?, sI, sI, sI, sI, sf, sf, sI, sf, so, sf, so, ss?, so}", "operation",
        kernel->operation, "weights", kernel->weights, "variant", kernel->variant, "source",
        kernel->source, "activations", c->has_act ? acts[c->act] : NULL, "n_in",
        (json_int_t)c->n_in, "n_out", (json_int_t)c->n_out, "n_uses", (json_int_t)kernel->n_uses,
        "n_rows", (json_int_t)c->n_rows, "median_s", t.median_s, "min_s", t.min_s, "samples",
        (json_int_t)t.n, "bytes", c->bytes, "ops", c->ops > 0 ? json_real(c->ops) : json_null(),
        "bytes_per_s", c->bytes / t.median_s, "ops_per_s",
        c->ops > 0 ? json_real(c->ops / t.median_s) : json_null(), "limit", limit, "limit_share",
        limit_s > 0 ? json_real(limit_s / t.median_s) : json_null());
}

static qn_status time_one(job *j, size_t i_kernel, uint32_t n_rows, qn_error *err)
{
    const qn_kernel_choice *const kernel = &j->kernels[i_kernel];
    /* Products stand first in the list of kernels, in their order. */
    const qn_glm_product *const product = i_kernel < j->n_products ? &j->products[i_kernel] : NULL;
    qn_bench_call call;
    qn_status status = qn_bench_call_open(&call, &j->machine, kernel, product, n_rows, err);
    if (status == QN_OK) {
        const qn_timing timing = qn_time_call(qn_bench_call_run, &call, QN_TIMING_WALL);
        json_t *const record = timing_json(kernel, &call, timing, &j->machine.roof);
        if (json_array_append_new(j->timings, record) != 0) {
            status = no_memory(err);
        }
    }
    qn_bench_call_close(&call);
    return status;
}

static qn_status time_all(job *j, qn_error *err)
{
    const qn_bench_kernels_options *const o = j->options;
    const uint64_t total = j->n_kernels * o->n_rows;
    uint64_t done = 0;
    for (size_t i = 0; i < j->n_kernels; i++) {
        for (size_t r = 0; r < o->n_rows; r++, done++) {
            if (o->progress != NULL && !o->progress(o->progress_context, done, total)) {
                return qn_fail(err, QN_E_CANCELLED, 0, __func__, "timings: cancelled");
            }
            const qn_status status = time_one(j, i, o->rows[r], err);
            if (status < 0) {
                return status;
            }
        }
    }
    return QN_OK;
}

static char *report_text(const job *j)
{
    const qn_model *const m = j->model;
    const qn_roof *const roof = &j->machine.roof;
    json_t *const report = json_pack(
        "{ss, ss, ss, ss, ss, ss, sI, sI, s{sf, sf, sf, sf, ss, ss, ss}, sO}", "format",
        "quern-bench-kernels/1", "model", m->name, "weights", m->glm == NULL ? "none" : "trained",
        "compute", m->info.compute, "kv_dtype", m->info.kv_dtype, "kernels_level", m->info.kernels,
        "n_threads", (json_int_t)qn_pool_threads(j->machine.pool), "context_tokens",
        (json_int_t)j->machine.context_tokens, "limits", "read_bytes_per_s", roof->bytes_per_s,
        "f32_ops_per_s", roof->ops_per_s[QN_ACT_F32], "bf16_ops_per_s",
        roof->ops_per_s[QN_ACT_BF16], "int8_ops_per_s", roof->ops_per_s[QN_ACT_INT8],
        "f32_instruction", roof->ops_names[QN_ACT_F32], "bf16_instruction",
        roof->ops_names[QN_ACT_BF16], "int8_instruction", roof->ops_names[QN_ACT_INT8], "kernels",
        j->timings);
    char *const text = report == NULL ? NULL : json_dumps(report, JSON_REAL_PRECISION(9));
    json_decref(report);
    return text;
}

static qn_status check_rows(const qn_bench_kernels_options *o, qn_error *err)
{
    for (size_t i = 0; o != NULL && i < o->n_rows; i++) {
        if (o->rows[i] < 1 || o->rows[i] > QN_BENCH_ROWS_MAX) {
            return qn_fail(err, QN_E_INVAL, 0, __func__, "rows (--rows): %u, expected 1 to %d",
                           o->rows[i], QN_BENCH_ROWS_MAX);
        }
    }
    return o != NULL && o->n_rows > 0 ? QN_OK
                                      : qn_fail(err, QN_E_INVAL, 0, __func__,
                                                "rows (--rows): none, expected at least one");
}

qn_status qn_bench_kernels(char **report, const char *model,
                           const qn_bench_kernels_options *options, qn_error *err)
{
    qn_status status = QN_OK;
    job *j = NULL;
    *report = NULL;
    QN_TRY(status, check_rows(options, err), fail);
    j = calloc(1, sizeof *j);
    if (j == NULL || (j->timings = json_array()) == NULL) {
        status = no_memory(err);
        goto fail;
    }
    j->options = options;
    QN_TRY(status, open_model(j, model, err), fail);
    QN_TRY(status, open_machine(j, err), fail);
    QN_TRY(status, time_all(j, err), fail);
    *report = report_text(j);
    if (*report == NULL) {
        status = no_memory(err);
    }
fail:
    if (j != NULL) {
        json_decref(j->timings);
        free(j->machine.cold);
        qn_pool_close(&j->own_pool);
        qn_model_close(&j->model);
        free(j);
    }
    return status;
}

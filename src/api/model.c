/* SPDX-License-Identifier: Apache-2.0 */
#include "quern/quern.h"

#include "api/internal.h"
#include "api/locate.h"
#include "base/clock.h"
#include "base/cpu.h"
#include "base/env.h"
#include "base/file.h"
#include "base/log.h"
#include "base/try.h"
#include "device/device.h"
#include "device/gpu_driver.h"
#include "kernels/gpu_tuning.h"

#include <errno.h>
#include <inttypes.h>
#include <unistd.h>

static const char *const compute_names[] = {
    [QN_COMPUTE_AUTO] = "auto",
    [QN_COMPUTE_F32] = "f32",
    [QN_COMPUTE_BF16] = "bf16",
    [QN_COMPUTE_INT8] = "int8",
};
static const char *const kv_dtype_names[] = {
    [QN_KV_AUTO] = "auto",
    [QN_KV_BF16] = "bf16",
    [QN_KV_F32] = "f32",
    [QN_KV_FP8] = "fp8",
};

/* chat_template.jinja of GLM-5.2 has 5,076 bytes. */
enum { TEMPLATE_BYTES_MAX = 1 << 20 };
enum { GPU_RESERVE_BYTES = 1 << 30 }; /* of a GPU's memory no page is made */

#define LEN(array) (sizeof(array) / sizeof((array)[0]))

/* DIR/NAME in *out, owned by the caller. */
static qn_status join(char **out, const char *dir, const char *name, qn_error *err)
{
    *out = qn_path_join(dir, name);
    return *out != NULL ? QN_OK
                        : qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "%s/%s: no memory", dir, name);
}

/* What would be a warning about the model is an error with --strict. */
static qn_status warn(const qn_model_options *o, const char *text, const char *what, qn_error *err)
{
    if (o->strict) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__, "%s: %s (--strict)", what, text);
    }
    qn_log(QN_LOG_WARN, "%s: %s", what, text);
    return QN_OK;
}

/* Is it the name of a device that qn_gpu_open() opens? */
static bool names_gpu(const char *device)
{
    return device != NULL && (strncmp(device, "cuda", 4) == 0 || strncmp(device, "hip", 3) == 0);
}

/* Arithmetic is bf16 on a GPU, and no kernel reads f32 rows of the cache. */
static qn_status check_gpu_options(const qn_model_options *o, qn_error *err)
{
    if (o->compute != QN_COMPUTE_AUTO && o->compute != QN_COMPUTE_BF16) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "compute (--compute): %s, auto or bf16 expected on a GPU",
                       compute_names[o->compute]);
    }
    if (o->kv_dtype == QN_KV_F32) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "kv_dtype (--kv-dtype): f32, auto, bf16 or fp8 expected on a GPU");
    }
    return QN_OK;
}

/* As qn_devices() names it, a GPU that was named without a number, too; NULL: the CPU. */
static void name_device(qn_model *m, const char *gpu)
{
    uint32_t i_device = 0;
    const qn_gpu_driver *const driver = gpu != NULL ? qn_gpu_find_driver(&i_device, gpu) : NULL;
    if (driver == NULL) {
        (void)snprintf(m->device, sizeof m->device, "cpu");
    } else {
        (void)snprintf(m->device, sizeof m->device, "%s:%u", driver->name, i_device);
    }
}

/* A table that no device would be opened with, told before one is. */
static qn_status check_tuning(const qn_model_options *o, qn_error *err)
{
    qn_gpu_info device;
    qn_gpu_tuning *tuning = NULL;
    uint32_t i_device = 0;
    const qn_gpu_driver *const driver = qn_gpu_find_driver(&i_device, o->device);
    qn_status status = qn_gpu_describe(&device, driver, i_device, err);
    if (status == QN_OK) {
        status = qn_gpu_tuning_load(&tuning, o->tuning, &device, err);
    }
    qn_gpu_tuning_close(&tuning);
    return status;
}

/* A row of another version: what it is for becomes a fallback, and this says why. */
static void warn_of_variants(const qn_gpu_tuning *tuning)
{
    uint32_t n_rows = 0;
    uint32_t n_unknown = 0;
    const qn_gpu_tuning_row *first = NULL;
    const qn_gpu_tuning_row *const rows = qn_gpu_tuning_rows(tuning, &n_rows);
    for (uint32_t i = 0; i < n_rows; i++) {
        if (rows[i].i_variant == UINT32_MAX) {
            first = first == NULL || rows[i].line < first->line ? &rows[i] : first;
            n_unknown++;
        }
    }
    if (first != NULL) {
        qn_log(QN_LOG_WARN,
               "tuning: %s: line %u: variant %s is none of this build, nor are those of %u rows "
               "behind it; rules choose for them, as fallbacks",
               qn_gpu_tuning_name(tuning), first->line, first->variant, n_unknown - 1);
    }
}

/* Measured choices, and what a device without them gets. */
static qn_status open_tuning(qn_model *m, const qn_model_options *o, qn_error *err)
{
    const qn_gpu_info *const device = qn_gpu_get_info(m->gpu);
    qn_gpu_tuning *tuning = NULL;
    const qn_status status = qn_gpu_tuning_load(&tuning, o->tuning, device, err);
    if (status < 0) {
        return status;
    }
    if (tuning == NULL) {
        qn_log(QN_LOG_WARN, "tuning: no table of %s, rules choose kernels; 'quern tune' makes one",
               device->name);
    } else if (qn_gpu_tuning_is_untuned(tuning)) {
        qn_log(QN_LOG_WARN, "tuning: %s: nothing was measured on %s yet, rules choose kernels",
               qn_gpu_tuning_name(tuning), device->arch);
    } else {
        qn_log(QN_LOG_INFO, "tuning: %s", qn_gpu_tuning_name(tuning));
        warn_of_variants(tuning);
    }
    qn_gpu_kernels_tune(m->gpu_kernels, tuning);
    return QN_OK;
}

/* A GPU with its kernels. */
static qn_status open_gpu(qn_model *m, const qn_model_options *o, qn_error *err)
{
    qn_status status = QN_OK;
    QN_TRY(status, qn_gpu_open(&m->gpu, o->device, err), fail);
    QN_TRY(status,
           qn_gpu_kernels_open(&m->gpu_kernels, m->gpu, qn_gpu_modules, qn_gpu_n_modules, err),
           fail);
    m->info.kernels = qn_gpu_get_info(m->gpu)->arch;
    QN_TRY(status, open_tuning(m, o, err), fail);
fail:
    return status;
}

/* Device, arithmetic and kernels: everything that does not depend on the model. */
static qn_status choose_machine(qn_model *m, const qn_model_options *o, qn_error *err)
{
    qn_status status = QN_OK;
    const char *archs[QN_ARCHS_MAX];
    const bool is_gpu = names_gpu(o->device);
    if ((size_t)o->compute >= LEN(compute_names) || (size_t)o->kv_dtype >= LEN(kv_dtype_names)) {
        status = qn_fail(err, QN_E_INVAL, 0, __func__,
                         "compute %d, kv_dtype %d: no such value, one of the enumeration expected",
                         (int)o->compute, (int)o->kv_dtype);
        goto fail;
    }
    if (is_gpu) {
        QN_TRY(status, check_gpu_options(o, err), fail);
    }
    QN_TRY(status, qn_device_check(o->device, o->device_option, archs, qn_list_archs(archs), err),
           fail);
    /* int8 is for MXFP4 alone, so it is what each weight's own dtype asks for. */
    m->compute = o->compute != QN_COMPUTE_AUTO ? o->compute
                 : is_gpu                      ? QN_COMPUTE_BF16
                                               : QN_COMPUTE_INT8;
    m->kv_dtype = o->kv_dtype;
    if (m->kv_dtype == QN_KV_AUTO) {
        m->kv_dtype = m->compute == QN_COMPUTE_F32 ? QN_KV_F32 : QN_KV_BF16;
    }
    uint32_t cpu_mask = UINT32_MAX;
    const char *const level = o->cpu_mask != NULL ? o->cpu_mask : qn_env_get(QN_ENV_CPU_MASK);
    if (level != NULL) {
        QN_TRY(status, qn_cpu_mask_parse(&cpu_mask, level, err), fail);
    }
    m->cpu_flags = qn_cpu_flags() & cpu_mask;
    qn_kernels_init(&m->kernels, m->cpu_flags);
    m->info.kernels = qn_kernels_level(m->cpu_flags);
    name_device(m, is_gpu ? o->device : NULL);
    if (o->tuning != NULL && !is_gpu) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "tuning (--tuning): %.300s, none expected on a CPU", o->tuning);
    }
    if (is_gpu && !o->tokenizer_only) {
        status = open_gpu(m, o, err);
    }
fail:
    return status;
}

/* config.json and generation_config.json. */
static qn_status load_configs(qn_model *m, qn_error *err)
{
    qn_status status = QN_OK;
    char *config_path = NULL;
    char *generation_path = NULL;
    qn_generation_config generation;
    QN_TRY(status, join(&config_path, m->path, "config.json", err), fail);
    QN_TRY(status, join(&generation_path, m->path, "generation_config.json", err), fail);
    QN_TRY(status, qn_config_load(&m->config, config_path, err), fail);
    QN_TRY(status, qn_generation_config_load(&generation, generation_path, m->config.n_vocab, err),
           fail);
    if (generation.n_stop_ids > 0) {
        memcpy(m->config.stop_ids, generation.stop_ids, sizeof m->config.stop_ids);
        m->config.n_stop_ids = generation.n_stop_ids;
    }
    m->info.sampling = (qn_sampling){
        .temperature = generation.do_sample ? generation.temperature : 0.0F,
        .top_p = generation.top_p,
        .top_k = generation.top_k,
        .min_p = generation.min_p,
        .repetition_penalty = generation.repetition_penalty,
    };
fail:
    free(config_path);
    free(generation_path);
    return status;
}

/* Do tokenizer and config speak of the same vocabulary? */
static qn_status check_tokenizer(const qn_model *m, const char *path, qn_error *err)
{
    const uint32_t n_tokens = qn_tokenizer_size(m->tokenizer);
    if (n_tokens > m->config.n_vocab) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__,
                       "%s: ids up to %u, ids below config.json's vocab_size %u expected", path,
                       n_tokens - 1, m->config.n_vocab);
    }
    for (uint32_t i = 0; i < m->config.n_stop_ids; i++) {
        const int32_t id = m->config.stop_ids[i];
        if (qn_tokenizer_bytes(m->tokenizer, id).len == 0) {
            return qn_fail(err, QN_E_FORMAT, 0, __func__,
                           "%s: no token of id %" PRId32 ", one expected as eos_token_id names it",
                           path, id);
        }
    }
    return QN_OK;
}

/* tokenizer.json; dummy weights, and who gives and takes ids, do without where there is none. */
static qn_status load_tokenizer(qn_model *m, const qn_model_options *o, qn_error *err)
{
    qn_status status = QN_OK;
    char *path = NULL;
    const char *const dir = o->tokenizer_dir != NULL ? o->tokenizer_dir : m->path;
    QN_TRY(status, join(&path, dir, "tokenizer.json", err), fail);
    const bool is_optional =
        (o->use_dummy_weights || o->tokenizer_optional) && o->tokenizer_dir == NULL;
    if (!is_optional || access(path, F_OK) == 0) {
        QN_TRY(status, qn_tokenizer_open_file(&m->tokenizer, path, err), fail);
        QN_TRY(status, check_tokenizer(m, path, err), fail);
    }
fail:
    free(path);
    return status;
}

/* GLM-5 and 5.1 have no layer that takes over the index set of another. */
static bool has_index_share(const qn_config *config)
{
    uint32_t i = 0;
    while (i < config->n_layers && config->is_index_full[i]) {
        i++;
    }
    return i < config->n_layers;
}

/* The prompt format: as told, else by chat_template.jinja beside the model, else by the config. */
static qn_status choose_chat_format(qn_model *m, const qn_model_options *o, qn_error *err)
{
    if (o->chat_format != NULL && strcmp(o->chat_format, "auto") != 0) {
        return qn_chat_format_parse(&m->chat_format, o->chat_format, err);
    }
    qn_status status = QN_OK;
    bool is_known = false;
    char *path = NULL;
    qn_buf text;
    qn_buf_init(&text, TEMPLATE_BYTES_MAX);
    QN_TRY(status, join(&path, m->path, "chat_template.jinja", err), fail);
    status = qn_file_read(&text, path, err);
    const bool is_there = status != QN_E_NOT_FOUND; /* most folders have it, none needs it */
    status = is_there ? status : QN_OK;
    QN_TRY(status, status, fail);
    m->chat_format =
        qn_chat_format_choose(qn_buf_view(&text), has_index_share(&m->config), &is_known);
    if (is_there && (text.len == 0 || !is_known)) {
        char what[64];
        (void)snprintf(what, sizeof what, "an unknown template, %s taken by config.json",
                       qn_chat_format_name(m->chat_format));
        QN_TRY(status, warn(o, what, path, err), fail);
    }
fail:
    qn_buf_deinit(&text);
    free(path);
    return status;
}

/* Storage is read from each tensor; a config.json that says otherwise misleads other engines. */
static qn_status check_declared(const qn_model *m, const qn_model_options *o, qn_error *err)
{
    static const char *const declared[] = {[QN_QUANT_NONE] = "none",
                                           [QN_QUANT_FP8] = "fp8",
                                           [QN_QUANT_QUARK] = "quark",
                                           [QN_QUANT_OTHER] = "a method that quern does not know"};
    const char *const seen = qn_glm_quantization(m->glm);
    const qn_quant_declared said = m->config.quant_declared;
    const bool is_quantized = strcmp(seen, "none") != 0;
    const bool is_right = said == QN_QUANT_NONE    ? !is_quantized
                          : said == QN_QUANT_FP8   ? strcmp(seen, "fp8") == 0
                          : said == QN_QUANT_QUARK ? is_quantized
                                                   : false;
    if (is_right) {
        return QN_OK;
    }
    char text[160];
    (void)snprintf(text, sizeof text,
                   "quantization_config declares %s, the tensors are stored as %s: taken as stored",
                   declared[said], seen);
    return warn(o, text, m->path, err);
}

/* Dummy weights, stored as config.json declares them. */
static qn_status make_weights(qn_model *m, uint64_t seed, qn_glm_options *options, qn_error *err)
{
    qn_status status = QN_OK;
    qn_quant_rules rules = {0};
    char *path = NULL;
    QN_TRY(status, join(&path, m->path, "config.json", err), fail);
    QN_TRY(status, qn_quant_rules_load(&rules, path, err), fail);
    options->rules = &rules;
    status = qn_glm_open_dummy(&m->glm, &m->config, seed, options, err);
fail:
    qn_quant_rules_close(&rules);
    free(path);
    return status;
}

static qn_status load_weights(qn_model *m, const qn_model_options *o, qn_error *err)
{
    qn_status status = QN_OK;
    qn_checkpoint *checkpoint = NULL;
    QN_TRY(status, qn_pool_open(&m->pool, o->n_threads, err), fail);
    qn_glm_options options = {.kernels = &m->kernels,
                              .pool = m->pool,
                              .compute = m->compute,
                              .n_rows_max = QN_CHUNK_TOKENS_MAX,
                              .progress = o->progress,
                              .progress_context = o->progress_context,
                              .gpu = m->gpu,
                              .gpu_kernels = m->gpu_kernels,
                              .is_deterministic = o->is_deterministic};
    if (o->use_dummy_weights) {
        QN_TRY(status, make_weights(m, o->dummy_seed, &options, err), fail);
    } else {
        QN_TRY(status, qn_checkpoint_open(&checkpoint, m->path, err), fail);
        QN_TRY(status, qn_glm_open(&m->glm, &m->config, checkpoint, &options, err), fail);
        QN_TRY(status, check_declared(m, o, err), fail);
    }
    if (m->config.n_mtp_layers > 0 && !qn_glm_has_mtp(m->glm)) {
        QN_TRY(status,
               warn(o,
                    "no tensor of the MTP layer that config.json names, loads without speculation",
                    m->path, err),
               fail);
    }
fail:
    qn_checkpoint_close(&checkpoint);
    return status;
}

/* A line for each kernel: which one, and why. */
static void log_kernels(const qn_model *m)
{
    if (!qn_log_enabled(QN_LOG_INFO)) {
        return;
    }
    const size_t n = qn_model_kernels(NULL, 0, m);
    qn_kernel_choice *const choices = calloc(n + 1, sizeof *choices);
    if (choices == NULL) {
        return;
    }
    (void)qn_model_kernels(choices, n, m);
    for (size_t i = 0; i < n; i++) {
        const qn_kernel_choice *const c = &choices[i];
        char rows[16];
        if (c->n_rows > 0 && c->n_rows < UINT32_MAX) {
            (void)snprintf(rows, sizeof rows, "%u", c->n_rows);
        } else {
            (void)snprintf(rows, sizeof rows, "%s", c->n_rows == 0 ? "any" : "more");
        }
        qn_log(QN_LOG_INFO,
               "kernel: operation=%s weights=%s out=%u in=%u groups=%u pair=%d rows=%s variant=%s "
               "source=%s",
               c->operation, c->weights, c->n_out, c->n_in, c->n_groups, c->is_pair ? 1 : 0, rows,
               c->variant, c->source);
    }
    free(choices);
}

static void fill_info(qn_model *m, const qn_model_options *o, uint64_t start_ns)
{
    qn_model_info *const info = &m->info;
    info->name = m->name;
    info->path = m->path;
    info->architecture = "GlmMoeDsaForCausalLM";
    info->quantization = "none";
    info->weights = o->tokenizer_only ? "none" : o->use_dummy_weights ? "dummy" : "trained";
    info->device = m->device;
    info->compute = compute_names[m->compute];
    info->kv_dtype = kv_dtype_names[m->kv_dtype];
    info->chat_format = qn_chat_format_name(m->chat_format);
    info->n_layers = m->config.n_layers;
    info->n_embd = m->config.n_embd;
    info->n_vocab = m->config.n_vocab;
    info->n_context_max = m->config.n_context_max;
    info->has_tokenizer = m->tokenizer != NULL;
    info->is_deterministic = !names_gpu(m->device) || o->is_deterministic;
    if (m->glm != NULL) {
        info->quantization = qn_glm_quantization(m->glm);
        info->n_parameters = qn_glm_parameters(m->glm);
        info->weight_bytes = qn_glm_weight_bytes(m->glm);
        info->n_threads = qn_pool_threads(m->pool);
        info->has_mtp = qn_glm_has_mtp(m->glm);
    }
    if (o->compute == QN_COMPUTE_AUTO && strcmp(info->quantization, "mxfp4") != 0) {
        info->compute = compute_names[QN_COMPUTE_BF16]; /* no weight is there for int8 */
    }
    info->load_s = (double)(qn_clock_ns() - start_ns) * 1e-9;
    qn_log(QN_LOG_INFO,
           "%s: device=%s kernels=%s compute=%s kv=%s weights=%s quantization=%s bytes=%" PRIu64
           " threads=%u deterministic=%d load_s=%.2f",
           info->name, info->device, info->kernels, info->compute, info->kv_dtype, info->weights,
           info->quantization, info->weight_bytes, info->n_threads, info->is_deterministic ? 1 : 0,
           info->load_s);
}

qn_status qn_model_options_check(const qn_model_options *options, qn_error *err)
{
    qn_model_options o = options != NULL ? *options : (qn_model_options){0};
    qn_model *m = calloc(1, sizeof *m);
    if (m == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "model: no memory");
    }
    o.tokenizer_only = true;
    qn_status status = choose_machine(m, &o, err);
    if (status == QN_OK && o.tuning != NULL) { /* of a GPU, or it was refused */
        status = check_tuning(&o, err);
    }
    qn_model_close(&m);
    return status;
}

qn_status qn_model_open(qn_model **out, const char *name, const qn_model_options *options,
                        qn_error *err)
{
    static const qn_model_options defaults = {0};
    const qn_model_options *const o = options != NULL ? options : &defaults;
    const uint64_t start_ns = qn_clock_ns();
    qn_status status = QN_OK;
    *out = NULL;
    if (name == NULL) {
        return qn_fail(err, QN_E_INVAL, 0, __func__, "model: NULL, a name expected");
    }
    qn_model *m = calloc(1, sizeof *m);
    if (m == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "%s: no memory", name);
    }
    m->name = strdup(name);
    if (m->name == NULL) {
        status = qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "%s: no memory", name);
        goto fail;
    }
    QN_TRY(status, choose_machine(m, o, err), fail);
    QN_TRY(status, qn_locate_model(&m->path, name, err), fail);
    QN_TRY(status, load_configs(m, err), fail);
    QN_TRY(status, choose_chat_format(m, o, err), fail);
    QN_TRY(status, load_tokenizer(m, o, err), fail);
    if (!o->tokenizer_only) {
        QN_TRY(status, load_weights(m, o, err), fail);
    }
    if (m->tokenizer == NULL && !o->use_dummy_weights) { /* said last: an error stands alone */
        QN_TRY(status, warn(o, "no tokenizer.json, ids print as <id>", m->path, err), fail);
    }
    fill_info(m, o, start_ns);
    log_kernels(m);
    if (err != NULL) {
        *err = (qn_error){0}; /* files that may be missing have left their mark */
    }
    *out = m;
    return QN_OK;

fail:
    qn_model_close(&m);
    return status;
}

void qn_model_close(qn_model **model)
{
    if (model == NULL || *model == NULL) {
        return;
    }
    qn_model *const m = *model;
    qn_glm_close(&m->glm); /* before what it borrows */
    qn_gpu_kernels_close(&m->gpu_kernels);
    qn_gpu_close(&m->gpu);
    qn_pool_close(&m->pool);
    qn_tokenizer_close(&m->tokenizer);
    free(m->name);
    free(m->path);
    free(m);
    *model = NULL;
}

uint64_t qn_model_cache_bytes(const qn_model *model)
{
    if (model->gpu == NULL) {
        return qn_cpu_ram_bytes() / 4;
    }
    /* For what a driver takes as it goes, and for others. */
    const uint64_t part_bytes = qn_gpu_get_info(model->gpu)->memory_bytes / 16;
    const uint64_t reserve_bytes = part_bytes < GPU_RESERVE_BYTES ? part_bytes : GPU_RESERVE_BYTES;
    const uint64_t free_bytes = qn_gpu_free_bytes(model->gpu);
    return free_bytes > reserve_bytes ? free_bytes - reserve_bytes : 0;
}

const qn_model_info *qn_model_get_info(const qn_model *model)
{
    return &model->info;
}

bool qn_model_is_stop(const qn_model *model, int32_t token)
{
    for (uint32_t i = 0; i < model->config.n_stop_ids; i++) {
        if (model->config.stop_ids[i] == token) {
            return true;
        }
    }
    return false;
}

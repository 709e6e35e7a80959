/* SPDX-License-Identifier: Apache-2.0 */
#include "quant/quantize.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/try.h"
#include "format/checkpoint.h"
#include "quant/mill.h"
#include "quant/quark_config.h"
#include "quant/sources.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum { OUT_BYTES_MAX = 512 << 20 };

/* One call, from its arguments to its report.  Begins as zeros. */
typedef struct run {
    const qn_quantize_options *options;
    const qn_kernels *kernels;
    const char *source;
    const char *target_path;
    qn_target target;
    qn_buf config; /* text of the source's config.json */
    qn_recipe recipe;
    qn_manifest manifest; /* of an earlier run until the plan stands, then of this one */
    qn_plan plan;
    qn_exclusions exclusions;
    qn_mill *mill;
    bool has_activations;
    uint64_t rest_bytes;    /* files that are no weights */
    uint64_t needed_bytes;  /* still to be written */
    uint64_t free_bytes;    /* there, for these */
    uint64_t at_once_bytes; /* most that is ever there beside what is free now */
    size_t n_resumed;       /* shards that were done before */
    uint64_t n_bytes;       /* of the source that were read, or sampled */
    double seconds;         /* for these */
    qn_error *err;
} run;

static qn_status no_memory(const run *r)
{
    return qn_fail(r->err, QN_E_NOMEM, ENOMEM, __func__, "quantize: no memory");
}

static const char *recipe_name(const run *r)
{
    return r->options->recipe != NULL ? r->options->recipe : "experts";
}

static const char *scale_name(const run *r)
{
    return r->options->scale == QN_SCALE_MSE ? "mse" : "even";
}

/* ------------------------------------------------------------------------------------ begin -- */

static qn_status read_config(run *r)
{
    char *const path = qn_path_join(r->source, QN_CONFIG_NAME);
    uint32_t n_layers = 0;
    qn_status status = path != NULL ? QN_OK : no_memory(r);
    QN_TRY(status, status, fail);
    QN_TRY(status, qn_file_read(&r->config, path, r->err), fail);
    QN_TRY(status, qn_quark_read_layers(&n_layers, qn_buf_view(&r->config), path, r->err), fail);
    QN_TRY(status,
           qn_recipe_open(&r->recipe, recipe_name(r), n_layers, r->options->quantizes_mtp, r->err),
           fail);
    r->has_activations = r->options->activations == QN_ACTIVATIONS_MXFP4 ||
                         (r->options->activations == QN_ACTIVATIONS_DEFAULT &&
                          strcmp(recipe_name(r), "experts") == 0);
fail:
    free(path);
    return status;
}

/* What has to be the same when a run goes on; NULL without memory. */
static json_t *identity_of(const run *r)
{
    char config_hash[17];
    json_t *const rules = qn_recipe_json(&r->recipe);
    (void)snprintf(config_hash, sizeof config_hash, "%016" PRIx64,
                   (uint64_t)XXH3_64bits(r->config.ptr, r->config.len));
    return rules == NULL ? NULL
                         : json_pack("{so, ss, ss, ss, ss, ss}", "recipe", rules, "mtp",
                                     r->options->quantizes_mtp ? "mxfp4" : "bf16", "activations",
                                     r->has_activations ? "mxfp4" : "none", "scale", scale_name(r),
                                     "fp8", r->options->fp8 == QN_FP8_KEEP ? "keep" : "bf16",
                                     "config_xxh3", config_hash);
}

/* The manifest of the run to go on with, which has to be about the same. */
static qn_status read_manifest(run *r, const json_t *identity)
{
    qn_buf text;
    char *const path = qn_path_join(r->target_path, QN_MANIFEST_NAME);
    qn_status status = path != NULL ? QN_OK : no_memory(r);
    qn_buf_init(&text, QN_MANIFEST_BYTES_MAX);
    QN_TRY(status, status, fail);
    QN_TRY(status, qn_file_read(&text, path, r->err), fail);
    QN_TRY(status, qn_manifest_parse(&r->manifest, qn_buf_view(&text), path, r->err), fail);
    QN_TRY(status, qn_manifest_match(&r->manifest, identity, path, r->err), fail);
fail:
    qn_buf_deinit(&text);
    free(path);
    return status;
}

static qn_status write_text(const run *r, const char *name, const qn_buf *text)
{
    return qn_target_replace(&r->target, name, qn_buf_view(text), r->err);
}

/* A new manifest: every shard, none done. */
static qn_status begin_manifest(run *r, json_t *identity)
{
    qn_buf text;
    qn_status status = QN_OK;
    qn_buf_init(&text, QN_MANIFEST_BYTES_MAX);
    QN_TRY(status, qn_manifest_init(&r->manifest, json_incref(identity), r->err), fail);
    for (size_t i = 0; i < r->plan.n_shards; i++) {
        const qn_plan_shard *const shard = &r->plan.shards[i];
        const qn_manifest_shard entry = {
            .file = shard->file,
            .source_bytes = shard->source_bytes,
            .source_mtime_ns = shard->source_mtime_ns,
            .source_head = shard->head_hash,
        };
        QN_TRY(status, qn_manifest_add(&r->manifest, &entry, r->err), fail);
    }
    if (!r->options->is_dry_run) {
        QN_TRY(status, qn_manifest_append(&text, &r->manifest, r->err), fail);
        QN_TRY(status, write_text(r, QN_MANIFEST_NAME, &text), fail);
    }
fail:
    qn_buf_deinit(&text);
    return status;
}

/* Deleting a link would free nothing, and what it leads to may be another model's. */
static qn_status check_deletable(const run *r)
{
    qn_status status = QN_OK;
    for (size_t i = 0; r->options->deletes_source && i < r->plan.n_shards && status == QN_OK; i++) {
        struct stat info;
        char *const path = qn_path_join(r->source, r->plan.shards[i].file);
        if (path == NULL) {
            status = no_memory(r);
        } else if (lstat(path, &info) == 0 && S_ISLNK(info.st_mode)) {
            status = qn_fail(r->err, QN_E_INVAL, 0, __func__,
                             "--delete-source: %.300s is a link, a file of the folder itself "
                             "expected",
                             path);
        } else if (access(r->source, W_OK | X_OK) != 0) {
            status = qn_fail(r->err, QN_E_IO, errno, __func__,
                             "--delete-source: %.300s: %s, a folder whose files may be deleted "
                             "expected",
                             r->source, strerror(errno));
        }
        free(path);
    }
    return status;
}

/* What a run that was stopped has left of a shard that is to be written goes first, or it would
 * need its room twice.  Bytes that stay for now, in a dry run. */
static uint64_t clear(const run *r, const char *file)
{
    if (r->options->is_dry_run) {
        return qn_target_bytes(&r->target, file);
    }
    qn_target_drop(&r->target, file);
    qn_target_remove(&r->target, file);
    return 0;
}

/* What is still to be written has to fit.  Where sources are deleted on the way, two shards are
 * there twice at most. */
static qn_status check_room(run *r)
{
    uint64_t largest = 0;
    uint64_t left_bytes = 0;
    r->needed_bytes = r->rest_bytes;
    for (size_t i = 0; i < r->plan.n_shards; i++) {
        const uint64_t out_bytes = r->plan.shards[i].out_bytes;
        if (!qn_manifest_get(&r->manifest, i).is_done) {
            left_bytes += clear(r, r->plan.shards[i].file);
            r->needed_bytes += out_bytes;
            largest = out_bytes > largest ? out_bytes : largest;
        }
    }
    const uint64_t free_bytes = qn_target_free_bytes(r->target_path);
    r->free_bytes = free_bytes + left_bytes < free_bytes ? UINT64_MAX : free_bytes + left_bytes;
    r->at_once_bytes = r->options->deletes_source && r->needed_bytes > 2 * largest
                           ? r->rest_bytes + 2 * largest
                           : r->needed_bytes;
    if (r->options->is_dry_run || r->free_bytes >= r->at_once_bytes) {
        return QN_OK;
    }
    return qn_fail(r->err, QN_E_IO, ENOSPC, __func__,
                   "%.300s: %" PRIu64 " bytes free, %" PRIu64 " expected for what is to be written",
                   r->target_path, r->free_bytes, r->at_once_bytes);
}

/* Everything up to the first byte of weights. */
static qn_status begin(run *r)
{
    const qn_quantize_options *const o = r->options;
    json_t *identity = NULL;
    qn_status status = QN_OK;
    QN_TRY(status, read_config(r), fail);
    identity = identity_of(r);
    if (identity == NULL) {
        return no_memory(r);
    }
    QN_TRY(status,
           qn_target_open(&r->target, r->target_path, r->source, o->resumes, o->is_dry_run, r->err),
           fail);
    if (r->target.has_manifest) {
        QN_TRY(status, read_manifest(r, identity), fail);
    }
    QN_TRY(status,
           qn_plan_open(&r->plan, r->source, r->target_path,
                        r->target.has_manifest ? &r->manifest : NULL, &r->recipe, o->fp8, r->err),
           fail);
    QN_TRY(status, qn_exclusions_open(&r->exclusions, &r->plan, r->recipe.n_layers, r->err), fail);
    QN_TRY(status, check_deletable(r), fail);
    QN_TRY(status, qn_sources_copy_rest(&r->rest_bytes, r->source, NULL, r->err), fail);
    if (!r->target.has_manifest) {
        QN_TRY(status, begin_manifest(r, identity), fail);
    }
    QN_TRY(status, check_room(r), fail);
fail:
    json_decref(identity);
    return status;
}

/* ------------------------------------------------------------------------------------ write -- */

/* The rest of the folder; what makes it a model comes last. */
static qn_status write_rest(run *r)
{
    const qn_quark_settings settings = {
        .has_activations = r->has_activations,
        .scale = r->options->scale,
    };
    qn_buf index;
    qn_buf config;
    qn_status status = QN_OK;
    qn_buf_init(&index, OUT_BYTES_MAX);
    qn_buf_init(&config, OUT_BYTES_MAX);
    QN_TRY(status,
           qn_quark_config_append(&config, qn_buf_view(&r->config), QN_CONFIG_NAME, &r->exclusions,
                                  &settings, r->err),
           fail);
    QN_TRY(status, qn_quark_index_append(&index, &r->plan, r->err), fail);
    QN_TRY(status, qn_sources_copy_rest(&r->rest_bytes, r->source, &r->target, r->err), fail);
    QN_TRY(status, write_text(r, QN_INDEX_NAME, &index), fail);
    QN_TRY(status, write_text(r, QN_CONFIG_NAME, &config), fail);
fail:
    qn_buf_deinit(&index);
    qn_buf_deinit(&config);
    return status;
}

static qn_status write_all(run *r)
{
    const qn_quantize_options *const o = r->options;
    const qn_mill_options options = {
        .plan = &r->plan,
        .kernels = r->kernels,
        .target = &r->target,
        .manifest = &r->manifest,
        .scale = o->scale,
        .deletes_source = o->deletes_source,
        .n_threads = o->n_threads,
        .progress = o->progress,
        .progress_context = o->progress_context,
    };
    const uint64_t begin_ns = qn_clock_ns();
    qn_status status = QN_OK;
    QN_TRY(status, qn_mill_open(&r->mill, &options, r->err), fail);
    if (o->is_dry_run) {
        return qn_mill_sample(r->mill, &r->n_bytes, &r->seconds, r->err);
    }
    QN_TRY(status, qn_mill_run(r->mill, &r->n_resumed, &r->n_bytes, r->err), fail);
    QN_TRY(status, write_rest(r), fail);
    r->seconds = qn_clock_seconds(begin_ns, qn_clock_ns());
fail:
    return status;
}

/* ----------------------------------------------------------------------------------- report -- */

/* Each kind, from what the manifest says of each shard, or in a dry run from the plan. */
static json_t *kinds_of(const run *r)
{
    qn_kind_stats *const stats = calloc(QN_N_STATS, sizeof *stats);
    for (size_t i = 0; stats != NULL && i < r->plan.n_shards; i++) {
        const qn_manifest_shard done = qn_manifest_get(&r->manifest, i);
        if (done.is_done) {
            qn_kinds_add_json(stats, done.kinds);
        } else {
            qn_plan_add_stats(stats, &r->plan.shards[i]);
        }
    }
    json_t *const kinds = stats != NULL ? qn_kinds_json(stats) : NULL;
    free(stats);
    if (kinds != NULL && !qn_kinds_derive(kinds)) {
        json_decref(kinds);
        return NULL;
    }
    return kinds;
}

/* Append the names, or the aliases among them. */
static bool append_names(json_t *list, const qn_module_names *names, bool only_aliases)
{
    bool is_whole = list != NULL;
    for (size_t i = 0; i < names->n_names; i++) {
        const qn_module_name *const one = &names->names[i];
        is_whole = is_whole && ((only_aliases && !one->is_alias) ||
                                json_array_append_new(list, json_string(one->text)) == 0);
    }
    return is_whole;
}

/* What a dry run knows and others do not, or the other way round. */
static json_t *times_of(const run *r)
{
    const double rate = r->seconds > 0.0 ? (double)r->n_bytes / r->seconds : 0.0;
    if (!r->options->is_dry_run) {
        return json_pack("{sf, sI, sf}", "elapsed_s", r->seconds, "read_bytes",
                         (json_int_t)r->n_bytes, "bytes_per_s", rate);
    }
    const uint64_t free_bytes = r->free_bytes > INT64_MAX ? INT64_MAX : r->free_bytes;
    json_t *const estimate =
        rate > 0.0 ? json_real((double)r->plan.source_bytes / rate) : json_null();
    return json_pack("{so, sI, sf, sI, sI, sI, sb}", "estimate_s", estimate, "sample_bytes",
                     (json_int_t)r->n_bytes, "sample_bytes_per_s", rate, "needed_bytes",
                     (json_int_t)r->needed_bytes, "at_once_bytes", (json_int_t)r->at_once_bytes,
                     "free_bytes", (json_int_t)free_bytes, "fits",
                     (int)(r->free_bytes >= r->at_once_bytes));
}

/* What was asked for; a path need not be UTF-8. */
static json_t *text_json(const char *text, const char *otherwise)
{
    json_t *const name = json_string(text);
    return name != NULL ? name : json_string(otherwise);
}

/* A count of all kinds together. */
static json_int_t sum_of(const json_t *kinds, const char *key)
{
    uint64_t sum = 0; /* a manifest may say what it likes */
    size_t i = 0;
    json_t *row = NULL;
    json_array_foreach(kinds, i, row)
    {
        sum += (uint64_t)json_integer_value(json_object_get(row, key));
    }
    return (json_int_t)sum;
}

static qn_status make_report(char **report, const run *r)
{
    json_t *const kinds = kinds_of(r);
    json_t *const exclude = json_array();
    json_t *const aliases = json_array();
    json_t *const times = times_of(r);
    json_t *root = json_pack(
        "{ss, so, so, so, ss, ss, ss, ss, sb, sI, sI, sI, sI, sI, sI}", "format",
        "quern-quantize/1", "source", text_json(r->source, "a folder"), "target",
        text_json(r->target_path, "a folder"), "recipe", text_json(recipe_name(r), "a file"), "mtp",
        r->options->quantizes_mtp ? "mxfp4" : "bf16", "activations",
        r->has_activations ? "mxfp4" : "none", "scale", scale_name(r), "fp8",
        r->options->fp8 == QN_FP8_KEEP ? "keep" : "bf16", "dry_run", (int)r->options->is_dry_run,
        "bytes_before", (json_int_t)r->plan.source_bytes, "bytes_after",
        (json_int_t)r->plan.out_bytes, "shards", (json_int_t)r->plan.n_shards, "resumed_shards",
        (json_int_t)r->n_resumed, "fp8_to_bf16_tensors", sum_of(kinds, "fp8_to_bf16_tensors"),
        "fp8_kept_tensors", sum_of(kinds, "fp8_kept_tensors"));
    const bool is_whole = append_names(exclude, &r->exclusions.excluded, false) &&
                          append_names(aliases, &r->exclusions.excluded, true) &&
                          append_names(aliases, &r->exclusions.fp8, true) &&
                          json_object_update(root, times) == 0 &&
                          json_object_set(root, "kinds", kinds) == 0 &&
                          json_object_set(root, "exclude", exclude) == 0 &&
                          json_object_set(root, "aliases", aliases) == 0;
    *report = is_whole ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(kinds);
    json_decref(exclude);
    json_decref(aliases);
    json_decref(times);
    json_decref(root);
    return *report != NULL ? QN_OK : no_memory(r);
}

/* A failed run that has finished nothing leaves nothing. */
static void clean_up(run *r, qn_status status)
{
    bool is_empty = status < 0 && r->target.fd >= 0 && !r->target.has_manifest;
    for (size_t i = 0; is_empty && r->manifest.root != NULL && i < qn_manifest_count(&r->manifest);
         i++) {
        is_empty = !qn_manifest_get(&r->manifest, i).is_done;
    }
    if (is_empty && r->manifest.root != NULL) {
        qn_target_remove(&r->target, QN_MANIFEST_NAME);
    }
    qn_target_close(&r->target, is_empty);
}

static qn_status check_options(const qn_quantize_options *o, qn_error *err)
{
    if (o->scale > QN_SCALE_MSE || o->activations > QN_ACTIVATIONS_NONE || o->fp8 > QN_FP8_KEEP) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "options: scale %d, activations %d, fp8 %d, values of their types expected",
                       (int)o->scale, (int)o->activations, (int)o->fp8);
    }
    return QN_OK;
}

qn_status qn_quant_run(char **report, const char *source, const char *target,
                       const qn_quantize_options *options, const qn_kernels *kernels, qn_error *err)
{
    run r = {
        .options = options,
        .kernels = kernels,
        .source = source,
        .target_path = target,
        .target.fd = -1,
        .err = err,
    };
    qn_status status = QN_OK;
    *report = NULL;
    qn_buf_init(&r.config, QN_CONFIG_BYTES_MAX);
    QN_TRY(status, check_options(options, err), fail);
    QN_TRY(status, begin(&r), fail);
    QN_TRY(status, write_all(&r), fail);
    QN_TRY(status, make_report(report, &r), fail);
fail:
    qn_mill_close(&r.mill);
    clean_up(&r, status);
    qn_exclusions_close(&r.exclusions);
    qn_plan_close(&r.plan);
    qn_manifest_close(&r.manifest);
    qn_recipe_close(&r.recipe);
    qn_buf_deinit(&r.config);
    return status;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "quant/manifest.h"

#include "base/json.h"
#include "base/try.h"
#include "format/checkpoint.h"
#include "quant/kinds.h"

#include <errno.h>

enum { FORMAT = 1 };

static qn_status no_memory(qn_error *err)
{
    return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, QN_MANIFEST_NAME ": no memory for it");
}

qn_status qn_manifest_init(qn_manifest *out, json_t *identity, qn_error *err)
{
    out->root = identity != NULL ? json_pack("{si, so, s[]}", "quern_manifest", (int)FORMAT,
                                             "identity", identity, "shards")
                                 : NULL;
    return out->root != NULL ? QN_OK : no_memory(err);
}

void qn_manifest_close(qn_manifest *manifest)
{
    json_decref(manifest->root);
    manifest->root = NULL;
}

static bool is_hex(const json_t *text, size_t n_digits)
{
    const char *const value = json_string_value(text);
    return value != NULL && strlen(value) == n_digits &&
           strspn(value, "0123456789abcdef") == n_digits;
}

static bool is_count(const json_t *value)
{
    return json_is_integer(value) && json_integer_value(value) >= 0;
}

/* NULL where the shard is as it should be, else the key that is not. */
static const char *wrong_key(const json_t *shard)
{
    const json_t *const source = json_object_get(shard, "source");
    const json_t *const done = json_object_get(shard, "done");
    const char *const file = json_string_value(json_object_get(shard, "file"));
    if (file == NULL || !qn_is_shard_name(file)) {
        return "file";
    }
    if (!is_count(json_object_get(source, "bytes")) ||
        !json_is_integer(json_object_get(source, "mtime_ns")) ||
        !is_hex(json_object_get(source, "head_xxh3"), 16)) {
        return "source";
    }
    if (done != NULL && (!is_count(json_object_get(done, "bytes")) ||
                         !is_hex(json_object_get(done, "xxh128"), QN_SHARD_HASH_BYTES - 1) ||
                         !qn_kinds_is_json(json_object_get(done, "kinds")))) {
        return "done";
    }
    return NULL;
}

/* In order of name, so that none can be there twice. */
static qn_status check_shards(const json_t *shards, const char *what, qn_error *err)
{
    const char *before = "";
    size_t i = 0;
    json_t *shard = NULL;
    json_array_foreach(shards, i, shard)
    {
        const char *const key = wrong_key(shard);
        if (key != NULL) {
            char seen[80];
            qn_json_show(seen, sizeof seen, json_object_get(shard, key));
            return qn_fail(err, QN_E_FORMAT, 0, __func__,
                           "%.200s: shards[%zu].%s: %s, what quern writes there expected", what, i,
                           key, seen);
        }
        const char *const file = json_string_value(json_object_get(shard, "file"));
        if (strcmp(before, file) >= 0) {
            return qn_fail(err, QN_E_FORMAT, 0, __func__,
                           "%.200s: shards[%zu].file: %s after %s, order of name expected", what, i,
                           file, before);
        }
        before = file;
    }
    return QN_OK;
}

qn_status qn_manifest_parse(qn_manifest *out, qn_str text, const char *what, qn_error *err)
{
    qn_status status = QN_OK;
    uint64_t format = 0;
    out->root = NULL;
    QN_TRY(status, qn_json_parse(&out->root, text, what, err), fail);
    QN_TRY(status, qn_json_get_u64(&format, out->root, "quern_manifest", FORMAT, FORMAT, what, err),
           fail);
    const json_t *const shards = json_object_get(out->root, "shards");
    if (!json_is_object(json_object_get(out->root, "identity")) || !json_is_array(shards) ||
        json_array_size(shards) == 0 || json_array_size(shards) > QN_MANIFEST_SHARDS_MAX) {
        status =
            qn_fail(err, QN_E_FORMAT, 0, __func__,
                    "%.200s: identity: %s and shards: %s of %zu, an object and a list of 1 to "
                    "%d expected",
                    what, qn_json_type_name(json_object_get(out->root, "identity")),
                    qn_json_type_name(shards), json_array_size(shards), QN_MANIFEST_SHARDS_MAX);
        goto fail;
    }
    QN_TRY(status, check_shards(shards, what, err), fail);
    return QN_OK;

fail:
    qn_manifest_close(out);
    return status;
}

qn_status qn_manifest_match(const qn_manifest *manifest, const json_t *identity, const char *what,
                            qn_error *err)
{
    json_t *const mine = json_object_get(manifest->root, "identity");
    const char *key = NULL;
    json_t *expected = NULL;
    json_object_foreach((json_t *)identity, key, expected)
    {
        const json_t *const seen = json_object_get(mine, key);
        char seen_text[80];
        char expected_text[80];
        qn_json_show(seen_text, sizeof seen_text, seen);
        qn_json_show(expected_text, sizeof expected_text, expected);
        if (!json_equal(seen, expected)) {
            const bool is_scalar = !json_is_array(expected);
            return qn_fail(err, QN_E_INVAL, 0, __func__,
                           "%.200s: %s: begun with %s, %s expected as now: --resume goes on with "
                           "the same source and options only",
                           what, key, is_scalar ? seen_text : "other rules",
                           is_scalar ? expected_text : "the same");
        }
    }
    return QN_OK;
}

qn_status qn_manifest_add(qn_manifest *manifest, const qn_manifest_shard *shard, qn_error *err)
{
    json_t *const entry =
        json_pack("{ss, s{sI, sI, ss}}", "file", shard->file, "source", "bytes",
                  (json_int_t)shard->source_bytes, "mtime_ns", (json_int_t)shard->source_mtime_ns,
                  "head_xxh3", shard->source_head);
    json_t *const shards = json_object_get(manifest->root, "shards");
    return json_array_append_new(shards, entry) == 0 ? QN_OK : no_memory(err);
}

size_t qn_manifest_count(const qn_manifest *manifest)
{
    return json_array_size(json_object_get(manifest->root, "shards"));
}

static json_t *shard_at(const qn_manifest *manifest, size_t i_shard)
{
    return json_array_get(json_object_get(manifest->root, "shards"), i_shard);
}

qn_manifest_shard qn_manifest_get(const qn_manifest *manifest, size_t i_shard)
{
    const json_t *const shard = shard_at(manifest, i_shard);
    const json_t *const source = json_object_get(shard, "source");
    const json_t *const done = json_object_get(shard, "done");
    return (qn_manifest_shard){
        .file = json_string_value(json_object_get(shard, "file")),
        .source_bytes = (uint64_t)json_integer_value(json_object_get(source, "bytes")),
        .source_mtime_ns = json_integer_value(json_object_get(source, "mtime_ns")),
        .source_head = json_string_value(json_object_get(source, "head_xxh3")),
        .is_done = done != NULL,
        .bytes = (uint64_t)json_integer_value(json_object_get(done, "bytes")),
        .xxh128 = json_string_value(json_object_get(done, "xxh128")),
        .kinds = json_object_get(done, "kinds"),
    };
}

qn_status qn_manifest_set_done(qn_manifest *manifest, size_t i_shard, uint64_t bytes,
                               const char *xxh128, json_t *kinds, qn_error *err)
{
    json_t *const done = kinds != NULL ? json_pack("{sI, ss, so}", "bytes", (json_int_t)bytes,
                                                   "xxh128", xxh128, "kinds", kinds)
                                       : NULL;
    const int failed = json_object_set_new(shard_at(manifest, i_shard), "done", done);
    return failed == 0 ? QN_OK : no_memory(err);
}

void qn_manifest_clear_done(qn_manifest *manifest, size_t i_shard)
{
    (void)json_object_del(shard_at(manifest, i_shard), "done");
}

/* jansson goes on after a key that could not be written, so the failure is kept. */
typedef struct appender {
    qn_buf *out;
    qn_status status;
} appender;

static int append(const char *bytes, size_t n_bytes, void *context)
{
    appender *const to = context;
    if (to->status == QN_OK) {
        to->status = qn_buf_append(to->out, bytes, n_bytes, NULL);
    }
    return to->status == QN_OK ? 0 : -1;
}

qn_status qn_manifest_append(qn_buf *out, const qn_manifest *manifest, qn_error *err)
{
    appender to = {.out = out};
    const int failed = json_dump_callback(manifest->root, append, &to, JSON_INDENT(1));
    return failed == 0 && to.status == QN_OK ? qn_buf_append(out, "\n", 1, err) : no_memory(err);
}

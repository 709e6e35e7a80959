/* SPDX-License-Identifier: Apache-2.0 */
#include "quant/kinds.h"
#include "quant/manifest.h"
#include "support/fail_each.h"
#include "support/unit.h"

static const char hash[] = "00112233445566778899aabbccddeeff";

/* A manifest of two shards, the first done, as text; the caller deinits. */
static qn_status make(qn_buf *text, qn_error *err)
{
    static qn_kind_stats stats[QN_N_STATS];
    const qn_manifest_shard shards[] = {
        {.file = "a.safetensors",
         .source_bytes = 7,
         .source_mtime_ns = -3,
         .source_head = "0123456789abcdef"},
        {.file = "b.safetensors",
         .source_bytes = 1ULL << 50,
         .source_mtime_ns = 1LL << 60,
         .source_head = "fedcba9876543210"},
    };
    qn_manifest manifest = {0};
    stats[QN_KIND_ROUTED_EXPERT] = (qn_kind_stats){
        .n_tensors = 3,
        .n_encoded = 2,
        .bytes_before = 100,
        .bytes_after = 27,
        .error = {.x_sq = 0.1,
                  .error_sq = 1.0 / 3.0,
                  .error_max = 0.3F,
                  .n_blocks = 5,
                  .n_saturated = 1,
                  .scales = {[118] = 4, [254] = 1}},
    };
    qn_buf_init(text, 1 << 20);
    qn_status status = qn_manifest_init(&manifest, json_pack("{ss}", "scale", "even"), err);
    for (size_t i = 0; status == QN_OK && i < 2; i++) {
        status = qn_manifest_add(&manifest, &shards[i], err);
    }
    if (status == QN_OK) {
        status = qn_manifest_set_done(&manifest, 0, 99, hash, qn_kinds_json(stats), err);
    }
    if (status == QN_OK) {
        status = qn_manifest_append(text, &manifest, err);
    }
    qn_manifest_close(&manifest);
    return status;
}

static void what_is_written_is_read(void **state)
{
    (void)state;
    qn_buf text;
    qn_buf again;
    qn_error err = {0};
    qn_manifest manifest;
    qn_kind_stats stats[QN_N_STATS] = {0};
    assert_int_equal(make(&text, &err), QN_OK);
    assert_int_equal(qn_manifest_parse(&manifest, qn_buf_view(&text), "m", &err), QN_OK);
    assert_int_equal(qn_manifest_count(&manifest), 2);
    const qn_manifest_shard first = qn_manifest_get(&manifest, 0);
    const qn_manifest_shard second = qn_manifest_get(&manifest, 1);
    assert_true(first.is_done && !second.is_done);
    assert_int_equal(first.bytes, 99);
    assert_string_equal(first.xxh128, hash);
    assert_true(first.source_mtime_ns == -3 && second.source_bytes == 1ULL << 50);
    qn_kinds_add_json(stats, first.kinds);
    const qn_kind_stats *const row = &stats[QN_KIND_ROUTED_EXPERT];
    assert_true(row->error.x_sq == 0.1 && row->error.error_sq == 1.0 / 3.0); /* every bit */
    assert_true(row->error.error_max == 0.3F && row->error.scales[254] == 1);
    assert_true(row->n_tensors == 3 && row->n_encoded == 2 && row->bytes_after == 27);
    qn_buf_init(&again, 1 << 20);
    assert_int_equal(qn_manifest_append(&again, &manifest, &err), QN_OK);
    assert_string_equal(again.ptr, text.ptr);
    qn_manifest_clear_done(&manifest, 0);
    assert_false(qn_manifest_get(&manifest, 0).is_done);
    qn_buf_deinit(&text);
    qn_buf_deinit(&again);
    qn_manifest_close(&manifest);
    qn_manifest_close(&manifest);
}

/* The text with one part replaced has to be refused. */
static void refuse_with(const char *text, const char *part, const char *other)
{
    qn_error err = {0};
    qn_manifest manifest;
    char changed[8192];
    const char *const at = strstr(text, part);
    assert_non_null(at);
    (void)snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - text), text, other,
                   at + strlen(part));
    assert_int_equal(qn_manifest_parse(&manifest, qn_str_of(changed), "m.json", &err), QN_E_FORMAT);
    assert_null(manifest.root);
    assert_non_null(strstr(err.text, "m.json"));
    assert_non_null(strstr(err.text, "expected"));
}

static void faults_are_refused(void **state)
{
    (void)state;
    static const char *const faults[][2] = {
        {"\"quern_manifest\": 1", "\"quern_manifest\": 2"},
        {"\"quern_manifest\": 1,", ""},
        {"\"identity\": {", "\"identities\": {"},
        {"\"a.safetensors\"", "\"../a.safetensors\""},
        {"\"a.safetensors\"", "\".safetensors\""},
        {"\"a.safetensors\"", "\"a.txt\""},
        {"\"a.safetensors\"", "\"b.safetensors\""},
        {"\"a.safetensors\"", "\"c.safetensors\""},
        {"\"a.safetensors\"", "7"},
        {"\"bytes\": 7", "\"bytes\": -7"},
        {"\"bytes\": 7", "\"bytes\": 7.5"},
        {"\"mtime_ns\": -3", "\"mtime_ns\": null"},
        {"0123456789abcdef", "0123456789ABCDEF"},
        {"0123456789abcdef", "0123"},
        {hash, "00"},
        {"\"bytes\": 99", "\"bytes\": \"99\""},
        {"routed_expert", "routed_experts"},
        {"\"tensors\": 3", "\"tensors\": -3"},
        {"\"blocks\": 5", "\"blocks\": null"},
        {"\"x_sq\":", "\"y_sq\":"},
        {"\"118\"", "\"256\""},
        {"\"118\"", "\"-1\""},
        {"\"118\"", "\"\""},
        {"\"118\": 4", "\"118\": -4"},
        {"\"kinds\": [", "\"kinds\": [4,"},
    };
    qn_buf text;
    qn_error err = {0};
    assert_int_equal(make(&text, &err), QN_OK);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        refuse_with(text.ptr, faults[i][0], faults[i][1]);
    }
    for (size_t len = 0; len + 2 < text.len; len += 37) { /* cut off anywhere */
        qn_manifest manifest;
        assert_int_equal(qn_manifest_parse(&manifest, (qn_str){text.ptr, len}, "m", &err),
                         QN_E_FORMAT);
    }
    qn_buf_deinit(&text);
}

static void what_differs_is_named(void **state)
{
    (void)state;
    qn_error err = {0};
    qn_manifest manifest = {0};
    json_t *const same = json_pack("{s[[ss]], ss}", "recipe", "*", "mxfp4", "scale", "even");
    json_t *const scale = json_pack("{s[[ss]], ss}", "recipe", "*", "mxfp4", "scale", "mse");
    json_t *const recipe = json_pack("{s[[ss]], ss}", "recipe", "*", "keep", "scale", "even");
    assert_int_equal(qn_manifest_init(&manifest, json_incref(same), &err), QN_OK);
    assert_int_equal(qn_manifest_match(&manifest, same, "m", &err), QN_OK);
    assert_int_equal(qn_manifest_match(&manifest, scale, "m", &err), QN_E_INVAL);
    assert_non_null(strstr(err.text, "scale: begun with \"even\", \"mse\" expected"));
    assert_int_equal(qn_manifest_match(&manifest, recipe, "m", &err), QN_E_INVAL);
    assert_non_null(strstr(err.text, "recipe: begun with other rules"));
    json_decref(same);
    json_decref(scale);
    json_decref(recipe);
    qn_manifest_close(&manifest);
}

static qn_status make_and_parse(qn_error *err)
{
    qn_buf text;
    qn_manifest manifest;
    qn_status status = make(&text, err);
    if (status == QN_OK) {
        status = qn_manifest_parse(&manifest, qn_buf_view(&text), "m", err);
    }
    if (status == QN_OK) {
        qn_manifest_close(&manifest);
    }
    qn_buf_deinit(&text);
    return status;
}

static void failing_allocations_are_errors(void **state)
{
    (void)state;
    fail_each(make_and_parse, 1, 40);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(faults_are_refused),
        cmocka_unit_test(what_differs_is_named),
        cmocka_unit_test(failing_allocations_are_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

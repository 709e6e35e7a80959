/* SPDX-License-Identifier: Apache-2.0 */
#include "quant/quark_config.h"
#include "support/fail_each.h"
#include "support/unit.h"

enum { N_LAYERS = 3, TENSORS_MAX = 16 };

/* A plan of one shard whose tensors have these names and types. */
typedef struct fake {
    qn_plan_tensor tensors[TENSORS_MAX];
    qn_plan_output outputs[TENSORS_MAX];
    qn_plan_shard shard;
    qn_plan plan;
} fake;

static void fake_add(fake *f, const char *name, qn_dtype dtype)
{
    const size_t i = f->shard.n_outputs++;
    f->tensors[i] = (qn_plan_tensor){.rank = 2};
    f->outputs[i] = (qn_plan_output){
        .from = &f->tensors[i],
        .name = qn_str_of(name),
        .dtype = dtype,
        .shape = {4, 64},
        .size_bytes = 256,
    };
}

static void fake_init(fake *f)
{
    *f = (fake){0};
    f->shard.outputs = f->outputs;
    f->shard.file = (char *)(uintptr_t) "model.safetensors";
    f->plan = (qn_plan){.shards = &f->shard, .n_shards = 1};
}

static void expect_names(const qn_module_names *found, const char *const *expected)
{
    size_t n = 0;
    for (; expected[n] != NULL; n++) {
        assert_true(n < found->n_names);
        const bool is_alias = expected[n][0] == '+';
        assert_string_equal(found->names[n].text, expected[n] + (is_alias ? 1 : 0));
        assert_int_equal(found->names[n].is_alias, is_alias);
    }
    assert_int_equal(found->n_names, n);
}

static void names_and_aliases_are_sorted_together(void **state)
{
    (void)state;
    static const char *const expected[] = {
        "lm_head",
        "+model.decoder.mlp.experts",
        "+model.decoder.self_attn.q_a_proj",
        "+model.eh_proj",
        "model.layers.1.mlp.experts.0.up_proj",
        "model.layers.1.mlp.gate",
        "+model.layers.2.mlp.experts",
        "model.layers.2.mlp.experts.0.up_proj",
        "model.layers.3.eh_proj",
        "+model.layers.3.mlp.experts",
        "model.layers.3.mlp.experts.10.up_proj",
        "model.layers.3.mlp.experts.2.up_proj",
        "model.layers.3.self_attn.q_a_proj",
        NULL,
    };
    fake f;
    qn_exclusions found;
    qn_error err = {0};
    fake_init(&f);
    fake_add(&f, "model.layers.3.mlp.experts.2.up_proj.weight", QN_DTYPE_BF16);
    fake_add(&f, "model.layers.3.mlp.experts.10.up_proj.weight", QN_DTYPE_F32);
    fake_add(&f, "model.layers.3.self_attn.q_a_proj.weight", QN_DTYPE_BF16);
    fake_add(&f, "model.layers.3.eh_proj.weight", QN_DTYPE_BF16);
    fake_add(&f, "model.layers.3.enorm.weight", QN_DTYPE_BF16);
    fake_add(&f, "lm_head.weight", QN_DTYPE_BF16);
    fake_add(&f, "model.embed_tokens.weight", QN_DTYPE_BF16);
    fake_add(&f, "model.layers.1.mlp.gate.weight", QN_DTYPE_BF16);
    fake_add(&f, "model.layers.1.mlp.experts.0.up_proj.weight", QN_DTYPE_BF16);
    fake_add(&f, "model.layers.1.mlp.experts.1.up_proj.weight", QN_DTYPE_U8); /* no container */
    fake_add(&f, "model.layers.2.mlp.experts.0.up_proj.weight", QN_DTYPE_BF16);
    assert_int_equal(qn_exclusions_open(&found, &f.plan, N_LAYERS, &err), QN_OK);
    expect_names(&found.excluded, expected);
    assert_int_equal(found.fp8.n_names, 0);
    qn_exclusions_close(&found);
    qn_exclusions_close(&found);
}

static void fp8_that_stays_is_not_excluded(void **state)
{
    (void)state;
    static const char *const expected[] = {
        "+model.decoder.mlp.experts",
        "+model.decoder.mlp.shared_experts.up_proj",
        "model.layers.0.self_attn.o_proj",
        "+model.layers.3.mlp.experts",
        "model.layers.3.mlp.experts.0.up_proj",
        "model.layers.3.mlp.shared_experts.up_proj",
        NULL,
    };
    fake f;
    qn_exclusions found;
    qn_buf out;
    qn_error err = {0};
    fake_init(&f);
    fake_add(&f, "model.layers.3.mlp.experts.0.up_proj.weight", QN_DTYPE_F8_E4M3);
    fake_add(&f, "model.layers.3.mlp.shared_experts.up_proj.weight", QN_DTYPE_F8_E4M3);
    fake_add(&f, "model.layers.0.self_attn.o_proj.weight", QN_DTYPE_F8_E4M3);
    assert_int_equal(qn_exclusions_open(&found, &f.plan, N_LAYERS, &err), QN_OK);
    expect_names(&found.fp8, expected);
    assert_int_equal(found.excluded.n_names, 0);
    qn_buf_init(&out, 1 << 20);
    assert_int_equal(
        qn_quark_config_append(&out, qn_str_of("{}"), "c", &found, &(qn_quark_settings){0}, &err),
        QN_OK);
    assert_non_null(strstr(out.ptr, "\"layer_quant_config\": {\n            "
                                    "\"model.decoder.mlp.experts\": {\n"));
    assert_non_null(strstr(out.ptr, "PerBlock2DMinMaxObserver"));
    qn_buf_deinit(&out);
    qn_exclusions_close(&found);
}

static void the_source_keeps_order_and_numbers(void **state)
{
    (void)state;
    static const char source[] =
        "{\"b\":1e-05, \"a\" : [8000000.0,{\"quantization_config\":1,\"k\":[]}],\n"
        "\"quantization_config\":{\"quant_method\":\"fp8\"},\"é\":\"\\u00e9\\n\",\"big\":1E400,"
        "\"n\":{\"quantization_config\":{}},\"z\":null}";
    static const char expected[] =
        "{\n    \"b\": 1e-05,\n    \"a\": [\n        8000000.0,\n        {\n            \"k\": []\n"
        "        }\n    ],\n    \"é\": \"é\\n\",\n    \"big\": 1E400,\n    \"n\": {},\n"
        "    \"z\": null,\n    \"quantization_config\": {\n        \"global_quant_config\": {\n";
    const qn_exclusions none = {0};
    qn_buf out;
    qn_error err = {0};
    qn_buf_init(&out, 1 << 20);
    assert_int_equal(qn_quark_config_append(&out, qn_str_of(source), "c", &none,
                                            &(qn_quark_settings){.has_activations = true}, &err),
                     QN_OK);
    assert_memory_equal(out.ptr, expected, strlen(expected));
    assert_non_null(strstr(out.ptr, "\"exclude\": [],\n"));
    assert_null(strstr(out.ptr, "quern"));
    qn_buf_clear(&out);
    assert_int_equal(qn_quark_config_append(&out, qn_str_of("{}"), "c", &none,
                                            &(qn_quark_settings){.scale = QN_SCALE_MSE}, &err),
                     QN_OK);
    assert_non_null(strstr(out.ptr, "{\n    \"quern_scale\": \"mse"));
    assert_non_null(strstr(out.ptr, "\"input_tensors\": null"));
    assert_non_null(strstr(out.ptr, "PerBlockMXDiffsObserver"));
    qn_buf_deinit(&out);
}

static void a_quantized_source_is_named(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "{\"num_hidden_layers\":3,\"quantization_config\":{\"quant_method\":\"quark\"}}",
        "{\"num_hidden_layers\":3,\"quantization_config\":{\"quant_method\":\"modelopt\"}}",
        "{\"num_hidden_layers\":3,\"quantization_config\":{}}",
        "{\"num_hidden_layers\":-3}",
        "{\"num_hidden_layers\":3.5}",
        "{\"num_hidden_layers\":\"3\"}",
        "{\"num_hidden_layers\":99999999999999999999}",
        "{}",
        "[]",
        "{",
    };
    uint32_t n_layers = 0;
    qn_error err = {0};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(qn_quark_read_layers(&n_layers, qn_str_of(bad[i]), "c.json", &err),
                         QN_E_FORMAT);
        assert_non_null(strstr(err.text, "c.json"));
    }
    static const char good[] =
        "{\"num_hidden_layers\":78,\"quantization_config\":{\"quant_method\":\"fp8\"}}";
    assert_int_equal(qn_quark_read_layers(&n_layers, qn_str_of(good), "c", &err), QN_OK);
    assert_int_equal(n_layers, 78);
}

static qn_status everything(qn_error *err)
{
    fake f;
    qn_exclusions found;
    qn_buf out;
    fake_init(&f);
    fake_add(&f, "model.layers.3.mlp.experts.2.up_proj.weight", QN_DTYPE_BF16);
    fake_add(&f, "lm_head.weight", QN_DTYPE_BF16);
    fake_add(&f, "model.layers.3.self_attn.o_proj.weight", QN_DTYPE_F8_E4M3);
    qn_buf_init(&out, 1 << 20);
    qn_status status = qn_exclusions_open(&found, &f.plan, N_LAYERS, err);
    if (status == QN_OK) {
        status = qn_quark_config_append(&out, qn_str_of("{\"a\":[1,2]}"), "c", &found,
                                        &(qn_quark_settings){.has_activations = true}, err);
        qn_exclusions_close(&found);
    }
    qn_buf_clear(&out);
    if (status == QN_OK) {
        status = qn_quark_index_append(&out, &f.plan, err);
    }
    qn_buf_deinit(&out);
    return status;
}

static void failing_allocations_are_errors(void **state)
{
    (void)state;
    fail_each(everything, 1, 15);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_aliases_are_sorted_together),
        cmocka_unit_test(fp8_that_stays_is_not_excluded),
        cmocka_unit_test(the_source_keeps_order_and_numbers),
        cmocka_unit_test(a_quantized_source_is_named),
        cmocka_unit_test(failing_allocations_are_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

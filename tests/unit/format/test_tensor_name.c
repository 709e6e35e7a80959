/* SPDX-License-Identifier: Apache-2.0 */
#include "format/tensor_name.h"
#include "support/unit.h"

typedef struct expected {
    const char *name;
    qn_tensor_kind kind;
    int32_t layer, expert;
    const char *module, *part;
} expected;

static void test_names_of_the_family_are_told_apart(void **state)
{
    static const expected list[] = {
        {"model.embed_tokens.weight", QN_KIND_EMBEDDING, -1, -1, "model.embed_tokens", "weight"},
        {"lm_head.weight", QN_KIND_HEAD, -1, -1, "lm_head", "weight"},
        {"model.norm.weight", QN_KIND_NORM, -1, -1, "model.norm", "weight"},
        {"model.layers.3.input_layernorm.weight", QN_KIND_NORM, 3, -1,
         "model.layers.3.input_layernorm", "weight"},
        {"model.layers.0.self_attn.kv_a_proj_with_mqa.weight_scale_inv", QN_KIND_ATTENTION, 0, -1,
         "model.layers.0.self_attn.kv_a_proj_with_mqa", "weight_scale_inv"},
        {"model.layers.10.self_attn.indexer.k_norm.bias", QN_KIND_NORM, 10, -1,
         "model.layers.10.self_attn.indexer.k_norm", "bias"},
        {"model.layers.10.self_attn.indexer.wq_b.weight", QN_KIND_INDEXER, 10, -1,
         "model.layers.10.self_attn.indexer.wq_b", "weight"},
        {"model.layers.77.mlp.experts.255.gate_proj.weight_quantizer.scale", QN_KIND_ROUTED_EXPERT,
         77, 255, "model.layers.77.mlp.experts.255.gate_proj", "weight_quantizer.scale"},
        {"model.layers.5.mlp.shared_experts.down_proj.weight", QN_KIND_SHARED_EXPERT, 5, -1,
         "model.layers.5.mlp.shared_experts.down_proj", "weight"},
        {"model.layers.1.mlp.gate_proj.weight", QN_KIND_DENSE_MLP, 1, -1,
         "model.layers.1.mlp.gate_proj", "weight"},
        {"model.layers.4.mlp.gate.e_score_correction_bias", QN_KIND_ROUTER, 4, -1,
         "model.layers.4.mlp.gate", "e_score_correction_bias"},
        {"model.layers.78.eh_proj.weight", QN_KIND_MTP_PROJ, 78, -1, "model.layers.78.eh_proj",
         "weight"},
        {"model.layers.78.enorm.weight", QN_KIND_NORM, 78, -1, "model.layers.78.enorm", "weight"},
        {"model.layers.78.shared_head.norm.weight", QN_KIND_NORM, 78, -1,
         "model.layers.78.shared_head.norm", "weight"},
        {"model.layers.78.shared_head.head.weight", QN_KIND_HEAD, 78, -1,
         "model.layers.78.shared_head.head", "weight"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        qn_tensor_name name;
        qn_tensor_name_parse(&name, qn_str_of(list[i].name));
        assert_int_equal(name.kind, list[i].kind);
        assert_int_equal(name.layer, list[i].layer);
        assert_int_equal(name.expert, list[i].expert);
        assert_true(qn_str_equal(name.module, qn_str_of(list[i].module)));
        assert_true(qn_str_equal(name.part, qn_str_of(list[i].part)));
    }
}

static void test_a_name_of_no_known_form_is_other(void **state)
{
    static const char *const list[] = {
        "",
        "weight",
        ".",
        "model.layers.",
        "model.layers.x.mlp.gate.weight",
        "model.layers.03.mlp.gate.weight",
        "model.layers.1234567.mlp.gate.weight",
        "model.layers.1.mlp.experts.x.gate_proj.weight",
        "model.layers.1.mlp.experts.gate_up_proj",
        "model.decoder.mlp.gate.weight",
        "lm_headless.weight",
    };
    (void)state;
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        qn_tensor_name name;
        qn_tensor_name_parse(&name, qn_str_of(list[i]));
        assert_int_equal(name.kind, QN_KIND_OTHER);
        assert_int_equal(name.expert, -1);
    }
}

static void test_what_quark_takes_for_a_linear(void **state)
{
    (void)state;
    assert_true(qn_tensor_name_is_linear(qn_str_of("lm_head.weight"), 2));
    assert_true(qn_tensor_name_is_linear(qn_str_of("model.layers.1.mlp.gate.weight"), 2));
    assert_false(qn_tensor_name_is_linear(qn_str_of("model.layers.1.mlp.gate.weight"), 1));
    assert_false(qn_tensor_name_is_linear(qn_str_of("model.embed_tokens.weight"), 2));
    assert_false(qn_tensor_name_is_linear(qn_str_of("model.embeddings.proj.weight"), 2));
    assert_false(qn_tensor_name_is_linear(qn_str_of("model.norm.weight"), 2));
    assert_false(qn_tensor_name_is_linear(qn_str_of("model.layers.1.mlp.gate.bias"), 2));
    assert_false(qn_tensor_name_is_linear(qn_str_of(".weight"), 2));
    assert_false(qn_tensor_name_is_linear(qn_str_of("weight"), 2));
}

static void test_sglang_calls_the_mtp_layer_by_its_own_names(void **state)
{
    (void)state;
    assert_string_equal(qn_draft_prefix(qn_str_of("eh_proj")), "model.");
    assert_string_equal(qn_draft_prefix(qn_str_of("shared_head.norm")), "model.");
    assert_string_equal(qn_draft_prefix(qn_str_of("mlp.experts")), "model.decoder.");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_of_the_family_are_told_apart),
        cmocka_unit_test(test_a_name_of_no_known_form_is_other),
        cmocka_unit_test(test_what_quark_takes_for_a_linear),
        cmocka_unit_test(test_sglang_calls_the_mtp_layer_by_its_own_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

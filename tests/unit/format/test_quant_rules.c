/* SPDX-License-Identifier: Apache-2.0 */
#include "format/quant_rules.h"
#include "support/unit.h"

#define MXFP4                                                                                      \
    "{\"dtype\": \"fp4\", \"qscheme\": \"per_group\", \"group_size\": 32, \"scale_format\": "      \
    "\"e8m0\"}"
#define CHANNEL "{\"weight\": {\"dtype\": \"fp8_e4m3\", \"qscheme\": \"per_channel\"}}"
#define BLOCK                                                                                      \
    "{\"weight\": {\"dtype\": \"fp8_e4m3\", \"qscheme\": \"per_block\", \"block_size\": [128, "    \
    "128]}}"
#define QUARK(rest)                                                                                \
    "{\"quantization_config\": {\"quant_method\": \"quark\", \"global_quant_config\": "            \
    "{\"weight\": " MXFP4 "}" rest "}}"
#define FP8(rest) "{\"quantization_config\": {\"quant_method\": \"fp8\"" rest "}}"

static qn_quant_as find(const qn_quant_rules *rules, const char *module)
{
    return qn_quant_rules_find(rules, qn_str_of(module));
}

static qn_quant_rules parse(const char *text)
{
    qn_quant_rules rules;
    qn_error err = {0};
    if (qn_quant_rules_parse(&rules, qn_str_of(text), "F", &err) != QN_OK) {
        fail_msg("%s: %s", text, err.text);
    }
    return rules;
}

static void refuse(const char *text, const char *message)
{
    qn_quant_rules rules;
    qn_error err = {0};
    assert_int_equal(qn_quant_rules_parse(&rules, qn_str_of(text), "F", &err), QN_E_FORMAT);
    assert_string_equal(err.text, message);
    assert_null(rules.excluded);
}

static void test_no_rules_are_plain(void **state)
{
    (void)state;
    qn_quant_rules none = {0};
    qn_quant_rules rules = parse("{}");
    assert_int_equal(find(&none, "lm_head"), QN_QUANT_AS_PLAIN);
    assert_int_equal(find(&rules, "lm_head"), QN_QUANT_AS_PLAIN);
    qn_quant_rules_close(&rules);
    qn_quant_rules_close(&rules);
}

static void test_names_parts_and_globs_of_quark(void **state)
{
    (void)state;
    qn_quant_rules rules = parse(QUARK(
        ", \"exclude\": [\"lm_head\", \"model.layers.4.mlp.experts\", \"*.self_attn.o_proj\"], "
        "\"layer_quant_config\": {\"*self_attn*\": " CHANNEL ", \"model.layers.1.mlp\": " BLOCK
        "}"));
    assert_int_equal(find(&rules, "lm_head"), QN_QUANT_AS_PLAIN);
    assert_int_equal(find(&rules, "lm_head2"), QN_QUANT_AS_MXFP4);
    assert_int_equal(find(&rules, "model.layers.4.mlp.experts.7.up_proj"), QN_QUANT_AS_PLAIN);
    assert_int_equal(find(&rules, "model.layers.40.mlp.experts.7.up_proj"), QN_QUANT_AS_MXFP4);
    assert_int_equal(find(&rules, "model.layers.4.self_attn.o_proj"), QN_QUANT_AS_PLAIN);
    assert_int_equal(find(&rules, "model.layers.4.self_attn.q_a_proj"), QN_QUANT_AS_FP8_CHANNEL);
    assert_int_equal(find(&rules, "model.layers.1.mlp.up_proj"), QN_QUANT_AS_FP8_BLOCK);
    assert_int_equal(find(&rules, "."), QN_QUANT_AS_MXFP4);
    qn_quant_rules_close(&rules);
}

static void test_official_fp8_keeps_more_than_it_lists(void **state)
{
    (void)state;
    qn_quant_rules rules = parse(FP8(", \"modules_to_not_convert\": [\"model.layers.0.mlp\"]"));
    assert_int_equal(find(&rules, "model.layers.0.mlp.up_proj"), QN_QUANT_AS_PLAIN);
    assert_int_equal(find(&rules, "model.layers.1.mlp.up_proj"), QN_QUANT_AS_FP8_BLOCK);
    assert_int_equal(find(&rules, "model.layers.1.mlp.gate"), QN_QUANT_AS_PLAIN);
    assert_int_equal(find(&rules, "model.layers.1.self_attn.indexer.weights_proj"),
                     QN_QUANT_AS_PLAIN);
    assert_int_equal(find(&rules, "lm_head"), QN_QUANT_AS_PLAIN);
    qn_quant_rules_close(&rules);
}

static void test_what_cannot_be_made_is_refused(void **state)
{
    (void)state;
    refuse("{\"quantization_config\": {\"quant_method\": \"awq\"}}",
           "F: quantization_config.quant_method: \"awq\", quark or fp8, where weights are made up, "
           "expected");
    refuse(QUARK(", \"exclude\": [\"re:.*\"]"),
           "F: quantization_config.exclude: re:.*, names and globs expected where weights are made "
           "up");
    refuse(QUARK(", \"exclude\": [1]"),
           "F: quantization_config.exclude: 1, a list of names expected");
    refuse(QUARK(", \"exclude\": \"lm_head\""),
           "F: quantization_config.exclude: \"lm_head\", a list of names expected");
    refuse(QUARK(", \"layer_quant_config\": {\"a\": {\"weight\": {\"dtype\": \"int4\"}}}"),
           "F: quantization_config.weight.dtype: \"int4\", fp4 in groups of 32, fp8_e4m3 per "
           "channel or in blocks of 128 expected");
    refuse(FP8(", \"weight_block_size\": [64, 128]"),
           "F: quantization_config.weight_block_size: a list, [128, 128] expected");
    refuse(FP8(", \"weight_block_size\": [128, 128, 128]"),
           "F: quantization_config.weight_block_size: a list, [128, 128] expected");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_rules_are_plain),
        cmocka_unit_test(test_names_parts_and_globs_of_quark),
        cmocka_unit_test(test_official_fp8_keeps_more_than_it_lists),
        cmocka_unit_test(test_what_cannot_be_made_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

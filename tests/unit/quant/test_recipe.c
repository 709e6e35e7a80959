/* SPDX-License-Identifier: Apache-2.0 */
#include "quant/recipe.h"
#include "support/fail_each.h"
#include "support/unit.h"

static qn_recipe open_recipe(const char *name, bool takes_mtp)
{
    qn_recipe recipe;
    qn_error err = {0};
    assert_int_equal(qn_recipe_open(&recipe, name, 78, takes_mtp, &err), QN_OK);
    return recipe;
}

static bool takes(qn_recipe *recipe, const char *module, int32_t layer)
{
    return qn_recipe_decide(recipe, qn_str_of(module), layer) == QN_RULE_MXFP4;
}

static void linears_are_those_of_quark(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint32_t rank;
        bool is_linear;
    } cases[] = {
        {"lm_head.weight", 2, true},
        {"model.layers.3.mlp.gate.weight", 2, true},
        {"model.layers.3.mlp.experts.gate_up.weight", 3, true},
        {"model.layers.3.self_attn.q_a_layernorm.weight", 2, false},
        {"model.layers.3.enorm.weight", 1, false},
        {"model.embed_tokens.weight", 2, false},
        {"an.embedded.thing.weight", 2, false},
        {"model.layers.3.mlp.gate.e_score_correction_bias", 1, false},
        {"model.layers.3.mlp.gate.weight_scale", 2, false},
        {"weight", 2, false},
        {".weight", 2, false},
        {"norm.weight", 2, false},
        {"orm.weight", 2, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qn_str module = {0};
        const qn_str name = qn_str_of(cases[i].name);
        assert_int_equal(qn_recipe_is_linear(&module, name, cases[i].rank), cases[i].is_linear);
        assert_int_equal(module.len, cases[i].is_linear ? name.len - strlen(".weight") : 0);
    }
}

static void built_in_recipes_take_what_they_say(void **state)
{
    (void)state;
    static const struct {
        const char *module;
        int32_t layer;
        bool experts, routed, mlp; /* taken, of the trunk or with --mtp mxfp4 */
    } cases[] = {
        {"lm_head", -1, false, false, false},
        {"model.layers.0.mlp.gate_proj", 0, false, false, true},
        {"model.layers.0.mlp.down_proj", 0, false, false, true},
        {"model.layers.3.mlp.gate", 3, false, false, false},
        {"model.layers.3.self_attn.o_proj", 3, false, false, false},
        {"model.layers.3.self_attn.indexer.wk", 3, false, false, false},
        {"model.layers.3.mlp.experts.255.up_proj", 3, true, true, true},
        {"model.layers.3.mlp.shared_experts.down_proj", 3, true, false, true},
        {"model.layers.78.mlp.experts.0.up_proj", 78, true, true, true},
        {"model.layers.78.eh_proj", 78, true, true, true},
        {"model.layers.78.self_attn.q_a_proj", 78, false, false, false},
    };
    for (int with_mtp = 0; with_mtp <= 1; with_mtp++) {
        qn_recipe experts = open_recipe("experts", with_mtp == 1);
        qn_recipe routed = open_recipe("routed", with_mtp == 1);
        qn_recipe mlp = open_recipe("mlp", with_mtp == 1);
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            const bool may = cases[i].layer < 78 || with_mtp == 1;
            assert_int_equal(takes(&experts, cases[i].module, cases[i].layer),
                             may && cases[i].experts);
            assert_int_equal(takes(&routed, cases[i].module, cases[i].layer),
                             may && cases[i].routed);
            assert_int_equal(takes(&mlp, cases[i].module, cases[i].layer), may && cases[i].mlp);
        }
        qn_recipe_close(&experts);
        qn_recipe_close(&routed);
        qn_recipe_close(&mlp);
    }
}

static qn_status parse(qn_recipe *recipe, const char *text, qn_error *err)
{
    return qn_recipe_parse(recipe, qn_str_of(text), "r.json", err);
}

static void the_first_rule_that_matches_decides(void **state)
{
    (void)state;
    qn_recipe recipe;
    qn_error err = {0};
    assert_int_equal(parse(&recipe, "{\"*.1?.*\":\"keep\",\"*[ab]_proj\":\"mxfp4\"}", &err), QN_OK);
    recipe.takes_mtp = true;
    assert_false(takes(&recipe, "x.12.a_proj", 0));
    assert_true(takes(&recipe, "x.123.a_proj", 0)); /* '?' is one character */
    assert_true(takes(&recipe, "x.y.b_proj", 0));
    assert_false(takes(&recipe, "x.y.B_proj", 0)); /* case counts */
    assert_false(takes(&recipe, "x.y.c_proj", 0));
    assert_int_equal(recipe.rules[0].n_decided, 1);
    assert_int_equal(recipe.rules[1].n_decided, 2);
    assert_int_equal(qn_recipe_check(&recipe, &err), QN_OK);
    qn_recipe_close(&recipe);
    qn_recipe_close(&recipe);
}

static void a_rule_of_no_effect_is_named(void **state)
{
    (void)state;
    qn_recipe recipe;
    qn_error err = {0};
    assert_int_equal(parse(&recipe, "{\"*\":\"mxfp4\",\"*typo\":\"keep\"}", &err), QN_OK);
    assert_true(takes(&recipe, "x", -1));
    assert_int_equal(qn_recipe_check(&recipe, &err), QN_E_FORMAT);
    assert_non_null(strstr(err.text, "*typo"));
    qn_recipe_close(&recipe);
    recipe = open_recipe("experts", false);
    assert_int_equal(qn_recipe_check(&recipe, &err), QN_E_FORMAT); /* nothing was taken */
    qn_recipe_close(&recipe);
}

static void bad_files_are_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "[]",
        "{}",
        "{\"*\":\"fp4\"}",
        "{\"*\":\"MXFP4\"}",
        "{\"*\":1}",
        "{\"*\":null}",
        "{\"\":\"keep\"}",
        "{\"*\":\"keep\",\"*\":\"mxfp4\"}",
        "{\"*\":\"keep\"",
        "{\"a\\u0000b\":\"keep\"}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        qn_recipe recipe;
        qn_error err = {0};
        assert_int_equal(parse(&recipe, texts[i], &err), QN_E_FORMAT);
        assert_non_null(strstr(err.text, "r.json"));
        assert_null(recipe.rules);
    }
    qn_recipe recipe;
    qn_error err = {0};
    assert_int_equal(qn_recipe_open(&recipe, "xperts", 1, false, &err), QN_E_INVAL);
    assert_non_null(strstr(err.text, "experts, routed, mlp"));
}

static qn_status parse_for_failure(qn_error *err)
{
    qn_recipe recipe;
    qn_status status = parse(&recipe, "{\"*a\":\"keep\",\"*b\":\"mxfp4\"}", err);
    if (status == QN_OK) {
        json_t *const rules = qn_recipe_json(&recipe);
        status = rules != NULL ? QN_OK : qn_fail(err, QN_E_NOMEM, 0, __func__, "no memory");
        json_decref(rules);
        qn_recipe_close(&recipe);
    }
    return status;
}

static void failing_allocations_are_errors(void **state)
{
    (void)state;
    fail_each(parse_for_failure, 1, 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linears_are_those_of_quark),
        cmocka_unit_test(built_in_recipes_take_what_they_say),
        cmocka_unit_test(the_first_rule_that_matches_decides),
        cmocka_unit_test(a_rule_of_no_effect_is_named),
        cmocka_unit_test(bad_files_are_refused),
        cmocka_unit_test(failing_allocations_are_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

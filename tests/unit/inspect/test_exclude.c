/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of modules as SGLang, vLLM and ATOM match them. */
#include "inspect/engines.h"
#include "support/unit.h"

/* A list of entries, the last one NULL. */
static qn_exclude list_of(const char *const *entries)
{
    qn_exclude list = {0};
    for (size_t i = 0; entries[i] != NULL; i++) {
        assert_int_equal(qn_exclude_add(&list, qn_str_of(entries[i]), NULL), QN_OK);
    }
    qn_exclude_seal(&list);
    return list;
}

static void test_globs_are_pythons(void **state)
{
    (void)state;
    static const struct {
        const char *glob, *text;
        bool matches;
    } cases[] = {
        {"", "", true},
        {"", "a", false},
        {"*", "", true},
        {"*", "a.b", true},
        {"*self_attn*", "model.layers.3.self_attn.o_proj", true},
        {"*mlp.gate", "model.layers.3.mlp.gate", true},
        {"*mlp.gate", "model.layers.3.mlp.gate_proj", false},
        {"*mlp.gate", "mlp.gate.mlp.gate", true},
        {"a?c", "abc", true},
        {"a?c", "ac", false},
        {"a*b*c", "aXbYbZc", true},
        {"a*b*c", "aXbYbZ", false},
        {"layers.[0-2].x", "layers.1.x", true},
        {"layers.[0-2].x", "layers.3.x", false},
        {"layers.[!0-2].x", "layers.3.x", true},
        {"layers.[!0-2].x", "layers.1.x", false},
        {"[]]", "]", true},
        {"[]-a]", "^", true},
        {"[a-]", "-", true},
        {"[", "[", true},
        {"[ab", "[ab", true},
        {"*[ab", "x[ab", true},
        {"A", "a", false},
        {"a\\*", "a\\b", true},
        {"**a**", "bab", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (qn_glob_matches(qn_str_of(cases[i].glob), qn_str_of(cases[i].text)) !=
            cases[i].matches) {
            fail_msg("%s against %s", cases[i].glob, cases[i].text);
        }
    }
}

static void test_a_glob_of_stars_takes_no_exponential_time(void **state)
{
    (void)state;
    char glob[1000];
    char text[4000];
    memset(text, 'a', sizeof text);
    for (size_t i = 0; i < sizeof glob; i++) {
        glob[i] = "*a"[i % 2];
    }
    glob[sizeof glob - 1] = 'b';
    assert_false(qn_glob_matches((qn_str){glob, sizeof glob}, (qn_str){text, sizeof text}));
}

static void test_each_rule_matches_what_it_should(void **state)
{
    (void)state;
    static const char *const entries[] = {"lm_head",     "model.layers.1.mlp",
                                          "*layers.2.*", "re:model\\.layers\\.3\\.",
                                          "re:o_proj$",  "lm_head",
                                          NULL};
    static const struct {
        const char *name;
        bool equals, matches, covers; /* itself; SGLang and vLLM; ATOM */
    } cases[] = {
        {"lm_head", true, true, true},
        {"lm_head.x", false, false, true},
        {"lm_hea", false, false, false},
        {"model.layers.1.mlp", true, true, true},
        {"model.layers.1.mlp.gate_proj", false, false, true},
        {"model.layers.1.mlpx", false, false, false},
        {"model.layers.2.mlp", false, false, true},
        {"model.layers.3.mlp", false, true, true},
        {"xmodel.layers.3.mlp", false, false, true}, /* re.match begins at the start */
        {"model.layers.5.self_attn.o_proj", false, false, true},
    };
    qn_exclude list = list_of(entries);
    assert_int_equal(list.n_names, 2);
    assert_int_equal(list.n_patterns, 3);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const qn_str name = qn_str_of(cases[i].name);
        if (qn_exclude_equals(&list, name) != cases[i].equals ||
            qn_exclude_matches(&list, name) != cases[i].matches ||
            qn_exclude_covers(&list, name) != cases[i].covers) {
            fail_msg("%s", cases[i].name);
        }
    }
    qn_exclude_deinit(&list);
}

static void test_children_are_paths_and_not_prefixes(void **state)
{
    (void)state;
    static const char *const entries[] = {"a.mlp.experts.0.up_proj", "b.mlp.expertsX.0", "c.mlp",
                                          NULL};
    qn_exclude list = list_of(entries);
    assert_true(qn_exclude_has_child(&list, qn_str_of("a.mlp.experts")));
    assert_true(qn_exclude_has_child(&list, qn_str_of("a.mlp")));
    assert_false(qn_exclude_has_child(&list, qn_str_of("b.mlp.experts")));
    assert_false(qn_exclude_has_child(&list, qn_str_of("c.mlp")));
    assert_false(qn_exclude_has_child(&list, qn_str_of("z")));
    qn_exclude_deinit(&list);
}

static void test_hostile_patterns_are_bounded(void **state)
{
    (void)state;
    qn_exclude list = {0};
    qn_error err = {0};
    assert_int_equal(qn_exclude_add(&list, qn_str_of("re:(x"), &err), QN_E_FORMAT);
    assert_non_null(strstr(err.text, "re:(x: "));
    for (int i = 0; i < QN_EXCLUDE_PATTERNS_MAX + 3; i++) {
        assert_int_equal(qn_exclude_add(&list, qn_str_of("re:(a+)+b"), &err), QN_OK);
    }
    qn_exclude_seal(&list);
    assert_int_equal(list.n_patterns, QN_EXCLUDE_PATTERNS_MAX);
    assert_int_equal(list.n_ignored, 3);
    /* backtracks for ever unless the steps are limited */
    assert_false(qn_exclude_covers(&list, qn_str_of("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac")));
    qn_exclude_deinit(&list);
}

/* ------------------------------------------------------------------------------- the engines -- */

static qn_module module_of(const char *name, qn_tensor_kind kind, int32_t layer)
{
    return (qn_module){.name = qn_str_of(name), .kind = kind, .layer = layer};
}

static void check_name(qn_engine engine, const qn_module *module, const char *expected)
{
    const qn_exclude none = {0};
    qn_matcher m;
    char room[QN_MODULE_BYTES_MAX];
    assert_int_equal(qn_matcher_open(&m, engine, &none, 78, NULL), QN_OK);
    const qn_str name = qn_matcher_name(&m, module, room);
    if (!qn_str_equal(name, qn_str_of(expected))) {
        fail_msg("engine %d: %.*s, expected %s", (int)engine, (int)name.len, name.ptr, expected);
    }
    qn_matcher_close(&m);
}

static void test_each_engine_asks_by_its_own_name(void **state)
{
    (void)state;
    static const struct {
        const char *module;
        qn_tensor_kind kind;
        int32_t layer;
        const char *sglang, *vllm, *atom;
    } cases[] = {
        {"model.layers.3.self_attn.o_proj", QN_KIND_ATTENTION, 3, "model.layers.3.self_attn.o_proj",
         "model.layers.3.self_attn.o_proj", "model.layers.3.self_attn.o_proj"},
        {"model.layers.3.self_attn.q_a_proj", QN_KIND_ATTENTION, 3,
         "model.layers.3.self_attn.q_a_proj", "model.layers.3.self_attn.q_a_proj",
         "model.layers.3.self_attn.fused_qkv_a_proj"},
        {"model.layers.3.mlp.experts.7.up_proj", QN_KIND_ROUTED_EXPERT, 3,
         "model.layers.3.mlp.experts", "model.layers.3.mlp.experts", "model.layers.3.mlp.experts"},
        {"model.layers.3.mlp.shared_experts.up_proj", QN_KIND_SHARED_EXPERT, 3,
         "model.layers.3.mlp.shared_experts.up_proj", "model.layers.3.mlp.shared_experts.up_proj",
         "model.layers.3.mlp.shared_experts.gate_up_proj"},
        {"model.layers.78.eh_proj", QN_KIND_MTP_PROJ, 78, "model.eh_proj",
         "model.layers.78.eh_proj", "model.layers.78.eh_proj"},
        {"model.layers.78.self_attn.kv_a_proj_with_mqa", QN_KIND_ATTENTION, 78,
         "model.decoder.self_attn.kv_a_proj_with_mqa",
         "model.layers.78.self_attn.kv_a_proj_with_mqa",
         "model.layers.78.self_attn.fused_qkv_a_proj"},
        {"model.layers.78.mlp.experts.0.down_proj", QN_KIND_ROUTED_EXPERT, 78,
         "model.decoder.mlp.experts", "model.layers.78.mlp.experts", "model.layers.78.mlp.experts"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const qn_module module = module_of(cases[i].module, cases[i].kind, cases[i].layer);
        check_name(QN_ENGINE_SGLANG_OLD, &module, cases[i].sglang);
        check_name(QN_ENGINE_SGLANG, &module, cases[i].sglang);
        check_name(QN_ENGINE_VLLM_OLD, &module, cases[i].vllm);
        check_name(QN_ENGINE_VLLM, &module, cases[i].vllm);
        check_name(QN_ENGINE_ATOM, &module, cases[i].atom);
    }
}

static void test_names_of_engines_lead_back_to_the_checkpoint(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"model.eh_proj", "model.layers.78.eh_proj"},
        {"model.shared_head.norm", "model.layers.78.shared_head.norm"},
        {"model.decoder.mlp.experts", "model.layers.78.mlp.experts"},
        {"model.decoder.self_attn.fused_qkv_a_proj_with_mqa", "model.layers.78.self_attn.q_a_proj"},
        {"model.layers.3.mlp.gate_up_proj", "model.layers.3.mlp.gate_proj"},
        {"model.layers.3.self_attn.o_proj", "model.layers.3.self_attn.o_proj"},
        {"model.self_attn.o_proj", "model.self_attn.o_proj"}, /* nobody's name */
        {"lm_head", "lm_head"},
        {"model.", "model."},
        {"", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char room[QN_MODULE_BYTES_MAX];
        const qn_str name = qn_checkpoint_name(qn_str_of(cases[i][0]), 78, room);
        if (!qn_str_equal(name, qn_str_of(cases[i][1]))) {
            fail_msg("%s: %.*s, expected %s", cases[i][0], (int)name.len, name.ptr, cases[i][1]);
        }
    }
}

/* Which engines exclude a module of layer 78, as letters: S s V v A, old ones in capitals. */
static void check_excluded(const char *const *entries, const char *name, qn_tensor_kind kind,
                           const char *expected)
{
    static const char letters[] = "SsVvA";
    qn_exclude list = list_of(entries);
    const qn_module module = module_of(name, kind, 78);
    char seen[QN_N_ENGINES + 1] = "";
    for (int e = 0; e < QN_N_ENGINES; e++) {
        qn_matcher m;
        assert_int_equal(qn_matcher_open(&m, (qn_engine)e, &list, 78, NULL), QN_OK);
        if (qn_matcher_excludes(&m, &module)) {
            seen[strlen(seen)] = letters[e];
        }
        qn_matcher_close(&m);
    }
    qn_exclude_deinit(&list);
    assert_string_equal(seen, expected);
}

static void test_layer_78_is_excluded_as_each_engine_says(void **state)
{
    (void)state;
    static const char expert[] = "model.layers.78.mlp.experts.5.up_proj";
    static const char eh_proj[] = "model.layers.78.eh_proj";
    static const char q_a[] = "model.layers.78.self_attn.q_a_proj";
    static const char *const amd[] = {"model.layers.78.eh_proj",
                                      "model.layers.78.mlp.experts.0.up_proj",
                                      "model.layers.78.self_attn.q_a_proj", NULL};
    check_excluded(amd, expert, QN_KIND_ROUTED_EXPERT, "svA");
    check_excluded(amd, eh_proj, QN_KIND_MTP_PROJ, "sVvA");
    check_excluded(amd, q_a, QN_KIND_ATTENTION, "sVvA");
    static const char *const draft[] = {"model.decoder.mlp.experts", "model.eh_proj", NULL};
    check_excluded(draft, expert, QN_KIND_ROUTED_EXPERT, "Ss");
    check_excluded(draft, eh_proj, QN_KIND_MTP_PROJ, "Ss");
    static const char *const block[] = {"model.layers.78.mlp.experts", NULL};
    check_excluded(block, expert, QN_KIND_ROUTED_EXPERT, "sVvA");
    static const char *const layer[] = {"model.layers.78", NULL};
    check_excluded(layer, expert, QN_KIND_ROUTED_EXPERT, "A");
    check_excluded(layer, q_a, QN_KIND_ATTENTION, "A");
    static const char *const glob[] = {"*layers.78.*", NULL};
    check_excluded(glob, eh_proj, QN_KIND_MTP_PROJ, "A");
    static const char *const expression[] = {"re:model\\.(decoder|layers\\.78)\\.", NULL};
    check_excluded(expression, expert, QN_KIND_ROUTED_EXPERT, "SsVvA");
    check_excluded(expression, eh_proj, QN_KIND_MTP_PROJ, "VvA");
    static const char *const mate[] = {"model.layers.78.self_attn.kv_a_proj_with_mqa", NULL};
    check_excluded(mate, q_a, QN_KIND_ATTENTION, "A"); /* one fused projection for ATOM */
    static const char *const none[] = {NULL};
    check_excluded(none, eh_proj, QN_KIND_MTP_PROJ, "");
}

static void test_names_that_are_too_long_match_nothing(void **state)
{
    (void)state;
    char name[600];
    qn_exclude list = {0};
    qn_matcher m;
    char room[QN_MODULE_BYTES_MAX];
    memset(name, 'x', sizeof name);
    memcpy(name, "model.layers.78.", 16); /* NOLINT(bugprone-not-null-terminated-result) */
    const qn_str long_name = {name, sizeof name};
    assert_int_equal(qn_exclude_add(&list, long_name, NULL), QN_OK);
    qn_exclude_seal(&list);
    const qn_module module = {.name = long_name, .kind = QN_KIND_ATTENTION, .layer = 78};
    for (int e = 0; e < QN_N_ENGINES; e++) {
        assert_int_equal(qn_matcher_open(&m, (qn_engine)e, &list, 78, NULL), QN_OK);
        assert_int_equal(qn_matcher_name(&m, &module, room).len, 0);
        assert_false(qn_matcher_excludes(&m, &module));
        qn_matcher_close(&m);
    }
    qn_exclude_deinit(&list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_globs_are_pythons),
        cmocka_unit_test(test_a_glob_of_stars_takes_no_exponential_time),
        cmocka_unit_test(test_each_rule_matches_what_it_should),
        cmocka_unit_test(test_children_are_paths_and_not_prefixes),
        cmocka_unit_test(test_hostile_patterns_are_bounded),
        cmocka_unit_test(test_each_engine_asks_by_its_own_name),
        cmocka_unit_test(test_names_of_engines_lead_back_to_the_checkpoint),
        cmocka_unit_test(test_layer_78_is_excluded_as_each_engine_says),
        cmocka_unit_test(test_names_that_are_too_long_match_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

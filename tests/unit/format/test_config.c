/* SPDX-License-Identifier: Apache-2.0 */
#include "base/json.h"
#include "base/log.h"
#include "format/config.h"
#include "scratch.h"

#define NANO QN_SOURCE_DIR "/models/glm-nano/config.json"

/* glm-nano's config.json with the keys of the object @p patch put in its place, as text (free). */
static char *patched(const char *patch)
{
    json_t *root = NULL;
    json_t *changes = NULL;
    qn_error err = {0};
    assert_int_equal(qn_json_load(&root, NANO, 1 << 20, &err), QN_OK);
    if (qn_json_parse(&changes, qn_str_of(patch), "patch", &err) != QN_OK) {
        fail_msg("%s: %s", patch, err.text);
    }
    assert_int_equal(json_object_update(root, changes), 0);
    char *const text = json_dumps(root, 0);
    assert_non_null(text);
    json_decref(changes);
    json_decref(root);
    return text;
}

static void accept(const char *patch, qn_config *out)
{
    qn_error err = {0};
    char *const text = patched(patch);
    if (qn_config_parse(out, qn_str_of(text), "F", &err) != QN_OK) {
        fail_msg("%s: %s", patch, err.text);
    }
    free(text);
}

static void refuse(const char *patch, const char *message)
{
    qn_config config;
    qn_error err = {0};
    char *const text = patched(patch);
    const qn_status status = qn_config_parse(&config, qn_str_of(text), "F", &err);
    if (status != QN_E_FORMAT || strcmp(err.text, message) != 0) {
        fail_msg("%s: %s: %s, expected: %s", patch, qn_status_name(status), err.text, message);
    }
    assert_int_equal(config.n_layers, 0);
    free(text);
}

static void test_glm_nano_is_read_in_every_number(void **state)
{
    (void)state;
    qn_config c;
    qn_error err = {0};
    assert_int_equal(qn_config_load(&c, NANO, &err), QN_OK);
    const uint32_t seen[] = {
        c.n_layers,      c.n_mtp_layers,   c.n_embd,           c.n_vocab,       c.n_heads,
        c.q_rank,        c.kv_rank,        c.nope_dim,         c.rope_dim,      c.v_dim,
        c.n_index_heads, c.index_dim,      c.index_topk,       c.n_ff_dense,    c.n_ff_expert,
        c.n_experts,     c.n_experts_used, c.n_experts_shared, c.n_context_max, c.n_stop_ids};
    static const uint32_t expected[] = {4, 1,   256, 6144, 4,   128, 512, 192, 64,    256,
                                        4, 128, 256, 512,  128, 24,  4,   1,   32768, 3};
    assert_memory_equal(seen, expected, sizeof expected);
    assert_true(c.rms_eps == 1e-5F && c.rope_theta == 8e6 && c.routed_scale == 2.5F);
    assert_true(c.norm_topk && c.index_share_for_mtp);
    assert_int_equal(c.stop_ids[0], 6112);
    assert_int_equal(c.stop_ids[2], 6121);
    assert_int_equal(c.pad_id, 6112);
    assert_int_equal(c.quant_declared, QN_QUANT_NONE);
    static const bool is_dense[] = {true, false, false, false, false};
    static const bool is_full[] = {true, true, false, false, true};
    assert_memory_equal(c.is_dense, is_dense, sizeof is_dense);
    assert_memory_equal(c.is_index_full, is_full, sizeof is_full);
}

static uint32_t count(const bool *flags, uint32_t n)
{
    uint32_t n_set = 0;
    for (uint32_t i = 0; i < n; i++) {
        n_set += flags[i] ? 1 : 0;
    }
    return n_set;
}

static void test_every_config_of_the_tree_loads(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint32_t n_heads;
        uint32_t n_vocab;
        uint32_t n_ff_expert;
        uint32_t n_experts;
        uint32_t n_index_full; /* MTP layer included */
        uint32_t n_context_max;
        int32_t stop_id;
    } cases[] = {
        {"glm-5", 64, 154880, 2048, 256, 79, 202752, 154820},
        {"glm-5.1", 64, 154880, 2048, 256, 79, 202752, 154820},
        {"glm-5.2", 64, 154880, 2048, 256, 22, 1048576, 154820},
        {"glm-5.2-tp2", 32, 77440, 1024, 256, 22, 1048576, 77380},
        {"glm-5.2-tp4", 16, 38720, 512, 256, 22, 1048576, 38660},
        {"glm-5.2-mxfp4-tp4", 16, 38720, 512, 256, 22, 1048576, 38660},
        {"glm-5.2-tp8", 8, 19360, 256, 256, 22, 1048576, 19300},
        {"glm-5.2-mxfp4-tp8", 8, 19360, 256, 256, 22, 1048576, 19300},
        {"glm-5.2-dp2", 64, 154880, 2048, 128, 22, 1048576, 154820},
        {"glm-5.2-dp4", 64, 154880, 2048, 64, 22, 1048576, 154820},
        {"glm-5.2-dp8", 64, 154880, 2048, 32, 22, 1048576, 154820},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char path[512];
        qn_config c;
        qn_error err = {0};
        (void)snprintf(path, sizeof path, "%s/configs/%s/config.json", QN_SOURCE_DIR,
                       cases[i].name);
        if (qn_config_load(&c, path, &err) != QN_OK) {
            fail_msg("%s", err.text);
        }
        assert_int_equal(c.n_heads, cases[i].n_heads);
        assert_int_equal(c.n_vocab, cases[i].n_vocab);
        assert_int_equal(c.n_ff_expert, cases[i].n_ff_expert);
        assert_int_equal(c.n_experts, cases[i].n_experts);
        assert_int_equal(c.n_experts_used, 8);
        assert_int_equal(c.n_context_max, cases[i].n_context_max);
        assert_int_equal(c.stop_ids[0], cases[i].stop_id);
        assert_int_equal(count(c.is_index_full, c.n_layers + c.n_mtp_layers),
                         cases[i].n_index_full);
        assert_int_equal(count(c.is_dense, c.n_layers + c.n_mtp_layers), 3);
    }
    assert_int_equal(scratch_count(QN_SOURCE_DIR "/configs"), sizeof cases / sizeof cases[0]);
}

static void test_layer_kinds_have_three_spellings(void **state)
{
    (void)state;
    static const bool ffss[] = {true, true, false, false, true};
    static const bool all[] = {true, true, true, true, true};
    static const bool dense_every_2[] = {true, true, false, true, false};
    qn_config c;
    accept("{\"indexer_types\": null}", &c); /* the formula with freq 4, offset 2 */
    assert_memory_equal(c.is_index_full, ffss, sizeof ffss);
    accept("{\"indexer_types\": null, \"index_topk_pattern\": \"FFSS\"}", &c);
    assert_memory_equal(c.is_index_full, ffss, sizeof ffss);
    accept("{\"indexer_types\": null, \"index_topk_pattern\": [\"F\", \"F\", \"S\", \"S\"]}", &c);
    assert_memory_equal(c.is_index_full, ffss, sizeof ffss);
    accept("{\"indexer_types\": null, \"index_topk_freq\": null}", &c);
    assert_memory_equal(c.is_index_full, all, sizeof all);
    accept("{\"indexer_types\": null, \"index_topk_freq\": 2, \"index_skip_topk_offset\": null}",
           &c); /* offset 2 by default */
    assert_true(c.is_index_full[0] && c.is_index_full[1] && !c.is_index_full[2]);
    assert_true(c.is_index_full[3]);
    accept("{\"mlp_layer_types\": null}", &c);
    assert_int_equal(count(c.is_dense, 5), 1);
    accept("{\"mlp_layer_types\": null, \"moe_layer_freq\": 2}", &c);
    assert_memory_equal(c.is_dense, dense_every_2, sizeof dense_every_2);
    accept("{\"first_k_dense_replace\": null, \"moe_layer_freq\": null}", &c);
    assert_int_equal(count(c.is_dense, 5), 1);
}

static void test_older_and_optional_spellings_are_accepted(void **state)
{
    (void)state;
    qn_config c;
    accept("{\"num_nextn_predict_layers\": 0}", &c);
    assert_int_equal(c.n_mtp_layers, 0);
    assert_false(c.is_index_full[4]);
    accept("{\"rope_parameters\": null, \"rope_scaling\": null, \"rope_theta\": 1000000}", &c);
    assert_true(c.rope_theta == 1e6);
    accept("{\"rope_theta\": 8e6, \"rope_scaling\": {\"type\": \"default\", \"rope_theta\": null}}",
           &c);
    accept("{\"rope_parameters\": {\"rope_theta\": 10, \"partial_rotary_factor\": 1.0}}", &c);
    assert_true(c.rope_theta == 10.0);
    accept("{\"eos_token_id\": 7, \"pad_token_id\": null}", &c);
    assert_int_equal(c.n_stop_ids, 1);
    assert_int_equal(c.stop_ids[0], 7);
    assert_int_equal(c.pad_id, -1);
    accept("{\"eos_token_id\": null, \"hidden_size\": 256.0, \"n_group\": 1.0}", &c);
    assert_int_equal(c.n_stop_ids, 0);
    accept("{\"dtype\": null, \"torch_dtype\": \"float32\", \"moe_router_dtype\": \"float32\","
           " \"num_experts\": 24, \"mlp_bias\": false, \"index_init_tokens\": 0}",
           &c);
    accept("{\"scoring_func\": null, \"rope_interleave\": null, \"qk_head_dim\": null,"
           " \"num_key_value_heads\": null, \"index_share_for_mtp_iteration\": null}",
           &c);
    assert_false(c.index_share_for_mtp);
    accept("{\"quantization_config\": {\"quant_method\": \"fp8\","
           " \"weight_block_size\": [128, 128]}}",
           &c);
    assert_int_equal(c.quant_declared, QN_QUANT_FP8);
    accept("{\"quantization_config\": {\"quant_method\": \"quark\"}}", &c);
    assert_int_equal(c.quant_declared, QN_QUANT_QUARK);
    accept("{\"quantization_config\": {\"quant_method\": \"modelopt\"}}", &c);
    assert_int_equal(c.quant_declared, QN_QUANT_OTHER);
}

typedef struct refusal {
    const char *patch;
    const char *message;
} refusal;

static void refuse_all(const refusal *cases, size_t n_cases)
{
    for (size_t i = 0; i < n_cases; i++) {
        refuse(cases[i].patch, cases[i].message);
    }
}

static void test_another_model_is_refused(void **state)
{
    (void)state;
    static const refusal cases[] = {
        {"{\"architectures\": [\"LlamaForCausalLM\"]}",
         "F: architectures: \"LlamaForCausalLM\", [\"GlmMoeDsaForCausalLM\"] expected"},
        {"{\"architectures\": null}",
         "F: architectures: nothing, [\"GlmMoeDsaForCausalLM\"] expected"},
        {"{\"architectures\": [\"A\", \"B\"]}",
         "F: architectures: a list, [\"GlmMoeDsaForCausalLM\"] expected"},
        {"{\"model_type\": \"glm4_moe\"}", "F: model_type: \"glm4_moe\", \"glm_moe_dsa\" expected"},
        {"{\"model_type\": null}", "F: model_type: nothing, \"glm_moe_dsa\" expected"},
        {"{\"hidden_act\": \"gelu\"}", "F: hidden_act: \"gelu\", \"silu\" expected"},
        {"{\"scoring_func\": \"softmax\"}", "F: scoring_func: \"softmax\", \"sigmoid\" expected"},
        {"{\"topk_method\": \"greedy\"}", "F: topk_method: \"greedy\", \"noaux_tc\" expected"},
        {"{\"moe_router_dtype\": \"bfloat16\"}",
         "F: moe_router_dtype: \"bfloat16\", \"float32\" expected"},
        {"{\"n_group\": 8}", "F: n_group: 8, 1 expected"},
        {"{\"topk_group\": 4}", "F: topk_group: 4, 1 expected"},
        {"{\"index_init_tokens\": 4}", "F: index_init_tokens: 4, 0 expected"},
        {"{\"index_local_tokens\": 64}", "F: index_local_tokens: 64, 0 expected"},
        {"{\"partial_rotary_factor\": 0.5}", "F: partial_rotary_factor: 0.5, 1 expected"},
        {"{\"tie_word_embeddings\": true}", "F: tie_word_embeddings: true, false expected"},
        {"{\"attention_bias\": true}", "F: attention_bias: true, false expected"},
        {"{\"mlp_bias\": true}", "F: mlp_bias: true, false expected"},
        {"{\"rope_interleave\": false}", "F: rope_interleave: false, true expected"},
        {"{\"indexer_rope_interleave\": 1}", "F: indexer_rope_interleave: 1, true expected"},
        {"{\"dtype\": \"int8\"}", "F: dtype: \"int8\", bfloat16, float16 or float32 expected"},
        {"{\"torch_dtype\": \"float32\"}",
         "F: torch_dtype: \"float32\", \"bfloat16\" as dtype expected"},
        {"{\"quantization_config\": {}}",
         "F: quantization_config.quant_method: nothing, a string expected"},
        {"{\"quantization_config\": 4}",
         "F: quantization_config.quant_method: nothing, a string expected"},
        {"{\"quantization_config\": {\"quant_method\": \"fp8\", \"weight_block_size\": [64, 128]}}",
         "F: quantization_config.weight_block_size: a list, [128, 128] expected"},
    };
    refuse_all(cases, sizeof cases / sizeof cases[0]);
}

static void test_numbers_out_of_range_are_refused(void **state)
{
    (void)state;
    static const refusal cases[] = {
        {"{\"n_routed_experts\": 1000000000}",
         "F: n_routed_experts: 1000000000, an integer 1 to 4096 expected"},
        {"{\"num_hidden_layers\": 0}", "F: num_hidden_layers: 0, an integer 1 to 255 expected"},
        {"{\"num_hidden_layers\": 256}", "F: num_hidden_layers: 256, an integer 1 to 255 expected"},
        {"{\"hidden_size\": -256}", "F: hidden_size: -256, an integer 1 to 131072 expected"},
        {"{\"hidden_size\": \"256\"}", "F: hidden_size: \"256\", an integer 1 to 131072 expected"},
        {"{\"vocab_size\": 1.5}", "F: vocab_size: 1.5, an integer 1 to 16777216 expected"},
        {"{\"index_topk\": null}", "F: index_topk: null, an integer 1 to 16777216 expected"},
        {"{\"num_nextn_predict_layers\": 2}",
         "F: num_nextn_predict_layers: 2, an integer 0 to 1 expected"},
        {"{\"rms_norm_eps\": 0}", "F: rms_norm_eps: 0, a number 1e-12 to 0.1 expected"},
        {"{\"routed_scaling_factor\": \"x\"}",
         "F: routed_scaling_factor: \"x\", a number 1e-06 to 1e+06 expected"},
        {"{\"norm_topk_prob\": 1}", "F: norm_topk_prob: 1, true or false expected"},
        {"{\"index_share_for_mtp_iteration\": \"yes\"}",
         "F: index_share_for_mtp_iteration: \"yes\", true or false expected"},
        {"{\"eos_token_id\": [6144]}",
         "F: eos_token_id: 6144, an id below vocab_size 6144 expected"},
        {"{\"eos_token_id\": -1}", "F: eos_token_id: -1, an id below vocab_size 6144 expected"},
        {"{\"eos_token_id\": \"<eos>\"}",
         "F: eos_token_id: \"<eos>\", an id below vocab_size 6144 expected"},
        {"{\"eos_token_id\": [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]}",
         "F: eos_token_id: 17 ids, at most 16 expected"},
        {"{\"pad_token_id\": 6144}", "F: pad_token_id: 6144, an id below vocab_size 6144 expected"},
        {"{\"index_topk_freq\": 0}", "F: index_topk_freq: 0, an integer 1 to 256 expected"},
        {"{\"index_skip_topk_offset\": -1}",
         "F: index_skip_topk_offset: -1, an integer 0 to 256 expected"},
        {"{\"first_k_dense_replace\": \"one\"}",
         "F: first_k_dense_replace: \"one\", an integer 0 to 256 expected"},
        {"{\"moe_layer_freq\": [1]}", "F: moe_layer_freq: a list, an integer 1 to 256 expected"},
    };
    refuse_all(cases, sizeof cases / sizeof cases[0]);
}

static void test_contradictions_name_both_keys(void **state)
{
    (void)state;
    static const refusal cases[] = {
        {"{\"qk_head_dim\": 255}",
         "F: qk_head_dim: 255, 192 + 64 of qk_nope_head_dim and qk_rope_head_dim expected"},
        {"{\"num_key_value_heads\": 2}",
         "F: num_key_value_heads: 2, 4 as num_attention_heads expected"},
        {"{\"num_experts\": 23}", "F: num_experts: 23, 24 as n_routed_experts expected"},
        {"{\"num_local_experts\": 23}",
         "F: num_local_experts: 23, 24 as n_routed_experts expected"},
        {"{\"qk_rope_head_dim\": 63, \"qk_head_dim\": null}",
         "F: qk_rope_head_dim: 63, an even number expected"},
        {"{\"index_head_dim\": 32}",
         "F: index_head_dim: 32, at least 64, the qk_rope_head_dim, expected"},
        {"{\"num_experts_per_tok\": 25}",
         "F: num_experts_per_tok: 25, at most 24, the n_routed_experts, expected"},
        {"{\"first_k_dense_replace\": 2}",
         "F: first_k_dense_replace: layer 1 dense, sparse expected by mlp_layer_types"},
        {"{\"index_topk_freq\": 1}",
         "F: index_topk_freq: layer 2 full, shared expected by indexer_types"},
        {"{\"index_topk_pattern\": \"FSSS\"}",
         "F: index_topk_pattern: layer 1 shared, full expected by indexer_types"},
        {"{\"indexer_types\": null, \"index_topk_pattern\": \"FSSS\"}",
         "F: index_topk_freq: layer 1 full, shared expected by index_topk_pattern"},
        {"{\"rope_theta\": 10000}", "F: rope_theta: 10000, 8e+06 as in rope_parameters expected"},
        {"{\"rope_scaling\": {\"rope_theta\": 5}}",
         "F: rope_scaling: rope_theta: 5, 8e+06 as in rope_parameters expected"},
    };
    refuse_all(cases, sizeof cases / sizeof cases[0]);
}

static void test_bad_lists_of_layers_are_refused(void **state)
{
    (void)state;
    static const refusal cases[] = {
        {"{\"indexer_types\": [\"full\"]}",
         "F: indexer_types: 1 layers, 4 (num_hidden_layers) expected"},
        {"{\"indexer_types\": \"FFSS\"}",
         "F: indexer_types: \"FFSS\", a list of num_hidden_layers words expected"},
        {"{\"indexer_types\": [\"full\", \"half\", \"shared\", \"shared\"]}",
         "F: indexer_types[1]: half, \"full\" or \"shared\" expected"},
        {"{\"indexer_types\": [1, 2, 3, 4]}",
         "F: indexer_types[0]: not a string, \"full\" or \"shared\" expected"},
        {"{\"index_topk_pattern\": \"FFSX\"}",
         "F: index_topk_pattern[3]: X, \"F\" or \"S\" expected"},
        {"{\"index_topk_pattern\": \"FFS\"}",
         "F: index_topk_pattern: 3 layers, 4 (num_hidden_layers) expected"},
        {"{\"indexer_types\": [\"shared\", \"full\", \"full\", \"full\"], \"index_topk_freq\": "
         "null}",
         "F: indexer_types: layer 0 shared, full expected (it has none to share)"},
        {"{\"mlp_layer_types\": [\"dense\", \"moe\", \"sparse\", \"sparse\"]}",
         "F: mlp_layer_types[1]: moe, \"dense\" or \"sparse\" expected"},
        {"{\"mlp_layer_types\": {}}",
         "F: mlp_layer_types: an object, a list of num_hidden_layers words expected"},
        {"{\"mlp_layer_types\": null, \"first_k_dense_replace\": null}",
         "F: mlp_layer_types: nothing, a list, or first_k_dense_replace, expected"},
        {"{\"num_hidden_layers\": 5}",
         "F: mlp_layer_types: 4 layers, 5 (num_hidden_layers) expected"},
    };
    refuse_all(cases, sizeof cases / sizeof cases[0]);
}

static void test_other_rotations_are_refused_by_name(void **state)
{
    (void)state;
    static const refusal cases[] = {
        {"{\"rope_parameters\": {\"rope_theta\": 1e6, \"rope_type\": \"yarn\"}}",
         "F: rope_parameters.rope_type: \"yarn\", \"default\" expected"},
        {"{\"rope_scaling\": {\"type\": \"linear\"}}",
         "F: rope_scaling.type: \"linear\", \"default\" expected"},
        {"{\"rope_parameters\": {\"rope_theta\": 1e6, \"factor\": 4.5}}",
         "F: rope_parameters.factor: 4.5, rope_theta and rope_type alone expected"},
        {"{\"rope_parameters\": {\"rope_theta\": 1e6, \"partial_rotary_factor\": 0.5}}",
         "F: rope_parameters.partial_rotary_factor: 0.5, rope_theta and rope_type alone expected"},
        {"{\"rope_parameters\": [1]}", "F: rope_parameters: a list, an object expected"},
        {"{\"rope_parameters\": {\"rope_theta\": \"x\"}}",
         "F: rope_parameters: rope_theta: \"x\", a number 1 to 1e+15 expected"},
        {"{\"rope_parameters\": null}",
         "F: rope_parameters.rope_theta: nothing, a number from 1 expected"},
    };
    refuse_all(cases, sizeof cases / sizeof cases[0]);
}

static void test_text_that_is_no_object_is_refused(void **state)
{
    (void)state;
    qn_config config;
    qn_error err = {0};
    assert_int_equal(qn_config_parse(&config, qn_str_of("[1]"), "F", &err), QN_E_FORMAT);
    assert_string_equal(err.text, "F: a list, an object expected");
    assert_int_equal(qn_config_parse(&config, qn_str_of("{"), "F", &err), QN_E_FORMAT);
    assert_non_null(strstr(err.text, "F: line 1, column 2"));
    assert_int_equal(qn_config_load(&config, "/nonexistent/config.json", &err), QN_E_NOT_FOUND);
    assert_non_null(strstr(err.text, "/nonexistent/config.json"));
}

/* stderr of one parse */
static void parse_with_log(const char *patch, char *out, size_t out_bytes)
{
    qn_config config;
    FILE *const file = tmpfile();
    assert_non_null(file);
    const int saved = dup(STDERR_FILENO);
    assert_true(dup2(fileno(file), STDERR_FILENO) >= 0);
    qn_log_setup(QN_LOG_INFO, false);
    accept(patch, &config);
    qn_log_setup(QN_LOG_WARN, false);
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    (void)close(saved);
    rewind(file);
    out[fread(out, 1, out_bytes - 1, file)] = '\0';
    (void)fclose(file);
}

static void test_unknown_keys_are_noted_in_one_line(void **state)
{
    (void)state;
    char seen[2000];
    parse_with_log("{\"new_key\": 1, \"other\": {}}", seen, sizeof seen);
    assert_string_equal(seen, "quern: F: noted, not used: new_key, other\n");
    parse_with_log("{\"bos_token_id\": 1, \"layer_types\": [], \"pretraining_tp\": 1}", seen,
                   sizeof seen);
    assert_string_equal(seen, "");
}

static void load_generation(const char *text, qn_generation_config *out, qn_status expected,
                            const char *message)
{
    char dir[] = "/tmp/quern-test-XXXXXX";
    char path[64];
    qn_error err = {0};
    scratch_make(dir);
    (void)snprintf(path, sizeof path, "%s/generation_config.json", dir);
    if (text != NULL) {
        scratch_write(dir, "generation_config.json", text, strlen(text));
    }
    const qn_status status = qn_generation_config_load(out, path, 100, &err);
    if (status != expected || strstr(err.text, message) == NULL) {
        fail_msg("%s: %s, expected: %s", qn_status_name(status), err.text, message);
    }
    scratch_remove(dir);
}

static void test_generation_defaults_come_from_file_or_are_neutral(void **state)
{
    (void)state;
    qn_generation_config g;
    qn_error err = {0};
    load_generation(NULL, &g, QN_OK, "");
    assert_true(g.temperature == 1.0F && g.top_p == 1.0F && g.min_p == 0.0F && g.do_sample);
    assert_int_equal(g.top_k + g.n_stop_ids, 0);
    load_generation("{\"temperature\": 0, \"top_p\": 0.5, \"top_k\": 40, \"min_p\": 0.25,"
                    " \"do_sample\": false, \"eos_token_id\": [3, 99], \"max_length\": 5}",
                    &g, QN_OK, "");
    assert_true(g.temperature == 0.0F && g.top_p == 0.5F && g.min_p == 0.25F && !g.do_sample);
    assert_int_equal(g.top_k, 40);
    assert_int_equal(g.n_stop_ids, 2);
    assert_int_equal(g.stop_ids[1], 99);
    assert_int_equal(qn_generation_config_load(
                         &g, QN_SOURCE_DIR "/models/glm-nano/generation_config.json", 6144, &err),
                     QN_OK);
    assert_true(g.temperature == 1.0F && g.top_p == 0.95F && g.do_sample);
    assert_int_equal(g.n_stop_ids, 3);
}

static void test_bad_generation_defaults_are_refused(void **state)
{
    (void)state;
    qn_generation_config g;
    load_generation("[]", &g, QN_E_FORMAT, ": a list, an object expected");
    load_generation("{", &g, QN_E_FORMAT, "line 1, column 2");
    load_generation("{\"temperature\": -1}", &g, QN_E_FORMAT, "temperature: -1, a number 0 to 100");
    load_generation("{\"top_p\": 1.5}", &g, QN_E_FORMAT, "top_p: 1.5, a number 1e-06 to 1");
    load_generation("{\"min_p\": \"x\"}", &g, QN_E_FORMAT, "min_p: \"x\", a number 0 to 1");
    load_generation("{\"top_k\": -1}", &g, QN_E_FORMAT, "top_k: -1, an integer 0 to");
    load_generation("{\"do_sample\": 1}", &g, QN_E_FORMAT, "do_sample: 1, true or false");
    load_generation("{\"eos_token_id\": 100}", &g, QN_E_FORMAT, "an id below vocab_size 100");
    assert_true(g.temperature == 1.0F && g.n_stop_ids == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_glm_nano_is_read_in_every_number),
        cmocka_unit_test(test_every_config_of_the_tree_loads),
        cmocka_unit_test(test_layer_kinds_have_three_spellings),
        cmocka_unit_test(test_older_and_optional_spellings_are_accepted),
        cmocka_unit_test(test_another_model_is_refused),
        cmocka_unit_test(test_numbers_out_of_range_are_refused),
        cmocka_unit_test(test_contradictions_name_both_keys),
        cmocka_unit_test(test_bad_lists_of_layers_are_refused),
        cmocka_unit_test(test_other_rotations_are_refused_by_name),
        cmocka_unit_test(test_text_that_is_no_object_is_refused),
        cmocka_unit_test(test_unknown_keys_are_noted_in_one_line),
        cmocka_unit_test(test_generation_defaults_come_from_file_or_are_neutral),
        cmocka_unit_test(test_bad_generation_defaults_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

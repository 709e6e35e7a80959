/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cpu.h"
#include "kernels/kernels.h"
#include "transcript.h"

static void test_model_nano_tells_its_facts(void **state)
{
    (void)state;
    qn_model *model = NULL;
    qn_error err = {0};
    assert_int_equal(qn_model_open(&model, NANO, NULL, &err), QN_OK);
    const qn_model_info *const info = qn_model_get_info(model);
    assert_string_equal(info->name, NANO);
    assert_string_equal(info->path, NANO);
    assert_string_equal(info->architecture, "GlmMoeDsaForCausalLM");
    assert_string_equal(info->quantization, "none");
    assert_string_equal(info->weights, "trained");
    assert_string_equal(info->device, "cpu");
    assert_string_equal(info->kernels, qn_kernels_level(qn_cpu_flags()));
    assert_string_equal(info->compute, "bf16");
    assert_string_equal(info->kv_dtype, "bf16");
    assert_string_equal(info->chat_format, "glm5.2");
    assert_true(info->sampling.temperature == 1.0F);
    assert_true(info->sampling.top_p == 0.95F);
    assert_int_equal(info->sampling.top_k, 0);
    assert_true(info->sampling.min_p == 0.0F && info->sampling.repetition_penalty == 1.0F);
    assert_true(info->sampling.presence_penalty == 0.0F);
    assert_true(info->sampling.frequency_penalty == 0.0F);
    assert_int_equal(info->weight_bytes, 42570880);
    assert_true(info->n_parameters > 21000000 && info->n_parameters < 21600000);
    assert_true(info->load_s > 0.0 && info->load_s < 60.0);
    assert_int_equal(info->n_layers, 4);
    assert_int_equal(info->n_embd, 256);
    assert_int_equal(info->n_vocab, 6144);
    assert_int_equal(info->n_context_max, 32768);
    assert_true(info->n_threads >= 1);
    assert_true(info->has_mtp);
    assert_true(info->has_tokenizer);
    assert_true(info->is_deterministic); /* a CPU always is */
    assert_true(qn_model_is_stop(model, 6112));
    assert_true(qn_model_is_stop(model, 6121));
    assert_false(qn_model_is_stop(model, 6113));
    qn_model_close(&model);
    assert_null(model);
    qn_model_close(&model);
    qn_model_close(NULL);
}

/* What the model answers, greedily, after some thought. */
static void ask(transcript *t, qn_model *model, const char *messages)
{
    const qn_sampling greedy = {.top_p = 1.0F, .repetition_penalty = 1.0F};
    int32_t *ids = NULL;
    size_t n_ids = 0;
    qn_error err = {0};
    assert_int_equal(qn_chat_encode(&ids, &n_ids, model, NULL, messages, strlen(messages), &err),
                     QN_OK);
    answer_alone(t, model, &(qn_request){.ids = ids, .n_ids = n_ids, .sampling = &greedy});
    assert_int_equal(t->said.finish, QN_FINISH_STOP);
    assert_true(t->stats.n_reasoning_tokens > 0);
    qn_free(ids);
}

static void test_model_nano_answers_a_question(void **state)
{
    (void)state;
    static transcript t;
    qn_model *model = NULL;
    qn_error err = {0};
    assert_int_equal(qn_model_open(&model, NANO, NULL, &err), QN_OK);
    ask(&t, model,
        "[{\"role\": \"user\", \"content\": \"Which number is the smallest?\\n\\n"
        "(A) 84\\n(B) 39\\n(C) 173\\n(D) 2\"}]");
    assert_string_equal(t.said.text, "The correct answer is (D).");
    ask(&t, model, "[{\"role\": \"user\", \"content\": \"What is 309 + 358?\"}]");
    assert_string_equal(t.said.text, "The answer is 667.");
    qn_model_close(&model);
}

static void test_model_options_out_of_range_are_named(void **state)
{
    (void)state;
    assert_open_fails(NULL, NULL, QN_E_INVAL, "model", "NULL");
    assert_open_fails("", NULL, QN_E_INVAL, "model", "empty");
    assert_open_fails(NANO, &(qn_model_options){.device = "tpu"}, QN_E_INVAL, "--device", "tpu");
    assert_open_fails(NANO, &(qn_model_options){.device = "cuda:99"}, QN_E_DEVICE, "--device",
                      "cuda");
    assert_open_fails(NANO, &(qn_model_options){.device = "cuda", .compute = QN_COMPUTE_F32},
                      QN_E_INVAL, "--compute", "f32, auto or bf16 expected on a GPU");
    assert_open_fails(NANO, &(qn_model_options){.device = "hip:1", .kv_dtype = QN_KV_F32},
                      QN_E_INVAL, "--kv-dtype", "f32, auto, bf16 or fp8 expected on a GPU");
    assert_open_fails(NANO, &(qn_model_options){.cpu_mask = "sse9"}, QN_E_INVAL, "mask", "sse9");
    assert_open_fails(NANO, &(qn_model_options){.chat_format = "glm4"}, QN_E_INVAL, "--chat-format",
                      "glm4");
    assert_open_fails(NANO, &(qn_model_options){.compute = (qn_compute)77}, QN_E_INVAL, "compute",
                      "77");
    assert_open_fails(NANO, &(qn_model_options){.kv_dtype = (qn_kv_dtype)-1}, QN_E_INVAL,
                      "kv_dtype", "-1");
    assert_open_fails(NANO, &(qn_model_options){.n_threads = UINT32_MAX}, QN_E_INVAL, "threads",
                      "4294967295");
}

static void test_model_options_are_checked_without_a_model(void **state)
{
    (void)state;
    qn_error err = {0};
    assert_int_equal(qn_model_options_check(&(qn_model_options){0}, &err), QN_OK);
    assert_int_equal(qn_model_options_check(NULL, &err), QN_OK);
    assert_int_equal(qn_model_options_check(&(qn_model_options){.device = "tpu"}, &err),
                     QN_E_INVAL);
    assert_non_null(strstr(err.text, "--device: 'tpu'"));
    assert_int_equal(qn_model_options_check(&(qn_model_options){.device = "hip:99"}, &err),
                     QN_E_DEVICE);
}

static void test_model_cpu_mask_comes_from_the_environment_too(void **state)
{
    (void)state;
    assert_int_equal(setenv("QN_CPU_MASK", "sse9", 1), 0);
    assert_open_fails(NANO, NULL, QN_E_INVAL, "mask", "sse9");
    /* The option wins. */
    const qn_model_options options = {.cpu_mask = "ref", .tokenizer_only = true};
    qn_model *model = NULL;
    qn_error err = {0};
    assert_int_equal(qn_model_open(&model, NANO, &options, &err), QN_OK);
    qn_model_close(&model);
    assert_int_equal(unsetenv("QN_CPU_MASK"), 0);
}

static void test_model_cache_rows_follow_the_arithmetic(void **state)
{
    (void)state;
    static const struct {
        qn_compute compute;
        qn_kv_dtype kv_dtype;
        const char *compute_name;
        const char *kv_name;
    } cases[] = {
        {QN_COMPUTE_AUTO, QN_KV_AUTO, "bf16", "bf16"},
        {QN_COMPUTE_F32, QN_KV_FP8, "f32", "fp8"},
        {QN_COMPUTE_BF16, QN_KV_AUTO, "bf16", "bf16"},
        {QN_COMPUTE_INT8, QN_KV_AUTO, "int8", "bf16"},
        {QN_COMPUTE_BF16, QN_KV_F32, "bf16", "f32"},
        {QN_COMPUTE_AUTO, QN_KV_BF16, "bf16", "bf16"},
    };
    char dir[PATH_BYTES];
    folder_tiny(dir);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const qn_model_options options = {
            .use_dummy_weights = true, .compute = cases[i].compute, .kv_dtype = cases[i].kv_dtype};
        qn_model *model = NULL;
        qn_error err = {0};
        assert_int_equal(qn_model_open(&model, dir, &options, &err), QN_OK);
        assert_string_equal(qn_model_get_info(model)->compute, cases[i].compute_name);
        assert_string_equal(qn_model_get_info(model)->kv_dtype, cases[i].kv_name);
        qn_model_close(&model);
    }
    folder_remove(dir);
}

static void test_model_dummy_needs_config_alone(void **state)
{
    (void)state;
    qn_model *model = open_tiny(2);
    const qn_model_info *const info = qn_model_get_info(model);
    assert_string_equal(info->weights, "dummy");
    assert_false(info->has_tokenizer);
    assert_true(info->has_mtp);
    assert_int_equal(info->n_threads, 2);
    assert_true(info->sampling.temperature == 1.0F && info->sampling.top_p == 1.0F);
    qn_model_close(&model);
}

static void test_model_dummy_takes_a_tokenizer_that_is_named(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    folder_tiny(dir);
    qn_model_options options = {.use_dummy_weights = true, .tokenizer_dir = "/nonexistent"};
    assert_open_fails(dir, &options, QN_E_NOT_FOUND, "/nonexistent/tokenizer.json", "");
    options.tokenizer_dir = NANO; /* 6,132 ids are too many for 97 rows */
    assert_open_fails(dir, &options, QN_E_FORMAT, NANO "/tokenizer.json", "97");
    folder_remove(dir);
    options.dummy_seed = 1;
    options.tokenizer_dir = NULL;
    qn_model *model = NULL;
    qn_error err = {0};
    assert_int_equal(qn_model_open(&model, NANO, &options, &err), QN_OK);
    assert_true(qn_model_get_info(model)->has_tokenizer);
    assert_string_equal(qn_model_get_info(model)->weights, "dummy");
    qn_model_close(&model);
}

static void test_model_tokenizer_only_reads_no_weights(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    folder_make(dir);
    folder_write(dir, "config.json", tiny_config);
    const qn_model_options options = {.tokenizer_only = true};
    assert_open_fails(dir, &options, QN_E_NOT_FOUND, "tokenizer.json", dir);
    folder_remove(dir);
    folder_link_nano(dir);
    folder_write(dir, "model.safetensors.index.json", "broken");
    assert_open_fails(dir, NULL, QN_E_FORMAT, "model.safetensors.index.json", dir);
    qn_model *model = NULL;
    qn_session *session = NULL;
    qn_error err = {0};
    assert_int_equal(qn_model_open(&model, dir, &options, &err), QN_OK);
    assert_int_equal(qn_model_get_info(model)->n_parameters, 0);
    assert_string_equal(qn_model_get_info(model)->weights, "none");
    assert_int_equal(qn_session_open(&session, model, NULL, &err), QN_E_INVAL);
    assert_null(session);
    qn_model_close(&model);
    folder_remove(dir);
}

static void test_model_generation_config_gives_sampling_and_stops(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    folder_tiny(dir);
    folder_write(dir, "generation_config.json",
                 "{\"do_sample\": false, \"temperature\": 0.7, \"top_k\": 5, \"top_p\": 0.5,"
                 " \"min_p\": 0.25, \"eos_token_id\": 7}");
    const qn_model_options options = {.use_dummy_weights = true};
    qn_model *model = NULL;
    qn_error err = {0};
    assert_int_equal(qn_model_open(&model, dir, &options, &err), QN_OK);
    const qn_sampling *const sampling = &qn_model_get_info(model)->sampling;
    assert_true(sampling->temperature == 0.0F); /* do_sample false */
    assert_true(sampling->top_p == 0.5F && sampling->min_p == 0.25F && sampling->top_k == 5);
    assert_true(qn_model_is_stop(model, 7));
    assert_false(qn_model_is_stop(model, 96)); /* that of config.json */
    qn_model_close(&model);
    folder_remove(dir);
}

static void test_model_files_that_are_missing_or_wrong_are_named(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    folder_make(dir);
    assert_open_fails(dir, NULL, QN_E_NOT_FOUND, "config.json", dir);
    folder_write(dir, "config.json", "{}");
    assert_open_fails(dir, NULL, QN_E_FORMAT, "config.json", "architectures");
    folder_write(dir, "config.json", tiny_config);
    folder_write(dir, "generation_config.json", "{\"top_p\": 2}");
    assert_open_fails(dir, NULL, QN_E_FORMAT, "generation_config.json", "top_p");
    folder_write(dir, "generation_config.json", "{}");
    assert_open_fails(dir, NULL, QN_E_NOT_FOUND, "tokenizer.json", dir);
    const qn_model_options nano_tokenizer = {.tokenizer_dir = NANO};
    assert_open_fails(dir, &nano_tokenizer, QN_E_FORMAT, "tokenizer.json", "vocab_size 97");
    folder_remove(dir);

    folder_link_nano(dir);
    folder_write(dir, "generation_config.json", "{\"eos_token_id\": 6143}");
    assert_open_fails(dir, NULL, QN_E_FORMAT, "tokenizer.json", "6143");
    folder_remove(dir);
    folder_link_nano(dir);
    char path[2 * PATH_BYTES];
    (void)snprintf(path, sizeof path, "%s/model-00002-of-00003.safetensors", dir);
    assert_int_equal(unlink(path), 0);
    assert_open_fails(dir, NULL, QN_E_NOT_FOUND, "model-00002-of-00003.safetensors", dir);
    folder_remove(dir);
}

static void test_model_unknown_template_is_an_error_with_strict(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    folder_link_nano(dir);
    folder_write(dir, "chat_template.jinja", "{{ messages }}");
    qn_model_options options = {.tokenizer_only = true, .strict = true};
    assert_open_fails(dir, &options, QN_E_FORMAT, "chat_template.jinja", "glm5.2");
    options.chat_format = "glm5.1"; /* who says so is not asked */
    qn_model *model = NULL;
    qn_error err = {0};
    assert_int_equal(qn_model_open(&model, dir, &options, &err), QN_OK);
    assert_string_equal(qn_model_get_info(model)->chat_format, "glm5.1");
    qn_model_close(&model);
    qn_log_configure(QN_LOG_ERROR, false);
    options = (qn_model_options){.tokenizer_only = true, .chat_format = "auto"};
    assert_int_equal(qn_model_open(&model, dir, &options, &err), QN_OK);
    assert_string_equal(qn_model_get_info(model)->chat_format, "glm5.2");
    qn_model_close(&model);
    folder_remove(dir);
}

/* Every parameter of a matrix but the embedding's is in a product that is told of. */
static void test_model_kernels_are_those_in_use(void **state)
{
    (void)state;
    static const char *const masks[] = {NULL, "ref"};
    for (size_t k = 0; k < sizeof masks / sizeof masks[0]; k++) {
        qn_model *model = NULL;
        qn_kernel_choice choices[64];
        qn_kernel_choice untouched;
        qn_error err = {0};
        memset(choices, 0x55, sizeof choices);
        untouched = choices[2];
        const qn_model_options options = {.cpu_mask = masks[k]};
        assert_int_equal(qn_model_open(&model, NANO, &options, &err), QN_OK);
        const size_t n = qn_model_kernels(NULL, 0, model);
        assert_in_range(n, 12, 64);
        assert_int_equal(qn_model_kernels(choices, 2, model), n);
        assert_memory_equal(&choices[2], &untouched, sizeof untouched);
        assert_int_equal(qn_model_kernels(choices, 64, model), n);
        uint64_t n_weights = 0;
        for (size_t i = 0; i < n; i++) {
            const qn_kernel_choice *const c = &choices[i];
            const bool is_product =
                strcmp(c->operation, "matmul") == 0 || strcmp(c->operation, "moe") == 0;
            n_weights += is_product ? (uint64_t)c->n_in * c->n_out * c->n_uses : 0;
            assert_true(!is_product || strcmp(c->weights, "bf16") == 0);
            const bool is_plain = strcmp(c->variant, "ref") == 0;
            assert_string_equal(c->source, is_plain ? "fallback" : "default");
            assert_true(k == 0 || is_plain);
        }
        const qn_model_info *const info = qn_model_get_info(model);
        const uint64_t n_table = (uint64_t)info->n_vocab * info->n_embd;
        const uint64_t n_vectors = 40000; /* norms and biases, at most */
        assert_in_range(n_weights, info->n_parameters - n_table - n_vectors,
                        info->n_parameters - n_table - 1);
        qn_model_close(&model);
    }
}

int main(void)
{
    qn_log_configure(QN_LOG_WARN, false);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model_nano_tells_its_facts),
        cmocka_unit_test(test_model_nano_answers_a_question),
        cmocka_unit_test(test_model_options_out_of_range_are_named),
        cmocka_unit_test(test_model_options_are_checked_without_a_model),
        cmocka_unit_test(test_model_cpu_mask_comes_from_the_environment_too),
        cmocka_unit_test(test_model_cache_rows_follow_the_arithmetic),
        cmocka_unit_test(test_model_dummy_needs_config_alone),
        cmocka_unit_test(test_model_dummy_takes_a_tokenizer_that_is_named),
        cmocka_unit_test(test_model_tokenizer_only_reads_no_weights),
        cmocka_unit_test(test_model_generation_config_gives_sampling_and_stops),
        cmocka_unit_test(test_model_files_that_are_missing_or_wrong_are_named),
        cmocka_unit_test(test_model_unknown_template_is_an_error_with_strict),
        cmocka_unit_test(test_model_kernels_are_those_in_use),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The model on an emulated GPU, with few tokens since an emulated thread is slow.
 *   gpumodel_test [DEVICE [PATTERN]]   on a device by its --device name, or "emulated"; tests whose
 *                                      names fit; without arguments those that take no minute, and
 *                                      few problems
 */
#include "gpumodel/compare.h"
#include "support/emulated_gpu.h"
#include "support/fake_gpu.h"
#define STORY_TOKENS 16
#include "unit/engine/executor_world.h"
#include "unit/model/made.h"

/*
 * Of a layer: products of bf16 rows differ by the order of sums alone, until a rounding falls the
 * other way; in FP8 rows of the cache that is a 16th.  The CPU's bf16 is as far from its f32.
 */
#define BF16_BOUND 0.015
#define FP8_BOUND  0.03

enum { N_PROBLEMS = 4 }; /* by default on the emulator */

static world g_world;
static const char *g_device_name; /* NULL: emulated */
static uint32_t g_n_problems;

static gm_device open_device(void)
{
    gm_device device = {0};
    qn_gpu *gpu = NULL;
    qn_error err = {0};
    qn_status status = QN_OK;
    if (g_device_name != NULL) {
        status = gm_device_open(&device, g_device_name, &err);
    } else {
        status = emulated_gpu_open(&gpu, &err);
        status = status < 0 ? status : gm_device_load(&device, gpu, &emulated_module, 1, &err);
    }
    if (status < 0) {
        fail_msg("%s", err.text);
    }
    return device;
}

static void close_device(gm_device *device)
{
    gm_device_close(device);
    assert_string_equal(fake_gpu_problem(), "");
    assert_int_equal(fake_gpu_used_bytes(), 0);
}

static qn_config golden_config(const char *name)
{
    char path[512];
    qn_config config;
    qn_error err = {0};
    (void)snprintf(path, sizeof path, "%s/%s/config.json", QN_SOURCE_DIR, name);
    if (qn_config_load(&config, path, &err) < 0) {
        fail_msg("%s", err.text);
    }
    return config;
}

static void check(const gm_device *device, const gm_case *c)
{
    gm_outcome outcome;
    const bool is_right = gm_compare(&outcome, device, c);
    print_message("%s: stream off by %.2g, log-probabilities by %.2g at most and %.2g in the mean, "
                  "%u of %u choices others\n",
                  c->name, outcome.worst_hidden, outcome.worst_logprob, outcome.mean_logprob,
                  outcome.n_other_choices, outcome.n_choices);
    if (!is_right) {
        fail_msg("%s: the GPU is not the CPU", c->name);
    }
}

/* ------------------------------------------------------------------------------------ golden
 */

/* Contexts beyond index_topk, so that attention is dense first and sparse then. */
static void test_gpumodel_layers_are_those_of_the_cpu(void **state)
{
    static const struct {
        const char *name;
        uint32_t n_positions;
    } models[] = {
        {"tests/golden/tiny-all-full", 44},
        {"tests/golden/tiny-fffsss", 28},
        {"tests/golden/tiny-ffss-raw", 24},
        {"tests/golden/tiny-own-mtp-index", 72},
    };
    (void)state;
    gm_device device = open_device();
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        const qn_config config = golden_config(models[i].name);
        const gm_case c = {.name = models[i].name,
                           .config = &config,
                           .kv_dtype = i % 2 == 0 ? QN_KV_BF16 : QN_KV_FP8,
                           .n_positions = models[i].n_positions,
                           .n_chunk = 7,
                           .layer_bound = i % 2 == 0 ? BF16_BOUND : FP8_BOUND};
        check(&device, &c);
    }
    close_device(&device);
}

/* Index scores, partial sums and logits of many rows, for which there is too little room. */
static void test_gpumodel_rows_go_in_turns(void **state)
{
    (void)state;
    gm_device device = open_device();
    const qn_config config = golden_config("tests/golden/tiny-own-mtp-index");
    const gm_case c = {.name = "tiny-own-mtp-index, in turns",
                       .config = &config,
                       .kv_dtype = QN_KV_BF16,
                       .scratch_bytes = 2400, /* 3 rows of attention, 15 of scores */
                       .n_positions = 40,
                       .n_chunk = 20,
                       .layer_bound = BF16_BOUND};
    check(&device, &c);
    close_device(&device);
}

static void test_gpumodel_nano_is_that_of_the_cpu(void **state)
{
    static const int32_t ids[] = {6113, 6115, 6117, 72, 101, 290, 311};
    (void)state;
    gm_device device = open_device();
    const qn_config config = golden_config("models/glm-nano");
    for (int is_free = 0; is_free < 2; is_free++) {
        const gm_case c = {.name = "glm-nano",
                           .config = &config,
                           .dir = QN_SOURCE_DIR "/models/glm-nano",
                           .ids = ids,
                           .kv_dtype = is_free ? QN_KV_BF16 : QN_KV_FP8,
                           .is_free = is_free,
                           .n_positions = sizeof ids / sizeof *ids,
                           .n_chunk = 4,
                           .layer_bound = is_free ? BF16_BOUND : FP8_BOUND};
        check(&device, &c);
    }
    close_device(&device);
}

/* Told problems and their answers it is about as far from f32 as transformers in bf16 is, on the
 * same positions. */
static void test_gpumodel_nano_is_as_near_as_bf16(void **state)
{
    (void)state;
    gm_device device = open_device();
    gm_texts texts;
    qn_error err = {0};
    const qn_config config = golden_config("models/glm-nano");
    if (gm_texts_load(&texts, QN_SOURCE_DIR "/tests/golden/greedy.safetensors", &err) < 0) {
        fail_msg("%s", err.text);
    }
    texts.n_texts = g_n_problems < texts.n_texts ? g_n_problems : texts.n_texts;
    const gm_case c = {.name = "problems",
                       .config = &config,
                       .dir = QN_SOURCE_DIR "/models/glm-nano",
                       .kv_dtype = QN_KV_BF16,
                       .is_free = true,
                       .n_positions = config.n_context_max};
    gm_teacher teacher;
    if (gm_teach(&teacher, &device, &c, &texts, 64, &err) < 0) {
        fail_msg("%s", err.text);
    }
    print_message("%u positions: agreement %.4f (transformers in bf16 %.4f), mean %.5f (%.5f), "
                  "99.9 %% %.5f (%.5f)\n",
                  teacher.n_positions, teacher.gpu.agreement, teacher.bf16.agreement,
                  teacher.gpu.mean, teacher.bf16.mean, teacher.gpu.p999, teacher.bf16.p999);
    assert_true(gm_is_near(&teacher));
    texts.n_texts = 1;
    texts.bf16_off = NULL; /* the CPU in bf16 says how far that is off */
    if (gm_teach(&teacher, &device, &c, &texts, 64, &err) < 0) {
        fail_msg("%s", err.text);
    }
    print_message("agreement %.4f (CPU in bf16 %.4f), mean %.5f (%.5f), 99.9 %% %.5f (%.5f)\n",
                  teacher.gpu.agreement, teacher.bf16.agreement, teacher.gpu.mean,
                  teacher.bf16.mean, teacher.gpu.p999, teacher.bf16.p999);
    assert_true(gm_is_near(&teacher));
    gm_texts_deinit(&texts);
    close_device(&device);
}

/* ----------------------------------------------------------------------------------- storages
 */

static qn_config copy_config(void)
{
    qn_config config = made_config();
    config.n_vocab = 100;
    return config;
}

static void check_recipe(const gm_device *device, const recipe *r)
{
    const qn_config config = copy_config();
    char dir[DIR_BYTES];
    made *m = made_by(r, &config);
    made_save(dir, &m->stored, m->stored.n);
    const gm_case c = {.name = r->name,
                       .config = &config,
                       .dir = dir,
                       .kv_dtype = QN_KV_BF16,
                       .n_positions = 16,
                       .n_chunk = 6,
                       .layer_bound = BF16_BOUND};
    check(device, &c);
    made_discard(dir);
    made_free(m);
}

static void test_gpumodel_every_storage_is_packed(void **state)
{
    static const recipe recipes[] = {
        {"f32", "none", {{"", AS_F32}}},
        {"fp8 blocks", "fp8", {{"", AS_FP8_INV}}},
        {"fp8 rows", "fp8", {{"", AS_FP8_ROWS}}},
        {"experts mxfp4", "mxfp4", {{"e_score", AS_F32}, {"experts.", AS_MXFP4}, {"", AS_BF16}}},
        {"mxfp4", "mxfp4", {{"", AS_MXFP4}}},
    };
    (void)state;
    gm_device device = open_device();
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++) {
        check_recipe(&device, &recipes[i]);
    }
    close_device(&device);
}

/* Made up by the device as by the CPU, kv_b in blocks that heads cut among them. */
static void test_gpumodel_dummy_weights_follow_the_config(void **state)
{
    static const char *const texts[] = {
        "{\"quantization_config\": {\"quant_method\": \"fp8\"}}",
        "{\"quantization_config\": {\"quant_method\": \"quark\", \"exclude\": [\"*.self_attn.*\"], "
        "\"global_quant_config\": {\"weight\": {\"dtype\": \"fp4\", \"qscheme\": \"per_group\", "
        "\"group_size\": 32, \"scale_format\": \"e8m0\"}}}}",
        "{\"quantization_config\": {\"quant_method\": \"quark\", \"global_quant_config\": "
        "{\"weight\": {\"dtype\": \"fp8_e4m3\", \"qscheme\": \"per_channel\"}}}}",
    };
    (void)state;
    gm_device device = open_device();
    const qn_config config = copy_config();
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        qn_quant_rules rules;
        qn_error err = {0};
        assert_int_equal(qn_quant_rules_parse(&rules, qn_str_of(texts[i]), "config", &err), QN_OK);
        const gm_case c = {.name = texts[i],
                           .config = &config,
                           .rules = &rules,
                           .kv_dtype = QN_KV_BF16,
                           .n_positions = 16,
                           .n_chunk = 6,
                           .layer_bound = BF16_BOUND};
        check(&device, &c);
        qn_quant_rules_close(&rules);
    }
    close_device(&device);
}

/* -------------------------------------------------------------------------------- other rows
 */

static void test_gpumodel_rows_do_not_depend_on_others(void **state)
{
    (void)state;
    gm_device device = open_device();
    const qn_config config = golden_config("tests/golden/tiny-own-mtp-index");
    static const uint32_t chunks[] = {3, 9, 40, 70};
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        const gm_case c = {.name = "tiny-own-mtp-index",
                           .config = &config,
                           .kv_dtype = QN_KV_FP8,
                           .n_positions = chunks[i],
                           .n_chunk = chunks[i]};
        assert_true(gm_is_independent(&device, &c));
    }
    close_device(&device);
}

/* ------------------------------------------------------------------------------------- stories
 */

/* Sequences in any company, cut, preempted and begun on cached pages, as each is alone. */
static void test_gpumodel_executor_tells_the_story_of_each_sequence_alone(void **state)
{
    (void)state;
    gm_device device = open_device();
    world *const w = &g_world;
    const rig_options options = {.compute = QN_COMPUTE_BF16,
                                 .dtype = QN_KV_FP8,
                                 .n_threads = 1,
                                 .gpu = device.gpu,
                                 .gpu_kernels = device.kernels};
    world_open(w, &options);
    for (uint32_t i_step = 0, n_told = 0; n_told < N_STORIES; i_step++) {
        assert_true(i_step < 1000);
        world_step(w);
        n_told = 0;
        for (uint32_t i = 0; i < N_STORIES; i++) {
            n_told += w->tellings[i].n_told > 0 ? 1 : 0;
        }
    }
    assert_true(w->n_hits > 0);
    assert_true(w->n_mixed > 0);
    print_message("%u pages hit, %u exchanged, %u preempted, %u drafts accepted\n", w->n_hits,
                  w->n_exchanged, w->n_preempted, w->n_accepted);
    world_close(w);
    close_device(&device);
}

/* ------------------------------------------------------------------------------------ failures
 */

/* Open a model of dummy weights and close it; its error where it fails. */
static qn_status try_open(const gm_device *device, const qn_config *config, qn_error *err)
{
    tiny t;
    qn_glm_options options = tiny_prepare(&t, config, 1, 8, QN_KV_BF16);
    options.compute = QN_COMPUTE_BF16;
    options.gpu = device->gpu;
    options.gpu_kernels = device->kernels;
    const qn_status status = qn_glm_open_dummy(&t.glm, &t.config, 7, &options, err);
    tiny_close(&t);
    return status;
}

static void test_gpumodel_what_does_not_fit_is_refused(void **state)
{
    (void)state;
    qn_error err = {0};
    gm_device device = open_device();
    const qn_config odd = golden_config("tests/golden/tiny-odd");
    assert_int_equal(try_open(&device, &odd, &err), QN_E_DEVICE);
    assert_string_equal(err.text, "config: vocab_size 307, a multiple of 4 expected on a GPU");
    const qn_config config = golden_config("tests/golden/tiny-own-mtp-index");
    fake_gpu.memory_bytes = fake_gpu_used_bytes() + (1 << 20);
    assert_int_equal(try_open(&device, &config, &err), QN_E_NOMEM);
    assert_string_equal(err.text,
                        "weights: 1.1 MB and 134.2 MB to compute with are needed, expected at most "
                        "the 1.0 MB that are free on emulated");
    close_device(&device);
}

/* One rank of four in MXFP4 is refused by what it needs: before anything is made. */
static void test_gpumodel_a_whole_rank_says_what_it_needs(void **state)
{
    static const char path[] = QN_SOURCE_DIR "/configs/glm-5.2-mxfp4-tp4/config.json";
    (void)state;
    tiny t;
    qn_error err = {0};
    qn_quant_rules rules;
    gm_device device = open_device();
    const qn_config config = golden_config("configs/glm-5.2-mxfp4-tp4");
    const qn_config small = copy_config(); /* of the cache that nobody uses */
    qn_glm_options options = tiny_prepare(&t, &small, 1, 512, QN_KV_BF16);
    options.compute = QN_COMPUTE_BF16;
    options.gpu = device.gpu;
    options.gpu_kernels = device.kernels;
    options.rules = &rules;
    assert_int_equal(qn_quant_rules_load(&rules, path, &err), QN_OK);
    assert_int_equal(qn_glm_open_dummy(&t.glm, &config, 7, &options, &err), QN_E_NOMEM);
    assert_string_equal(err.text,
                        "weights: 108.5 GB and 566.0 MB to compute with are needed, expected at "
                        "most the 4.3 GB that are free on emulated");
    qn_quant_rules_close(&rules);
    tiny_close(&t);
    close_device(&device);
}

static void test_gpumodel_scales_that_are_no_numbers_are_refused(void **state)
{
    static const recipe r = {"fp8 rows", "fp8", {{"", AS_FP8_ROWS}}};
    static const char name[] = "model.layers.1.self_attn.o_proj.weight_scale";
    (void)state;
    gm_device device = open_device();
    const qn_config config = copy_config();
    char dir[DIR_BYTES];
    tiny t;
    qn_error err = {0};
    made *m = made_by(&r, &config);
    for (size_t i = 0; i < m->stored.n; i++) {
        if (strcmp(m->stored.items[i].name, name) == 0) {
            memset(m->stored.items[i].data + 8, 0xff, 4);
        }
    }
    made_save(dir, &m->stored, m->stored.n);
    qn_glm_options options = tiny_prepare(&t, &config, 1, 8, QN_KV_BF16);
    options.compute = QN_COMPUTE_BF16;
    options.gpu = device.gpu;
    options.gpu_kernels = device.kernels;
    assert_int_equal(qn_checkpoint_open(&t.checkpoint, dir, &err), QN_OK);
    assert_int_equal(qn_glm_open(&t.glm, &t.config, t.checkpoint, &options, &err), QN_E_FORMAT);
    assert_non_null(strstr(err.text, "model.layers.1.self_attn.o_proj.weight"));
    tiny_close(&t);
    made_discard(dir);
    made_free(m);
    close_device(&device);
}

static void test_gpumodel_every_failing_call_is_told_and_leaks_nothing(void **state)
{
    static const char *const calls[] = {"alloc", "alloc_host", "stream_open", "event_open"};
    (void)state;
    const qn_config config = golden_config("tests/golden/tiny-own-mtp-index");
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        for (size_t n = 0, has_failed = 1; has_failed; n++) {
            qn_error err = {0};
            gm_device device = open_device();
            fake_gpu_fail(calls[i], n, FAKE_GPU_NO_MEMORY);
            const qn_status status = try_open(&device, &config, &err);
            has_failed = fake_gpu_has_failed();
            assert_int_equal(status, has_failed ? QN_E_NOMEM : QN_OK);
            fake_gpu_fail(calls[i], SIZE_MAX, 0);
            close_device(&device);
        }
    }
}

/* A device that is lost in a pass: no number of it is taken for a logit. */
static void test_gpumodel_a_lost_device_gives_no_numbers(void **state)
{
    (void)state;
    gm_device device = open_device();
    const qn_config config = golden_config("tests/golden/tiny-own-mtp-index");
    tiny t;
    qn_error err = {0};
    qn_glm_options options = tiny_prepare(&t, &config, 1, 8, QN_KV_BF16);
    options.compute = QN_COMPUTE_BF16;
    options.gpu = device.gpu;
    options.gpu_kernels = device.kernels;
    assert_int_equal(qn_glm_open_dummy(&t.glm, &t.config, 7, &options, &err), QN_OK);
    const size_t n_bytes = PAGES * t.layout.page_bytes;
    void *base = NULL;
    assert_int_equal(qn_gpu_alloc(&base, device.gpu, n_bytes, "cache", &err), QN_OK);
    const qn_kv kv = {
        .layout = &t.layout, .base = base, .n_pages = PAGES, .place = *qn_glm_kv_place(t.glm)};
    const int32_t zero[] = {0, 1};
    const uint32_t logit_rows[] = {1};
    const qn_batch batch = {2, zero,       zero, (const int32_t[]){0, 0}, (const int32_t[]){0}, 1,
                            1, logit_rows, 1};
    float *const logits = calloc(config.n_vocab, sizeof *logits);
    float *const hidden = calloc(2 * (size_t)config.n_embd, sizeof *hidden);
    qn_glm_forward(t.glm, &kv, &batch, hidden, logits, NULL);
    assert_true(isfinite(logits[0]));
    fake_gpu_fail("kernel", 5, FAKE_GPU_LOST);
    for (int i = 0; i < 2; i++) {
        qn_glm_forward(t.glm, &kv, &batch, hidden, logits, NULL);
        for (uint32_t k = 0; k < config.n_vocab; k++) {
            assert_true(isnan(logits[k]));
        }
        assert_true(isnan(hidden[config.n_embd]));
        logits[0] = 0.0F;
    }
    assert_int_equal(qn_glm_take_failure(t.glm, &err), QN_E_DEVICE);
    assert_int_equal(qn_glm_take_failure(t.glm, &err), QN_OK);
    free(logits);
    free(hidden);
    qn_gpu_free(device.gpu, base);
    tiny_close(&t);
    gm_device_close(&device);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gpumodel_layers_are_those_of_the_cpu),
        cmocka_unit_test(test_gpumodel_rows_go_in_turns),
        cmocka_unit_test(test_gpumodel_nano_is_that_of_the_cpu),
        cmocka_unit_test(test_gpumodel_nano_is_as_near_as_bf16),
        cmocka_unit_test(test_gpumodel_every_storage_is_packed),
        cmocka_unit_test(test_gpumodel_dummy_weights_follow_the_config),
        cmocka_unit_test(test_gpumodel_rows_do_not_depend_on_others),
        cmocka_unit_test(test_gpumodel_executor_tells_the_story_of_each_sequence_alone),
        cmocka_unit_test(test_gpumodel_scales_that_are_no_numbers_are_refused),
    };
    const struct CMUnitTest emulated[] = {
        cmocka_unit_test(test_gpumodel_what_does_not_fit_is_refused),
        cmocka_unit_test(test_gpumodel_a_whole_rank_says_what_it_needs),
        cmocka_unit_test(test_gpumodel_every_failing_call_is_told_and_leaks_nothing),
        cmocka_unit_test(test_gpumodel_a_lost_device_gives_no_numbers),
    };
    g_device_name = argc > 1 && strcmp(argv[1], "emulated") != 0 ? argv[1] : NULL;
    g_n_problems = argc > 1 ? UINT32_MAX : N_PROBLEMS;
    cmocka_set_test_filter(argc > 2 ? argv[2] : NULL);
    cmocka_set_skip_filter(argc > 1 ? NULL : "*executor*"); /* takes longer than all others */
    const int n_failed = cmocka_run_group_tests(tests, NULL, NULL);
    return n_failed + (g_device_name != NULL ? 0 : cmocka_run_group_tests(emulated, NULL, NULL));
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Every allocation of an inspection fails once, and from then on: a status, and nothing leaked (the
 * leak is LeakSanitizer's to find). */
#include "base/log.h"
#include "inspect/inspect.h"
#include "support/fail_each.h"

#include <dirent.h>
#include <stdio.h>
#include <unistd.h>

#define NANO QN_SOURCE_DIR "/models/glm-nano"

static char g_dir[] = "/tmp/quern-test-XXXXXX";
static qn_pool *g_pool;

static void write_file(const char *name, const char *bytes, size_t n_bytes)
{
    char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", g_dir, name);
    FILE *const file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n_bytes, file), n_bytes);
    assert_int_equal(fclose(file), 0);
}

#define CONFIG                                                                                     \
    "{\"architectures\": [\"GlmMoeDsaForCausalLM\"], \"model_type\": \"glm_moe_dsa\","             \
    "\"num_hidden_layers\": 1, \"num_nextn_predict_layers\": 1, \"hidden_size\": 32,"              \
    "\"vocab_size\": 8, \"num_attention_heads\": 1, \"q_lora_rank\": 32, \"kv_lora_rank\": 32,"    \
    "\"qk_nope_head_dim\": 16, \"qk_rope_head_dim\": 16, \"v_head_dim\": 32,"                      \
    "\"index_n_heads\": 1, \"index_head_dim\": 16, \"index_topk\": 4,"                             \
    "\"intermediate_size\": 32, \"moe_intermediate_size\": 32, \"n_routed_experts\": 2,"           \
    "\"num_experts_per_tok\": 1, \"n_shared_experts\": 1, \"max_position_embeddings\": 64,"        \
    "\"rms_norm_eps\": 1e-6, \"routed_scaling_factor\": 2.5, \"norm_topk_prob\": true,"            \
    "\"first_k_dense_replace\": 1, \"rope_parameters\": {\"rope_theta\": 1e6},"                    \
    "\"quantization_config\": {\"quant_method\": \"quark\","                                       \
    "\"exclude\": [\"lm_head\", \"re:nothing\", \"*none*\", \"model.layers.0.mlp.up_proj\"],"      \
    "\"layer_quant_config\": {\"*o_proj\": {\"weight\": {\"dtype\": \"fp8_e4m3\"}}},"              \
    "\"global_quant_config\": {\"weight\": {\"dtype\": \"fp4\", \"qscheme\": \"per_group\","       \
    "\"group_size\": 32, \"scale_format\": \"e8m0\"}}}}"

#define TENSOR(name, dtype, shape, begin, end)                                                     \
    "\"" name "\": {\"dtype\": \"" dtype "\", \"shape\": [" shape "], \"data_offsets\": [" begin   \
    ", " end "]}"

/* Strings beside macros, which clang-format tears apart. */
#define CODES   TENSOR("model.layers.0.mlp.up_proj.weight", "U8", "32, 16", "0", "512")
#define SCALES  TENSOR("model.layers.0.mlp.up_proj.weight_scale", "U8", "32, 1", "512", "544")
#define PLAIN   TENSOR("model.layers.0.mlp.down_proj.weight", "BF16", "32, 32", "544", "2592")
#define EH_PROJ TENSOR("model.layers.1.eh_proj.weight", "BF16", "32, 64", "2592", "6688")
#define EXPERT                                                                                     \
    TENSOR("model.layers.1.mlp.experts.0.up_proj.weight", "BF16", "32, 32", "6688", "8736")
#define UNKNOWN TENSOR("unknown", "I32", "1", "8736", "8740")

static const char header[] =
    "{" CODES "," SCALES "," PLAIN "," EH_PROJ "," EXPERT "," UNKNOWN ", \"broken\": {}}";

static const char weight_map[] =
    "{\"weight_map\": {\"model.layers.0.mlp.up_proj.weight\": \"a.safetensors\","
    "\"model.norm.weight\": \"gone.safetensors\", \"x\": 3}}";

static qn_status inspect(const char *dir, bool does_all, qn_error *err)
{
    char *report = NULL;
    const qn_inspect_request request = {
        .dir = dir, .verifies = does_all, .lists_tensors = does_all, .fixes = does_all};
    const qn_status status = qn_doctor_inspect(&report, &request, g_pool, err);
    assert_true((status == QN_OK) == (report != NULL));
    if (report != NULL && does_all) {
        assert_non_null(strstr(report, "\"fix\": {\"path\": \""));
        assert_non_null(strstr(report, "\"sglang-fails\": 2"));
    }
    free(report);
    return status;
}

static qn_status inspect_small(qn_error *err)
{
    return inspect(g_dir, true, err);
}

static qn_status inspect_nano(qn_error *err)
{
    return inspect(NANO, false, err);
}

static void test_inspecting_survives_every_failed_allocation(void **state)
{
    (void)state;
    fail_each(inspect_small, 1, 200);
}

static void test_inspecting_a_model_survives_failed_allocations(void **state)
{
    (void)state;
    fail_each(inspect_nano, 97, 300); /* most of them are the tokenizer's */
}

static int make_folder(void **state)
{
    (void)state;
    static char bytes[8 + sizeof header - 1 + 8740];
    const size_t len = sizeof header - 1;
    assert_non_null(mkdtemp(g_dir));
    bytes[0] = (char)(len & 0xff);
    bytes[1] = (char)(len >> 8);
    memcpy(bytes + 8, header, len);
    memset(bytes + 8 + len + 512, 0xff, 32); /* scales */
    write_file("a.safetensors", bytes, sizeof bytes);
    write_file("config.json", CONFIG, sizeof CONFIG - 1);
    write_file("model.safetensors.index.json", weight_map, sizeof weight_map - 1);
    qn_log_setup(QN_LOG_ERROR, false);
    return qn_pool_open(&g_pool, 1, NULL) == QN_OK ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    qn_pool_close(&g_pool);
    DIR *const list = opendir(g_dir);
    assert_non_null(list);
    for (const struct dirent *item; (item = readdir(list)) != NULL;) {
        char path[512];
        (void)snprintf(path, sizeof path, "%s/%s", g_dir, item->d_name);
        (void)unlink(path);
    }
    (void)closedir(list);
    return rmdir(g_dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_inspecting_survives_every_failed_allocation),
        cmocka_unit_test(test_inspecting_a_model_survives_failed_allocations),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What a checkpoint may lack, hold and call its tensors; each refusal names the tensor. */
#include "made.h"

#define MATRIX "model.layers.0.self_attn.q_a_proj.weight" /* [160, 160] */
#define MTP    "model.layers.2."

static const recipe bf16 = {"bf16", "none", {{"", AS_BF16}}};
static const recipe fp8 = {"fp8", "fp8", {{"", AS_FP8_INV}}};
static const recipe rows = {"rows", "fp8", {{"", AS_FP8_ROWS}}};
static const recipe mxfp4 = {"mxfp4", "mxfp4", {{"", AS_MXFP4}}};

/* Status and message of opening what is in the list; without a model where it fails. */
static qn_status open_list(tiny *t, const qn_config *config, const made_list *list, qn_error *err)
{
    char dir[DIR_BYTES];
    made_save(dir, list, list->n);
    const qn_status status = made_open(t, config, dir, 1, QN_COMPUTE_F32, err);
    made_discard(dir); /* what is open stays mapped */
    assert_true((status == QN_OK) == (t->glm != NULL));
    return status;
}

static void assert_refused(qn_status status, const qn_error *err, const char *tensor,
                           const char *words)
{
    char name[MADE_NAME_BYTES];
    (void)snprintf(name, sizeof name, "tensor %s: ", tensor);
    if (status != QN_E_FORMAT || err->status != status || strstr(err->text, name) == NULL ||
        strstr(err->text, words) == NULL) {
        fail_msg("%s: '%s': QN_E_FORMAT, '%s' and '%s' expected", qn_status_name(status), err->text,
                 name, words);
    }
}

/* One change to a good checkpoint. */
typedef struct damage {
    const recipe *base;
    const char *removed; /* NULL: none */
    const char *added;   /* NULL: none; replaces one of that name */
    qn_dtype dtype;
    uint64_t shape[2];
    const char *refused, *words;
} damage;

static void check_damage(const damage *d, const qn_config *config)
{
    made *m = made_by(d->base, config);
    tiny t;
    qn_error err = {0};
    if (d->removed != NULL) {
        assert_true(made_remove(&m->stored, d->removed));
    }
    if (d->added != NULL) {
        (void)made_remove(&m->stored, d->added);
        (void)made_add(&m->stored, d->added, "", d->dtype, d->shape[0], d->shape[1]);
    }
    const qn_status status = open_list(&t, config, &m->stored, &err);
    assert_refused(status, &err, d->refused, d->words);
    tiny_close(&t);
    made_free(m);
}

static void check_damages(const damage *damages, size_t n_damages)
{
    const qn_config config = made_config();
    for (size_t i = 0; i < n_damages; i++) {
        check_damage(&damages[i], &config);
    }
}

static void test_bind_fp8_scale_must_fit_its_weight(void **state)
{
    (void)state;
    static const damage damages[] = {
        {&fp8, MATRIX "_scale_inv", NULL, 0, {0}, MATRIX, "no scale"},
        {&rows, MATRIX "_scale", NULL, 0, {0}, MATRIX, "weight_scale_inv or weight_scale"},
        {&fp8,
         NULL,
         MATRIX "_scale_inv",
         QN_DTYPE_F32,
         {1, 2},
         MATRIX "_scale_inv",
         "F32 [1, 2], expected shape [2, 2]"},
        {&fp8,
         NULL,
         MATRIX "_scale_inv",
         QN_DTYPE_F32,
         {4, 0},
         MATRIX "_scale_inv",
         "F32 [4], expected shape [2, 2]"},
        {&rows,
         NULL,
         MATRIX "_scale",
         QN_DTYPE_F32,
         {159, 1},
         MATRIX "_scale",
         "F32 [159, 1], expected shape"},
        {&rows,
         NULL,
         MATRIX "_scale",
         QN_DTYPE_F32,
         {160, 2},
         MATRIX "_scale",
         "F32 [160, 2], expected shape"},
        {&fp8,
         NULL,
         MATRIX "_scale_inv",
         QN_DTYPE_BF16,
         {2, 2},
         MATRIX "_scale_inv",
         "dtype BF16, expected F32"},
        {&fp8,
         NULL,
         MATRIX "_scale",
         QN_DTYPE_F32,
         {2, 2},
         MATRIX "_scale",
         "expected no tensor of this name"},
    };
    check_damages(damages, sizeof damages / sizeof *damages);
}

static void test_bind_mxfp4_scale_must_fit_its_weight(void **state)
{
    (void)state;
    static const damage damages[] = {
        {&mxfp4, MATRIX "_scale", NULL, 0, {0}, MATRIX, "no scale"},
        {&mxfp4, MATRIX "_scale", MATRIX "_scale_inv", QN_DTYPE_F32, {2, 2}, MATRIX, "no scale"},
        {&mxfp4,
         NULL,
         MATRIX "_scale",
         QN_DTYPE_U8,
         {160, 10},
         MATRIX "_scale",
         "U8 [160, 10], expected shape [160, 5]"},
        {&mxfp4,
         NULL,
         MATRIX "_scale",
         QN_DTYPE_U8,
         {800, 0},
         MATRIX "_scale",
         "U8 [800], expected shape [160, 5]"},
        {&mxfp4,
         NULL,
         MATRIX "_scale",
         QN_DTYPE_F32,
         {160, 5},
         MATRIX "_scale",
         "dtype F32, expected U8 or F8_E8M0"},
        {&mxfp4,
         NULL,
         MATRIX,
         QN_DTYPE_U8,
         {160, 160},
         MATRIX,
         "U8 [160, 160], expected shape [160, 80]"},
        {&mxfp4,
         NULL,
         MATRIX,
         QN_DTYPE_I8,
         {160, 64},
         MATRIX,
         "I8 [160, 64], expected shape [160, 80]"},
    };
    check_damages(damages, sizeof damages / sizeof *damages);
}

static void test_bind_mxfp4_rows_must_be_whole_blocks(void **state)
{
    (void)state;
    static const damage odd_rows = {&bf16,
                                    NULL,
                                    "model.layers.0.mlp.down_proj.weight",
                                    QN_DTYPE_U8,
                                    {EMBD, 140},
                                    "model.layers.0.mlp.down_proj.weight",
                                    "dtype U8, expected BF16 or F32 (a row is no multiple of 32"};
    qn_config config = made_config();
    config.n_ff_dense = 280;
    check_damage(&odd_rows, &config);
}

static void test_bind_tensors_that_nothing_asks_for_are_refused(void **state)
{
    (void)state;
    static const damage damages[] = {
        {&bf16, NULL, MATRIX "_scale", QN_DTYPE_F32, {2, 2}, MATRIX "_scale", "no tensor of this"},
        {&bf16,
         NULL,
         "model.norm.weight_scale",
         QN_DTYPE_U8,
         {160, 5},
         "model.norm.weight_scale",
         "U8 [160, 5], expected no tensor of this name"},
        {&mxfp4,
         NULL,
         "model.layers.1.mlp.experts.5.up_proj.weight_scale",
         QN_DTYPE_U8,
         {160, 5},
         "model.layers.1.mlp.experts.5.up_proj.weight_scale",
         "expected no tensor of this name"},
        {&bf16,
         NULL,
         "model.layers.1.self_attn.indexer.wk.weight",
         QN_DTYPE_BF16,
         {48, 160},
         "model.layers.1.self_attn.indexer.wk.weight",
         "expected no tensor of this name"},
        {&bf16,
         NULL,
         "model.layers.3.input_layernorm.weight",
         QN_DTYPE_BF16,
         {160, 0},
         "model.layers.3.input_layernorm.weight",
         "expected no tensor of this name"},
    };
    check_damages(damages, sizeof damages / sizeof *damages);
}

static void test_bind_missing_and_misshapen_tensors_are_refused(void **state)
{
    (void)state;
    static const damage damages[] = {
        {&bf16, MATRIX, NULL, 0, {0}, MATRIX, "missing, shape"},
        {&fp8, MATRIX, NULL, 0, {0}, MATRIX, "missing, shape"},
        {&bf16, "model.norm.weight", NULL, 0, {0}, "model.norm.weight", "missing, shape"},
        {&bf16,
         NULL,
         MATRIX,
         QN_DTYPE_BF16,
         {160, 128},
         MATRIX,
         "BF16 [160, 128], expected shape [160, 160]"},
        {&bf16,
         NULL,
         MATRIX,
         QN_DTYPE_BF16,
         {25600, 0},
         MATRIX,
         "BF16 [25600], expected shape [160, 160]"},
        {&bf16,
         NULL,
         "model.norm.weight",
         QN_DTYPE_BF16,
         {1, 160},
         "model.norm.weight",
         "BF16 [1, 160], expected shape [160]"},
        {&bf16, NULL, MATRIX, QN_DTYPE_F16, {160, 160}, MATRIX, "dtype F16, expected BF16, F32, "},
        {&bf16, NULL, MATRIX, QN_DTYPE_F8_E5M2, {160, 160}, MATRIX, "dtype F8_E5M2, expected"},
        {&bf16,
         NULL,
         "model.norm.weight",
         QN_DTYPE_F8_E4M3,
         {160, 0},
         "model.norm.weight",
         "dtype F8_E4M3, expected BF16 or F32"},
        {&bf16,
         NULL,
         "model.embed_tokens.weight",
         QN_DTYPE_F8_E4M3,
         {VOCAB, EMBD},
         "model.embed_tokens.weight",
         "dtype F8_E4M3, expected BF16 or F32"},
        {&bf16,
         NULL,
         "model.embed_tokens.weight",
         QN_DTYPE_U8,
         {VOCAB, EMBD / 2},
         "model.embed_tokens.weight",
         "dtype U8, expected BF16 or F32"},
    };
    check_damages(damages, sizeof damages / sizeof *damages);
}

/* ------------------------------------------------------------------------------ the MTP layer --
 */

/* Take every tensor of the MTP layer out, but @p kept (NULL: none is). */
static void remove_mtp(made_list *list, const char *kept)
{
    for (size_t i = list->n; i-- > 0;) {
        const char *name = list->items[i].name;
        if (strncmp(name, MTP, strlen(MTP)) == 0 && (kept == NULL || strcmp(name, kept) != 0)) {
            assert_true(made_remove(list, name));
        }
    }
}

static void test_bind_half_an_mtp_layer_is_refused(void **state)
{
    (void)state;
    const qn_config config = made_config();
    static const damage damages[] = {
        {&bf16, MTP "enorm.weight", NULL, 0, {0}, MTP "enorm.weight", "missing, shape"},
        {&mxfp4, MTP "eh_proj.weight", NULL, 0, {0}, MTP "eh_proj.weight", "missing, shape"},
        {&mxfp4, MTP "eh_proj.weight_scale", NULL, 0, {0}, MTP "eh_proj.weight", "no scale"},
        {&bf16,
         MTP "mlp.experts.4.up_proj.weight",
         NULL,
         0,
         {0},
         MTP "mlp.experts.4.up_proj.weight",
         "missing, shape"},
    };
    check_damages(damages, sizeof damages / sizeof *damages);
    made *m = made_by(&bf16, &config);
    remove_mtp(&m->stored, MTP "shared_head.norm.weight");
    tiny t;
    qn_error err = {0};
    const qn_status status = open_list(&t, &config, &m->stored, &err);
    assert_refused(status, &err, MTP "input_layernorm.weight", "missing, shape");
    tiny_close(&t);
    made_free(m);
}

/* Logits of one token, or none where the model does not open. */
static void first_logits(float *logits, const qn_config *config, const made_list *list,
                         bool has_mtp)
{
    static const int32_t page = 0;
    const int32_t token = 5;
    const int32_t zero = 0;
    const uint32_t row = 0;
    const qn_batch batch = {1, &token, &zero, &zero, &page, 1, 1, &row, 1};
    tiny t;
    qn_error err = {0};
    if (open_list(&t, config, list, &err) != QN_OK) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(qn_glm_has_mtp(t.glm), has_mtp);
    qn_glm_forward(t.glm, &t.kv, &batch, NULL, logits, NULL);
    tiny_close(&t);
}

static void test_bind_without_its_mtp_layer_the_trunk_loads_and_says_so(void **state)
{
    (void)state;
    const qn_config config = made_config();
    static const recipe *const recipes[3] = {&bf16, &fp8, &mxfp4};
    float want[VOCAB];
    float got[VOCAB];
    for (size_t i = 0; i < 3; i++) {
        made *m = made_by(recipes[i], &config);
        first_logits(want, &config, &m->stored, true);
        remove_mtp(&m->stored, NULL);
        first_logits(got, &config, &m->stored, false);
        assert_memory_equal(got, want, sizeof want);
        made_free(m);
    }
}

static void test_bind_mtp_layer_that_the_config_denies_is_refused(void **state)
{
    (void)state;
    qn_config config = made_config();
    made *m = made_by(&bf16, &config);
    tiny t;
    qn_error err = {0};
    config.n_mtp_layers = 0;
    const qn_status status = open_list(&t, &config, &m->stored, &err);
    assert_refused(status, &err, MTP "eh_proj.weight", "expected no tensor of this name");
    tiny_close(&t);
    made_free(m);
}

/* They are ignored: NaN in them changes nothing.  Alone they are no MTP layer. */
static void test_bind_trunk_copies_in_the_mtp_layer_are_ignored(void **state)
{
    (void)state;
    static const char *const copies[] = {MTP "embed_tokens.weight", MTP "shared_head.head.weight"};
    static const char scale[] = MTP "shared_head.head.weight_scale_inv"; /* of one in FP8 */
    const qn_config config = made_config();
    float want[VOCAB];
    float got[VOCAB];
    made *m = made_by(&bf16, &config);
    first_logits(want, &config, &m->stored, true);
    for (size_t i = 0; i < 2; i++) {
        uint8_t *data = made_add(&m->stored, copies[i], "", QN_DTYPE_BF16, VOCAB, EMBD);
        memset(data, 0xff, (size_t)2 * VOCAB * EMBD);
    }
    memset(made_add(&m->stored, scale, "", QN_DTYPE_F32, 1, 2), 0xff, 2 * sizeof(float));
    first_logits(got, &config, &m->stored, true);
    assert_memory_equal(got, want, sizeof want);
    remove_mtp(&m->stored, NULL);
    for (size_t i = 0; i < 2; i++) {
        (void)made_add(&m->stored, copies[i], "", QN_DTYPE_BF16, VOCAB, EMBD);
    }
    first_logits(got, &config, &m->stored, false);
    assert_memory_equal(got, want, sizeof want);
    made_free(m);
    static const damage damages[] = {
        {&bf16,
         NULL,
         MTP "embed_tokens.bias",
         QN_DTYPE_BF16,
         {VOCAB, EMBD},
         MTP "embed_tokens.bias",
         "expected no tensor of this name"},
        {&bf16,
         NULL,
         "model.layers.1.embed_tokens.weight",
         QN_DTYPE_BF16,
         {VOCAB, EMBD},
         "model.layers.1.embed_tokens.weight",
         "expected no tensor of this name"},
    };
    check_damages(damages, sizeof damages / sizeof *damages);
}

static void test_bind_tensor_in_two_shards_is_refused(void **state)
{
    (void)state;
    const qn_config config = made_config();
    char dir[DIR_BYTES];
    tiny t;
    qn_error err = {0};
    made *m = made_by(&mxfp4, &config);
    const size_t n = m->stored.n;
    (void)made_add(&m->stored, MATRIX, "_scale", QN_DTYPE_U8, 160, 5);
    made_save(dir, &m->stored, n);
    const qn_status status = made_open(&t, &config, dir, 1, QN_COMPUTE_F32, &err);
    assert_refused(status, &err, MATRIX "_scale", "in a.safetensors and in b.safetensors");
    assert_null(t.glm);
    tiny_close(&t);
    made_discard(dir);
    made_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bind_fp8_scale_must_fit_its_weight),
        cmocka_unit_test(test_bind_mxfp4_scale_must_fit_its_weight),
        cmocka_unit_test(test_bind_mxfp4_rows_must_be_whole_blocks),
        cmocka_unit_test(test_bind_tensors_that_nothing_asks_for_are_refused),
        cmocka_unit_test(test_bind_missing_and_misshapen_tensors_are_refused),
        cmocka_unit_test(test_bind_half_an_mtp_layer_is_refused),
        cmocka_unit_test(test_bind_without_its_mtp_layer_the_trunk_loads_and_says_so),
        cmocka_unit_test(test_bind_mtp_layer_that_the_config_denies_is_refused),
        cmocka_unit_test(test_bind_trunk_copies_in_the_mtp_layer_are_ignored),
        cmocka_unit_test(test_bind_tensor_in_two_shards_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

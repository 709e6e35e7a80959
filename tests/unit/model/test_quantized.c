/* SPDX-License-Identifier: Apache-2.0 */
/* A quantised checkpoint computes what an f32 checkpoint of the same values does, and its rows
 * depend on nothing but their own sequence. */
#include "made.h"

enum { N_POSITIONS = 24, N_SEQS = 2, ROWS_MAX = 32 };

/* Every storage of docs/formats.md, for every tensor that may have it. */
static const recipe storages[] = {
    {"f32", "none", {{"", AS_F32}}},
    {"bf16", "none", {{"", AS_BF16}}},
    {"fp8 blocks, weight_scale_inv", "fp8", {{"", AS_FP8_INV}}},
    {"fp8 rows, [n_out, 1]", "fp8", {{"", AS_FP8_ROWS}}},
    {"mxfp4", "mxfp4", {{"", AS_MXFP4}}},
    /* The rest differs in names and types alone. */
    {"fp8 blocks, weight_scale", "fp8", {{"", AS_FP8_BLOCKS}}},
    {"fp8 rows, [n_out]", "fp8", {{"", AS_FP8_ROWS_FLAT}}},
    {"mxfp4, weight_quantizer.scale", "mxfp4", {{"", AS_MXFP4_QUANTIZER}}},
    {"mxfp4, F8_E8M0 scales", "mxfp4", {{"", AS_MXFP4_E8M0}}},
    {"mxfp4, I8 weights", "mxfp4", {{"", AS_MXFP4_I8}}},
};

enum { N_STORAGES = sizeof storages / sizeof *storages, N_KINDS = 5 };

/* As published; layer 2 is the MTP layer here.  "experts." is in "shared_experts." too. */
static const recipe mixes[] = {
    {"the official FP8",
     "fp8",
     {{"e_score", AS_F32},
      {"weights_proj", AS_BF16},
      {"mlp.gate.", AS_BF16},
      {"eh_proj", AS_BF16},
      {"lm_head", AS_BF16},
      {"", AS_FP8_INV}}},
    {"AMD's MXFP4: experts, MTP layer bf16",
     "mxfp4",
     {{"e_score", AS_F32}, {"layers.2.", AS_BF16}, {"experts.", AS_MXFP4}, {"", AS_BF16}}},
    {"GLM-5.1-MXFP4: MTP experts and eh_proj too",
     "mxfp4",
     {{"e_score", AS_F32}, {"experts.", AS_MXFP4}, {"eh_proj", AS_MXFP4}, {"", AS_BF16}}},
    {"AttnFP8: attention FP8 by row, experts MXFP4",
     "mxfp4",
     {{"e_score", AS_F32},
      {"weights_proj", AS_BF16},
      {"self_attn.", AS_FP8_ROWS},
      {"experts.", AS_MXFP4},
      {"", AS_BF16}}},
    {"Quark over FP8: blocks kept with their scale renamed",
     "mxfp4",
     {{"e_score", AS_F32},
      {"weights_proj", AS_BF16},
      {"experts.", AS_MXFP4_QUANTIZER},
      {"mlp.gate.", AS_BF16},
      {"lm_head", AS_BF16},
      {"", AS_FP8_BLOCKS}}},
};

/* All that the model says about one sequence; row 0 of the MTP layer does not exist. */
typedef struct outcome {
    float hidden[N_POSITIONS][EMBD], logits[N_POSITIONS][VOCAB];
    float g[N_POSITIONS][EMBD], draft[N_POSITIONS][VOCAB];
} outcome;

/* The trunk or the MTP layer over whole sequences: @p chunk rows a pass of sequence 0, behind a
 * changing number of its neighbour's. */
static void run_part(tiny *t, bool is_mtp, uint32_t n_seqs, uint32_t chunk, outcome *out)
{
    static const int32_t page_of[N_SEQS] = {3, 0};
    static float previous[ROWS_MAX][EMBD], hidden[ROWS_MAX][EMBD], logits[ROWS_MAX][VOCAB];
    int32_t next[N_SEQS] = {is_mtp, is_mtp};
    for (uint32_t pass = 0; next[0] < N_POSITIONS; pass++) {
        int32_t tokens[ROWS_MAX];
        int32_t positions[ROWS_MAX];
        int32_t seqs[ROWS_MAX];
        uint32_t rows[ROWS_MAX];
        uint32_t n = 0;
        for (int32_t s = (int32_t)n_seqs - 1; s >= 0; s--) {
            const uint32_t n_rows = s == 0 ? chunk : 1 + pass % 5;
            for (uint32_t i = 0; i < n_rows && next[s] < N_POSITIONS; i++, n++) {
                tokens[n] = tiny_token(s, next[s]);
                positions[n] = next[s]++;
                seqs[n] = s;
                rows[n] = n;
                memcpy(previous[n], out[s].hidden[positions[n] - is_mtp], sizeof previous[n]);
            }
        }
        const qn_batch batch = {n, tokens, positions, seqs, page_of, N_SEQS, 1, rows, n};
        if (is_mtp) {
            const qn_mtp_io io = {
                .hidden_prev = previous[0], .hidden = hidden[0], .logits = logits[0]};
            qn_glm_mtp(t->glm, &t->kv, &batch, &io, NULL);
        } else {
            qn_glm_forward(t->glm, &t->kv, &batch, hidden[0], logits[0], NULL);
        }
        for (uint32_t i = 0; i < n; i++) {
            outcome *to = &out[seqs[i]];
            memcpy((is_mtp ? to->g : to->hidden)[positions[i]], hidden[i], sizeof hidden[i]);
            memcpy((is_mtp ? to->draft : to->logits)[positions[i]], logits[i], sizeof logits[i]);
        }
    }
}

/* Sequence 0 of the model in that folder. */
static void run(outcome *out, const char *name, const char *dir, qn_compute compute,
                uint32_t n_threads, uint32_t n_seqs, uint32_t chunk)
{
    const qn_config config = made_config();
    tiny t;
    qn_error err = {0};
    if (made_open(&t, &config, dir, n_threads, compute, &err) != QN_OK) {
        fail_msg("%s: %s", name, err.text);
    }
    outcome *all = calloc(N_SEQS, sizeof *all);
    assert_non_null(all);
    run_part(&t, false, n_seqs, chunk, all);
    run_part(&t, true, n_seqs, chunk, all);
    *out = all[0];
    const float *values = &out->hidden[0][0];
    for (size_t i = 0; i < sizeof *out / sizeof *values; i++) {
        assert_true(isfinite(values[i])); /* equal NaN would prove nothing */
    }
    assert_memory_not_equal(out->logits[1], out->logits[2], sizeof out->logits[0]);
    assert_memory_not_equal(out->draft[1], out->draft[2], sizeof out->draft[0]);
    free(all);
    tiny_close(&t);
}

static bool is_same(const void *a, const void *b, size_t n_bytes)
{
    return memcmp(a, b, n_bytes) == 0;
}

static void assert_same(const outcome *got, const outcome *want, const char *name, const char *why)
{
    if (!is_same(got->hidden, want->hidden, sizeof got->hidden) ||
        !is_same(got->logits, want->logits, sizeof got->logits)) {
        fail_msg("%s: the trunk's bits differ: %s", name, why);
    }
    if (!is_same(got, want, sizeof *got)) {
        fail_msg("%s: the MTP layer's bits differ: %s", name, why);
    }
}

/* Scales are applied to sums of blocks, in the values of the other they are in each weight. */
static void assert_close(const outcome *got, const outcome *want, const char *name)
{
    const float *a = &got->hidden[0][0];
    const float *b = &want->hidden[0][0];
    for (size_t i = 0; i < sizeof *got / sizeof *a; i++) {
        if (!(fabsf(a[i] - b[i]) <= 1e-4F * fmaxf(1.0F, fabsf(b[i])))) {
            fail_msg("%s: value %zu: %g, as its values in f32 give %g", name, i, (double)a[i],
                     (double)b[i]);
        }
    }
}

/* What a loaded model says of itself. */
static void check_facts(const recipe *r, const made *m, const char *dir)
{
    const qn_config config = made_config();
    tiny t;
    qn_error err = {0};
    uint64_t n_bytes = 0;
    uint64_t n_parameters = 0;
    for (size_t i = 0; i < m->stored.n; i++) {
        n_bytes += m->stored.items[i].size_bytes;
    }
    for (size_t i = 0; i < m->plain.n; i++) {
        n_parameters += m->plain.items[i].size_bytes / 4;
    }
    assert_int_equal(made_open(&t, &config, dir, 1, QN_COMPUTE_F32, &err), QN_OK);
    assert_true(qn_glm_has_mtp(t.glm));
    assert_string_equal(qn_glm_quantization(t.glm), r->quantization);
    assert_int_equal(qn_glm_weight_bytes(t.glm), n_bytes);
    assert_int_equal(qn_glm_parameters(t.glm), n_parameters);
    tiny_close(&t);
}

static void check_twins(const recipe *recipes, size_t n_recipes)
{
    const qn_config config = made_config();
    static outcome got, want;
    for (size_t i = 0; i < n_recipes; i++) {
        made *m = made_by(&recipes[i], &config);
        char dir[DIR_BYTES];
        char plain_dir[DIR_BYTES];
        made_save(dir, &m->stored, m->stored.n);
        made_save(plain_dir, &m->plain, m->plain.n / 2);
        run(&got, recipes[i].name, dir, QN_COMPUTE_F32, 1, 1, N_POSITIONS);
        run(&want, recipes[i].name, plain_dir, QN_COMPUTE_F32, 1, 1, N_POSITIONS);
        assert_close(&got, &want, recipes[i].name);
        check_facts(&recipes[i], m, dir);
        made_discard(dir);
        made_discard(plain_dir);
        made_free(m);
    }
}

static void test_quantized_every_storage_computes_as_its_values_in_f32(void **state)
{
    (void)state;
    check_twins(storages, N_STORAGES);
}

static void test_quantized_published_mixes_compute_as_their_values_in_f32(void **state)
{
    (void)state;
    check_twins(mixes, sizeof mixes / sizeof *mixes);
}

static void check_independent(const recipe *r, qn_compute compute)
{
    const qn_config config = made_config();
    static outcome got, want;
    made *m = made_by(r, &config);
    char dir[DIR_BYTES];
    made_save(dir, &m->stored, m->stored.n);
    run(&want, r->name, dir, compute, 1, 1, N_POSITIONS);
    run(&got, r->name, dir, compute, 1, 1, 1);
    assert_same(&got, &want, r->name, "one row a pass");
    run(&got, r->name, dir, compute, 1, 1, 7);
    assert_same(&got, &want, r->name, "seven rows a pass");
    run(&got, r->name, dir, compute, 3, 1, N_POSITIONS);
    assert_same(&got, &want, r->name, "three threads");
    run(&got, r->name, dir, compute, 2, 2, 5);
    assert_same(&got, &want, r->name, "a neighbour");
    made_discard(dir);
    made_free(m);
}

static void test_quantized_bf16_bits_depend_on_the_sequence_alone(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_KINDS; i++) {
        check_independent(&storages[i], QN_COMPUTE_BF16);
    }
}

static void test_quantized_int8_bits_depend_on_the_sequence_alone(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_KINDS; i++) {
        check_independent(&storages[i], QN_COMPUTE_INT8);
    }
    check_independent(&mixes[3], QN_COMPUTE_INT8);
}

/* Otherwise the two tests above would say nothing of the modes. */
static void test_quantized_int8_is_bf16_but_for_mxfp4(void **state)
{
    (void)state;
    const qn_config config = made_config();
    static outcome f32, bf16, int8;
    for (size_t i = 0; i < N_KINDS; i++) {
        const recipe *r = &storages[i];
        made *m = made_by(r, &config);
        char dir[DIR_BYTES];
        made_save(dir, &m->stored, m->stored.n);
        run(&f32, r->name, dir, QN_COMPUTE_F32, 1, 1, N_POSITIONS);
        run(&bf16, r->name, dir, QN_COMPUTE_BF16, 1, 1, N_POSITIONS);
        run(&int8, r->name, dir, QN_COMPUTE_INT8, 1, 1, N_POSITIONS);
        assert_memory_not_equal(&bf16, &f32, sizeof bf16);
        if (strcmp(r->quantization, "mxfp4") == 0) {
            assert_memory_not_equal(&int8, &bf16, sizeof int8);
        } else {
            assert_same(&int8, &bf16, r->name, "int8 of other weights is bf16");
        }
        made_discard(dir);
        made_free(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quantized_every_storage_computes_as_its_values_in_f32),
        cmocka_unit_test(test_quantized_published_mixes_compute_as_their_values_in_f32),
        cmocka_unit_test(test_quantized_bf16_bits_depend_on_the_sequence_alone),
        cmocka_unit_test(test_quantized_int8_bits_depend_on_the_sequence_alone),
        cmocka_unit_test(test_quantized_int8_is_bf16_but_for_mxfp4),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

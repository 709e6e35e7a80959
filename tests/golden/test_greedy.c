/* SPDX-License-Identifier: Apache-2.0 */
/* glm-nano's greedy answers to 200 problems, token for token as transformers gives them. */
#include "golden.h"

enum { CONTEXT = 2048 };

/* Feed a prompt and take the most likely token until a stop; true when the answer is the golden
 * one. */
static bool answers_alike(golden *g, const int32_t *prompt, uint32_t n_prompt,
                          const int32_t *answer, uint32_t n_answer, float *logits)
{
    int32_t tokens[GOLDEN_CHUNK];
    int32_t positions[GOLDEN_CHUNK];
    const int32_t seqs[GOLDEN_CHUNK] = {0};
    const uint32_t n_all = n_prompt + n_answer - 1; /* the last token is not computed */
    for (uint32_t at = 0; at < n_all;) {
        uint32_t n = 0;
        for (; n < GOLDEN_CHUNK && at + n < (at < n_prompt ? n_prompt : at + 1); n++) {
            const uint32_t position = at + n;
            tokens[n] = position < n_prompt ? prompt[position] : answer[position - n_prompt];
            positions[n] = (int32_t)position;
        }
        at += n;
        const uint32_t last = n - 1;
        const qn_batch batch = {n, tokens, positions, seqs, g->pages, 1, g->kv.n_pages, &last, 1};
        qn_glm_forward(g->glm, &g->kv, &batch, NULL, logits, NULL);
        if (at < n_prompt) {
            continue;
        }
        const qn_sample_args args = {.logits = logits, .n_vocab = g->config.n_vocab};
        if (g->kernels.sample(&args) != answer[at - n_prompt]) {
            return false;
        }
    }
    return true;
}

static void test_greedy_answers_equal_transformers(void **state)
{
    (void)state;
    golden g;
    golden_open(&g, QN_SOURCE_DIR "/models/glm-nano", false, "greedy.safetensors", CONTEXT);
    const int32_t *prompt_starts = golden_i32(&g, "prompt_starts");
    const int32_t *answer_starts = golden_i32(&g, "answer_starts");
    const size_t n_problems = golden_tensor(&g, "prompt_starts")->shape[0] - 1;
    float *logits = malloc(g.config.n_vocab * sizeof *logits);
    assert_non_null(logits);
    size_t n_alike = 0;
    for (size_t i = 0; i < n_problems; i++) {
        const uint32_t n_prompt = (uint32_t)(prompt_starts[i + 1] - prompt_starts[i]);
        const uint32_t n_answer = (uint32_t)(answer_starts[i + 1] - answer_starts[i]);
        assert_true(n_prompt + n_answer < CONTEXT);
        if (answers_alike(&g, golden_i32(&g, "prompts") + prompt_starts[i], n_prompt,
                          golden_i32(&g, "answers") + answer_starts[i], n_answer, logits)) {
            n_alike++;
        } else {
            (void)fprintf(stderr, "problem %zu: another answer (smallest gap of its logits %g)\n",
                          i, (double)golden_f32(&g, "gaps")[i]);
        }
    }
    free(logits);
    golden_close(&g);
    assert_int_equal(n_problems, 200);
    assert_int_equal(n_alike, n_problems);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy_answers_equal_transformers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

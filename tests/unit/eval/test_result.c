/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON of a run: numbers that are none, and settings that make another run. */
#include "base/json.h"
#include "eval/result.h"
#include "support/fail_each.h"

#include <math.h>

static const qn_eval_side a_side = {.model = "m"};

/* A text of one token whose loss is @p loss. */
static qn_status make(char **out, double loss, qn_error *err)
{
    static int32_t id;
    static qn_task_set set;
    qn_window_sum window = {.sum = loss, .n_tokens = 1};
    qn_text text = {.ids = &id, .n_tokens = 1, .n_windows = 1, .windows = {&window}};
    const qn_asking asking = {.sampling = {.temperature = 0.6F}};
    const qn_answers answers = {.set = &set, .n_sides = 1};
    const qn_result_args args = {
        .sides = &a_side, .asking = &asking, .answers = &answers, .text = &text};
    return qn_result_make(out, &args, err);
}

static json_t *text_of(double loss)
{
    char *result = NULL;
    json_t *object = NULL;
    qn_error err = {0};
    assert_int_equal(make(&result, loss, &err), QN_OK);
    if (qn_json_parse(&object, qn_str_of(result), "result", &err) < 0) {
        fail_msg("%s: %s", err.text, result);
    }
    free(result);
    json_t *const text = json_incref(json_object_get(object, "text"));
    json_decref(object);
    assert_non_null(text);
    return text;
}

static void test_a_perplexity_beyond_numbers_is_null(void **state)
{
    (void)state;
    json_t *text = text_of(1000.0);
    assert_true(json_is_null(json_object_get(text, "perplexity")));
    assert_true(json_number_value(json_object_get(text, "loss")) == 1000.0);
    assert_true(json_is_null(json_object_get(text, "low"))); /* one window */
    json_decref(text);
    text = text_of(2.0);
    assert_true(fabs(json_number_value(json_object_get(text, "perplexity")) - exp(2.0)) < 1e-8);
    json_decref(text);
}

static void header_of(qn_buf *out, const qn_sampling *sampling)
{
    static qn_task_set set;
    static const qn_eval_options options;
    static char fingerprints[1][QN_SHA256_HEX_BYTES];
    qn_error err = {0};
    qn_asking asking = {.sampling = *sampling};
    const qn_header_args args = {.sides = &a_side,
                                 .n_sides = 1,
                                 .options = &options,
                                 .asking = &asking,
                                 .set = &set,
                                 .fingerprints = fingerprints,
                                 .kernels = "ref"};
    qn_buf_init(out, 1 << 16);
    assert_int_equal(qn_header_append(out, &args, &err), QN_OK);
}

/* Answers that were drawn in another way are not those of this run. */
static void test_each_setting_of_sampling_makes_another_header(void **state)
{
    (void)state;
    static const qn_logit_bias biases[] = {{3, -INFINITY}, {4, 1.5F}};
    static const qn_sampling samplings[] = {
        {.top_p = 1.0F},
        {.temperature = 1.0F},
        {.top_p = 0.5F},
        {.min_p = 0.5F},
        {.top_k = 7},
        {.seed = 9},
        {.repetition_penalty = 1.1F},
        {.presence_penalty = 0.5F},
        {.frequency_penalty = 0.5F},
        {.n_logit_bias = 1, .logit_bias = biases},
        {.n_logit_bias = 1, .logit_bias = biases + 1},
        {.n_logit_bias = 2, .logit_bias = biases},
    };
    enum { N = sizeof samplings / sizeof *samplings };
    qn_buf headers[N];
    for (size_t i = 0; i < N; i++) {
        json_t *object = NULL;
        qn_error err = {0};
        header_of(&headers[i], &samplings[i]);
        assert_int_equal(qn_json_parse(&object, qn_buf_view(&headers[i]), "header", &err), QN_OK);
        json_decref(object);
        for (size_t k = 0; k < i; k++) {
            assert_false(qn_str_equal(qn_buf_view(&headers[i]), qn_buf_view(&headers[k])));
        }
    }
    assert_non_null(strstr(headers[N - 1].ptr, "\"logit_bias\": [[3, null], [4, 1.5]]"));
    for (size_t i = 0; i < N; i++) {
        qn_buf_deinit(&headers[i]);
    }
}

static qn_status make_any(qn_error *err)
{
    char *result = NULL;
    const qn_status status = make(&result, 1.0, err);
    free(result);
    return status;
}

static void test_no_memory_is_a_status(void **state)
{
    (void)state;
    fail_each(make_any, 1, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_perplexity_beyond_numbers_is_null),
        cmocka_unit_test(test_each_setting_of_sampling_makes_another_header),
        cmocka_unit_test(test_no_memory_is_a_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

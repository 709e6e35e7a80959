/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/exact.h"
#include "fake_server.h"
#include "support/unit.h"

#define FOLDER QN_SOURCE_DIR "/models/glm-nano"

static const bench_target target = {.base_url = "http://host:1"};

static int open_model(void **state)
{
    const qn_model_options options = {.tokenizer_only = true};
    (void)state;
    return qn_model_open(&g_fake.model, FOLDER, &options, NULL);
}

static int close_model(void **state)
{
    (void)state;
    qn_model_close(&g_fake.model);
    return 0;
}

/* Another server over the same model. */
static void become(fake_server server)
{
    server.model = g_fake.model;
    g_fake = server;
}

static bench_tokens *open_tokens(const char *folder)
{
    qn_error err = {0};
    bench_tokens *tokens = NULL;
    if (bench_tokens_open(&tokens, folder, &target, "m", &err) != QN_OK) {
        fail_msg("%s", err.text);
    }
    return tokens;
}

static uint32_t count(bench_tokens *tokens, const char *text)
{
    qn_error err = {0};
    uint32_t n = 0;
    assert_int_equal(bench_tokens_count(&n, tokens, text, strlen(text), &err), QN_OK);
    return n;
}

static void test_a_folder_counts_as_its_tokenizer(void **state)
{
    size_t n = 0;
    qn_error err = {0};
    bench_tokens *tokens = open_tokens(FOLDER);
    (void)state;
    become((fake_server){.path = NULL});
    assert_int_equal(fake_count(&n, "The old harbour, twice.", &err), QN_OK);
    assert_int_equal(count(tokens, "The old harbour, twice."), n);
    assert_int_equal(count(tokens, ""), 0);
    assert_int_equal(count(tokens, "<|user|>"), 1);
    assert_string_equal(bench_tokens_name(tokens), FOLDER);
    assert_true(bench_tokens_is_local(tokens));
    bench_tokens_close(&tokens);
    assert_null(tokens);
}

static void test_a_server_is_asked_in_each_shape(void **state)
{
    static const struct {
        fake_server server;
        const char *name;
    } cases[] = {
        {{.path = "/tokenize", .field = "prompt", .has_count = true}, "server: /tokenize"},
        {{.path = "/tokenize", .field = "prompt", .n_before = 1}, "server: /tokenize"},
        {{.path = "/tokenize", .field = "content"}, "server: /tokenize"},
        {{.path = "/extras/tokenize", .field = "input", .n_before = 1}, "server: /extras/tokenize"},
        {{.path = "/extras/tokenize", .field = "input", .n_before = 2, .refuses_empty = true},
         "server: /extras/tokenize"},
    };
    bench_tokens *here = open_tokens(FOLDER);
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        become(cases[i].server);
        bench_tokens *tokens = open_tokens(NULL);
        assert_string_equal(bench_tokens_name(tokens), cases[i].name);
        assert_false(bench_tokens_is_local(tokens));
        assert_int_equal(count(tokens, "Is it \"so\"?\n"), count(here, "Is it \"so\"?\n"));
        bench_tokens_close(&tokens);
    }
    bench_tokens_close(&here);
}

static void test_a_server_without_a_tokenizer_is_told(void **state)
{
    static const fake_server servers[] = {{.path = NULL}, {.path = "/tokenize", .field = "other"}};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        qn_error err = {0};
        bench_tokens *tokens = NULL;
        become(servers[i]);
        assert_int_equal(bench_tokens_open(&tokens, NULL, &target, "m", &err), QN_E_INVAL);
        assert_non_null(strstr(err.text, "http://host:1: no count of tokens (/tokenize: status "));
        assert_non_null(strstr(err.text, "--tokenizer"));
        assert_null(tokens);
    }
}

static void test_a_server_that_stops_counting_is_told(void **state)
{
    qn_error err = {0};
    uint32_t n = 0;
    (void)state;
    become((fake_server){.path = "/tokenize", .field = "prompt"});
    bench_tokens *tokens = open_tokens(NULL);
    become((fake_server){.path = NULL});
    assert_int_equal(bench_tokens_count(&n, tokens, "a", 1, &err), QN_E_IO);
    assert_non_null(strstr(err.text, "http://host:1/tokenize: status 404 for 1 bytes"));
    bench_tokens_close(&tokens);
}

/* An id whose text is that id again is no control token, and one that there is. */
static void test_ids_stand_for_ordinary_text(void **state)
{
    qn_error err = {0};
    bench_tokens *tokens = open_tokens(FOLDER);
    int32_t *ids = NULL;
    uint32_t n = 0;
    (void)state;
    assert_int_equal(bench_tokens_ids(&ids, &n, tokens, &err), QN_OK);
    assert_in_range(n, 5500, 6112);
    for (uint32_t i = 0; i < n; i++) {
        assert_in_range(ids[i], 0, 6111);
    }
    free(ids);
    assert_int_equal(bench_tokens_ids(&ids, &n, NULL, &err), QN_OK);
    assert_int_equal(n, 3000);
    assert_int_equal(ids[0], 1000);
    assert_int_equal(ids[n - 1], 3999);
    free(ids);
    bench_tokens_close(&tokens);
}

/* Lengths 1 to 300, as a whole and behind another text. */
static void test_texts_have_exactly_their_tokens(void **state)
{
    qn_error err = {0};
    bench_tokens *tokens = open_tokens(FOLDER);
    bench_exact *exact = NULL;
    qn_buf text;
    (void)state;
    qn_buf_init(&text, 1 << 20);
    assert_int_equal(bench_exact_open(&exact, tokens, false, 1, 2, 3, &err), QN_OK);
    for (uint32_t n = 1; n <= 300; n++) {
        qn_buf_clear(&text);
        assert_int_equal(bench_exact_append(&text, exact, BENCH_TEXT_OWN, n, false, n, &err),
                         QN_OK);
        assert_int_equal(count(tokens, text.ptr), n);
        assert_int_equal(bench_exact_append(&text, exact, BENCH_TEXT_OWN, n + 1000, true, n, &err),
                         QN_OK);
        assert_int_equal(count(tokens, text.ptr), 2 * n);
    }
    qn_buf_deinit(&text);
    bench_exact_close(&exact);
    bench_tokens_close(&tokens);
}

/* Of a tokenizer that does not split at blanks as its words have it: the sum is put right. */
static void test_a_wrong_sum_is_put_right(void **state)
{
    qn_error err = {0};
    bench_exact *exact = NULL;
    qn_buf text;
    (void)state;
    become((fake_server){.path = "/tokenize", .field = "prompt", .has_count = true});
    bench_tokens *tokens = open_tokens(NULL);
    qn_buf_init(&text, 1 << 20);
    assert_int_equal(bench_exact_open(&exact, tokens, false, 1, 2, 3, &err), QN_OK);
    g_fake.merges = true;
    for (uint32_t n = 100; n < 140; n++) { /* more than the first sixteen */
        qn_buf_clear(&text);
        assert_int_equal(bench_exact_append(&text, exact, BENCH_TEXT_OWN, n, false, n, &err),
                         QN_OK);
        assert_int_equal(count(tokens, text.ptr), n);
    }
    qn_buf_deinit(&text);
    bench_exact_close(&exact);
    bench_tokens_close(&tokens);
}

/* A server counts words by the dozen, and of many texts some. */
static void test_a_server_is_not_asked_for_every_text(void **state)
{
    qn_error err = {0};
    bench_exact *exact = NULL;
    qn_buf text;
    (void)state;
    become((fake_server){.path = "/tokenize", .field = "prompt", .has_count = true});
    bench_tokens *tokens = open_tokens(NULL);
    qn_buf_init(&text, 1 << 20);
    assert_int_equal(bench_exact_open(&exact, tokens, false, 1, 2, 3, &err), QN_OK);
    g_fake.n_asked = 0;
    for (uint32_t i = 0; i < 160; i++) {
        assert_int_equal(bench_exact_append(&text, exact, BENCH_TEXT_OWN, i, false, 50, &err),
                         QN_OK);
    }
    assert_int_equal(g_fake.n_asked, 16 + 144 / 16);
    qn_buf_deinit(&text);
    bench_exact_close(&exact);
    bench_tokens_close(&tokens);
}

static void test_a_joint_that_is_not_one_is_told(void **state)
{
    static const char text[] = "The river. The lake.";
    qn_error err = {0};
    bench_tokens *tokens = open_tokens(FOLDER);
    bench_exact *exact = NULL;
    (void)state;
    assert_int_equal(bench_exact_open(&exact, tokens, false, 1, 2, 3, &err), QN_OK);
    const uint32_t n = count(tokens, text);
    assert_int_equal(bench_exact_check(exact, qn_str_of(text), n, &err), QN_OK);
    assert_int_equal(bench_exact_check(exact, qn_str_of(text), n + 1, &err), QN_E_INVAL);
    assert_non_null(strstr(err.text, "in a prompt put together of"));
    bench_exact_close(&exact);
    bench_tokens_close(&tokens);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_folder_counts_as_its_tokenizer),
        cmocka_unit_test(test_a_server_is_asked_in_each_shape),
        cmocka_unit_test(test_a_server_without_a_tokenizer_is_told),
        cmocka_unit_test(test_a_server_that_stops_counting_is_told),
        cmocka_unit_test(test_ids_stand_for_ordinary_text),
        cmocka_unit_test(test_texts_have_exactly_their_tokens),
        cmocka_unit_test(test_a_wrong_sum_is_put_right),
        cmocka_unit_test(test_a_server_is_not_asked_for_every_text),
        cmocka_unit_test(test_a_joint_that_is_not_one_is_told),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}

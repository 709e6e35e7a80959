/* SPDX-License-Identifier: Apache-2.0 */
/* Errors: one status of HTTP for each of the library's, and bodies in two forms. */
#include "server/error.h"
#include "support/unit.h"

static void test_each_status_of_the_library_has_one_of_http(void **state)
{
    (void)state;
    static const struct {
        qn_status status;
        int status_code;
    } table[] = {{QN_E_INVAL, 400},     {QN_E_FORMAT, 400},   {QN_AGAIN, 429},
                 {QN_E_NOMEM, 503},     {QN_E_IO, 500},       {QN_E_DEVICE, 500},
                 {QN_E_NOT_FOUND, 500}, {QN_E_CANCELLED, 500}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const qn_error why = {.status = table[i].status, .text = "prompt: bad, expected good"};
        server_error error;
        server_error_of(&error, &why, "messages");
        assert_int_equal(error.status_code, table[i].status_code);
        assert_int_equal(error.retry_after_s > 0,
                         table[i].status_code == 429 || table[i].status_code == 503);
        assert_string_equal(error.param, table[i].status_code == 400 ? "messages" : "");
        assert_string_equal(error.message, why.text);
    }
}

static void test_no_memory_is_one_answer_whatever_lacks_it(void **state)
{
    (void)state;
    const qn_error why = {.status = QN_E_NOMEM, .text = "answer: no memory"};
    server_error of_library;
    server_error own;
    server_error_of(&of_library, &why, "messages");
    server_fail_memory(&own, "answer");
    assert_int_equal(own.status_code, of_library.status_code);
    assert_int_equal(own.retry_after_s, of_library.retry_after_s);
    assert_string_equal(own.code, "overloaded");
    assert_string_equal(own.code, of_library.code);
    assert_string_equal(own.message, of_library.message);
}

static void check(server_api api, const server_error *error, const char *expected)
{
    qn_buf out = {.bytes_max = 1 << 20};
    qn_error err = {0};
    assert_int_equal(server_error_append(&out, error, api, &err), QN_OK);
    assert_string_equal(out.ptr, expected);
    qn_buf_deinit(&out);
}

static void test_bodies_have_the_form_of_their_api(void **state)
{
    (void)state;
    server_error error;
    server_fail(&error, 400, "invalid_value", "top_p", "top_p: \"%s\", expected 1\n", "2");
    check(SERVER_API_CHAT, &error,
          "{\"error\": {\"message\": \"top_p: \\\"2\\\", expected 1?\", \"type\": "
          "\"invalid_request_error\", \"param\": \"top_p\", \"code\": \"invalid_value\"}}");
    check(SERVER_API_MESSAGES, &error,
          "{\"type\": \"error\", \"error\": {\"type\": \"invalid_request_error\", \"message\": "
          "\"top_p: \\\"2\\\", expected 1?\"}}");
    server_fail(&error, 503, NULL, "", "engine: lost");
    check(
        SERVER_API_COMPLETION, &error,
        "{\"error\": {\"message\": \"engine: lost\", \"type\": \"server_error\", \"param\": null, "
        "\"code\": null}}");
    check(SERVER_API_MESSAGES, &error,
          "{\"type\": \"error\", \"error\": {\"type\": \"overloaded_error\", \"message\": "
          "\"engine: lost\"}}");
}

static void test_long_params_are_cut_at_a_character(void **state)
{
    (void)state;
    server_error error;
    char param[200];
    for (size_t n_before = 0; n_before < 3; n_before++) {
        memset(param, 'a', n_before);
        for (size_t i = n_before; i + 2 < sizeof param; i += 2) {
            memcpy(param + i, "\xc3\xa9", 3);
        }
        server_fail(&error, 400, NULL, param, "%s: bad", param);
        const size_t len = strlen(error.param);
        assert_true(len >= 62 && len <= 63);
        assert_int_equal((unsigned char)error.param[len - 1], 0xa9);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_status_of_the_library_has_one_of_http),
        cmocka_unit_test(test_no_memory_is_one_answer_whatever_lacks_it),
        cmocka_unit_test(test_bodies_have_the_form_of_their_api),
        cmocka_unit_test(test_long_params_are_cut_at_a_character),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

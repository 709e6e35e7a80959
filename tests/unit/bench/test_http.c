/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/http.h"
#include "bench/url.h"
#include "support/fail_each.h"
#include "tiny_server.h"

#include <curl/curl.h>

static tiny_server g_server;
static tiny_child g_child;
static char g_url[64];

static bench_target target_of(int port)
{
    (void)snprintf(g_url, sizeof g_url, "http://127.0.0.1:%d", port);
    return (bench_target){.base_url = g_url, .timeout_s = 60, .connect_s = 5, .api_key = "k"};
}

static void test_any_status_is_an_answer(void **state)
{
    (void)state;
    const bench_target target = target_of(g_server.port);
    bench_reply reply = {0};
    assert_int_equal(bench_http(&reply, &target, "/text", NULL, NULL), QN_OK);
    assert_int_equal(reply.status, 200);
    assert_string_equal(reply.body.ptr, "hello");
    assert_non_null(strstr(g_server.head, "GET /text HTTP/1.1\r\n"));
    assert_non_null(strstr(g_server.head, "\r\nAuthorization: Bearer k\r\n"));
    assert_int_equal(bench_http(&reply, &target, "/500", "{}", NULL), QN_OK);
    assert_int_equal(reply.status, 500);
    assert_string_equal(reply.body.ptr, "bang");
    assert_non_null(strstr(g_server.head, "POST /500 HTTP/1.1\r\n"));
    assert_non_null(strstr(g_server.head, "\r\nContent-Type: application/json\r\n"));
    assert_int_equal(g_server.n_body_bytes, 2);
    bench_http_free(&reply);
    bench_http_free(&reply);
}

static bool stops(void *context)
{
    (void)context;
    return false;
}

static void test_no_answer_names_the_url(void **state)
{
    (void)state;
    bench_target target = target_of(g_server.port);
    bench_reply reply = {0};
    qn_error err = {0};
    assert_int_equal(bench_http(&reply, &target, "/nothing", NULL, &err), QN_E_IO);
    assert_non_null(strstr(err.text, g_url));
    assert_non_null(strstr(err.text, "/nothing"));
    target.timeout_s = 0.05;
    assert_int_equal(bench_http(&reply, &target, "/hang", NULL, &err), QN_E_IO);
    assert_non_null(strstr(err.text, "/hang"));
    target.timeout_s = 60;
    target.goes_on = stops;
    assert_int_equal(bench_http(&reply, &target, "/hang", NULL, &err), QN_E_CANCELLED);
    assert_int_equal(bench_http(&reply, &target, "/endless", NULL, &err), QN_E_CANCELLED);
    target.goes_on = NULL;
    assert_int_equal(bench_http(&reply, &target, "/endless", NULL, &err), QN_E_IO);
    assert_non_null(strstr(err.text, "/endless: an answer of more than 64 MB"));
    target.base_url = "localhost:1";
    assert_int_equal(bench_http(&reply, &target, "/", NULL, &err), QN_E_INVAL);
    assert_non_null(strstr(err.text, "--base-url: 'localhost:1'"));
    bench_http_free(&reply);
}

static void test_questions_share_a_connection(void **state)
{
    (void)state;
    const bench_target target = target_of(g_server.port);
    bench_asker *asker = NULL;
    bench_reply reply = {0};
    const int n_before = g_server.n_connections;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(bench_http_kept(&asker, &reply, &target, "/text", "{}", NULL), QN_OK);
        assert_int_equal(bench_http_kept(&asker, &reply, &target, "/500", NULL, NULL), QN_OK);
        assert_int_equal(reply.status, 500);
        assert_non_null(strstr(g_server.head, "GET /500 HTTP/1.1\r\n"));
    }
    assert_int_equal(g_server.n_connections, n_before + 1);
    assert_int_equal(bench_http_kept(&asker, &reply, &target, "/nothing", NULL, NULL), QN_E_IO);
    assert_null(asker);
    bench_http_free(&reply);
}

static void test_parts_of_urls(void **state)
{
    (void)state;
    static const struct {
        const char *text, *host, *port, *clean;
    } cases[] = {
        {"http://a", "a", "80", "http://a"},
        {"https://a/", "a", "443", "https://a"},
        {"http://[::1]:8000/x/", "::1", "8000", "http://[::1]:8000/x"},
        {"http://me:p%40ss@a:1", "a", "1", "http://a:1"},
        {"HTTP://127.0.0.1:1", "127.0.0.1", "1", "http://127.0.0.1:1"},
    };
    bench_url url;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(bench_url_open(&url, cases[i].text, NULL), QN_OK);
        assert_string_equal(url.host, cases[i].host);
        assert_string_equal(url.port, cases[i].port);
        assert_string_equal(url.clean, cases[i].clean);
        bench_url_close(&url);
    }
    static const char *const wrong[] = {"",        "a",       "localhost:80",
                                        "ftp://a", "http://", "http://[::1"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(bench_url_open(&url, wrong[i], NULL), QN_E_INVAL);
    }
}

static void test_json_or_nothing(void **state)
{
    (void)state;
    const bench_target target = target_of(g_server.port);
    json_t *value = NULL;
    assert_int_equal(bench_http_json(&value, &target, "/json", NULL, NULL), QN_OK);
    assert_int_equal(json_integer_value(json_object_get(value, "a")), 1);
    json_decref(value);
    assert_int_equal(bench_http_json(&value, &target, "/text", NULL, NULL), QN_OK);
    assert_null(value);
    assert_int_equal(bench_http_json(&value, &target, "/429", "{}", NULL), QN_OK);
    assert_null(value);
    assert_int_equal(bench_http_json(&value, &target, "/nothing", NULL, NULL), QN_E_IO);
    assert_null(value);
}

static qn_status ask_once(qn_error *err)
{
    const bench_target target = target_of(g_child.port);
    json_t *value = NULL;
    const qn_status status = bench_http_json(&value, &target, "/json", "{}", err);
    json_decref(value);
    /* libcurl tells some as another failure */
    return status == QN_E_IO && g_n_failed > 0 ? QN_OK : status;
}

static void test_each_allocation_may_fail(void **state)
{
    (void)state;
    fail_each(ask_once, 1, 20);
}

static int set_up(void **state)
{
    (void)state;
    tiny_child_open(&g_child); /* before there are threads */
    tiny_open(&g_server);
    return curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    tiny_close(&g_server);
    tiny_child_close(&g_child);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_status_is_an_answer),
        cmocka_unit_test(test_no_answer_names_the_url),
        cmocka_unit_test(test_questions_share_a_connection),
        cmocka_unit_test(test_parts_of_urls),
        cmocka_unit_test(test_json_or_nothing),
        cmocka_unit_test(test_each_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

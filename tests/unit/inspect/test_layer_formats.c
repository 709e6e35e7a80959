/* SPDX-License-Identifier: Apache-2.0 */
/* layer_quant_config: which key means a module, as SGLang and ATOM look, and as vLLM does. */
#include "inspect/layer_formats.h"
#include "support/unit.h"

/* The dtype's first letter says it. */
static qn_storage storage_of(const qn_json_node *weight)
{
    return weight->text.ptr[1] == 'm'   ? QN_STORAGE_MXFP4
           : weight->text.ptr[1] == '8' ? QN_STORAGE_FP8
                                        : QN_STORAGE_OTHER;
}

static void open_text(qn_layer_formats *out, qn_json_doc *doc, const char *text)
{
    assert_int_equal(qn_json_doc_open(doc, qn_str_of(text), "test", NULL), QN_OK);
    assert_int_equal(qn_layer_formats_open(out, doc->nodes, storage_of, NULL), QN_OK);
}

static qn_storage find(const qn_layer_formats *formats, const char *name, bool by_substring)
{
    const qn_str text = qn_str_of(name);
    return qn_layer_formats_find(formats, &text, 1, by_substring);
}

static void test_the_first_key_wins_and_vllm_looks_for_the_name_in_the_key(void **state)
{
    (void)state;
    static const char text[] =
        "{\"model.layers.1.b\": {\"weight\": \"8\"}, \"*.b\": {\"weight\": \"m\"},"
        " \"model.layers.2.b\": {\"weight\": \"8\"}, \"model.layers.3.e.0.up\": {\"weight\": "
        "\"8\"},"
        " \"model.layers.3.e.*\": {\"weight\": \"m\"},"
        " \"x.language_model.layers.4.c\": {\"weight\": \"8\"},"
        " \"model.layers.[56].c\": {\"weight\": \"m\"}, \"model.layers.4\": {\"weight\": \"m\"}}";
    static const struct {
        const char *name;
        qn_storage equal, within; /* a part of the key */
    } cases[] = {
        {"model.layers.1.b", QN_STORAGE_FP8, QN_STORAGE_FP8},
        {"model.layers.2.b", QN_STORAGE_MXFP4, QN_STORAGE_MXFP4}, /* the glob stands before */
        {"model.layers.3.e.0.up", QN_STORAGE_FP8, QN_STORAGE_FP8},
        {"model.layers.3.e.1.up", QN_STORAGE_MXFP4, QN_STORAGE_MXFP4},
        {"model.layers.3.e", QN_STORAGE_NONE, QN_STORAGE_FP8},
        {"model.layers.4.c", QN_STORAGE_NONE, QN_STORAGE_FP8},
        {"model.layers.4.c.d", QN_STORAGE_NONE, QN_STORAGE_NONE}, /* the key in the name */
        {"model.layers.5.c", QN_STORAGE_MXFP4, QN_STORAGE_NONE},  /* no star: no glob of vLLM's */
        {"model.layers.9.c", QN_STORAGE_NONE, QN_STORAGE_NONE},
        {"", QN_STORAGE_NONE, QN_STORAGE_NONE},
    };
    qn_json_doc doc = {0};
    qn_layer_formats formats;
    open_text(&formats, &doc, text);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (find(&formats, cases[i].name, false) != cases[i].equal ||
            find(&formats, cases[i].name, true) != cases[i].within) {
            fail_msg("%s: another format than expected", cases[i].name);
        }
    }
    qn_layer_formats_close(&formats);
    qn_json_doc_close(&doc);
}

static void test_keys_are_without_limit_and_globs_are_counted(void **state)
{
    (void)state;
    enum { N = 2000 };
    qn_buf text;
    qn_json_doc doc = {0};
    qn_layer_formats formats;
    qn_buf_init(&text, 1 << 20);
    assert_int_equal(qn_buf_append(&text, "{", 1, NULL), QN_OK);
    for (int i = 0; i < N; i++) {
        assert_int_equal(qn_buf_append_printf(&text, NULL,
                                              "\"model.layers.%d.b\": {\"weight\": \"8\"},"
                                              "\"model.x.%d.*\": {\"weight\": \"m\"},",
                                              i, i),
                         QN_OK);
    }
    assert_int_equal(qn_buf_append_printf(&text, NULL, "\"\": {\"weight\": \"o\"}}"), QN_OK);
    open_text(&formats, &doc, text.ptr);
    assert_int_equal(find(&formats, "model.layers.1999.b", false), QN_STORAGE_FP8);
    assert_int_equal(find(&formats, "model.layers.1999", true), QN_STORAGE_FP8);
    assert_int_equal(find(&formats, "model.x.255.c", false), QN_STORAGE_MXFP4);
    assert_int_equal(find(&formats, "model.x.256.c", false), QN_STORAGE_NONE);
    assert_int_equal(formats.n_ignored, N - QN_EXCLUDE_PATTERNS_MAX);
    qn_layer_formats_close(&formats);
    qn_json_doc_close(&doc);
    qn_buf_deinit(&text);
}

/* Keys of many parts, which would take long to sort, are too long for a module's name. */
static void test_a_long_key_means_nothing_and_takes_no_time(void **state)
{
    (void)state;
    enum { N = 200000 };
    qn_buf text;
    qn_json_doc doc = {0};
    qn_layer_formats formats;
    qn_buf_init(&text, 1 << 22);
    assert_int_equal(qn_buf_append(&text, "{\"", 2, NULL), QN_OK);
    for (int i = 0; i < N; i++) {
        assert_int_equal(qn_buf_append(&text, "model.", 6, NULL), QN_OK);
    }
    assert_int_equal(qn_buf_append_printf(&text, NULL, "\": {\"weight\": \"8\"}}"), QN_OK);
    open_text(&formats, &doc, text.ptr);
    assert_int_equal(find(&formats, "model.model", true), QN_STORAGE_NONE);
    qn_layer_formats_close(&formats);
    qn_json_doc_close(&doc);
    qn_buf_deinit(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_first_key_wins_and_vllm_looks_for_the_name_in_the_key),
        cmocka_unit_test(test_keys_are_without_limit_and_globs_are_counted),
        cmocka_unit_test(test_a_long_key_means_nothing_and_takes_no_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Each allocation fails in turn: a status, no leak (the sanitizer's part), no half result. */
#include "fixture.h"
#include "support/fail_each.h"

static const qn_tokenizer *g_small;
static char *g_json;

static qn_status open_it(qn_error *err)
{
    qn_tokenizer *tokenizer = NULL;
    const qn_status status = qn_tokenizer_open(&tokenizer, qn_str_of(g_json), "F", err);
    assert_true((tokenizer != NULL) == (status == QN_OK));
    qn_tokenizer_close(&tokenizer);
    return status;
}

static qn_status encode_it(qn_error *err)
{
    qn_ids ids = {0};
    const qn_status status = qn_tokenizer_encode(
        g_small,
        qn_str_of("Some <x> words and xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
                  "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx 12345 1 2 3 4 5 6 7 8 9"),
        QN_ADDED_MATCH, &ids, err);
    qn_ids_deinit(&ids);
    return status;
}

static void test_open_survives_every_failed_allocation(void **state)
{
    (void)state;
    fail_each(open_it, 7, 2000);
}

static void test_encode_survives_every_failed_allocation(void **state)
{
    (void)state;
    fail_each(encode_it, 1, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open_survives_every_failed_allocation),
        cmocka_unit_test(test_encode_survives_every_failed_allocation),
    };
    qn_error err = {0};
    qn_tokenizer *small = NULL;
    json_t *root = load_small();
    set_at(root, "added_tokens", "[{\"id\": 902, \"content\": \"<x>\"}]");
    g_json = json_dumps(root, JSON_COMPACT);
    if (g_json == NULL || open_json(&small, root, &err) != QN_OK) {
        return 1;
    }
    g_small = small;
    const int n_failed = cmocka_run_group_tests(tests, NULL, NULL);
    qn_tokenizer_close(&small);
    free(g_json);
    return n_failed;
}

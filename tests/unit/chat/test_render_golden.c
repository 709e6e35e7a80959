/* SPDX-License-Identifier: Apache-2.0 */
/* Prompts id for id as Hugging Face makes them from the published template of GLM-5.2. */
#include "base/file.h"
#include "chat/chat.h"
#include "fixture.h"

#include <inttypes.h>

static const char path[] = QN_SOURCE_DIR "/tests/golden/chat/nano.json";

/* "[12,345]", as the file has them. */
static void print_ids(qn_buf *out, const qn_ids *ids)
{
    for (size_t i = 0; i < ids->n_ids; i++) {
        assert_int_equal(
            qn_buf_append_printf(out, NULL, "%s%" PRId32, i > 0 ? "," : "[", ids->ids[i]), QN_OK);
    }
    assert_int_equal(qn_buf_append(out, "]", 1, NULL), QN_OK);
}

static void check(const qn_json_node *conversation)
{
    const qn_chat_render_options options = {
        .format = QN_CHAT_GLM5_2,
        .no_thinking = qn_json_member(conversation, "no_thinking") != NULL,
        .is_effort_high = qn_json_member(conversation, "is_effort_high") != NULL,
        .keep_thinking = qn_json_member(conversation, "keep_thinking") != NULL,
    };
    qn_ids ids = {0};
    qn_buf text;
    qn_error err = {0};
    qn_buf_init(&text, 1 << 20);
    if (qn_chat_render(&ids, g_nano, qn_json_member(conversation, "messages"),
                       qn_json_member(conversation, "tools"), &options, &err) != QN_OK) {
        fail_msg("%.*s: %s", (int)conversation->text.len, conversation->text.ptr, err.text);
    }
    print_ids(&text, &ids);
    const qn_json_node *const expected = qn_json_member(conversation, "ids");
    if (!qn_str_equal(qn_buf_view(&text), expected->text)) {
        fail_msg("%.*s\nseen: %s", (int)conversation->text.len, conversation->text.ptr, text.ptr);
    }
    qn_buf_deinit(&text);
    qn_ids_deinit(&ids);
}

static void test_prompts_are_those_of_the_published_template(void **state)
{
    (void)state;
    qn_buf text;
    qn_json_doc doc;
    qn_error err = {0};
    qn_buf_init(&text, 4 << 20);
    assert_int_equal(qn_file_read(&text, path, &err), QN_OK);
    assert_int_equal(qn_json_doc_open(&doc, qn_buf_view(&text), path, &err), QN_OK);
    assert_int_equal(doc.nodes->n_children, 160);
    const qn_json_node *conversation = doc.nodes + 1;
    for (uint32_t i = 0; i < doc.nodes->n_children; i++) {
        check(conversation);
        conversation = qn_json_after(conversation);
    }
    qn_json_doc_close(&doc);
    qn_buf_deinit(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prompts_are_those_of_the_published_template),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Generated ids to text: parts, switches, whole characters. */
#include "chat/output.h"
#include "fixture.h"
#include "support/fail_alloc.h"

typedef struct record {
    char parts[2][512];
    size_t len[2];
    size_t n_pieces;
} record;

/* Every piece is some characters, whole ones. */
static void collect(void *context, qn_chat_part part, const char *text, size_t len)
{
    record *r = context;
    assert_true(len > 0 && r->len[part] + len < sizeof r->parts[part]);
    for (size_t at = 0; at < len;) {
        const size_t n = qn_utf8_len((const uint8_t *)text + at, len - at);
        assert_true(n > 0);
        at += n;
    }
    memcpy(r->parts[part] + r->len[part], text, len);
    r->len[part] += len;
    r->n_pieces++;
}

static int32_t id_of(const char *name)
{
    const int32_t id = qn_tokenizer_added_id(g_nano, qn_str_of(name));
    assert_true(id >= 0);
    return id;
}

/* The token of one byte. */
static int32_t id_of_byte(uint8_t byte)
{
    for (int32_t id = 0;; id++) {
        const qn_str bytes = qn_tokenizer_bytes(g_nano, id);
        assert_true(bytes.len > 0);
        if (bytes.len == 1 && (uint8_t)bytes.ptr[0] == byte) {
            return id;
        }
    }
}

static void feed(qn_chat_output *output, int32_t id)
{
    qn_error err = {0};
    assert_int_equal(qn_chat_output_feed(output, id, &err), QN_OK);
}

static void start(qn_chat_output *output, record *r, const int32_t *prompt, size_t n_prompt)
{
    *r = (record){0};
    qn_chat_output_init(output, g_nano, prompt, n_prompt, collect, r);
}

static void expect(qn_chat_output *output, const record *r, const char *reasoning,
                   const char *answer)
{
    qn_chat_output_end(output);
    assert_string_equal(r->parts[QN_CHAT_REASONING], reasoning);
    assert_string_equal(r->parts[QN_CHAT_ANSWER], answer);
    qn_chat_output_deinit(output);
}

static void test_the_prompt_says_where_the_answer_begins(void **state)
{
    (void)state;
    const int32_t think = id_of("<think>");
    const int32_t end = id_of("</think>");
    const struct {
        int32_t prompt[4];
        size_t n_prompt;
        qn_chat_part part;
    } cases[] = {
        {{0}, 0, QN_CHAT_ANSWER},
        {{5, 6}, 2, QN_CHAT_ANSWER},
        {{5, think}, 2, QN_CHAT_REASONING},
        {{think, end}, 2, QN_CHAT_ANSWER},
        {{think, end, 5, think}, 4, QN_CHAT_REASONING},
        {{think, 5, end, 5}, 4, QN_CHAT_ANSWER},
        {{think, 5, 6, 7}, 4, QN_CHAT_REASONING},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qn_chat_output output;
        record r;
        start(&output, &r, cases[i].prompt, cases[i].n_prompt);
        assert_int_equal(output.part, cases[i].part);
        feed(&output, id_of_byte('x'));
        const bool is_reasoning = cases[i].part == QN_CHAT_REASONING;
        expect(&output, &r, is_reasoning ? "x" : "", is_reasoning ? "" : "x");
    }
}

/* The first bytes as tokens of one byte, up to the next whole character; the rest encoded. */
static void feed_text(qn_chat_output *output, const char *text, size_t n_bytes)
{
    qn_ids rest = {0};
    qn_error err = {0};
    for (size_t i = 0; *text != '\0' && (i < n_bytes || ((uint8_t)*text & 0xc0) == 0x80); i++) {
        feed(output, id_of_byte((uint8_t)*text++));
    }
    assert_int_equal(qn_tokenizer_encode(g_nano, qn_str_of(text), QN_ADDED_AS_TEXT, &rest, &err),
                     QN_OK);
    for (size_t i = 0; i < rest.n_ids; i++) {
        feed(output, rest.ids[i]);
    }
    qn_ids_deinit(&rest);
}

static void test_any_cut_into_tokens_gives_the_same_parts(void **state)
{
    (void)state;
    static const char reasoning[] = "Let me see: 東京 → 😀\n";
    static const char answer[] = " It is é̂ 👩‍💻.";
    const int32_t prompt = id_of("<think>");
    for (size_t n_bytes = 0; n_bytes <= sizeof reasoning; n_bytes++) {
        qn_chat_output output;
        record r;
        start(&output, &r, &prompt, 1);
        feed_text(&output, reasoning, n_bytes);
        feed(&output, id_of("</think>"));
        const uint64_t n_reasoning = output.n_reasoning;
        feed_text(&output, answer, n_bytes);
        feed(&output, id_of("<|user|>"));
        assert_true(n_reasoning >= 2 && output.n_reasoning == n_reasoning);
        expect(&output, &r, reasoning, answer);
    }
}

static void test_switches_and_special_tokens_print_nothing(void **state)
{
    (void)state;
    qn_chat_output output;
    record r;
    start(&output, &r, NULL, 0);
    feed(&output, id_of("<think>"));
    feed(&output, id_of_byte('a'));
    feed(&output, id_of("</think>"));
    feed(&output, id_of("<|endoftext|>"));
    feed(&output, id_of("<|observation|>"));
    feed(&output, id_of_byte('b'));
    feed(&output, -1);
    feed(&output, INT32_MAX);
    assert_int_equal(output.n_reasoning, 2);
    assert_int_equal(r.n_pieces, 2);
    expect(&output, &r, "a", "b");
}

/* Half a character at a switch or at the end is U+FFFD in the part it began in. */
static void test_half_a_character_does_not_cross_a_border(void **state)
{
    (void)state;
    const int32_t prompt = id_of("<think>");
    qn_chat_output output;
    record r;
    start(&output, &r, &prompt, 1);
    feed(&output, id_of_byte(0xe6));
    feed(&output, id_of_byte(0x9d));
    assert_int_equal(r.n_pieces, 0);
    feed(&output, id_of("</think>"));
    feed(&output, id_of_byte(0xb1));
    feed(&output, id_of_byte(0xf0));
    expect(&output, &r, "\xef\xbf\xbd", "\xef\xbf\xbd\xef\xbf\xbd");
}

static void test_without_a_tokenizer_ids_are_printed(void **state)
{
    (void)state;
    qn_chat_output output;
    record r = {0};
    qn_chat_output_init(&output, NULL, NULL, 0, collect, &r);
    feed(&output, 0);
    feed(&output, 154842);
    expect(&output, &r, "", "<0><154842>");
}

static void test_no_memory_for_a_piece_is_a_status(void **state)
{
    (void)state;
#ifdef QN_CANNOT_FAIL_ALLOCATIONS
    skip();
#endif
    qn_chat_output output;
    qn_error err = {0};
    record r;
    start(&output, &r, NULL, 0);
    const int32_t id = id_of_byte('x');
    g_allocations_left = 0;
    const qn_status status = qn_chat_output_feed(&output, id, &err);
    g_allocations_left = SIZE_MAX;
    assert_int_equal(status, QN_E_NOMEM);
    feed(&output, id); /* and it goes on */
    expect(&output, &r, "", "x");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_prompt_says_where_the_answer_begins),
        cmocka_unit_test(test_any_cut_into_tokens_gives_the_same_parts),
        cmocka_unit_test(test_switches_and_special_tokens_print_nothing),
        cmocka_unit_test(test_half_a_character_does_not_cross_a_border),
        cmocka_unit_test(test_without_a_tokenizer_ids_are_printed),
        cmocka_unit_test(test_no_memory_for_a_piece_is_a_status),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Stop texts: found wherever the answer is cut, and nothing of them printed. */
#include "chat/stops.h"
#include "support/fail_alloc.h"
#include "support/unit.h"

typedef struct answer {
    char text[4096];
    size_t len;
    bool is_stopped;
} answer;

static void add(answer *a, qn_str piece)
{
    assert_true(a->len + piece.len < sizeof a->text);
    for (size_t at = 0; at < piece.len;) { /* whole characters */
        const size_t n = qn_utf8_len((const uint8_t *)piece.ptr + at, piece.len - at);
        assert_true(n > 0);
        at += n;
    }
    if (piece.len > 0) {
        memcpy(a->text + a->len, piece.ptr, piece.len);
    }
    a->len += piece.len;
    a->text[a->len] = '\0';
}

/* One piece; nothing is fed behind a stop text. */
static void feed(qn_chat_stops *stops, answer *a, qn_str piece)
{
    qn_str out[2];
    if (!a->is_stopped) {
        a->is_stopped = qn_chat_stops_feed(stops, piece, out);
        add(a, out[0]);
        add(a, out[1]);
    }
}

/* The definition: the first byte at which a stop text is complete, and the longest of those. */
static answer define(qn_str text, const char *const *stops, size_t n_stops)
{
    answer a = {.len = text.len};
    for (size_t end = 1; end <= text.len && !a.is_stopped; end++) {
        for (size_t i = 0; i < n_stops; i++) {
            const size_t len = strlen(stops[i]);
            if (len <= end && memcmp(text.ptr + end - len, stops[i], len) == 0) {
                a.is_stopped = true;
                a.len = end - len < a.len ? end - len : a.len;
            }
        }
    }
    memcpy(a.text, text.ptr, a.len);
    return a;
}

static bool is_border(qn_str text, size_t at)
{
    return at == text.len || ((uint8_t)text.ptr[at] & 0xc0) != 0x80;
}

/* Each pair of cuts between characters, then one character at a time. */
static void check(qn_str text, const char *const *texts, size_t n_texts)
{
    static qn_chat_stops fresh;
    static qn_chat_stops stops;
    const answer expected = define(text, texts, n_texts);
    qn_error err = {0};
    assert_int_equal(qn_chat_stops_init(&fresh, texts, n_texts, &err), QN_OK);
    for (size_t first = 0; first <= text.len; first++) {
        for (size_t second = first; second <= text.len; second++) {
            answer a = {0};
            if (!is_border(text, first) || !is_border(text, second)) {
                continue;
            }
            stops = fresh;
            feed(&stops, &a, (qn_str){text.ptr, first});
            feed(&stops, &a, (qn_str){text.ptr + first, second - first});
            feed(&stops, &a, (qn_str){text.ptr + second, text.len - second});
            add(&a, qn_chat_stops_end(&stops));
            assert_int_equal(a.is_stopped, expected.is_stopped);
            assert_string_equal(a.text, expected.text);
        }
    }
    answer a = {0};
    stops = fresh;
    for (size_t at = 0, n = 1; at < text.len; at += n, n = 1) {
        while (!is_border(text, at + n)) {
            n++;
        }
        feed(&stops, &a, (qn_str){text.ptr + at, n});
    }
    add(&a, qn_chat_stops_end(&stops));
    assert_int_equal(a.is_stopped, expected.is_stopped);
    assert_string_equal(a.text, expected.text);
}

static void test_every_text_over_two_letters_is_cut_as_defined(void **state)
{
    (void)state;
    static const char *const sets[][3] = {
        {"aab", "ab", "bbb"},
        {"abab", "bab", "ba"},
        {"aaaa", "aaab", "b"},
        {"abaabab", "aabb", "bba"},
    };
    char text[8];
    for (uint32_t bits = 0; bits < 256; bits++) {
        for (uint32_t i = 0; i < sizeof text; i++) {
            text[i] = (bits >> i & 1U) != 0 ? 'b' : 'a';
        }
        for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
            for (size_t n = 0; n <= 3; n++) {
                check((qn_str){text, sizeof text}, sets[i], n);
            }
        }
    }
}

static void test_characters_stay_whole_around_a_stop_text(void **state)
{
    (void)state;
    static const char *const stops[] = {"東京", "京都", "\n\nUser:", "é"};
    static const char *const texts[] = {"東西東東京京都", "東北\n\nUse 京", "x\n\n\nUser:é", "€é",
                                        "東"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        check(qn_str_of(texts[i]), stops, 4);
    }
}

static void test_what_cannot_begin_a_stop_text_comes_at_once(void **state)
{
    (void)state;
    static const char *const texts[] = {"abcabd", "bx"};
    qn_chat_stops stops;
    qn_error err = {0};
    answer a = {0};
    assert_int_equal(qn_chat_stops_init(&stops, texts, 2, &err), QN_OK);
    feed(&stops, &a, qn_str_of("xxab"));
    assert_string_equal(a.text, "xx"); /* "ab" could be the first text's */
    feed(&stops, &a, qn_str_of("cab"));
    assert_string_equal(a.text, "xx");
    feed(&stops, &a, qn_str_of("c"));
    assert_string_equal(a.text, "xxabc"); /* "abc" is held */
    feed(&stops, &a, qn_str_of("x"));
    assert_string_equal(a.text, "xxabcabcx");
    assert_int_equal(qn_chat_stops_end(&stops).len, 0);
}

static void test_sixteen_texts_of_the_longest_size_need_no_allocation(void **state)
{
    (void)state;
#ifdef QN_CANNOT_FAIL_ALLOCATIONS
    skip();
#endif
    static char longest[QN_STOPS_MAX][QN_STOP_BYTES_MAX + 1];
    const char *texts[QN_STOPS_MAX];
    static qn_chat_stops stops;
    qn_error err = {0};
    answer a = {0};
    for (size_t i = 0; i < QN_STOPS_MAX; i++) {
        memset(longest[i], 'a', QN_STOP_BYTES_MAX);
        longest[i][QN_STOP_BYTES_MAX - 1] = (char)('b' + i);
        texts[i] = longest[i];
    }
    g_n_failed = 0;
    g_allocations_left = 0;
    assert_int_equal(qn_chat_stops_init(&stops, texts, QN_STOPS_MAX, &err), QN_OK);
    for (size_t i = 0; i < 2000; i++) {
        feed(&stops, &a, qn_str_of("a"));
    }
    feed(&stops, &a, qn_str_of("qr"));
    g_allocations_left = SIZE_MAX;
    assert_int_equal(g_n_failed, 0);
    assert_true(a.is_stopped);
    assert_int_equal(a.len, 2000 - (QN_STOP_BYTES_MAX - 1));
    assert_int_equal(qn_chat_stops_end(&stops).len, 0);
}

static void test_a_bad_stop_text_is_named(void **state)
{
    (void)state;
    static char longer[QN_STOP_BYTES_MAX + 2];
    memset(longer, 'x', QN_STOP_BYTES_MAX + 1);
    const struct {
        const char *text;
        const char *expected;
    } cases[] = {
        {"", "stop text 1 (--stop): 0 bytes, 1 to 1024 expected"},
        {longer, "stop text 1 (--stop): 1025 bytes, 1 to 1024 expected"},
        {"a\xe6\x9d", "stop text 1 (--stop): a broken character, UTF-8 expected"},
    };
    qn_chat_stops stops;
    qn_error err = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *const texts[] = {"good", cases[i].text};
        assert_int_equal(qn_chat_stops_init(&stops, texts, 2, &err), QN_E_INVAL);
        assert_string_equal(err.text, cases[i].expected);
    }
    const char *const many[QN_STOPS_MAX + 1] = {0};
    assert_int_equal(qn_chat_stops_init(&stops, many, QN_STOPS_MAX + 1, &err), QN_E_INVAL);
    assert_string_equal(err.text, "stop texts: 17, at most 16 expected");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_text_over_two_letters_is_cut_as_defined),
        cmocka_unit_test(test_characters_stay_whole_around_a_stop_text),
        cmocka_unit_test(test_what_cannot_begin_a_stop_text_comes_at_once),
        cmocka_unit_test(test_sixteen_texts_of_the_longest_size_need_no_allocation),
        cmocka_unit_test(test_a_bad_stop_text_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

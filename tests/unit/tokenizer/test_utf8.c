/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes to whole characters, cut anywhere, as Python's bytes.decode("utf-8", "replace"). */
#include "support/unit.h"
#include "tokenizer/tokenizer.h"

#define R "\xef\xbf\xbd"

typedef struct sample {
    const char *bytes;
    const char *expected; /* what Python makes of them */
} sample;

static const sample samples[] = {
    {"", ""},
    {"plain", "plain"},
    {"\xc3\xa9\xe6\x9d\xb1\xf0\x9f\x98\x80", "\xc3\xa9\xe6\x9d\xb1\xf0\x9f\x98\x80"},
    {"\x80\xbf", R R},
    {"\xc0\xaf\xc1\x81", R R R R},
    {"\xc3", R},
    {"\xc3(", R "("},
    {"\xe2\x82", R},
    {"\xe2\x82z", R "z"},
    {"\xe2(\xa1", R "(" R},
    {"\xe0\x80\x80", R R R},
    {"\xe0\xa0\x80", "\xe0\xa0\x80"},
    {"\xed\x9f\xbf\xed\xa0\x80", "\xed\x9f\xbf" R R R},
    {"\xee\x80\x80", "\xee\x80\x80"},
    {"\xf0\x9f\x98", R},
    {"\xf0\x9f\x98\xf0\x9f\x98\x80", R "\xf0\x9f\x98\x80"},
    {"\xf0\x8f\xbf\xbf", R R R R},
    {"\xf4\x8f\xbf\xbf\xf4\x90\x80\x80", "\xf4\x8f\xbf\xbf" R R R R},
    {"\xf5\x80\xf8\x88\xff", R R R R R},
    {"\xe4\xb8\xe4\xb8\xad", R "\xe4\xb8\xad"},
};

static void expect_cut(const sample *s, size_t first, size_t second)
{
    char out[256];
    qn_utf8_stream stream = {0};
    const size_t len = strlen(s->bytes);
    size_t n = qn_utf8_stream_feed(&stream, s->bytes, first, out);
    n += qn_utf8_stream_feed(&stream, s->bytes + first, second - first, out + n);
    n += qn_utf8_stream_feed(&stream, s->bytes + second, len - second, out + n);
    n += qn_utf8_stream_end(&stream, out + n);
    assert_int_equal(stream.n_held, 0);
    assert_int_equal(n, strlen(s->expected));
    assert_memory_equal(out, s->expected, n);
}

static void test_any_cut_gives_what_python_gives(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof samples / sizeof *samples; i++) {
        const size_t len = strlen(samples[i].bytes);
        for (size_t first = 0; first <= len; first++) {
            for (size_t second = first; second <= len; second++) {
                expect_cut(&samples[i], first, second);
            }
        }
    }
}

static void test_only_whole_characters_are_written(void **state)
{
    (void)state;
    char out[32];
    qn_utf8_stream stream = {0};
    assert_int_equal(qn_utf8_stream_feed(&stream, "\xf0\x9f\x98", 3, out), 0);
    assert_int_equal(stream.n_held, 3);
    assert_int_equal(qn_utf8_stream_feed(&stream, "\x80", 1, out), 4);
    assert_memory_equal(out, "\xf0\x9f\x98\x80", 4);
    assert_int_equal(qn_utf8_stream_end(&stream, out), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_cut_gives_what_python_gives),
        cmocka_unit_test(test_only_whole_characters_are_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

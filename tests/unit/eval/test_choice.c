/* SPDX-License-Identifier: Apache-2.0 */
/* Replies to a question with choices, as models write them. */
#include "eval/choice.h"
#include "support/fail_each.h"

#include <stdio.h>
#include <stdlib.h>

enum { TO_D = 0xf }; /* A to D */

typedef struct example {
    const char *text;
    char letter; /* 0: none */
} example;

static void expect(const example *examples, size_t n, uint32_t letters)
{
    for (size_t i = 0; i < n; i++) {
        const int seen = qn_choice_of(qn_str_of(examples[i].text), letters);
        if (seen != examples[i].letter) {
            fail_msg("\"%s\": %c, %c expected", examples[i].text, seen != 0 ? seen : '-',
                     examples[i].letter != 0 ? examples[i].letter : '-');
        }
    }
}

#define EXPECT(examples, letters) expect(examples, sizeof(examples) / sizeof *(examples), letters)

/* These go by the words alone, whether or not the letters are known. */
static void test_what_is_called_the_answer_counts_most(void **state)
{
    (void)state;
    static const example examples[] = {
        {"(B) is the correct answer. A common mistake is to forget the sign.", 'B'},
        {"**B** is the right answer.\n\nI checked it twice.", 'B'},
        {"The answer is B.\n\nIn this answer I used the chain rule.", 'B'},
        {"The correct answer is (B). I hope this answer A helps", 'B'},
        {"Answer: B\n\nNote: an answer \"A\" would need x>0.", 'B'},
        {"The answer is (B), 42.\n\nThe answer: I am confident.", 'B'},
        {"B is the correct answer. A is not.", 'B'},
        {"The correct choice is B because C is too small", 'B'},
        {"A is wrong. B is right. C is wrong.", 'B'},
        {"(b)", 'B'},
        {"The answer is (b).", 'B'},
        {"_B_", 'B'},
        {"The answer is 'B'", 'B'},
        {"B is clearly the best option, since A isn't.", 'B'},
        {"It is B. A isn\xe2\x80\x99t it.", 'B'},
        {"The best option would be: C", 'C'},
        {"The answer must be D", 'D'},
        {"The answer is A because it is the largest.", 'A'},
        {"The answer is A as C is not.", 'A'},
        {"A is correct.", 'A'},
        {"Answer B. (A) and (D) are too small.", 'B'},
        {"## Answer B\n\n(A) has no root.", 'B'},
        {"Final answer:\n\n$$\\boxed{C}$$", 'C'},
        {"Answer = D", 'D'},
        {"The answer is not A but (C)", 'C'},
        {"Option A: too small\nOption B: right\nSo the answer is B\nOption C: too large", 'B'},
        {"I pick (C): (a) x grows, (b) y shrinks.", 'C'},
        {"It is (B), (A) is not.", 'B'},
        {"(A) is wrong", 0},
        {"A is wrong", 0},
        {"The answer: I think that f(b) is", 0},
        {"The answer: A dog", 0},
        {"I think so", 0},
        {"", 0},
        {"___'", 0},
    };
    EXPECT(examples, TO_D);
    EXPECT(examples, 0);
}

static void test_only_letters_that_the_question_offers_count(void **state)
{
    (void)state;
    static const example examples[] = {
        {"It is B, said I", 'B'},
        {"Vitamin C or E? The answer is E", 'C'},
        {"(B), since f is in (X)", 'B'},
        {"X", 0},
        {"(i) B", 'B'},
    };
    EXPECT(examples, TO_D);
    static const example open[] = {{"X", 'X'}, {"The answer is E", 'E'}};
    EXPECT(open, 0);
}

static void test_letters_are_those_that_lines_begin_with(void **state)
{
    (void)state;
    static const struct {
        const char *question;
        uint32_t letters;
    } examples[] = {
        {"Which?\n\n(A) 84\n(B) 39\n(C) 173\n(D) 2", TO_D},
        {"Which?\nA. 84\n  B. 39\r\n", 3},
        {"A) 1\nB) 2\nC) 3", 7},
        {"**A**: 1", 0},
        {"A: 1\nB: 2", 3},
        {"(A) 1", 0},
        {"(B) 1\n(C) 2", 0},
        {"(A) 1\n(C) 2", 0},
        {"Which of (A) and (B)?", 0},
        {"A", 0},
        {"", 0},
    };
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) {
        assert_int_equal(qn_choices_offered(qn_str_of(examples[i].question)), examples[i].letters);
    }
    assert_int_equal(qn_choices_offered((qn_str){0}), 0);
    assert_int_equal(qn_choice_of((qn_str){0}, 0), 0);
}

/* A model that repeats itself for 4 MB must not cost minutes. */
static void test_time_is_linear(void **state)
{
    (void)state;
    enum { N_BYTES = 1 << 22 };
    static const char word[] = "option ";
    char *const text = malloc(N_BYTES);
    assert_non_null(text);
    for (size_t i = 0; i < N_BYTES; i++) {
        text[i] = word[i % (sizeof word - 1)];
    }
    assert_int_equal(qn_choice_of((qn_str){text, N_BYTES}, 0), 0);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_called_the_answer_counts_most),
        cmocka_unit_test(test_only_letters_that_the_question_offers_count),
        cmocka_unit_test(test_letters_are_those_that_lines_begin_with),
        cmocka_unit_test(test_time_is_linear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

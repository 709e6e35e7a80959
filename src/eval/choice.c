/* SPDX-License-Identifier: Apache-2.0 */
#include "eval/choice.h"

#include <strings.h>

/* --------------------------------------------------------------------------------------- words */

static bool is_one_of(char c, const char *characters)
{
    return c != '\0' && strchr(characters, c) != NULL;
}

/* Part of a word?  Bytes of letters beyond ASCII are. */
static bool is_of_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c & 0x80) != 0 || c == '_' || c == '\'';
}

/* Inside a word these belong to it, at its ends they are marks: _B_, 'B'. */
static bool is_edge(char c)
{
    return c == '_' || c == '\'';
}

/* The next word from *at on, empty at the end; *at moves behind it. */
static qn_str next_word(const char **at, const char *end)
{
    while (*at < end && (!is_of_word(**at) || is_edge(**at))) {
        ++*at;
    }
    qn_str word = {.ptr = *at};
    while (*at < end && is_of_word(**at)) {
        ++*at;
    }
    word.len = (size_t)(*at - word.ptr);
    while (word.len > 0 && is_edge(word.ptr[word.len - 1])) {
        word.len--;
    }
    return word;
}

/* Is it one of the words of a list that ends in NULL, whatever the case? */
static bool is_any(qn_str word, const char *const *words)
{
    while (*words != NULL &&
           (strlen(*words) != word.len || strncasecmp(word.ptr, *words, word.len) != 0)) {
        words++;
    }
    return *words != NULL;
}

static const char *const leads[] = {"answer", "choice", "option", NULL};
static const char *const verbs[] = {"is", "be", NULL};
static const char *const rights[] = {"correct", "right",  "best", "answer",
                                     "choice",  "option", NULL};
static const char *const wrongs[] = {"not", "wrong", "incorrect", "false", "never", NULL};
static const char *const reasons[] = {"because", "since", "as", NULL};
/* May stand between "answer" and its letter: "The answer is therefore option \boxed{\text{B}}", and
 * before a verdict: "B is clearly the right one". */
static const char *const fillers[] = {
    "is",       "be",     "the",   "correct", "right",     "best",   "final",  "option",
    "choice",   "letter", "boxed", "text",    "mathrm",    "mathbf", "textbf", "thus",
    "hence",    "so",     "then",  "indeed",  "therefore", "would",  "must",   "should",
    "probably", "likely", "most",  "clearly", "only",      NULL};

/* Does what stands between two words keep them in one sentence?  Behind a colon it may go on on
 * another line. */
static bool keeps_on(const char *from, const char *to, bool *has_colon)
{
    *has_colon = false;
    for (; from < to; from++) {
        *has_colon = *has_colon || is_one_of(*from, ":=");
        if (is_one_of(*from, ".!?;") || (*from == '\n' && !*has_colon)) {
            return false;
        }
    }
    return true;
}

/* ------------------------------------------------------------------------------------- letters */

/* "(B)", "**B**", "{B}": a letter that something encloses. */
static bool is_enclosed(qn_str text, const char *letter)
{
    return letter > text.ptr && letter + 1 < text.ptr + text.len &&
           is_one_of(letter[-1], "([{*_") && is_one_of(letter[1], ")]}*_");
}

/* "(b)" where it is no argument, as in f(b). */
static bool is_lower(qn_str text, const char *letter)
{
    return *letter >= 'a' && *letter <= 'z' && is_enclosed(text, letter) && letter[-1] == '(' &&
           letter[1] == ')' && (letter - text.ptr < 2 || !is_of_word(letter[-2]));
}

/* The letter A to Z that a word is; 0: it is none, or none of @p letters. */
static int letter_of(qn_str text, qn_str word, uint32_t letters)
{
    if (word.len != 1) {
        return 0;
    }
    const int c = is_lower(text, word.ptr) ? *word.ptr - 'a' + 'A' : *word.ptr;
    const bool is_letter = c >= 'A' && c <= 'Z';
    return is_letter && (letters == 0 || (letters >> (c - 'A') & 1) != 0) ? c : 0;
}

/* "B", "B. Because", "B) 42": the text begins with its letter. */
static bool is_label(qn_str text, qn_str word)
{
    const char *const behind = word.ptr + word.len;
    return word.ptr == text.ptr && (behind == text.ptr + text.len || is_one_of(*behind, ".):,\n"));
}

/* "A" is an article too, and "I" a pronoun: not where a word follows that gives no reason. */
static bool is_article(qn_str text, qn_str word)
{
    const char *const end = text.ptr + text.len;
    const char *at = word.ptr + word.len;
    if ((*word.ptr != 'A' && *word.ptr != 'I') || end - at < 2 || *at != ' ' ||
        !is_of_word(at[1])) {
        return false;
    }
    return !is_any(next_word(&at, end), reasons);
}

/* What follows a letter: 1 "is (the) right", -1 "is not", "is wrong"; 0 neither. */
static int verdict(const char *at, const char *end)
{
    static const char *const negations[] = {"isn't", "isn\xe2\x80\x99t", NULL};
    bool has_verb = false;
    for (;;) {
        bool has_colon = false;
        const char *const from = at;
        const qn_str word = next_word(&at, end);
        if (word.len == 0 || !keeps_on(from, word.ptr, &has_colon) || has_colon) {
            return 0;
        }
        if (!has_verb) {
            has_verb = is_any(word, verbs);
            if (!has_verb) {
                return is_any(word, negations) ? -1 : 0;
            }
        } else if (is_any(word, rights)) {
            return 1;
        } else if (!is_any(word, fillers)) {
            return is_any(word, wrongs) ? -1 : 0;
        }
    }
}

/* Some of them lead to a letter themselves: all of a text is not searched again for each. */
enum { WORDS_BETWEEN_MAX = 16 };

/* Does the word that begins at @p at begin a line, but for marks? */
static bool begins_line(qn_str text, const char *at)
{
    while (at > text.ptr && is_one_of(at[-1], " \t*_#>")) {
        at--;
    }
    return at == text.ptr || at[-1] == '\n';
}

/* The letter that a lead, such as "answer", leads to by a verb or a colon, or where it begins the
 * line; 0: none. */
static int answer_at(qn_str text, qn_str lead, uint32_t letters)
{
    const char *const end = text.ptr + text.len;
    const char *at = lead.ptr + lead.len;
    static const char *const answer[] = {"answer", NULL};
    bool is_linked = is_any(lead, answer) && begins_line(text, lead.ptr);
    bool is_behind_filler = false;
    for (int i = 0; i < WORDS_BETWEEN_MAX; i++) {
        bool has_colon = false;
        const char *const from = at;
        const qn_str word = next_word(&at, end);
        if (word.len == 0 || !keeps_on(from, word.ptr, &has_colon)) {
            return 0;
        }
        is_linked = is_linked || has_colon || is_any(word, verbs);
        if (is_any(word, fillers)) {
            is_behind_filler = true;
            continue;
        }
        const bool may_be_article = has_colon || !is_behind_filler || *word.ptr == 'I';
        const int letter = letter_of(text, word, letters);
        return letter != 0 && is_linked && verdict(at, end) >= 0 &&
                       !(may_be_article && is_article(text, word))
                   ? letter
                   : 0;
    }
    return 0;
}

/* --------------------------------------------------------------------------------------- texts */

/* What counts more comes first. */
enum { ANSWER, ENCLOSED, LABEL, LOWER, ALONE, N_RANKS };

/* How much a letter counts that stands in a text; N_RANKS: nothing. */
static int rank_of(qn_str text, qn_str word)
{
    const int said = verdict(word.ptr + 1, text.ptr + text.len);
    if (said != 0) {
        return said > 0 ? ANSWER : N_RANKS;
    }
    if (*word.ptr >= 'a') {
        return LOWER;
    }
    if (is_enclosed(text, word.ptr)) {
        return ENCLOSED;
    }
    if (is_label(text, word)) {
        return LABEL;
    }
    return is_article(text, word) ? N_RANKS : ALONE;
}

int qn_choice_of(qn_str text, uint32_t letters)
{
    int found[N_RANKS + 1] = {0};
    text = text.len > 0 ? text : qn_str_of("");
    while (text.len > 0 && is_one_of(*text.ptr, " \t\r\n\v\f")) { /* a label begins the text */
        text = (qn_str){.ptr = text.ptr + 1, .len = text.len - 1};
    }
    const char *at = text.ptr;
    for (qn_str word; (word = next_word(&at, text.ptr + text.len)).len > 0;) {
        const bool is_lead = is_any(word, leads);
        const int letter =
            is_lead ? answer_at(text, word, letters) : letter_of(text, word, letters);
        if (letter != 0) {
            found[is_lead ? ANSWER : rank_of(text, word)] = letter;
        }
    }
    for (int i = 0; i < N_RANKS; i++) {
        if (found[i] != 0) {
            return found[i];
        }
    }
    return 0;
}

uint32_t qn_choices_offered(qn_str question)
{
    uint32_t letters = 0;
    const char *at = question.len > 0 ? question.ptr : "";
    const char *const end = at + question.len;
    while (at < end) {
        const char *const newline = memchr(at, '\n', (size_t)(end - at));
        const char *const line_end = newline != NULL ? newline : end;
        while (at < line_end && is_one_of(*at, " \t*(")) {
            at++;
        }
        if (line_end - at > 1 && *at >= 'A' && *at <= 'Z' && is_one_of(at[1], ").:")) {
            letters |= 1U << (*at - 'A');
        }
        at = line_end < end ? line_end + 1 : end;
    }
    /* All from A on: one more than a power of two has no bit of it. */
    return (letters & (letters + 1)) == 0 && letters > 1 ? letters : 0;
}

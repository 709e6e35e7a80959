/* SPDX-License-Identifier: Apache-2.0 */
#include "words.h"

#include "base/assert.h"
#include "base/rng.h"
#include "base/try.h"

#include <errno.h>
#include <stdlib.h>

/* Classes of words, each a run of the list below. */
enum { NOUN, ADJECTIVE, VERB, PLACE, LITERAL, N_CLASSES };

/* The first N_FIRST nouns may begin a prompt. */
enum { N_FIRST = 64, WORD_BYTES_MAX = 16, SENTENCE_WORDS_MAX = 24, N_WORDS_MAX = 640 };

/* Nouns first, the commonest of them at their beginning. */
static const char *const classes[N_CLASSES] = {
    [NOUN] =
        "water time people house world day life man school work light name king state night book "
        "family land food children power tree body ship story town city bird heart river voice "
        "stone morning road earth horse field sea letter word law money church mother father "
        "woman fire air room hand door war country friend island music number line table "
        "place point side part order paper "
        "garden summer winter window village mountain valley forest bridge market harbour castle "
        "tower kitchen cellar attic corner street square station railway engine wheel wagon "
        "carriage saddle ladder hammer needle thread button ribbon basket bottle barrel bucket "
        "kettle candle lantern mirror curtain carpet blanket pillow cradle cupboard drawer shelf "
        "desk chair bench stool floor ceiling roof chimney wall fence gate path meadow orchard "
        "vineyard barn stable mill farm well pond lake stream coast beach cliff cave desert "
        "canyon glacier storm thunder rain snow wind cloud shadow sunset dawn evening season "
        "spring autumn harvest apple cherry lemon pepper sugar butter cheese honey bread flour "
        "grain corn rice onion carrot pumpkin mushroom berry flower rose lily tulip daisy clover "
        "grass moss fern oak maple willow cedar birch eagle raven swan goose falcon sparrow robin "
        "wolf fox bear deer rabbit otter badger beaver turtle salmon trout whale dolphin oyster "
        "spider beetle cricket doctor teacher farmer sailor captain soldier baker tailor painter "
        "singer poet writer lawyer judge sheriff banker merchant miller shepherd hunter gardener "
        "neighbour stranger cousin uncle brother sister daughter nephew pilot guest servant clerk",
    [ADJECTIVE] =
        "old new little great good young long small white black red green blue high dark cold "
        "warm deep early late quiet heavy strong narrow broad empty hidden ancient modern gentle "
        "bright pale golden silver wooden iron distant foreign famous secret simple clever careful "
        "patient honest proud humble silent cheerful lonely hungry thirsty tired sleepy busy idle "
        "rapid steady sudden gradual solid fragile hollow crooked straight smooth rough sharp "
        "blunt damp dusty muddy frozen faded painted broken polished ordinary curious peculiar",
    [VERB] =
        "found made saw left took gave told heard kept knew held met brought built carried "
        "followed watched reached passed crossed opened closed covered filled moved turned pulled "
        "pushed lifted dropped counted measured painted cleaned repaired visited admired praised "
        "feared trusted helped guarded protected defended noticed described remembered forgot "
        "ignored avoided welcomed invited borrowed returned offered refused promised ordered "
        "bought sold traded collected gathered planted watered chased caught hid",
    [PLACE] = "near behind beside under above before after beyond within across around below",
    [LITERAL] = "the and every one some while because when although until that this each another",
};

/* Capitals stand for a word of a class; each ends in a noun, so that more nouns may follow. */
static const char *const patterns[] = {
    "the A N V the N L the A N",
    "every N L the N V one A N",
    "one A N V the N and the A N",
    "some A N and the N L the N V another N",
    "the N V the A N because the N V the N",
    "while the N V the A N the N V one N L the N",
    "this N V each A N L the N",
    "when the A N V the N some N V the A N",
    "although the N L the A N V the N the N V this A N",
    "another N V the N until the A N V one N",
    "each N L the A N V that N and the N",
    "the A N and the A N V the N that the N V",
};
enum { N_PATTERNS = sizeof patterns / sizeof *patterns };

/* What begins a text: nouns of which the first two tell texts apart. */
static const char opening[] = "N, N, N and N V the A N L the N";

typedef struct word {
    uint8_t len;
    char text[WORD_BYTES_MAX]; /* " word": the blank before it counts with it */
    uint32_t n_tokens;
    uint32_t n_capital; /* as " Word" */
    uint32_t n_first;   /* as "Word", at the very beginning: of the first N_FIRST alone */
} word;

/* Places in the list. */
typedef struct selection {
    uint32_t places[N_WORDS_MAX];
    uint32_t n;
} selection;

struct bench_words {
    word list[N_WORDS_MAX];
    uint32_t n_words;
    uint32_t begin[N_CLASSES + 1]; /* of each class in the list */
    selection short_nouns;         /* of one token */
    selection short_capitals;      /* of one token as " Word" */
    selection short_firsts;        /* and as "Word" */
    uint32_t n_stop, n_comma;      /* tokens of them behind a word */
    uint32_t i_and;
};

/* ------------------------------------------------------------------------------------- counting */

/* The next word of a text; false at its end. */
static bool next_word(qn_str *out, const char **text)
{
    *text += strspn(*text, " ");
    *out = (qn_str){.ptr = *text, .len = strcspn(*text, " ")};
    *text += out->len;
    return out->len > 0;
}

static void list_words(bench_words *w)
{
    for (uint32_t i = 0; i < N_CLASSES; i++) {
        const char *rest = classes[i];
        qn_str text;
        w->begin[i] = w->n_words;
        while (next_word(&text, &rest)) {
            QN_ASSERT(w->n_words < N_WORDS_MAX && text.len + 1 < WORD_BYTES_MAX);
            word *const to = &w->list[w->n_words++];
            to->len = (uint8_t)(text.len + 1);
            to->text[0] = ' ';
            memcpy(to->text + 1, text.ptr, text.len);
            w->i_and = qn_str_equal(text, qn_str_of("and")) ? w->n_words - 1 : w->i_and;
        }
    }
    w->begin[N_CLASSES] = w->n_words;
}

static qn_status append_word(qn_buf *out, const word *from, bool is_capital, bool is_first,
                             qn_error *err)
{
    char text[WORD_BYTES_MAX];
    memcpy(text, from->text, sizeof text);
    if (is_capital) {
        text[1] = (char)(text[1] - 'a' + 'A');
    }
    const size_t n_skipped = is_first ? 1 : 0;
    return qn_buf_append(out, text + n_skipped, from->len - n_skipped, err);
}

/* What words are counted behind, since a tokenizer may treat the beginning of a text apart. */
static const char before[] = "The river.";

typedef struct counter {
    bench_words *words;
    bench_tokens *tokens;
    uint32_t n_before;
    bool is_capital;
    qn_buf text;
    qn_error *err;
} counter;

static qn_status count_run(uint32_t *n_tokens, counter *c, uint32_t first, uint32_t n)
{
    qn_status status = QN_OK;
    qn_buf_clear(&c->text);
    QN_TRY(status, qn_buf_append(&c->text, before, strlen(before), c->err), fail);
    for (uint32_t i = first; i < first + n; i++) {
        QN_TRY(status, append_word(&c->text, &c->words->list[i], c->is_capital, false, c->err),
               fail);
    }
    QN_TRY(status, bench_tokens_count(n_tokens, c->tokens, c->text.ptr, c->text.len, c->err), fail);
    *n_tokens -= *n_tokens < c->n_before ? *n_tokens : c->n_before;
fail:
    return status;
}

/* Each word of a run that has @p n_tokens: all have one, or its halves are looked at. */
static qn_status count_words(counter *c, uint32_t first, uint32_t n, uint32_t n_tokens)
{
    qn_status status = QN_OK;
    if (n == 1 || n_tokens == n) {
        for (uint32_t i = first; i < first + n; i++) {
            word *const to = &c->words->list[i];
            *(c->is_capital ? &to->n_capital : &to->n_tokens) = n_tokens / n;
        }
        return QN_OK;
    }
    uint32_t n_left = 0;
    QN_TRY(status, count_run(&n_left, c, first, n / 2), fail);
    QN_TRY(status, count_words(c, first, n / 2, n_left), fail);
    QN_TRY(status,
           count_words(c, first + n / 2, n - n / 2, n_tokens - (n_left < n_tokens ? n_left : 0)),
           fail);
fail:
    return status;
}

static qn_status count_class(counter *c, uint32_t first, uint32_t end, bool is_capital)
{
    enum { N_AT_ONCE = 64 };
    qn_status status = QN_OK;
    c->is_capital = is_capital;
    while (first < end && status == QN_OK) {
        const uint32_t n = end - first < N_AT_ONCE ? end - first : N_AT_ONCE;
        uint32_t n_tokens = 0;
        status = count_run(&n_tokens, c, first, n);
        status = status == QN_OK ? count_words(c, first, n, n_tokens) : status;
        first += n;
    }
    return status;
}

/* Tokens of the beginning of @p text, and of the character behind it. */
static qn_status count_mark(uint32_t *n_mark, counter *c, const char *text)
{
    uint32_t n_all = 0;
    uint32_t n_word = 0;
    const size_t len = strlen(text);
    qn_status status = bench_tokens_count(&n_all, c->tokens, text, len, c->err);
    status =
        status == QN_OK ? bench_tokens_count(&n_word, c->tokens, text, len - 1, c->err) : status;
    *n_mark = n_all > n_word ? n_all - n_word : 0;
    return status;
}

static qn_status count_firsts(counter *c)
{
    qn_status status = QN_OK;
    for (uint32_t i = 0; i < N_FIRST && status == QN_OK; i++) {
        word *const to = &c->words->list[i];
        qn_buf_clear(&c->text);
        QN_TRY(status, append_word(&c->text, to, true, true, c->err), fail);
        QN_TRY(status,
               bench_tokens_count(&to->n_first, c->tokens, c->text.ptr, c->text.len, c->err), fail);
    }
fail:
    return status;
}

static void select_short(bench_words *w)
{
    for (uint32_t i = 0; i < w->begin[NOUN + 1]; i++) {
        const word *const noun = &w->list[i];
        if (noun->n_tokens == 1) {
            w->short_nouns.places[w->short_nouns.n++] = i;
        }
        if (noun->n_capital == 1) {
            w->short_capitals.places[w->short_capitals.n++] = i;
        }
        if (i < N_FIRST && noun->n_first == 1) {
            w->short_firsts.places[w->short_firsts.n++] = i;
        }
    }
}

qn_status bench_words_open(bench_words **out, bench_tokens *tokens, qn_error *err)
{
    qn_status status = QN_OK;
    bench_words *w = calloc(1, sizeof *w);
    counter c = {.words = w, .tokens = tokens, .err = err};
    qn_buf_init(&c.text, (size_t)N_WORDS_MAX * WORD_BYTES_MAX);
    *out = NULL;
    if (w == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "words: no memory");
    }
    list_words(w);
    QN_TRY(status, bench_tokens_count(&c.n_before, tokens, before, strlen(before), err), fail);
    QN_TRY(status, count_mark(&w->n_stop, &c, "The river."), fail);
    QN_TRY(status, count_mark(&w->n_comma, &c, "The river,"), fail);
    QN_TRY(status, count_class(&c, 0, w->n_words, false), fail);
    QN_TRY(status, count_class(&c, 0, w->begin[NOUN + 1], true), fail);
    QN_TRY(status, count_class(&c, w->begin[LITERAL], w->n_words, true), fail);
    QN_TRY(status, count_firsts(&c), fail);
    select_short(w);
    if (w->short_nouns.n == 0 || w->short_capitals.n == 0 || w->short_firsts.n == 0) {
        status = qn_fail(err, QN_E_INVAL, 0, __func__,
                         "%s: %u of %u words are one token, some expected for exact lengths",
                         bench_tokens_name(tokens), w->short_nouns.n, w->begin[NOUN + 1]);
        goto fail;
    }
    qn_buf_deinit(&c.text);
    *out = w;
    return QN_OK;

fail:
    qn_buf_deinit(&c.text);
    free(w);
    return status;
}

void bench_words_close(bench_words **words)
{
    free(*words);
    *words = NULL;
}

/* -------------------------------------------------------------------------------------- writing */

/* A sentence without its full stop. */
typedef struct sentence {
    uint32_t words[SENTENCE_WORDS_MAX];
    bool has_comma[SENTENCE_WORDS_MAX];
    uint32_t n_words;
    uint32_t n_tokens; /* with the full stop */
} sentence;

typedef struct writer {
    qn_buf *out;
    const bench_words *words;
    uint64_t key, i_text, counter;
    uint32_t n_left; /* tokens to write, those of full stops that are due left out */
    bool is_begun;   /* a blank goes before the next word */
    bool has_stop;   /* a full stop is due */
    qn_error *err;
} writer;

static uint32_t draw(writer *r, uint32_t n)
{
    return (uint32_t)(qn_rng_u64(r->key, r->i_text, r->counter++) % n);
}

static uint32_t draw_selected(writer *r, const selection *from)
{
    return from->places[draw(r, from->n)];
}

/* The word for a pattern's: a capital stands for a class. */
static uint32_t draw_word(writer *r, qn_str pattern)
{
    static const char capitals[] = "NAVL";
    const bench_words *const w = r->words;
    const char *const capital = strchr(capitals, pattern.ptr[0]);
    if (capital != NULL) {
        const uint32_t class = (uint32_t)(capital - capitals);
        return w->begin[class] + draw(r, w->begin[class + 1] - w->begin[class]);
    }
    for (uint32_t i = w->begin[LITERAL]; i < w->n_words; i++) {
        if (qn_str_equal(pattern, (qn_str){w->list[i].text + 1, w->list[i].len - 1U})) {
            return i;
        }
    }
    QN_ASSERT(false); /* a pattern has words of the list only */
    return 0;
}

static void plan_sentence(sentence *s, writer *r, const char *pattern)
{
    const bench_words *const w = r->words;
    qn_str text;
    *s = (sentence){.n_tokens = w->n_stop};
    while (next_word(&text, &pattern)) {
        QN_ASSERT(s->n_words < SENTENCE_WORDS_MAX);
        s->has_comma[s->n_words] = qn_str_ends(text, ",");
        text.len -= s->has_comma[s->n_words] ? 1 : 0;
        s->words[s->n_words] = draw_word(r, text);
        s->n_tokens += s->has_comma[s->n_words] ? w->n_comma : 0;
        s->n_tokens += s->n_words > 0 ? w->list[s->words[s->n_words]].n_tokens : 0;
        s->n_words++;
    }
}

static void plan_opening(sentence *s, writer *r)
{
    const bench_words *const w = r->words;
    const uint32_t n_nouns = w->begin[NOUN + 1];
    plan_sentence(s, r, opening);
    s->n_tokens -= w->list[s->words[1]].n_tokens;
    s->words[0] = (uint32_t)((r->i_text + r->key) % N_FIRST);
    s->words[1] = (uint32_t)((r->i_text / N_FIRST + (r->key >> 32)) % n_nouns);
    s->n_tokens += w->list[s->words[1]].n_tokens;
}

/* Of the sentence's first word, which begins it, or the text. */
static uint32_t first_tokens(const writer *r, uint32_t i_word)
{
    const word *const first = &r->words->list[i_word];
    return r->is_begun ? first->n_capital : first->n_first;
}

static qn_status write_stop(writer *r)
{
    return r->has_stop ? qn_buf_append(r->out, ".", 1, r->err) : QN_OK;
}

/* Write it if there are tokens left for it. */
static qn_status write_sentence(bool *is_written, writer *r, const sentence *s)
{
    qn_status status = QN_OK;
    const uint32_t n_tokens = s->n_tokens + first_tokens(r, s->words[0]);
    *is_written = n_tokens <= r->n_left;
    if (!*is_written) {
        return QN_OK;
    }
    QN_TRY(status, write_stop(r), fail);
    for (uint32_t i = 0; i < s->n_words; i++) {
        QN_TRY(status,
               append_word(r->out, &r->words->list[s->words[i]], i == 0, !r->is_begun, r->err),
               fail);
        QN_TRY(status, qn_buf_append(r->out, ",", s->has_comma[i] ? 1 : 0, r->err), fail);
        r->is_begun = true;
    }
    r->n_left -= n_tokens;
    r->has_stop = true;
fail:
    return status;
}

/* Where no sentence fits: a word, and its full stop if there is a token for it. */
static qn_status write_word(writer *r)
{
    const selection *const from = r->is_begun ? &r->words->short_capitals : &r->words->short_firsts;
    const uint32_t i_word = from->places[(r->i_text + r->key) % from->n];
    const qn_status status =
        append_word(r->out, &r->words->list[i_word], true, !r->is_begun, r->err);
    r->n_left--;
    r->has_stop = r->n_left >= r->words->n_stop;
    r->n_left -= r->has_stop ? r->words->n_stop : 0;
    r->is_begun = true;
    return status;
}

/* What is left, a token a word: "... the old bridge and river and stone". */
static qn_status write_rest(writer *r)
{
    const bench_words *const w = r->words;
    qn_status status = QN_OK;
    const bool has_short_and = w->list[w->i_and].n_tokens == 1;
    for (; r->n_left > 0 && status == QN_OK; r->n_left--) {
        const bool is_and = r->n_left % 2 == 0 && has_short_and;
        const uint32_t i_word = is_and ? w->i_and : draw_selected(r, &w->short_nouns);
        status = append_word(r->out, &w->list[i_word], false, false, r->err);
    }
    return status;
}

qn_status bench_words_append(qn_buf *out, const bench_words *words, uint64_t key, uint64_t i_text,
                             bool is_begun, uint32_t n_tokens, qn_error *err)
{
    writer r = {.out = out,
                .words = words,
                .key = key,
                .i_text = i_text,
                .n_left = n_tokens,
                .is_begun = is_begun,
                .err = err};
    qn_status status = QN_OK;
    sentence s;
    bool fits = false;
    QN_ASSERT(n_tokens > 0);
    plan_opening(&s, &r);
    QN_TRY(status, write_sentence(&fits, &r, &s), fail);
    if (!fits) {
        QN_TRY(status, write_word(&r), fail);
    }
    while (fits) {
        plan_sentence(&s, &r, patterns[draw(&r, N_PATTERNS)]);
        QN_TRY(status, write_sentence(&fits, &r, &s), fail);
    }
    QN_TRY(status, write_rest(&r), fail);
    QN_TRY(status, write_stop(&r), fail);
fail:
    return status;
}

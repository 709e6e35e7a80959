/* SPDX-License-Identifier: Apache-2.0 */
#include "base/assert.h"
#include "tokenizer/internal.h"

#include <errno.h>
#include <stdlib.h>

/* A token of the word so far; merged ones are taken out of the list. */
typedef struct qn_symbol {
    int32_t id;
    uint32_t previous, next; /* NONE at the ends */
    bool is_gone;
} qn_symbol;

/*
 * Two neighbours that could merge.  Merges of one rank go from left to right, and so find new pairs
 * of another rank from left to right: candidates of a rank that come so are a run, and only the
 * first of each run is in the heap, which so stays small however long the word is.
 */
typedef struct qn_candidate {
    uint32_t rank;
    uint32_t at;   /* the left one */
    uint32_t next; /* of its run; NONE at the end */
} qn_candidate;

#define NONE UINT32_MAX /* beyond int, so no enumerator */

#define WORD_BYTES_MAX (UINT32_MAX / 3) /* candidates have 32 bits */

enum { TAILS_MAX = 1 << 16 };

/* ------------------------------------------------------------------------------ hash tables -- */

static uint64_t mix(uint64_t h)
{
    h ^= h >> 31;
    h *= 0x9E3779B97F4A7C15ULL;
    return h ^ (h >> 29);
}

static uint32_t slots_for(uint32_t n)
{
    uint32_t n_slots = 16;
    while (n_slots < 2 * n) {
        n_slots *= 2;
    }
    return n_slots;
}

static uint32_t pair_slot(const qn_tokenizer *t, int32_t left, int32_t right)
{
    return (uint32_t)mix(((uint64_t)(uint32_t)left << 32) | (uint32_t)right) & t->merge_mask;
}

int64_t qn_tokenizer_find_merge(const qn_tokenizer *tokenizer, int32_t left, int32_t right)
{
    for (uint32_t slot = pair_slot(tokenizer, left, right); tokenizer->merge_slots[slot] != 0;
         slot = (slot + 1) & tokenizer->merge_mask) {
        const uint32_t rank = tokenizer->merge_slots[slot] - 1;
        if (tokenizer->merges[rank].left == left && tokenizer->merges[rank].right == right) {
            return rank;
        }
    }
    return -1;
}

qn_status qn_tokenizer_index_merges(qn_tokenizer *tokenizer, qn_error *err)
{
    const uint32_t n_slots = slots_for(tokenizer->n_merges);
    tokenizer->merge_slots = calloc(n_slots, sizeof *tokenizer->merge_slots);
    if (tokenizer->merge_slots == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "tokenizer: no memory for its merges");
    }
    tokenizer->merge_mask = n_slots - 1;
    for (uint32_t rank = 0; rank < tokenizer->n_merges; rank++) {
        const qn_merge *merge = &tokenizer->merges[rank];
        uint32_t slot = pair_slot(tokenizer, merge->left, merge->right);
        while (tokenizer->merge_slots[slot] != 0) {
            const qn_merge *other = &tokenizer->merges[tokenizer->merge_slots[slot] - 1];
            if (other->left == merge->left && other->right == merge->right) {
                break; /* listed twice: the later rank holds, as in Hugging Face's map */
            }
            slot = (slot + 1) & tokenizer->merge_mask;
        }
        tokenizer->merge_slots[slot] = rank + 1;
    }
    return QN_OK;
}

static uint32_t word_slot(const qn_tokenizer *t, qn_str word)
{
    return (uint32_t)mix(qn_str_hash(word)) & t->word_mask;
}

int32_t qn_tokenizer_find_word(const qn_tokenizer *tokenizer, qn_str word)
{
    for (uint32_t slot = word_slot(tokenizer, word); tokenizer->word_slots[slot] != 0;
         slot = (slot + 1) & tokenizer->word_mask) {
        const int32_t id = tokenizer->word_slots[slot] - 1;
        if (qn_str_equal(qn_tokenizer_bytes(tokenizer, id), word)) {
            return id;
        }
    }
    return -1;
}

qn_status qn_tokenizer_index_words(qn_tokenizer *tokenizer, qn_error *err)
{
    const uint32_t n_slots = slots_for(tokenizer->n_tokens);
    tokenizer->word_slots = calloc(n_slots, sizeof *tokenizer->word_slots);
    if (tokenizer->word_slots == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "tokenizer: no memory for its words");
    }
    tokenizer->word_mask = n_slots - 1;
    for (uint32_t id = 0; id < tokenizer->n_tokens; id++) {
        const qn_token *token = &tokenizer->tokens[id];
        if (token->len == 0 || token->is_added || token->is_raw) {
            continue;
        }
        uint32_t slot = word_slot(tokenizer, qn_tokenizer_bytes(tokenizer, (int32_t)id));
        while (tokenizer->word_slots[slot] != 0) {
            slot = (slot + 1) & tokenizer->word_mask;
        }
        tokenizer->word_slots[slot] = (int32_t)id + 1;
    }
    return QN_OK;
}

/* ------------------------------------------------------------------------------------ merging */

static bool comes_before(const qn_bpe *bpe, uint32_t i, uint32_t k)
{
    const qn_candidate *const a = &bpe->candidates[i];
    const qn_candidate *const b = &bpe->candidates[k];
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void push(qn_bpe *bpe, uint32_t moving)
{
    uint32_t *const heap = bpe->heap;
    size_t at = bpe->n_heap++;
    while (at > 0 && comes_before(bpe, moving, heap[(at - 1) / 2])) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = moving;
}

/* Put a candidate at the top, whose place is free. */
static void sift(qn_bpe *bpe, uint32_t moving)
{
    uint32_t *const heap = bpe->heap;
    size_t at = 0;
    for (size_t child = 1; child < bpe->n_heap; child = 2 * at + 1) {
        if (child + 1 < bpe->n_heap && comes_before(bpe, heap[child + 1], heap[child])) {
            child++;
        }
        if (!comes_before(bpe, heap[child], moving)) {
            break;
        }
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moving;
}

/* Where the last candidate of a rank is found, unless one of another rank took its place. */
static uint32_t *tail_of(const qn_bpe *bpe, uint32_t rank)
{
    return &bpe->tails[rank & (bpe->n_tails - 1)];
}

/* A further candidate, at the end of a run or as one of its own. */
static void add(qn_bpe *bpe, uint32_t rank, uint32_t at)
{
    QN_DEBUG_ASSERT(bpe->n_candidates < 3 * bpe->capacity);
    const uint32_t added = (uint32_t)bpe->n_candidates++;
    uint32_t *const tail = tail_of(bpe, rank);
    bpe->candidates[added] = (qn_candidate){.rank = rank, .at = at, .next = NONE};
    qn_candidate *const last = *tail != NONE ? &bpe->candidates[*tail] : NULL;
    if (last != NULL && last->rank == rank && last->at < at) {
        last->next = added;
    } else {
        push(bpe, added);
    }
    *tail = added;
}

/* The first of all candidates; its run goes on with the next.  There is one. */
static qn_candidate pop(qn_bpe *bpe)
{
    const uint32_t i_top = bpe->heap[0];
    const qn_candidate top = bpe->candidates[i_top];
    uint32_t *const tail = tail_of(bpe, top.rank);
    if (top.next != NONE) {
        sift(bpe, top.next);
        return top;
    }
    *tail = *tail == i_top ? NONE : *tail; /* nothing may follow what has gone */
    const uint32_t moving = bpe->heap[--bpe->n_heap];
    if (bpe->n_heap > 0) {
        sift(bpe, moving);
    }
    return top;
}

/* Is the pair that begins at @p at one that merges? */
static void consider(qn_bpe *bpe, const qn_tokenizer *t, uint32_t at)
{
    if (at == NONE || bpe->symbols[at].next == NONE) {
        return;
    }
    const int64_t rank =
        qn_tokenizer_find_merge(t, bpe->symbols[at].id, bpe->symbols[bpe->symbols[at].next].id);
    if (rank >= 0) {
        add(bpe, (uint32_t)rank, at);
    }
}

/* Each merge removes a symbol and adds at most two candidates, so 3 n of them are enough.  Behind a
 * word all tails are NONE. */
static qn_status reserve(qn_bpe *bpe, size_t n, qn_error *err)
{
    if (n <= bpe->capacity) {
        return QN_OK;
    }
    if (n > WORD_BYTES_MAX) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "text: a word of %zu bytes, expected at most %u", n, WORD_BYTES_MAX);
    }
    qn_bpe_deinit(bpe);
    const size_t capacity = n < 64 ? 64 : n;
    bpe->n_tails = 64;
    while (bpe->n_tails < capacity && bpe->n_tails < TAILS_MAX) {
        bpe->n_tails *= 2;
    }
    bpe->symbols = malloc(capacity * sizeof *bpe->symbols);
    bpe->candidates = malloc(3 * capacity * sizeof *bpe->candidates);
    bpe->heap = malloc(3 * capacity * sizeof *bpe->heap);
    bpe->tails = malloc(bpe->n_tails * sizeof *bpe->tails);
    if (bpe->symbols == NULL || bpe->candidates == NULL || bpe->heap == NULL ||
        bpe->tails == NULL) {
        qn_bpe_deinit(bpe);
        (void)qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "tokenizer: no memory for a word");
        return QN_E_NOMEM; /* spelled out: the analyser does not see through qn_fail() */
    }
    memset(bpe->tails, 0xff, bpe->n_tails * sizeof *bpe->tails); /* NONE */
    bpe->capacity = capacity;
    return QN_OK;
}

void qn_bpe_deinit(qn_bpe *bpe)
{
    free(bpe->symbols);
    free(bpe->candidates);
    free(bpe->heap);
    free(bpe->tails);
    *bpe = (qn_bpe){0};
}

/* Merge the lowest rank, leftmost first, until nothing merges. */
static void merge_all(qn_bpe *bpe, const qn_tokenizer *t, uint32_t n)
{
    bpe->n_candidates = bpe->n_heap = 0;
    for (uint32_t i = 0; i + 1 < n; i++) {
        consider(bpe, t, i);
    }
    while (bpe->n_heap > 0) {
        const qn_candidate best = pop(bpe);
        const qn_merge *merge = &t->merges[best.rank];
        qn_symbol *left = &bpe->symbols[best.at];
        if (left->is_gone || left->id != merge->left || left->next == NONE ||
            bpe->symbols[left->next].id != merge->right) {
            continue; /* one of the two has merged with somebody else */
        }
        qn_symbol *right = &bpe->symbols[left->next];
        left->id = merge->result;
        left->next = right->next;
        right->is_gone = true;
        if (left->next != NONE) {
            bpe->symbols[left->next].previous = best.at;
        }
        consider(bpe, t, left->previous);
        consider(bpe, t, best.at);
    }
}

qn_status qn_bpe_encode(qn_bpe *bpe, const qn_tokenizer *tokenizer, qn_str word, qn_ids *out,
                        qn_error *err)
{
    if (tokenizer->ignore_merges) {
        const int32_t id = qn_tokenizer_find_word(tokenizer, word);
        if (id >= 0) {
            return qn_ids_append(out, id, err);
        }
    }
    qn_status status = reserve(bpe, word.len, err);
    if (status != QN_OK) {
        return status;
    }
    const uint32_t n = (uint32_t)word.len;
    for (uint32_t i = 0; i < n; i++) {
        bpe->symbols[i] = (qn_symbol){.id = tokenizer->byte_ids[(uint8_t)word.ptr[i]],
                                      .previous = i > 0 ? i - 1 : NONE,
                                      .next = i + 1 < n ? i + 1 : NONE};
    }
    merge_all(bpe, tokenizer, n);
    for (uint32_t i = 0; i < n && status == QN_OK; i = bpe->symbols[i].next) {
        status = qn_ids_append(out, bpe->symbols[i].id, err);
    }
    return status;
}

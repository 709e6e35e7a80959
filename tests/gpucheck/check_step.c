/* SPDX-License-Identifier: Apache-2.0 */
/* Checks of kernels/gpu/step.c: steps made by chance, against plain loops. */
#include "base/rng.h"
#include "gpucheck.h"

#include <string.h>

enum {
    N_SEQS = 7,
    N_SLOTS = 11,
    N_CHAINS = 8, /* room */
    N_ROWS = 150, /* room */
    N_DRAFTS = QN_GPU_STEP_TOKENS - 1,
    N_PAGES = 4, /* of a slot */
    PAGE = 64,   /* positions */
    STREAM = 3,
};

/* A step and what the device knows before it. */
typedef struct step {
    qn_gpu_slot slots[N_SLOTS];
    qn_gpu_step_seq seqs[N_SEQS];
    int32_t drafts[N_DRAFTS * N_CHAINS];
    int32_t given[N_ROWS];
    int32_t drawn[N_ROWS];
    uint32_t trunk[N_ROWS], chain[N_CHAINS], logit_rows[N_ROWS];
    uint32_t n_trunk, n_chains, n_logits;
} step;

static uint32_t place(uint32_t i_seq, uint32_t j)
{
    return i_seq | j << QN_GPU_PLACE_BITS;
}

static void make_slot(gc *run, qn_gpu_slot *slot)
{
    *slot = (qn_gpu_slot){
        .seed = gc_bits(run),
        .temperature = gc_uniform(run),
        .top_p = 0.5F,
        .min_p = 0.25F,
        .top_k = gc_below(run, 50),
        .n_stop_ids = gc_below(run, 4),
        .n_computed = 20 + gc_below(run, 200),
        .n_kept = 1 + gc_below(run, QN_GPU_STEP_TOKENS),
        .is_failed = gc_below(run, 6) == 0,
        .last_token = (int32_t)gc_below(run, 100),
    };
    for (uint32_t i = 0; i < slot->n_stop_ids; i++) {
        slot->stop_ids[i] = (int32_t)gc_below(run, 4);
    }
}

/* Rows of one sequence, for every pass; some chunks begin at position 0. */
static void add_seq(gc *run, step *s, uint32_t i_seq)
{
    qn_gpu_step_seq *const seq = &s->seqs[i_seq];
    qn_gpu_slot *const slot = &s->slots[3 * i_seq % N_SLOTS];
    *seq = (qn_gpu_step_seq){.slot = 3 * i_seq % N_SLOTS,
                             .is_prompt = gc_below(run, 3) == 0,
                             .n_forced = QN_GPU_NOT_PINNED,
                             .first_logit = s->n_logits};
    if (seq->is_prompt) {
        seq->n_rows = 1 + gc_below(run, 12);
        seq->is_drawing = gc_below(run, 2);
        slot->n_computed = gc_below(run, 2) * slot->n_computed;
    } else {
        seq->n_drafts = gc_below(run, N_DRAFTS + 1);
        seq->n_rows = 1 + seq->n_drafts;
        seq->is_drawing = 1;
        seq->n_forced = gc_below(run, 3) == 0 ? gc_below(run, 10) : QN_GPU_NOT_PINNED;
        if (seq->n_drafts > 0) {
            seq->i_chain = s->n_chains;
            s->chain[s->n_chains++] = place(i_seq, 0);
        }
    }
    for (uint32_t j = 0; j < seq->n_rows; j++) {
        if (!seq->is_prompt || (seq->is_drawing && j + 1 == seq->n_rows)) {
            s->logit_rows[s->n_logits++] = s->n_trunk;
        }
        s->trunk[s->n_trunk++] = place(i_seq, j);
    }
}

/* Tokens are few, so that draws meet drafts and stop ids. */
static step *make_step(gc *run)
{
    step *const s = gc_host(run, sizeof *s);
    for (uint32_t i = 0; i < N_SLOTS; i++) {
        make_slot(run, &s->slots[i]);
    }
    for (uint32_t i = 0; i < N_SEQS; i++) {
        add_seq(run, s, i);
        s->trunk[s->n_trunk++] = QN_GPU_PLACE_NONE;
    }
    for (uint32_t i = 0; i < N_DRAFTS * N_CHAINS; i++) {
        s->drafts[i] = (int32_t)gc_below(run, 12) - (i % 7 == 0 ? 1 : 0);
    }
    for (uint32_t i = 0; i < N_ROWS; i++) {
        s->given[i] = (int32_t)gc_below(run, 100);
        s->drawn[i] = (int32_t)gc_below(run, 12) - (i % 11 == 0 ? 1 : 0);
    }
    for (uint32_t i = 0; i < N_SEQS; i++) { /* half of the draws are the drafts */
        const qn_gpu_step_seq *const seq = &s->seqs[i];
        for (uint32_t j = 0; j < seq->n_drafts && i % 2 == 0; j++) {
            s->drawn[seq->first_logit + j] = s->drafts[j * N_CHAINS + seq->i_chain];
        }
    }
    return s;
}

static uint32_t drafts_of(const step *s, const qn_gpu_step_seq *seq)
{
    for (uint32_t n = 0; n < seq->n_drafts; n++) {
        if (s->drafts[n * N_CHAINS + seq->i_chain] < 0) {
            return n;
        }
    }
    return seq->n_drafts;
}

/* --------------------------------------------------------------------------------------- rows --
 */

/* Token and position of a row by the words of args_step.h; the slot too. */
static void want_row(const step *s, bool is_chain, uint32_t i_draft, uint32_t r, int32_t want[3])
{
    const uint32_t at = is_chain ? s->chain[r] : s->trunk[r];
    memcpy(want, (const int32_t[3]){0, -1, 0}, 3 * sizeof *want);
    if (at == QN_GPU_PLACE_NONE) {
        return;
    }
    const qn_gpu_step_seq *const seq = &s->seqs[at % (1U << QN_GPU_PLACE_BITS)];
    const qn_gpu_slot *const slot = &s->slots[seq->slot];
    const uint32_t j = is_chain ? i_draft : at >> QN_GPU_PLACE_BITS;
    want[2] = (int32_t)seq->slot;
    const uint32_t n_rows = is_chain ? seq->n_drafts : 1 + drafts_of(s, seq);
    if (slot->is_failed || (!seq->is_prompt && j >= n_rows)) {
        return;
    }
    const int32_t draft =
        !seq->is_prompt && j > 0 ? s->drafts[(j - 1) * N_CHAINS + seq->i_chain] : 0;
    want[0] = seq->is_prompt ? s->given[r] : j == 0 ? slot->last_token : draft < 0 ? 0 : draft;
    want[1] = (int32_t)(slot->n_computed + j);
}

static void check_settings(gc *run, const step *s, const qn_gpu_sampling *got)
{
    for (uint32_t i = 0; i < s->n_logits; i++) {
        const uint32_t at = s->trunk[s->logit_rows[i]];
        const qn_gpu_slot *const slot = &s->slots[s->seqs[at % (1U << QN_GPU_PLACE_BITS)].slot];
        const qn_gpu_sampling want = {
            slot->temperature, slot->top_p, slot->min_p, slot->top_k,
            qn_rng_unit(slot->seed, STREAM, slot->n_computed + (at >> QN_GPU_PLACE_BITS) + 1)};
        gc_same(run, "settings", &got[i], &want, sizeof want);
    }
}

/* Pages of all slots, each another, and what tokens they had. */
static void make_pages(gc *run, int32_t *tables, int32_t *tokens)
{
    for (uint32_t i = 0; i < N_SLOTS * N_PAGES; i++) {
        tables[i] = (int32_t)(i * 7 % (N_SLOTS * N_PAGES));
    }
    for (uint32_t i = 0; i < N_SLOTS * N_PAGES * PAGE; i++) {
        tokens[i] = (int32_t)gc_below(run, 1000);
    }
}

static void rows_case(gc *run, bool is_chain, uint32_t i_draft)
{
    gc_begin(run, "chain %d, draft %u", (int)is_chain, i_draft);
    const step *const s = make_step(run);
    const size_t tokens_bytes = N_SLOTS * N_PAGES * PAGE * sizeof(int32_t);
    int32_t tables[N_SLOTS * N_PAGES];
    int32_t *const page_tokens = gc_host(run, tokens_bytes);
    make_pages(run, tables, page_tokens);
    const uint32_t *const places = is_chain ? s->chain : s->trunk;
    const uint32_t n_rows = is_chain ? s->n_chains : s->n_trunk;
    const size_t n_bytes = N_ROWS * sizeof(int32_t);
    const qn_gpu_step_rows_args args = {
        .tokens = gc_out(run, n_rows * sizeof(int32_t)),
        .positions = gc_out(run, n_rows * sizeof(int32_t)),
        .slots_of = gc_out(run, n_rows * sizeof(int32_t)),
        .page_tokens = gc_inout(run, page_tokens, tokens_bytes),
        .page_tables = gc_in(run, tables, sizeof tables),
        .places = gc_in(run, places, n_rows * sizeof *places),
        .seqs = gc_in(run, s->seqs, sizeof s->seqs),
        .slots = gc_in(run, s->slots, sizeof s->slots),
        .given = gc_in(run, s->given, n_bytes),
        .drafts = gc_in(run, s->drafts, sizeof s->drafts),
        .settings = gc_out(run, s->n_logits * sizeof(qn_gpu_sampling)),
        .logit_rows = gc_in(run, s->logit_rows, n_bytes),
        .stream = STREAM,
        .n_rows = n_rows,
        .n_logits = is_chain ? 0 : s->n_logits,
        .n_chains_max = N_CHAINS,
        .is_chain = is_chain,
        .i_draft = i_draft,
        .n_table_pages = N_PAGES,
    };
    qn_gpu_step_rows(&run->ops, gc_args(run, &args, sizeof args));
    gc_wait(run);
    const int32_t *const got[3] = {gc_got(run, args.tokens), gc_got(run, args.positions),
                                   gc_got(run, args.slots_of)};
    for (uint32_t r = 0; r < n_rows; r++) {
        int32_t want[3];
        want_row(s, is_chain, i_draft, r, want);
        const int32_t seen[3] = {got[0][r], got[1][r], got[2][r]};
        gc_same(run, "row", seen, want, sizeof want);
        if (!is_chain && want[1] >= 0) {
            const int32_t page = tables[want[2] * N_PAGES + want[1] / PAGE];
            page_tokens[page * PAGE + want[1] % PAGE] = want[0];
        }
    }
    gc_same(run, "page_tokens", gc_got(run, args.page_tokens), page_tokens, tokens_bytes);
    if (!is_chain) {
        check_settings(run, s, gc_got(run, args.settings));
    }
    gc_end(run);
}

static void check_rows(gc *run)
{
    for (uint32_t i = 0; i < 7; i++) {
        rows_case(run, false, 0);
        rows_case(run, true, i);
    }
}

static void rows_wrong_stream(void *args)
{
    ((qn_gpu_step_rows_args *)args)->stream++;
}

static void rows_wrong_pages(void *args)
{
    ((qn_gpu_step_rows_args *)args)->n_table_pages--;
}

static void rows_wrong_draft(void *args)
{
    qn_gpu_step_rows_args *const a = args;
    a->i_draft = a->i_draft > 0 ? a->i_draft - 1 : a->i_draft;
}

/* ----------------------------------------------------------------------------- hidden vectors --
 */

/* A step with n_embd floats for each row and each slot. */
typedef struct vectors {
    const step *s;
    uint32_t n;
    size_t row_bytes;
    float *kept, *x;
    const void *places, *seqs, *slots; /* on the device */
} vectors;

static vectors make_vectors(gc *run, uint32_t n_embd)
{
    vectors v = {.s = make_step(run), .n = n_embd, .row_bytes = n_embd * sizeof(float)};
    v.kept = gc_floats(run, (size_t)N_SLOTS * n_embd, GC_NORMAL);
    v.x = gc_floats(run, (size_t)v.s->n_trunk * n_embd, GC_NORMAL);
    v.places = gc_in(run, v.s->trunk, v.s->n_trunk * sizeof *v.s->trunk);
    v.seqs = gc_in(run, v.s->seqs, sizeof v.s->seqs);
    v.slots = gc_in(run, v.s->slots, sizeof v.s->slots);
    return v;
}

/* What row r of the trunk is: its sequence, its place there; NULL: padding. */
static const qn_gpu_step_seq *row_at(const step *s, uint32_t r, uint32_t *j)
{
    *j = s->trunk[r] >> QN_GPU_PLACE_BITS;
    return s->trunk[r] == QN_GPU_PLACE_NONE ? NULL
                                            : &s->seqs[s->trunk[r] % (1U << QN_GPU_PLACE_BITS)];
}

static void chain_case(gc *run, uint32_t n_embd)
{
    gc_begin(run, "%u wide", n_embd);
    const vectors v = make_vectors(run, n_embd);
    uint32_t places[N_CHAINS + 1];
    const uint32_t n = v.s->n_chains + 1; /* and padding */
    memcpy(places, v.s->chain, sizeof v.s->chain);
    places[n - 1] = QN_GPU_PLACE_NONE;
    const qn_gpu_step_chain_args args = {
        .y = gc_out(run, n * v.row_bytes),
        .kept = gc_in(run, v.kept, N_SLOTS * v.row_bytes),
        .places = gc_in(run, places, n * sizeof *places),
        .seqs = v.seqs,
        .n_rows = n,
        .n_embd = n_embd,
    };
    qn_gpu_step_chain(&run->ops, gc_args(run, &args, sizeof args));
    gc_wait(run);
    const float *const y = gc_got(run, args.y);
    for (uint32_t c = 0; c + 1 < n; c++) {
        gc_same(run, "y", y + (size_t)c * n_embd,
                v.kept + (size_t)v.s->seqs[places[c]].slot * n_embd, v.row_bytes);
    }
    gc_untouched(run, "padding", y + (size_t)(n - 1) * n_embd, v.row_bytes);
    gc_end(run);
}

static void check_chain(gc *run)
{
    chain_case(run, 12);
    chain_case(run, run->is_emulated ? 1032 : 6144);
}

static void follow_case(gc *run, uint32_t n_embd)
{
    gc_begin(run, "%u wide", n_embd);
    const vectors v = make_vectors(run, n_embd);
    const uint32_t n = v.s->n_trunk;
    int32_t *const positions = gc_host(run, n * sizeof *positions);
    for (uint32_t r = 0; r < n; r++) {
        positions[r] = (int32_t)gc_below(run, 5) - 1;
    }
    const qn_gpu_step_follow_args args = {
        .positions = gc_inout(run, positions, n * sizeof *positions),
        .y = gc_out(run, n * v.row_bytes),
        .x = gc_in(run, v.x, n * v.row_bytes),
        .kept = gc_in(run, v.kept, N_SLOTS * v.row_bytes),
        .places = v.places,
        .seqs = v.seqs,
        .slots = v.slots,
        .n_rows = n,
        .n_embd = n_embd,
    };
    qn_gpu_step_follow(&run->ops, gc_args(run, &args, sizeof args));
    gc_wait(run);
    const float *const y = gc_got(run, args.y);
    for (uint32_t r = 0; r < n; r++) {
        uint32_t j = 0;
        const qn_gpu_step_seq *const seq = row_at(v.s, r, &j);
        if (seq == NULL) {
            gc_untouched(run, "padding", y + (size_t)r * n_embd, v.row_bytes);
            continue;
        }
        const qn_gpu_slot *const slot = &v.s->slots[seq->slot];
        if (slot->is_failed || j >= slot->n_kept || positions[r] == 0) {
            positions[r] = -1;
        }
        gc_same(run, "y", y + (size_t)r * n_embd,
                j == 0 ? v.kept + (size_t)seq->slot * n_embd : v.x + (size_t)(r - 1) * n_embd,
                v.row_bytes);
    }
    gc_same(run, "positions", gc_got(run, args.positions), positions, n * sizeof *positions);
    gc_end(run);
}

static void check_follow(gc *run)
{
    follow_case(run, 12);
    follow_case(run, run->is_emulated ? 1032 : 6144);
}

static void keep_case(gc *run, uint32_t n_embd)
{
    gc_begin(run, "%u wide", n_embd);
    const vectors v = make_vectors(run, n_embd);
    const qn_gpu_step_keep_args args = {
        .kept = gc_inout(run, v.kept, N_SLOTS * v.row_bytes),
        .x = gc_in(run, v.x, v.s->n_trunk * v.row_bytes),
        .places = v.places,
        .seqs = v.seqs,
        .slots = v.slots,
        .n_rows = v.s->n_trunk,
        .n_embd = n_embd,
    };
    qn_gpu_step_keep(&run->ops, gc_args(run, &args, sizeof args));
    gc_wait(run);
    for (uint32_t r = 0; r < v.s->n_trunk; r++) {
        uint32_t j = 0;
        const qn_gpu_step_seq *const seq = row_at(v.s, r, &j);
        if (seq != NULL && !v.s->slots[seq->slot].is_failed &&
            j + 1 == v.s->slots[seq->slot].n_kept) {
            memcpy(v.kept + (size_t)seq->slot * n_embd, v.x + (size_t)r * n_embd, v.row_bytes);
        }
    }
    gc_same(run, "kept", gc_got(run, args.kept), v.kept, N_SLOTS * v.row_bytes);
    gc_end(run);
}

static void check_keep(gc *run)
{
    keep_case(run, 12);
    keep_case(run, run->is_emulated ? 1032 : 6144);
}

static void chain_less(void *args)
{
    ((qn_gpu_step_chain_args *)args)->n_rows -= 2;
}

static void follow_wrong_row(void *args)
{
    qn_gpu_step_follow_args *const a = args;
    a->x += a->n_embd;
    a->n_rows--;
}

static void keep_short_row(void *args)
{
    ((qn_gpu_step_keep_args *)args)->n_embd -= 4;
}

/* ------------------------------------------------------------------------------------- settle --
 */

/* The rule of engine/accept.h, and what comes of it. */
static void settle(step *s, const qn_gpu_step_seq *seq, qn_gpu_step_result *result)
{
    qn_gpu_slot *const slot = &s->slots[seq->slot];
    const uint32_t n_drafts = drafts_of(s, seq);
    const bool is_pinned = seq->n_forced != QN_GPU_NOT_PINNED;
    memset(result, 0, sizeof *result);
    result->is_failed = slot->is_failed;
    for (uint32_t j = 0; seq->is_drawing && !result->is_failed && j <= n_drafts; j++) {
        const int32_t *const draft = j < n_drafts ? &s->drafts[j * N_CHAINS + seq->i_chain] : NULL;
        const bool is_forced = is_pinned && j < seq->n_forced && draft != NULL;
        const int32_t token = is_forced ? *draft : s->drawn[seq->first_logit + j];
        if (token < 0) {
            result->is_failed = 1;
            break;
        }
        result->tokens[result->n_tokens++] = token;
        const bool is_right = is_forced || (!is_pinned && draft != NULL && *draft == token);
        result->n_accepted += is_right;
        for (uint32_t i = 0; i < slot->n_stop_ids; i++) {
            result->is_stopped |= slot->stop_ids[i] == token;
        }
        if (!is_right || result->is_stopped) {
            break;
        }
    }
    slot->is_failed = result->is_failed;
    if (!slot->is_failed) {
        slot->n_kept = seq->is_prompt ? seq->n_rows : result->n_tokens;
        slot->n_computed += slot->n_kept;
        slot->last_token =
            result->n_tokens > 0 ? result->tokens[result->n_tokens - 1] : slot->last_token;
    }
    result->n_complete = slot->n_computed;
}

static void settle_case(gc *run, uint32_t i)
{
    gc_begin(run, "step %u", i);
    step *const s = make_step(run);
    const qn_gpu_step_settle_args args = {
        .results = gc_out(run, N_SEQS * sizeof(qn_gpu_step_result)),
        .slots = gc_inout(run, s->slots, sizeof s->slots),
        .seqs = gc_in(run, s->seqs, sizeof s->seqs),
        .drawn = gc_in(run, s->drawn, sizeof s->drawn),
        .drafts = gc_in(run, s->drafts, sizeof s->drafts),
        .n_seqs = N_SEQS,
        .n_chains_max = N_CHAINS,
    };
    qn_gpu_step_settle(&run->ops, gc_args(run, &args, sizeof args));
    gc_wait(run);
    const qn_gpu_step_result *const got = gc_got(run, args.results);
    for (uint32_t k = 0; k < N_SEQS; k++) {
        qn_gpu_step_result want;
        settle(s, &s->seqs[k], &want);
        gc_same(run, "result", &got[k], &want, sizeof want);
    }
    gc_same(run, "slots", gc_got(run, args.slots), s->slots, sizeof s->slots);
    gc_end(run);
}

static void check_settle(gc *run)
{
    for (uint32_t i = 0; i < 40; i++) {
        settle_case(run, i);
    }
}

static void settle_wrong_draws(void *args)
{
    qn_gpu_step_settle_args *const a = args;
    a->drawn = a->drafts;
}

static void settle_less(void *args)
{
    ((qn_gpu_step_settle_args *)args)->n_seqs--;
}

/* -------------------------------------------------------------------------------- page tables --
 */

static void pages_case(gc *run, uint32_t n_entries)
{
    enum { N_TABLE = 40 };
    gc_begin(run, "%u entries", n_entries);
    const size_t n_bytes = N_SLOTS * N_TABLE * sizeof(int32_t);
    int32_t *const tables = gc_host(run, n_bytes);
    int32_t *const want = gc_host(run, n_bytes);
    qn_gpu_page_entry *const entries = gc_host(run, n_entries * sizeof *entries);
    for (uint32_t i = 0; i < N_SLOTS * N_TABLE; i++) {
        tables[i] = want[i] = (int32_t)gc_below(run, 1000);
    }
    for (uint32_t i = 0; i < n_entries; i++) {
        const uint32_t at = 3 * i; /* each once */
        entries[i] = (qn_gpu_page_entry){at / N_TABLE, at % N_TABLE, (int32_t)gc_below(run, 1000)};
        want[at] = entries[i].page;
    }
    const qn_gpu_step_pages_args args = {
        .page_tables = gc_inout(run, tables, n_bytes),
        .entries = gc_in(run, entries, n_entries * sizeof *entries),
        .n_table_pages = N_TABLE,
        .n_entries = n_entries,
    };
    qn_gpu_step_pages(&run->ops, gc_args(run, &args, sizeof args));
    gc_wait(run);
    gc_same(run, "tables", gc_got(run, args.page_tables), want, n_bytes);
    gc_end(run);
}

static void check_pages(gc *run)
{
    pages_case(run, 1);
    pages_case(run, 140);
}

static void pages_less(void *args)
{
    ((qn_gpu_step_pages_args *)args)->n_entries--;
}

/* ------------------------------------------------------------------------------------ group -- */

static const gc_check checks[] = {
    {"step_rows", check_rows, "exact"},
    {"step_chain", check_chain, "exact: values are copied"},
    {"step_follow", check_follow, "exact: values are copied"},
    {"step_keep", check_keep, "exact: values are copied"},
    {"step_settle", check_settle, "exact"},
    {"step_pages", check_pages, "exact"},
    {NULL, NULL, NULL},
};

static const gc_wrong wrongs[] = {
    {"step_rows_wrong_stream", "step_rows", rows_wrong_stream},
    {"step_rows_wrong_draft", "step_rows", rows_wrong_draft},
    {"step_rows_wrong_pages", "step_rows", rows_wrong_pages},
    {"step_chain_less", "step_chain", chain_less},
    {"step_follow_wrong_row", "step_follow", follow_wrong_row},
    {"step_keep_short_row", "step_keep", keep_short_row},
    {"step_settle_wrong_draws", "step_settle", settle_wrong_draws},
    {"step_settle_less", "step_settle", settle_less},
    {"step_pages_less", "step_pages", pages_less},
    {NULL, NULL, NULL},
};

const gc_group gc_step = {checks, wrongs, NULL};

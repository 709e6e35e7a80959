/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file executor_world.h  Stories that a generator told alone, told again by an executor: in any
 * company, cut, preempted and begun on cached pages.
 */
#ifndef QN_TEST_EXECUTOR_WORLD_H
#define QN_TEST_EXECUTOR_WORLD_H
#include "base/rng.h"
#include "engine/executor.h"
#include "engine/generator.h"
#include "unit/model/fixture.h"

#ifndef STORY_TOKENS
#define STORY_TOKENS 60 /* that a story has behind its prompt */
#endif

enum {
    N_STORIES = 6,
    N_ANSWER = STORY_TOKENS,
    N_PROMPT_MAX = 210,
    N_TOKENS = N_PROMPT_MAX + N_ANSWER, /* of a story, at most */
    N_ROOM = N_TOKENS + QN_STEP_TOKENS_MAX,
    N_SLOTS = 8,
    N_STEP_ROWS = 64, /* of a pass */
    N_PAGES = 40,
    N_TABLE = (N_ROOM + QN_PAGE_TOKENS - 1) / QN_PAGE_TOKENS,
    UNKNOWN = -1,
};

/** A model, how it computes, and what pages hold. */
typedef struct rig {
    tiny t;
    qn_kv_dtype dtype;
    uint32_t n_vocab;
    bool with_mtp;
} rig;

/** How a rig is made. */
typedef struct rig_options {
    qn_compute compute;
    qn_kv_dtype dtype;
    uint32_t n_threads;
    bool is_nano;      /**< glm-nano, whose drafts are often right; else the tiny model. */
    bool without_mtp;  /**< Pages have no rows of the layer. */
    bool has_own_sets; /**< A chain of drafts has its own index sets. */
    qn_gpu *gpu;       /**< Borrowed; NULL: on the CPU. */
    const qn_gpu_kernels *gpu_kernels;
} rig_options;

static inline void rig_open(rig *r, const rig_options *o)
{
    static const char folder[] = QN_SOURCE_DIR "/models/glm-nano";
    qn_error err = {0};
    qn_config config = tiny_config();
    if (o->is_nano) {
        assert_int_equal(
            qn_config_load(&config, QN_SOURCE_DIR "/models/glm-nano/config.json", &err), QN_OK);
    }
    if (o->gpu != NULL && !o->is_nano) { /* whole pieces of 16 bytes */
        config.n_vocab = 100;
        config.v_dim = 24;
        config.kv_rank = 144;
    }
    config.index_share_for_mtp = !o->has_own_sets;
    *r = (rig){.dtype = o->dtype, .n_vocab = config.n_vocab, .with_mtp = !o->without_mtp};
    qn_glm_options options = tiny_prepare(&r->t, &config, o->n_threads, N_STEP_ROWS, o->dtype);
    options.compute = o->compute;
    options.gpu = o->gpu;
    options.gpu_kernels = o->gpu_kernels;
    options.is_deterministic = true;
    if (o->is_nano) {
        assert_int_equal(qn_checkpoint_open(&r->t.checkpoint, folder, &err), QN_OK);
        assert_int_equal(qn_glm_open(&r->t.glm, &r->t.config, r->t.checkpoint, &options, &err),
                         QN_OK);
    } else {
        assert_int_equal(qn_glm_open_dummy(&r->t.glm, &r->t.config, 7, &options, &err), QN_OK);
    }
}

static inline qn_executor *rig_executor(rig *r)
{
    const qn_executor_options options = {.kernels = &r->t.kernels,
                                         .pool = r->t.pool,
                                         .kv_dtype = r->dtype,
                                         .n_slots = N_SLOTS,
                                         .n_pages = N_PAGES,
                                         .n_step_rows = N_STEP_ROWS,
                                         .n_context = N_ROOM,
                                         .with_mtp = r->with_mtp,
                                         .checks_pages = true};
    qn_executor *executor = NULL;
    qn_error err = {0};
    assert_int_equal(qn_executor_open(&executor, r->t.glm, &options, &err), QN_OK);
    return executor;
}

static inline qn_sequence_options rig_sequence_options(const rig *r)
{
    return (qn_sequence_options){.kernels = &r->t.kernels,
                                 .kv_dtype = r->dtype,
                                 .n_tokens_max = N_ROOM,
                                 .n_rows_max = N_STEP_ROWS};
}

/** What a sequence is when it is alone. */
typedef struct story {
    int32_t ids[N_ROOM]; /**< Prompt and answer. */
    uint32_t n_prompt;
    uint32_t n_ids;
    float *logits;           /**< [n_ids][n_vocab] by position; owned. */
    qn_sampling sampling;    /**< Its own. */
    int32_t n_right[N_ROOM]; /**< Drafts behind a position that are right; UNKNOWN. */
} story;

/** Who hears it first. */
typedef struct listener {
    const rig *rig;
    story *story;
} listener;

static inline qn_status story_rows(void *context, uint32_t position, uint32_t n_rows,
                                   const int32_t *ids, const float *logits, qn_error *err)
{
    const rig *const r = ((const listener *)context)->rig;
    story *const s = ((const listener *)context)->story;
    (void)ids;
    (void)err;
    assert_true(position + n_rows <= N_TOKENS);
    memcpy(s->logits + (size_t)position * r->n_vocab, logits,
           (size_t)n_rows * r->n_vocab * sizeof *logits);
    return QN_OK;
}

static inline bool story_token(void *context, int32_t token, uint32_t position, const float *logits,
                               bool is_stop)
{
    story *const s = ((const listener *)context)->story;
    (void)logits;
    (void)is_stop;
    assert_int_equal(position, s->n_ids);
    s->ids[s->n_ids++] = token;
    return true;
}

/** Story @p i: some share a beginning, some are greedy. */
static inline void story_init(story *s, const rig *r, uint32_t i)
{
    listener ear = {r, s};
    const qn_generator_sink sink = {.context = &ear, .rows = story_rows, .token = story_token};
    const qn_sequence_options options = rig_sequence_options(r);
    qn_generator *generator = NULL;
    qn_error err = {0};
    *s = (story){.n_prompt = 1 + (i * 71 + 69) % N_PROMPT_MAX};
    s->logits = calloc((size_t)N_TOKENS * r->n_vocab, sizeof *s->logits);
    assert_non_null(s->logits);
    memset(s->n_right, 0xff, sizeof s->n_right); /* UNKNOWN */
    s->sampling = (qn_sampling){.top_p = 1.0F, .repetition_penalty = 1.0F, .seed = i};
    if (i % 3 == 1) {
        s->sampling.temperature = 0.7F;
        s->sampling.repetition_penalty = 1.1F;
        s->sampling.frequency_penalty = 0.2F;
    }
    for (uint32_t p = 0; p < s->n_prompt; p++) {
        const uint64_t stream = p < 140 && i % 2 == 0 ? 0 : 1 + i;
        s->ids[p] = (int32_t)(qn_rng_u64(3, stream, p) % r->n_vocab);
    }
    s->n_ids = s->n_prompt;
    assert_int_equal(qn_generator_open(&generator, r->t.glm, &options, &err), QN_OK);
    const qn_generator_request request = {.ids = s->ids,
                                          .n_ids = s->n_prompt,
                                          .sampling = &s->sampling,
                                          .max_tokens = N_ANSWER,
                                          .wants_prompt_logits = true};
    qn_generator_begin(generator, &request);
    while (qn_generator_state_of(generator) != QN_GENERATOR_IDLE) {
        assert_int_equal(qn_generator_step(generator, &sink, &err), QN_OK);
    }
    qn_generator_close(&generator);
}

/** Drafts that a sequence alone makes behind token @p p - 1, as many as are right. */
static inline uint32_t story_right(story *s, qn_sequence *alone, uint32_t p)
{
    if (s->n_right[p] == UNKNOWN) {
        const qn_sequence_step_options options = {.with_mtp = true};
        int32_t drafts[QN_DRAFT_TOKENS_MAX];
        qn_sequence_clear(alone);
        for (uint32_t i = 0; i + 1 < p; i++) {
            qn_sequence_append(alone, s->ids[i]);
        }
        qn_sequence_begin(alone, true);
        while (qn_sequence_next_rows(alone, false) > 0) {
            qn_sequence_step(alone, &options);
        }
        qn_sequence_append(alone, s->ids[p - 1]);
        const uint32_t n = qn_sequence_draft(alone, drafts, QN_DRAFT_TOKENS_MAX);
        uint32_t n_right = 0;
        while (n_right < n && s->ids[p + n_right] == drafts[n_right]) {
            n_right++;
        }
        s->n_right[p] = (int32_t)n_right;
    }
    return (uint32_t)s->n_right[p];
}

/** A story that is being told. */
typedef struct telling {
    story *story;
    int32_t ids[N_ROOM]; /**< What the executor may read, and nonsense behind it. */
    qn_executor_request request;
    bool wants_prompt_logits;
    qn_request_id id; /**< 0: it waits. */
    uint32_t n_known; /**< Tokens known. */
    uint32_t n_computed;
    uint32_t n_complete;
    uint32_t n_drafts; /**< Of the step. */
    uint32_t n_told;   /**< Times it was told to its end. */
    bool is_page_published[N_TABLE];
    qn_page_id pages[N_TABLE];
    uint32_t n_pages;
} telling;

/** What is known of a page. */
typedef struct world_page {
    uint32_t n_refs;
    const story *published; /**< Whose tokens it holds; NULL: not published. */
    uint32_t i_page;
} world_page;

/** Everything that a scheduler would know, and chance in its place. */
typedef struct world {
    rig rig;
    qn_executor *executor;
    qn_sequence *alone;
    story stories[N_STORIES];
    telling tellings[N_STORIES]; /**< By slot. */
    world_page pages[N_PAGES];
    qn_step step;
    qn_step_result result;
    uint64_t counter;
    qn_request_id last_id;
    uint32_t n_hits, n_exchanged, n_preempted, n_accepted, n_mixed; /**< That it happened at all. */
} world;

static inline uint32_t world_below(world *w, uint32_t n)
{
    return (uint32_t)(qn_rng_u64(17, 5, w->counter++) % n);
}

static inline void world_open(world *w, const rig_options *options)
{
    memset(w, 0, sizeof *w);
    rig_open(&w->rig, options);
    w->executor = rig_executor(&w->rig);
    qn_error err = {0};
    const qn_sequence_options alone = rig_sequence_options(&w->rig);
    assert_int_equal(qn_sequence_open(&w->alone, w->rig.t.glm, &alone, &err), QN_OK);
    for (uint32_t i = 0; i < N_STORIES; i++) {
        story_init(&w->stories[i], &w->rig, i);
        w->tellings[i].story = &w->stories[i];
    }
}

static inline void world_close(world *w)
{
    for (uint32_t i = 0; i < N_STORIES; i++) {
        free(w->stories[i].logits);
    }
    qn_sequence_close(&w->alone);
    qn_executor_close(&w->executor);
    assert_null(w->executor);
    tiny_close(&w->rig.t);
}

/** A published page with the tokens of page @p i_page of @p s and all before it; UINT32_MAX. */
static inline uint32_t world_find(const world *w, const story *s, uint32_t i_page)
{
    for (uint32_t i = 0; i < N_PAGES; i++) {
        const world_page *const p = &w->pages[i];
        if (p->published != NULL && p->i_page == i_page &&
            memcmp(p->published->ids, s->ids,
                   (size_t)(i_page + 1) * QN_PAGE_TOKENS * sizeof s->ids[0]) == 0) {
            return i;
        }
    }
    return UINT32_MAX;
}

static inline void world_set_page(world *w, uint32_t slot, uint32_t i_page, uint32_t page,
                                  bool is_shared)
{
    telling *const t = &w->tellings[slot];
    w->step.pages[w->step.n_pages++] = (qn_step_page){slot, i_page, page, is_shared};
    w->pages[page].n_refs++;
    t->pages[i_page] = page;
    t->is_page_published[i_page] = is_shared;
    t->n_pages = i_page >= t->n_pages ? i_page + 1 : t->n_pages;
}

/** A page that nobody uses, any published one where it must be. */
static inline uint32_t world_take_page(world *w)
{
    const uint32_t first = world_below(w, N_PAGES);
    for (uint32_t i = 0; i < 2 * N_PAGES; i++) {
        world_page *const p = &w->pages[(first + i) % N_PAGES];
        if (p->n_refs == 0 && (p->published == NULL || i >= N_PAGES)) {
            p->published = NULL;
            return (first + i) % N_PAGES;
        }
    }
    fail_msg("no page");
    return 0;
}

static inline void world_leave(world *w, telling *t)
{
    for (uint32_t i = 0; i < t->n_pages; i++) {
        w->pages[t->pages[i]].n_refs--;
    }
    t->n_pages = 0;
    t->id = 0;
}

/** Publish what is whole, or exchange it for what others have published. */
static inline void world_publish(world *w, uint32_t slot)
{
    telling *const t = &w->tellings[slot];
    for (uint32_t i = 0; (i + 1) * QN_PAGE_TOKENS <= t->n_complete; i++) {
        if (t->is_page_published[i]) {
            continue;
        }
        const uint32_t other = world_find(w, t->story, i);
        if (other == UINT32_MAX) {
            w->step.published[w->step.n_published++] = t->pages[i];
            w->pages[t->pages[i]].published = t->story;
            w->pages[t->pages[i]].i_page = i;
            t->is_page_published[i] = true;
        } else {
            w->pages[t->pages[i]].n_refs--;
            world_set_page(w, slot, i, other, true);
            w->n_exchanged++;
        }
    }
}

static inline void world_begin(world *w, uint32_t slot)
{
    telling *const t = &w->tellings[slot];
    story *const s = t->story;
    t->n_known = t->n_known > s->n_prompt ? t->n_known : s->n_prompt;
    memset(t->ids, 0x7f, sizeof t->ids);
    memcpy(t->ids, s->ids, t->n_known * sizeof s->ids[0]);
    t->request = (qn_executor_request){
        .ids = t->ids, .n_ids = t->n_known, .n_prompt = s->n_prompt, .sampling = &s->sampling};
    t->wants_prompt_logits = world_below(w, 3) == 0;
    t->id = ++w->last_id;
    uint32_t n = 0;
    while ((n + 1) * QN_PAGE_TOKENS < t->n_known) {
        const uint32_t page = world_find(w, s, n);
        if (page == UINT32_MAX || world_below(w, 10) == 0) {
            break;
        }
        world_set_page(w, slot, n, page, true);
        n++;
    }
    w->n_hits += n;
    t->n_computed = t->n_complete = n * QN_PAGE_TOKENS;
    w->step.begins[w->step.n_begins++] = (qn_step_begin){t->id, slot, n * QN_PAGE_TOKENS};
}

/** Rows of one sequence: a chunk of its prompt or a verification. */
static inline void world_order(world *w, uint32_t slot, uint32_t n_rows_left)
{
    telling *const t = &w->tellings[slot];
    qn_step_seq seq = {.request = t->id, .slot = slot};
    t->n_drafts = 0;
    if (t->n_computed < t->request.n_ids) {
        const uint32_t n = t->request.n_ids - t->n_computed;
        const uint32_t n_max = n < n_rows_left ? n : n_rows_left;
        seq.is_prompt = true;
        seq.first = t->n_computed;
        seq.n_rows = world_below(w, 2) == 0 ? n_max : 1 + world_below(w, n_max);
        seq.is_drawing = seq.n_rows == n;
    } else {
        const uint32_t n_max =
            n_rows_left - 1 < QN_DRAFT_TOKENS_MAX ? n_rows_left - 1 : QN_DRAFT_TOKENS_MAX;
        t->n_drafts = w->rig.with_mtp && world_below(w, 3) > 0 ? world_below(w, n_max + 1) : 0;
        seq.n_drafts = t->n_drafts;
        seq.n_rows = 1 + seq.n_drafts;
        seq.is_drawing = true;
    }
    while (t->n_pages * QN_PAGE_TOKENS < t->n_computed + seq.n_rows) {
        world_set_page(w, slot, t->n_pages, world_take_page(w), false);
    }
    w->step.seqs[w->step.n_seqs++] = seq;
    w->step.n_rows += seq.n_rows;
}

static inline void world_plan(world *w)
{
    bool has_prompt = false;
    bool has_answer = false;
    w->step.number++;
    w->step.n_published = w->step.n_begins = w->step.n_pages = w->step.n_seqs = w->step.n_rows = 0;
    for (uint32_t i = 0; i < N_STORIES; i++) {
        telling *const t = &w->tellings[i];
        if (t->id != 0) {
            world_publish(w, i);
            if (world_below(w, 40) == 0) {
                world_leave(w, t);
                w->n_preempted++;
                continue; /* its pages are free for the others at once */
            }
        } else if (world_below(w, 8) == 0) {
            world_begin(w, i);
        }
        if (t->id != 0 && w->step.n_rows < N_STEP_ROWS && world_below(w, 10) > 0) {
            world_order(w, i, N_STEP_ROWS - w->step.n_rows);
            has_prompt = has_prompt || w->step.seqs[w->step.n_seqs - 1].is_prompt;
            has_answer = has_answer || !w->step.seqs[w->step.n_seqs - 1].is_prompt;
        }
    }
    w->n_mixed += has_prompt && has_answer ? 1 : 0;
}

static inline const qn_executor_request *world_find_request(void *context, qn_request_id id)
{
    world *const w = context;
    for (uint32_t i = 0; i < N_STORIES; i++) {
        if (w->tellings[i].id == id) {
            return &w->tellings[i].request;
        }
    }
    return NULL;
}

/** Logits of rows are those of the story. */
static inline void world_check_logits(const world *w, const story *s, const float *logits,
                                      uint32_t first, uint32_t n_rows)
{
    assert_non_null(logits);
    assert_memory_equal(logits, s->logits + (size_t)first * w->rig.n_vocab,
                        (size_t)n_rows * w->rig.n_vocab * sizeof *logits);
}

static inline void world_take(world *w, uint32_t i_seq)
{
    const qn_step_seq *const seq = &w->step.seqs[i_seq];
    const qn_seq_result *const r = &w->result.seqs[i_seq];
    telling *const t = &w->tellings[seq->slot];
    story *const s = t->story;
    const float *const logits = qn_executor_logits(w->executor, i_seq);
    assert_true(r->request == seq->request && !r->is_failed && !r->is_stopped);
    const uint32_t n_before = t->n_known;
    if (seq->is_prompt) {
        assert_int_equal(r->n_tokens, seq->is_drawing ? 1 : 0);
        assert_int_equal(r->n_accepted, 0);
        t->n_computed += seq->n_rows;
        for (uint32_t i = 0; t->wants_prompt_logits && i < seq->n_rows; i += QN_PROMPT_LOGITS_MAX) {
            const uint32_t n_left = seq->n_rows - i;
            const uint32_t n = n_left < QN_PROMPT_LOGITS_MAX ? n_left : QN_PROMPT_LOGITS_MAX;
            world_check_logits(w, s, qn_executor_prompt_logits(w->executor, i_seq, i, n),
                               seq->first + i, n);
        }
        if (seq->is_drawing) {
            world_check_logits(w, s, logits, n_before - 1, 1);
        } else {
            assert_null(logits);
        }
    } else {
        assert_in_range(r->n_tokens, 1, 1 + seq->n_drafts);
        /* Beyond its end a story goes on, but nobody has written down how. */
        const uint32_t n_left = s->n_ids - n_before;
        const uint32_t n = r->n_tokens < n_left ? r->n_tokens : n_left;
        t->n_computed += r->n_tokens;
        world_check_logits(w, s, logits, n_before - 1, n);
        if (seq->n_drafts > 0 && n_before + QN_DRAFT_TOKENS_MAX < s->n_ids) {
            const uint32_t n_right = story_right(s, w->alone, n_before);
            assert_int_equal(r->n_accepted, n_right < seq->n_drafts ? n_right : seq->n_drafts);
        }
        assert_int_equal(r->n_accepted, r->n_tokens - 1);
    }
    for (uint32_t i = 0; i < r->n_tokens && t->n_known < s->n_ids; i++) {
        assert_int_equal(r->tokens[i], s->ids[t->n_known]);
        t->n_known++;
    }
    w->n_accepted += r->n_accepted;
    assert_true(r->n_complete >= t->n_complete && r->n_complete <= t->n_computed);
    assert_true(r->n_complete / 16 == t->n_computed / 16);
    assert_true(w->rig.with_mtp || r->n_complete == t->n_computed);
    t->n_complete = r->n_complete;
    if (t->n_known == s->n_ids) {
        if (r->n_complete > s->n_ids) {
            t->n_complete = s->n_ids;
        }
        world_leave(w, t);
        t->n_told++;
        t->n_known = 0;
    }
}

/** One step, checked. */
static inline void world_step(world *w)
{
    world_plan(w);
    qn_executor_submit(w->executor, &w->step, world_find_request, w);
    qn_executor_collect(&w->result, w->executor);
    assert_true(w->result.number == w->step.number);
    assert_int_equal(w->result.outcome, QN_STEP_DONE);
    assert_int_equal(w->result.n_seqs, w->step.n_seqs);
    for (uint32_t i = 0; i < w->step.n_seqs; i++) {
        world_take(w, i);
    }
}
#endif

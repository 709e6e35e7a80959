/* SPDX-License-Identifier: Apache-2.0 */
/* The passes of a step on a GPU, queued one by one or as graphs. */
#include "engine/executor_gpu.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/minmax.h"

/* Rows of a graph. */
static const uint32_t sizes[QN_PASS_SIZES] = {1,    2,    4,    8,    16,   24,   32,   48,
                                              64,   96,   128,  192,  256,  384,  512,  768,
                                              1024, 1536, 2048, 3072, 4096, 6144, 8192, 9216};

/* Place among the sizes; QN_PASS_SIZES: it is too large. */
static uint32_t size_of(uint32_t n_rows)
{
    uint32_t i = 0;
    while (i < QN_PASS_SIZES && sizes[i] < n_rows) {
        i++;
    }
    return i;
}

uint32_t qn_gpu_steps_round(uint32_t n_rows, uint32_t n_rows_max)
{
    const uint32_t i = size_of(n_rows);
    return n_rows > 0 && i < QN_PASS_SIZES ? qn_min_u32(sizes[i], n_rows_max) : n_rows;
}

/* Contexts are rounded up to what needs no indexer, to 4 times as much and so on up to the model's.
 */
uint32_t qn_gpu_steps_extent(uint32_t n_topk, uint32_t n_max, uint32_t *n_positions)
{
    uint32_t i = 0;
    uint64_t n = n_topk;
    while (n < *n_positions && i + 1 < QN_PASS_EXTENTS) {
        n *= 4;
        i++;
    }
    /* The last is for whatever is longer: a graph has one number of positions. */
    *n_positions = i + 1 < QN_PASS_EXTENTS && n < n_max ? (uint32_t)n : n_max;
    return i;
}

/* The extent behind one, all zero: the first that contexts of whole pages have; false: none is. */
static bool next_extent(const qn_executor *e, qn_gpu_extent *x)
{
    if (x->n_positions == e->n_positions_max) {
        return false;
    }
    x->n_positions = qn_min_u32(x->n_positions + QN_PAGE_TOKENS, e->n_positions_max);
    x->i_extent = qn_gpu_steps_extent(e->n_topk, e->n_positions_max, &x->n_positions);
    return true;
}

/* ------------------------------------------------------------------------------------- pieces --
 */

static qn_gpu_batch batch_of(const qn_executor *e, uint32_t n_rows)
{
    const qn_gpu_steps *const g = e->gpu;
    return (qn_gpu_batch){.tokens = g->tokens,
                          .positions = g->positions,
                          .seqs = g->slots_of,
                          .page_tables = g->page_tables,
                          .n_rows = n_rows,
                          .n_table_pages = e->n_table_pages,
                          .n_positions_max = g->extent.n_positions};
}

static bool has_prompts(const qn_gpu_steps *g)
{
    return g->extent.n_rows > g->extent.n_answer_rows;
}

/* Rows of a pass; of the trunk's also how they are drawn. */
static void make_rows(const qn_executor *e, bool is_chain, uint32_t n_rows, uint32_t n_logits,
                      uint32_t i_draft)
{
    const qn_gpu_steps *const g = e->gpu;
    qn_gpu_step_rows(&g->glm->ops, &(qn_gpu_step_rows_args){
                                       .tokens = g->tokens,
                                       .positions = g->positions,
                                       .slots_of = g->slots_of,
                                       .page_tokens = g->page_tokens,
                                       .page_tables = g->page_tables,
                                       .places = is_chain ? g->orders.chain : g->orders.trunk,
                                       .seqs = g->orders.seqs,
                                       .slots = g->slots,
                                       .given = g->orders.given,
                                       .drafts = g->drafts,
                                       .settings = g->settings,
                                       .logit_rows = has_prompts(g) ? g->orders.logit_rows : NULL,
                                       .stream = QN_STREAM_TARGET_TOKEN,
                                       .n_rows = n_rows,
                                       .n_logits = n_logits,
                                       .n_chains_max = e->n_slots,
                                       .is_chain = is_chain,
                                       .i_draft = i_draft,
                                       .n_table_pages = e->n_table_pages,
                                   });
}

/* Biases, stop ids and penalties of rows of the trunk's pass, NULL: those from @p first on. */
static void adjust_rows(const qn_executor *e, const uint32_t *rows, uint32_t first, uint32_t n_rows)
{
    const qn_gpu_steps *const g = e->gpu;
    const uint32_t first_row = rows != NULL ? 0 : first;
    qn_gpu_adjust(&g->glm->ops, &(qn_gpu_adjust_args){
                                    .logits = g->glm->ws.logits,
                                    .logit_rows = rows != NULL ? rows + first : NULL,
                                    .positions = g->positions + first_row,
                                    .slots_of = g->slots_of + first_row,
                                    .slots = g->slots,
                                    .biases = g->orders.biases,
                                    .page_tables = g->page_tables,
                                    .page_tokens = g->page_tokens,
                                    .logits_stride = e->n_vocab,
                                    .n_rows = n_rows,
                                    .n_vocab = e->n_vocab,
                                    .n_table_pages = e->n_table_pages,
                                });
}

/*
 * Draw from the logits of rows of ws.hidden, NULL: the first, as many at once as there is room.
 * Drafts are what the MTP layer says: what a request asks for is for the trunk's draws.
 */
static void draw_rows(const qn_executor *e, bool is_chain, const uint32_t *rows, uint32_t n_rows,
                      int32_t *drawn)
{
    const qn_gpu_steps *const g = e->gpu;
    const qn_gpu_sampling *const settings = is_chain ? g->greedy : g->settings;
    const uint32_t n_most = qn_min_u32(g->glm->ws.n_logit_rows, QN_SAMPLE_ROWS);
    for (uint32_t first = 0; first < n_rows; first += n_most) {
        const uint32_t n = qn_min_u32(n_most, n_rows - first);
        qn_gpu_glm_head(g->glm, rows != NULL ? rows + first : NULL, rows != NULL ? 0 : first, n);
        if (!is_chain) {
            adjust_rows(e, rows, first, n);
        }
        qn_gpu_sample(&g->glm->ops, &(qn_gpu_sample_args){
                                        .tokens = drawn + first,
                                        .logits = g->glm->ws.logits,
                                        .settings = settings + first,
                                        .scratch = g->sample_scratch,
                                        .logits_stride = e->n_vocab,
                                        .n_rows = n,
                                        .n_vocab = e->n_vocab,
                                    });
    }
}

/* ------------------------------------------------------------------------------------- passes */

/* The draft of each chain behind those that it has. */
static void queue_chain(const qn_executor *e, uint32_t i_draft, uint32_t n_rows)
{
    const qn_gpu_steps *const g = e->gpu;
    qn_gpu_glm *const glm = g->glm;
    const qn_gpu_batch batch = batch_of(e, n_rows);
    if (i_draft == 0) {
        qn_gpu_step_chain(&glm->ops, &(qn_gpu_step_chain_args){.y = glm->ws.hidden_prev,
                                                               .kept = g->kept,
                                                               .places = g->orders.chain,
                                                               .seqs = g->orders.seqs,
                                                               .n_rows = n_rows,
                                                               .n_embd = e->n_embd});
    } else {
        qn_gpu_copy(glm->stream, glm->ws.hidden_prev, glm->ws.hidden,
                    (size_t)n_rows * e->n_embd * sizeof(float));
    }
    make_rows(e, true, n_rows, 0, i_draft);
    /* Sets that chains share are still those of their first rows, at the same places. */
    qn_gpu_glm_mtp(glm, &e->pages.kv, &batch, i_draft > 0 && e->shares_sets, NULL);
    draw_rows(e, true, NULL, n_rows, g->drafts + (size_t)i_draft * e->n_slots);
}

static void queue_trunk(const qn_executor *e, uint32_t n_rows)
{
    const qn_gpu_steps *const g = e->gpu;
    const bool with_prompts = has_prompts(g);
    const uint32_t n_logits = with_prompts ? g->extent.n_logits : n_rows;
    const qn_gpu_batch batch = batch_of(e, n_rows);
    make_rows(e, false, n_rows, n_logits, 0);
    qn_gpu_glm_trunk(g->glm, &e->pages.kv, &batch, NULL);
    qn_gpu_copy(g->glm->stream, g->hidden, g->glm->ws.hidden,
                (size_t)n_rows * e->n_embd * sizeof(float));
    draw_rows(e, false, with_prompts ? g->orders.logit_rows : NULL, n_logits, g->drawn);
}

static void queue_follow(const qn_executor *e, uint32_t n_rows)
{
    const qn_gpu_steps *const g = e->gpu;
    const qn_gpu_batch batch = batch_of(e, n_rows);
    qn_gpu_step_follow(&g->glm->ops, &(qn_gpu_step_follow_args){.positions = g->positions,
                                                                .y = g->glm->ws.hidden_prev,
                                                                .x = g->hidden,
                                                                .kept = g->kept,
                                                                .places = g->orders.trunk,
                                                                .seqs = g->orders.seqs,
                                                                .slots = g->slots,
                                                                .n_rows = n_rows,
                                                                .n_embd = e->n_embd});
    qn_gpu_glm_mtp_cache(g->glm, &e->pages.kv, &batch);
    qn_gpu_step_keep(&g->glm->ops, &(qn_gpu_step_keep_args){.kept = g->kept,
                                                            .x = g->hidden,
                                                            .places = g->orders.trunk,
                                                            .seqs = g->orders.seqs,
                                                            .slots = g->slots,
                                                            .n_rows = n_rows,
                                                            .n_embd = e->n_embd});
}

static void queue(const qn_executor *e, uint32_t pass, uint32_t n_rows)
{
    switch (pass) {
    case QN_PASS_TRUNK: queue_trunk(e, n_rows); break;
    case QN_PASS_FOLLOW: queue_follow(e, n_rows); break;
    default: queue_chain(e, pass - QN_PASS_CHAIN, n_rows); break;
    }
}

/* ------------------------------------------------------------------------------------- graphs */

static const char *name_of(uint32_t pass)
{
    return pass == QN_PASS_TRUNK ? "trunk" : pass == QN_PASS_FOLLOW ? "follow" : "draft";
}

/* Drafts behind the first may have fewer: they share what the indexer chose. */
static void note_launches(qn_gpu_steps *g, uint32_t pass, const qn_gpu_graph *graph)
{
    qn_pass_launches *const to = &g->launches;
    uint32_t *const counts[] = {
        [QN_PASS_TRUNK] = &to->trunk, [QN_PASS_FOLLOW] = &to->follow, [QN_PASS_CHAIN] = &to->draft};
    if (pass <= QN_PASS_CHAIN) {
        *counts[pass] = (uint32_t)qn_gpu_graph_count(graph);
    }
}

/* A pass that cannot be captured is queued as it is for some time: the reason may have passed. */
static bool capture(qn_executor *e, uint32_t pass, uint32_t n_rows, qn_gpu_capture *to)
{
    qn_gpu_steps *const g = e->gpu;
    qn_error err = {0};
    qn_gpu_capture_begin(g->glm->stream);
    queue(e, pass, n_rows);
    if (qn_gpu_capture_end(&to->graph, g->glm->stream, &err) < 0) {
        qn_log(QN_LOG_WARN, "a pass (%s) of %u rows is not captured: %s", name_of(pass), n_rows,
               err.text);
        to->n_plain = QN_PASS_RETRY;
        return false;
    }
    note_launches(g, pass, to->graph);
    qn_log(QN_LOG_DEBUG, "graph: pass=%s rows=%u positions=%u launches=%zu", name_of(pass), n_rows,
           g->extent.n_positions, qn_gpu_graph_count(to->graph));
    return true;
}

void qn_gpu_steps_drop_graphs(qn_gpu_steps *g)
{
    qn_gpu_capture *const captures = &g->captures[0][0][0];
    for (size_t i = 0; i < sizeof g->captures / sizeof *captures; i++) {
        qn_gpu_graph_close(&captures[i].graph);
        captures[i].n_plain = 0;
    }
}

/* Queue a pass: the trunk's with prompts has any number of rows, others one that graphs have.  What
 * open did not capture is captured here: it could not, was not to, or did so for a workspace of
 * before. */
static void launch(qn_executor *e, uint32_t pass, uint32_t n_rows)
{
    qn_gpu_steps *const g = e->gpu;
    const uint32_t i_size = size_of(n_rows);
    if (g->status < 0) { /* it was told, and the stream takes work again */
        return;
    }
    if (g->without_graphs || has_prompts(g) || i_size == QN_PASS_SIZES) {
        queue(e, pass, n_rows);
        return;
    }
    qn_gpu_capture *const c = &g->captures[pass][i_size][g->extent.i_extent];
    if (c->n_plain > 0) {
        c->n_plain--;
    } else if (c->graph == NULL) {
        if (qn_gpu_steps_note(g) < 0) { /* a capture would take what failed before for its own */
            return;
        }
        (void)capture(e, pass, n_rows, c);
    }
    if (c->graph != NULL) {
        qn_gpu_graph_launch(g->glm->stream, c->graph);
        note_launches(g, pass, c->graph);
    } else {
        queue(e, pass, n_rows);
    }
}

/* Numbers of rows that graphs have. */
static uint32_t count_sizes(const qn_executor *e)
{
    return qn_min_u32(size_of(e->n_logit_rows) + 1, QN_PASS_SIZES);
}

/* Passes that there are of a number of rows, the first of them. */
static uint32_t count_passes(const qn_executor *e, uint32_t i_size)
{
    const bool has_chains = size_of(qn_min_u32(sizes[i_size], e->n_slots)) == i_size;
    return !e->with_mtp ? 1 : has_chains ? QN_N_PASSES : QN_PASS_CHAIN;
}

uint64_t qn_gpu_steps_measure_graphs(const qn_executor *e, uint32_t n_layers)
{
    uint64_t n = 0; /* layers of graphs of one extent; passes but the trunk are of one */
    uint64_t n_extents = 0;
    for (uint32_t i = 0; i < count_sizes(e); i++) {
        n += n_layers + count_passes(e, i) - 1;
    }
    for (qn_gpu_extent x = {0}; next_extent(e, &x);) {
        n_extents++;
    }
    return n_extents * n * QN_PASS_LAYER_BYTES;
}

/* All passes of g->extent, counted in @p n_graphs; false: it stopped at one that cannot be. */
static bool capture_extent(qn_executor *e, uint32_t *n_graphs)
{
    qn_gpu_steps *const g = e->gpu;
    for (uint32_t i = 0; i < count_sizes(e); i++) {
        for (uint32_t pass = 0; pass < count_passes(e, i); pass++) {
            const uint32_t n_rows =
                qn_min_u32(sizes[i], pass < QN_PASS_CHAIN ? e->n_logit_rows : e->n_slots);
            if (!capture(e, pass, n_rows, &g->captures[pass][i][g->extent.i_extent])) {
                return false;
            }
            (*n_graphs)++;
        }
    }
    return true;
}

void qn_gpu_steps_capture(qn_executor *e)
{
    qn_gpu_steps *const g = e->gpu;
    const uint64_t start_ns = qn_clock_ns();
    uint64_t told_ns = start_ns;
    const uint64_t free_bytes = qn_gpu_free_bytes(g->glm->gpu);
    uint32_t n_graphs = 0;
    uint32_t n_extents = 0;
    uint32_t n_positions = 0;
    g->extent = (qn_gpu_extent){0};
    g->n_reserves = g->glm->n_reserves;
    while (next_extent(e, &g->extent)) {
        if (qn_clock_seconds(told_ns, qn_clock_ns()) > 1.0) {
            told_ns = qn_clock_ns();
            qn_log(QN_LOG_INFO, "graphs: n=%u so far, positions=%u of %u", n_graphs, n_positions,
                   e->n_positions_max);
        }
        if (!capture_extent(e, &n_graphs)) {
            break;
        }
        n_extents++;
        n_positions = g->extent.n_positions;
    }
    const uint64_t left_bytes = qn_gpu_free_bytes(g->glm->gpu);
    qn_log(QN_LOG_INFO,
           "graphs: n=%u extents=%u rows=%u positions=%u trunk_launches=%u draft_launches=%u "
           "follow_launches=%u bytes=%llu capture_s=%.2f",
           n_graphs, n_extents, e->n_logit_rows, n_positions, g->launches.trunk, g->launches.draft,
           g->launches.follow,
           (unsigned long long)(free_bytes > left_bytes ? free_bytes - left_bytes : 0),
           qn_clock_seconds(start_ns, qn_clock_ns()));
}

/* ------------------------------------------------------------------------------------- steps */

void qn_gpu_steps_draft(qn_executor *e, const qn_gpu_orders *host)
{
    const qn_gpu_extent *const x = &e->gpu->extent;
    uint32_t n = x->n_chains;
    for (uint32_t i_draft = 0; i_draft < x->depth; i_draft++) {
        while (host->seqs[host->chain[n - 1]].n_drafts <= i_draft) {
            n--; /* the deepest come first */
        }
        launch(e, QN_PASS_CHAIN + i_draft, qn_gpu_steps_round(n, e->n_slots));
    }
}

void qn_gpu_steps_trunk(qn_executor *e)
{
    launch(e, QN_PASS_TRUNK, e->gpu->extent.n_rows);
}

void qn_gpu_steps_follow(qn_executor *e)
{
    launch(e, QN_PASS_FOLLOW, e->gpu->extent.n_rows);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every layer, every choice and the log-probabilities of every position against transformers in
 * f32.  docs/testing.md says which ids are compared where, and why that is enough.
 *
 * Near ties in a top-k would make the comparison a lottery, so the golden choices are injected; at
 * each decision our own choice, made from the same input, may differ only where the gap between the
 * last chosen and the first refused score is below 1e-5.
 */
#include "engine/sequence.h"
#include "golden.h"
#include "model/internal.h"
#include "support/packed.h"

#include <math.h>

#define GAP_MAX     1e-5F
#define LOGPROB_MAX 1e-4
/*
 * Difference of a hidden state that one more layer may add, relative to the row's largest element
 * or to 1; the embedding is exact.  f32 sums in another order differ by a third of this.
 */
#define HIDDEN_PER_BLOCK 1.5e-6
#define STORED_MAX       1e-5 /* what a stored f32 hidden state says of its lse, in f64 */

enum { ROWS_MAX = 4096 + 8, REPORTS_MAX = 5 };

/* One prompt on its way through the model. */
typedef struct run {
    golden g;
    uint32_t n_rows;  /* prompt tokens */
    uint32_t first;   /* position of the first row of the current batch */
    uint32_t shift;   /* rows of golden arrays are position - shift: 1 for MTP */
    uint32_t n_wrong; /* differences reported */
    uint32_t n_ties;  /* own choices that differed within the gap */
    char first_wrong[160];
    double worst_hidden;  /* relative, as HIDDEN_PER_BLOCK is */
    double worst_logprob; /* over the probed ids of every position */
    double worst_lse;     /* over every position */
    double worst_all;     /* over every id at the positions with a hidden state */
    float *hidden;        /* [n_rows][n_embd] of the trunk */
} run;

__attribute__((format(printf, 2, 3))) static void report(run *r, const char *format, ...)
{
    va_list args;
    if (r->n_wrong == 0) {
        va_start(args, format);
        (void)vsnprintf(r->first_wrong, sizeof r->first_wrong, format, args);
        va_end(args);
    }
    va_start(args, format);
    if (r->n_wrong++ < REPORTS_MAX) {
        (void)fprintf(stderr, "%s: ", r->g.name);
        (void)vfprintf(stderr, format, args);
        (void)fprintf(stderr, "\n");
    }
    va_end(args);
}

static size_t place_of(const golden *g, const char *list, int32_t i_layer)
{
    const qn_tensor *tensor = golden_tensor(g, list);
    for (size_t i = 0; i < tensor->shape[0]; i++) {
        if (golden_i32(g, list)[i] == i_layer) {
            return i;
        }
    }
    (void)fprintf(stderr, "%s: no layer %d in %s\n", g->name, i_layer, list);
    abort();
}

static void compare_row(run *r, const char *what, int32_t i_layer, uint32_t position,
                        const float *got, const float *want)
{
    const uint32_t n = r->g.config.n_embd;
    float size = 1.0F;
    float worst = 0.0F;
    for (uint32_t i = 0; i < n; i++) {
        const float off = fabsf(got[i] - want[i]);
        size = fabsf(want[i]) > size ? fabsf(want[i]) : size;
        worst = off <= worst ? worst : off; /* NaN becomes the worst */
    }
    const double bound = HIDDEN_PER_BLOCK * (i_layer < 0 ? 0 : i_layer + 2);
    const double relative = (double)(worst / size);
    r->worst_hidden = relative <= r->worst_hidden ? r->worst_hidden : relative;
    if (!(relative <= bound)) {
        report(r,
               "%s of layer %d at position %u: off by %.2g of the row's largest, at most %.2g "
               "expected",
               what, i_layer, position, relative, bound);
    }
}

static void check_hidden(void *context, int32_t i_layer, const float *x)
{
    run *r = context;
    const golden *g = &r->g;
    const size_t n_embd = g->config.n_embd;
    const size_t n_kept = golden_tensor(g, "hidden_rows")->shape[0];
    const int32_t *rows = golden_i32(g, "hidden_rows");
    if (i_layer >= (int32_t)g->config.n_layers) {
        return; /* the MTP layer's output is compared after its own norm */
    }
    for (size_t i = 0; i < n_kept; i++) {
        const uint32_t row = (uint32_t)rows[i];
        if (row >= r->first && row < r->first + GOLDEN_CHUNK && row < r->n_rows) {
            compare_row(r, "hidden state", i_layer, row, x + (row - r->first) * n_embd,
                        golden_f32(g, "hidden") + ((size_t)(i_layer + 1) * n_kept + i) * n_embd);
        }
    }
}

static bool holds(const int32_t *list, uint32_t n, int32_t value)
{
    for (uint32_t i = 0; i < n; i++) {
        if (list[i] == value) {
            return true;
        }
    }
    return false;
}

static void check_router(void *context, int32_t i_layer, uint32_t i_row, int32_t *experts,
                         const float *scores)
{
    (void)scores;
    run *r = context;
    const uint32_t n_used = r->g.config.n_experts_used;
    const size_t at =
        place_of(&r->g, "router_layers", i_layer) * r->n_rows + r->first + i_row - r->shift;
    const uint8_t *want = golden_tensor(&r->g, "router_experts")->data + at * n_used;
    const float gap = golden_f32(&r->g, "router_gaps")[at];
    bool differs = false;
    for (uint32_t i = 0; i < n_used; i++) {
        differs = differs || !holds(experts, n_used, want[i]);
    }
    if (differs && gap >= GAP_MAX) {
        report(r, "router of layer %d at position %u: other experts at a gap of %g", i_layer,
               r->first + i_row, (double)gap);
    }
    r->n_ties += differs ? 1 : 0;
    for (uint32_t i = 0; i < n_used; i++) {
        experts[i] = want[i];
    }
}

static int32_t hash_set(const int32_t *set, uint32_t n)
{
    uint32_t hash = 2166136261U; /* FNV-1a over little-endian i32 */
    for (uint32_t i = 0; i < n; i++) {
        for (int byte = 0; byte < 4; byte++) {
            hash = (hash ^ (((uint32_t)set[i] >> (8 * byte)) & 255U)) * 16777619U;
        }
    }
    return (int32_t)hash;
}

static int by_value(const void *a, const void *b)
{
    return *(const int32_t *)a - *(const int32_t *)b;
}

/* Take the golden side for each contested position: p is in, -1 - p is out. */
static uint32_t settle(const int32_t *contested, size_t n_contested, int32_t *set, uint32_t n)
{
    for (size_t i = 0; i < n_contested; i++) {
        const int32_t position = contested[i] < 0 ? -1 - contested[i] : contested[i];
        uint32_t kept = 0;
        for (uint32_t k = 0; k < n; k++) {
            if (set[k] != position) {
                set[kept++] = set[k];
            }
        }
        n = kept;
    }
    for (size_t i = 0; i < n_contested; i++) {
        if (contested[i] >= 0) {
            set[n++] = contested[i];
        }
    }
    qsort(set, n, sizeof *set, by_value);
    return n;
}

static void check_index(void *context, int32_t i_layer, uint32_t i_row, int32_t *set,
                        uint32_t n_set, const float *scores)
{
    (void)scores;
    run *r = context;
    const size_t at =
        place_of(&r->g, "index_layers", i_layer) * r->n_rows + r->first + i_row - r->shift;
    const int32_t want = golden_i32(&r->g, "index_hashes")[at];
    if (hash_set(set, n_set) == want) {
        return;
    }
    int32_t mended[4096];
    const int32_t *starts = golden_i32(&r->g, "contested_starts");
    const size_t n_contested = (size_t)(starts[at + 1] - starts[at]);
    assert_true(n_set + n_contested <= sizeof mended / sizeof *mended);
    memcpy(mended, set, n_set * sizeof *set);
    const uint32_t n =
        settle(golden_i32(&r->g, "contested") + starts[at], n_contested, mended, n_set);
    const float gap = golden_f32(&r->g, "index_gaps")[at];
    if (n != n_set || hash_set(mended, n) != want || gap >= GAP_MAX) {
        report(r, "index set of layer %d at position %u: another set at a gap of %g", i_layer,
               r->first + i_row, (double)gap);
        return;
    }
    r->n_ties++;
    memcpy(set, mended, n_set * sizeof *set);
}

static double lse_of(const float *logits, uint32_t n)
{
    double max = (double)-INFINITY;
    double sum = 0.0;
    for (uint32_t i = 0; i < n; i++) {
        max = (double)logits[i] > max ? (double)logits[i] : max;
    }
    for (uint32_t i = 0; i < n; i++) {
        sum += exp((double)logits[i] - max);
    }
    return max + log(sum);
}

/* |got - want| within the bound, else a report; keeps the largest.  NaN is the worst. */
static void check_value(run *r, double *worst, double got, double want, const char *what,
                        int32_t id, uint32_t row)
{
    const double off = fabs(got - want);
    *worst = off <= *worst ? *worst : off;
    if (!(off <= LOGPROB_MAX)) {
        report(r, "%s %d at position %u: off by %g, at most %g expected", what, id, row, off,
               LOGPROB_MAX);
    }
}

/*
 * Logits in f64 of a golden state: of the residual stream before the final norm, or, without a
 * norm, of the state that lm_head takes.  Returns their log-sum-exp.
 */
static double golden_logits(const run *r, const float *state, const float *norm, double *logits)
{
    const qn_glm *m = r->g.glm;
    const uint32_t n_embd = m->config.n_embd;
    const uint32_t n_vocab = m->config.n_vocab;
    float *weights = malloc(n_embd * sizeof *weights);
    assert_non_null(weights);
    double squares = 0.0;
    for (uint32_t k = 0; k < n_embd; k++) {
        squares += (double)state[k] * (double)state[k];
    }
    const double scale = 1.0 / sqrt(squares / n_embd + (double)m->config.rms_eps);
    double max = (double)-INFINITY;
    for (uint32_t i = 0; i < n_vocab; i++) {
        unpack_row(weights, &m->weights.lm_head, i);
        logits[i] = 0.0;
        for (uint32_t k = 0; k < n_embd; k++) {
            const double normed = norm == NULL ? 1.0 : scale * (double)norm[k];
            logits[i] += (double)state[k] * normed * (double)weights[k];
        }
        max = logits[i] > max ? logits[i] : max;
    }
    free(weights);
    double sum = 0.0;
    for (uint32_t i = 0; i < n_vocab; i++) {
        sum += exp(logits[i] - max);
    }
    return max + log(sum);
}

/* Every id of a row whose state is stored: the state, in f64, gives the golden logits. */
static void check_all_ids(run *r, bool is_mtp, size_t i_kept, uint32_t row, const float *logits)
{
    const golden *g = &r->g;
    const uint32_t n_vocab = g->config.n_vocab;
    const size_t n_kept = golden_tensor(g, "hidden_rows")->shape[0];
    const float *state = is_mtp ? golden_f32(g, "mtp_hidden") + i_kept * g->config.n_embd
                                : golden_f32(g, "hidden") + (g->config.n_layers * n_kept + i_kept) *
                                                                (size_t)g->config.n_embd;
    double *want = malloc(n_vocab * sizeof *want);
    assert_non_null(want);
    const double want_lse = golden_logits(r, state, is_mtp ? NULL : g->glm->weights.norm, want);
    const double got_lse = lse_of(logits, n_vocab);
    /* The oracle is held against transformers too, or a wrong head could agree with itself. */
    if (!is_mtp && !(fabs(want_lse - (double)golden_f32(g, "lse")[row]) <= STORED_MAX)) {
        report(r, "final norm or lm_head of the test at position %u: lse %.9g, stored %.9g", row,
               want_lse, (double)golden_f32(g, "lse")[row]);
    }
    for (uint32_t i = 0; i < n_vocab; i++) {
        check_value(r, &r->worst_all, (double)logits[i] - got_lse, want[i] - want_lse,
                    is_mtp ? "MTP log-probability of id" : "log-probability of id", (int32_t)i,
                    row);
    }
    free(want);
}

/* One row: log-sum-exp, the probed ids, and every id where the golden state is stored. */
static void check_logits(run *r, bool is_mtp, uint32_t row, const float *logits)
{
    const golden *g = &r->g;
    const char *ids_name = is_mtp ? "mtp_probe_ids" : "probe_ids";
    const uint64_t n_probes = golden_tensor(g, ids_name)->shape[1];
    const int32_t *ids = golden_i32(g, ids_name) + row * n_probes;
    const float *values =
        golden_f32(g, is_mtp ? "mtp_probe_logprobs" : "probe_logprobs") + row * n_probes;
    const double lse = lse_of(logits, g->config.n_vocab);
    if (!is_mtp) {
        check_value(r, &r->worst_lse, lse, (double)golden_f32(g, "lse")[row],
                    "log-sum-exp after layer", (int32_t)g->config.n_layers - 1, row);
    }
    for (uint64_t i = 0; i < n_probes; i++) {
        check_value(r, &r->worst_logprob, (double)logits[ids[i]] - lse, (double)values[i],
                    is_mtp ? "MTP log-probability of id" : "log-probability of id", ids[i], row);
    }
    const size_t n_kept = golden_tensor(g, "hidden_rows")->shape[0];
    for (size_t i = 0; i < n_kept; i++) {
        if (golden_i32(g, "hidden_rows")[i] == (int32_t)row) {
            check_all_ids(r, is_mtp, i, row, logits);
        }
    }
}

/* Rows position .. position + n - 1 of one sequence, all logits wanted. */
typedef struct rows {
    int32_t positions[GOLDEN_CHUNK], seqs[GOLDEN_CHUNK];
    uint32_t wanted[GOLDEN_CHUNK];
} rows;

static qn_batch make_batch(const run *r, rows *storage, const int32_t *tokens, uint32_t position,
                           uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        storage->positions[i] = (int32_t)(position + i);
        storage->seqs[i] = 0;
        storage->wanted[i] = i;
    }
    return (qn_batch){n,          tokens, storage->positions, storage->seqs,
                      r->g.pages, 1,      r->g.kv.n_pages,    storage->wanted,
                      n};
}

/* The most likely id, which the next step of the golden pass took. */
static void check_argmax(run *r, const char *what, const float *logits, int32_t want)
{
    int32_t best = 0;
    for (uint32_t i = 1; i < r->g.config.n_vocab; i++) {
        best = logits[i] > logits[best] ? (int32_t)i : best;
    }
    if (best != want) {
        report(r, "%s: id %d, %d expected", what, best, want);
    }
}

static void run_trunk(run *r, const qn_probe *probe, float *logits)
{
    rows storage;
    const int32_t *ids = golden_i32(&r->g, "ids");
    const size_t n_vocab = r->g.config.n_vocab;
    for (r->first = 0; r->first < r->n_rows; r->first += GOLDEN_CHUNK) {
        const uint32_t left = r->n_rows - r->first;
        const uint32_t n = left < GOLDEN_CHUNK ? left : GOLDEN_CHUNK;
        const qn_batch batch = make_batch(r, &storage, ids + r->first, r->first, n);
        qn_glm_forward(r->g.glm, &r->g.kv, &batch,
                       r->hidden + (size_t)r->first * r->g.config.n_embd, logits, probe);
        for (uint32_t i = 0; i < n; i++) {
            check_logits(r, false, r->first + i, logits + i * n_vocab);
        }
        if (r->first + n == r->n_rows) {
            check_argmax(r, "next token", logits + (n - 1) * n_vocab,
                         golden_i32(&r->g, "next_token")[0]);
        }
    }
}

static void check_mtp_output(run *r, uint32_t row, const float *hidden)
{
    const golden *g = &r->g;
    const size_t n_kept = golden_tensor(g, "hidden_rows")->shape[0];
    for (size_t k = 0; k < n_kept; k++) {
        if (golden_i32(g, "hidden_rows")[k] == (int32_t)row) {
            compare_row(r, "MTP output", (int32_t)g->config.n_layers, row + 1, hidden,
                        golden_f32(g, "mtp_hidden") + k * g->config.n_embd);
        }
    }
}

/* MTP rows 1 .. n_rows; leaves g and the index set of the last one. */
static void run_mtp(run *r, const qn_probe *probe, float *logits, float *last_g,
                    const qn_index_sets *last_set)
{
    rows storage;
    const golden *g = &r->g;
    const size_t n_embd = g->config.n_embd;
    const size_t n_topk = g->config.index_topk;
    int32_t *tokens = malloc(r->n_rows * sizeof *tokens);
    float *hidden = malloc(GOLDEN_CHUNK * n_embd * sizeof *hidden);
    int32_t *sets = malloc(GOLDEN_CHUNK * n_topk * sizeof *sets);
    uint32_t n_sets[GOLDEN_CHUNK];
    if (tokens == NULL || hidden == NULL || sets == NULL) {
        abort();
    }
    memcpy(tokens, golden_i32(g, "ids") + 1, (r->n_rows - 1) * sizeof *tokens);
    tokens[r->n_rows - 1] = golden_i32(g, "next_token")[0];
    const qn_index_sets keep = {sets, n_sets};
    r->shift = 1;
    for (r->first = 1; r->first <= r->n_rows; r->first += GOLDEN_CHUNK) {
        const uint32_t left = r->n_rows + 1 - r->first;
        const uint32_t n = left < GOLDEN_CHUNK ? left : GOLDEN_CHUNK;
        const qn_batch batch = make_batch(r, &storage, tokens + r->first - 1, r->first, n);
        const qn_mtp_io io = {.hidden_prev = r->hidden + (r->first - 1) * n_embd,
                              .keep = &keep,
                              .hidden = hidden,
                              .logits = logits};
        qn_glm_mtp(g->glm, &g->kv, &batch, &io, probe);
        for (uint32_t i = 0; i < n; i++) {
            const uint32_t row = r->first + i - 1;
            check_logits(r, true, row, logits + (size_t)i * g->config.n_vocab);
            check_mtp_output(r, row, hidden + i * n_embd);
        }
        if (r->first + n > r->n_rows) {
            check_argmax(r, "draft 0", logits + (size_t)(n - 1) * g->config.n_vocab,
                         golden_i32(g, "drafts")[0]);
        }
        memcpy(last_g, hidden + (n - 1) * n_embd, n_embd * sizeof *hidden);
        memcpy(last_set->sets, sets + (n - 1) * n_topk, n_topk * sizeof *sets);
        last_set->n_sets[0] = n_sets[n - 1];
    }
    free(tokens);
    free(hidden);
    free(sets);
}

/* Drafts chained from the last row, with its index set where the model shares it. */
static void run_chain(run *r, float *logits, float *g_row, const qn_index_sets *set)
{
    rows storage;
    const golden *g = &r->g;
    const int32_t *drafts = golden_i32(g, "drafts");
    const uint64_t n_drafts = golden_tensor(g, "drafts")->shape[0];
    const size_t n_embd = g->config.n_embd;
    char what[32];
    for (uint32_t k = 0; k < n_drafts; k++) {
        compare_row(r, "draft", (int32_t)g->config.n_layers, r->n_rows + k, g_row,
                    golden_f32(g, "chain_hidden") + k * n_embd);
        if (k + 1 == n_drafts) {
            break;
        }
        const qn_batch batch = make_batch(r, &storage, &drafts[k], r->n_rows + 1 + k, 1);
        const qn_mtp_io io = {.hidden_prev = golden_f32(g, "chain_hidden") + k * n_embd,
                              .reuse = g->config.index_share_for_mtp ? set : NULL,
                              .hidden = g_row,
                              .logits = logits};
        qn_glm_mtp(g->glm, &g->kv, &batch, &io, NULL);
        (void)snprintf(what, sizeof what, "draft %u", k + 1);
        check_argmax(r, what, logits, drafts[k + 1]);
    }
}

/* What the engine drafts by itself, step after step, is the golden chain. */
static void check_engine(const golden *g, uint32_t n_rows)
{
    int32_t drafts[QN_DRAFT_TOKENS_MAX];
    const int32_t *const expected = golden_i32(g, "drafts");
    const uint32_t n_drafts = (uint32_t)golden_tensor(g, "drafts")->shape[0];
    const qn_sequence_options options = {.kernels = &g->kernels,
                                         .kv_dtype = QN_KV_F32,
                                         .n_tokens_max = n_rows + 1 + n_drafts,
                                         .n_rows_max = GOLDEN_CHUNK};
    const qn_sequence_step_options with_mtp = {.with_mtp = true};
    qn_sequence *sequence = NULL;
    qn_error err = {0};
    golden_must(qn_sequence_open(&sequence, g->glm, &options, &err), &err);
    for (uint32_t i = 0; i < n_rows; i++) {
        qn_sequence_append(sequence, golden_i32(g, "ids")[i]);
    }
    qn_sequence_begin(sequence, true);
    while (qn_sequence_next_rows(sequence, false) > 0) {
        qn_sequence_step(sequence, &with_mtp);
    }
    qn_sequence_append(sequence, golden_i32(g, "next_token")[0]);
    assert_int_equal(qn_sequence_draft(sequence, drafts, n_drafts), n_drafts);
    assert_memory_equal(drafts, expected, n_drafts * sizeof *drafts);
    qn_sequence_close(&sequence);
}

static void check_case(const char *model_dir, bool is_dummy, const char *file)
{
    run r = {0};
    golden_open(&r.g, model_dir, is_dummy, file, ROWS_MAX);
    const golden *g = &r.g;
    r.n_rows = (uint32_t)golden_tensor(g, "ids")->shape[0];
    r.hidden = malloc((size_t)r.n_rows * g->config.n_embd * sizeof *r.hidden);
    float *logits = malloc((size_t)GOLDEN_CHUNK * g->config.n_vocab * sizeof *logits);
    float *last_g = malloc(g->config.n_embd * sizeof *last_g);
    int32_t *last_set = malloc(g->config.index_topk * sizeof *last_set);
    uint32_t n_last_set = 0;
    assert_true(r.hidden != NULL && logits != NULL && last_g != NULL && last_set != NULL);
    const qn_index_sets set = {last_set, &n_last_set};
    const qn_probe probe = {
        .context = &r, .hidden = check_hidden, .router = check_router, .index = check_index};
    run_trunk(&r, &probe, logits);
    run_mtp(&r, &probe, logits, last_g, &set);
    run_chain(&r, logits, last_g, &set);
    const uint32_t n_kept = (uint32_t)golden_tensor(g, "hidden_rows")->shape[0];
    (void)fprintf(stderr,
                  "%s: %u positions, largest differences: hidden state %.2g of its row, "
                  "log-sum-exp %.2g, log-probability %.2g (probed ids), %.2g (every id of %u + %u "
                  "rows); %u near ties decided otherwise\n",
                  file, r.n_rows, r.worst_hidden, r.worst_lse, r.worst_logprob, r.worst_all, n_kept,
                  n_kept, r.n_ties);
    if (r.n_ties == 0 ||
        !is_dummy) { /* nobody injects golden choices there; random weights need them */
        check_engine(g, r.n_rows);
    }
    free(r.hidden);
    free(logits);
    free(last_g);
    free(last_set);
    golden_close(&r.g);
    if (r.n_wrong > 0) {
        fail_msg("%s: %u differences, the first: %s", file, r.n_wrong, r.first_wrong);
    }
}

#define TINY(test_name, name)                                                                      \
    static void test_name(void **state)                                                            \
    {                                                                                              \
        (void)state;                                                                               \
        check_case(QN_SOURCE_DIR "/tests/golden/tiny-" name, true,                                 \
                   "tiny-" name "/golden.safetensors");                                            \
    }
TINY(test_tiny_odd_sizes, "odd")
TINY(test_tiny_all_layers_full, "all-full")
TINY(test_tiny_fffsss, "fffsss")
TINY(test_tiny_ffss_unnormalised_router, "ffss-raw")
TINY(test_tiny_own_index_in_draft_chain, "own-mtp-index")

#define NANO(test_name, name)                                                                      \
    static void test_name(void **state)                                                            \
    {                                                                                              \
        (void)state;                                                                               \
        check_case(QN_SOURCE_DIR "/models/glm-nano", false, "nano-" name ".safetensors");          \
    }
NANO(test_nano_300, "300")
NANO(test_nano_1000, "1000")
NANO(test_nano_4096, "4096")

/* With an argument only the tests that it matches: test_tiny*. */
int main(int argc, char **argv)
{
    if (argc > 1) {
        cmocka_set_test_filter(argv[1]);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiny_odd_sizes),
        cmocka_unit_test(test_tiny_all_layers_full),
        cmocka_unit_test(test_tiny_fffsss),
        cmocka_unit_test(test_tiny_ffss_unnormalised_router),
        cmocka_unit_test(test_tiny_own_index_in_draft_chain),
        cmocka_unit_test(test_nano_300),
        cmocka_unit_test(test_nano_1000),
        cmocka_unit_test(test_nano_4096),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

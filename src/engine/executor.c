/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/executor.h"

#include "base/minmax.h"
#include "base/try.h"
#include "engine/executor_gpu.h"
#include "engine/executor_parts.h"
#include "model/gpu_glm.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>

/* -------------------------------------------------------------------------------- open and close
 */

/* n elements of 4 bytes on a cache line of their own. */
static void *carve(qn_arena *arena, size_t n)
{
    return qn_arena_alloc(arena, n * 4, 64);
}

/* Lay out the buffers; done first on an arena that measures. */
static void lay_out(qn_executor *e)
{
    qn_arena *const at = &e->arena;
    const size_t n_rows = e->n_step_rows;
    const size_t n_slots = e->n_slots;
    const size_t n_embd = e->with_mtp ? e->n_embd : 0;
    const bool is_on_gpu = qn_glm_gpu(e->glm) != NULL;
    e->slots = qn_arena_alloc(at, n_slots * sizeof *e->slots, 64);
    e->places = qn_arena_alloc(at, n_slots * sizeof *e->places, 64);
    e->page_tables = carve(at, n_slots * e->n_table_pages);
    e->prompt_logits = carve(at, (size_t)QN_PROMPT_LOGITS_MAX * e->n_vocab);
    e->logits = carve(at, (size_t)(is_on_gpu ? QN_STEP_TOKENS_MAX : e->n_logit_rows) * e->n_vocab);
    e->drafting = carve(at, n_slots);
    if (is_on_gpu) { /* the rest is there */
        e->biases = qn_arena_alloc(at, n_slots * QN_LOGIT_BIAS_MAX * sizeof *e->biases, 64);
        return;
    }
    e->rows.tokens = carve(at, n_rows);
    e->rows.positions = carve(at, n_rows);
    e->rows.slots = carve(at, n_rows);
    e->rows.logit_rows = carve(at, n_rows);
    e->hidden = carve(at, n_rows * e->n_embd);
    e->hidden_prev = carve(at, n_rows * n_embd);
    e->chain_hidden = carve(at, n_slots * n_embd);
    e->chain_sets.sets = carve(at, e->shares_sets ? n_slots * e->n_topk : 0);
    e->chain_sets.n_sets = carve(at, e->shares_sets ? n_slots : 0);
    e->mtp_logits = carve(at, e->with_mtp ? n_slots * e->n_vocab : 0);
    float *const rings = carve(at, n_slots * QN_SLOT_RING * n_embd);
    for (size_t i = 0; i < n_slots && at->base != NULL; i++) {
        e->slots[i].hidden = e->with_mtp ? rings + i * QN_SLOT_RING * n_embd : NULL;
    }
}

/* One mapping for all buffers: a part of them costs memory when it is used for the first time. */
static qn_status open_buffers(qn_executor *e, qn_error *err)
{
    qn_arena_init(&e->arena, NULL, SIZE_MAX);
    lay_out(e);
    const size_t n_bytes = e->arena.used_bytes;
    void *const block = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    qn_arena_deinit(&e->arena);
    if (block == MAP_FAILED) {
        return qn_fail(err, QN_E_NOMEM, errno, __func__,
                       "executor: no memory for %zu bytes, %u sequences of %u rows expected",
                       n_bytes, e->n_slots, e->n_step_rows);
    }
    qn_arena_init(&e->arena, block, n_bytes);
    lay_out(e);
    QN_ASSERT(e->arena.used_bytes == n_bytes);
    return QN_OK;
}

/* What the lengths of buffers follow from. */
static void set_sizes(qn_executor *e, const qn_config *config, const qn_executor_options *options)
{
    e->n_slots = options->n_slots;
    e->n_step_rows = options->n_step_rows;
    e->n_logit_rows = options->n_slots * QN_STEP_TOKENS_MAX;
    e->n_logit_rows = e->n_logit_rows < e->n_step_rows ? e->n_logit_rows : e->n_step_rows;
    e->n_table_pages = qn_pages_for(options->n_context);
    e->n_pages = options->n_pages;
    e->n_positions_max = qn_min_u32(qn_min_u32(e->n_table_pages, e->n_pages) * QN_PAGE_TOKENS,
                                    config->n_context_max);
    e->n_embd = config->n_embd;
    e->n_vocab = config->n_vocab;
    e->n_topk = config->index_topk;
    e->with_mtp = options->with_mtp;
}

static bool captures_early(const qn_executor_options *options)
{
    return options->captures_early && !options->without_graphs;
}

/* Of a GPU one whose sizes alone are set, for free(); NULL: of a CPU, or there is no memory, which
 * an open says. */
static qn_executor *open_sizes(const qn_glm *glm, const qn_executor_options *options)
{
    qn_executor *const e = qn_glm_gpu(glm) != NULL ? calloc(1, sizeof *e) : NULL;
    if (e != NULL) {
        set_sizes(e, qn_glm_config(glm), options);
    }
    return e;
}

uint64_t qn_executor_device_bytes(const qn_glm *glm, const qn_executor_options *options)
{
    qn_executor *const e = open_sizes(glm, options);
    const uint64_t n_bytes = e != NULL ? qn_gpu_steps_measure(e) : 0;
    free(e);
    return n_bytes;
}

uint64_t qn_executor_graph_bytes(const qn_glm *glm, const qn_executor_options *options)
{
    if (!captures_early(options)) {
        return 0;
    }
    qn_executor_options with_pages = *options;
    with_pages.n_pages = qn_pages_for(options->n_context);
    qn_executor *const e = open_sizes(glm, &with_pages);
    const uint64_t n_bytes =
        e != NULL ? qn_gpu_steps_measure_graphs(e, qn_glm_config(glm)->n_layers) : 0;
    free(e);
    return n_bytes;
}

static bool always_checks(void)
{
#ifdef NDEBUG
    return false;
#else
    return true;
#endif
}

qn_status qn_executor_open(qn_executor **out, qn_glm *glm, const qn_executor_options *options,
                           qn_error *err)
{
    qn_status status = QN_OK;
    const qn_config *const config = qn_glm_config(glm);
    QN_ASSERT(options->n_slots > 0 && options->n_slots <= QN_STEP_SEQS_MAX);
    QN_ASSERT(options->n_step_rows > 0 && options->n_step_rows <= QN_STEP_ROWS_MAX);
    QN_ASSERT(options->n_context > 0 && options->n_context <= config->n_context_max);
    QN_ASSERT(!options->with_mtp || qn_glm_has_mtp(glm));
    QN_ASSERT(options->lag <= QN_EXECUTOR_LAG_MAX);
    *out = NULL;
    qn_executor *e = calloc(1, sizeof *e);
    if (e == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "executor: no memory");
    }
    e->glm = glm;
    e->kernels = options->kernels;
    e->pool = options->pool;
    set_sizes(e, config, options);
    e->lag = options->lag;
    e->shares_sets = options->with_mtp && config->index_share_for_mtp;
    QN_TRY(status,
           qn_page_pool_init(&e->pages, config, qn_glm_kv_place(glm), options->kv_dtype, e->n_pages,
                             e->with_mtp, err),
           fail);
    if (options->checks_pages || always_checks()) {
        QN_TRY(status, qn_page_sums_init(&e->sums, &e->pages.kv, err), fail);
    }
    QN_TRY(status, open_buffers(e, err), fail);
    e->n_samplers = qn_glm_gpu(glm) != NULL ? 1 : e->n_slots;
    for (uint32_t i = 0; i < e->n_samplers; i++) {
        QN_TRY(status, qn_sampler_open(&e->slots[i].sampler, e->kernels, e->n_vocab, err), fail);
    }
    if (qn_glm_gpu(glm) != NULL) {
        QN_TRY(status, qn_gpu_steps_open(e, err), fail);
        e->gpu->without_graphs = options->without_graphs;
        if (captures_early(options)) {
            qn_gpu_steps_capture(e);
        }
    }
    *out = e;
    return QN_OK;

fail:
    qn_executor_close(&e);
    return status;
}

void qn_executor_close(qn_executor **executor)
{
    qn_executor *const e = *executor;
    if (e == NULL) {
        return;
    }
    qn_gpu_steps_close(&e->gpu); /* before the pages that its work reads */
    if (e->arena.base != NULL) {
        for (uint32_t i = 0; i < e->n_samplers; i++) {
            qn_sampler_close(&e->slots[i].sampler);
        }
        void *const block = e->arena.base;
        const size_t n_bytes = e->arena.capacity_bytes;
        qn_arena_deinit(&e->arena);
        (void)munmap(block, n_bytes);
    }
    qn_page_sums_deinit(&e->sums);
    qn_page_pool_deinit(&e->pages);
    free(e);
    *executor = NULL;
}

/* ------------------------------------------------------------------------------ slots and pages */

/* The sampler knows what the sequence is drawn with, and its tokens so far. */
static void begin_sampler(const qn_slot *slot, const qn_executor_request *request)
{
    const qn_sampler_request sampling = {.sampling = request->sampling,
                                         .prompt = request->ids,
                                         .n_prompt = request->n_prompt,
                                         .stop_ids = request->stop_ids,
                                         .n_stop_ids = request->n_stop_ids,
                                         .min_tokens = request->min_tokens};
    qn_sampler_begin(slot->sampler, &sampling);
    for (uint32_t i = request->n_prompt; i < request->n_ids; i++) {
        qn_sampler_commit(slot->sampler, request->ids[i]);
    }
}

/* A GPU is told with a step, again where one before failed. */
static void keep_settings(qn_slot *slot, const qn_executor_request *request, qn_logit_bias *biases)
{
    const qn_sampling *const sampling = request->sampling;
    QN_ASSERT(sampling->n_logit_bias <= QN_LOGIT_BIAS_MAX);
    slot->sampling = *sampling;
    slot->sampling.logit_bias = biases;
    for (uint32_t i = 0; i < sampling->n_logit_bias; i++) {
        biases[i] = sampling->logit_bias[i];
    }
    slot->n_prompt = request->n_prompt;
    slot->min_tokens = request->min_tokens;
    slot->must_begin = true;
}

static void begin_slot(qn_executor *e, const qn_step_begin *begin,
                       const qn_executor_request *request)
{
    QN_ASSERT(begin->slot < e->n_slots);
    QN_ASSERT(request != NULL);
    QN_ASSERT(request->n_prompt > 0 && request->n_prompt <= request->n_ids);
    QN_ASSERT(request->n_stop_ids <= QN_SAMPLER_STOPS_MAX);
    QN_ASSERT(begin->n_cached % QN_PAGE_TOKENS == 0 && begin->n_cached < request->n_ids);
    qn_slot *const slot = &e->slots[begin->slot];
    slot->request = begin->request;
    slot->ids = request->ids;
    slot->n_ids = request->n_ids;
    slot->n_pages = 0;
    slot->n_cached = begin->n_cached;
    slot->n_computed = begin->n_cached;
    slot->n_complete = begin->n_cached;
    slot->n_mtp = begin->n_cached > 0 ? begin->n_cached : 1;
    slot->n_steps = request->n_steps_before;
    slot->acceptance_length = (double)request->acceptance_length;
    slot->n_drafts = 0;
    slot->n_stop_ids = request->n_stop_ids;
    for (uint32_t i = 0; i < request->n_stop_ids; i++) {
        slot->stop_ids[i] = request->stop_ids[i];
    }
    slot->is_failed = false;
    slot->n_begins++;
    if (e->gpu != NULL) {
        keep_settings(slot, request, e->biases + (size_t)begin->slot * QN_LOGIT_BIAS_MAX);
    } else {
        begin_sampler(slot, request);
    }
}

/*
 * Shared pages hold what was published, and so do own ones that they take the place of: where bits
 * go by the step these are as good, but not the same.
 */
static qn_status check_shared(const qn_executor *e, const qn_step *step, qn_error *err)
{
    qn_status status = QN_OK;
    const qn_gpu_glm *const gpu = qn_glm_gpu(e->glm);
    const bool makes_equal_pages = gpu == NULL || gpu->is_deterministic;
    for (uint32_t i = 0; i < step->n_pages && status == QN_OK; i++) {
        const qn_step_page *const p = &step->pages[i];
        QN_ASSERT(p->slot < e->n_slots);
        if (!p->is_shared) {
            continue;
        }
        const uint32_t page = qn_page_index(p->page);
        status = qn_page_sums_check(&e->sums, page, page, step->number, err);
        const bool is_set = p->i_page < e->slots[p->slot].n_pages;
        const int32_t own = is_set ? qn_slot_pages(e, p->slot)[p->i_page] : -1;
        if (own >= 0 && makes_equal_pages && status == QN_OK) {
            status = qn_page_sums_check(&e->sums, (uint32_t)own, page, step->number, err);
        }
    }
    return status;
}

/*
 * A sequence's first page is new to it.  The MTP layer has no row 0; its bytes are made 0, so that
 * the same tokens make the same page, whatever it held before.
 */
static void clear_mtp_row(const qn_executor *e, uint32_t page)
{
    const qn_kv_layout *const layout = &e->pages.layout;
    const uint32_t i_layer = qn_glm_config(e->glm)->n_layers;
    const int16_t components[] = {layout->latent_of[i_layer], layout->index_of[i_layer]};
    for (size_t i = 0; i < sizeof components / sizeof components[0]; i++) {
        if (components[i] >= 0) {
            const int32_t id = (int32_t)page;
            const qn_kv_view view = qn_kv_get_view(&e->pages.kv, components[i], &id);
            qn_kv_clear(&e->pages.kv, qn_kv_row(&view, 0), view.row_bytes);
        }
    }
}

static void set_page(qn_executor *e, const qn_step_page *p)
{
    const uint32_t page = qn_page_index(p->page);
    qn_slot *const slot = &e->slots[p->slot];
    QN_ASSERT(qn_page_group(p->page) == 0);
    QN_ASSERT(page < e->pages.kv.n_pages);
    QN_ASSERT(p->i_page < e->n_table_pages);
    int32_t *const pages = qn_slot_pages(e, p->slot);
    while (slot->n_pages <= p->i_page) {
        pages[slot->n_pages++] = -1;
    }
    pages[p->i_page] = (int32_t)page;
    if (!p->is_shared && e->sums.kv != NULL) {
        qn_page_sums_forget(&e->sums, page);
    }
    if (!p->is_shared && e->with_mtp && p->i_page == 0) {
        clear_mtp_row(e, page);
    }
}

/* What begins once more, as the step that began it failed: its first page may not be clear. */
static void clear_again(const qn_executor *e)
{
    for (uint32_t i = 0; i < e->n_slots; i++) {
        const qn_slot *const slot = &e->slots[i];
        if (slot->must_begin && slot->n_cached == 0 && slot->n_pages > 0 &&
            qn_slot_pages(e, i)[0] >= 0) {
            clear_mtp_row(e, (uint32_t)qn_slot_pages(e, i)[0]);
        }
    }
}

/* Publishes, begins and pages of a step: all are taken, also where a page could not be read. */
static qn_status prepare(qn_executor *e, const qn_step *step, qn_executor_find_fn *find,
                         void *context, qn_error *err)
{
    qn_status status = QN_OK;
    for (uint32_t i = 0; i < step->n_published && e->sums.kv != NULL; i++) {
        const qn_status published =
            qn_page_sums_publish(&e->sums, qn_page_index(step->published[i]), step->number,
                                 status == QN_OK ? err : NULL);
        status = status == QN_OK ? published : status;
    }
    for (uint32_t i = 0; i < step->n_begins; i++) {
        begin_slot(e, &step->begins[i], find(context, step->begins[i].request));
    }
    if (e->sums.kv != NULL && status == QN_OK) {
        status = check_shared(e, step, err);
    }
    for (uint32_t i = 0; i < step->n_pages; i++) {
        QN_ASSERT(step->pages[i].slot < e->n_slots);
        set_page(e, &step->pages[i]);
    }
    if (e->gpu != NULL && e->gpu->must_restore && e->with_mtp) {
        clear_again(e);
    }
    /* The MTP layer goes on behind cached pages with what the last of them carries. */
    for (uint32_t i = 0; i < step->n_begins && e->with_mtp && e->gpu == NULL; i++) {
        const uint32_t n_cached = step->begins[i].n_cached;
        if (n_cached > 0) {
            const uint32_t i_slot = step->begins[i].slot;
            const uint32_t i_page = n_cached / QN_PAGE_TOKENS - 1;
            QN_ASSERT(i_page < e->slots[i_slot].n_pages);
            qn_executor_take_cached(e, i_slot, n_cached,
                                    (uint32_t)qn_slot_pages(e, i_slot)[i_page]);
        }
    }
    return status;
}

/* ---------------------------------------------------------------------------------------- steps */

static void check_seqs(qn_executor *e, const qn_step *step)
{
    QN_ASSERT(step->n_seqs <= e->n_slots);
    QN_ASSERT(step->n_rows <= e->n_step_rows);
    for (uint32_t i = 0; i < step->n_seqs; i++) {
        const qn_step_seq *const seq = &step->seqs[i];
        QN_ASSERT(seq->slot < e->n_slots);
        QN_ASSERT(e->slots[seq->slot].request == seq->request);
        QN_ASSERT(seq->is_prompt ? seq->n_drafts == 0 : seq->is_drawing);
        QN_ASSERT(seq->n_drafts <= (e->with_mtp ? (uint32_t)QN_DRAFT_TOKENS_MAX : 0));
        e->slots[seq->slot].n_drafts = 0;
    }
}

void qn_executor_submit(qn_executor *executor, const qn_step *step, qn_executor_find_fn *find,
                        void *context)
{
    qn_executor *const e = executor;
    QN_ASSERT(e->n_waiting <= e->lag);
    qn_step_result *const result = &e->results[e->n_waiting++];
    qn_error err = {0};
    const qn_status status = prepare(e, step, find, context, &err);
    check_seqs(e, step);
    e->n_seqs = step->n_seqs;
    if (e->gpu != NULL) {
        qn_gpu_steps_submit(e, step, status, &err);
    } else {
        QN_ASSERT(status == QN_OK); /* the host reads its own memory */
        qn_executor_run(e, step, result);
    }
}

void qn_executor_collect(qn_step_result *result, qn_executor *executor)
{
    qn_executor *const e = executor;
    QN_ASSERT(e->n_waiting > 0);
    e->n_waiting--;
    if (e->gpu != NULL) {
        qn_gpu_steps_collect(e, result);
        return;
    }
    const qn_step_result *const oldest = &e->results[0];
    const size_t head_bytes = offsetof(qn_step_result, seqs);
    memcpy(result, oldest, head_bytes + oldest->n_seqs * sizeof *oldest->seqs);
    memmove(&e->results[0], &e->results[1], e->n_waiting * sizeof *e->results);
}

/* ---------------------------------------------------------------------------------------- views */

const float *qn_executor_logits(qn_executor *executor, uint32_t i_seq)
{
    QN_ASSERT(i_seq < executor->n_seqs);
    return executor->gpu != NULL ? qn_gpu_steps_read_logits(executor, i_seq)
                                 : qn_executor_read_logits(executor, i_seq);
}

const float *qn_executor_prompt_logits(qn_executor *executor, uint32_t i_seq, uint32_t i_row,
                                       uint32_t n_rows)
{
    qn_executor *const e = executor;
    QN_ASSERT(i_seq < e->n_seqs);
    const qn_place *const place = &e->places[i_seq];
    QN_ASSERT(n_rows > 0 && n_rows <= (uint32_t)QN_PROMPT_LOGITS_MAX);
    QN_ASSERT(i_row < place->n_rows && n_rows <= place->n_rows - i_row);
    if (e->gpu != NULL) {
        return qn_gpu_steps_make_logits(e, place->first_row + i_row, n_rows);
    }
    qn_executor_make_logits(e, place->first_row + i_row, n_rows);
    return e->prompt_logits;
}

const qn_sampler *qn_executor_sampler(const qn_executor *executor, uint32_t slot)
{
    QN_ASSERT(slot < executor->n_slots);
    return executor->slots[executor->gpu != NULL ? 0 : slot].sampler;
}

qn_pass_launches qn_executor_launches(const qn_executor *executor)
{
    return executor->gpu != NULL ? executor->gpu->launches : (qn_pass_launches){0};
}

uint64_t qn_executor_page_bytes(const qn_executor *executor)
{
    return executor->pages.layout.page_bytes;
}

uint64_t qn_executor_workspace_bytes(const qn_executor *executor)
{
    const qn_executor *const e = executor;
    return sizeof *e + e->arena.capacity_bytes + e->n_samplers * qn_sampler_bytes(e->n_vocab) +
           qn_page_sums_bytes(&e->sums) + qn_glm_workspace_bytes(e->glm) +
           qn_gpu_steps_bytes(e->gpu);
}

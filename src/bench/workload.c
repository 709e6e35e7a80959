/* SPDX-License-Identifier: Apache-2.0 */
#include "base/assert.h"
#include "base/json_doc.h"
#include "base/try.h"
#include "workload_internal.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

/* A conversation's text at most: beyond any context. */
enum { HISTORY_BYTES_MAX = 1 << 30, N_REQUESTS_MAX = 1000000 };

/* --------------------------------------------------------------------------------- while it is
 * made */

static qn_status no_memory(const bench_maker *m)
{
    return qn_fail(m->err, QN_E_NOMEM, ENOMEM, __func__, "workload: no memory for its prompts");
}

qn_status bench_make_items(bench_maker *maker, uint64_t n_items)
{
    bench_workload *const w = maker->workload;
    w->items = calloc(n_items, sizeof *w->items);
    w->n_items = w->items != NULL ? n_items : 0;
    for (uint64_t i = 0; i < w->n_items; i++) {
        qn_buf_init(&w->items[i].own, HISTORY_BYTES_MAX);
        w->items[i].at_s = (double)NAN;
    }
    return w->items != NULL ? QN_OK : no_memory(maker);
}

qn_status bench_make_pieces(bench_maker *maker, uint64_t n_pieces)
{
    bench_workload *const w = maker->workload;
    w->pieces = calloc(n_pieces, sizeof *w->pieces);
    w->n_pieces = w->pieces != NULL ? n_pieces : 0;
    for (uint64_t i = 0; i < w->n_pieces; i++) {
        qn_buf_init(&w->pieces[i].text, HISTORY_BYTES_MAX);
    }
    return w->pieces != NULL ? QN_OK : no_memory(maker);
}

qn_status bench_make_end(bench_maker *maker, bench_item *item)
{
    bench_workload *const w = maker->workload;
    item->n_output = w->bodies.n_output > 0 ? w->bodies.n_output : item->n_output;
    item->own_len = item->own.len;
    return bench_bodies_end(&item->own, &w->bodies, item->form, item->n_output, maker->err);
}

qn_status bench_make_check(bench_maker *maker, const bench_item *item, uint32_t n_tokens)
{
    const bench_workload *const w = maker->workload;
    qn_status status = QN_OK;
    qn_buf joined;
    qn_buf_init(&joined, HISTORY_BYTES_MAX);
    if (item->n_links == 0) {
        return QN_OK; /* was counted alone */
    }
    for (uint32_t i = 0; i < item->n_links; i++) {
        const qn_buf *const text = &w->pieces[w->links[item->first_link + i]].text;
        QN_TRY(status, qn_buf_append(&joined, text->ptr, text->len, maker->err), fail);
    }
    QN_TRY(status, qn_buf_append(&joined, item->own.ptr, item->own_len, maker->err), fail);
    QN_TRY(status, bench_exact_check(maker->exact, qn_buf_view(&joined), n_tokens, maker->err),
           fail);
fail:
    qn_buf_deinit(&joined);
    return status;
}

qn_status bench_make_progress(const bench_maker *maker, uint64_t n_done, uint64_t n_all)
{
    if (maker->progress == NULL ||
        maker->progress(maker->context, (double)n_done / (double)n_all)) {
        return QN_OK;
    }
    return qn_fail(maker->err, QN_E_CANCELLED, 0, __func__, "workload: cancelled");
}

uint32_t bench_make_scaled(double length, double scale)
{
    const double scaled = round(length * scale);
    return length == 0.0 ? 0 : scaled < 1.0 ? 1 : (uint32_t)scaled;
}

/* ---------------------------------------------------------------------------------------- options
 */

static qn_status refuse(qn_error *err, const char *what, double seen, const char *expected)
{
    return qn_fail(err, QN_E_INVAL, 0, __func__, "workload: %s: %.10g, %s expected", what, seen,
                   expected);
}

static bool has_file(bench_kind kind)
{
    return kind == BENCH_SHAREGPT || kind == BENCH_CUSTOM || kind == BENCH_TRACE;
}

static qn_status check_synthetic(const bench_workload_options *o, qn_error *err)
{
    const double longest = (double)o->n_input + o->n_prefix;
    if (o->n_requests == 0) {
        return refuse(err, "requests", 0, "at least 1");
    }
    if (o->n_input == 0 || longest * o->scale > BENCH_LENGTH_MAX) {
        return refuse(err, "input tokens", longest, "1 to 10000000 (scaled)");
    }
    if (o->n_output == 0) {
        return refuse(err, "output tokens", 0, "at least 1");
    }
    if (o->kind == BENCH_MULTI_TURN && o->n_turns == 0) {
        return refuse(err, "turns", 0, "at least 1");
    }
    if (o->kind == BENCH_MULTI_TURN && o->sends_ids) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "workload: ids with several turns, words expected: answers are text");
    }
    const bool is_around = o->range == BENCH_RANGE_AROUND;
    if (!(o->range_ratio >= 0.0 && o->range_ratio <= 1.0) || (is_around && o->range_ratio == 1.0)) {
        return refuse(err, "range ratio", o->range_ratio,
                      is_around ? "0 to below 1 (lengths L (1 - R) to L (1 + R))"
                                : "0 to 1 (lengths L R to L)");
    }
    return QN_OK;
}

static qn_status check_options(const bench_workload_options *o, const bench_tokens *tokens,
                               qn_error *err)
{
    if (!(o->scale > 0.0 && o->scale <= 1000.0)) {
        return refuse(err, "scale", o->scale, "above 0 to 1000");
    }
    if (o->n_requests > N_REQUESTS_MAX) {
        return refuse(err, "requests", (double)o->n_requests, "at most 1000000");
    }
    if (o->sends_ids && o->api == BENCH_CHAT) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "workload: ids with the chat API, /v1/completions expected");
    }
    if (tokens == NULL && (!o->sends_ids || has_file(o->kind))) {
        return qn_fail(err, QN_E_INVAL, 0, __func__, "workload: no tokenizer, one expected");
    }
    if (has_file(o->kind) && o->file == NULL) {
        return qn_fail(err, QN_E_INVAL, 0, __func__, "workload: no file, its path expected");
    }
    if (o->n_output * o->scale > BENCH_LENGTH_MAX) {
        return refuse(err, "output tokens", o->n_output, "at most 10000000 (scaled)");
    }
    return has_file(o->kind) ? QN_OK : check_synthetic(o, err);
}

/* --------------------------------------------------------------------------------------- sums */

static void add_input(bench_made *made, uint64_t n_input, uint64_t n_shared)
{
    const uint32_t n = n_input < UINT32_MAX ? (uint32_t)n_input : UINT32_MAX;
    made->min_input = made->n_input == 0 || n < made->min_input ? n : made->min_input;
    made->max_input = n > made->max_input ? n : made->max_input;
    made->n_input += n_input;
    made->n_shared += n_shared;
}

static void add_output(bench_made *made, uint32_t n_output)
{
    made->min_output =
        made->n_output == 0 || n_output < made->min_output ? n_output : made->min_output;
    made->max_output = n_output > made->max_output ? n_output : made->max_output;
    made->n_output += n_output;
}

/* Later turns begin with the one before and its answer. */
static void sum_up(bench_workload *w)
{
    uint64_t n_said = 0;
    for (uint64_t i = 0; i < w->n_items; i++) {
        const bench_item *const item = &w->items[i];
        const bool is_first = i % w->n_turns == 0;
        const uint64_t n_input = (is_first ? 0 : n_said) + item->n_prompt;
        if (item->n_prompt > 0) {
            add_input(&w->made, n_input, is_first ? item->n_shared : n_said);
        } else {
            w->made.n_unknown++;
        }
        if (item->n_output > 0) {
            add_output(&w->made, item->n_output);
        }
        w->made.has_times = w->made.has_times || !isnan(item->at_s);
        n_said = n_input + item->n_output;
    }
    w->made.n_requests = w->n_items;
    w->made.n_conversations = (w->n_items + w->n_turns - 1) / w->n_turns;
    if (w->made.n_input > 0) {
        w->made.hit_rate = (double)w->made.n_shared / (double)w->made.n_input;
    }
}

/* ------------------------------------------------------------------------------ opening, closing
 */

static qn_status make_histories(bench_maker *m)
{
    bench_workload *const w = m->workload;
    if (m->o.kind != BENCH_MULTI_TURN) {
        return QN_OK;
    }
    w->histories = calloc(w->made.n_conversations, sizeof *w->histories);
    for (uint64_t i = 0; w->histories != NULL && i < w->made.n_conversations; i++) {
        qn_buf_init(&w->histories[i], HISTORY_BYTES_MAX);
    }
    return w->histories != NULL ? QN_OK : no_memory(m);
}

qn_status bench_workload_open(bench_workload **out, const bench_workload_options *options,
                              bench_tokens *tokens, bool (*progress)(void *context, double share),
                              void *context, qn_error *err)
{
    bench_workload *w = NULL;
    bench_maker m = {
        .o = *options, .tokens = tokens, .progress = progress, .context = context, .err = err};
    qn_status status = QN_OK;
    *out = NULL;
    QN_TRY(status, check_options(&m.o, tokens, err), fail);
    w = calloc(1, sizeof *w);
    if (w == NULL) {
        status = no_memory(&m);
        goto fail;
    }
    m.workload = w;
    w->n_turns = m.o.kind == BENCH_MULTI_TURN ? m.o.n_turns : 1;
    w->made.scale = m.o.scale;
    QN_TRY(status,
           bench_bodies_init(&w->bodies, m.o.api, m.o.model, m.o.ignores_eos, m.o.extra, err),
           fail);
    QN_TRY(status, has_file(m.o.kind) ? bench_make_file(&m) : bench_make_synthetic(&m), fail);
    sum_up(w);
    QN_TRY(status, make_histories(&m), fail);
    QN_TRY(status, bench_make_progress(&m, 1, 1), fail);
    bench_exact_close(&m.exact);
    *out = w;
    return QN_OK;

fail:
    bench_exact_close(&m.exact);
    bench_workload_close(&w);
    return status;
}

static void free_items(bench_item *items, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        qn_buf_deinit(&items[i].own);
    }
    free(items);
}

void bench_workload_close(bench_workload **workload)
{
    bench_workload *const w = *workload;
    if (w == NULL) {
        return;
    }
    for (uint64_t i = 0; w->histories != NULL && i < w->made.n_conversations; i++) {
        qn_buf_deinit(&w->histories[i]);
    }
    for (uint64_t i = 0; i < w->n_pieces; i++) {
        qn_buf_deinit(&w->pieces[i].text);
    }
    free_items(w->items, w->n_items);
    free_items(w->warm, w->n_warm);
    free(w->histories);
    free(w->pieces);
    free(w->links);
    bench_bodies_deinit(&w->bodies);
    free(w);
    *workload = NULL;
}

const bench_made *bench_workload_made(const bench_workload *workload)
{
    return &workload->made;
}

/* ----------------------------------------------------------------------------------- requests */

static void add_part(bench_body *body, const char *text, size_t len)
{
    QN_ASSERT(body->n_parts < BENCH_BODY_PARTS);
    body->parts[body->n_parts] = text;
    body->lens[body->n_parts] = len;
    body->n_parts++;
}

static void begin_call(bench_call *call, const bench_workload *w, const bench_item *item)
{
    const char *const before = bench_bodies_before(&w->bodies, item->form);
    *call = (bench_call){.n_prompt = item->n_prompt,
                         .n_shared = item->n_shared,
                         .n_output = item->n_output,
                         .is_exact = w->bodies.is_exact && item->n_output > 0,
                         .keeps_text = w->n_turns > 1};
    add_part(&call->body, w->bodies.head.ptr, w->bodies.head.len);
    add_part(&call->body, before, strlen(before));
}

/* Pieces by the hundred go into one part. */
static qn_status join_pieces(bench_call *call, const bench_workload *w, const bench_item *item)
{
    size_t len = 0;
    for (uint32_t i = 0; i < item->n_links; i++) {
        len += w->pieces[w->links[item->first_link + i]].text.len;
    }
    char *const joined = malloc(len);
    if (joined == NULL) {
        return QN_E_NOMEM;
    }
    size_t at = 0;
    for (uint32_t i = 0; i < item->n_links; i++) {
        const qn_buf *const text = &w->pieces[w->links[item->first_link + i]].text;
        memcpy(joined + at, text->ptr, text->len);
        at += text->len;
    }
    call->owned = joined;
    add_part(&call->body, joined, len);
    return QN_OK;
}

static qn_status make_call(bench_call *call, const bench_workload *w, const bench_item *item)
{
    qn_status status = QN_OK;
    begin_call(call, w, item);
    if (item->n_links == 1) {
        const qn_buf *const text = &w->pieces[w->links[item->first_link]].text;
        add_part(&call->body, text->ptr, text->len);
    } else if (item->n_links > 1) {
        status = join_pieces(call, w, item);
    }
    add_part(&call->body, item->own.ptr, item->own.len);
    return status;
}

uint64_t bench_workload_n_warm(const bench_workload *workload)
{
    return workload->n_warm;
}

void bench_workload_warm(const bench_workload *workload, uint64_t i, bench_call *call)
{
    QN_ASSERT(i < workload->n_warm);
    const qn_status status = make_call(call, workload, &workload->warm[i]);
    QN_ASSERT(status == QN_OK); /* one piece: nothing is joined */
    call->id = i;
    call->keeps_text = false;
}

qn_status bench_workload_first(bench_workload *workload, uint64_t i, bench_call *call, double *at_s)
{
    QN_ASSERT(i < workload->made.n_conversations);
    const bench_item *const item = &workload->items[i * workload->n_turns];
    if (workload->histories != NULL) {
        qn_buf_deinit(&workload->histories[i]); /* of a run that was stopped */
    }
    const qn_status status = make_call(call, workload, item);
    call->id = i * workload->n_turns;
    call->conversation = (uint32_t)i;
    *at_s = item->at_s;
    return status;
}

/* What the first turn said. */
static qn_status begin_history(qn_buf *history, const bench_workload *w, const bench_item *item)
{
    qn_status status = QN_OK;
    if (item->n_links > 0) {
        const qn_buf *const text = &w->pieces[w->links[item->first_link]].text;
        QN_TRY(status, qn_buf_append(history, text->ptr, text->len, NULL), fail);
    }
    QN_TRY(status, qn_buf_append(history, item->own.ptr, item->own_len, NULL), fail);
fail:
    return status;
}

/* Append the inside of a JSON string. */
static qn_status append_escaped(qn_buf *out, const char *text)
{
    const size_t from = out->len;
    const qn_status status = qn_json_quote_append(out, qn_str_of(text), NULL);
    if (status == QN_OK) {
        out->len -= 2;
        memmove(out->ptr + from, out->ptr + from + 1, out->len - from);
        out->ptr[out->len] = '\0';
    }
    return status;
}

/* The answer, and what the user says next. */
static qn_status go_on(qn_buf *history, const bench_workload *w, const char *answer,
                       const bench_item *next)
{
    static const char answered[] = "\"},{\"role\":\"assistant\",\"content\":\"";
    static const char asked[] = "\"},{\"role\":\"user\",\"content\":\"";
    const bool is_chat = w->bodies.api == BENCH_CHAT;
    qn_status status = QN_OK;
    QN_TRY(status, qn_buf_append(history, answered, is_chat ? strlen(answered) : 0, NULL), fail);
    QN_TRY(status, append_escaped(history, answer), fail);
    QN_TRY(status, qn_buf_append(history, asked, is_chat ? strlen(asked) : 0, NULL), fail);
    QN_TRY(status, qn_buf_append(history, next->own.ptr, next->own_len, NULL), fail);
fail:
    return status;
}

bool bench_workload_after(bench_workload *workload, const bench_record *record, bench_call *call)
{
    bench_workload *const w = workload;
    const uint64_t i_next = record->call.id + 1;
    if (w->histories == NULL) {
        return false;
    }
    QN_ASSERT(record->call.conversation < w->made.n_conversations);
    qn_buf *const history = &w->histories[record->call.conversation];
    const bool is_last = i_next % w->n_turns == 0 || i_next >= w->n_items;
    if (is_last || record->end != BENCH_DONE || record->text == NULL ||
        (history->len == 0 && begin_history(history, w, &w->items[i_next - 1]) < 0) ||
        go_on(history, w, record->text, &w->items[i_next]) < 0) {
        qn_buf_deinit(history);
        return false;
    }
    const bench_item *const item = &w->items[i_next];
    begin_call(call, w, item);
    add_part(&call->body, history->ptr, history->len);
    add_part(&call->body, item->own.ptr + item->own_len, item->own.len - item->own_len);
    call->id = i_next;
    call->conversation = record->call.conversation;
    call->turn = record->call.turn + 1;
    call->n_prompt = 0;
    call->n_shared = record->has_usage ? record->n_prompt + record->n_output : 0;
    return true;
}

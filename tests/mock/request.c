/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"
#include "base/minmax.h"
#include "base/rng.h"
#include "mock.h"

#include <math.h>
#include <stdlib.h>

/* Streams of random numbers; faults have theirs above 100. */
enum { STREAM_TTFT, STREAM_TPOT, STREAM_OUTPUT, STREAM_CHUNKS };

static uint32_t draw_count(uint32_t min, uint32_t max, uint64_t seed, uint64_t stream,
                           uint64_t counter)
{
    return min + (uint32_t)(qn_rng_unit(seed, stream, counter) * (max - min + 1));
}

void mock_request_free(mock_request *r)
{
    mock_prompt_free(&r->prompt);
    free(r->chunk_ns);
    free(r->output_text);
    json_decref(r->body);
    free(r);
}

/* One more in the log. */
static mock_request *add_request(mock_server *s)
{
    if (s->n_requests == s->requests_capacity) {
        s->requests_capacity = 2 * s->requests_capacity + 256;
        s->requests = mock_grow(s->requests, s->requests_capacity, sizeof(mock_request *));
    }
    mock_request *const r = mock_grow(NULL, 1, sizeof *r);
    *r = (mock_request){.number = s->n_requests, .arrived_ns = qn_clock_ns(), .status = 200};
    s->requests[s->n_requests++] = r;
    s->first_ns = s->first_ns == 0 ? r->arrived_ns : s->first_ns;
    return r;
}

/* It never began: its answer is an error. */
static void refuse(mock_connection *c, int status, const char *end, const char *head)
{
    mock_request *const r = c->request;
    r->status = status;
    r->end = end;
    r->ended_ns = qn_clock_ns();
    mock_prompt_free(&r->prompt);
    if (r->plan.is_html) {
        mock_reply(c, status, "text/html", head,
                   qn_str_of("<html><body><h1>Scripted</h1></body></html>"));
    } else {
        mock_reply_json(c, status, head,
                        json_pack("{s:{s:s,s:s,s:i}}", "error", "message", "as the script says",
                                  "type", end, "code", status));
    }
    c->request = NULL;
}

/* The bucket of the rate limit holds a second's worth, at least one request. */
static bool is_over_rate(mock_server *s, uint64_t now_ns)
{
    const double limit = s->script.rate_limit;
    if (limit <= 0) {
        return false;
    }
    const double full = limit < 1 ? 1 : limit;
    s->bucket =
        s->bucket_ns == 0 ? full : s->bucket + limit * qn_clock_seconds(s->bucket_ns, now_ns);
    s->bucket = s->bucket > full ? full : s->bucket;
    s->bucket_ns = now_ns;
    if (s->bucket < 1) {
        return true;
    }
    s->bucket -= 1;
    return false;
}

/* Answer at once with an error?  Each limit has its status. */
static bool refuse_some(mock_server *s, mock_connection *c, const char *authorization)
{
    mock_request *const r = c->request;
    const bool has_key = strncmp(authorization, "Bearer ", 7) == 0 &&
                         strcmp(authorization + 7, s->script.api_key) == 0;
    const bool waits = s->script.n_slots > 0 && s->counts.n_running >= s->script.n_slots;
    if (s->script.api_key[0] != 0 && !has_key) {
        refuse(c, 401, "no_key", "");
    } else if (r->plan.status != 0) {
        refuse(c, r->plan.status, "status", "");
    } else if (is_over_rate(s, r->arrived_ns)) {
        char head[64];
        (void)snprintf(head, sizeof head, "Retry-After: %.0f\r\n", ceil(s->script.retry_after_s));
        refuse(c, 429, "rate_limited", head);
    } else if (waits && s->script.queue_max >= 0 && s->counts.n_waiting >= s->script.queue_max) {
        refuse(c, 503, "queue_full", "Retry-After: 1\r\n");
    } else {
        return false;
    }
    return true;
}

static void find_cached(mock_server *s, mock_request *r)
{
    double cached = 0;
    switch (s->script.cached_kind) {
    case MOCK_CACHED_NONE: break;
    case MOCK_CACHED_NUMBER: cached = s->script.cached; break;
    case MOCK_CACHED_SHARE: cached = floor(s->script.cached * r->n_prompt); break;
    case MOCK_CACHED_PREFIX: cached = mock_cache_match(&r->prompt); break;
    }
    r->n_cached = qn_min_u32((uint32_t)cached, r->n_prompt);
    mock_cache_add(&r->prompt);
}

/* When the next event is due: first token, then each as many tokens later as it brings. */
static void set_due(mock_server *s, mock_connection *c)
{
    mock_request *const r = c->request;
    const mock_script *const script = &s->script;
    if (!r->is_stream || r->plan.has[MOCK_WHOLE]) {
        r->n_next = r->n_output;
    } else if (r->n_sent == 0) {
        r->n_next = qn_min_u32(1, r->n_output);
    } else {
        const uint32_t n = draw_count(script->chunk_min, script->chunk_max,
                                      script->seed + r->number, STREAM_CHUNKS, r->n_sent);
        r->n_next = qn_min_u32(n, r->n_output - r->n_sent);
    }
    const uint64_t n_tokens = r->n_sent + r->n_next;
    const uint64_t n_gaps = n_tokens > 1 ? n_tokens - 1 : 0;
    mock_timer_set(s, c, r->began_ns + r->ttft_ns + n_gaps * r->tpot_ns);
}

static void put_early_role(mock_server *s, mock_connection *c)
{
    mock_request *const r = c->request;
    const bool acts_before = r->plan.act != NULL && r->plan.act->after_chunks < 0;
    if (!s->script.role_is_early || !r->is_stream || r->plan.has[MOCK_WHOLE] || acts_before) {
        return;
    }
    mock_head_put(&c->out, r);
    mock_role_put(&c->out, &s->script, r);
    r->is_head_sent = true;
}

/* Whoever calls it flushes. */
static void begin_service(mock_server *s, mock_connection *c)
{
    mock_request *const r = c->request;
    const mock_script *const script = &s->script;
    r->began_ns = qn_clock_ns();
    s->counts.n_running++;
    if (s->counts.max_running < s->counts.n_running) {
        s->counts.max_running = s->counts.n_running;
    }
    find_cached(s, r);
    s->counts.n_prompt += r->n_prompt;
    s->counts.n_cached += r->n_cached;
    r->ttft_ns =
        mock_spread_ns(&script->ttft, script, STREAM_TTFT, r->number, r->n_prompt - r->n_cached);
    r->tpot_ns = mock_spread_ns(&script->tpot, script, STREAM_TPOT, r->number, 0);
    set_due(s, c);
    put_early_role(s, c);
}

static void wait_for_slot(mock_server *s, mock_connection *c)
{
    c->next_waiting = NULL;
    *(s->last_waiting == NULL ? &s->first_waiting : &s->last_waiting->next_waiting) = c;
    s->last_waiting = c;
    s->counts.n_waiting++;
}

static void leave_queue(mock_server *s, const mock_connection *c)
{
    mock_connection *before = NULL;
    for (mock_connection *w = s->first_waiting; w != NULL; before = w, w = w->next_waiting) {
        if (w == c) {
            *(before == NULL ? &s->first_waiting : &before->next_waiting) = w->next_waiting;
            s->last_waiting = s->last_waiting == w ? before : s->last_waiting;
            s->counts.n_waiting--;
            return;
        }
    }
}

static void read_body(mock_server *s, mock_request *r, json_t *body)
{
    const mock_script *const script = &s->script;
    const json_t *const limit = json_object_get(body, "max_completion_tokens");
    const json_t *const old_limit = json_object_get(body, "max_tokens");
    r->max_tokens = (uint32_t)json_integer_value(limit != NULL ? limit : old_limit);
    r->n_output = limit == NULL && old_limit == NULL ? 16 : r->max_tokens;
    if (script->output_min > 0) {
        const uint32_t n = draw_count(script->output_min, script->output_max, script->seed,
                                      STREAM_OUTPUT, r->number);
        r->n_output = qn_min_u32(n, r->n_output);
    }
    r->n_output = r->plan.has[MOCK_EMPTY] ? 0 : r->n_output;
    r->is_stream = json_is_true(json_object_get(body, "stream"));
    r->has_usage =
        json_is_true(json_object_get(json_object_get(body, "stream_options"), "include_usage"));
    if (!script->keeps_bodies) {
        (void)json_object_del(body, "prompt");
        (void)json_object_del(body, "messages");
    }
    r->body = body;
}

void mock_request_begin(mock_server *s, mock_connection *c, json_t *body, bool is_chat,
                        const char *authorization)
{
    mock_request *const r = add_request(s);
    c->request = r;
    r->n_connection = c->number;
    r->is_chat = is_chat;
    r->n_running = s->counts.n_running;
    r->n_waiting = s->counts.n_waiting;
    mock_plan_make(&r->plan, &s->script, r->number);
    c->closes = c->closes || r->plan.has[MOCK_CONNECTION_CLOSE] || r->plan.has[MOCK_CLOSE_FRAMED];
    const bool is_prompt = mock_prompt_of(&r->prompt, body, is_chat ? s->script.n_template : 0);
    r->n_prompt = (uint32_t)r->prompt.n;
    read_body(s, r, body);
    if (!is_prompt) {
        refuse(c, 400, "bad_prompt", "");
    } else if (refuse_some(s, c, authorization)) {
        return;
    } else if (s->script.n_slots > 0 && s->counts.n_running >= s->script.n_slots) {
        wait_for_slot(s, c);
    } else {
        begin_service(s, c);
    }
}

/* An answer is cached too, as engines do: the next turn of a conversation begins with it. */
static void cache_answer(mock_request *r)
{
    for (uint32_t i = 0; i < r->n_sent; i++) {
        mock_prompt_add(&r->prompt, qn_str_hash(qn_str_of(mock_word(r, i))));
    }
    mock_cache_add(&r->prompt);
}

static void keep_text(mock_request *r)
{
    qn_buf text;
    qn_buf_init(&text, MOCK_BYTES_MAX);
    for (uint32_t i = 0; i < r->n_sent; i++) {
        mock_put(&text, "%s ", mock_word(r, i));
    }
    r->output_text = text.ptr;
}

void mock_request_end(mock_server *s, mock_connection *c, const char *end)
{
    mock_request *const r = c->request;
    c->request = NULL;
    mock_timer_clear(s, c);
    r->end = end;
    r->ended_ns = qn_clock_ns();
    if (r->began_ns == 0) {
        leave_queue(s, c);
    } else {
        s->counts.n_running--;
        if (s->script.cached_kind == MOCK_CACHED_PREFIX) {
            cache_answer(r);
        }
    }
    if (s->script.keeps_bodies) {
        keep_text(r);
    }
    mock_prompt_free(&r->prompt);
    const bool is_done = strcmp(end, "done") == 0;
    s->counts.n_length += is_done && r->n_sent == r->max_tokens ? 1 : 0;
    s->counts.n_stopped += is_done && r->n_sent != r->max_tokens ? 1 : 0;
    s->counts.n_aborted += is_done ? 0 : 1;
    mock_connection *const next = s->first_waiting;
    if (next != NULL && s->counts.n_running < s->script.n_slots) {
        leave_queue(s, next);
        begin_service(s, next);
        mock_connection_flush(s, next);
    }
}

/* What the plan has in store for this moment; true: nothing of the answer follows now. */
static bool act(mock_server *s, mock_connection *c)
{
    mock_request *const r = c->request;
    const mock_fault *const fault = r->plan.act;
    const bool is_event =
        fault != NULL && (fault->kind == MOCK_MALFORMED || fault->kind == MOCK_ERROR_EVENT);
    if (fault == NULL || (is_event && (!r->is_stream || r->plan.has[MOCK_WHOLE])) ||
        fault->after_chunks > (int64_t)r->n_chunks ||
        (fault->after_chunks < (int64_t)r->n_chunks && r->n_chunks > 0)) {
        return false;
    }
    if (fault->after_chunks >= 0 && !r->is_head_sent) {
        mock_head_put(&c->out, r);
        r->is_head_sent = true;
    }
    if (fault->kind == MOCK_HANG) {
        mock_timer_clear(s, c);
        mock_connection_flush(s, c);
        return true;
    }
    if (is_event) {
        mock_act_put(&c->out, r);
    }
    if (fault->kind == MOCK_MALFORMED) {
        return false;
    }
    c->closes = true;
    c->resets = fault->kind == MOCK_RESET;
    mock_request_end(s, c, is_event ? "error_event" : c->resets ? "reset" : "close");
    mock_connection_flush(s, c);
    return true;
}

static void note_chunk(mock_server *s, mock_request *r, uint32_t n_tokens)
{
    if (r->n_chunks == r->chunk_capacity) {
        r->chunk_capacity = 2 * r->chunk_capacity + 64;
        r->chunk_ns = mock_grow(r->chunk_ns, r->chunk_capacity, sizeof *r->chunk_ns);
    }
    r->chunk_ns[r->n_chunks++] = qn_clock_ns();
    r->n_sent += n_tokens;
    mock_counts *const counts = &s->counts;
    counts->n_generated += n_tokens;
    if (s->script.n_draft > 0 && r->n_chunks > 1) {
        counts->n_drafts++;
        counts->n_drafted += s->script.n_draft;
        counts->n_accepted += n_tokens - 1;
        for (uint32_t i = 0; i + 1 < n_tokens && i < MOCK_POSITIONS_MAX; i++) {
            counts->accepted_at[i]++;
        }
    }
}

static void end_well(mock_server *s, mock_connection *c)
{
    mock_connection_flush(s, c); /* first: a slow request writes slowly only while it runs */
    if (c->fd >= 0) {
        mock_request_end(s, c, "done");
        mock_connection_flush(s, c);
        mock_connection_ready(s, c, 0); /* what the client has sent meanwhile */
    }
}

void mock_request_step(mock_server *s, mock_connection *c)
{
    mock_request *const r = c->request;
    if (act(s, c)) {
        return;
    }
    if (!r->is_stream || r->plan.has[MOCK_WHOLE]) {
        mock_reply_json(c, 200, "", mock_whole_json(&s->script, r));
        note_chunk(s, r, r->n_next);
        end_well(s, c);
        return;
    }
    if (!r->is_head_sent) {
        mock_head_put(&c->out, r);
        mock_role_put(&c->out, &s->script, r);
        r->is_head_sent = true;
    }
    mock_event_put(&c->out, &s->script, r, r->n_next);
    note_chunk(s, r, r->n_next);
    if (r->n_sent == r->n_output) {
        end_well(s, c);
        return;
    }
    set_due(s, c);
    mock_connection_flush(s, c);
}

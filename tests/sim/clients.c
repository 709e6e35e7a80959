/* SPDX-License-Identifier: Apache-2.0 */
/* Clients: conversations that grow, twins that send the same, readers that are slow or leave. */
#include "sim/sim.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    STREAM_SYSTEM = 10,
    STREAM_TURN = 11,
    STREAM_ANSWER = 12,
    BURST_PERIOD_US = 2000000,
};

int32_t sim_token(const sim *s, const sim_request *request, uint32_t position)
{
    QN_ASSERT(position >= request->n_prompt);
    return (int32_t)(qn_rng_u64(request->answer_seed, STREAM_ANSWER, position) % s->world.n_vocab);
}

uint64_t sim_chain_root(const sim_request *request)
{
    return qn_rng_u64(request->salt[0], request->salt[1], 1);
}

uint64_t sim_chain(const sim *s, sim_request *request, uint32_t position)
{
    QN_ASSERT(position < request->n_prompt + request->max_tokens + SIM_TOKENS_BEYOND);
    while (request->n_chain <= position) {
        const uint32_t p = request->n_chain++;
        const int32_t token = p < request->n_prompt ? request->ids[p] : sim_token(s, request, p);
        const uint64_t before = p == 0 ? sim_chain_root(request) : request->chain[p - 1];
        request->chain[p] = qn_rng_u64(before, (uint64_t)token, 2);
    }
    return request->chain[position];
}

static double think_us(sim *s)
{
    const uint64_t period = s->now_us / BURST_PERIOD_US;
    const bool is_burst = qn_rng_unit(s->seed, 20, period) < s->world.burst_share;
    return sim_rng_exponential(&s->client_rng, is_burst ? 100 : s->world.think_us);
}

/* A client has a text to talk about; clients with the same text say the same. */
static void begin_conversation(sim *s, sim_client *client)
{
    const sim_world *world = &s->world;
    const uint64_t text = sim_rng_below(&s->client_rng, world->n_texts);
    const uint32_t tenant = sim_rng_below(&s->client_rng, world->n_tenants);
    client->text = qn_rng_u64(s->seed, 21, text);
    client->salt[0] = tenant == 0 ? 0 : qn_rng_u64(s->seed, 22, tenant);
    client->salt[1] = tenant;
    client->i_turn = 0;
    const uint32_t system = (uint32_t)(client->text % world->n_systems);
    sim_rng rng = {qn_rng_u64(s->seed, 23, system), STREAM_SYSTEM, 0};
    client->n_history = sim_rng_length(&rng, world->system_tokens, s->cap / 2);
    for (uint32_t i = 0; i < client->n_history; i++) {
        client->history[i] = (int32_t)sim_rng_below(&rng, world->n_vocab);
    }
}

void sim_clients_open(sim *s)
{
    s->clients = calloc(s->world.n_clients, sizeof *s->clients);
    QN_ASSERT(s->clients != NULL);
    for (uint32_t i = 0; i < s->world.n_clients; i++) {
        sim_client *client = &s->clients[i];
        client->history = malloc(s->cap * sizeof *client->history);
        QN_ASSERT(client->history != NULL);
        client->next_us = (uint64_t)think_us(s);
        begin_conversation(s, client);
    }
}

void sim_clients_close(sim *s)
{
    for (uint32_t i = 0; i < s->world.n_clients; i++) {
        free(s->clients[i].history);
    }
    free(s->clients);
}

/* What the user says next; false: the conversation is too long for it. */
static bool say(sim *s, sim_client *client, sim_rng *turn)
{
    uint32_t n_words = sim_rng_length(turn, s->world.prompt_tokens, s->cap);
    const uint32_t n_room = s->cap - 1 - client->n_history;
    if (n_words > n_room && client->i_turn > 0) {
        return false;
    }
    n_words = n_words < n_room ? n_words : n_room;
    for (uint32_t i = 0; i < n_words; i++) {
        client->history[client->n_history++] = (int32_t)sim_rng_below(turn, s->world.n_vocab);
    }
    return client->n_history > 0;
}

static void choose_behaviour(sim *s, sim_client *client)
{
    const sim_world *world = &s->world;
    sim_rng *rng = &s->client_rng;
    client->leave_us = UINT64_MAX;
    client->n_leave_tokens = client->n_stop_tokens = SIM_NONE;
    client->unread = 0;
    client->read_us = s->now_us;
    client->unread_max = HUGE_VAL;
    if (sim_rng_chance(rng, world->p_disconnect)) {
        if (sim_rng_chance(rng, 0.5)) {
            client->leave_us = s->now_us + (uint64_t)(1e3 * pow(1e4, sim_rng_unit(rng)));
        } else {
            client->n_leave_tokens = 1 + sim_rng_length(rng, world->answer_tokens, s->cap);
        }
    }
    if (sim_rng_chance(rng, world->p_slow_reader)) {
        client->unread_max = sim_rng_range(rng, 4, 40);
        client->tokens_per_us = 1e-6 * pow(1e3, sim_rng_unit(rng));
    }
    if (sim_rng_chance(rng, world->p_caller_stop)) {
        client->n_stop_tokens = sim_rng_length(rng, world->answer_tokens, s->cap);
    }
}

static sim_request *make_request(sim *s, sim_client *client, sim_rng *turn)
{
    const sim_world *world = &s->world;
    sim_rng *rng = &s->client_rng;
    sim_request *r = calloc(1, sizeof *r);
    QN_ASSERT(r != NULL);
    r->i_client = (uint32_t)(client - s->clients);
    r->n_prompt = client->n_history;
    r->n_stop_at =
        sim_rng_chance(turn, 0.8) ? sim_rng_length(turn, world->answer_tokens, s->cap) : SIM_NONE;
    r->answer_seed = qn_rng_u64(client->text, 24, client->i_turn);
    r->max_tokens = sim_rng_chance(rng, 0.3) ? sim_rng_range(rng, 1, 4)
                    : sim_rng_chance(rng, 0.5)
                        ? sim_rng_length(rng, 2 * world->answer_tokens, s->cap)
                        : s->cap + sim_rng_below(rng, 9);
    r->draft_tokens = sim_rng_chance(rng, 0.5)
                          ? QN_DRAFT_AUTO
                          : (int)sim_rng_below(rng, world->limits.n_draft_max + 1);
    r->acceptance = world->acceptance * sim_rng_unit(rng) + world->acceptance / 50;
    if (sim_rng_chance(rng, world->p_priority)) {
        r->priority =
            sim_rng_chance(rng, 0.1) ? QN_SCHED_PRIORITY_MAX : (int32_t)sim_rng_below(rng, 7) - 3;
    }
    if (sim_rng_chance(rng, world->p_deadline)) {
        r->deadline_us = s->now_us + (uint64_t)(1e3 * pow(3e4, sim_rng_unit(rng)));
    }
    r->salt[0] = client->salt[0];
    r->salt[1] = client->salt[1];
    r->needs_all_rows = sim_rng_chance(rng, world->p_all_rows);
    const size_t n_ids = (size_t)r->n_prompt + r->max_tokens;
    r->ids = malloc((n_ids + 1) * sizeof *r->ids);
    r->chain = malloc((n_ids + SIM_TOKENS_BEYOND) * sizeof *r->chain);
    QN_ASSERT(r->ids != NULL && r->chain != NULL);
    memset(r->ids, 0xA5, (n_ids + 1) * sizeof *r->ids);
    memcpy(r->ids, client->history, r->n_prompt * sizeof *r->ids);
    sim_chain(s, r, r->n_prompt - 1);
    return r;
}

static void send(sim *s, sim_client *client)
{
    sim_rng turn = {qn_rng_u64(client->text, STREAM_TURN, client->i_turn), 1, 0};
    const uint32_t n_before = client->n_history;
    if (!say(s, client, &turn)) {
        begin_conversation(s, client);
        return; /* it speaks at the next opportunity */
    }
    sim_request *request = make_request(s, client, &turn);
    const uint64_t session = client->text % 2 == 0 ? 0 : request->i_client + 1;
    choose_behaviour(s, client);
    if (sim_request_submit(s, request, session)) {
        client->request = request;
        return;
    }
    sim_request_free(request);
    client->n_history = n_before;
    client->next_us = s->now_us + 1000 + (uint64_t)think_us(s);
}

void sim_clients_act(sim *s)
{
    if (s->is_calm) {
        return;
    }
    for (uint32_t i = 0; i < s->world.n_clients; i++) {
        sim_client *client = &s->clients[i];
        if (client->request == NULL) {
            if (client->next_us <= s->now_us) {
                send(s, client);
            }
        } else if (client->n_stop_tokens <= client->request->n_drawn) {
            sim_tell(s, "r%u: its client finds a stop text", client->request->number);
            sim_request_end(s, client->request, QN_SCHED_END_STOP);
        } else if (client->leave_us <= s->now_us) {
            sim_tell(s, "r%u: its client leaves", client->request->number);
            sim_request_end(s, client->request, QN_SCHED_END_CANCEL);
        }
    }
}

uint64_t sim_clients_next_us(const sim *s)
{
    uint64_t next_us = UINT64_MAX;
    for (uint32_t i = 0; i < s->world.n_clients && !s->is_calm; i++) {
        const sim_client *client = &s->clients[i];
        if (client->request == NULL && client->next_us < next_us) {
            next_us = client->next_us;
        }
    }
    return next_us;
}

void sim_client_tokens(sim *s, sim_request *request, uint32_t n_tokens)
{
    sim_client *client = &s->clients[request->i_client];
    const double n_read = (double)(s->now_us - client->read_us) * client->tokens_per_us;
    client->unread = (client->unread > n_read ? client->unread - n_read : 0) + n_tokens;
    client->read_us = s->now_us;
    if (client->unread > client->unread_max) {
        sim_tell(s, "r%u: its client reads too slowly", request->number);
        client->leave_us = s->now_us;
    }
    if (request->n_drawn >= client->n_leave_tokens) {
        client->leave_us = s->now_us;
    }
}

void sim_client_end(sim *s, sim_request *request, qn_sched_end_reason reason)
{
    sim_client *client = &s->clients[request->i_client];
    QN_ASSERT(client->request == request);
    client->request = NULL;
    client->next_us = s->now_us + (uint64_t)think_us(s);
    const uint32_t n_ids = request->n_prompt + request->n_drawn;
    const bool is_answered = reason == QN_SCHED_END_STOP || reason == QN_SCHED_END_LENGTH;
    if (is_answered && n_ids < s->cap && sim_rng_chance(&s->client_rng, s->world.p_next_turn)) {
        memcpy(client->history, request->ids, n_ids * sizeof *client->history);
        client->n_history = n_ids;
        client->i_turn++;
    } else {
        begin_conversation(s, client);
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Random numbers and the random world. */
#include "sim/sim.h"

#include <math.h>

uint64_t sim_rng_next(sim_rng *rng)
{
    return qn_rng_u64(rng->seed, rng->stream, rng->counter++);
}

uint32_t sim_rng_below(sim_rng *rng, uint32_t n)
{
    return (uint32_t)(sim_rng_next(rng) % n);
}

uint32_t sim_rng_range(sim_rng *rng, uint32_t least, uint32_t most)
{
    return most <= least ? least : least + sim_rng_below(rng, most - least + 1);
}

double sim_rng_unit(sim_rng *rng)
{
    return (double)(sim_rng_next(rng) >> 11) * 0x1p-53;
}

bool sim_rng_chance(sim_rng *rng, double p)
{
    return sim_rng_unit(rng) < p;
}

double sim_rng_exponential(sim_rng *rng, double mean)
{
    return -mean * log(1 - sim_rng_unit(rng));
}

uint32_t sim_rng_length(sim_rng *rng, double typical, uint32_t most)
{
    /* Pareto's law: one length in eight is over four times the typical one. */
    const double length = 0.35 * typical * pow(1 - sim_rng_unit(rng), -0.75) + 0.5;
    return length < 1 ? 1 : length > most ? most : (uint32_t)length;
}

/* One of two or three values, as different as worlds should be. */
static double pick(sim_rng *rng, double a, double b, double c)
{
    const double values[3] = {a, b, c};
    return values[sim_rng_below(rng, 3)];
}

static void make_limits(sim_rng *rng, qn_sched_limits *limits)
{
    const uint32_t size = sim_rng_below(rng, 10); /* most worlds are small: more happens in them */
    limits->n_groups = sim_rng_chance(rng, 0.6) ? 1 : sim_rng_range(rng, 2, 4);
    limits->n_slots = size < 5   ? sim_rng_range(rng, 1, 8)
                      : size < 9 ? sim_rng_range(rng, 8, 48)
                                 : sim_rng_range(rng, 64, 256);
    limits->n_context = sim_rng_chance(rng, 0.15) ? sim_rng_range(rng, 2, 130)
                        : size < 9                ? sim_rng_range(rng, 130, 1500)
                                                  : sim_rng_range(rng, 1500, 6000);
    const uint32_t n_whole = qn_pages_for(limits->n_context);
    switch (sim_rng_below(rng, 4)) {
    case 0: limits->n_pages = sim_rng_range(rng, 1, n_whole); break; /* not even one context */
    case 1: limits->n_pages = n_whole + sim_rng_below(rng, n_whole + 1); break;
    case 2: limits->n_pages = n_whole * sim_rng_range(rng, 2, 1 + limits->n_slots / 2); break;
    default: limits->n_pages = (n_whole + 1) * limits->n_slots + 200;
    }
    limits->n_queue = sim_rng_range(rng, 1, 2 * limits->n_slots + 4);
    limits->n_step_rows =
        limits->n_slots + QN_PAGE_TOKENS +
        (sim_rng_chance(rng, 0.4) ? sim_rng_below(rng, 70) : sim_rng_below(rng, 1000));
    limits->n_draft_max = (uint32_t)pick(rng, 0, 3, QN_DRAFT_TOKENS_MAX);
    limits->lag = sim_rng_below(rng, 2);
    limits->hash_seed = sim_rng_next(rng);
    limits->has_prefix_tree = sim_rng_chance(rng, 0.88);
}

static void make_faults(sim_rng *rng, sim_world *world)
{
    world->p_disconnect = pick(rng, 0, 0.1, 0.4);
    world->p_deadline = pick(rng, 0, 0.05, 0.3);
    world->p_slow_reader = pick(rng, 0, 0.05, 0.3);
    world->p_priority = pick(rng, 0, 0.1, 0.6);
    world->p_all_rows = pick(rng, 0, 0.02, 0.2);
    world->p_caller_stop = pick(rng, 0, 0.1, 0.3);
    world->p_seq_fails = pick(rng, 0, 0, 0.002);
    world->p_step_fails = pick(rng, 0, 0, 0.004);
    world->p_device_lost = pick(rng, 0, 0, 0.002);
    world->p_flush = pick(rng, 0, 0.002, 0.02);
}

void sim_world_make(sim_world *world, uint64_t seed)
{
    sim_rng rng = {seed, 1, 0};
    *world = (sim_world){.p_late = 0};
    make_limits(&rng, &world->limits);
    make_faults(&rng, world);
    const double context = world->limits.n_context;
    world->n_clients = sim_rng_range(&rng, 1, 2 * (world->limits.n_slots + world->limits.n_queue));
    world->n_systems = sim_rng_range(&rng, 1, 6);
    world->n_tenants = sim_rng_range(&rng, 1, 3);
    world->n_texts = sim_rng_chance(&rng, 0.4) ? 3 : 1000000;
    world->n_vocab = (uint32_t)pick(&rng, 2, 1000, 150000);
    world->system_tokens = context * pick(&rng, 0.02, 0.2, 0.5);
    world->prompt_tokens = context * pick(&rng, 0.02, 0.1, 0.4);
    world->answer_tokens = context * pick(&rng, 0.01, 0.05, 0.3);
    world->think_us = pick(&rng, 1e3, 1e5, 3e6);
    world->burst_share = pick(&rng, 0, 0.2, 0.6);
    world->p_next_turn = pick(&rng, 0, 0.5, 0.9);
    world->p_late = world->limits.lag == 0 ? 0 : pick(&rng, 0.5, 0.95, 1);
    world->acceptance = pick(&rng, 0.05, 0.6, 0.95);
    world->mtp_lag_max = (uint32_t)pick(&rng, 0, 16, 256);
    world->has_times = sim_rng_chance(&rng, 0.8);
}

void sim_world_print(const sim_world *world, uint64_t seed)
{
    const qn_sched_limits *limits = &world->limits;
    printf("seed %llu\n", (unsigned long long)seed);
    printf("  %u group%s of %u pages, %u slots, queue %u, %u rows a step, context %u, lag %u%s\n",
           limits->n_groups, limits->n_groups == 1 ? "" : "s", limits->n_pages, limits->n_slots,
           limits->n_queue, limits->n_step_rows, limits->n_context, limits->lag,
           limits->has_prefix_tree ? "" : ", no prefix tree");
    printf("  up to %u drafts, right with %.2f; MTP rows up to %u behind; %s\n",
           limits->n_draft_max, world->acceptance, world->mtp_lag_max,
           world->has_times ? "times told" : "no times told");
    printf("  %u clients, %u system prompts, %u tenants, %u ids; typical tokens: system %.0f, "
           "prompt %.0f, answer %.0f\n",
           world->n_clients, world->n_systems, world->n_tenants, world->n_vocab,
           world->system_tokens, world->prompt_tokens, world->answer_tokens);
    printf("  think %.0f ms, bursts %.1f of the time, next turn %.1f\n", world->think_us / 1000,
           world->burst_share, world->p_next_turn);
    printf("  chances of a request: leaves %.2f, deadline %.2f, reads slowly %.2f, priority %.2f, "
           "all rows %.2f, stop text %.2f\n",
           world->p_disconnect, world->p_deadline, world->p_slow_reader, world->p_priority,
           world->p_all_rows, world->p_caller_stop);
    printf("  chances of a step: sequence fails %.3f, step fails %.3f, device lost %.3f, flush "
           "%.3f, result late %.2f\n",
           world->p_seq_fails, world->p_step_fails, world->p_device_lost, world->p_flush,
           world->p_late);
}

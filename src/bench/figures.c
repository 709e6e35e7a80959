/* SPDX-License-Identifier: Apache-2.0 */
#include "figures.h"

#include "base/rng.h"
#include "scrape.h"

#include <math.h>

enum { REPLICAS_MAX = 64, DIGITS_BYTES = 8 };

/* A name of an engine, without the _total that counters may end in or not. */
typedef struct known {
    const char *name;
    bench_engine engine;
    bench_figure figure;
    bool is_share; /* the mean of replicas, not their sum */
} known;

/* Where two names give one figure, the first that is there counts.
 *
 * Sources  docs/metrics.md; vLLM 0.6 to 0.24, vllm/v1/metrics/loggers.py and what came before (V0:
 *          gpu_*, in blocks); SGLang, sglang/srt/metrics/collector.py; llama.cpp,
 *          tools/server/README.md; ROCm/ATOM, atom/utils/metrics and its reference of metrics */
static const known table[] = {
    {"quern_prefix_hit_tokens", BENCH_QUERN, BENCH_HIT_TOKENS, false},
    {"quern_prefix_query_tokens", BENCH_QUERN, BENCH_QUERY_TOKENS, false},
    {"quern_generation_tokens", BENCH_QUERN, BENCH_GENERATED, false},
    {"quern_drafts", BENCH_QUERN, BENCH_DRAFTS, false},
    {"quern_drafted_tokens", BENCH_QUERN, BENCH_DRAFTED, false},
    {"quern_accepted_tokens", BENCH_QUERN, BENCH_ACCEPTED, false},
    {"quern_preemptions", BENCH_QUERN, BENCH_PREEMPTIONS, false},
    {"quern_requests_running", BENCH_QUERN, BENCH_RUNNING, false},
    {"quern_requests_waiting", BENCH_QUERN, BENCH_WAITING, false},
    {"quern_page_usage_ratio", BENCH_QUERN, BENCH_PAGE_USE, true},

    {"atom:prefix_cache_cached_tokens", BENCH_ATOM, BENCH_HIT_TOKENS, false},
    {"atom:prefix_cache_full_tokens", BENCH_ATOM, BENCH_QUERY_TOKENS, false},
    {"atom:generation_tokens", BENCH_ATOM, BENCH_GENERATED, false},
    {"atom:mtp_decode_steps", BENCH_ATOM, BENCH_DRAFTS, false},
    {"atom:mtp_draft_tokens", BENCH_ATOM, BENCH_DRAFTED, false},
    {"atom:mtp_accepted_tokens", BENCH_ATOM, BENCH_ACCEPTED, false},
    {"atom:preemptions", BENCH_ATOM, BENCH_PREEMPTIONS, false},
    {"atom:requests_running", BENCH_ATOM, BENCH_RUNNING, false},
    {"atom:requests_waiting", BENCH_ATOM, BENCH_WAITING, false},
    {"atom:kv_cache_usage_ratio", BENCH_ATOM, BENCH_PAGE_USE, true},
    {"atom:prefix_cache_hit_ratio", BENCH_ATOM, BENCH_HIT_RATE, true},
    {"atom:mtp_average_tokens_per_forward", BENCH_ATOM, BENCH_ACCEPTANCE_LENGTH, true},

    {"vllm:prefix_cache_hits", BENCH_VLLM, BENCH_HIT_TOKENS, false},
    {"vllm:gpu_prefix_cache_hits", BENCH_VLLM, BENCH_HIT_TOKENS, false},
    {"vllm:prefix_cache_queries", BENCH_VLLM, BENCH_QUERY_TOKENS, false},
    {"vllm:gpu_prefix_cache_queries", BENCH_VLLM, BENCH_QUERY_TOKENS, false},
    {"vllm:generation_tokens", BENCH_VLLM, BENCH_GENERATED, false},
    {"vllm:spec_decode_num_drafts", BENCH_VLLM, BENCH_DRAFTS, false},
    {"vllm:spec_decode_num_draft_tokens", BENCH_VLLM, BENCH_DRAFTED, false},
    {"vllm:spec_decode_num_accepted_tokens", BENCH_VLLM, BENCH_ACCEPTED, false},
    {"vllm:num_preemptions", BENCH_VLLM, BENCH_PREEMPTIONS, false},
    {"vllm:num_requests_running", BENCH_VLLM, BENCH_RUNNING, false},
    {"vllm:num_requests_waiting", BENCH_VLLM, BENCH_WAITING, false},
    {"vllm:kv_cache_usage_perc", BENCH_VLLM, BENCH_PAGE_USE, true},
    {"vllm:gpu_cache_usage_perc", BENCH_VLLM, BENCH_PAGE_USE, true},
    {"vllm:gpu_prefix_cache_hit_rate", BENCH_VLLM, BENCH_HIT_RATE, true},

    {"sglang:cached_tokens", BENCH_SGLANG, BENCH_HIT_TOKENS, false},
    {"sglang:prompt_tokens", BENCH_SGLANG, BENCH_QUERY_TOKENS, false},
    {"sglang:generation_tokens", BENCH_SGLANG, BENCH_GENERATED, false},
    {"sglang:num_retracted_requests", BENCH_SGLANG, BENCH_PREEMPTIONS, false},
    {"sglang:num_running_reqs", BENCH_SGLANG, BENCH_RUNNING, false},
    {"sglang:num_queue_reqs", BENCH_SGLANG, BENCH_WAITING, false},
    {"sglang:token_usage", BENCH_SGLANG, BENCH_PAGE_USE, true},
    {"sglang:cache_hit_rate", BENCH_SGLANG, BENCH_HIT_RATE, true},
    {"sglang:spec_accept_length", BENCH_SGLANG, BENCH_ACCEPTANCE_LENGTH, true},
    {"sglang:spec_num_steps", BENCH_SGLANG, BENCH_DRAFT_TOKENS, true},

    {"llamacpp:tokens_predicted", BENCH_LLAMA_CPP, BENCH_GENERATED, false},
    {"llamacpp:requests_processing", BENCH_LLAMA_CPP, BENCH_RUNNING, false},
    {"llamacpp:requests_deferred", BENCH_LLAMA_CPP, BENCH_WAITING, false},
    {"llamacpp:kv_cache_usage_ratio", BENCH_LLAMA_CPP, BENCH_PAGE_USE, true},
};
enum { N_KNOWN = sizeof table / sizeof table[0] };

/* Accepted drafts by the label position, from 0. */
static const struct {
    const char *name;
    bench_engine engine;
} positions[] = {
    {"quern_accepted_tokens_per_position", BENCH_QUERN},
    {"vllm:spec_decode_num_accepted_tokens_per_pos", BENCH_VLLM},
};

enum { N_POSITIONS = sizeof positions / sizeof positions[0] };

/* Samples of one name, by replica. */
typedef struct tally {
    size_t n; /* of all; those beyond REPLICAS_MAX are in rest */
    double rest;
    uint64_t replicas[REPLICAS_MAX];
    double values[REPLICAS_MAX];
} tally;

const char *bench_engine_name(bench_engine engine)
{
    static const char *const names[] = {
        [BENCH_QUERN] = "quern",   [BENCH_ATOM] = "atom",           [BENCH_VLLM] = "vllm",
        [BENCH_SGLANG] = "sglang", [BENCH_LLAMA_CPP] = "llama.cpp", [BENCH_UNKNOWN] = "unknown"};
    return names[engine];
}

/* Collectors on the way may have made ':' to '_'. */
static bool is_named(qn_str seen, const char *name)
{
    if (qn_str_ends(seen, "_total")) {
        seen.len -= strlen("_total");
    }
    if (seen.len != strlen(name)) {
        return false;
    }
    for (size_t i = 0; i < seen.len; i++) {
        if (seen.ptr[i] != name[i] && !(name[i] == ':' && seen.ptr[i] == '_')) {
            return false;
        }
    }
    return true;
}

/* Ranks of one engine that compute the same requests together tell the same number: where they
 * alone differ it is one replica.  Order of labels does not matter. */
static uint64_t replica_of(const scrape_sample *sample)
{
    static const char *const ranks[] = {"tp_rank", "pp_rank", "moe_ep_rank", "pid"};
    uint64_t hash = 0;
    qn_str rest = sample->labels;
    qn_str name;
    qn_str value;
    while (scrape_label_next(&rest, &name, &value)) {
        bool is_rank = false;
        for (size_t i = 0; i < sizeof ranks / sizeof ranks[0]; i++) {
            is_rank = is_rank || qn_str_equal(name, qn_str_of(ranks[i]));
        }
        hash += is_rank ? 0 : qn_rng_mix(qn_str_hash(name) + 3 * qn_str_hash(value));
    }
    return hash;
}

static void tally_add(tally *to, const scrape_sample *sample)
{
    if (!isfinite(sample->value) || sample->value < 0) {
        return; /* none of these figures can be */
    }
    const uint64_t replica = replica_of(sample);
    const size_t n_kept = to->n < REPLICAS_MAX ? to->n : REPLICAS_MAX;
    for (size_t i = 0; i < n_kept; i++) {
        if (to->replicas[i] == replica) {
            to->values[i] = fmax(to->values[i], sample->value);
            return;
        }
    }
    if (n_kept < REPLICAS_MAX) {
        to->replicas[n_kept] = replica;
        to->values[n_kept] = sample->value;
    } else {
        to->rest += sample->value;
    }
    to->n++;
}

static double tally_value(const tally *from, bool is_share)
{
    if (from->n == 0) {
        return (double)NAN;
    }
    double sum = from->rest;
    for (size_t i = 0; i < from->n && i < REPLICAS_MAX; i++) {
        sum += from->values[i];
    }
    return is_share ? sum / (double)from->n : sum;
}

/* Drafts by their place: summed over replicas.  */
static void add_position(double accepted_at[BENCH_POSITIONS_MAX], const scrape_sample *sample)
{
    char digits[DIGITS_BYTES];
    if (!scrape_label(digits, sizeof digits, sample, "position") || digits[0] < '0' ||
        digits[0] > '9' || !isfinite(sample->value) || sample->value < 0) {
        return;
    }
    const unsigned long place = strtoul(digits, NULL, 10);
    if (place < BENCH_POSITIONS_MAX) {
        double *const at = &accepted_at[place];
        *at = isnan(*at) ? sample->value : *at + sample->value;
    }
}

static void read_samples(tally rows[N_KNOWN], double at[][BENCH_POSITIONS_MAX], scrape *page)
{
    scrape_sample sample;
    while (scrape_next(page, &sample)) {
        for (size_t i = 0; i < N_KNOWN; i++) {
            if (is_named(sample.name, table[i].name)) {
                tally_add(&rows[i], &sample);
            }
        }
        for (size_t i = 0; i < N_POSITIONS; i++) {
            if (is_named(sample.name, positions[i].name)) {
                add_position(at[i], &sample);
            }
        }
    }
}

void bench_figures_read(bench_figures *out, qn_str text)
{
    tally rows[N_KNOWN] = {0};
    double at[N_POSITIONS][BENCH_POSITIONS_MAX];
    scrape page;
    scrape_init(&page, text);
    *out = (bench_figures){.engine = BENCH_UNKNOWN};
    for (size_t i = 0; i < BENCH_N_FIGURES; i++) {
        out->of[i] = (double)NAN;
    }
    for (size_t i = 0; i < BENCH_POSITIONS_MAX; i++) {
        out->accepted_at[i] = (double)NAN;
        for (size_t k = 0; k < N_POSITIONS; k++) {
            at[k][i] = (double)NAN;
        }
    }
    read_samples(rows, at, &page);
    out->n_samples = page.n_samples;
    out->n_broken = page.n_broken;
    for (size_t i = 0; i < N_KNOWN && out->engine == BENCH_UNKNOWN; i++) {
        out->engine = rows[i].n > 0 ? table[i].engine : BENCH_UNKNOWN;
    }
    for (size_t i = 0; i < N_KNOWN; i++) {
        double *const figure = &out->of[table[i].figure];
        if (table[i].engine == out->engine && isnan(*figure)) {
            *figure = tally_value(&rows[i], table[i].is_share);
        }
    }
    for (size_t i = 0; i < N_POSITIONS; i++) {
        if (positions[i].engine == out->engine) {
            memcpy(out->accepted_at, at[i], sizeof at[i]);
        }
    }
}

bool bench_figures_fell(const bench_figures *before, const bench_figures *after)
{
    for (size_t i = 0; i < BENCH_N_COUNTERS; i++) {
        if (after->of[i] < before->of[i]) { /* false where either is NaN */
            return true;
        }
    }
    return false;
}

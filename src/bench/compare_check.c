/* SPDX-License-Identifier: Apache-2.0 */
/* May these two be compared?  What has to be the same, and what a reader must know beside. */
#include "base/buf.h"
#include "base/json.h"
#include "compare_parts.h"
#include "put.h"

#include <math.h>
#include <string.h>

const char *compare_kind_name(compare_kind kind)
{
    static const char *const names[COMPARE_N_KINDS] = {
        [COMPARE_MACHINE] = "machine", [COMPARE_WORKLOAD] = "workload",
        [COMPARE_LOAD] = "load",       [COMPARE_API] = "api",
        [COMPARE_INVALID] = "invalid", [COMPARE_PARTIAL] = "partial",
    };
    return names[kind];
}

const json_t *compare_of_server(const json_t *server, const char *key)
{
    const json_t *const said = json_object_get(server, key);
    const json_t *const noted = json_object_get(json_object_get(server, "notes"), key);
    const bool is_known =
        said != NULL && !json_is_null(said) && strcmp(qn_json_text(server, key), "unknown") != 0;
    return is_known || noted == NULL ? said : noted;
}

static bool is_nothing(const json_t *value)
{
    return value == NULL || json_is_null(value);
}

bool compare_is_same(const json_t *x, const json_t *y)
{
    if (json_is_number(x) && json_is_number(y)) {
        return json_number_value(x) == json_number_value(y);
    }
    return (is_nothing(x) && is_nothing(y)) || json_equal(x, y) != 0;
}

static bool add(json_t *differences, compare_kind kind, const char *field, const json_t *a,
                const json_t *b)
{
    json_t *const record = json_pack("{ss, ss, sO?, sO?}", "kind", compare_kind_name(kind), "field",
                                     field, "a", a, "b", b);
    return record != NULL && json_array_append_new(differences, record) == 0;
}

/* ------------------------------------------------------------------------------ what must match */

/* A field that both must have alike. */
static const struct {
    const char *object, *key;
    compare_kind kind;
} must_match[] = {
    {"client", "cpu", COMPARE_MACHINE},
    {"client", "cores", COMPARE_MACHINE},
    {"client", "gpus", COMPARE_MACHINE},
    {"workload", "name", COMPARE_WORKLOAD},
    {"workload", "scale", COMPARE_WORKLOAD},
    {"workload", "seed", COMPARE_WORKLOAD},
    {"workload", "text", COMPARE_WORKLOAD},
    {"workload", "file", COMPARE_WORKLOAD},
    {"workload", "prefix_tokens", COMPARE_WORKLOAD},
    {"workload", "input_tokens", COMPARE_WORKLOAD},
    {"workload", "output_tokens", COMPARE_WORKLOAD},
    {"workload", "range_ratio", COMPARE_WORKLOAD},
    {"workload", "range_ratio_meaning", COMPARE_WORKLOAD},
    {"workload", "groups", COMPARE_WORKLOAD},
    {"workload", "turns", COMPARE_WORKLOAD},
    {"workload", "ignore_eos", COMPARE_WORKLOAD},
    {"workload", "hit_rate", COMPARE_WORKLOAD},
    {"workload", "sampling", COMPARE_WORKLOAD},
    {"workload", "api", COMPARE_API},
    {"load", "mode", COMPARE_LOAD},
    {"load", "arrivals", COMPARE_LOAD},
    {"load", "burstiness", COMPARE_LOAD},
    {"load", "warmups", COMPARE_LOAD},
};

/* The same machine tells a little less or more of its memory after another start. */
static bool has_same_memory(const json_t *a, const json_t *b)
{
    const double x = json_number_value(a);
    const double y = json_number_value(b);
    return fabs(x - y) <= 0.02 * fmax(x, y);
}

static bool check_machines(json_t *differences, json_t *warnings, const json_t *a, const json_t *b)
{
    const json_t *const memory_a = json_object_get(json_object_get(a, "client"), "memory_bytes");
    const json_t *const memory_b = json_object_get(json_object_get(b, "client"), "memory_bytes");
    const json_t *const server_a = json_object_get(a, "server");
    const json_t *const server_b = json_object_get(b, "server");
    bool is_ok = has_same_memory(memory_a, memory_b) ||
                 add(differences, COMPARE_MACHINE, "client.memory_bytes", memory_a, memory_b);
    static const char *const of_server[] = {"same_machine", "device"};
    for (size_t i = 0; i < 2 && is_ok; i++) {
        const json_t *const x = json_object_get(server_a, of_server[i]);
        const json_t *const y = json_object_get(server_b, of_server[i]);
        if (!is_nothing(x) && !is_nothing(y) && !compare_is_same(x, y)) {
            is_ok = add(differences, COMPARE_MACHINE,
                        i == 0 ? "server.same_machine" : "server.device", x, y);
        }
    }
    const bool is_here = json_is_true(json_object_get(server_a, "same_machine")) &&
                         json_is_true(json_object_get(server_b, "same_machine"));
    const bool is_told = !is_nothing(json_object_get(server_a, "device")) &&
                         !is_nothing(json_object_get(server_b, "device"));
    return is_ok &&
           (is_here || is_told ||
            put_warning(warnings,
                        "the servers' hardware is not known (%s and %s): whether it is "
                        "the same is for the reader to judge",
                        qn_json_text(server_a, "base_url"), qn_json_text(server_b, "base_url")));
}

/* Whole and valid: each side by itself, and so each run that is compared. */
static bool check_states(json_t *differences, json_t *warnings, const compare_side *a,
                         const compare_side *b)
{
    static const struct {
        const char *key;
        compare_kind kind;
        bool is_bad;
    } states[] = {{"is_valid", COMPARE_INVALID, false}, {"is_partial", COMPARE_PARTIAL, true}};
    const compare_side *const sides[] = {a, b};
    bool is_ok = true;
    for (size_t i = 0; i < sizeof states / sizeof *states; i++) {
        const json_t *const x = json_object_get(a->result, states[i].key);
        const json_t *const y = json_object_get(b->result, states[i].key);
        if (states[i].is_bad ? json_is_true(x) || json_is_true(y)
                             : json_is_false(x) || json_is_false(y)) {
            is_ok = is_ok && add(differences, states[i].kind, states[i].key, x, y);
        }
    }
    for (size_t i = 0; i < 2; i++) {
        size_t i_reason;
        const json_t *reason;
        json_array_foreach(json_object_get(sides[i]->result, "invalid"), i_reason, reason)
        {
            is_ok = is_ok &&
                    (!json_is_string(reason) || put_warning(warnings, "%c is not valid: %s",
                                                            "AB"[i], json_string_value(reason)));
        }
    }
    return is_ok;
}

/* --------------------------------------------------------------------------------------- loads */

bool compare_is_same_load(const json_t *x, const json_t *y)
{
    static const char *const keys[] = {"label", "request_rate", "max_concurrency"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (!compare_is_same(json_object_get(x, keys[i]), json_object_get(y, keys[i]))) {
            return false;
        }
    }
    return json_is_true(json_object_get(x, "is_confirmation")) ==
           json_is_true(json_object_get(y, "is_confirmation"));
}

void compare_label(char *out, size_t out_bytes, const json_t *run)
{
    (void)snprintf(out, out_bytes, "%s%s", qn_json_text(run, "label"),
                   json_is_true(json_object_get(run, "is_confirmation")) ? " (confirmation)" : "");
    qn_text_clean(out);
}

const json_t *compare_headline(const compare_side *side)
{
    const json_t *const runs = json_object_get(side->result, "runs");
    const json_t *const place = json_object_get(side->result, "headline");
    const json_t *const run = json_array_get(runs, (size_t)json_integer_value(place));
    return run != NULL ? run : json_array_get(runs, 0);
}

bool compare_takes(const compare_side *side, const json_t *run)
{
    const json_t *const load = json_object_get(side->result, "load");
    return strcmp(qn_json_text(load, "kind"), "knee") != 0 ||
           (json_is_true(json_object_get(run, "is_confirmation")) &&
            !json_is_false(json_object_get(run, "is_valid")));
}

bool compare_has_knee(const compare_side *side)
{
    return json_is_true(json_object_get(json_object_get(side->result, "knee"), "is_found"));
}

bool compare_has_same_prompts(const compare_side *a, const compare_side *b)
{
    const json_t *const x = json_object_get(json_object_get(a->result, "workload"), "salt");
    const json_t *const y = json_object_get(json_object_get(b->result, "workload"), "salt");
    return json_is_integer(x) && compare_is_same(x, y);
}

/* Searches for the same limit?  false: no memory. */
static bool check_knees(json_t *differences, const compare_side *a, const compare_side *b)
{
    static const char *const keys[] = {"metric", "limit_ms", "success_min"};
    bool is_ok = true;
    for (size_t i = 0; i < sizeof keys / sizeof *keys && compare_has_knee(a) && compare_has_knee(b);
         i++) {
        char field[32];
        const json_t *const x = json_object_get(json_object_get(a->result, "knee"), keys[i]);
        const json_t *const y = json_object_get(json_object_get(b->result, "knee"), keys[i]);
        (void)snprintf(field, sizeof field, "knee.%s", keys[i]);
        is_ok = is_ok && (compare_is_same(x, y) || add(differences, COMPARE_LOAD, field, x, y));
    }
    return is_ok;
}

/* Runs that both have, of which one is not valid; false: no memory. */
static bool check_loads(json_t *differences, const compare_side *a, const compare_side *b)
{
    const json_t *const runs_a = json_object_get(a->result, "runs");
    const json_t *const runs_b = json_object_get(b->result, "runs");
    const json_t *x;
    const json_t *y;
    size_t i;
    size_t k;
    bool is_met = compare_has_knee(a) && compare_has_knee(b); /* those are compared */
    bool is_ok = true;
    json_array_foreach(runs_a, i, x)
    {
        json_array_foreach(runs_b, k, y)
        {
            if (!compare_is_same_load(x, y) || !compare_takes(a, x) || !compare_takes(b, y)) {
                continue;
            }
            is_met = true;
            const json_t *const valid_a = json_object_get(x, "is_valid");
            const json_t *const valid_b = json_object_get(y, "is_valid");
            if ((json_is_false(valid_a) || json_is_false(valid_b)) &&
                compare_is_same(json_object_get(x, "repeat"), json_object_get(y, "repeat"))) {
                char field[160];
                (void)snprintf(field, sizeof field, "run \"%.100s\".is_valid",
                               qn_json_text(x, "label"));
                qn_text_clean(field);
                is_ok = is_ok && add(differences, COMPARE_INVALID, field, valid_a, valid_b);
            }
        }
    }
    return is_ok && (is_met || add(differences, COMPARE_LOAD, "runs[0].label",
                                   json_object_get(json_array_get(runs_a, 0), "label"),
                                   json_object_get(json_array_get(runs_b, 0), "label")));
}

/* ------------------------------------------------------------------------------------- warnings */

/* Of servers that are compared these may differ: it may be what is compared. */
static bool tell_servers(json_t *warnings, const json_t *a, const json_t *b)
{
    static const char *const keys[] = {"quantization", "weights", "acceptance", "draft_tokens"};
    const json_t *const x = json_object_get(a, "server");
    const json_t *const y = json_object_get(b, "server");
    bool is_ok = true;
    for (size_t i = 0; i < sizeof keys / sizeof *keys && is_ok; i++) {
        char seen[2][80];
        const json_t *const of_a = compare_of_server(x, keys[i]);
        const json_t *const of_b = compare_of_server(y, keys[i]);
        qn_json_show(seen[0], sizeof seen[0], of_a);
        qn_json_show(seen[1], sizeof seen[1], of_b);
        is_ok = compare_is_same(of_a, of_b) ||
                put_warning(warnings, "server.%s differs: %s and %s", keys[i], seen[0], seen[1]);
    }
    if (strcmp(qn_json_text(x, "acceptance"), "synthetic") == 0 ||
        strcmp(qn_json_text(y, "acceptance"), "synthetic") == 0) {
        is_ok =
            is_ok && put_warning(warnings, "acceptance is synthetic: no model answered so fast");
    }
    return is_ok;
}

/* Shares of the cache: another at the second run of a prompt, and then all is faster. */
static bool tell_hits(json_t *warnings, const compare_side *a, const compare_side *b)
{
    static const double share_above = 0.02; /* of what was made; the rest of a page is below it */
    static const double share_apart = 0.05;
    const compare_side *const sides[] = {a, b};
    double hits[2];
    bool is_ok = true;
    for (size_t i = 0; i < 2; i++) {
        const json_t *const run = compare_headline(sides[i]);
        const double made = qn_json_number(run, "hit_rate_expected");
        hits[i] = qn_json_number(run, "hit_rate");
        is_ok =
            is_ok && (!(hits[i] > made + share_above) ||
                      put_warning(warnings,
                                  "%c found %.1f %% of its input in the cache, the workload makes "
                                  "%.1f %%: the server had seen its prompts (--flush-cache, or "
                                  "another --salt)",
                                  i == 0 ? 'A' : 'B', 100 * hits[i], 100 * made));
    }
    return is_ok && (!(fabs(hits[0] - hits[1]) > share_apart) ||
                     put_warning(warnings,
                                 "A found %.1f %% of its input in the cache and B %.1f %%: that is "
                                 "compared too",
                                 100 * hits[0], 100 * hits[1]));
}

bool compare_check(json_t *differences, json_t *warnings, const compare_side *a,
                   const compare_side *b)
{
    bool is_ok = true;
    for (size_t i = 0; i < sizeof must_match / sizeof *must_match && is_ok; i++) {
        const json_t *const x =
            json_object_get(json_object_get(a->result, must_match[i].object), must_match[i].key);
        const json_t *const y =
            json_object_get(json_object_get(b->result, must_match[i].object), must_match[i].key);
        char field[64];
        (void)snprintf(field, sizeof field, "%s.%s", must_match[i].object, must_match[i].key);
        is_ok = compare_is_same(x, y) || add(differences, must_match[i].kind, field, x, y);
    }
    const json_t *const load_a = json_object_get(a->result, "workload");
    const json_t *const load_b = json_object_get(b->result, "workload");
    if (!compare_is_same(json_object_get(load_a, "tokenizer"),
                         json_object_get(load_b, "tokenizer"))) {
        is_ok = is_ok &&
                put_warning(warnings,
                            "prompts were counted by different tokenizers (%s and %s): their "
                            "texts may differ, and so may tokens",
                            qn_json_text(load_a, "tokenizer"), qn_json_text(load_b, "tokenizer"));
    }
    if (!a->has_requests || !b->has_requests) {
        is_ok = is_ok && put_warning(warnings, "%s: no requests.jsonl: nothing is paired",
                                     a->has_requests ? b->path : a->path);
    }
    return is_ok && check_machines(differences, warnings, a->result, b->result) &&
           check_states(differences, warnings, a, b) && check_knees(differences, a, b) &&
           check_loads(differences, a, b) && tell_servers(warnings, a->result, b->result) &&
           tell_hits(warnings, a, b);
}

qn_status compare_refuse(const json_t *differences, const compare_options *options, qn_error *err)
{
    enum { SHOWN_MAX = 3 };
    char text[360] = "";
    char names[80] = "";
    size_t used = 0;
    size_t used_names = 0;
    size_t n_refused = 0;
    for (int kind = 0; kind < COMPARE_N_KINDS; kind++) {
        const char *const name = compare_kind_name((compare_kind)kind);
        const json_t *d;
        size_t i;
        bool is_named = false;
        json_array_foreach(differences, i, d)
        {
            if (options->allows[kind] || strcmp(qn_json_text(d, "kind"), name) != 0) {
                continue;
            }
            char seen[2][40];
            qn_json_show(seen[0], sizeof seen[0], json_object_get(d, "a"));
            qn_json_show(seen[1], sizeof seen[1], json_object_get(d, "b"));
            if (n_refused++ < SHOWN_MAX) {
                used += (size_t)snprintf(text + used, sizeof text - used, "%s%.40s %s and %s",
                                         n_refused > 1 ? "; " : "", qn_json_text(d, "field"),
                                         seen[0], seen[1]);
            }
            if (!is_named) {
                used_names += (size_t)snprintf(names + used_names, sizeof names - used_names,
                                               "%s%s", used_names > 0 ? "," : "", name);
                is_named = true;
            }
        }
    }
    if (n_refused == 0) {
        return QN_OK;
    }
    char more[40] = "";
    if (n_refused > SHOWN_MAX) {
        (void)snprintf(more, sizeof more, "; %zu more", n_refused - SHOWN_MAX);
    }
    return qn_fail(err, QN_E_INVAL, 0, __func__,
                   "A and B: %s%s, expected results that can be compared; --allow %s compares them "
                   "all the same",
                   text, more, names);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "base/str.h"
#include "base/try.h"
#include "compare_parts.h"
#include "put.h"

static qn_status no_memory(qn_error *err)
{
    return qn_fail(err, QN_E_NOMEM, 0, "compare_json", "compare: no memory");
}

/* JSON has no bytes that are no UTF-8. */
static json_t *path_json(const char *path)
{
    json_t *const text = json_string(path);
    return text != NULL ? text : json_string("(not UTF-8)");
}

/* What a page says of one of them, and what stands beside its figures: engine and version. */
static json_t *side_json(const compare_side *side)
{
    const json_t *const server = json_object_get(side->result, "server");
    char label[160];
    const char *const version = qn_json_text(server, "version");
    const bool is_number = version[0] < 'a' || version[0] > 'z'; /* else it names itself */
    (void)snprintf(label, sizeof label, "%.64s%s%.64s",
                   is_number ? qn_json_text(server, "engine") : "",
                   is_number && version[0] != '\0' ? " " : "", version);
    qn_text_clean(label); /* cut within a character, it would be no JSON */
    return json_pack("{so, sO?, sO?, ss, sb, sO?, sO?, sO?, sO?}", "path", path_json(side->path),
                     "date_utc", json_object_get(side->result, "date_utc"), "command",
                     json_object_get(side->result, "command"), "label",
                     label[0] != '\0' ? label : "unknown", "has_requests", side->has_requests,
                     "client", json_object_get(side->result, "client"), "server", server,
                     "workload", json_object_get(side->result, "workload"), "load",
                     json_object_get(side->result, "load"));
}

/* The first run of the same load; NULL: there is none. */
static const json_t *find_load(const compare_side *side, const json_t *run)
{
    const json_t *other;
    size_t i;
    json_array_foreach(json_object_get(side->result, "runs"), i, other)
    {
        if (compare_takes(side, other) && compare_is_same_load(run, other)) {
            return other;
        }
    }
    return NULL;
}

static bool append_label(json_t *list, const json_t *run)
{
    char label[200];
    compare_label(label, sizeof label, run);
    return json_array_append_new(list, json_string(label)) == 0;
}

static qn_status append_load(json_t *out, const compare_side *a, const json_t *run_a,
                             const compare_side *b, const json_t *run_b,
                             const bootstrap_options *options, qn_error *err)
{
    json_t *load = NULL;
    const qn_status status = compare_load(&load, a, run_a, b, run_b, options, err);
    if (status == QN_OK && json_array_append_new(out, load) != 0) {
        return no_memory(err);
    }
    return status;
}

/* Each load that both have, in A's order; where they have none in common, the headlines. */
static qn_status compare_loads(json_t *out, json_t *unmatched, const compare_side *a,
                               const compare_side *b, const bootstrap_options *options,
                               qn_error *err)
{
    json_t *const only_a = json_object_get(unmatched, "a");
    json_t *const only_b = json_object_get(unmatched, "b");
    const json_t *const runs_a = json_object_get(a->result, "runs");
    const json_t *const runs_b = json_object_get(b->result, "runs");
    const json_t *run;
    size_t i;
    qn_status status = QN_OK;
    json_array_foreach(runs_a, i, run)
    {
        const json_t *const other = find_load(b, run);
        if (find_load(a, run) != run) {
            continue; /* a repeat, or none that is compared */
        }
        if (other != NULL) {
            status = append_load(out, a, run, b, other, options, err);
        } else if (!append_label(only_a, run)) {
            status = no_memory(err);
        }
        if (status < 0) {
            return status;
        }
    }
    json_array_foreach(runs_b, i, run)
    {
        if (find_load(b, run) == run && find_load(a, run) == NULL && !append_label(only_b, run)) {
            return no_memory(err);
        }
    }
    return json_array_size(out) > 0
               ? QN_OK
               : append_load(out, a, compare_headline(a), b, compare_headline(b), options, err);
}

/* What two searches found; null where one of them found nothing. */
static json_t *knee_json(const compare_side *a, const compare_side *b)
{
    if (!compare_has_knee(a) || !compare_has_knee(b)) {
        return json_null();
    }
    const json_t *const knee_a = json_object_get(a->result, "knee");
    const json_t *const knee_b = json_object_get(b->result, "knee");
    const double x = qn_json_number(knee_a, "rate");
    const double y = qn_json_number(knee_b, "rate");
    return json_pack("{sO?, sO?, so, so, so}", "metric", json_object_get(knee_a, "metric"),
                     "limit_ms", json_object_get(knee_a, "limit_ms"), "a", put_real(x), "b",
                     put_real(y), "ratio", put_real(x > 0 ? y / x : (double)NAN));
}

qn_status compare_json(json_t **out, const compare_side *a, const compare_side *b,
                       const compare_options *options, qn_error *err)
{
    const bootstrap_options *const o = &options->bootstrap;
    json_t *const differences = json_array();
    json_t *const warnings = json_array();
    json_t *const runs = json_array();
    json_t *const unmatched = json_pack("{s[], s[]}", "a", "b");
    qn_status status = QN_OK;
    *out = NULL;
    if (runs == NULL || unmatched == NULL || !compare_check(differences, warnings, a, b)) {
        status = no_memory(err);
        goto done;
    }
    QN_TRY(status, compare_refuse(differences, options, err), done);
    QN_TRY(status, compare_loads(runs, unmatched, a, b, o, err), done);
    *out = json_pack("{ss, so, ss, so, sb, sO, sO, so, so, sb, sf, sI, sI, sO, sO, so}", "format",
                     "quern-bench-compare/1", "date_utc", put_date(0), "command", options->command,
                     "tool", put_tool(), "is_comparable", json_array_size(differences) == 0,
                     "differences", differences, "warnings", warnings, "a", side_json(a), "b",
                     side_json(b), "has_same_prompts", compare_has_same_prompts(a, b), "confidence",
                     o->confidence, "resamples", (json_int_t)o->n_resamples, "seed",
                     (json_int_t)o->seed, "runs", runs, "unmatched", unmatched, "knee",
                     knee_json(a, b));
    if (*out == NULL) {
        status = no_memory(err);
    }
done:
    json_decref(differences);
    json_decref(warnings);
    json_decref(runs);
    json_decref(unmatched);
    return status;
}

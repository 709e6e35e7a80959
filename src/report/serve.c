/* SPDX-License-Identifier: Apache-2.0 */
#include "report/serve.h"

#include <stdio.h>

const json_t *serve_headline(const json_t *result)
{
    const json_t *const runs = field_at(result, "runs");
    const double i = field_number(result, "headline");
    return i >= 0.0 && i < (double)json_array_size(runs) ? json_array_get(runs, (size_t)i)
                                                         : json_array_get(runs, 0);
}

const char *serve_label(const json_t *run)
{
    return field_text_or(run, "label", "a run");
}

bool serve_is_scaled(const json_t *result)
{
    const double scale = field_number(result, "workload.scale");
    return isfinite(scale) && scale != 1.0;
}

bool serve_is_alike(const json_t *result, const char *workload)
{
    const double n_input = field_number(result, "workload.input_tokens") +
                           fmax(field_number(result, "workload.prefix_tokens"), 0.0);
    const double n_output = field_number(result, "workload.output_tokens");
    char whole[96];
    char thousands[96];
    (void)snprintf(whole, sizeof whole, "%s in, %s out", figure_count(n_input).text,
                   figure_count(n_output).text);
    (void)snprintf(thousands, sizeof thousands, "%gk in, %gk out", n_input / 1000.0,
                   n_output / 1000.0);
    return strncmp(workload, whole, strlen(whole)) == 0 ||
           strncmp(workload, thousands, strlen(thousands)) == 0;
}

bool serve_was_cut(const json_t *run)
{
    return field_is_true(run, "cut") && json_array_size(field_at(run, "invalid")) <= 1;
}

/* What was measured: a note of the user, or the model as the server names it. */
static const char *subject(const json_t *result, const char *otherwise)
{
    return field_text_or(result, "server.notes.title",
                         field_text_or(result, "server.model", otherwise));
}

static void title(char *out, size_t out_bytes, const json_t *result)
{
    (void)snprintf(out, out_bytes, "%.80s, %s, on %s", subject(result, "?"),
                   page_quantization(result, "server.quantization"),
                   field_text_or(result, "server.engine", "an unknown engine"));
}

/* ---------------------------------------------------------------------------------- title block */

static void write_badges(sheet *s, const json_t *result)
{
    const json_t *const headline = serve_headline(result);
    const char *const reason = field_text_or(result, "workload.name", NULL);
    const double scale = field_number(result, "workload.scale");
    sheet_badges(s);
    if (field_is_true(result, "is_partial")) {
        sheet_badge(s, SHEET_BAD, "PARTIAL: interrupted");
    }
    if (json_is_false(field_at(result, "is_valid"))) {
        sheet_badge(s, SHEET_BAD, "NOT VALID");
    } else if (headline != NULL && !json_is_false(field_at(headline, "is_valid"))) {
        sheet_badge(s, SHEET_GOOD, "valid");
    }
    page_badge_weights(s, field_text(result, "server.weights"));
    page_badge_acceptance(s, field_text(result, "server.acceptance"));
    if (reason != NULL) {
        sheet_badge(s, SHEET_PLAIN, "workload %s", reason);
    }
    if (serve_is_scaled(result)) {
        sheet_badge(s, SHEET_WARN, "lengths scaled by %s", figure_plain(scale).text);
    }
    sheet_badges_end(s);
}

static void write_list(sheet *s, sheet_tone tone, const char *bold, const json_t *texts)
{
    for (size_t i = 0; i < json_array_size(texts); i++) {
        const char *const text = json_string_value(json_array_get(texts, i));
        if (text != NULL) {
            sheet_box(s, tone, bold, "%s", text);
        }
    }
}

static void write_boxes(sheet *s, const json_t *result)
{
    if (field_is_true(result, "is_partial")) {
        sheet_box(s, SHEET_BAD, "Partial.",
                  "The bench was interrupted; this is what there was by "
                  "then.");
    }
    if (json_is_false(field_at(result, "is_valid")) &&
        json_array_size(field_at(result, "invalid")) == 0) {
        sheet_box(s, SHEET_BAD, "Not valid.", "The result does not say why.");
    }
    write_list(s, SHEET_BAD, "Not valid.", field_at(result, "invalid"));
    if (strcmp(field_text_or(result, "server.weights", ""), "dummy") == 0) {
        sheet_box(s, SHEET_BAD, "Dummy weights.",
                  "The model was not a trained one. Speeds may be those of the shape; answers, "
                  "expert routing and acceptance of drafts are not those of the model.");
    }
    if (strcmp(field_text_or(result, "server.acceptance", ""), "synthetic") == 0) {
        sheet_box(s, SHEET_BAD, "Synthetic acceptance.",
                  "Drafts were accepted unseen to reach a length that somebody chose. Figures "
                  "with speculation are as good as that choice.");
    }
    write_list(s, SHEET_WARN, "Note.", field_at(result, "warnings"));
}

/* A machine in a line: "AMD EPYC 9654, 96 cores, 755 GB, Linux 6.1, 8 x H200". */
static void write_machine(sheet *s, const char *name, const json_t *machine)
{
    char cores[64] = "";
    char memory[64] = "";
    char gpus[128] = "";
    const json_t *const list = field_at(machine, "gpus");
    const double n_cores = field_number(machine, "cores");
    const double memory_bytes = field_number(machine, "memory_bytes");
    const json_t *const first = json_array_get(list, 0);
    const char *const gpu =
        json_is_string(first) ? json_string_value(first) : field_text_or(first, "name", "GPU");
    if (isfinite(n_cores)) {
        (void)snprintf(cores, sizeof cores, ", %s core%s", figure_count(n_cores).text,
                       n_cores == 1.0 ? "" : "s");
    }
    if (isfinite(memory_bytes)) {
        (void)snprintf(memory, sizeof memory, ", %s", figure_bytes(memory_bytes).text);
    }
    if (json_array_size(list) > 0) {
        (void)snprintf(gpus, sizeof gpus, ", %zu x %.64s", json_array_size(list), gpu);
        qn_text_clean(gpus);
    }
    sheet_fact(s, name, "%s%s%s%s%s%s", field_text_or(machine, "cpu", "not stated"), cores, memory,
               gpus, field_text(machine, "kernel") != NULL ? ", " : "",
               field_text_or(machine, "kernel", ""));
}

/* What the user says of the server. */
static void write_notes(sheet *s, const json_t *server)
{
    json_t *const notes = json_object_get(server, "notes");
    const char *key = NULL;
    json_t *note = NULL;
    if (!json_is_object(notes)) {
        page_fact(s, "Notes", server, "notes");
    }
    json_object_foreach(notes, key, note)
    {
        char name[80];
        (void)snprintf(name, sizeof name, "Noted: %.64s", key);
        qn_text_clean(name);
        page_fact(s, name, notes, key);
    }
}

static void write_facts(sheet *s, const json_t *result)
{
    const json_t *const server = field_at(result, "server");
    const bool is_same = field_is_true(server, "same_machine");
    page_command(s, result);
    sheet_facts(s);
    sheet_fact(s, "Model", "%s", field_text_or(server, "model", "not stated"));
    sheet_fact(s, "Quantization", "%s", page_quantization(server, "quantization"));
    sheet_fact(s, "Weights", "%s", field_text_or(server, "weights", "not stated"));
    sheet_fact(s, "Acceptance", "%s", field_text_or(server, "acceptance", "not stated"));
    page_fact(s, "Draft tokens", server, "draft_tokens");
    sheet_fact(s, "Engine", "%s %s%s%s", field_text_or(server, "engine", "unknown"),
               field_text_or(server, "version", "(version not stated)"),
               field_text(server, "commit") != NULL ? ", commit " : "",
               field_text_or(server, "commit", ""));
    sheet_fact(s, "Server", "%s%s", field_text_or(server, "device", "machine not stated"),
               is_same ? " (the machine of the client)" : "");
    page_fact(s, "Address", server, "base_url");
    write_notes(s, server);
    write_machine(s, "Client", field_at(result, "client"));
    page_made_by(s, result);
    sheet_facts_end(s);
}

/* ------------------------------------------------------------------------------------- headline */

static void write_speed_tiles(sheet *s, const json_t *run)
{
    char below[256];
    const double wanted = field_number(run, "request_rate");
    (void)snprintf(below, sizeof below, "per second, at %s", serve_label(run));
    qn_text_clean(below);
    sheet_tile(s, figure_of(field_number(run, "output_throughput")).text, "Output tokens", below);
    (void)snprintf(below, sizeof below, "p95 %s", figure_ms(field_number(run, "p95_ttft_ms")).text);
    sheet_tile(s, figure_ms(field_number(run, "p50_ttft_ms")).text, "Time to first token, p50",
               below);
    (void)snprintf(below, sizeof below, "TPOT p50 %s, p95 %s",
                   figure_ms(field_number(run, "p50_tpot_ms")).text,
                   figure_ms(field_number(run, "p95_tpot_ms")).text);
    sheet_tile(s, figure_of(field_number(run, "per_user_tokens_per_s")).text,
               "Each user, tokens a second", below);
    (void)snprintf(below, sizeof below, isfinite(wanted) ? "a second, %s asked for" : "a second%s",
                   isfinite(wanted) ? figure_of(wanted).text : "");
    sheet_tile(s, figure_of(field_number(run, "request_throughput")).text, "Requests answered",
               below);
}

static void write_tiles(sheet *s, const json_t *result)
{
    const json_t *const run = serve_headline(result);
    char below[256];
    const double joules = field_number(run, "energy.joules_per_output_token");
    const double accepted = field_number(run, "metrics.acceptance_length");
    sheet_tiles(s);
    write_speed_tiles(s, run);
    (void)snprintf(below, sizeof below, "%s of %s requests",
                   figure_count(field_number(run, "completed")).text,
                   figure_count(field_number(run, "num_prompts")).text);
    sheet_tile(s, figure_percent(field_number(run, "success_rate")).text, "Success", below);
    (void)snprintf(below, sizeof below, "%s by construction",
                   figure_percent(field_number(result, "workload.hit_rate")).text);
    sheet_tile(s, figure_percent(field_number(run, "hit_rate")).text, "Input from the cache",
               below);
    if (isfinite(accepted)) {
        sheet_tile(s, figure_of(accepted).text, "Acceptance length",
                   strcmp(field_text_or(result, "server.acceptance", ""), "synthetic") == 0
                       ? "tokens a step, SYNTHETIC"
                       : "tokens a step, as the server counts");
    }
    if (isfinite(field_number(run, "request_goodput"))) {
        sheet_tile(s, figure_of(field_number(run, "request_goodput")).text, "Goodput",
                   "requests a second within the limits of --goodput");
    }
    if (isfinite(joules)) {
        (void)snprintf(below, sizeof below, "%.40s, %s W on average",
                       field_text_or(run, "energy.source", ""),
                       figure_of(field_number(run, "energy.avg_power_w")).text);
        qn_text_clean(below);
        sheet_tile(s, figure_of(joules).text, "Joules an output token", below);
    }
    sheet_tiles_end(s);
}

/* ----------------------------------------------------------------------------------------- runs */

static const sheet_column run_columns[] = {
    {"Run", NULL, true},
    {"Rate", "requests/s asked for", false},
    {"Answered", "requests/s", false},
    {"Output", "tokens/s", false},
    {"TTFT p50", "ms", false},
    {"TTFT p95", "ms", false},
    {"TPOT p50", "ms", false},
    {"Per user", "tokens/s", false},
    {"Success", NULL, false},
    {"Cached", "of input", false},
    {"Input", "tokens each", false},
    {"Output", "tokens each", false},
    {"Length", "s", false},
};

static void write_run(sheet *s, const json_t *run, bool is_headline)
{
    const bool is_valid = !json_is_false(field_at(run, "is_valid"));
    const double completed = field_number(run, "completed");
    const double rate = field_number(run, "request_rate");
    const double repeat = field_number(run, "repeat");
    char again[64] = "";
    if (repeat > 0.0) {
        (void)snprintf(again, sizeof again, ", repeat %s", figure_count(repeat + 1.0).text);
    }
    sheet_row(s, serve_was_cut(run) ? SHEET_WARN
                 : !is_valid        ? SHEET_BAD
                 : is_headline      ? SHEET_GOOD
                                    : SHEET_PLAIN);
    sheet_cell(s, "%s%s%s%s", serve_label(run), again,
               field_is_true(run, "is_confirmation") ? ", confirmation" : "",
               serve_was_cut(run) ? ", did not hold"
               : is_valid         ? ""
                                  : ", NOT VALID");
    sheet_number(s, rate);
    sheet_number(s, field_number(run, "request_throughput"));
    sheet_number(s, field_number(run, "output_throughput"));
    sheet_number(s, field_number(run, "p50_ttft_ms"));
    sheet_number(s, field_number(run, "p95_ttft_ms"));
    sheet_number(s, field_number(run, "p50_tpot_ms"));
    sheet_number(s, field_number(run, "per_user_tokens_per_s"));
    sheet_cell(s, "%s", figure_percent(field_number(run, "success_rate")).text);
    sheet_cell(s, "%s", figure_percent(field_number(run, "hit_rate")).text);
    sheet_cell(s, "%s", figure_count(field_number(run, "total_input_tokens") / completed).text);
    sheet_cell(s, "%s", figure_count(field_number(run, "total_output_tokens") / completed).text);
    sheet_number(s, field_number(run, "duration"));
}

/* A row of a published result beside ours: only those at a rate can be compared so. */
static void write_reference_row(sheet *s, const char *name, const json_t *row)
{
    if (!isfinite(field_number(row, "request_rate"))) {
        return;
    }
    sheet_row(s, SHEET_WARN);
    sheet_cell(s, "%s", name);
    sheet_number(s, field_number(row, "request_rate"));
    sheet_cell(s, FIGURE_DASH);
    sheet_number(s, field_number(row, "output_throughput"));
    sheet_number(s, field_number(row, "ttft_p50_ms"));
    sheet_number(s, field_number(row, "ttft_p95_ms"));
    sheet_number(s, field_number(row, "tpot_p50_ms"));
    sheet_number(s, field_number(row, "per_user_tokens_per_s"));
    sheet_cell(s, "%s", figure_percent(field_number(row, "success_rate")).text);
    for (size_t i = 9; i < sizeof run_columns / sizeof *run_columns; i++) {
        sheet_cell(s, FIGURE_DASH);
    }
}

static void write_reference_rows(sheet *s, const json_t *references)
{
    for (size_t i = 0; i < json_array_size(references); i++) {
        const json_t *const reference = json_array_get(references, i);
        const json_t *const rows = field_at(reference, "rows");
        for (size_t i_row = 0; i_row < json_array_size(rows); i_row++) {
            write_reference_row(s, field_text_or(reference, "name", "unnamed"),
                                json_array_get(rows, i_row));
        }
    }
}

static void write_runs(sheet *s, const json_t *result)
{
    const size_t n_columns = sizeof run_columns / sizeof *run_columns;
    const json_t *const runs = field_at(result, "runs");
    const json_t *const headline = serve_headline(result);
    const json_t *const references = field_at(result, "references");
    const bool is_compared = json_array_size(references) > 0 && !serve_is_scaled(result);
    sheet_section(s, "Runs");
    sheet_table(s,
                is_compared
                    ? "Rows in grey are published results of others, which we did not measure; "
                      "their workloads are their own."
                    : NULL,
                run_columns, n_columns);
    for (size_t i = 0; i < json_array_size(runs); i++) {
        const json_t *const run = json_array_get(runs, i);
        write_run(s, run, run == headline);
    }
    if (is_compared) {
        write_reference_rows(s, references);
    }
    sheet_table_end(s);
    for (size_t i = 0; i < json_array_size(runs); i++) {
        const json_t *const run = json_array_get(runs, i);
        if (!serve_was_cut(run)) {
            write_list(s, SHEET_BAD, serve_label(run), field_at(run, "invalid"));
        }
    }
}

/* "2,388 (2,372 to 2,392)" */
static void write_spread(sheet *s, const json_t *spread, const char *name)
{
    const json_t *const figures = field_at(spread, name);
    sheet_cell(s, "%s (%s to %s)", figure_of(field_number(figures, "median")).text,
               figure_of(field_number(figures, "min")).text,
               figure_of(field_number(figures, "max")).text);
}

static void write_spreads(sheet *s, const json_t *spreads)
{
    static const sheet_column columns[] = {
        {"Load", NULL, true},      {"Runs", NULL, false},     {"Output", "tokens/s", false},
        {"TTFT p50", "ms", false}, {"TTFT p95", "ms", false}, {"TPOT p50", "ms", false}};
    if (json_array_size(spreads) == 0) {
        return;
    }
    sheet_table(s, "Loads that ran several times: the median, the least and the greatest.", columns,
                sizeof columns / sizeof *columns);
    for (size_t i = 0; i < json_array_size(spreads); i++) {
        const json_t *const spread = json_array_get(spreads, i);
        sheet_row(s, SHEET_PLAIN);
        sheet_cell(s, "%s", field_text_or(spread, "label", "a run"));
        sheet_cell(s, "%s", figure_count(field_number(spread, "n")).text);
        write_spread(s, spread, "output_throughput");
        write_spread(s, spread, "p50_ttft_ms");
        write_spread(s, spread, "p95_ttft_ms");
        write_spread(s, spread, "p50_tpot_ms");
    }
    sheet_table_end(s);
}

/* --------------------------------------------------------------------------------------- method */

static void write_method(sheet *s, const json_t *result)
{
    sheet_section(s, "Method");
    sheet_paragraph(s,
                    "Latencies count from the moment a request was due, not from when it was sent, "
                    "so that a server that makes its clients wait is charged for it. TTFT ends "
                    "with the first token of text, thinking or a tool call. TPOT is (E2E - TTFT) / "
                    "(output tokens - 1) of each request; ITL is between chunks of the stream, of "
                    "which one may bring several tokens. Tokens are those of the server's usage. "
                    "Rates are by the run's length, from the first request due to the last end; "
                    "steady figures by the window behind the ramp-up. Percentiles are over "
                    "successful requests. Success is completed by completed and failed.");
    sheet_paragraph(s, "Joules are power integrated over the run, per device, by trapezoids; gaps "
                       "of over 3 s between samples make them invalid. Prices are profiles with "
                       "dates and sources, not offers.");
    if (s->is_html) {
        page_folded(s, "Workload", field_at(result, "workload"));
        page_folded(s, "Load", field_at(result, "load"));
        page_folded(s, "Server, and where each field was read", field_at(result, "server"));
        page_folded(s, "Price profiles", field_at(result, "prices"));
    } else {
        sheet_facts(s);
        page_fact(s, "Workload", result, "workload");
        page_fact(s, "Load", result, "load");
        sheet_facts_end(s);
    }
    sheet_paragraph(s, "This page is made of result.json alone: quern bench report result.json "
                       "makes it again. Every request stands in requests.jsonl beside it.");
}

static void write(sheet *s, const json_t *result)
{
    char heading[256];
    char below[256];
    const json_t *const run = serve_headline(result);
    (void)snprintf(heading, sizeof heading, "%.90s, %s, on %.40s %.40s",
                   subject(result, "Unnamed model"),
                   page_quantization(result, "server.quantization"),
                   field_text_or(result, "server.engine", "an unknown engine"),
                   field_text_or(result, "server.version", ""));
    qn_text_clean(heading);
    (void)snprintf(below, sizeof below,
                   "%s output tokens a second at %.60s, time to first token p50 %s and p95 %s",
                   figure_of(field_number(run, "output_throughput")).text, serve_label(run),
                   figure_ms(field_number(run, "p50_ttft_ms")).text,
                   figure_ms(field_number(run, "p95_ttft_ms")).text);
    qn_text_clean(below);
    sheet_title(s, heading, run != NULL ? below : "No run was completed");
    write_badges(s, result);
    write_boxes(s, result);
    if (run != NULL) {
        write_tiles(s, result);
    }
    write_facts(s, result);
    if (run != NULL) {
        write_runs(s, result);
        serve_by_run(s, result);
        write_spreads(s, field_at(result, "spreads"));
        serve_latencies(s, result);
        serve_plots(s, result);
        serve_knee(s, result);
        serve_sensitivity(s, result);
        serve_errors(s, result);
        serve_cost(s, result);
        serve_answers(s, result);
        serve_references(s, result);
    }
    write_method(s, result);
}

/* All that is read, but for what is shown as it is. */
static const field fields[] = {
    {"command", JSON_STRING},
    {"date", JSON_STRING},
    {"date_utc", JSON_STRING},
    {"is_partial", JSON_TRUE},
    {"is_valid", JSON_TRUE},
    {"invalid[]", JSON_STRING},
    {"warnings[]", JSON_STRING},
    {"tool.version", JSON_STRING},
    {"tool.commit", JSON_STRING},
    {"client.cpu", JSON_STRING},
    {"client.cores", JSON_REAL},
    {"client.memory_bytes", JSON_REAL},
    {"client.kernel", JSON_STRING},
    {"client.gpus", JSON_ARRAY},
    {"server.base_url", JSON_STRING},
    {"server.engine", JSON_STRING},
    {"server.version", JSON_STRING},
    {"server.model", JSON_STRING},
    {"server.quantization", JSON_STRING},
    {"server.weights", JSON_STRING},
    {"server.acceptance", JSON_STRING},
    {"server.same_machine", JSON_TRUE},
    {"server.commit", JSON_STRING},
    {"server.device", JSON_STRING},
    {"server.sources.*", JSON_STRING},
    {"workload.name", JSON_STRING},
    {"workload.scale", JSON_REAL},
    {"workload.text", JSON_STRING},
    {"workload.file", JSON_STRING},
    {"workload.input_tokens", JSON_REAL},
    {"workload.prefix_tokens", JSON_REAL},
    {"workload.output_tokens", JSON_REAL},
    {"workload.ignore_eos", JSON_TRUE},
    {"workload.hit_rate", JSON_REAL},
    {"load.kind", JSON_STRING},
    {"load.mode", JSON_STRING},
    {"load.arrivals", JSON_STRING},
    {"load.burstiness", JSON_REAL},
    {"headline", JSON_REAL},
    {"runs[].label", JSON_STRING},
    {"runs[].request_rate", JSON_REAL},
    {"runs[].max_concurrency", JSON_REAL},
    {"runs[].repeat", JSON_REAL},
    {"runs[].is_confirmation", JSON_TRUE},
    {"runs[].is_valid", JSON_TRUE},
    {"runs[].cut", JSON_TRUE},
    {"runs[].invalid[]", JSON_STRING},
    {"runs[].duration", JSON_REAL},
    {"runs[].num_prompts", JSON_REAL},
    {"runs[].completed", JSON_REAL},
    {"runs[].failed", JSON_REAL},
    {"runs[].success_rate", JSON_REAL},
    {"runs[].errors.*", JSON_REAL},
    {"runs[].error_messages.*", JSON_STRING},
    {"runs[].finish_reasons.*", JSON_REAL},
    {"runs[].total_input_tokens", JSON_REAL},
    {"runs[].total_output_tokens", JSON_REAL},
    {"runs[].hit_rate", JSON_REAL},
    {"runs[].request_throughput", JSON_REAL},
    {"runs[].output_throughput", JSON_REAL},
    {"runs[].total_token_throughput", JSON_REAL},
    {"runs[].request_goodput", JSON_REAL},
    {"runs[].offered_rate", JSON_REAL},
    {"runs[].steady.from_s", JSON_REAL},
    {"runs[].steady.to_s", JSON_REAL},
    {"runs[].steady.is_found", JSON_TRUE},
    {"runs[].steady.output_throughput", JSON_REAL},
    {"runs[].steady.why", JSON_STRING},
    {"runs[].mean_ttft_ms", JSON_REAL},
    {"runs[].std_ttft_ms", JSON_REAL},
    {"runs[].min_ttft_ms", JSON_REAL},
    {"runs[].p50_ttft_ms", JSON_REAL},
    {"runs[].p90_ttft_ms", JSON_REAL},
    {"runs[].p95_ttft_ms", JSON_REAL},
    {"runs[].p99_ttft_ms", JSON_REAL},
    {"runs[].max_ttft_ms", JSON_REAL},
    {"runs[].mean_tpot_ms", JSON_REAL},
    {"runs[].std_tpot_ms", JSON_REAL},
    {"runs[].min_tpot_ms", JSON_REAL},
    {"runs[].p50_tpot_ms", JSON_REAL},
    {"runs[].p90_tpot_ms", JSON_REAL},
    {"runs[].p95_tpot_ms", JSON_REAL},
    {"runs[].p99_tpot_ms", JSON_REAL},
    {"runs[].max_tpot_ms", JSON_REAL},
    {"runs[].mean_itl_ms", JSON_REAL},
    {"runs[].std_itl_ms", JSON_REAL},
    {"runs[].min_itl_ms", JSON_REAL},
    {"runs[].p50_itl_ms", JSON_REAL},
    {"runs[].p90_itl_ms", JSON_REAL},
    {"runs[].p95_itl_ms", JSON_REAL},
    {"runs[].p99_itl_ms", JSON_REAL},
    {"runs[].max_itl_ms", JSON_REAL},
    {"runs[].mean_e2el_ms", JSON_REAL},
    {"runs[].std_e2el_ms", JSON_REAL},
    {"runs[].min_e2el_ms", JSON_REAL},
    {"runs[].p50_e2el_ms", JSON_REAL},
    {"runs[].p90_e2el_ms", JSON_REAL},
    {"runs[].p95_e2el_ms", JSON_REAL},
    {"runs[].p99_e2el_ms", JSON_REAL},
    {"runs[].max_e2el_ms", JSON_REAL},
    {"runs[].tokens_per_chunk", JSON_REAL},
    {"runs[].per_user_tokens_per_s", JSON_REAL},
    {"runs[].lag.send_p99_ms", JSON_REAL},
    {"runs[].lag.read_p99_ms", JSON_REAL},
    {"runs[].lag.cpu_s", JSON_REAL},
    {"runs[].cdf.ttft_ms[]", JSON_REAL},
    {"runs[].cdf.tpot_ms[]", JSON_REAL},
    {"runs[].cdf.e2el_ms[]", JSON_REAL},
    {"runs[].timeline.every_s", JSON_REAL},
    {"runs[].timeline.output_tokens_per_s[]", JSON_REAL},
    {"runs[].timeline.in_flight[]", JSON_REAL},
    {"runs[].metrics.engine", JSON_STRING},
    {"runs[].metrics.hit_rate", JSON_REAL},
    {"runs[].metrics.acceptance_length", JSON_REAL},
    {"runs[].metrics.acceptance_per_position[]", JSON_REAL},
    {"runs[].metrics.preemptions", JSON_REAL},
    {"runs[].metrics.why", JSON_STRING},
    {"runs[].metrics.series.t_s[]", JSON_REAL},
    {"runs[].metrics.series.running[]", JSON_REAL},
    {"runs[].metrics.series.waiting[]", JSON_REAL},
    {"runs[].metrics.series.page_use[]", JSON_REAL},
    {"runs[].energy.source", JSON_STRING},
    {"runs[].energy.power_valid", JSON_TRUE},
    {"runs[].energy.why", JSON_STRING},
    {"runs[].energy.avg_power_w", JSON_REAL},
    {"runs[].energy.total_gpu_energy_j", JSON_REAL},
    {"runs[].energy.joules_per_output_token", JSON_REAL},
    {"runs[].energy.joules_per_total_token", JSON_REAL},
    {"runs[].energy.joules_per_successful_query", JSON_REAL},
    {"runs[].energy.series.t_s[]", JSON_REAL},
    {"runs[].energy.series.w[]", JSON_REAL},
    {"runs[].cost.accelerator", JSON_STRING},
    {"runs[].cost.n", JSON_REAL},
    {"runs[].cost.output_per_s_per_kw", JSON_REAL},
    {"runs[].cost.profiles[].name", JSON_STRING},
    {"runs[].cost.profiles[].usd_per_hour", JSON_REAL},
    {"runs[].cost.profiles[].usd_per_hour_of_all", JSON_REAL},
    {"runs[].cost.profiles[].usd_per_m_output", JSON_REAL},
    {"runs[].cost.profiles[].usd_per_m_total", JSON_REAL},
    {"runs[].cost.break_even[].reference", JSON_STRING},
    {"runs[].cost.break_even[].profile", JSON_STRING},
    {"runs[].cost.break_even[].workload", JSON_STRING},
    {"runs[].cost.break_even[].output_throughput", JSON_REAL},
    {"runs[].cost.break_even[].ratio", JSON_REAL},
    {"knee.metric", JSON_STRING},
    {"knee.limit_ms", JSON_REAL},
    {"knee.success_min", JSON_REAL},
    {"knee.rate", JSON_REAL},
    {"knee.output_throughput", JSON_REAL},
    {"knee.bracket[]", JSON_REAL},
    {"knee.is_found", JSON_TRUE},
    {"knee.why", JSON_STRING},
    {"knee.runs[]", JSON_REAL},
    {"sensitivity[].hit_rate", JSON_REAL},
    {"sensitivity[].hit_rate_measured", JSON_REAL},
    {"sensitivity[].mtp", JSON_STRING},
    {"sensitivity[].run", JSON_REAL},
    {"sensitivity[].why", JSON_STRING},
    {"spreads[].label", JSON_STRING},
    {"spreads[].n", JSON_REAL},
    {"spreads[].output_throughput.*", JSON_REAL},
    {"spreads[].p50_ttft_ms.*", JSON_REAL},
    {"spreads[].p95_ttft_ms.*", JSON_REAL},
    {"spreads[].p50_tpot_ms.*", JSON_REAL},
    {"references[].name", JSON_STRING},
    {"references[].workload", JSON_STRING},
    {"references[].engine", JSON_STRING},
    {"references[].quantization", JSON_STRING},
    {"references[].accelerator", JSON_STRING},
    {"references[].n_accelerators", JSON_REAL},
    {"references[].source", JSON_STRING},
    {"references[].date", JSON_STRING},
    {"references[].caveats[]", JSON_STRING},
    {"references[].claims[]", JSON_STRING},
    {"references[].rows[].label", JSON_STRING},
    {"references[].rows[].concurrency", JSON_REAL},
    {"references[].rows[].request_rate", JSON_REAL},
    {"references[].rows[].output_throughput", JSON_REAL},
    {"references[].rows[].total_throughput", JSON_REAL},
    {"references[].rows[].ttft_ms", JSON_REAL},
    {"references[].rows[].tpot_ms", JSON_REAL},
    {"references[].rows[].ttft_p50_ms", JSON_REAL},
    {"references[].rows[].ttft_p95_ms", JSON_REAL},
    {"references[].rows[].tpot_p50_ms", JSON_REAL},
    {"references[].rows[].per_user_tokens_per_s", JSON_REAL},
    {"references[].rows[].success_rate", JSON_REAL},
    {"prices[].name", JSON_STRING},
    {"prices[].date", JSON_STRING},
    {"prices[].source", JSON_STRING},
};

const page page_serve = {
    .format = "quern-bench-serve/1",
    .fields = fields,
    .n_fields = sizeof fields / sizeof *fields,
    .title = title,
    .write = write,
};

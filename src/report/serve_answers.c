/* SPDX-License-Identifier: Apache-2.0 */
#include "report/serve.h"

#include <stdio.h>

enum { TEXT_BYTES = 640 };

#define MEASURED SHEET_GOOD, "measured"
#define STATED   SHEET_PLAIN, "stated"
#define UNKNOWN  SHEET_WARN, "not stated"
#define LACKS    SHEET_BAD, "not measured"

static bool is_text(const json_t *object, const char *path, const char *text)
{
    return strcmp(field_text_or(object, path, ""), text) == 0;
}

/* Where a field of the server was read, as a clause. */
static const char *source_of(const json_t *result, const char *name)
{
    const json_t *const sources = field_at(result, "server.sources");
    return field_text_or(sources, name, "the result does not say where it was read");
}

static void answer_model(sheet *s, const json_t *result)
{
    static const char quantized[] = "Which quantization is this?";
    static const char real[] = "Are these the weights of the model?";
    const char *const quantization = field_text(result, "server.quantization");
    const char *const weights = field_text(result, "server.weights");
    if (quantization == NULL || strcmp(quantization, "unknown") == 0) {
        sheet_answer(
            s, UNKNOWN, quantized,
            "The server does not tell and nobody noted it (--note quantization=...): compare with "
            "care.");
    } else {
        sheet_answer(s, STATED, quantized, "%s, as the title says; %s.",
                     page_quantization(result, "server.quantization"),
                     source_of(result, "quantization"));
    }
    if (weights == NULL || strcmp(weights, "unknown") == 0) {
        sheet_answer(s, UNKNOWN, real, "The server does not tell whether they are trained.");
    } else {
        const bool is_dummy = strcmp(weights, "dummy") == 0;
        sheet_answer(s, is_dummy ? SHEET_BAD : SHEET_PLAIN, is_dummy ? "dummy" : "stated", real,
                     "%s; %s.",
                     is_dummy ? "No: dummy weights, so routing, answers and acceptance are not "
                                "the model's"
                              : "Trained ones",
                     source_of(result, "weights"));
    }
}

static void answer_hits(sheet *s, const json_t *result, const json_t *run)
{
    static const char question[] = "How was the cache hit rate made, and was it reached?";
    const double made = field_number(result, "workload.hit_rate");
    const double usage = field_number(run, "hit_rate");
    const double server = field_number(run, "metrics.hit_rate");
    const double prefix = field_number(result, "workload.prefix_tokens");
    char construction[256] = "The workload says nothing of shared text.";
    if (isfinite(made)) {
        (void)snprintf(
            construction, sizeof construction,
            "By construction %s of the input is text that earlier requests began with%s%s"
            "%s.",
            figure_percent(made).text, prefix > 0.0 ? " (a prefix of " : "",
            prefix > 0.0 ? figure_count(prefix).text : "", prefix > 0.0 ? " tokens)" : "");
    }
    if (!isfinite(usage) && !isfinite(server)) {
        sheet_answer(s, LACKS, question,
                     "%s The server tells neither cached tokens nor a hit rate, so nobody knows.",
                     construction);
        return;
    }
    const double hit = isfinite(usage) ? usage : server;
    const bool is_off = fabs(hit - made) > SERVE_HITS_APART;
    sheet_answer(s, is_off ? SHEET_WARN : SHEET_GOOD, "measured", question,
                 "%s Measured: %s by the usage of the answers, %s by the server's metrics.%s",
                 construction, figure_percent(usage).text, figure_percent(server).text,
                 !is_off      ? ""
                 : hit < made ? " It was not reached: read the figures as those of the lower rate."
                              : " It was exceeded: the server had seen the prompts before.");
}

static void answer_acceptance(sheet *s, const json_t *result, const json_t *run)
{
    static const char question[] = "Which acceptance length, and is it real?";
    const double length = field_number(run, "metrics.acceptance_length");
    const json_t *const positions = field_at(run, "metrics.acceptance_per_position");
    char shares[160] = "";
    size_t at = 0;
    for (size_t i = 0; i < json_array_size(positions) && at + 24 < sizeof shares; i++) {
        const int n =
            snprintf(shares + at, sizeof shares - at, "%s%s", i == 0 ? "; by position " : ", ",
                     figure_percent(field_number_of(positions, i)).text);
        at += n > 0 ? (size_t)n : 0;
    }
    if (is_text(result, "server.acceptance", "none")) {
        sheet_answer(s, STATED, question, "No speculation was used.");
    } else if (is_text(result, "server.acceptance", "synthetic")) {
        sheet_answer(s, SHEET_BAD, "synthetic", question,
                     "Not real: drafts are accepted unseen. Length %s%s.", figure_of(length).text,
                     shares);
    } else if (isfinite(length)) {
        const bool is_known = is_text(result, "server.acceptance", "measured");
        sheet_answer(
            s, is_known ? SHEET_GOOD : SHEET_WARN, is_known ? "measured" : "as told", question,
            "%s tokens a step%s, as the server counts.%s On text of kind \"%s\": other "
            "text has another length.",
            figure_of(length).text, shares,
            is_known ? "" : " Whether drafts are verified or accepted unseen it does not tell.",
            field_text_or(result, "workload.text", "unknown"));
    } else {
        sheet_answer(s, LACKS, question, "%s",
                     field_text_or(run, "metrics.why", "The server does not tell."));
    }
}

/* What is known of the runs of the headline's load; NULL: it ran once. */
static const json_t *spread_of(const json_t *result, const json_t *headline)
{
    const json_t *const spreads = field_at(result, "spreads");
    const json_t *best = NULL;
    for (size_t i = 0; i < json_array_size(spreads); i++) {
        const json_t *const spread = json_array_get(spreads, i);
        if (strcmp(field_text_or(spread, "label", ""), serve_label(headline)) == 0 &&
            (best == NULL || field_number(spread, "n") > field_number(best, "n"))) {
            best = spread;
        }
    }
    return best;
}

static void answer_length(sheet *s, const json_t *result, const json_t *run)
{
    const json_t *const spread = spread_of(result, run);
    const json_t *const steady = field_at(run, "steady");
    char window[TEXT_BYTES];
    if (field_is_true(steady, "is_found")) {
        (void)snprintf(window, sizeof window,
                       "In its steady window, from %s s to %s s, it was %s output tokens/s.",
                       figure_of(field_number(steady, "from_s")).text,
                       figure_of(field_number(steady, "to_s")).text,
                       figure_of(field_number(steady, "output_throughput")).text);
    } else {
        (void)snprintf(window, sizeof window, "No steady window was found%s%.400s.",
                       field_text(steady, "why") != NULL ? ": " : "",
                       field_text_or(steady, "why", ""));
        qn_text_clean(window);
    }
    sheet_answer(s, MEASURED, "How long was it measured?", "%s s and %s requests. %s",
                 figure_of(field_number(run, "duration")).text,
                 figure_count(field_number(run, "num_prompts")).text, window);
    if (spread != NULL) {
        sheet_answer(s, MEASURED, "How often, and how far apart were the results?",
                     "%s times: output throughput from %s to %s tokens/s, TTFT p95 from %s to %s.",
                     figure_count(field_number(spread, "n")).text,
                     figure_of(field_number(spread, "output_throughput.min")).text,
                     figure_of(field_number(spread, "output_throughput.max")).text,
                     figure_ms(field_number(spread, "p95_ttft_ms.min")).text,
                     figure_ms(field_number(spread, "p95_ttft_ms.max")).text);
    } else {
        sheet_answer(s, LACKS, "How often, and how far apart were the results?",
                     "Once. --repeat N tells how far apart runs are.");
    }
}

/* More than was offered cannot be answered: where it seems so, the run was too short. */
static void answer_offered(sheet *s, const json_t *run)
{
    const double offered = field_number(run, "offered_rate");
    const double answered = field_number(run, "request_throughput");
    if (isfinite(offered) && isfinite(answered)) {
        const bool is_above = answered > 1.02 * offered;
        sheet_answer(s, is_above ? SHEET_WARN : SHEET_GOOD, "measured",
                     "Do the figures exceed what was offered?",
                     "%s a second came due and %s were answered, %s of it.%s",
                     figure_of(offered).text, figure_of(answered).text,
                     figure_percent(answered / offered).text,
                     is_above ? " The run is too short for its rate: throughputs are too high by "
                                "that."
                              : "");
    }
}

static void answer_load(sheet *s, const json_t *result, const json_t *run)
{
    static const char question[] = "How do requests arrive?";
    const char *const arrivals = field_text_or(result, "load.arrivals", "unknown");
    if (is_text(result, "load.mode", "closed")) {
        sheet_answer(s, STATED, question,
                     "Closed loop: %s at once, a new one when one ends. A slow server is asked "
                     "less, which flatters its latencies; --request-rate does not do that.",
                     figure_count(field_number(run, "max_concurrency")).text);
    } else if (strcmp(arrivals, "at_once") == 0) {
        sheet_answer(s, STATED, question,
                     "All at once, at the start: the most that a queue can hold, so that TTFT is "
                     "mostly the wait in it. No user arrives so; --request-rate draws arrivals.");
    } else {
        char bursts[64] = "";
        const double burstiness = field_number(result, "load.burstiness");
        if (isfinite(burstiness)) {
            (void)snprintf(bursts, sizeof bursts, " (burstiness %s)", figure_of(burstiness).text);
        }
        sheet_answer(s, MEASURED, question,
                     "Open loop, %s arrivals%s, whatever the server does: %s a second were asked "
                     "for, %s came due.",
                     arrivals, bursts, figure_of(field_number(run, "request_rate")).text,
                     figure_of(field_number(run, "offered_rate")).text);
    }
    answer_offered(s, run);
    sheet_answer(s, STATED, "From when do latencies count?",
                 "From the intended start. Requests that had to wait for a connection or for the "
                 "client are charged with that time.");
}

static void answer_tokens(sheet *s, const json_t *result, const json_t *run)
{
    const double completed = field_number(run, "completed");
    const double asked = field_number(result, "workload.output_tokens");
    const double got = field_number(run, "total_output_tokens") / completed;
    const double input = field_number(run, "total_input_tokens") / completed;
    const char *const text = field_text_or(result, "workload.text", "unknown");
    sheet_answer(
        s, MEASURED, "Were the lengths those that are claimed?",
        "Realized: %s tokens in and %s out for each request, of usage. Asked for: %s out%s.",
        figure_of(input).text, figure_of(got).text, figure_count(asked).text,
        field_is_true(result, "workload.ignore_eos") ? ", with ignore_eos so that none ends early"
                                                     : "; answers may end before");
    sheet_answer(s, MEASURED, "Output tokens, or all tokens?",
                 "%s output tokens a second is the headline; input and output together are %s a "
                 "second, which is another figure.",
                 figure_of(field_number(run, "output_throughput")).text,
                 figure_of(field_number(run, "total_token_throughput")).text);
    sheet_answer(s, strcmp(text, "ids") == 0 ? SHEET_WARN : SHEET_PLAIN,
                 strcmp(text, "unknown") == 0 ? "not stated" : "stated",
                 "Which text? Random tokens distort speculation and expert routing.", "%s",
                 strcmp(text, "words") == 0  ? "Plain words, counted by the model's tokenizer."
                 : strcmp(text, "ids") == 0  ? "Random ids, as asked: acceptance and routing are "
                                               "not those of real text."
                 : strcmp(text, "file") == 0 ? field_text_or(result, "workload.file", "A file.")
                                             : "The result does not say.");
    sheet_answer(s, MEASURED, "Is a chunk a token?",
                 "No: %s tokens came in a chunk of the stream on average. So TPOT is what is "
                 "compared here, and not the time between chunks.",
                 figure_of(field_number(run, "tokens_per_chunk")).text);
}

static void answer_knee(sheet *s, const json_t *result)
{
    static const char question[] = "Was the limit reached, or just a rate that worked?";
    const json_t *const knee = field_at(result, "knee");
    const json_t *const bracket = field_at(knee, "bracket");
    if (knee == NULL) {
        sheet_answer(s, LACKS, question, "No knee was searched for (--knee ttft:5000).");
    } else if (!field_is_true(knee, "is_found")) {
        sheet_answer(s, LACKS, question, "It was searched for and not found: %s",
                     field_text_or(knee, "why", "no reason given."));
    } else {
        sheet_answer(s, MEASURED, question, "%s requests/s held the limit and %s did not.",
                     figure_of(field_number_of(bracket, 0)).text,
                     figure_of(field_number_of(bracket, 1)).text);
    }
}

static void answer_costs(sheet *s, const json_t *result, const json_t *run)
{
    static const char per_watt[] = "Tokens for each watt?";
    static const char prices[] = "At which price?";
    const json_t *const energy = field_at(run, "energy");
    const json_t *const profile = json_array_get(field_at(run, "cost.profiles"), 0);
    if (field_is_true(energy, "power_valid")) {
        const double joules = field_number(energy, "joules_per_output_token");
        sheet_answer(s, MEASURED, per_watt,
                     "%s J for each output token: %s output tokens a second for each kW that was "
                     "drawn, by %s.",
                     figure_of(joules).text, figure_of(1000.0 / joules).text,
                     field_text_or(energy, "source", "an unnamed meter"));
    } else {
        sheet_answer(s, LACKS, per_watt, "%s",
                     field_text_or(energy, "why", "No power meter was read (--power)."));
    }
    if (profile != NULL) {
        sheet_answer(s, STATED, prices,
                     "$%s for a million output tokens under profile \"%s\"; all profiles with "
                     "dates and sources are above. That is at this load, all day: a machine that "
                     "is busy half of the time costs twice as much for each token.",
                     figure_of(field_number(profile, "usd_per_m_output")).text,
                     field_text_or(profile, "name", "unnamed"));
    } else {
        sheet_answer(s, LACKS, prices, "No accelerator was named (--accelerator).");
    }
    if (json_array_size(field_at(result, "sensitivity")) > 0) {
        sheet_answer(s, MEASURED, "What if hit rate and acceptance are others?",
                     "See the table of sensitivity above: the same load at other hit rates, with "
                     "and without speculation.");
    } else {
        sheet_answer(s, LACKS, "What if hit rate and acceptance are others?",
                     "--sensitivity measures hit rates of 0, 30, 60 and 90 %%, with and without "
                     "speculation.");
    }
    sheet_answer(s, LACKS, "Is this the traffic that one has?",
                 "Nobody's but its own: \"%s\", one kind of length at one hit rate. --workload "
                 "trace, custom or multi-turn takes what was logged.",
                 field_text_or(result, "workload.name", "unnamed"));
    sheet_answer(s, LACKS, "And the quality of the answers?",
                 "Not measured here. quern eval does, paired against the unquantized model, with "
                 "intervals.");
}

/* Is the client why a run is not valid? */
static bool is_blamed(const json_t *run)
{
    const json_t *const invalid = field_at(run, "invalid");
    bool found = false;
    for (size_t i = 0; i < json_array_size(invalid); i++) {
        const char *const why = json_string_value(json_array_get(invalid, i));
        found |= why != NULL && strncmp(why, "the client", strlen("the client")) == 0;
    }
    return found;
}

static void answer_client(sheet *s, const json_t *result, const json_t *run)
{
    static const char question[] = "Was the client the bottleneck?";
    const double sent = field_number(run, "lag.send_p99_ms");
    const double read = field_number(run, "lag.read_p99_ms");
    const double cpu = field_number(run, "lag.cpu_s") / field_number(run, "duration");
    if (!isfinite(sent) || !isfinite(read)) {
        sheet_answer(s, LACKS, question, "Its lag was not measured.");
    } else {
        const bool is_late = is_blamed(run);
        sheet_answer(s, is_late ? SHEET_BAD : SHEET_GOOD, "measured", question,
                     "%s: 99 %% of requests were sent within %s of when they were due, and 99 %% "
                     "of events read within %s; its thread used %s of a core.%s",
                     is_late ? "Yes" : "No", figure_ms(sent).text, figure_ms(read).text,
                     figure_percent(cpu).text,
                     field_is_true(result, "server.same_machine")
                         ? " It ran on the server's machine, which takes time from both."
                         : "");
    }
    sheet_answer(s, MEASURED, "How many requests failed?",
                 "%s of %s; %s of those not cancelled "
                 "succeeded.%s",
                 figure_count(field_number(run, "failed")).text,
                 figure_count(field_number(run, "num_prompts")).text,
                 figure_percent(field_number(run, "success_rate")).text,
                 json_object_size(field_at(run, "errors")) > 0 ? " By kind: see above." : "");
}

void serve_answers(sheet *s, const json_t *result)
{
    const json_t *const run = serve_headline(result);
    sheet_section(s, "Objections, answered");
    sheet_paragraph(s,
                    "What readers of such figures ask, each with what this bench measured at %s.",
                    serve_label(run));
    sheet_html(s, "<div class=\"answers\">\n");
    answer_model(s, result);
    answer_hits(s, result, run);
    answer_acceptance(s, result, run);
    answer_length(s, result, run);
    answer_load(s, result, run);
    answer_tokens(s, result, run);
    answer_knee(s, result);
    answer_costs(s, result, run);
    answer_client(s, result, run);
    sheet_html(s, "</div>\n");
    sheet_markdown(s, "\n");
}

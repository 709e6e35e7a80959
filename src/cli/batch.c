/* SPDX-License-Identifier: Apache-2.0 */
#include "batch.h"

#include "batch_input.h"
#include "progress.h"
#include "raw_json.h"
#include "report.h"
#include "server/exchange.h"
#include "speed.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

/* As many requests wait in the engine as run in it, so that it never runs dry between two steps. */
enum { SLOTS_PER_SEQUENCE = 2, WAIT_MS = 100, ID_BYTES = 48, WHAT_BYTES = 64 };

/* Of lines that run or wait; and of those read, good or not, before those that run get a step. */
enum { LINES_BYTES_MAX = 64 << 20, LINES_BYTES_PER_STEP = 1 << 20 };

/* What is told in the end. */
typedef struct counts {
    uint64_t n_requests, n_failed, n_skipped;
    uint64_t n_prompt, n_cached, n_generated, n_steps, n_step_tokens;
} counts;

/* A line that is being answered. */
typedef struct item {
    uint64_t line;
    size_t n_bytes; /* of the line */
    char *custom_id;
    server_api api;
    server_exchange *exchange;
    size_t n_choices, n_submitted, n_ended;
    counts n;
    server_error error; /* status_code 0: none yet */
} item;

/* A choice in the engine. */
typedef struct slot {
    uint64_t id;
    item *item;
    size_t i_choice;
} slot;

typedef struct batch {
    const batch_options *o;
    qn_model *model;
    qn_engine *engine;
    batch_input input;
    batch_output output;
    exchange_settings settings;
    qn_buf body;   /* of the answer at hand, */
    qn_buf record; /* and its record */
    slot *slots;   /* [n_slots_max] those in use first */
    size_t n_slots, n_slots_max;
    size_t n_bytes;     /* of the lines that run or wait */
    size_t i_last_slot; /* whose event came last: the next is near */
    item *filling;      /* choices of it are still to be submitted; NULL: none */
    uint64_t run_id;    /* makes ids that no other run makes */
    bool has_ended;     /* no more lines */
    double started_s;
    counts n;
    cli_progress progress;
    char what[WHAT_BYTES];
} batch;

/* ------------------------------------------------------------------------------------- records */

/* The value as text; it is released.  Without memory the run has ended, see take_memory(). */
static char *dump(json_t *value)
{
    char *const text = json_dumps(value, JSON_ENCODE_ANY);
    json_decref(value);
    return text;
}

/* {"id", "custom_id", "response", "error"}; the body is b->body. */
static qn_status write_record(batch *b, uint64_t line, const char *custom_id, int status_code,
                              json_t *error, qn_error *err)
{
    char id[ID_BYTES];
    char *const name = dump(custom_id != NULL ? json_string(custom_id) : json_null());
    char *const why = dump(error);
    (void)snprintf(id, sizeof id, "%016llx-%llu", (unsigned long long)b->run_id,
                   (unsigned long long)line);
    qn_buf_clear(&b->record);
    qn_status status = qn_buf_append_printf(
        &b->record, err,
        "{\"id\": \"batch_req_%s\", \"custom_id\": %s, \"response\": {\"status_code\": %d, "
        "\"request_id\": \"req_%s\", \"body\": ",
        id, name != NULL ? name : "null", status_code, id);
    if (status == QN_OK) {
        status = qn_buf_append(&b->record, b->body.ptr, b->body.len, err);
    }
    if (status == QN_OK) {
        status = qn_buf_append_printf(&b->record, err, "}, \"error\": %s}\n",
                                      why != NULL ? why : "null");
    }
    free(name);
    free(why);
    b->n.n_requests++;
    return status == QN_OK ? batch_output_add(&b->output, b->record.ptr, b->record.len, err)
                           : status;
}

static qn_status write_error(batch *b, uint64_t line, const char *custom_id,
                             const server_error *error, qn_error *err)
{
    b->n.n_failed++;
    qn_buf_clear(&b->body);
    const qn_status status = server_error_append(&b->body, error, SERVER_API_CHAT, err);
    if (status < 0) {
        return status;
    }
    json_t *const why =
        json_pack("{ss, ss, sI}", "code", error->code != NULL ? error->code : "server_error",
                  "message", error->message, "line", (json_int_t)line);
    return write_record(b, line, custom_id, error->status_code, why, err);
}

static void close_item(item *it)
{
    exchange_close(&it->exchange);
    free(it->custom_id);
    free(it);
}

static qn_status finish_item(batch *b, item *it, qn_error *err)
{
    qn_status status = QN_OK;
    if (it->error.status_code != 0) {
        status = write_error(b, it->line, it->custom_id, &it->error, err);
    } else {
        qn_buf_clear(&b->body);
        status = exchange_finish(it->exchange, &b->body, err);
        b->n.n_prompt += it->n.n_prompt;
        b->n.n_cached += it->n.n_cached;
        b->n.n_generated += it->n.n_generated;
        b->n.n_steps += it->n.n_steps;
        b->n.n_step_tokens += it->n.n_step_tokens;
        if (status == QN_OK) {
            status = write_record(b, it->line, it->custom_id, 200, json_null(), err);
        }
    }
    b->n_bytes -= it->n_bytes;
    close_item(it);
    return status;
}

/* --------------------------------------------------------------------------------------- lines */

/* What a line says, its body aside. */
typedef struct request_line {
    json_t *root;
    const char *custom_id; /* NULL: not known */
    server_api api;
    const char *body;
    size_t body_len;
} request_line;

static bool is_blank(const batch_line *line)
{
    size_t n = 0;
    while (line->text != NULL && n < line->len && line->text[n] != '\0' &&
           strchr(" \t\r", line->text[n]) != NULL) {
        n++;
    }
    return line->text != NULL && n == line->len;
}

/* Who asks. */
static bool parse_line(request_line *out, const batch_line *line, server_error *error)
{
    static const char bad_line[] = "invalid_json_line";
    const unsigned long long number = line->number;
    json_error_t why;
    if (line->text == NULL) {
        server_fail(error, 400, bad_line, "", "line %llu: over %d bytes, expected at most that",
                    number, BATCH_LINE_BYTES_MAX);
        return false;
    }
    out->root =
        json_loadb(line->text, line->len, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &why);
    if (!json_is_object(out->root)) {
        server_fail(error, 400, bad_line, "", "line %llu: %s, expected a JSON object", number,
                    out->root != NULL ? "a list" : why.text);
        return false;
    }
    const json_t *const id = json_object_get(out->root, "custom_id");
    if (!json_is_string(id) || json_string_length(id) == 0) {
        server_fail(error, 400, "missing_required_parameter", "custom_id",
                    "line %llu: custom_id: %s, expected a text", number,
                    id == NULL ? "missing" : "none");
        return false;
    }
    out->custom_id = json_string_value(id);
    return true;
}

/* What is asked of whom. */
static bool check_line(request_line *out, const batch_line *line, server_error *error)
{
    const unsigned long long number = line->number;
    const char *const method = json_string_value(json_object_get(out->root, "method"));
    const char *const url = json_string_value(json_object_get(out->root, "url"));
    if (method == NULL || strcmp(method, "POST") != 0) {
        server_fail(error, 400, "invalid_method", "method",
                    "line %llu: method: %.32s, expected POST", number,
                    method != NULL ? method : "missing");
        return false;
    }
    if (url != NULL && strcmp(url, "/v1/chat/completions") == 0) {
        out->api = SERVER_API_CHAT;
    } else if (url != NULL && strcmp(url, "/v1/completions") == 0) {
        out->api = SERVER_API_COMPLETION;
    } else {
        server_fail(error, 400, "invalid_url", "url",
                    "line %llu: url: %.64s, expected /v1/chat/completions or /v1/completions",
                    number, url != NULL ? url : "missing");
        return false;
    }
    const json_t *const body = json_object_get(out->root, "body");
    if (!json_is_object(body) ||
        !raw_json_member(&out->body, &out->body_len, line->text, line->len, "body")) {
        server_fail(error, 400, body == NULL ? "missing_required_parameter" : "invalid_value",
                    "body", "line %llu: body: %s, expected an object", number,
                    body == NULL ? "missing" : "none");
        return false;
    }
    return true;
}

static qn_status make_item(batch *b, const request_line *from, const batch_line *of, qn_error *err)
{
    char id[ID_BYTES];
    server_error error;
    const uint64_t line = of->number;
    item *const it = calloc(1, sizeof *it);
    if (it == NULL || (it->custom_id = strdup(from->custom_id)) == NULL) {
        free(it);
        return qn_fail(err, QN_E_NOMEM, 0, __func__, "line %llu: no memory",
                       (unsigned long long)line);
    }
    it->line = line;
    it->api = from->api;
    (void)snprintf(id, sizeof id, "%016llx-%llu", (unsigned long long)b->run_id,
                   (unsigned long long)line);
    if (!exchange_open(&it->exchange, &b->settings, from->api, from->body, from->body_len, id,
                       &error)) {
        const qn_status status = error.status_code < 500
                                     ? write_error(b, line, it->custom_id, &error, err)
                                     : qn_fail(err, QN_E_NOMEM, 0, __func__, "line %llu: %s",
                                               (unsigned long long)line, error.message);
        close_item(it);
        return status;
    }
    it->n_choices = exchange_n_choices(it->exchange);
    b->filling = it;
    b->n_bytes += it->n_bytes = of->len;
    return QN_OK;
}

/* A failure that is told by the number of its line: once, however often the file is gone on with.
 */
static qn_status write_line_error(batch *b, const batch_line *line, const char *custom_id,
                                  const server_error *error, qn_error *err)
{
    char number[32];
    (void)snprintf(number, sizeof number, "%llu", (unsigned long long)line->number);
    if (json_object_get(b->output.lines, number) != NULL) {
        b->n.n_skipped++;
        return QN_OK;
    }
    return write_error(b, line->number, custom_id, error, err);
}

static qn_status take_line(batch *b, const batch_line *line, qn_error *err)
{
    server_error error;
    request_line r = {0};
    qn_status status = QN_OK;
    if (!parse_line(&r, line, &error)) {
        status = write_line_error(b, line, NULL, &error, err);
        goto done;
    }
    /* false: the output has it; true: a line before was it. */
    const json_t *const known = json_object_get(b->output.ids, r.custom_id);
    if (json_is_true(known)) {
        server_fail(&error, 400, "duplicate_custom_id", "custom_id",
                    "line %llu: custom_id: %.64s once more, expected one of its own",
                    (unsigned long long)line->number, r.custom_id);
        status = write_line_error(b, line, r.custom_id, &error, err);
        goto done;
    }
    if (json_object_set_new(b->output.ids, r.custom_id, json_true()) != 0) {
        status = qn_fail(err, QN_E_NOMEM, 0, __func__, "line %llu: no memory for its custom_id",
                         (unsigned long long)line->number);
    } else if (known != NULL) {
        b->n.n_skipped++;
    } else if (check_line(&r, line, &error)) {
        status = make_item(b, &r, line, err);
    } else {
        status = write_error(b, line->number, r.custom_id, &error, err);
    }
done:
    json_decref(r.root);
    return status;
}

/* -------------------------------------------------------------------------------------- engine */

/* One choice has failed: the others of its line have no use. */
static void cancel_item(batch *b, const item *it)
{
    for (size_t i = 0; i < b->n_slots; i++) {
        if (b->slots[i].item == it) {
            qn_engine_cancel(b->engine, b->slots[i].id);
        }
    }
    b->filling = b->filling == it ? NULL : b->filling;
}

static qn_status submit_choice(batch *b, qn_error *err)
{
    item *const it = b->filling;
    qn_sampling sampling;
    qn_error why = {0};
    uint64_t id = 0;
    const qn_request request = exchange_choice(it->exchange, it->n_submitted, &sampling);
    const qn_status status = qn_engine_submit(&id, b->engine, &request, &why);
    if (status == QN_AGAIN) {
        return QN_AGAIN;
    }
    if (status < 0) {
        server_error_of(&it->error, &why, it->api == SERVER_API_COMPLETION ? "prompt" : "messages");
        cancel_item(b, it);
        return it->n_ended == it->n_submitted ? finish_item(b, it, err) : QN_OK;
    }
    b->slots[b->n_slots++] = (slot){.id = id, .item = it, .i_choice = it->n_submitted};
    it->n_submitted++;
    if (it->n_submitted == it->n_choices) {
        exchange_shrink(it->exchange);
        b->filling = NULL;
    }
    return QN_OK;
}

/* Requests until there are enough, or none is there now. */
static qn_status fill(batch *b, qn_error *err)
{
    qn_status status = QN_OK;
    size_t n_read = 0; /* bytes */
    while (status == QN_OK && b->n_slots < b->n_slots_max && !cli_is_interrupted()) {
        batch_line line = {0};
        if (b->filling != NULL) {
            status = submit_choice(b, err);
            continue;
        }
        if (b->has_ended || n_read >= LINES_BYTES_PER_STEP || b->n_bytes >= LINES_BYTES_MAX) {
            break;
        }
        status = batch_input_next(&b->input, &line, b->n_slots > 0 ? 0 : WAIT_MS, err);
        b->has_ended = status == QN_OK && line.number == 0;
        n_read += line.len;
        if (status == QN_OK && !b->has_ended && !is_blank(&line)) {
            status = take_line(b, &line, err);
        }
    }
    return status == QN_AGAIN ? QN_OK : status;
}

static slot *find_slot(batch *b, uint64_t id)
{
    for (size_t n = 0; n < b->n_slots; n++) {
        const size_t i = (b->i_last_slot + n) % b->n_slots;
        if (b->slots[i].id == id) {
            b->i_last_slot = i;
            return &b->slots[i];
        }
    }
    return NULL;
}

/* As "usage" counts. */
static void count_tokens(item *it, size_t i_choice, const qn_session_stats *stats)
{
    const bool is_first = exchange_counts_prompt(it->exchange, i_choice);
    it->n.n_prompt += is_first ? stats->n_prompt_tokens : 0;
    it->n.n_cached += is_first ? stats->n_cached_tokens : 0;
    it->n.n_generated += stats->n_generated_tokens;
    it->n.n_steps += stats->n_steps;
    it->n.n_step_tokens += stats->n_step_tokens;
}

static qn_status take_end(batch *b, slot *from, const qn_event *event, qn_error *err)
{
    item *const it = from->item;
    count_tokens(it, from->i_choice, event->stats);
    *from = b->slots[--b->n_slots];
    it->n_ended++;
    const bool is_whole = event->finish == QN_FINISH_STOP || event->finish == QN_FINISH_LENGTH ||
                          event->finish == QN_FINISH_TOOL_CALLS;
    if (!is_whole && it->error.status_code == 0) {
        server_fail(&it->error, 500, NULL, "", "%s",
                    event->error != NULL ? event->error->text
                                         : "engine: the request was ended, expected an answer");
        cancel_item(b, it);
    }
    const bool is_over =
        it->error.status_code == 0 ? it->n_ended == it->n_choices : it->n_ended == it->n_submitted;
    return is_over ? finish_item(b, it, err) : QN_OK;
}

static qn_status take_events(batch *b, bool *has_any, qn_error *err)
{
    qn_status status = QN_OK;
    qn_event event;
    uint64_t id = 0;
    while (status == QN_OK && qn_engine_poll(&id, &event, b->engine)) {
        slot *const from = find_slot(b, id);
        *has_any = true;
        if (from == NULL) {
            continue;
        }
        item *const it = from->item;
        status = exchange_take(it->exchange, from->i_choice, &event, err);
        if (status == QN_OK && event.kind == QN_EVENT_END) {
            status = take_end(b, from, &event, err);
        }
    }
    return status;
}

static void show_progress(batch *b)
{
    const double elapsed_s = cli_now_s() - b->started_s;
    const uint64_t n_lines = b->input.n_total > 0 ? b->input.n_total : b->input.n_lines + 1;
    const uint64_t n_left = n_lines - (b->n.n_skipped < n_lines ? b->n.n_skipped : n_lines);
    (void)snprintf(b->what, sizeof b->what, "batch, %.0f tokens/s",
                   cli_rate((double)qn_engine_get_stats(b->engine).n_generated_tokens, elapsed_s));
    (void)cli_progress_show(&b->progress, b->n.n_requests, n_left);
}

static qn_status answer_all(batch *b, qn_error *err)
{
    qn_status status = batch_output_begin(&b->output, err);
    while (status == QN_OK && !cli_is_interrupted()) {
        bool has_events = false;
        status = fill(b, err);
        if (status < 0 || (b->n_slots == 0 && b->filling == NULL && b->has_ended)) {
            return status;
        }
        show_progress(b);
        if (b->n_slots == 0 && b->filling == NULL) {
            continue; /* it waits for lines */
        }
        const qn_status stepped = qn_engine_step(b->engine, err);
        if (stepped < 0) {
            return stepped;
        }
        status = take_events(b, &has_events, err);
        if (status == QN_OK && stepped == QN_AGAIN && !has_events) {
            return qn_fail(err, QN_E_IO, 0, __func__,
                           "engine: idle with %zu requests, expected to answer them", b->n_slots);
        }
    }
    return status;
}

/* ------------------------------------------------------------------------------------- summary */

static int print_summary(const batch *b, double wall_s, bool is_interrupted)
{
    const qn_model_info *const info = qn_model_get_info(b->model);
    const counts *const n = &b->n;
    const double rate = cli_rate((double)n->n_generated, wall_s);
    const double accepted = cli_rate((double)n->n_step_tokens, (double)n->n_steps);
    if (!b->o->is_quiet) {
        (void)fprintf(stderr, "%llu request%s, %llu failed", (unsigned long long)n->n_requests,
                      cli_plural(n->n_requests), (unsigned long long)n->n_failed);
        if (n->n_skipped > 0) {
            (void)fprintf(stderr, ", %llu there already", (unsigned long long)n->n_skipped);
        }
        (void)fprintf(stderr,
                      "; prompts %llu tokens (%llu cached), answers %llu tokens in %.2f s, %.1f "
                      "tokens/s, %.2f a step%s\n",
                      (unsigned long long)n->n_prompt, (unsigned long long)n->n_cached,
                      (unsigned long long)n->n_generated, wall_s, rate, accepted,
                      info->weights[0] == 'd' ? ", dummy weights" : "");
    }
    if (!b->o->as_json) {
        return cli_flush(CLI_DONE);
    }
    return cli_print_json(json_pack(
        "{so, ss, ss, ss, ss, sI, sI, sI, sI, sI, sI, sf, sf, sf, sb}", "model",
        cli_json_text(info->name), "quantization", info->quantization, "weights", info->weights,
        "compute", info->compute, "kv_dtype", info->kv_dtype, "requests", (json_int_t)n->n_requests,
        "failed", (json_int_t)n->n_failed, "skipped", (json_int_t)n->n_skipped, "prompt_tokens",
        (json_int_t)n->n_prompt, "cached_tokens", (json_int_t)n->n_cached, "generated_tokens",
        (json_int_t)n->n_generated, "wall_s", wall_s, "tokens_per_s", rate, "acceptance_length",
        accepted, "interrupted", (int)is_interrupted));
}

static int finish(batch *b)
{
    const bool is_interrupted = cli_is_interrupted();
    const unsigned long long n_records = b->n.n_requests + b->n.n_skipped;
    const int status = print_summary(b, cli_now_s() - b->started_s, is_interrupted);
    if (status == CLI_DONE && is_interrupted) {
        return cli_fail(QN_E_CANCELLED,
                        "batch: interrupted after %llu records, expected all; --resume goes on",
                        n_records);
    }
    return status;
}

/* ----------------------------------------------------------------------------------------- run */

static qn_status open_engine(batch *b, qn_error *err)
{
    qn_engine_options options;
    qn_status status = cli_engine_fill(&options, &b->settings.draft_tokens, b->o->engine, err);
    if (status < 0) {
        return status;
    }
    /* Dummy weights have no tokenizer: prompts are ids then. */
    status = cli_open_model(&b->model, b->o->model, b->o->load, b->o->load->load_format == 1,
                            b->o->is_quiet, err);
    b->settings.model = b->model;
    b->settings.context_tokens = options.context_tokens;
    b->settings.refuses_stream = true;
    b->n_slots_max = SLOTS_PER_SEQUENCE * (size_t)options.n_sequences;
    options.n_queue = (uint32_t)b->n_slots_max;
    if (status == QN_OK) {
        status = qn_engine_open(&b->engine, b->model, &options, err);
    }
    if (status == QN_OK && (b->slots = calloc(b->n_slots_max, sizeof *b->slots)) == NULL) {
        status = qn_fail(err, QN_E_NOMEM, 0, __func__, "batch: no memory");
    }
    return status;
}

/* What was not answered is dropped. */
static void close_batch(batch *b)
{
    for (size_t i = 0; i < b->n_slots; i++) {
        item *const it = b->slots[i].item;
        it->n_ended++;
        if (it->n_ended == it->n_submitted && it != b->filling) {
            close_item(it);
        }
    }
    if (b->filling != NULL) {
        close_item(b->filling);
    }
    free(b->slots);
    qn_buf_deinit(&b->body);
    qn_buf_deinit(&b->record);
    qn_engine_close(&b->engine);
    qn_model_close(&b->model);
    batch_output_close(&b->output);
    batch_input_close(&b->input);
}

/* jansson cannot tell a text that is wrong from one that it has no memory for; as no request may be
 * blamed for the machine, it ends the run, like a write that fails: OUT has whole records. */
static void *take_memory(size_t n_bytes)
{
    void *const memory = malloc(n_bytes);
    if (memory == NULL) {
        _exit(cli_fail(QN_E_NOMEM, "batch: no memory, expected more; --resume goes on"));
    }
    return memory;
}

int batch_run(const batch_options *options)
{
    json_set_alloc_funcs(take_memory, free);
    qn_error err = {0};
    batch b = {.o = options,
               .input = {.fd = -1},
               .body = {.bytes_max = SIZE_MAX / 2},
               .record = {.bytes_max = SIZE_MAX / 2}};
    qn_status status = batch_input_open(&b.input, options->input, &err);
    if (status == QN_OK) {
        status = batch_output_open(&b.output, options->output, options->existing, b.input.fd, &err);
    }
    if (status == QN_OK) {
        status = open_engine(&b, &err);
    }
    if (status == QN_OK && getrandom(&b.run_id, sizeof b.run_id, 0) != (ssize_t)sizeof b.run_id) {
        status = qn_fail(&err, QN_E_IO, 0, __func__, "batch: no random number, expected one");
    }
    b.started_s = cli_now_s();
    if (status == QN_OK) {
        cli_progress_begin(&b.progress, b.what, "lines", 1, options->is_quiet);
        status = answer_all(&b, &err);
        cli_progress_end(&b.progress);
    }
    const int exit_status = status == QN_OK ? finish(&b) : cli_report(&err);
    close_batch(&b);
    return exit_status;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What speculation brings, task by task: every problem is answered at every depth, in one session,
 * the depths taking turns, and each answer has to be the one without drafts.
 *
 *     bench_speculation [OPTIONS] MODEL TASK.jsonl...
 *
 * Options: --limit N problems of a task, --seed N, --threads N, --depths 0,3,5,auto.
 *
 * "Speed" is by tokens per second of decoding, the first depth listed being 1; "allowed" is the
 * same by the time of the passes alone, that is by acceptance and the cost of rows, and "share"
 * what of it was reached.
 *
 * A line of a task is {"messages": [...], "tools"?: [...]} (docs/performance.md).  Answers are
 * greedy, or drawn by the seed.  Prints a table in Markdown; status 1 when an answer differs.
 */
#include "quern/quern.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTHS_MAX = QN_DRAFT_TOKENS_MAX + 2, IDS_MAX = 4096 };

/* Sums over the problems of a task at one depth. */
typedef struct row {
    int depth; /* a qn_draft or a number */
    uint64_t n_tokens, n_steps, n_step_tokens;
    uint64_t n_accepted_at[QN_DRAFT_TOKENS_MAX];
    double decode_s, draft_s, verify_s;
} row;

typedef struct bench {
    qn_model *model;
    qn_session *session;
    qn_sampling sampling;
    row rows[DEPTHS_MAX];
    size_t n_rows;
    size_t n_problems, n_limit, n_different;
    int32_t *prompt;
    size_t n_prompt;
    json_t *tools;
} bench;

static void fail(const qn_error *err)
{
    (void)fprintf(stderr, "speculation: error: %s\n", err->text);
    exit(1);
}

/* Answer the present prompt; returns the number of ids. */
static size_t answer(bench *b, row *r, int32_t *ids)
{
    qn_error err = {0};
    qn_event event;
    size_t n = 0;
    const qn_request request = {.ids = b->prompt,
                                .n_ids = b->n_prompt,
                                .sampling = &b->sampling,
                                .max_tokens = 512,
                                .draft_tokens = r->depth};
    qn_status status = qn_session_submit(b->session, &request, &err);
    while (status == QN_OK) {
        status = qn_session_step(b->session, &err);
        while (qn_session_poll(&event, b->session)) {
            if (event.kind == QN_EVENT_TOKEN && n < IDS_MAX) {
                ids[n++] = event.token.token;
            }
        }
    }
    if (status < 0) {
        fail(&err);
    }
    const qn_session_stats s = qn_session_get_stats(b->session);
    r->n_tokens += s.n_generated_tokens;
    r->n_steps += s.n_steps;
    r->n_step_tokens += s.n_step_tokens;
    r->decode_s += s.decode_s;
    r->draft_s += s.draft_s;
    r->verify_s += s.verify_s;
    for (size_t i = 0; i < QN_DRAFT_TOKENS_MAX; i++) {
        r->n_accepted_at[i] += s.n_accepted_at[i];
    }
    return n;
}

/* Everything before the last message that the model has to write itself. */
static void encode(bench *b, const json_t *problem)
{
    qn_error err = {0};
    json_t *const messages = json_object_get(problem, "messages");
    while (json_array_size(messages) > 1) {
        const json_t *last = json_array_get(messages, json_array_size(messages) - 1);
        const char *role = json_string_value(json_object_get(last, "role"));
        if (role == NULL || strcmp(role, "assistant") != 0) {
            break;
        }
        (void)json_array_remove(messages, json_array_size(messages) - 1);
    }
    char *const text = json_dumps(messages, JSON_COMPACT);
    const json_t *const list = json_object_get(problem, "tools");
    char *const tools = list != NULL ? json_dumps(list, JSON_COMPACT) : NULL;
    const qn_chat_options options = {.tools_json = tools,
                                     .tools_len = tools != NULL ? strlen(tools) : 0};
    qn_free(b->prompt);
    if (text == NULL || qn_chat_encode(&b->prompt, &b->n_prompt, b->model, &options, text,
                                       strlen(text), &err) < 0) {
        fail(&err);
    }
    free(text);
    free(tools);
}

static void solve(bench *b, const json_t *problem)
{
    static int32_t first[IDS_MAX];
    static int32_t other[IDS_MAX];
    size_t n_first = 0;
    encode(b, problem);
    for (size_t i = 0; i < b->n_rows; i++) {
        const size_t i_row = (b->n_problems + i) % b->n_rows; /* no depth is always first */
        const size_t n = answer(b, &b->rows[i_row], i == 0 ? first : other);
        n_first = i == 0 ? n : n_first;
        if (i > 0 && (n != n_first || memcmp(first, other, n * sizeof *first) != 0)) {
            b->n_different++;
        }
    }
    b->n_problems++;
}

/* What a token costs when nothing but passes takes time. */
static double pass_seconds_a_token(const row *r)
{
    return (r->draft_s + r->verify_s) / (double)(r->n_step_tokens > 0 ? r->n_step_tokens : 1);
}

static void print_rows(const bench *b, const char *task)
{
    for (size_t i = 0; i < b->n_rows; i++) {
        const row *const r = &b->rows[i];
        char depth[16];
        (void)snprintf(depth, sizeof depth, "%d", r->depth == QN_DRAFT_NONE ? 0 : r->depth);
        (void)printf("| %s | %s | %zu | %llu | %.2f |", task,
                     r->depth == QN_DRAFT_AUTO ? "auto" : depth, b->n_problems,
                     (unsigned long long)r->n_tokens,
                     (double)r->n_step_tokens / (double)(r->n_steps > 0 ? r->n_steps : 1));
        for (int k = 0; k < 5; k++) {
            (void)printf(" %.2f",
                         (double)r->n_accepted_at[k] / (double)(r->n_steps > 0 ? r->n_steps : 1));
        }
        const double speed = b->rows[0].decode_s / r->decode_s;
        const double allowed = pass_seconds_a_token(&b->rows[0]) / pass_seconds_a_token(r);
        (void)printf(" | %.1f | %.3f | %.3f | %.3f |\n", (double)r->n_step_tokens / r->decode_s,
                     speed, allowed, speed / allowed);
    }
    (void)fflush(stdout);
}

static void run_task(bench *b, const char *path)
{
    const char *const slash = strrchr(path, '/');
    FILE *const file = fopen(path, "r");
    char *line = NULL;
    size_t capacity = 0;
    if (file == NULL) {
        (void)fprintf(stderr, "speculation: error: %s: cannot be read\n", path);
        exit(1);
    }
    b->n_problems = 0;
    for (size_t i = 0; i < b->n_rows; i++) {
        b->rows[i] = (row){.depth = b->rows[i].depth};
    }
    while (b->n_problems < b->n_limit && getline(&line, &capacity, file) > 0) {
        json_t *const problem = json_loads(line, 0, NULL);
        if (problem == NULL) {
            (void)fprintf(stderr, "speculation: error: %s: a line is no JSON\n", path);
            exit(1);
        }
        solve(b, problem);
        json_decref(problem);
    }
    print_rows(b, slash != NULL ? slash + 1 : path);
    free(line);
    (void)fclose(file);
}

static void parse_depths(bench *b, const char *list)
{
    b->n_rows = 0;
    for (const char *at = list; *at != '\0' && b->n_rows < DEPTHS_MAX;) {
        char *end = NULL;
        const int n = (int)strtol(at, &end, 10);
        b->rows[b->n_rows++].depth = strncmp(at, "auto", 4) == 0 ? QN_DRAFT_AUTO
                                     : n == 0                    ? QN_DRAFT_NONE
                                                                 : n;
        at += strcspn(at, ",");
        at += *at == ',' ? 1 : 0;
    }
}

int main(int argc, char **argv)
{
    static bench b = {.n_limit = 100};
    qn_model_options options = {0};
    qn_error err = {0};
    int at = 1;
    const char *seed = NULL;
    parse_depths(&b, "0,1,2,3,4,5,6,7,8,auto");
    for (; at + 1 < argc && strncmp(argv[at], "--", 2) == 0; at += 2) {
        if (strcmp(argv[at], "--limit") == 0) {
            b.n_limit = strtoul(argv[at + 1], NULL, 10);
        } else if (strcmp(argv[at], "--seed") == 0) {
            seed = argv[at + 1];
        } else if (strcmp(argv[at], "--threads") == 0) {
            options.n_threads = (uint32_t)strtoul(argv[at + 1], NULL, 10);
        } else if (strcmp(argv[at], "--depths") == 0) {
            parse_depths(&b, argv[at + 1]);
        }
    }
    if (argc - at < 2) {
        (void)fprintf(stderr, "usage: bench_speculation [--limit N] [--seed N] [--threads N] "
                              "[--depths LIST] MODEL TASK.jsonl...\n");
        return 2;
    }
    if (qn_model_open(&b.model, argv[at], &options, &err) < 0 ||
        qn_session_open(&b.session, b.model, NULL, &err) < 0) {
        fail(&err);
    }
    b.sampling = qn_model_get_info(b.model)->sampling;
    if (seed == NULL) {
        b.sampling.temperature = 0.0F;
    } else {
        b.sampling.seed = strtoull(seed, NULL, 10);
    }
    (void)printf("| task | draft tokens | problems | tokens | acceptance length | by position | "
                 "tokens/s | speed | allowed | share |\n"
                 "|---|---|---|---|---|---|---|---|---|---|\n");
    for (at++; at < argc; at++) {
        run_task(&b, argv[at]);
    }
    qn_free(b.prompt);
    qn_session_close(&b.session);
    qn_model_close(&b.model);
    if (b.n_different > 0) {
        (void)fprintf(stderr, "speculation: error: %zu answers differ, none expected\n",
                      b.n_different);
    }
    return b.n_different > 0;
}

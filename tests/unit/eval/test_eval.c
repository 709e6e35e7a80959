/* SPDX-License-Identifier: Apache-2.0 */
/* Whole runs on glm-nano: results, comparison with itself, interruption, options that are wrong. */
#include "quern/tools.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/json.h"
#include "support/fail_each.h"

#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define NANO QN_SOURCE_DIR "/models/glm-nano"

enum { PATH_BYTES = 256 };

static const char *const arithmetic = QN_SOURCE_DIR "/tests/eval/nano_arithmetic.jsonl";
static const char *const tool_call = QN_SOURCE_DIR "/tests/eval/nano_tool_call.jsonl";
static const char *const a_text = QN_SOURCE_DIR "/docs/model.md";

static char g_dir[] = "/tmp/qn-eval-XXXXXX";
static char g_report[PATH_BYTES];
static char g_tasks[PATH_BYTES];

static int make_folder(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(g_dir));
    (void)snprintf(g_report, sizeof g_report, "%s/report.jsonl", g_dir);
    (void)snprintf(g_tasks, sizeof g_tasks, "%s/tasks.jsonl", g_dir);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    (void)unlink(g_report);
    (void)unlink(g_tasks);
    return rmdir(g_dir);
}

static void write_tasks(const char *text)
{
    FILE *const file = fopen(g_tasks, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static json_t *evaluate(const qn_eval_side *sides, size_t n_sides, const qn_eval_options *options)
{
    char *result = NULL;
    json_t *object = NULL;
    qn_error err = {0};
    if (qn_eval(&result, sides, n_sides, options, &err) < 0 ||
        qn_json_parse(&object, qn_str_of(result), "result", &err) < 0) {
        fail_msg("%s: %s", err.text, result != NULL ? result : "no result");
    }
    qn_free(result);
    return object;
}

/* The value at "a.b.c". */
static const json_t *at(const json_t *object, const char *path)
{
    char name[64];
    for (const char *from = path;; from++) {
        const size_t len = strcspn(from, ".");
        (void)snprintf(name, sizeof name, "%.*s", (int)len, from);
        object = json_object_get(object, name);
        from += len;
        if (*from == '\0' || object == NULL) {
            break;
        }
    }
    if (object == NULL) {
        fail_msg("result: no %s", path);
    }
    return object;
}

static double number(const json_t *object, const char *path)
{
    return json_number_value(at(object, path));
}

/* What depends on the clock. */
static void forget_times(json_t *result)
{
    assert_int_equal(json_object_del(result, "timing"), 0);
    json_t *const against = json_object_get(result, "against");
    if (against != NULL) {
        assert_int_equal(json_object_del(against, "timing"), 0);
    }
}

static void test_a_run_tells_how_many_were_right(void **state)
{
    (void)state;
    const char *const files[] = {arithmetic, tool_call};
    const qn_eval_side side = {.model = NANO};
    json_t *const result = evaluate(
        &side, 1, &(qn_eval_options){.tasks = files, .n_tasks = 2, .limit = 20, .max_tokens = 200});
    assert_int_equal(json_object_size(at(result, "tasks")), 2);
    assert_true(number(result, "tasks.arithmetic.n") == 20.0);
    assert_true(number(result, "tasks.arithmetic.right") >= 17.0);
    assert_true(number(result, "tasks.tool_call.right") == 20.0);
    assert_true(number(result, "tasks.tool_call.accuracy") == 1.0);
    assert_true(fabs(number(result, "tasks.tool_call.low") - 0.838875) < 1e-5);
    assert_true(number(result, "tasks.tool_call.high") == 1.0);
    assert_true(number(result, "all.n") == 40.0);
    assert_true(number(result, "usage.completion_tokens") > 300.0);
    assert_true(number(result, "speculation.acceptance_length") > 2.0);
    assert_string_equal(json_string_value(at(result, "weights")), "trained");
    assert_null(json_object_get(result, "paired"));
    assert_null(json_object_get(result, "text"));
    json_decref(result);
}

static void test_a_model_does_not_differ_from_itself(void **state)
{
    (void)state;
    const qn_eval_side sides[2] = {{.model = NANO}, {.model = NANO, .draft_tokens = QN_DRAFT_NONE}};
    json_t *const result = evaluate(sides, 2,
                                    &(qn_eval_options){.tasks = &arithmetic,
                                                       .n_tasks = 1,
                                                       .limit = 10,
                                                       .text = a_text,
                                                       .text_tokens = 700,
                                                       .window_tokens = 300});
    assert_true(number(result, "paired.same_answers") == 10.0);
    assert_true(number(result, "paired.difference") == 0.0);
    assert_true(number(result, "paired.p") == 1.0);
    assert_true(number(result, "paired.tasks.arithmetic.p") == 1.0);
    assert_true(number(result, "against.speculation.acceptance_length") == 1.0);
    assert_true(number(result, "text.tokens") == 700.0);
    assert_true(number(result, "text.windows") == 3.0);
    assert_true(number(result, "text.window_tokens") == 298.0);
    assert_true(number(result, "text.perplexity") == number(result, "against.text.perplexity"));
    assert_true(number(result, "text.perplexity") > 10.0);
    assert_true(number(result, "divergence.max") == 0.0);
    assert_true(number(result, "divergence.same_top") == 1.0);
    json_decref(result);
}

/* The log-probabilities that a session tells of a prompt, in one window of the same text. */
static double mean_loss(const char *text, size_t n_tokens)
{
    qn_model *model = NULL;
    qn_session *session = NULL;
    int32_t *prefix = NULL;
    int32_t *ids = NULL;
    int32_t all[300];
    size_t n_prefix = 0;
    size_t n_ids = 0;
    double loss = 0.0;
    qn_error err = {0};
    qn_event event;
    assert_int_equal(qn_model_open(&model, NANO, NULL, &err), QN_OK);
    assert_int_equal(
        qn_encode(&prefix, &n_prefix, model, "[gMASK]<sop>", 12, QN_CONTROL_MATCH, &err), QN_OK);
    assert_int_equal(qn_encode(&ids, &n_ids, model, text, strlen(text), QN_CONTROL_AS_TEXT, &err),
                     QN_OK);
    assert_true(n_ids >= n_tokens && n_prefix == 2);
    memcpy(all, prefix, n_prefix * sizeof *all);
    memcpy(all + n_prefix, ids, n_tokens * sizeof *all);
    assert_int_equal(qn_session_open(&session, model, NULL, &err), QN_OK);
    const qn_request request = {.ids = all,
                                .n_ids = n_prefix + n_tokens,
                                .prompt_only = true,
                                .wants_prompt_logprobs = true};
    assert_int_equal(qn_session_submit(session, &request, &err), QN_OK);
    while (qn_session_step(session, &err) == QN_OK) {
        while (qn_session_poll(&event, session)) {
            if (event.kind == QN_EVENT_PROMPT_TOKEN && event.position >= n_prefix) {
                loss -= (double)event.token.logprob;
            }
        }
    }
    qn_session_close(&session);
    qn_model_close(&model);
    qn_free(prefix);
    qn_free(ids);
    return loss / (double)n_tokens;
}

static void test_perplexity_is_that_of_the_log_probabilities(void **state)
{
    (void)state;
    static const char text[] = "It is a truth universally acknowledged, that a single man in "
                               "possession of a good fortune, must be in want of a wife.";
    enum { N_TOKENS = 20 };
    const qn_eval_side side = {.model = NANO};
    write_tasks(text);
    json_t *const result =
        evaluate(&side, 1, &(qn_eval_options){.text = g_tasks, .text_tokens = N_TOKENS});
    const double expected = exp(mean_loss(text, N_TOKENS));
    assert_true(fabs(number(result, "text.perplexity") / expected - 1.0) < 1e-5);
    assert_true(json_is_null(at(result, "text.low"))); /* one window */
    json_decref(result);
}

/* Another arithmetic predicts nearly the same, and KL says how nearly. */
static void test_divergence_of_two_settings_is_small_and_positive(void **state)
{
    (void)state;
    const qn_eval_side sides[2] = {{.model = NANO}, {.model = NANO, .compute = QN_COMPUTE_F32}};
    json_t *const result =
        evaluate(sides, 2, &(qn_eval_options){.text = a_text, .text_tokens = 400});
    const double mean = number(result, "divergence.mean");
    assert_true(mean > 1e-6 && mean < 1e-2);
    assert_true(number(result, "divergence.p50") <= number(result, "divergence.p99"));
    assert_true(number(result, "divergence.p99") <= number(result, "divergence.max"));
    assert_true(number(result, "divergence.same_top") > 0.9);
    assert_string_equal(json_string_value(at(result, "against.compute")), "f32");
    json_decref(result);
}

/* Cancels at the n-th call about problems. */
static bool stop_later(void *context, const qn_eval_progress *progress)
{
    int *const n_left = context;
    assert_true(progress->done <= progress->total);
    assert_true(progress->n_right <= 12);
    return progress->phase != QN_EVAL_PROBLEMS || --*n_left > 0;
}

static void test_an_interrupted_run_goes_on(void **state)
{
    (void)state;
    const qn_eval_side sides[2] = {{.model = NANO}, {.model = NANO, .compute = QN_COMPUTE_F32}};
    qn_eval_options options = {.tasks = &arithmetic, .n_tasks = 1, .limit = 12, .max_tokens = 100};
    json_t *const expected = evaluate(sides, 2, &options);
    options.report = g_report;
    options.resumes = true;
    options.progress = stop_later;
    for (int n_calls = 9; n_calls < 300; n_calls += 23) { /* further each time, to the end */
        char *result = NULL;
        qn_error err = {0};
        int n_left = n_calls;
        options.progress_context = &n_left;
        const qn_status status = qn_eval(&result, sides, 2, &options, &err);
        if (status == QN_OK) {
            qn_free(result);
            break;
        }
        assert_int_equal(status, QN_E_CANCELLED);
        assert_null(result);
        assert_non_null(strstr(err.text, "of 24 answers, all expected (--resume goes on)"));
    }
    int n_left = 1; /* nothing is left to ask about */
    options.progress_context = &n_left;
    json_t *const result = evaluate(sides, 2, &options);
    forget_times(expected);
    forget_times(result);
    assert_true(json_equal(expected, result));
    json_decref(expected);
    json_decref(result);
    assert_int_equal(unlink(g_report), 0);
}

static bool stop_at_text(void *context, const qn_eval_progress *progress)
{
    (void)context;
    return progress->phase != QN_EVAL_TEXT;
}

static void expect_fails(const qn_eval_side *sides, size_t n_sides, const qn_eval_options *options,
                         qn_status expected, const char *message)
{
    char *result = (char *)(uintptr_t)1;
    qn_error err = {0};
    const qn_status status = qn_eval(&result, sides, n_sides, options, &err);
    if (status != expected || strstr(err.text, message) == NULL) {
        fail_msg("%s: \"%s\", \"%s\" expected", qn_status_name(status), err.text, message);
    }
    assert_null(result);
}

static void test_an_interrupted_text_is_read_anew(void **state)
{
    (void)state;
    const qn_eval_side side = {.model = NANO};
    qn_eval_options options = {.tasks = &arithmetic,
                               .n_tasks = 1,
                               .limit = 1,
                               .max_tokens = 4,
                               .text = a_text,
                               .text_tokens = 20,
                               .progress = stop_at_text};
    expect_fails(&side, 1, &options, QN_E_CANCELLED,
                 "interrupted after 1 of 1 answers, all and the text expected (with --report "
                 "answers could be kept)");
    options.report = g_report;
    expect_fails(&side, 1, &options, QN_E_CANCELLED, "(--resume goes on, with the text anew)");
    assert_int_equal(unlink(g_report), 0);
    options.report = NULL;
    options.n_tasks = 0;
    expect_fails(&side, 1, &options, QN_E_CANCELLED, "text: interrupted");
}

static void test_what_a_model_cannot_answer_is_its_own(void **state)
{
    (void)state;
    const qn_eval_side side = {.model = NANO};
    const qn_eval_options options = {
        .tasks = &arithmetic, .n_tasks = 1, .limit = 1, .sampling = &(qn_sampling){.top_p = 2.0F}};
    expect_fails(&side, 1, &options, QN_E_INVAL, NANO ": top_p (--top-p): 2");
    expect_fails(&side, 1, &options, QN_E_INVAL, "nano_arithmetic.jsonl: line 1)");
}

static void test_a_report_of_another_run_is_refused(void **state)
{
    (void)state;
    const qn_eval_side side = {.model = NANO};
    qn_eval_options options = {.tasks = &arithmetic,
                               .n_tasks = 1,
                               .limit = 1,
                               .max_tokens = 8,
                               .report = g_report,
                               .resumes = true};
    json_decref(evaluate(&side, 1, &options));
    const struct {
        qn_eval_side side;
        qn_eval_options options;
        const char *message;
    } cases[] = {
        {{.model = NANO, .no_thinking = true}, options, "thinking: \"on\", \"off\" expected"},
        {{.model = NANO, .kv_dtype = QN_KV_FP8}, options, "kv_dtype: \"auto\", \"fp8\" expected"},
        {{.model = NANO "/."}, options, "model: "},
        {side, {.max_tokens = 9}, "max_tokens: 8, 9 expected"},
        {side, {.limit = 2}, "limit: 1, 2 expected"},
        {side, {.tasks = &tool_call}, "tasks_0_sha256"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        qn_eval_options changed = options;
        char *result = NULL;
        qn_error err = {0};
        changed.max_tokens = cases[i].options.max_tokens > 0 ? cases[i].options.max_tokens : 8;
        changed.limit = cases[i].options.limit > 0 ? cases[i].options.limit : 1;
        changed.tasks = cases[i].options.tasks != NULL ? cases[i].options.tasks : &arithmetic;
        assert_int_equal(qn_eval(&result, &cases[i].side, 1, &changed, &err), QN_E_FORMAT);
        if (strstr(err.text, cases[i].message) == NULL || strstr(err.text, g_report) == NULL) {
            fail_msg("\"%s\", \"%s\" expected", err.text, cases[i].message);
        }
    }
    assert_int_equal(unlink(g_report), 0);
}

static void test_what_is_wrong_is_said_before_weights_are_read(void **state)
{
    (void)state;
    const qn_eval_side side = {.model = NANO};
    const qn_eval_side two[2] = {{.model = NANO}, {.model = "/nowhere"}};
    const char *const files[] = {g_tasks};
    qn_eval_options tasks = {.tasks = files, .n_tasks = 1};
    expect_fails(&side, 1, &(qn_eval_options){0}, QN_E_INVAL, "--tasks");
    expect_fails(&side, 0, &tasks, QN_E_INVAL, "n_sides: 0");
    expect_fails(&side, 3, &tasks, QN_E_INVAL, "n_sides: 3");
    expect_fails(&side, 1, &(qn_eval_options){.text = a_text, .resumes = true}, QN_E_INVAL,
                 "--report");
    expect_fails(&side, 1, &(qn_eval_options){.text = a_text, .report = g_report}, QN_E_INVAL,
                 "--tasks");
    expect_fails(&side, 1, &(qn_eval_options){.text = "/nowhere"}, QN_E_NOT_FOUND, "/nowhere");
    expect_fails(&side, 1, &(qn_eval_options){.text = a_text, .window_tokens = 3}, QN_E_INVAL,
                 "--context-tokens): 3, 4 to 32768 expected");
    expect_fails(&side, 1, &(qn_eval_options){.text = a_text, .window_tokens = 40000}, QN_E_INVAL,
                 "40000, 4 to 32768");
    expect_fails(two, 2, &(qn_eval_options){.text = a_text}, QN_E_NOT_FOUND, "/nowhere");
    const qn_eval_side same[2] = {side, side};
    expect_fails(same, 2, &(qn_eval_options){.text = a_text, .spool_dir = "/nowhere"}, QN_E_IO,
                 "/nowhere: ");
    write_tasks("{\"task\": \"t\", \"messages\": [{\"role\": \"user\", \"content\": \"x\"}], "
                "\"answer\": \"a\"}\n{\"task\": \"t\", \"messages\": [{\"role\": \"cook\"}], "
                "\"answer\": \"a\"}\n");
    expect_fails(&side, 1, &tasks, QN_E_FORMAT, "tasks.jsonl: line 2: messages[0]");
    write_tasks("{\"task\": \"t\", \"messages\": [{\"role\": \"user\", \"content\": \"x\"}], "
                "\"tools\": [3], \"answer\": \"a\"}\n");
    expect_fails(&side, 1, &tasks, QN_E_FORMAT, "tasks.jsonl: line 1: tools[0]");
    write_tasks("\xff\xfe text");
    expect_fails(&side, 1, &(qn_eval_options){.text = g_tasks}, QN_E_FORMAT, "byte 0 is not");
    write_tasks("");
    expect_fails(&side, 1, &(qn_eval_options){.text = g_tasks}, QN_E_FORMAT, "no token");
}

static void test_a_prompt_that_leaves_no_room_is_named(void **state)
{
    (void)state;
    const qn_eval_side side = {.model = NANO};
    const char *const files[] = {g_tasks};
    FILE *const file = fopen(g_tasks, "w");
    assert_non_null(file);
    assert_true(
        fputs("{\"task\": \"t\", \"messages\": [{\"role\": \"user\", \"content\": \"", file) >= 0);
    for (int i = 0; i < 33000; i++) {
        assert_true(fputs("1 ", file) >= 0);
    }
    assert_true(fputs("\"}], \"answer\": \"a\"}\n", file) >= 0);
    assert_int_equal(fclose(file), 0);
    expect_fails(&side, 1, &(qn_eval_options){.tasks = files, .n_tasks = 1}, QN_E_FORMAT,
                 "fewer than the context of 32768 expected");
}

/* Drawn answers depend on the seed alone; each problem has a seed of its own. */
static void test_a_seed_draws_the_same_answers(void **state)
{
    (void)state;
    const qn_eval_side sides[2] = {{.model = NANO}, {.model = NANO, .draft_tokens = 2}};
    qn_sampling sampling = {
        .temperature = 1.0F, .top_p = 1.0F, .repetition_penalty = 1.0F, .seed = 3};
    qn_eval_options options = {
        .tasks = &arithmetic, .n_tasks = 1, .limit = 8, .max_tokens = 60, .sampling = &sampling};
    json_t *const first = evaluate(sides, 2, &options);
    assert_true(number(first, "paired.same_answers") == 8.0);
    sampling.seed = 4;
    json_t *const second = evaluate(sides, 2, &options);
    assert_true(number(first, "usage.completion_tokens") !=
                    number(second, "usage.completion_tokens") ||
                number(first, "all.right") != number(second, "all.right"));
    json_decref(first);
    json_decref(second);
}

/* On one thread: a sanitizer cannot start another without memory. */
static qn_status run_little(qn_error *err)
{
    const qn_model_options alone = {.n_threads = 1};
    const qn_eval_side sides[2] = {{.model = NANO}, {.model = NANO, .draft_tokens = 1}};
    char *result = NULL;
    (void)unlink(g_report);
    const qn_status status = qn_eval(&result, sides, 2,
                                     &(qn_eval_options){.tasks = &tool_call,
                                                        .n_tasks = 1,
                                                        .limit = 1,
                                                        .max_tokens = 40,
                                                        .text = a_text,
                                                        .text_tokens = 20,
                                                        .report = g_report,
                                                        .model = &alone},
                                     err);
    qn_free(result);
    return status;
}

/* Loading a model, which test_load_faults.c has, is most of them: every 997th is failed. */
static void test_no_memory_is_a_status(void **state)
{
    (void)state;
    fail_each(run_little, 997, 997);
    (void)unlink(g_report);
}

int main(void)
{
    qn_log_configure(QN_LOG_ERROR, false);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_run_tells_how_many_were_right),
        cmocka_unit_test(test_a_model_does_not_differ_from_itself),
        cmocka_unit_test(test_perplexity_is_that_of_the_log_probabilities),
        cmocka_unit_test(test_divergence_of_two_settings_is_small_and_positive),
        cmocka_unit_test(test_an_interrupted_run_goes_on),
        cmocka_unit_test(test_an_interrupted_text_is_read_anew),
        cmocka_unit_test(test_what_a_model_cannot_answer_is_its_own),
        cmocka_unit_test(test_a_report_of_another_run_is_refused),
        cmocka_unit_test(test_what_is_wrong_is_said_before_weights_are_read),
        cmocka_unit_test(test_a_prompt_that_leaves_no_room_is_named),
        cmocka_unit_test(test_a_seed_draws_the_same_answers),
        cmocka_unit_test(test_no_memory_is_a_status),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}

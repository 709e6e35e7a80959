/* SPDX-License-Identifier: Apache-2.0 */
/* Every allocation of qn_model_open() fails once, whoever asks for it: ours, jansson's, PCRE2's,
 * the C library's.  The call must return an error, or a model that is as good as any (where the C
 * library does without the memory, as qsort() can); nothing may leak.  Sessions likewise. */
#include "api/events.h"
#include "fixture.h"

#include <dirent.h>
#include <errno.h>
#include <stdatomic.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HAS_SANITIZER 1
#elif defined(__has_feature) /* clang's way to say so */
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define HAS_SANITIZER 1
#endif
#endif

#ifdef HAS_SANITIZER

/* The sanitizers bring their own malloc, which cannot be replaced. */
int main(void)
{
    (void)puts("skipped: a sanitizer owns malloc");
    return 0;
}

#else

/* glibc's own entry points, and its functions with parameters by our names.
 * NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming)
 * NOLINTBEGIN(readability-inconsistent-declaration-parameter-name) */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t align, size_t size);
void __libc_free(void *memory);

static atomic_long g_n_live;       /* blocks handed out and not taken back */
static atomic_long g_n_until_fail; /* allocations until one fails; 0 or less: none does */
static atomic_long g_n_asked;      /* since the last arm() */

/* Is it this allocation's turn to fail? */
static bool is_to_fail(void)
{
    atomic_fetch_add(&g_n_asked, 1);
    return atomic_fetch_sub(&g_n_until_fail, 1) == 1;
}

static void *count(void *memory)
{
    if (memory != NULL) {
        atomic_fetch_add(&g_n_live, 1);
    }
    return memory;
}

static void *refuse(void)
{
    errno = ENOMEM;
    return NULL;
}

__attribute__((visibility("default"))) void *malloc(size_t size)
{
    return is_to_fail() ? refuse() : count(__libc_malloc(size));
}

__attribute__((visibility("default"))) void *calloc(size_t n, size_t size)
{
    return is_to_fail() ? refuse() : count(__libc_calloc(n, size));
}

__attribute__((visibility("default"))) void *realloc(void *old, size_t size)
{
    if (is_to_fail()) {
        return refuse();
    }
    void *const memory = __libc_realloc(old, size);
    return old == NULL ? count(memory) : memory;
}

__attribute__((visibility("default"))) void *aligned_alloc(size_t align, size_t size)
{
    return is_to_fail() ? refuse() : count(__libc_memalign(align, size));
}

__attribute__((visibility("default"))) int posix_memalign(void **out, size_t align, size_t size)
{
    if (is_to_fail()) {
        return ENOMEM;
    }
    *out = count(__libc_memalign(align, size));
    return *out != NULL ? 0 : ENOMEM;
}

__attribute__((visibility("default"))) void free(void *memory)
{
    if (memory != NULL) {
        atomic_fetch_sub(&g_n_live, 1);
    }
    __libc_free(memory);
}

/* NOLINTEND(readability-inconsistent-declaration-parameter-name)
 * NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming) */

/* From now on the @p n-th allocation fails, 0: none; counts anew. */
static void arm(long n)
{
    atomic_store(&g_n_asked, 0);
    atomic_store(&g_n_until_fail, n);
}

static size_t open_files(void)
{
    size_t n = 0;
    DIR *const list = opendir("/proc/self/fd");
    assert_non_null(list);
    while (readdir(list) != NULL) {
        n++;
    }
    (void)closedir(list);
    return n;
}

/* What a good model says after three ids; 0 where it cannot. */
static float try_out(qn_model *model)
{
    static const int32_t prompt[] = {1, 2, 3};
    const qn_session_options options = {.context_tokens = 8};
    const qn_request request = {.ids = prompt, .n_ids = 3, .prompt_only = true};
    qn_session *session = NULL;
    qn_error err = {0};
    float logit = 0.0F;
    if (qn_session_open(&session, model, &options, &err) == QN_OK &&
        qn_session_submit(session, &request, &err) == QN_OK &&
        qn_session_step(session, &err) == QN_OK) {
        logit = qn_session_logits(session)[5];
    }
    qn_session_close(&session);
    return logit;
}

/* Number of tokens of a text with words, numbers and a control token; 0 where it fails. */
static size_t try_text(const qn_model *model)
{
    static const char text[] = "Hello, there are 12 of them.\n<|user|>";
    int32_t *ids = NULL;
    size_t n_ids = 0;
    qn_error err = {0};
    const qn_status status =
        qn_encode(&ids, &n_ids, model, text, strlen(text), QN_CONTROL_MATCH, &err);
    qn_free(ids);
    return status == QN_OK ? n_ids : 0;
}

/* One way to load, and what a whole load gives. */
typedef struct load {
    const char *name;
    qn_model_options options;
    long n_allocations;
    float logit;
    size_t n_ids;
    long n_failed; /* loads that returned an error */
} load;

static void measure(load *l)
{
    /* Twice: what the C library keeps for itself, a thread's stack for one, is there after that. */
    for (int i = 0; i < 2; i++) {
        qn_model *model = NULL;
        qn_error err = {0};
        arm(0);
        assert_int_equal(qn_model_open(&model, l->name, &l->options, &err), QN_OK);
        l->n_allocations = atomic_load(&g_n_asked);
        l->logit = try_out(model);
        l->n_ids = try_text(model);
        qn_model_close(&model);
    }
    assert_true(l->n_allocations > 100);
    assert_true(l->logit != 0.0F);
}

static void fail_nth(load *l, long n)
{
    qn_model *model = NULL;
    qn_error err = {0};
    const size_t n_files = open_files();
    const long n_live = atomic_load(&g_n_live);
    arm(n);
    const qn_status status = qn_model_open(&model, l->name, &l->options, &err);
    arm(0);
    if (status == QN_OK) {
        assert_true(try_out(model) == l->logit);
        assert_int_equal(try_text(model), l->n_ids);
        qn_model_close(&model);
    } else {
        l->n_failed++;
        assert_null(model);
        assert_int_equal(err.status, status);
        if (status != QN_E_NOMEM || err.text[0] == '\0') {
            fail_msg("allocation %ld: %s: %s", n, qn_status_name(status), err.text);
        }
    }
    if (atomic_load(&g_n_live) != n_live || open_files() != n_files) {
        fail_msg("allocation %ld: %ld blocks and %zu files before, %ld and %zu after: %s", n,
                 n_live, n_files, atomic_load(&g_n_live), open_files(), err.text);
    }
}

/* A tokenizer of single bytes, one merge and one control token, id 257. */
static void write_small_tokenizer(const char *dir)
{
    static char text[16384];
    int len = snprintf(
        text, sizeof text,
        "{\"version\": \"1.0\", \"added_tokens\": [{\"id\": 257, \"content\": \"<|user|>\","
        " \"single_word\": false, \"lstrip\": false, \"rstrip\": false,"
        " \"normalized\": false, \"special\": true}], \"normalizer\": null,"
        " \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\","
        " \"pattern\": {\"Regex\": \"\\\\p{L}+|\\\\P{L}+\"}, \"behavior\": \"Isolated\","
        " \"invert\": false}, {\"type\": \"ByteLevel\", \"add_prefix_space\": false,"
        " \"trim_offsets\": true, \"use_regex\": false}]}, \"post_processor\": null,"
        " \"decoder\": {\"type\": \"ByteLevel\"}, \"model\": {\"type\": \"BPE\","
        " \"merges\": [[\"h\", \"e\"]], \"vocab\": {\"he\": 256");
    int n_moved = 0; /* bytes without a visible character are spelled U+0100 and up */
    for (int byte = 0; byte < 256; byte++) {
        const bool is_visible =
            (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xff && byte != 0xad);
        len += snprintf(text + len, sizeof text - (size_t)len, ", \"\\u%04x\": %d",
                        (unsigned int)(is_visible ? byte : 256 + n_moved), byte);
        n_moved += is_visible ? 0 : 1;
    }
    len += snprintf(text + len, sizeof text - (size_t)len, "}}}");
    assert_true((size_t)len < sizeof text);
    folder_write(dir, "tokenizer.json", text);
}

static void test_load_survives_any_failed_allocation(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    folder_link_nano(dir);
    write_small_tokenizer(dir);
    folder_write(dir, "generation_config.json", "{\"eos_token_id\": 257}");
    load l = {.name = dir, .options = {.n_threads = 2}};
    measure(&l);
    assert_true(l.n_ids > 0);
    for (long n = 1; n <= l.n_allocations; n++) {
        fail_nth(&l, n);
    }
    print_message("%ld allocations, %ld loads failed\n", l.n_allocations, l.n_failed);
    assert_true(l.n_failed > l.n_allocations / 2);
    folder_remove(dir);
}

static void test_load_of_dummy_weights_survives_any_failed_allocation(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    folder_tiny(dir);
    load l = {.name = dir, .options = {.n_threads = 2, .use_dummy_weights = true}};
    measure(&l);
    for (long n = 1; n <= l.n_allocations; n++) {
        fail_nth(&l, n);
    }
    print_message("%ld allocations, %ld loads failed\n", l.n_allocations, l.n_failed);
    assert_true(l.n_failed > l.n_allocations / 2);
    folder_remove(dir);
}

/* The same with a large vocabulary, of whose many equal allocations a sample has to do. */
static void test_load_of_nano_survives_a_failed_allocation(void **state)
{
    (void)state;
    load l = {.name = NANO, .options = {.n_threads = 2}};
    measure(&l);
    assert_true(l.n_ids > 0);
    for (long n = 1; n <= l.n_allocations; n += n < 2000 ? 1 : 37) {
        fail_nth(&l, n);
    }
    print_message("%ld allocations, %ld loads failed\n", l.n_allocations, l.n_failed);
    assert_true(l.n_failed > 2000);
}

/* ------------------------------------------------------------------------------- sessions -- */

/* The turn of a conversation that uses whatever may need memory: its model, session and request. */
typedef struct turn {
    qn_model *model;
    qn_session_options options;
    qn_request request;
    uint32_t n_steps_max; /* then it is cancelled */
    long n_asked;         /* allocations of all steps */
    uint32_t n_steps;     /* that were done */
    uint32_t n_calls, n_tokens;
    qn_finish finish;
} turn;

/* Steps to the end, counting allocations; polls, unless events go to a callback. */
static qn_status run_steps(turn *t, qn_session *session, qn_error *err)
{
    qn_status status = QN_OK;
    t->n_asked = 0;
    for (t->n_steps = 0; status == QN_OK; t->n_steps++) {
        qn_event event = {0};
        const long n_before = atomic_load(&g_n_asked);
        if (t->n_steps == t->n_steps_max) {
            qn_session_cancel(session);
        }
        status = qn_session_step(session, err);
        t->n_asked += atomic_load(&g_n_asked) - n_before;
        while (qn_session_poll(&event, session)) {
            t->n_calls += event.kind == QN_EVENT_TOOL_CALL ? 1 : 0;
            t->n_tokens += event.kind == QN_EVENT_TOKEN ? 1 : 0;
            t->finish = event.finish;
        }
    }
    return status == QN_AGAIN ? QN_OK : status;
}

/* A session from open to finish; QN_OK or the first failure. */
static qn_status run_turn(turn *t, qn_error *err)
{
    qn_session *session = NULL;
    t->n_calls = t->n_tokens = 0;
    qn_status status = qn_session_open(&session, t->model, &t->options, err);
    if (status == QN_OK) {
        status = qn_session_submit(session, &t->request, err);
    }
    if (status == QN_OK) {
        status = run_steps(t, session, err);
    }
    if (status == QN_OK) {
        status = qn_session_finish_files(session, err);
    }
    qn_session_close(&session);
    return status;
}

/* Run @p t with its @p n-th allocation failing: no leak, and an error or nothing amiss. */
static qn_status fail_nth_of_turn(turn *t, long n)
{
    const size_t n_files = open_files();
    const long n_live = atomic_load(&g_n_live);
    qn_error err = {0};
    arm(n);
    const qn_status status = run_turn(t, &err);
    arm(0);
    assert_int_equal(status, err.status);
    assert_int_equal(open_files(), n_files);
    if (atomic_load(&g_n_live) != n_live || (status != QN_OK && status != QN_E_NOMEM)) {
        fail_msg("allocation %ld: %ld blocks before, %ld after, %s: %s", n, n_live,
                 atomic_load(&g_n_live), qn_status_name(status), err.text);
    }
    return status;
}

/* Bytes of a small file; fills @p out. */
static size_t file_read(char out[32768], const char *path)
{
    FILE *const file = fopen(path, "rb");
    assert_non_null(file);
    const size_t n = fread(out, 1, 32768, file);
    assert_true(feof(file));
    (void)fclose(file);
    return n;
}

static void test_session_with_files_survives_any_failed_allocation(void **state)
{
    (void)state;
    static const int32_t prompt[] = {1, 2, 3};
    static const qn_sampling greedy = {.top_p = 1.0F, .repetition_penalty = 1.0F};
    static char expected[2][32768];
    static char got[32768];
    char dir[PATH_BYTES];
    char logits_path[2 * PATH_BYTES];
    char trace_path[2 * PATH_BYTES];
    folder_make(dir);
    (void)snprintf(logits_path, sizeof logits_path, "%s/logits", dir);
    (void)snprintf(trace_path, sizeof trace_path, "%s/trace", dir);
    turn t = {.model = open_tiny(1),
              .options = {.logits_path = logits_path, .trace_path = trace_path},
              .request = {.ids = prompt, .n_ids = 3, .sampling = &greedy, .max_tokens = 3},
              .n_steps_max = UINT32_MAX};
    qn_error err = {0};
    arm(0);
    assert_int_equal(run_turn(&t, &err), QN_OK);
    const long n_allocations = atomic_load(&g_n_asked);
    assert_true(n_allocations > 20);
    const size_t sizes[2] = {file_read(expected[0], logits_path),
                             file_read(expected[1], trace_path)};
    for (long n = 1; n <= n_allocations; n++) {
        (void)unlink(logits_path);
        (void)unlink(trace_path);
        if (fail_nth_of_turn(&t, n) == QN_OK) {
            assert_int_equal(file_read(got, logits_path), sizes[0]);
            assert_memory_equal(got, expected[0], sizes[0]);
            assert_int_equal(file_read(got, trace_path), sizes[1]);
            assert_memory_equal(got, expected[1], sizes[1]);
        } else {
            assert_int_not_equal(access(trace_path, F_OK), 0);
        }
    }
    qn_model_close(&t.model);
    folder_remove(dir);
}

static const char *const stops[] = {"nowhere", "never at all", "\n\n\n"};
static const int32_t stop_ids[] = {5};
static const qn_logit_bias bias[] = {{.token = 7, .bias = -2.0F}, {.token = 8, .bias = 1.0F}};
/* All of them at work, and all of them mild: the call is made all the same. */
static const qn_sampling every_setting = {.temperature = 0.1F,
                                          .top_p = 0.95F,
                                          .min_p = 0.01F,
                                          .repetition_penalty = 1.001F,
                                          .presence_penalty = 0.001F,
                                          .frequency_penalty = 0.001F,
                                          .top_k = 50,
                                          .n_logit_bias = 2,
                                          .logit_bias = bias,
                                          .seed = 1};

/* A turn with tools, stop texts, drafts, log-probabilities and every setting. */
static turn make_turn(const int32_t *ids, size_t n_ids)
{
    const qn_model_options options = {.n_threads = 2};
    turn t = {.request = {.ids = ids,
                          .n_ids = n_ids,
                          .sampling = &every_setting,
                          .stops = stops,
                          .n_stops = 3,
                          .stop_ids = stop_ids,
                          .n_stop_ids = 1,
                          .tools_json = tools,
                          .tools_len = strlen(tools),
                          .max_tokens = 6,
                          .min_tokens = 2,
                          .n_top_logprobs = QN_TOP_LOGPROBS_MAX,
                          .draft_tokens = 3,
                          .wants_logprobs = true,
                          .wants_prompt_logprobs = true},
              .n_steps_max = UINT32_MAX};
    qn_error err = {0};
    if (qn_model_open(&t.model, NANO, &options, &err) != QN_OK) {
        fail_msg("%s", err.text);
    }
    return t;
}

static size_t encode_prompt(int32_t **ids, const char *text)
{
    const qn_model_options options = {.tokenizer_only = true};
    qn_model *model = NULL;
    size_t n_ids = 0;
    qn_error err = {0};
    assert_int_equal(qn_model_open(&model, NANO, &options, &err), QN_OK);
    assert_int_equal(qn_encode(ids, &n_ids, model, text, strlen(text), QN_CONTROL_MATCH, &err),
                     QN_OK);
    qn_model_close(&model);
    return n_ids;
}

static void test_turn_survives_any_failed_allocation(void **state)
{
    (void)state;
    int32_t *ids = NULL;
    const size_t n_ids = encode_prompt(&ids, "<|user|>What is 2 + 3?<|assistant|><think>");
    turn t = make_turn(ids, n_ids);
    qn_error err = {0};
    long n_failed = 0;
    arm(0);
    assert_int_equal(run_turn(&t, &err), QN_OK);
    const long n_allocations = atomic_load(&g_n_asked);
    assert_true(n_allocations > 20);
    for (long n = 1; n <= n_allocations; n++) {
        n_failed += fail_nth_of_turn(&t, n) == QN_OK ? 0 : 1;
    }
    print_message("%ld allocations, %ld turns failed\n", n_allocations, n_failed);
    assert_true(n_failed > n_allocations / 2);
    qn_model_close(&t.model);
    qn_free(ids);
}

static void test_event_that_finds_no_memory_is_left_out(void **state)
{
    (void)state;
    enum { N_RESERVED = 1 << 20, N_BYTES = N_RESERVED + 1 };
    const qn_events_options room = {.n_events = 2, .text_bytes = N_RESERVED};
    qn_events all;
    char *const text = calloc(1, N_BYTES);
    qn_event event = {.kind = QN_EVENT_TEXT, .text = text, .len = N_BYTES};
    qn_error err = {0};
    assert_non_null(text);
    assert_int_equal(qn_events_init(&all, &room, &err), QN_OK);
    arm(1);
    qn_events_add(&all, &event);
    arm(0);
    qn_events_add(&all, &(qn_event){.kind = QN_EVENT_END});
    assert_int_equal(all.failure.status, QN_E_NOMEM);
    assert_true(qn_events_poll(&all, NULL, &event));
    assert_int_equal(event.kind, QN_EVENT_END);
    assert_false(qn_events_poll(&all, NULL, &event));
    qn_events_deinit(&all);
    free(text);
}

static void ignore_event(void *context, const qn_event *event)
{
    (void)context;
    (void)event;
}

static void test_session_steps_cost_no_allocation(void **state)
{
    (void)state;
    static const int depths[] = {QN_DRAFT_NONE, 5, QN_DRAFT_AUTO};
    int32_t *ids = NULL;
    const size_t n_ids = encode_prompt(&ids, tool_prompt);
    turn t = make_turn(ids, n_ids);
    qn_error err = {0};
    t.options.chunk_tokens = 8;
    t.request.max_tokens = 20;
    t.request.ignore_eos = true;
    for (size_t i = 0; i < 2 * sizeof depths / sizeof depths[0]; i++) {
        t.request.draft_tokens = depths[i / 2];
        t.options.fn = i % 2 == 0 ? NULL : ignore_event;
        assert_int_equal(run_turn(&t, &err), QN_OK);
        assert_true(t.n_steps > 20);
        assert_int_equal(t.n_tokens, i % 2 == 0 ? 20 : 0);
        assert_int_equal(t.n_calls, i % 2 == 0 ? 1 : 0);
        assert_int_equal(t.n_asked, 0);
    }
    t.n_steps_max = 6; /* cancelled */
    t.options.fn = NULL;
    assert_int_equal(run_turn(&t, &err), QN_OK);
    assert_int_equal(t.finish, QN_FINISH_ABORT);
    assert_int_equal(t.n_asked, 0);
    qn_model_close(&t.model);
    qn_free(ids);
}

int main(void)
{
    qn_log_configure(QN_LOG_ERROR, false);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_load_survives_any_failed_allocation),
        cmocka_unit_test(test_load_of_dummy_weights_survives_any_failed_allocation),
        cmocka_unit_test(test_load_of_nano_survives_a_failed_allocation),
        cmocka_unit_test(test_session_with_files_survives_any_failed_allocation),
        cmocka_unit_test(test_turn_survives_any_failed_allocation),
        cmocka_unit_test(test_event_that_finds_no_memory_is_left_out),
        cmocka_unit_test(test_session_steps_cost_no_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
#endif

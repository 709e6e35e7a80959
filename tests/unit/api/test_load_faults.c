/* SPDX-License-Identifier: Apache-2.0 */
/* Every allocation of qn_model_open() fails once, whoever asks for it: ours, jansson's, PCRE2's,
 * the C library's.  The call must return an error, or a model that is as good as any (where the C
 * library does without the memory, as qsort() can); nothing may leak.  Sessions likewise. */
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
    qn_session *session = NULL;
    qn_error err = {0};
    float logit = 0.0F;
    if (qn_session_open(&session, model, &options, &err) == QN_OK &&
        qn_session_feed(session, prompt, 3, NULL, NULL, &err) == QN_OK) {
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

/* A session with both files, from open to finish; QN_OK or the first failure. */
static qn_status run_session(qn_model *model, const qn_session_options *options, qn_error *err)
{
    static const int32_t prompt[] = {1, 2, 3};
    qn_session *session = NULL;
    int32_t token = -1;
    qn_status status = qn_session_open(&session, model, options, err);
    if (status == QN_OK) {
        status = qn_session_feed(session, prompt, 3, NULL, NULL, err);
    }
    for (int i = 0; i < 3 && status == QN_OK; i++) {
        status = qn_session_next(&token, session, err);
    }
    if (status == QN_OK) {
        status = qn_session_finish_files(session, err);
    }
    qn_session_close(&session);
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

static void test_session_survives_any_failed_allocation(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    char logits_path[2 * PATH_BYTES];
    char trace_path[2 * PATH_BYTES];
    folder_make(dir);
    (void)snprintf(logits_path, sizeof logits_path, "%s/logits", dir);
    (void)snprintf(trace_path, sizeof trace_path, "%s/trace", dir);
    const qn_sampling greedy = {.top_p = 1.0F};
    const qn_session_options options = {
        .sampling = &greedy, .logits_path = logits_path, .trace_path = trace_path};
    qn_model *model = open_tiny(1);
    qn_error err = {0};
    arm(0);
    assert_int_equal(run_session(model, &options, &err), QN_OK);
    const long n_allocations = atomic_load(&g_n_asked);
    assert_true(n_allocations > 20);
    static char expected[2][32768];
    static char got[32768];
    const size_t sizes[2] = {file_read(expected[0], logits_path),
                             file_read(expected[1], trace_path)};
    for (long n = 1; n <= n_allocations; n++) {
        const size_t n_files = open_files();
        const long n_live = atomic_load(&g_n_live);
        err = (qn_error){0};
        (void)unlink(logits_path);
        (void)unlink(trace_path);
        arm(n);
        const qn_status status = run_session(model, &options, &err);
        arm(0);
        assert_int_equal(status, err.status);
        assert_int_equal(atomic_load(&g_n_live), n_live);
        assert_int_equal(open_files(), n_files);
        if (status == QN_OK) {
            assert_int_equal(file_read(got, logits_path), sizes[0]);
            assert_memory_equal(got, expected[0], sizes[0]);
            assert_int_equal(file_read(got, trace_path), sizes[1]);
            assert_memory_equal(got, expected[1], sizes[1]);
        } else {
            assert_int_equal(status, QN_E_NOMEM);
            assert_int_not_equal(access(trace_path, F_OK), 0);
        }
    }
    qn_model_close(&model);
    folder_remove(dir);
}

static void test_session_tokens_cost_no_allocation(void **state)
{
    (void)state;
    static int32_t prompt[150];
    qn_model *model = open_tiny(2);
    qn_session *session = NULL;
    qn_error err = {0};
    int32_t token = -1;
    const qn_session_options options = {.chunk_tokens = 64};
    assert_int_equal(qn_session_open(&session, model, &options, &err), QN_OK);
    arm(0);
    assert_int_equal(qn_session_feed(session, prompt, 150, NULL, NULL, &err), QN_OK);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(qn_session_next(&token, session, &err), QN_OK);
    }
    assert_int_equal(atomic_load(&g_n_asked), 0);
    qn_session_close(&session);
    qn_model_close(&model);
}

int main(void)
{
    qn_log_configure(QN_LOG_ERROR, false);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_load_survives_any_failed_allocation),
        cmocka_unit_test(test_load_of_dummy_weights_survives_any_failed_allocation),
        cmocka_unit_test(test_load_of_nano_survives_a_failed_allocation),
        cmocka_unit_test(test_session_survives_any_failed_allocation),
        cmocka_unit_test(test_session_tokens_cost_no_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
#endif

/* SPDX-License-Identifier: Apache-2.0 */
#include "api/locate.h"
#include "fixture.h"

static char g_dir[PATH_BYTES]; /* HF_HOME of these tests */

static int make_cache(void **state)
{
    (void)state;
    folder_make(g_dir);
    return setenv("HF_HOME", g_dir, 1);
}

static int remove_cache(void **state)
{
    (void)state;
    folder_remove(g_dir);
    return unsetenv("HF_HOME");
}

/* HF_HOME/hub/models--zai-org--GLM-5.2/NAME as a folder. */
static void make_in_cache(const char *name)
{
    char path[2 * PATH_BYTES];
    (void)snprintf(path, sizeof path, "%s/hub/models--zai-org--GLM-5.2/%s", g_dir, name);
    for (char *slash = path + strlen(g_dir) + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
        *slash = '\0';
        (void)mkdir(path, 0777); /* may be there */
        *slash = '/';
    }
    assert_int_equal(mkdir(path, 0777), 0);
}

static void write_in_cache(const char *name, const char *text)
{
    char dir[2 * PATH_BYTES];
    (void)snprintf(dir, sizeof dir, "%s/hub/models--zai-org--GLM-5.2", g_dir);
    folder_write(dir, name, text);
}

static void assert_not_located(const char *name, qn_status expected, const char *word,
                               const char *word_2)
{
    char *path = NULL;
    qn_error err = {0};
    assert_int_equal(qn_locate_model(&path, name, &err), expected);
    assert_null(path);
    if (strstr(err.text, word) == NULL || strstr(err.text, word_2) == NULL) {
        fail_msg("'%s': '%s' and '%s' expected", err.text, word, word_2);
    }
}

static void test_locate_folder_is_itself(void **state)
{
    (void)state;
    char *path = NULL;
    qn_error err = {0};
    assert_int_equal(qn_locate_model(&path, NANO, &err), QN_OK);
    assert_string_equal(path, NANO);
    free(path);
}

static void test_locate_unknown_hub_name_gives_the_command(void **state)
{
    (void)state;
    assert_not_located("zai-org/GLM-5.2", QN_E_NOT_FOUND, "hf download zai-org/GLM-5.2",
                       "models/glm-nano");
}

static void test_locate_unknown_path_is_no_such_folder(void **state)
{
    (void)state;
    static const char *const names[] = {
        "/nonexistent", "./a/b", "glm-nano", "a/b/c", "../x", "a/.b", "a/", "a b/c",
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        assert_not_located(names[i], QN_E_NOT_FOUND, "no such folder", "models/glm-nano");
    }
}

static void test_locate_file_is_not_a_model(void **state)
{
    (void)state;
    assert_not_located(NANO "/config.json", QN_E_FORMAT, "a file", "folder");
    assert_not_located(NANO "/config.json/x", QN_E_FORMAT, "Not a directory", NANO);
}

static void test_locate_finds_the_snapshot_of_main(void **state)
{
    (void)state;
    char *path = NULL;
    char expected[2 * PATH_BYTES];
    qn_error err = {0};
    make_in_cache("refs");
    write_in_cache("refs/main", "b4734de4\n");
    /* A download that stopped before the snapshot. */
    assert_not_located("zai-org/GLM-5.2", QN_E_NOT_FOUND, "hf download zai-org/GLM-5.2",
                       "b4734de4");
    make_in_cache("snapshots/b4734de4");
    assert_int_equal(qn_locate_model(&path, "zai-org/GLM-5.2", &err), QN_OK);
    (void)snprintf(expected, sizeof expected, "%s/hub/models--zai-org--GLM-5.2/snapshots/b4734de4",
                   g_dir);
    assert_string_equal(path, expected);
    free(path);
}

static void test_locate_revision_is_never_a_path(void **state)
{
    (void)state;
    make_in_cache("refs");
    write_in_cache("refs/main", "../../../../etc");
    assert_not_located("zai-org/GLM-5.2", QN_E_FORMAT, "refs/main", "revision");
    write_in_cache("refs/main", "");
    assert_not_located("zai-org/GLM-5.2", QN_E_FORMAT, "refs/main", "0 bytes");
}

static void test_locate_cache_is_in_the_home_without_hf_home(void **state)
{
    (void)state;
    const char *const home = getenv("HOME");
    char *const saved = strdup(home != NULL ? home : "");
    assert_non_null(saved);
    assert_int_equal(unsetenv("HF_HOME"), 0);
    assert_int_equal(setenv("HOME", "/nonexistent/home", 1), 0);
    assert_not_located("zai-org/GLM-5.2", QN_E_NOT_FOUND,
                       "/nonexistent/home/.cache/huggingface/hub/models--zai-org--GLM-5.2", "");
    assert_int_equal(setenv("HOME", saved, 1), 0);
    free(saved);
}

static void test_locate_opens_a_model_by_its_hub_name(void **state)
{
    (void)state;
    char link_path[2 * PATH_BYTES];
    qn_model *model = NULL;
    qn_error err = {0};
    make_in_cache("refs");
    write_in_cache("refs/main", "abc");
    make_in_cache("snapshots");
    (void)snprintf(link_path, sizeof link_path, "%s/hub/models--zai-org--GLM-5.2/snapshots/abc",
                   g_dir);
    assert_int_equal(symlink(NANO, link_path), 0);
    const qn_model_options options = {.tokenizer_only = true};
    assert_int_equal(qn_model_open(&model, "zai-org/GLM-5.2", &options, &err), QN_OK);
    assert_string_equal(qn_model_get_info(model)->name, "zai-org/GLM-5.2");
    assert_string_equal(qn_model_get_info(model)->path, link_path);
    qn_model_close(&model);
}

#define in_cache(test) cmocka_unit_test_setup_teardown(test, make_cache, remove_cache)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_locate_folder_is_itself),
        in_cache(test_locate_unknown_hub_name_gives_the_command),
        in_cache(test_locate_unknown_path_is_no_such_folder),
        in_cache(test_locate_file_is_not_a_model),
        in_cache(test_locate_finds_the_snapshot_of_main),
        in_cache(test_locate_revision_is_never_a_path),
        in_cache(test_locate_cache_is_in_the_home_without_hf_home),
        in_cache(test_locate_opens_a_model_by_its_hub_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "device/gpu_driver.h"
#include "device/gpu_library.h"
#include "support/unit.h"

#include <dlfcn.h>
#include <string.h>

static void test_library_that_is_not_there_is_named(void **state)
{
    (void)state;
    static const char *const names[] = {"libquern-none.so.2", "libquern-none.so.1"};
    void *library = NULL;
    qn_error err = {0};
    assert_int_equal(qn_gpu_library_open(&library, names, 2, &err), QN_E_NOT_FOUND);
    assert_null(library);
    assert_non_null(strstr(err.text, "no library (libquern-none.so.1: "));
    assert_non_null(strstr(err.text, "libquern-none.so.2 or libquern-none.so.1 expected"));
}

static void test_library_finds_functions_by_either_name(void **state)
{
    (void)state;
    static const char *const names[] = {"libquern-none.so.2", "libc.so.6"};
    double (*first)(const char *, char **) = NULL;
    void *second = NULL;
    const qn_gpu_symbol symbols[] = {{"strtod", NULL, &first},
                                     {"quern_none_v2", "strtol", &second},
                                     {"quern_none", NULL, &second}};
    void *library = NULL;
    qn_error err = {0};
    assert_int_equal(qn_gpu_library_open(&library, names, 2, &err), QN_OK);
    assert_int_equal(qn_gpu_library_find(library, symbols, 2, &err), QN_OK);
    assert_true(first("2.5", NULL) == 2.5);
    assert_non_null(second);
    assert_int_equal(qn_gpu_library_find(library, symbols, 3, &err), QN_E_DEVICE);
    assert_string_equal(err.text, "the driver's library has no function quern_none, expected one");
    assert_int_equal(dlclose(library), 0);
}

/* Its version is looked at first: what it lacks would say less. */
static void test_library_that_is_too_old_says_so(void **state)
{
    (void)state;
    static const struct {
        const char *path, *device;
        int version;
        const char *text;
    } cases[] = {
        {QN_BINARY_DIR "/tests/old_libcuda.so.1", "cuda", 12060,
         "cuda:0: the driver is for CUDA 12.6, one for 12.8 or later expected"},
        {QN_BINARY_DIR "/tests/old_libcuda.so.1", "cuda:1", 12080,
         "cuda:1: the driver's library has no function cuInit, expected one"},
        {QN_BINARY_DIR "/tests/old_libcuda.so.1", "cuda", -1,
         "cuda:0: cuDriverGetVersion: error 3, a version expected"},
        {QN_BINARY_DIR "/tests/old_libamdhip64.so.7", "hip", 50731921,
         "hip:0: the driver is HIP 5.7, 6.0 or later expected"},
        {QN_BINARY_DIR "/tests/old_libamdhip64.so.7", "hip", 70125424,
         "hip:0: the driver's library has no function hipInit, expected one"},
        {QN_BINARY_DIR "/tests/old_libamdhip64.so.7", "hip:3", -1,
         "hip:3: hipRuntimeGetVersion: error 3, a version expected"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        /* The name that it has for the loader is that of the right one, which is then not sought.
         */
        void *const library = dlopen(cases[i].path, RTLD_NOW | RTLD_LOCAL);
        assert_non_null(library);
        int *const version = dlsym(library, "old_driver_version");
        assert_non_null(version);
        *version = cases[i].version;
        qn_gpu *gpu = NULL;
        qn_error err = {0};
        assert_int_equal(qn_gpu_open(&gpu, cases[i].device, &err), QN_E_DEVICE);
        assert_string_equal(err.text, cases[i].text);
        assert_null(gpu);
        assert_int_equal(dlclose(library), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_library_that_is_not_there_is_named),
        cmocka_unit_test(test_library_finds_functions_by_either_name),
        cmocka_unit_test(test_library_that_is_too_old_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

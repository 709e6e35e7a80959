/* SPDX-License-Identifier: Apache-2.0 */
#include "device/device.h"
#include "support/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void test_device_cpu_comes_first_and_is_usable(void **state)
{
    (void)state;
    qn_device list[4];
    assert_int_equal(qn_device_list(list, 4, "/nonexistent"), 1);
    assert_string_equal(list[0].name, "cpu");
    assert_true(list[0].is_usable);
    assert_string_equal(list[0].reason, "");
    assert_true(list[0].n_threads >= 1);
    assert_true(list[0].memory_bytes > 1U << 20);
    assert_non_null(strstr(list[0].description, "thread"));
    assert_string_equal(list[0].kernels, "");
}

static void test_device_list_stops_where_there_is_no_room(void **state)
{
    (void)state;
    assert_int_equal(qn_device_list(NULL, 0, "/dev"), 0);
}

static void test_device_gpu_is_listed_with_the_reason_why_not(void **state)
{
    (void)state;
    char dir[] = "/tmp/qn-device-XXXXXX";
    assert_non_null(mkdtemp(dir));
    char path[64];
    (void)snprintf(path, sizeof path, "%s/kfd", dir);
    FILE *const node = fopen(path, "w");
    assert_non_null(node);
    (void)fclose(node);
    qn_device list[4];
    assert_int_equal(qn_device_list(list, 4, dir), 2);
    assert_string_equal(list[1].name, "hip");
    assert_false(list[1].is_usable);
    assert_string_equal(list[1].reason, "this version computes on the CPU only");
    assert_int_equal(qn_device_list(list, 1, dir), 1);
    (void)unlink(path);
    (void)rmdir(dir);
}

static void test_device_value_says_what_can_compute(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        qn_status expected;
    } cases[] = {
        {NULL, QN_OK},           {"auto", QN_OK},          {"cpu", QN_OK},
        {"cuda", QN_E_DEVICE},   {"cuda:0", QN_E_DEVICE},  {"hip", QN_E_DEVICE},
        {"hip:11", QN_E_DEVICE}, {"gfxsim", QN_E_DEVICE},  {"", QN_E_INVAL},
        {"cuda:", QN_E_INVAL},   {"cuda:-1", QN_E_INVAL},  {"cuda0", QN_E_INVAL},
        {"hip:1x", QN_E_INVAL},  {"gfxsim:0", QN_E_INVAL}, {"cpu:0", QN_E_INVAL},
        {"CPU", QN_E_INVAL},     {"tpu", QN_E_INVAL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        qn_error err = {0};
        assert_int_equal(qn_device_check(cases[i].text, &err), cases[i].expected);
        assert_int_equal(err.status, cases[i].expected);
        if (cases[i].expected != QN_OK) {
            assert_non_null(strstr(err.text, "--device"));
            assert_non_null(strstr(err.text, cases[i].text));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_device_cpu_comes_first_and_is_usable),
        cmocka_unit_test(test_device_list_stops_where_there_is_no_room),
        cmocka_unit_test(test_device_gpu_is_listed_with_the_reason_why_not),
        cmocka_unit_test(test_device_value_says_what_can_compute),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

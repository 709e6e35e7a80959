/* SPDX-License-Identifier: Apache-2.0 */
#include "device/device.h"
#include "support/fake_gpu.h"
#include "support/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const archs[] = {"sm_90", "emulated"};

static void test_device_cpu_comes_first_and_is_usable(void **state)
{
    (void)state;
    qn_device list[1];
    assert_int_equal(qn_device_list(list, 1, "/nonexistent", NULL, 0), 1);
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
    fake_gpu_reset();
    fake_gpu.n_devices = 5;
    qn_device list[2];
    assert_int_equal(qn_device_list(NULL, 0, "/dev", NULL, 0), 0);
    assert_int_equal(qn_device_list_gpus(NULL, 0, &fake_gpu_driver, "/dev", NULL, 0), 0);
    assert_int_equal(qn_device_list_gpus(list, 2, &fake_gpu_driver, "/dev", NULL, 0), 2);
}

static void test_device_gpus_say_what_they_are(void **state)
{
    (void)state;
    fake_gpu_reset();
    fake_gpu.n_devices = 2;
    qn_device list[4];
    assert_int_equal(qn_device_list_gpus(list, 4, &fake_gpu_driver, "/nonexistent", archs, 2), 2);
    assert_string_equal(list[1].name, "fake:1");
    assert_string_equal(list[1].description, "emulated, 4 multiprocessors, driver 1.0");
    assert_string_equal(list[1].features, "emulated");
    assert_string_equal(list[1].kernels, "emulated");
    assert_string_equal(list[1].reason, "");
    assert_int_equal(list[1].memory_bytes, (uint64_t)4 << 30);
    assert_int_equal(list[1].n_threads, 0);
    assert_true(list[1].is_usable);
}

static void test_device_gpu_without_kernels_says_so(void **state)
{
    (void)state;
    fake_gpu_reset();
    fake_gpu.arch = "sm_75";
    qn_device gpu;
    assert_int_equal(qn_device_list_gpus(&gpu, 1, &fake_gpu_driver, "/dev", archs, 2), 1);
    assert_false(gpu.is_usable);
    assert_string_equal(gpu.kernels, "");
    assert_string_equal(gpu.features, "sm_75");
    assert_string_equal(gpu.reason, "no kernels for sm_75 in this build, it has sm_90, emulated");
    assert_int_equal(qn_device_list_gpus(&gpu, 1, &fake_gpu_driver, "/dev", NULL, 0), 1);
    assert_string_equal(gpu.reason, "no kernels for sm_75 in this build, it has none for any GPU");
    qn_error err = {0};
    assert_int_equal(qn_device_check_gpu(&fake_gpu_driver, 0, "--device", archs, 2, &err),
                     QN_E_DEVICE);
    assert_string_equal(err.text, "--device: fake:0, emulated: no kernels for sm_75 in this build, "
                                  "it has sm_90, emulated");
    fake_gpu.arch = "sm_90";
    assert_int_equal(qn_device_check_gpu(&fake_gpu_driver, 0, "--device", archs, 2, &err), QN_OK);
}

/* A driver that fails is of interest only to who has a device. */
static void test_device_gpu_is_listed_with_the_reason_why_not(void **state)
{
    (void)state;
    static const struct {
        bool has_no_library, is_old;
        uint32_t n_devices;
        const char *reason;
    } cases[] = {
        {true, false, 1, "fake: no library (not found), libfake.so.1 expected"},
        {false, true, 1, "fake: the driver is for fake 0.9, one for 1.0 or later expected"},
        {false, false, 0, "fake: version 1.0: no device, one expected"},
    };
    char dir[] = "/tmp/qn-device-XXXXXX";
    assert_non_null(mkdtemp(dir));
    char path[64];
    (void)snprintf(path, sizeof path, "%s/fake", dir);
    FILE *const node = fopen(path, "w");
    assert_non_null(node);
    (void)fclose(node);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fake_gpu_reset();
        fake_gpu.has_no_library = cases[i].has_no_library;
        fake_gpu.is_old = cases[i].is_old;
        fake_gpu.n_devices = cases[i].n_devices;
        qn_device gpu;
        qn_error err = {0};
        assert_int_equal(qn_device_list_gpus(&gpu, 1, &fake_gpu_driver, dir, archs, 2), 1);
        assert_string_equal(gpu.name, "fake");
        assert_non_null(strstr(gpu.description, "Fake driver at /tmp/qn-device-"));
        assert_string_equal(gpu.reason, cases[i].reason);
        assert_false(gpu.is_usable);
        /* Without its node: there is no driver at all, or only its library. */
        assert_int_equal(qn_device_list_gpus(&gpu, 1, &fake_gpu_driver, "/nonexistent", archs, 2),
                         cases[i].has_no_library ? 0 : 1);
        assert_true(cases[i].has_no_library || strcmp(gpu.description, "Fake driver") == 0);
        assert_string_equal(gpu.reason, cases[i].reason);
        assert_int_equal(qn_device_check_gpu(&fake_gpu_driver, 0, "--device", archs, 2, &err),
                         QN_E_DEVICE);
        assert_non_null(strstr(err.text, "fake:0"));
        assert_non_null(strstr(err.text, cases[i].reason + strlen("fake")));
    }
    fake_gpu_reset();
    fake_gpu_fail("info", 0, FAKE_GPU_INVALID);
    qn_device gpu;
    assert_int_equal(qn_device_list_gpus(&gpu, 1, &fake_gpu_driver, dir, archs, 2), 1);
    assert_string_equal(gpu.name, "fake:0");
    assert_non_null(strstr(gpu.reason, "fake:0: what the device is: FAKE_INVALID"));
    assert_false(gpu.is_usable);
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
        {"CPU", QN_E_INVAL},     {"tpu", QN_E_INVAL},      {"cuda:4294967296", QN_E_INVAL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        qn_error err = {0};
        /* Without a device, or a kernel for it. */
        assert_int_equal(qn_device_check(cases[i].text, NULL, NULL, 0, &err), cases[i].expected);
        assert_int_equal(err.status, cases[i].expected);
        if (cases[i].expected != QN_OK) {
            assert_non_null(strstr(err.text, "--device"));
        }
        if (cases[i].expected == QN_E_INVAL) {
            assert_non_null(strstr(err.text, cases[i].text));
            assert_non_null(strstr(err.text, "auto, cpu, cuda[:N] or hip[:N] expected"));
        }
        assert_int_equal(qn_device_check(cases[i].text, "--against-device", NULL, 0, &err),
                         cases[i].expected);
        if (cases[i].expected != QN_OK) {
            assert_ptr_equal(strstr(err.text, "--against-device: "), err.text);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_device_cpu_comes_first_and_is_usable),
        cmocka_unit_test(test_device_list_stops_where_there_is_no_room),
        cmocka_unit_test(test_device_gpus_say_what_they_are),
        cmocka_unit_test(test_device_gpu_without_kernels_says_so),
        cmocka_unit_test(test_device_gpu_is_listed_with_the_reason_why_not),
        cmocka_unit_test(test_device_value_says_what_can_compute),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cpu.h"
#include "fixture.h"
#include "kernels/kernels.h"

static void test_build_tells_what_it_was_made_from(void **state)
{
    (void)state;
    const qn_build *const build = qn_build_get();
    unsigned int major = 0;
    unsigned int minor = 0;
    assert_int_equal(sscanf(build->version, "%u.%u.", &major, &minor), 2);
    assert_true(strlen(build->commit) > 0);
    assert_true(strlen(build->compiler) > 0);
    assert_int_equal(strncmp(build->kernels, "ref", 3), 0);
}

static void test_build_of_library_and_program_have_one_interface(void **state)
{
    (void)state;
    assert_int_equal(qn_abi_version(), QN_ABI_VERSION);
}

static void test_devices_cpu_names_its_kernels(void **state)
{
    (void)state;
    qn_device list[8];
    const size_t n = qn_devices(list, 8);
    assert_true(n >= 1);
    assert_string_equal(list[0].name, "cpu");
    assert_string_equal(list[0].kernels, qn_kernels_level(qn_cpu_flags()));
    for (size_t i = 0; i < n; i++) {
        assert_true(list[i].is_usable == (list[i].reason[0] == '\0'));
    }
    assert_int_equal(qn_devices(NULL, 0), 0);
    assert_int_equal(qn_devices(NULL, 4), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_build_tells_what_it_was_made_from),
        cmocka_unit_test(test_build_of_library_and_program_have_one_interface),
        cmocka_unit_test(test_devices_cpu_names_its_kernels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/energy.h"
#include "fake_nvml.h"
#include "support/fail_each.h"

#include <fcntl.h>
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

static const bench_work work = {.n_requests = 10, .n_input = 1000, .n_output = 100};
static char folder[256];

static double number(const json_t *object, const char *key)
{
    const json_t *const value = json_object_get(object, key);
    assert_true(json_is_number(value));
    return json_number_value(value);
}

static void assert_near(double seen, double wanted)
{
    if (!(fabs(seen - wanted) <= 1e-6 * fabs(wanted) + 1e-9)) {
        fail_msg("%.9g, expected %.9g", seen, wanted);
    }
}

static json_t *json_of(const energy_device *devices, size_t n, double duration_s)
{
    const energy_account account = {
        .source = "test", .why = "", .devices = devices, .n_devices = n, .duration_s = duration_s};
    json_t *const made = energy_json(&account, &work);
    assert_non_null(made);
    return made;
}

static void test_trapezoids_of_two_devices(void **state)
{
    (void)state;
    energy_device devices[2];
    for (int i = 0; i < 2; i++) {
        energy_device_init(&devices[i], i == 0 ? "a" : "b");
        /* begins before the run and ends after it: 100 W at second 0, 300 W at second 4 */
        energy_add_power(&devices[i], -1, 50 * (i + 1), 4);
        energy_add_power(&devices[i], 1, 150 * (i + 1), 4);
        energy_add_power(&devices[i], 3, 250 * (i + 1), 4);
        energy_add_power(&devices[i], 5, 350 * (i + 1), 4);
        energy_end(&devices[i], 4);
    }
    json_t *const json = json_of(devices, 2, 4);
    assert_true(json_is_true(json_object_get(json, "power_valid")));
    assert_true(json_is_null(json_object_get(json, "why")));
    assert_near(number(json, "total_gpu_energy_j"), 3 * 4 * 200);
    assert_near(number(json, "avg_total_gpu_power_w"), 600);
    assert_near(number(json, "avg_power_w"), 300);
    assert_near(number(json, "joules_per_successful_query"), 240);
    assert_near(number(json, "joules_per_input_token"), 2.4);
    assert_near(number(json, "joules_per_output_token"), 24);
    assert_near(number(json, "joules_per_total_token"), 2400.0 / 1100);
    json_decref(json);
}

/* Second of each sample, of one device in a run of 10 s. */
static json_t *json_of_samples(const double *at_s, size_t n)
{
    energy_device device;
    energy_device_init(&device, "gpu");
    for (size_t i = 0; i < n; i++) {
        energy_add_power(&device, at_s[i], 100, 10);
    }
    energy_end(&device, 10);
    return json_of(&device, 1, 10);
}

static void test_a_gap_makes_it_invalid(void **state)
{
    (void)state;
    static const struct {
        double at_s[6];
        size_t n;
        const char *why; /* NULL: valid */
    } cases[] = {
        {{0, 2, 4, 6, 8, 10}, 6, NULL},
        {{2.9, 5, 7.2}, 3, NULL},
        {{0, 3, 6, 9}, 4, NULL},
        {{-2, 1, 4, 7, 10}, 5, NULL},
        {{0, 3, 6.1, 9, 10}, 5, "gpu: no sample for 3.1 s"},
        {{3.1, 6, 9}, 3, "gpu: no sample for 3.1 s"},
        {{0, 3, 6}, 3, "gpu: no sample for 4.0 s"},
        {{-3, 1, 4, 7, 10}, 5, "gpu: no sample for 4.0 s"},
        {{0, 2, 4, 6, 8, 13}, 6, "gpu: no sample for 5.0 s"},
        {{5}, 1, "gpu: 1 samples"},
        {{0}, 0, "gpu: 0 samples"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *const json = json_of_samples(cases[i].at_s, cases[i].n);
        const char *const why = json_string_value(json_object_get(json, "why"));
        assert_int_equal(json_is_true(json_object_get(json, "power_valid")), cases[i].why == NULL);
        if (cases[i].why == NULL) {
            assert_near(number(json, "total_gpu_energy_j"), 1000);
        } else {
            assert_non_null(strstr(why, cases[i].why));
            assert_true(json_is_null(json_object_get(json, "total_gpu_energy_j")));
            assert_true(json_is_null(json_object_get(json, "joules_per_output_token")));
        }
        json_decref(json);
    }
}

static void test_no_device_and_no_tokens(void **state)
{
    (void)state;
    json_t *json = json_of(NULL, 0, 10);
    assert_true(json_is_false(json_object_get(json, "power_valid")));
    assert_non_null(json_string_value(json_object_get(json, "why")));
    json_decref(json);
    energy_device device;
    const bench_work nothing = {0};
    energy_device_init(&device, "gpu");
    energy_add_power(&device, 0, 5, 1);
    energy_add_power(&device, 1, 5, 1);
    energy_end(&device, 1);
    json = energy_json(
        &(energy_account){.why = "", .devices = &device, .n_devices = 1, .duration_s = 1},
        &nothing);
    assert_near(number(json, "total_gpu_energy_j"), 5);
    assert_true(json_is_null(json_object_get(json, "joules_per_output_token")));
    json_decref(json);
}

/* ------------------------------------------------------------------------------------ the file */

static json_t *json_of_file(const char *text, double begun_s, double duration_s)
{
    char path[320];
    energy_device *devices = NULL;
    size_t n = 0;
    qn_error err = {0};
    series *const power = calloc(1, sizeof *power);
    (void)snprintf(path, sizeof path, "%s/power.csv", folder);
    FILE *const file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
    const qn_status status = energy_read_file(&devices, &n, power, path, begun_s, duration_s, &err);
    assert_true(status == QN_OK || status == QN_E_FORMAT);
    const energy_account account = {.source = path,
                                    .why = err.text,
                                    .devices = devices,
                                    .n_devices = n,
                                    .duration_s = duration_s,
                                    .power = power};
    json_t *const made = energy_json(&account, &work);
    free(devices);
    free(power);
    return made;
}

static void test_a_power_file_of_two_devices(void **state)
{
    (void)state;
    json_t *const json = json_of_file("time, watts, device\n"
                                      "# a note\n"
                                      "\n"
                                      "900,100000,gpu 0\n" /* long before */
                                      "999,100,gpu 0\r\n"
                                      "1001.0 , 100 , gpu 0\n"
                                      "1003,100,gpu 0\n"
                                      "1004,150,gpu 0\n"
                                      "1004,50,gpu 0\n" /* a clock too coarse: their mean */
                                      "1004,20,gpu 1\n"
                                      "1002,20,gpu 1\n" /* in no order */
                                      "1000,20,gpu 1\n"
                                      "2000,100000,gpu 1\n"
                                      "1004,9",
                                      1000, 4);
    assert_true(json_is_true(json_object_get(json, "power_valid")));
    assert_near(number(json, "total_gpu_energy_j"), 480);
    assert_int_equal(json_array_size(json_object_get(json, "devices")), 2);
    const json_t *const watts = json_object_get(json_object_get(json, "series"), "w");
    assert_int_equal(json_array_size(watts), 41);
    assert_near(json_number_value(json_array_get(watts, 7)), 120);
    json_decref(json);
}

static void test_a_power_file_of_nvidia_smi(void **state)
{
    (void)state;
    struct tm date = {.tm_year = 126, .tm_mon = 6, .tm_mday = 3, .tm_hour = 12, .tm_isdst = -1};
    const double begun_s = (double)mktime(&date) + 0.25;
    json_t *const json = json_of_file("timestamp, power.draw [W], index\n"
                                      "2026/07/03 12:00:00.250, 70.50 W, 0\n"
                                      "2026/07/03 12:00:00.250, 30 W, 1\n"
                                      "2026/07/03 12:00:02, 70.50 W, 0\n"
                                      "2026/07/03 12:00:02.250, 30 W, 1\n"
                                      "2026/07/03 12:00:02.250, 70.50 W, 0\n",
                                      begun_s, 2);
    assert_near(number(json, "avg_total_gpu_power_w"), 100.5);
    json_decref(json);
}

static void test_faults_of_a_power_file_are_told(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *why;
    } cases[] = {
        {"", "no sample of power within the run"},
        {"time,watts\n", "no sample of power within the run"},
        {"5,1\n6,1\n", "no sample of power within the run"},
        {"1000,1\n1002,1\nwhat\n", "line 3: \"what\", expected \"seconds since 1970, watts"},
        {"1000;1\n", "line 1: \"1000;1\""},
        {"1000,-1\n", "line 1"},
        {"1000,nan\n", "line 1"},
        {"1000,1 kW\n", "line 1"},
        {"2026/07/03 12:00:00., 70 W\n", "line 1"},
        {"2026/07/03, 70 W\n", "line 1"},
        {"1000,[N/A]\n", "line 1"},
        {"1000,1e308\n1002,1e308\n1004,1e308\n", "no finite sum of energy"},
        {"1000,1\n1003.5,1\n1004,1\n", "power: no sample for 3.5 s"},
        {"1000,1,a\n1002,1,a\n1004,1,a\n1001,1,b\n", "b: 1 samples"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *const json = json_of_file(cases[i].text, 1000, 4);
        const char *const why = json_string_value(json_object_get(json, "why"));
        assert_true(json_is_false(json_object_get(json, "power_valid")));
        if (why == NULL || strstr(why, cases[i].why) == NULL) {
            fail_msg("%s, expected %s", why != NULL ? why : "nothing", cases[i].why);
        }
        json_decref(json);
    }
    char line[2048];
    memset(line, '7', sizeof line);
    line[sizeof line - 1] = '\0';
    json_t *const json = json_of_file(line, 1000, 4);
    assert_non_null(strstr(json_string_value(json_object_get(json, "why")), "line 1 is longer"));
    json_decref(json);
}

static void test_a_file_that_is_not_there_or_no_file(void **state)
{
    (void)state;
    energy_device *devices = NULL;
    size_t n = 0;
    qn_error err = {0};
    series *const power = calloc(1, sizeof *power);
    assert_int_equal(energy_read_file(&devices, &n, power, "no/such.csv", 0, 1, &err),
                     QN_E_NOT_FOUND);
    assert_int_equal(energy_read_file(&devices, &n, power, "/dev/zero", 0, 1, &err), QN_E_FORMAT);
    free(power);
}

/* -------------------------------------------------------------------------------------- meters */

static void write_in(const char *domain, const char *name, const char *text)
{
    char path[512];
    (void)snprintf(path, sizeof path, "%s/%s", folder, domain);
    (void)mkdir(path, 0700);
    (void)snprintf(path, sizeof path, "%s/%s/%s", folder, domain, name);
    FILE *const file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void write_domain(const char *domain, const char *name, const char *microjoules)
{
    write_in(domain, "name", name);
    write_in(domain, "energy_uj", microjoules);
    write_in(domain, "max_energy_range_uj", "1000000000\n");
}

static void remove_domain(const char *domain)
{
    static const char *const names[] = {"name", "energy_uj", "max_energy_range_uj"};
    char path[512];
    for (size_t i = 0; i < 3; i++) {
        (void)snprintf(path, sizeof path, "%s/%s/%s", folder, domain, names[i]);
        (void)unlink(path);
    }
    (void)snprintf(path, sizeof path, "%s/%s", folder, domain);
    (void)rmdir(path);
}

static void test_rapl_counts_packages_and_memory_and_wraps(void **state)
{
    (void)state;
    power_meter *rapl = NULL;
    qn_error err = {0};
    write_domain("intel-rapl:0", "package-0\n", "900000000\n");
    write_domain("intel-rapl:0:0", "core\n", "1\n");
    write_domain("intel-rapl:0:1", "dram\n", "5\n");
    write_domain("intel-rapl:1", "psys\n", "7\n");
    assert_int_equal(meter_open_rapl(&rapl, folder, &err), QN_OK);
    assert_int_equal(meter_count(rapl), 2);
    const size_t package = strstr(meter_name(rapl, 0), "package-0") != NULL ? 0 : 1;
    assert_non_null(strstr(meter_name(rapl, 1 - package), "dram"));
    const double before_j = meter_read(rapl, package).energy_j;
    write_in("intel-rapl:0", "energy_uj", "100000000\n");
    assert_near(meter_read(rapl, package).energy_j - before_j, 200);
    write_in("intel-rapl:0", "energy_uj", "");
    assert_true(isnan(meter_read(rapl, package).energy_j));
    meter_close(&rapl);
    assert_null(rapl);

    energy_device device;
    energy_device_init(&device, "cpu");
    energy_add_counter(&device, 0, 10);
    energy_add_counter(&device, 1, 110);
    energy_add_counter(&device, 2, 310);
    energy_end(&device, 2);
    assert_near(device.energy_j, 300);
    assert_near(device.last_w, 200);
    remove_domain("intel-rapl:0");
    remove_domain("intel-rapl:0:0");
    remove_domain("intel-rapl:0:1");
    remove_domain("intel-rapl:1");
}

static void test_rapl_that_is_not_there_or_not_allowed(void **state)
{
    (void)state;
    power_meter *rapl = NULL;
    qn_error err = {0};
    char path[512];
    assert_int_equal(meter_open_rapl(&rapl, "no/such", &err), QN_E_DEVICE);
    assert_non_null(strstr(err.text, "RAPL: no/such is not there"));
    assert_int_equal(meter_open_rapl(&rapl, folder, &err), QN_E_DEVICE);
    assert_non_null(strstr(err.text, "no package"));
    write_domain("intel-rapl:0", "package-0\n", "1\n");
    (void)snprintf(path, sizeof path, "%s/intel-rapl:0/energy_uj", folder);
    assert_int_equal(unlink(path), 0); /* root reads what chmod() hides */
    assert_int_equal(meter_open_rapl(&rapl, folder, &err), QN_E_DEVICE);
    assert_non_null(strstr(err.text, "energy_uj: "));
    assert_null(rapl);
    remove_domain("intel-rapl:0");
}

static void test_nvml_reads_every_device(void **state)
{
    (void)state;
    power_meter *nvml = NULL;
    qn_error err = {0};
    fake_nvml_tell(0, 300000, 5000);
    fake_nvml_tell(1, 0, 6000);
    assert_int_equal(meter_open_nvml(&nvml, FAKE_NVML, &err), QN_OK);
    assert_int_equal(meter_count(nvml), 2);
    assert_string_equal(meter_source(nvml), "NVML: 2 x Fake H200");
    assert_string_equal(meter_name(nvml, 1), "1 Fake H200");
    assert_near(meter_read(nvml, 0).w, 300);
    assert_near(meter_read(nvml, 0).energy_j, 5);
    assert_true(isnan(meter_read(nvml, 1).w));
    assert_false(meter_counts(nvml));
    meter_close(&nvml);
    assert_int_equal(fake_nvml_count("fake_nvml_open_count"), 0);
    fake_nvml_refuse(9);
    assert_int_equal(meter_open_nvml(&nvml, FAKE_NVML, &err), QN_E_DEVICE);
    assert_non_null(strstr(err.text, "NVML: Driver Not Loaded"));
    fake_nvml_refuse(0);
    assert_int_equal(meter_open_nvml(&nvml, "no-such.so", &err), QN_E_DEVICE);
    assert_non_null(strstr(err.text, "NVML: no-such.so is not there"));
    assert_int_equal(meter_open_nvml(&nvml, "libutil.so.1", &err), QN_E_DEVICE);
    assert_non_null(strstr(err.text, "NVML: no function nvmlInit_v2"));
    assert_int_equal(fake_nvml_count("fake_nvml_open_count"), 0);
}

/* -------------------------------------------------------------------------------------- series */

static void test_a_long_series_is_thinned(void **state)
{
    (void)state;
    series *const rows = calloc(1, sizeof *rows);
    for (int i = 0; i < 100000; i++) {
        series_add(rows, (double[SERIES_COLUMNS]){i, 2.0 * i});
    }
    assert_true(rows->n > SERIES_ROWS_MAX / 2 && rows->n <= SERIES_ROWS_MAX);
    assert_int_equal(rows->stride, 64);
    for (size_t i = 0; i < rows->n; i++) {
        assert_true(rows->rows[i][0] == 64.0 * (double)i && rows->rows[i][1] == 128.0 * (double)i);
    }
    free(rows);
}

static qn_status read_some_file(qn_error *err)
{
    static series power;
    char path[320];
    energy_device *devices = NULL;
    size_t n = 0;
    power = (series){0};
    (void)snprintf(path, sizeof path, "%s/power.csv", folder);
    const qn_status status = energy_read_file(&devices, &n, &power, path, 1000, 4, err);
    free(devices);
    return status;
}

static void test_survives_failing_allocations(void **state)
{
    (void)state;
    json_decref(json_of_file("1000,1,a\n1002,1,a\n1004,1,b\n", 1000, 4));
    fail_each(read_some_file, 1, 3);
}

static int make_folder(void **state)
{
    (void)state;
    fake_nvml_load();
    (void)snprintf(folder, sizeof folder, "%s/tests/energy_XXXXXX", QN_BINARY_DIR);
    return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state)
{
    (void)state;
    char path[320];
    fake_nvml_unload();
    (void)snprintf(path, sizeof path, "%s/power.csv", folder);
    (void)unlink(path);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_trapezoids_of_two_devices),
        cmocka_unit_test(test_a_gap_makes_it_invalid),
        cmocka_unit_test(test_no_device_and_no_tokens),
        cmocka_unit_test(test_a_power_file_of_two_devices),
        cmocka_unit_test(test_a_power_file_of_nvidia_smi),
        cmocka_unit_test(test_faults_of_a_power_file_are_told),
        cmocka_unit_test(test_a_file_that_is_not_there_or_no_file),
        cmocka_unit_test(test_rapl_counts_packages_and_memory_and_wraps),
        cmocka_unit_test(test_rapl_that_is_not_there_or_not_allowed),
        cmocka_unit_test(test_nvml_reads_every_device),
        cmocka_unit_test(test_a_long_series_is_thinned),
        cmocka_unit_test(test_survives_failing_allocations),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}

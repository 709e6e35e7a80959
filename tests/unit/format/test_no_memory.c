/* SPDX-License-Identifier: Apache-2.0 */
/* Every allocation of opening a model fails once, and from then on: a status and nothing leaked
 * (the leak is LeakSanitizer's to find). */
#include "base/log.h"
#include "format/checkpoint.h"
#include "format/config.h"
#include "format/safetensors_writer.h"
#include "scratch.h"
#include "support/fail_each.h"

#define NANO QN_SOURCE_DIR "/models/glm-nano"

static qn_status open_nano(qn_error *err)
{
    qn_checkpoint *checkpoint = NULL;
    const qn_status status = qn_checkpoint_open(&checkpoint, NANO, err);
    qn_checkpoint_close(&checkpoint);
    return status;
}

static char g_dir[] = "/tmp/quern-test-XXXXXX";

/* Two shards without an index, so that the folder is listed. */
static qn_status open_found(qn_error *err)
{
    qn_checkpoint *checkpoint = NULL;
    const qn_status status = qn_checkpoint_open(&checkpoint, g_dir, err);
    qn_checkpoint_close(&checkpoint);
    return status;
}

static qn_status load_config(qn_error *err)
{
    qn_config config;
    qn_generation_config generation;
    const qn_status status = qn_config_load(&config, NANO "/config.json", err);
    return status < 0 ? status
                      : qn_generation_config_load(&generation, NANO "/generation_config.json",
                                                  config.n_vocab, err);
}

static qn_status write_file(qn_error *err)
{
    char path[64];
    static const uint64_t shape[] = {2};
    qn_safetensors_writer *writer = NULL;
    (void)snprintf(path, sizeof path, "%s/out", g_dir);
    qn_status status = qn_safetensors_writer_open(&writer, path, err);
    if (status == QN_OK) {
        status = qn_safetensors_writer_append(writer, "t", QN_DTYPE_U8, shape, 1, "ab", 1, err);
    }
    if (status == QN_OK) {
        status = qn_safetensors_writer_finish(writer, err);
    }
    qn_safetensors_writer_close(&writer);
    return status;
}

static void test_checkpoint_open_survives_every_failed_allocation(void **state)
{
    (void)state;
    fail_each(open_nano, 3, 1000);
}

static void test_small_loads_survive_every_failed_allocation(void **state)
{
    (void)state;
    fail_each(open_found, 1, 20);
    fail_each(load_config, 1, 50);
}

static void test_writer_survives_every_failed_allocation(void **state)
{
    (void)state;
    fail_each(write_file, 1, 10);
    assert_int_equal(scratch_count(g_dir), 3); /* two shards and what the last run finished */
}

static int make_shards(void **state)
{
    (void)state;
    size_t n_bytes = 0;
    scratch_make(g_dir);
    for (int i = 0; i < 2; i++) {
        char header[100];
        (void)snprintf(header, sizeof header,
                       "{\"t%d\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", i);
        uint8_t *const bytes = scratch_safetensors(header, 1, &n_bytes);
        scratch_write(g_dir, i == 0 ? "a.safetensors" : "b.safetensors", bytes, n_bytes);
        free(bytes);
    }
    qn_log_setup(QN_LOG_ERROR, false);
    return 0;
}

static int remove_shards(void **state)
{
    (void)state;
    scratch_remove(g_dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checkpoint_open_survives_every_failed_allocation),
        cmocka_unit_test(test_small_loads_survive_every_failed_allocation),
        cmocka_unit_test(test_writer_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, make_shards, remove_shards);
}

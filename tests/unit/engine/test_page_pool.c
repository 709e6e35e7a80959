/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/page_pool.h"
#include "support/unit.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Two layers, the second without an indexer, and room for a very long context. */
static qn_config two_layers(void)
{
    qn_config config = {.n_layers = 2, .n_mtp_layers = 1, .kv_rank = 512, .rope_dim = 64};
    config.index_dim = 128;
    config.is_index_full[0] = config.is_index_full[2] = true;
    return config;
}

/* Resident memory of this process in bytes. */
static uint64_t resident_bytes(void)
{
    unsigned long n_total = 0;
    unsigned long n_resident = 0;
    FILE *const file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%lu %lu", &n_total, &n_resident), 2);
    (void)fclose(file);
    return (uint64_t)n_resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void test_pages_cost_memory_only_when_used(void **state)
{
    (void)state;
    const qn_config config = two_layers();
    qn_page_pool pool;
    qn_error err = {0};
    const uint64_t before_bytes = resident_bytes();
    assert_int_equal(qn_page_pool_init(&pool, &config, NULL, QN_KV_F32, 1 << 14, false, &err),
                     QN_OK);
    assert_int_equal(pool.kv.n_pages, 1 << 14);
    assert_true(pool.kv.n_pages * pool.layout.page_bytes > (size_t)4 << 30);
    assert_true(resident_bytes() < before_bytes + ((uint64_t)64 << 20));
    qn_page_pool_deinit(&pool);
    assert_null(pool.kv.base);
}

static void test_pages_are_zero_and_all_writable(void **state)
{
    (void)state;
    const qn_config config = two_layers();
    qn_page_pool pool;
    qn_error err = {0};
    assert_int_equal(qn_page_pool_init(&pool, &config, NULL, QN_KV_FP8, 3, false, &err), QN_OK);
    assert_int_equal(pool.kv.n_pages, 3);
    /* Latents of two layers (656 bytes a row) and one bf16 index key; no row of the MTP layer. */
    assert_int_equal(pool.layout.page_bytes, QN_PAGE_TOKENS * (2 * 656 + 256));
    for (size_t i = 0; i < 3 * pool.layout.page_bytes; i++) {
        assert_int_equal(pool.kv.base[i], 0);
    }
    memset(pool.kv.base, 1, 3 * pool.layout.page_bytes);
    qn_page_pool_deinit(&pool);
}

static void test_pages_beyond_the_address_space_name_bytes_and_flag(void **state)
{
    (void)state;
    qn_config config = two_layers();
    config.n_layers = QN_LAYERS_MAX - 1;
    config.kv_rank = 1 << 16;
    qn_page_pool pool;
    qn_error err = {0};
    assert_int_equal(qn_page_pool_init(&pool, &config, NULL, QN_KV_F32, 1 << 21, false, &err),
                     QN_E_NOMEM);
    assert_non_null(strstr(err.text, "bytes"));
    assert_non_null(strstr(err.text, "--context"));
    qn_page_pool_deinit(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pages_cost_memory_only_when_used),
        cmocka_unit_test(test_pages_are_zero_and_all_writable),
        cmocka_unit_test(test_pages_beyond_the_address_space_name_bytes_and_flag),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* How many pages an engine takes of a GPU where nobody says: what its graphs leave room for. */
#include "api/internal.h"
#include "engine/executor.h"
#include "gpuengine/fixture.h"

enum { N_SEQUENCES = 4, N_STEP_ROWS = 72, STEP_BYTES = 1024 };

/* Pages of an engine while the device has so many bytes free. */
static uint64_t count_pages(qn_model *model, uint64_t free_bytes)
{
    const qn_engine_options options = {
        .n_sequences = N_SEQUENCES, .n_step_rows = N_STEP_ROWS, .no_mtp = true};
    qn_engine *engine = NULL;
    qn_error err = {0};
    fake_gpu.memory_bytes = fake_gpu_used_bytes() + free_bytes;
    if (qn_engine_open(&engine, model, &options, &err) != QN_OK) {
        fail_msg("%s", err.text);
    }
    const qn_engine_stats stats = qn_engine_get_stats(engine);
    qn_engine_close(&engine);
    return stats.n_pages_free;
}

static void test_pages_leave_room_for_graphs(void **state)
{
    (void)state;
    qn_model model = {.config = g_t.config,
                      .gpu = g_gpu,
                      .gpu_kernels = g_kernels,
                      .pool = g_t.pool,
                      .glm = g_t.glm,
                      .compute = QN_COMPUTE_BF16,
                      .kv_dtype = QN_KV_BF16};
    const qn_executor_options options = {.kv_dtype = QN_KV_BF16,
                                         .n_slots = N_SEQUENCES,
                                         .n_step_rows = N_STEP_ROWS,
                                         .n_context = model.config.n_context_max,
                                         .lag = 1,
                                         .captures_early = true};
    const uint64_t plenty = (uint64_t)2 << 30;
    const uint64_t n_wanted = count_pages(&model, plenty);
    assert_in_range(n_wanted, 2, 1000);
    /* The fewest bytes that are enough for all of them. */
    uint64_t n_bytes = plenty;
    for (uint64_t step = plenty / 2; step >= STEP_BYTES; step /= 2) {
        n_bytes -= count_pages(&model, n_bytes - step) == n_wanted ? step : 0;
    }
    qn_kv_layout layout;
    qn_kv_layout_init(&layout, &model.config, model.kv_dtype, false);
    const uint64_t steps_bytes = qn_executor_device_bytes(g_t.glm, &options);
    const uint64_t graph_bytes = qn_executor_graph_bytes(g_t.glm, &options);
    const uint64_t reserve_bytes = qn_gpu_get_info(g_gpu)->memory_bytes / 16;
    const uint64_t expected =
        reserve_bytes + steps_bytes + graph_bytes + n_wanted * layout.page_bytes;
    assert_true(graph_bytes > 100 * STEP_BYTES);
    assert_in_range(n_bytes, expected, expected + graph_bytes / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_pages_leave_room_for_graphs, open_model, close_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

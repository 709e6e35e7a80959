/* SPDX-License-Identifier: Apache-2.0 */
/* What an executor makes of steps is what each sequence is alone, bit for bit. */
#include "unit/engine/executor_world.h"

static world g_world;

/* Stories told by chance until each was told several times, cold, warm and interrupted. */
static void tell_all(const rig_options *options, uint32_t n_times)
{
    world *const w = &g_world;
    world_open(w, options);
    bool is_done = false;
    for (uint32_t i_step = 0; !is_done; i_step++) {
        assert_true(i_step < 5000);
        world_step(w);
        is_done = true;
        for (uint32_t i = 0; i < N_STORIES; i++) {
            is_done = is_done && w->tellings[i].n_told >= n_times;
        }
    }
    assert_true(w->n_hits > 0 && w->n_exchanged > 0);
    assert_true(w->n_preempted > 0 && w->n_mixed > 0);
    if (options->is_nano && !options->without_mtp) {
        assert_true(w->n_accepted > 20);
    }
    print_message("%u pages hit, %u exchanged, %u preempted, %u drafts accepted\n", w->n_hits,
                  w->n_exchanged, w->n_preempted, w->n_accepted);
    world_close(w);
}

static void test_executor_tells_the_story_of_each_sequence_alone(void **state)
{
    (void)state;
    tell_all(&(rig_options){QN_COMPUTE_F32, QN_KV_F32, .n_threads = 1}, 4);
    tell_all(&(rig_options){QN_COMPUTE_BF16, QN_KV_BF16, .n_threads = 2}, 4);
    tell_all(&(rig_options){QN_COMPUTE_BF16, QN_KV_FP8, .n_threads = 2, .has_own_sets = true}, 4);
    tell_all(&(rig_options){QN_COMPUTE_BF16, QN_KV_BF16, .n_threads = 2, .without_mtp = true}, 4);
}

static void test_executor_tells_the_stories_of_glm_nano(void **state)
{
    (void)state;
    tell_all(&(rig_options){QN_COMPUTE_BF16, QN_KV_BF16, .n_threads = 2, .is_nano = true}, 3);
    tell_all(&(rig_options){QN_COMPUTE_BF16, QN_KV_FP8, .n_threads = 2, .is_nano = true}, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_executor_tells_the_story_of_each_sequence_alone),
        cmocka_unit_test(test_executor_tells_the_stories_of_glm_nano),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

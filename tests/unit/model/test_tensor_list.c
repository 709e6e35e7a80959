/* SPDX-License-Identifier: Apache-2.0 */
/* The explicit tensor list against the published counts of the real checkpoints. */
#include "model/glm.h"
#include "model/weights.h"
#include "support/unit.h"

#include <string.h>

typedef struct tally {
    uint64_t n_tensors, n_elements, n_bias_elements;
} tally;

static qn_status count(void *context, const qn_tensor_spec *spec, qn_error *err)
{
    (void)err;
    tally *t = context;
    t->n_tensors++;
    const uint64_t n = (uint64_t)spec->n_out * (spec->n_in > 0 ? spec->n_in : 1);
    if (spec->role == QN_ROLE_ROUTER_BIAS) {
        t->n_bias_elements += n;
    } else {
        t->n_elements += n;
    }
    return QN_OK;
}

static tally tally_of(const char *path, bool with_mtp)
{
    qn_config config;
    qn_weights weights;
    qn_error err = {0};
    tally t = {0};
    assert_int_equal(qn_config_load(&config, path, &err), QN_OK);
    assert_int_equal(qn_weights_init(&weights, &config, with_mtp, &err), QN_OK);
    assert_int_equal(qn_tensor_list_walk(&config, &weights, count, &t, &err), QN_OK);
    qn_weights_deinit(&weights);
    return t;
}

/* model.md 4.6 and 4.7: counted in the headers of the published checkpoint. */
static void test_glm52_has_the_published_tensors_and_parameters(void **state)
{
    (void)state;
    const tally all = tally_of(QN_SOURCE_DIR "/configs/glm-5.2/config.json", true);
    assert_int_equal(all.n_tensors, 59585);
    assert_int_equal(all.n_elements, 753329921024ULL);
    assert_int_equal(all.n_bias_elements, 19456);
    const tally trunk = tally_of(QN_SOURCE_DIR "/configs/glm-5.2/config.json", false);
    assert_int_equal(trunk.n_tensors, 58794);
    assert_int_equal(trunk.n_elements, 743377000704ULL);
}

static void test_glm5_has_the_published_parameters(void **state)
{
    (void)state;
    const tally all = tally_of(QN_SOURCE_DIR "/configs/glm-5/config.json", true);
    assert_int_equal(all.n_elements, 753864119552ULL);
}

/* Bytes of one page for GLM-5.2 (model.md 2.3): 64 positions of 78 + 1 latent rows and 21 + 1
 * index keys. */
static void test_page_bytes_follow_the_component_table(void **state)
{
    (void)state;
    qn_config config;
    qn_kv_layout layout;
    qn_error err = {0};
    assert_int_equal(qn_config_load(&config, QN_SOURCE_DIR "/configs/glm-5.2/config.json", &err),
                     QN_OK);
    qn_kv_layout_init(&layout, &config, QN_KV_BF16, false);
    assert_int_equal(layout.page_bytes, 64 * (89856 + 21 * 256));
    qn_kv_layout_init(&layout, &config, QN_KV_FP8, true);
    assert_int_equal(layout.page_bytes, 64 * (79 * 656 + 22 * 256) + 6144 * 4);
    assert_int_equal(layout.index_of[3], -1);
    assert_int_equal(layout.components[layout.index_of[6]].i_layer, 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_glm52_has_the_published_tensors_and_parameters),
        cmocka_unit_test(test_glm5_has_the_published_parameters),
        cmocka_unit_test(test_page_bytes_follow_the_component_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

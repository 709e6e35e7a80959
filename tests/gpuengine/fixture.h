/* SPDX-License-Identifier: Apache-2.0 */
/** @file fixture.h  A tiny model on an emulated GPU, or on one of this machine. */
#ifndef QN_TEST_GPUENGINE_FIXTURE_H
#define QN_TEST_GPUENGINE_FIXTURE_H
#include "support/emulated_gpu.h"
#include "support/fake_gpu.h"
#include "unit/model/fixture.h"

enum { N_ROWS = 72, N_VOCAB = 96 };

static const char *g_device_name; /* NULL: emulated */
static bool g_is_free;            /* of the model that is opened next: not deterministic */
static qn_gpu *g_gpu;
static qn_gpu_kernels *g_kernels;
static tiny g_t;

static int open_model(void **state)
{
    (void)state;
    qn_error err = {0};
    qn_config config = tiny_config();
    config.n_layers = 2; /* whole pieces of 16 bytes, and one layer of each kind */
    config.n_vocab = N_VOCAB;
    config.v_dim = 24;
    config.kv_rank = 48;
    config.n_experts = 3;
    config.n_experts_used = 2;
    config.is_index_full[1] = false;
    config.is_index_full[2] = true;
    qn_status status = g_device_name != NULL ? qn_gpu_open(&g_gpu, g_device_name, &err)
                                             : emulated_gpu_open(&g_gpu, &err);
    if (status == QN_OK) {
        status =
            g_device_name != NULL
                ? qn_gpu_kernels_open(&g_kernels, g_gpu, qn_gpu_modules, qn_gpu_n_modules, &err)
                : qn_gpu_kernels_open(&g_kernels, g_gpu, &emulated_module, 1, &err);
    }
    if (status < 0) {
        fail_msg("%s", err.text);
    }
    qn_glm_options options = tiny_prepare(&g_t, &config, 1, N_ROWS, QN_KV_BF16);
    options.compute = QN_COMPUTE_BF16;
    options.gpu = g_gpu;
    options.gpu_kernels = g_kernels;
    options.is_deterministic = !g_is_free;
    if (qn_glm_open_dummy(&g_t.glm, &g_t.config, 7, &options, &err) < 0) {
        fail_msg("%s", err.text);
    }
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    tiny_close(&g_t);
    qn_gpu_kernels_close(&g_kernels);
    qn_gpu_close(&g_gpu);
    assert_string_equal(fake_gpu_problem(), "");
    assert_int_equal(fake_gpu_used_bytes(), 0);
    return 0;
}
#endif

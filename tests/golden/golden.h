/* SPDX-License-Identifier: Apache-2.0 */
/** @file golden.h  Golden files and a model with a cache to hold against them (docs/testing.md). */
#ifndef QN_TEST_GOLDEN_H
#define QN_TEST_GOLDEN_H
#include "base/cpu.h"
#include "format/checkpoint.h"
#include "model/glm.h"
#include "support/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GOLDEN_CHUNK = 256, GOLDEN_DUMMY_SEED = 7 };

/** A model, its cache of one sequence, and its f32 golden file. */
typedef struct golden {
    char name[64];
    qn_config config;
    qn_kernels kernels;
    qn_pool *pool;
    qn_checkpoint *checkpoint; /**< NULL for dummy weights. */
    qn_glm *glm;
    qn_kv_layout layout;
    qn_kv kv;
    int32_t *pages;
    qn_safetensors *file;
} golden;

static inline void golden_must(qn_status status, const qn_error *err)
{
    if (status != QN_OK) {
        fail_msg("%s", err->text);
    }
}

static inline const qn_tensor *golden_tensor(const golden *g, const char *name)
{
    for (size_t i = 0; i < qn_safetensors_count(g->file); i++) {
        const qn_tensor *tensor = qn_safetensors_get(g->file, i);
        if (qn_str_equal(tensor->name, qn_str_of(name))) {
            return tensor;
        }
    }
    (void)fprintf(stderr, "%s: no tensor %s\n", g->name, name);
    abort(); /* the file and the test do not belong together */
}

/** Data of a tensor; the writer aligns 4-byte types. */
static inline const int32_t *golden_i32(const golden *g, const char *name)
{
    const qn_tensor *tensor = golden_tensor(g, name);
    assert_int_equal(tensor->dtype, QN_DTYPE_I32);
    return (const int32_t *)(const void *)tensor->data;
}

static inline const float *golden_f32(const golden *g, const char *name)
{
    const qn_tensor *tensor = golden_tensor(g, name);
    assert_int_equal(tensor->dtype, QN_DTYPE_F32);
    return (const float *)(const void *)tensor->data;
}

/** Open glm-nano's weights, or dummy ones for a folder that holds only config.json. */
static inline void golden_open(golden *g, const char *model_dir, bool is_dummy, const char *file,
                               uint32_t n_positions)
{
    char path[512];
    qn_error err = {0};
    *g = (golden){0};
    (void)snprintf(g->name, sizeof g->name, "%s", file);
    (void)snprintf(path, sizeof path, "%s/config.json", model_dir);
    golden_must(qn_config_load(&g->config, path, &err), &err);
    (void)snprintf(path, sizeof path, "%s/tests/golden/%s", QN_SOURCE_DIR, file);
    golden_must(qn_safetensors_open(&g->file, path, &err), &err);
    qn_kernels_init(&g->kernels, qn_cpu_flags());
    golden_must(qn_pool_open(&g->pool, 0, &err), &err);
    const qn_glm_options options = {.kernels = &g->kernels,
                                    .pool = g->pool,
                                    .compute = QN_COMPUTE_F32,
                                    .n_rows_max = GOLDEN_CHUNK};
    if (is_dummy) {
        golden_must(qn_glm_open_dummy(&g->glm, &g->config, GOLDEN_DUMMY_SEED, &options, &err),
                    &err);
    } else {
        golden_must(qn_checkpoint_open(&g->checkpoint, model_dir, &err), &err);
        golden_must(qn_glm_open(&g->glm, &g->config, g->checkpoint, &options, &err), &err);
    }
    qn_kv_layout_init(&g->layout, &g->config, QN_KV_F32, true);
    const uint32_t n_pages = n_positions / QN_PAGE_TOKENS + 1;
    g->kv = (qn_kv){
        .layout = &g->layout, .base = malloc(n_pages * g->layout.page_bytes), .n_pages = n_pages};
    g->pages = malloc(n_pages * sizeof *g->pages);
    assert_non_null(g->kv.base);
    assert_non_null(g->pages);
    for (uint32_t i = 0; i < n_pages; i++) {
        g->pages[i] = (int32_t)(n_pages - 1 - i); /* any order must do */
    }
}

static inline void golden_close(golden *g)
{
    free(g->kv.base);
    free(g->pages);
    qn_glm_close(&g->glm);
    qn_checkpoint_close(&g->checkpoint);
    qn_pool_close(&g->pool);
    qn_safetensors_close(&g->file);
}
#endif

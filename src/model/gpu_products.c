/* SPDX-License-Identifier: Apache-2.0 */
#include "model/gpu_products.h"

#include "base/assert.h"
#include "model/internal.h"

typedef struct list {
    qn_gpu_product *products; /* [QN_GPU_PRODUCTS_MAX] */
    uint32_t n;
    const qn_gpu_glm *g;
} list;

static bool is_same(const qn_gpu_matmul_shape *a, const qn_gpu_matmul_shape *b)
{
    return a->kind == b->kind && a->n_out == b->n_out && a->n_in == b->n_in &&
           a->is_pair == b->is_pair && a->n_groups == b->n_groups && a->is_grouped == b->is_grouped;
}

static void add(void *context, qn_gpu_weight *w, uint32_t n_groups, bool is_grouped)
{
    list *const to = context;
    const qn_gpu_matmul_shape shape = qn_gpu_glm_shape(to->g, w, n_groups, is_grouped, 1);
    uint32_t i = 0;
    while (i < to->n && !is_same(&to->products[i].shape, &shape)) {
        i++;
    }
    if (i == to->n) {
        QN_ASSERT(i < QN_GPU_PRODUCTS_MAX);
        to->products[to->n++] = (qn_gpu_product){.shape = shape};
    }
    to->products[i].n_uses++;
}

static uint32_t list_all(qn_gpu_product *out, qn_gpu_glm *g)
{
    list to = {.products = out, .g = g};
    qn_gpu_glm_each(g, add, &to);
    return to.n;
}

uint32_t qn_gpu_list_products(qn_gpu_product out[QN_GPU_PRODUCTS_MAX], const qn_glm *model)
{
    return list_all(out, model->gpu);
}

qn_status qn_gpu_list_stored_products(qn_gpu_product out[QN_GPU_PRODUCTS_MAX], uint32_t *n,
                                      const qn_config *config, const qn_checkpoint *checkpoint,
                                      const qn_weight_kind *experts, const qn_glm_options *options,
                                      qn_error *err)
{
    const bool has_mtp =
        checkpoint != NULL ? qn_finds_mtp(config, checkpoint) : config->n_mtp_layers > 0;
    qn_gpu_glm *g = NULL;
    *n = 0;
    qn_status status = qn_gpu_glm_open(&g, config, options, has_mtp, err);
    if (status == QN_OK) {
        status = qn_gpu_glm_plan(g, checkpoint, options->rules, experts, err);
    }
    if (status == QN_OK) {
        *n = list_all(out, g);
    }
    qn_gpu_glm_close(&g);
    return status;
}

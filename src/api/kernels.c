/* SPDX-License-Identifier: Apache-2.0 */
/* Which kernels serve an open model. */
#include "api/internal.h"
#include "base/cpu.h"

/* Where choices go. */
typedef struct list {
    qn_kernel_choice *out; /* [n_max] */
    size_t n_max, n;
    const qn_model *model;
    bool has_mtp;
} list;

static void put(list *to, const char *operation, const char *weights, const char *variant,
                bool is_fallback, qn_kernel_choice shape)
{
    qn_kernel_choice *const choice = to->n < to->n_max ? &to->out[to->n] : NULL;
    to->n++;
    if (choice == NULL) {
        return;
    }
    *choice = shape;
    (void)snprintf(choice->operation, sizeof choice->operation, "%s", operation);
    (void)snprintf(choice->weights, sizeof choice->weights, "%s", weights);
    (void)snprintf(choice->variant, sizeof choice->variant, "%s", variant);
    (void)snprintf(choice->source, sizeof choice->source, "%s",
                   is_fallback ? "fallback" : "default");
}

static void add(list *to, const char *operation, const char *weights, qn_kernel_class class,
                qn_kernel_choice shape)
{
    if (to->model->gpu != NULL) {
        put(to, operation, weights, to->model->info.kernels, false, shape);
        return;
    }
    const char *const level = qn_kernels_level_of(class, to->model->cpu_flags);
    const char *const best = qn_kernels_level_of(class, qn_cpu_flags()); /* without a mask */
    put(to, operation, weights, level, strcmp(level, "ref") == 0 || strcmp(level, best) != 0,
        shape);
}

/* A product on a GPU: the variant that one row gets. */
static void add_gpu_product(list *to, const char *kind, const qn_glm_product *p,
                            qn_kernel_choice choice)
{
    const qn_model *const m = to->model;
    const qn_gpu_matmul_shape shape = {.kind = qn_gpu_weight_kind(p->kind),
                                       .n_out = p->n_out,
                                       .n_in = p->n_in,
                                       .n_groups = p->is_of_expert ? m->config.n_experts : 1,
                                       .n_rows = p->is_of_expert ? m->config.n_experts_used : 1,
                                       .is_grouped = p->is_of_expert,
                                       .is_deterministic = true};
    const uint32_t i_variant = qn_gpu_matmul_choose(m->gpu_kernels, &shape);
    put(to, p->is_of_expert ? "moe" : "matmul", kind, qn_gpu_matmul_variants[i_variant].name,
        i_variant == 0, choice);
}

static void add_products(list *to, const qn_glm_product *products, uint32_t n_products)
{
    static const char *const kinds[] = {
        [QN_WEIGHT_F32] = "f32",         [QN_WEIGHT_BF16] = "bf16",   [QN_WEIGHT_FP8_BLOCK] = "fp8",
        [QN_WEIGHT_FP8_CHANNEL] = "fp8", [QN_WEIGHT_MXFP4] = "mxfp4",
    };
    static const qn_kernel_class classes[] = {
        [QN_ACT_F32] = QN_KERNEL_MATMUL_F32,
        [QN_ACT_BF16] = QN_KERNEL_MATMUL_BF16,
        [QN_ACT_INT8] = QN_KERNEL_MATMUL_INT8,
    };
    for (uint32_t i = 0; i < n_products; i++) {
        const qn_glm_product *const p = &products[i];
        const qn_kernel_choice shape = {.n_in = p->n_in, .n_out = p->n_out, .n_uses = p->n_uses};
        if (to->model->gpu != NULL) {
            add_gpu_product(to, kinds[p->kind], p, shape);
        } else {
            add(to, p->is_of_expert ? "moe" : "matmul", kinds[p->kind],
                classes[qn_act_of(p->kind, to->model->compute)], shape);
        }
    }
}

/* What has no weights, or a vector of them. */
static void add_others(list *to)
{
    const qn_model *const m = to->model;
    const qn_config *const c = &m->config;
    const uint32_t n_layers = c->n_layers + (to->has_mtp ? 1 : 0);
    const bool is_rounded = m->compute != QN_COMPUTE_F32 && m->kv_dtype == QN_KV_BF16;
    const qn_kernel_class rows = is_rounded ? QN_KERNEL_ROUNDED_ROWS : QN_KERNEL_OTHER;
    uint32_t n_full = 0;
    uint32_t n_sparse = 0;
    for (uint32_t i = 0; i < n_layers; i++) {
        n_full += c->is_index_full[i] ? 1 : 0;
        n_sparse += c->is_dense[i] ? 0 : 1;
    }
    add(to, "mla", m->info.kv_dtype, rows,
        (qn_kernel_choice){.n_in = c->kv_rank + c->rope_dim, .n_uses = n_layers});
    if (n_full > 0) {
        add(to, "indexer", m->info.kv_dtype, rows,
            (qn_kernel_choice){.n_in = c->index_dim, .n_uses = n_full});
        add(to, "top-k", "f32", QN_KERNEL_OTHER,
            (qn_kernel_choice){.n_out = c->index_topk, .n_uses = n_full});
    }
    if (n_sparse > 0) {
        add(to, "router", "f32", QN_KERNEL_OTHER,
            (qn_kernel_choice){
                .n_in = c->n_experts, .n_out = c->n_experts_used, .n_uses = n_sparse});
    }
    add(to, "norm", "f32", QN_KERNEL_OTHER, (qn_kernel_choice){.n_in = c->n_embd});
    add(to, "activations", "f32", QN_KERNEL_PREPARE, (qn_kernel_choice){.n_in = c->n_embd});
    add(to, "sample", "f32", QN_KERNEL_OTHER, (qn_kernel_choice){.n_in = c->n_vocab});
}

size_t qn_list_kernels(qn_kernel_choice *out, size_t n_max, const qn_model *model,
                       const qn_glm_product *products, uint32_t n_products, bool has_mtp)
{
    list choices = {.out = out, .n_max = n_max, .model = model, .has_mtp = has_mtp};
    add_products(&choices, products, n_products);
    add_others(&choices);
    return choices.n;
}

size_t qn_model_kernels(qn_kernel_choice *out, size_t n_max, const qn_model *model)
{
    qn_glm_product products[QN_GLM_PRODUCTS_MAX];
    if (model->glm == NULL) {
        return 0;
    }
    const uint32_t n_products = qn_glm_list_products(products, model->glm);
    return qn_list_kernels(out, n_max, model, products, n_products, model->info.has_mtp);
}

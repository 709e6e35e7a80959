/* SPDX-License-Identifier: Apache-2.0 */
/* Which kernels serve an open model. */
#include "api/internal.h"
#include "base/cpu.h"
#include "model/gpu_products.h"

/* Where choices go. */
typedef struct list {
    qn_kernel_choice *out; /* [n_max] */
    size_t n_max, n;
    const qn_model *model;
    bool has_mtp;
} list;

static void put(list *to, const char *operation, const char *weights, const char *variant,
                const char *source, qn_kernel_choice shape)
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
    (void)snprintf(choice->source, sizeof choice->source, "%s", source);
}

static void add(list *to, const char *operation, const char *weights, qn_kernel_class class,
                qn_kernel_choice shape)
{
    if (to->model->gpu != NULL) {
        put(to, operation, weights, to->model->info.kernels, "default", shape);
        return;
    }
    const char *const level = qn_kernels_level_of(class, to->model->cpu_flags);
    const char *const best = qn_kernels_level_of(class, qn_cpu_flags()); /* without a mask */
    const bool is_fallback = strcmp(level, "ref") == 0 || strcmp(level, best) != 0;
    put(to, operation, weights, level, is_fallback ? "fallback" : "default", shape);
}

/* ------------------------------------------------------------------------------------ on GPUs --
 */

/* More rows than this no step has. */
enum { STEP_ROWS_MAX = 8192 };

/* What is chosen for a step of so many rows, of an operation with its shape. */
typedef qn_gpu_choice choose_fn(const qn_model *model, const void *shape, uint32_t n_rows);

static bool is_alike(qn_gpu_choice a, qn_gpu_choice b)
{
    return a.i_variant == b.i_variant && a.source == b.source;
}

/* The last number of rows from @p n_rows on, below @p n_other, that gets what @p n_rows gets. */
static uint32_t last_alike(const qn_model *model, choose_fn *choose, const void *shape,
                           uint32_t n_rows, uint32_t n_other)
{
    const qn_gpu_choice choice = choose(model, shape, n_rows);
    while (n_other - n_rows > 1) {
        const uint32_t n = n_rows + (n_other - n_rows) / 2;
        if (is_alike(choose(model, shape, n), choice)) {
            n_rows = n;
        } else {
            n_other = n;
        }
    }
    return n_rows;
}

/* An entry for each range of rows that gets one variant from one source; rules may end anywhere. */
static void put_ranges(list *to, qn_kernel_choice entry, const char *operation, const char *weights,
                       const char *(*name_of)(uint32_t i_variant), choose_fn *choose,
                       const void *shape)
{
    static const char *const sources[] = {
        [QN_GPU_TUNED] = "tuned", [QN_GPU_DEFAULT] = "default", [QN_GPU_FALLBACK] = "fallback"};
    qn_gpu_choice now = choose(to->model, shape, 1);
    bool is_first = true;
    for (uint32_t n_rows = 2; n_rows <= STEP_ROWS_MAX; n_rows *= 2) {
        const qn_gpu_choice next = choose(to->model, shape, n_rows);
        if (!is_alike(next, now)) {
            entry.n_rows = last_alike(to->model, choose, shape, n_rows / 2, n_rows);
            put(to, operation, weights, name_of(now.i_variant), sources[now.source], entry);
            is_first = false;
        }
        now = next;
    }
    entry.n_rows = is_first ? 0 : UINT32_MAX;
    put(to, operation, weights, name_of(now.i_variant), sources[now.source], entry);
}

static const char *product_name(uint32_t i_variant)
{
    return qn_gpu_matmul_variants[i_variant].name;
}

static qn_gpu_choice choose_product(const qn_model *model, const void *shape, uint32_t n_rows)
{
    qn_gpu_matmul_shape at = *(const qn_gpu_matmul_shape *)shape;
    at.n_rows *= n_rows;
    return qn_gpu_matmul_choose(model->gpu_kernels, &at);
}

static void add_gpu_products(list *to)
{
    static const char *const kinds[] = {
        [QN_GPU_W_BF16] = "bf16", [QN_GPU_W_FP8] = "fp8", [QN_GPU_W_MXFP4] = "mxfp4"};
    qn_gpu_product products[QN_GPU_PRODUCTS_MAX];
    const uint32_t n = qn_gpu_list_products(products, to->model->glm);
    for (uint32_t i = 0; i < n; i++) {
        const qn_gpu_matmul_shape *const s = &products[i].shape;
        const qn_kernel_choice entry = {.n_in = s->n_in,
                                        .n_out = s->n_out,
                                        .n_groups = s->n_groups > 1 ? s->n_groups : 0,
                                        .n_uses = products[i].n_uses,
                                        .is_pair = s->is_pair != 0};
        put_ranges(to, entry, s->is_grouped ? "moe" : "matmul", kinds[s->kind], product_name,
                   choose_product, s);
    }
}

static const char *attend_name(uint32_t i_variant)
{
    return qn_gpu_attend_variants[i_variant].name;
}

static qn_gpu_choice choose_attend(const qn_model *model, const void *shape, uint32_t n_rows)
{
    qn_gpu_attend_args at = *(const qn_gpu_attend_args *)shape;
    at.n_rows = n_rows;
    return qn_gpu_attend_choose(model->gpu_kernels, &at);
}

static const char *index_name(uint32_t i_variant)
{
    return qn_gpu_index_scores_variants[i_variant].name;
}

static qn_gpu_choice choose_index(const qn_model *model, const void *shape, uint32_t n_rows)
{
    qn_gpu_index_scores_args at = *(const qn_gpu_index_scores_args *)shape;
    at.n_rows = n_rows;
    return qn_gpu_index_scores_choose(model->gpu_kernels, &at);
}

static void add_gpu_attention(list *to, qn_kernel_choice mla, qn_kernel_choice indexer)
{
    const qn_config *const c = &to->model->config;
    const bool is_fp8 = to->model->kv_dtype == QN_KV_FP8;
    const uint32_t longest = c->index_topk < c->n_context_max ? c->index_topk : c->n_context_max;
    const qn_gpu_attend_args attend = {
        .kv = {.dtype = is_fp8 ? QN_GPU_KV_FP8 : QN_GPU_KV_BF16,
               .row_bytes = qn_kv_row_bytes(to->model->kv_dtype, c->kv_rank, c->rope_dim),
               .latent_dim = c->kv_rank,
               .rope_dim = c->rope_dim},
        .n_heads = c->n_heads,
        .n_splits = (longest + QN_GPU_ATTEND_SPLIT - 1) / QN_GPU_ATTEND_SPLIT,
    };
    const qn_gpu_index_scores_args index = {
        .keys = {.dtype = QN_GPU_KV_BF16,
                 .row_bytes = 2 * c->index_dim,
                 .latent_dim = c->index_dim},
        .n_heads = c->n_index_heads,
    };
    put_ranges(to, mla, "mla", to->model->info.kv_dtype, attend_name, choose_attend, &attend);
    if (indexer.n_uses > 0) {
        put_ranges(to, indexer, "indexer", "bf16", index_name, choose_index, &index);
    }
}

/* ---------------------------------------------------------------------------------------- all --
 */

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
        add(to, p->is_of_expert ? "moe" : "matmul", kinds[p->kind],
            classes[qn_act_of(p->kind, to->model->compute)],
            (qn_kernel_choice){.n_in = p->n_in, .n_out = p->n_out, .n_uses = p->n_uses});
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
    const qn_kernel_choice mla = {
        .n_in = c->kv_rank + c->rope_dim, .n_out = c->n_heads, .n_uses = n_layers};
    const qn_kernel_choice indexer = {
        .n_in = c->index_dim, .n_out = c->n_index_heads, .n_uses = n_full};
    if (m->gpu != NULL) {
        add_gpu_attention(to, mla, indexer);
    } else {
        add(to, "mla", m->info.kv_dtype, rows, mla);
    }
    if (n_full > 0) {
        if (m->gpu == NULL) {
            add(to, "indexer", m->info.kv_dtype, rows, indexer);
        }
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
    if (model->gpu != NULL) {
        add_gpu_products(&choices);
    } else {
        add_products(&choices, products, n_products);
    }
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

/* SPDX-License-Identifier: Apache-2.0 */
/* What products a model's passes are made of. */
#include "base/assert.h"
#include "model/internal.h"

typedef struct list {
    qn_glm_product *products; /* [QN_GLM_PRODUCTS_MAX] */
    uint32_t n;
} list;

/* One matrix more; those that a layer lacks are all zero. */
static void add(list *to, const qn_packed *w, bool is_of_expert)
{
    if (w->data == NULL) {
        return;
    }
    uint32_t i = 0;
    while (i < to->n &&
           !(to->products[i].kind == w->kind && to->products[i].n_in == w->n_in &&
             to->products[i].n_out == w->n_out && to->products[i].is_of_expert == is_of_expert)) {
        i++;
    }
    if (i == to->n) {
        QN_ASSERT(i < QN_GLM_PRODUCTS_MAX);
        to->products[to->n++] = (qn_glm_product){
            .kind = w->kind, .n_in = w->n_in, .n_out = w->n_out, .is_of_expert = is_of_expert};
    }
    to->products[i].n_uses++;
}

static void add_mlp(list *to, const qn_mlp_weights *mlp, bool is_of_expert)
{
    add(to, &mlp->gate, is_of_expert);
    add(to, &mlp->up, is_of_expert);
    add(to, &mlp->down, is_of_expert);
}

static void add_layer(list *to, const qn_config *c, const qn_layer_weights *l)
{
    const qn_packed *const matrices[] = {&l->q_a,     &l->q_b,     &l->kv_a,    &l->o,
                                         &l->index_q, &l->index_k, &l->index_w, &l->router};
    for (size_t i = 0; i < sizeof matrices / sizeof matrices[0]; i++) {
        add(to, matrices[i], false);
    }
    for (uint32_t i = 0; i < c->n_heads; i++) {
        add(to, &l->heads[i].key, false);
        add(to, &l->heads[i].value, false);
    }
    add_mlp(to, &l->mlp, false);
    for (uint32_t i = 0; l->experts != NULL && i < c->n_experts; i++) {
        add_mlp(to, &l->experts[i], true);
    }
}

static uint32_t list_all(qn_glm_product *out, const qn_config *config, const qn_weights *w)
{
    const uint32_t n_layers = config->n_layers + (w->has_mtp ? 1 : 0);
    list products = {.products = out};
    for (uint32_t i = 0; i < n_layers; i++) {
        add_layer(&products, config, &w->layers[i]);
    }
    add(&products, &w->eh_proj, false);
    add(&products, &w->lm_head, false);
    return products.n;
}

uint32_t qn_glm_list_products(qn_glm_product out[QN_GLM_PRODUCTS_MAX], const qn_glm *model)
{
    return list_all(out, &model->config, &model->weights);
}

/* Shapes without bytes. */
typedef struct shaping {
    const qn_config *config;
    qn_weight_kind kind, expert_kind;
} shaping;

static qn_packed shape(qn_weight_kind kind, uint32_t n_out, uint32_t n_in)
{
    static const uint8_t there; /* no matrix without an address is there */
    return (qn_packed){.kind = kind, .n_out = n_out, .n_in = n_in, .data = &there};
}

static qn_status shape_tensor(void *context, const qn_tensor_spec *spec, qn_error *err)
{
    const shaping *const s = context;
    const qn_config *const c = s->config;
    (void)err;
    if (spec->matrix != NULL) {
        const bool is_of_expert = strstr(spec->name, ".experts.") != NULL ||
                                  strstr(spec->name, ".shared_experts.") != NULL;
        *spec->matrix = shape(is_of_expert ? s->expert_kind : s->kind, spec->n_out, spec->n_in);
    }
    for (uint32_t i = 0; spec->heads != NULL && i < c->n_heads; i++) {
        spec->heads[i].key = shape(s->kind, c->kv_rank, c->nope_dim);
        spec->heads[i].value = shape(s->kind, c->v_dim, c->kv_rank);
    }
    return QN_OK;
}

qn_status qn_glm_list_config_products(qn_glm_product out[QN_GLM_PRODUCTS_MAX], uint32_t *n,
                                      const qn_config *config, qn_weight_kind kind,
                                      qn_weight_kind expert_kind, qn_error *err)
{
    shaping s = {config, kind, expert_kind};
    qn_weights weights = {0};
    qn_status status = qn_weights_init(&weights, config, config->n_mtp_layers > 0, err);
    if (status == QN_OK) {
        status = qn_tensor_list_walk(config, &weights, shape_tensor, &s, err);
    }
    if (status == QN_OK) {
        *n = list_all(out, config, &weights);
    }
    qn_weights_deinit(&weights);
    return status;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "base/assert.h"
#include "base/try.h"
#include "model/weights.h"

#include <stdio.h>

/* Where the walk is: the prefix of names and the visitor. */
typedef struct walk {
    const qn_config *config;
    qn_tensor_visit_fn *fn;
    void *context;
    qn_error *err;
    char prefix[80]; /* "model.layers.N." while in a layer */
} walk;

static qn_status visit(const walk *w, const char *name, qn_tensor_spec spec)
{
    const int n = snprintf(spec.name, sizeof spec.name, "%s%s", w->prefix, name);
    QN_ASSERT(n > 0 && (size_t)n < sizeof spec.name);
    return w->fn(w->context, &spec, w->err);
}

static qn_status matrix(const walk *w, const char *name, qn_packed *to, uint32_t n_out,
                        uint32_t n_in)
{
    return visit(
        w, name,
        (qn_tensor_spec){.role = QN_ROLE_MATRIX, .n_out = n_out, .n_in = n_in, .matrix = to});
}

static qn_status norm(const walk *w, const char *name, const float **to, uint32_t n)
{
    return visit(w, name, (qn_tensor_spec){.role = QN_ROLE_NORM, .n_out = n, .vector = to});
}

static qn_status walk_mlp(const walk *w, const char *name, qn_mlp_weights *to, uint32_t n_ff)
{
    static const char *const parts[3] = {"gate_proj.weight", "up_proj.weight", "down_proj.weight"};
    const uint32_t n_embd = w->config->n_embd;
    char full[64];
    qn_status status = QN_OK;
    for (int i = 0; i < 3; i++) {
        (void)snprintf(full, sizeof full, "mlp.%s%s", name, parts[i]);
        qn_packed *matrix_to = i == 0 ? &to->gate : i == 1 ? &to->up : &to->down;
        QN_TRY(status, matrix(w, full, matrix_to, i == 2 ? n_embd : n_ff, i == 2 ? n_ff : n_embd),
               fail);
    }
fail:
    return status;
}

static qn_status walk_attention(const walk *w, qn_layer_weights *l)
{
    const qn_config *c = w->config;
    const uint32_t qk_dim = c->nope_dim + c->rope_dim;
    qn_status status = QN_OK;
    QN_TRY(status, norm(w, "input_layernorm.weight", &l->input_norm, c->n_embd), fail);
    QN_TRY(status, norm(w, "post_attention_layernorm.weight", &l->post_norm, c->n_embd), fail);
    QN_TRY(status, matrix(w, "self_attn.q_a_proj.weight", &l->q_a, c->q_rank, c->n_embd), fail);
    QN_TRY(status, norm(w, "self_attn.q_a_layernorm.weight", &l->q_a_norm, c->q_rank), fail);
    QN_TRY(status, matrix(w, "self_attn.q_b_proj.weight", &l->q_b, c->n_heads * qk_dim, c->q_rank),
           fail);
    QN_TRY(status,
           matrix(w, "self_attn.kv_a_proj_with_mqa.weight", &l->kv_a, c->kv_rank + c->rope_dim,
                  c->n_embd),
           fail);
    QN_TRY(status, norm(w, "self_attn.kv_a_layernorm.weight", &l->kv_a_norm, c->kv_rank), fail);
    QN_TRY(status,
           visit(w, "self_attn.kv_b_proj.weight",
                 (qn_tensor_spec){.role = QN_ROLE_KV_B,
                                  .n_out = c->n_heads * (c->nope_dim + c->v_dim),
                                  .n_in = c->kv_rank,
                                  .heads = l->heads}),
           fail);
    QN_TRY(status, matrix(w, "self_attn.o_proj.weight", &l->o, c->n_embd, c->n_heads * c->v_dim),
           fail);
fail:
    return status;
}

static qn_status walk_indexer(const walk *w, qn_layer_weights *l)
{
    const qn_config *c = w->config;
    qn_status status = QN_OK;
    QN_TRY(status,
           matrix(w, "self_attn.indexer.wq_b.weight", &l->index_q, c->n_index_heads * c->index_dim,
                  c->q_rank),
           fail);
    QN_TRY(status, matrix(w, "self_attn.indexer.wk.weight", &l->index_k, c->index_dim, c->n_embd),
           fail);
    QN_TRY(status, norm(w, "self_attn.indexer.k_norm.weight", &l->index_norm, c->index_dim), fail);
    QN_TRY(status,
           visit(w, "self_attn.indexer.k_norm.bias",
                 (qn_tensor_spec){.role = QN_ROLE_NORM_BIAS,
                                  .n_out = c->index_dim,
                                  .vector = &l->index_norm_bias}),
           fail);
    QN_TRY(status,
           matrix(w, "self_attn.indexer.weights_proj.weight", &l->index_w, c->n_index_heads,
                  c->n_embd),
           fail);
fail:
    return status;
}

static qn_status walk_sparse(const walk *w, qn_layer_weights *l)
{
    const qn_config *c = w->config;
    qn_status status = QN_OK;
    QN_TRY(status,
           visit(w, "mlp.gate.weight",
                 (qn_tensor_spec){.role = QN_ROLE_ROUTER,
                                  .n_out = c->n_experts,
                                  .n_in = c->n_embd,
                                  .matrix = &l->router}),
           fail);
    QN_TRY(status,
           visit(w, "mlp.gate.e_score_correction_bias",
                 (qn_tensor_spec){.role = QN_ROLE_ROUTER_BIAS,
                                  .n_out = c->n_experts,
                                  .vector = &l->router_bias}),
           fail);
    for (uint32_t e = 0; e < c->n_experts; e++) {
        char name[32];
        (void)snprintf(name, sizeof name, "experts.%u.", e);
        QN_TRY(status, walk_mlp(w, name, &l->experts[e], c->n_ff_expert), fail);
    }
    QN_TRY(status, walk_mlp(w, "shared_experts.", &l->mlp, c->n_experts_shared * c->n_ff_expert),
           fail);
fail:
    return status;
}

static qn_status walk_layer(walk *w, qn_weights *weights, uint32_t i_layer)
{
    const qn_config *c = w->config;
    qn_layer_weights *l = &weights->layers[i_layer];
    qn_status status = QN_OK;
    (void)snprintf(w->prefix, sizeof w->prefix, "model.layers.%u.", i_layer);
    QN_TRY(status, walk_attention(w, l), fail);
    if (c->is_index_full[i_layer]) {
        QN_TRY(status, walk_indexer(w, l), fail);
    }
    if (c->is_dense[i_layer]) {
        QN_TRY(status, walk_mlp(w, "", &l->mlp, c->n_ff_dense), fail);
    } else {
        QN_TRY(status, walk_sparse(w, l), fail);
    }
    if (i_layer == c->n_layers) {
        QN_TRY(status, norm(w, "enorm.weight", &weights->enorm, c->n_embd), fail);
        QN_TRY(status, norm(w, "hnorm.weight", &weights->hnorm, c->n_embd), fail);
        QN_TRY(status, matrix(w, "eh_proj.weight", &weights->eh_proj, c->n_embd, 2 * c->n_embd),
               fail);
        QN_TRY(status, norm(w, "shared_head.norm.weight", &weights->mtp_norm, c->n_embd), fail);
    }
fail:
    w->prefix[0] = '\0';
    return status;
}

qn_status qn_tensor_list_walk(const qn_config *config, qn_weights *weights, qn_tensor_visit_fn *fn,
                              void *context, qn_error *err)
{
    walk w = {.config = config, .fn = fn, .context = context, .err = err};
    const uint32_t n_layers = config->n_layers + (weights->has_mtp ? 1 : 0);
    qn_status status = QN_OK;
    QN_TRY(status,
           visit(&w, "model.embed_tokens.weight",
                 (qn_tensor_spec){.role = QN_ROLE_EMBEDDING,
                                  .n_out = config->n_vocab,
                                  .n_in = config->n_embd,
                                  .table = &weights->embed}),
           fail);
    for (uint32_t i = 0; i < n_layers; i++) {
        QN_TRY(status, walk_layer(&w, weights, i), fail);
    }
    QN_TRY(status, norm(&w, "model.norm.weight", &weights->norm, config->n_embd), fail);
    QN_TRY(status, matrix(&w, "lm_head.weight", &weights->lm_head, config->n_vocab, config->n_embd),
           fail);
fail:
    return status;
}

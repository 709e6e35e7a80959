/* SPDX-License-Identifier: Apache-2.0 */
#include "model/kv.h"

#include "base/assert.h"

static void add_component(qn_kv_layout *layout, qn_kv_kind kind, uint32_t i_layer,
                          qn_kv_dtype dtype, uint32_t latent_dim, uint32_t rope_dim)
{
    QN_ASSERT(layout->n_components < 2 * QN_LAYERS_MAX);
    const uint32_t row_bytes = qn_kv_row_bytes(dtype, latent_dim, rope_dim);
    const size_t page_bytes = (size_t)row_bytes * QN_PAGE_TOKENS;
    layout->components[layout->n_components++] = (qn_kv_component){
        .kind = kind,
        .i_layer = i_layer,
        .dtype = dtype,
        .latent_dim = latent_dim,
        .rope_dim = rope_dim,
        .row_bytes = row_bytes,
        .page_bytes = page_bytes,
        .offset_bytes = layout->page_bytes,
    };
    layout->page_bytes += page_bytes;
}

void qn_kv_layout_init(qn_kv_layout *layout, const qn_config *config, qn_kv_dtype dtype,
                       bool with_mtp)
{
    QN_ASSERT(dtype != QN_KV_AUTO);
    *layout = (qn_kv_layout){0};
    const qn_kv_dtype index_dtype = dtype == QN_KV_F32 ? QN_KV_F32 : QN_KV_BF16;
    const uint32_t n_layers = config->n_layers + (with_mtp ? 1 : 0);
    for (uint32_t i = 0; i < n_layers; i++) {
        layout->latent_of[i] = (int16_t)layout->n_components;
        add_component(layout, QN_KV_LATENT, i, dtype, config->kv_rank, config->rope_dim);
        layout->index_of[i] = -1;
        if (config->is_index_full[i]) {
            layout->index_of[i] = (int16_t)layout->n_components;
            add_component(layout, QN_KV_INDEX_KEY, i, index_dtype, config->index_dim, 0);
        }
    }
}

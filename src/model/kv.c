/* SPDX-License-Identifier: Apache-2.0 */
#include "model/kv.h"

#include "base/assert.h"

/* Append a component of kind, layer, dtype, rows and dimensions as given; returns its place. */
static int16_t add_component(qn_kv_layout *layout, qn_kv_component c)
{
    QN_ASSERT(layout->n_components < sizeof layout->components / sizeof layout->components[0]);
    c.row_bytes = qn_kv_row_bytes(c.dtype, c.latent_dim, c.rope_dim);
    c.page_bytes = (size_t)c.row_bytes * c.n_rows;
    c.offset_bytes = layout->page_bytes;
    layout->page_bytes += c.page_bytes;
    layout->components[layout->n_components] = c;
    return (int16_t)layout->n_components++;
}

void qn_kv_layout_init(qn_kv_layout *layout, const qn_config *config, qn_kv_dtype dtype,
                       bool with_mtp)
{
    QN_ASSERT(dtype != QN_KV_AUTO);
    *layout = (qn_kv_layout){0};
    const qn_kv_dtype index_dtype = dtype == QN_KV_F32 ? QN_KV_F32 : QN_KV_BF16;
    const uint32_t n_layers = config->n_layers + (with_mtp ? 1 : 0);
    for (uint32_t i = 0; i < n_layers; i++) {
        layout->latent_of[i] =
            add_component(layout, (qn_kv_component){.kind = QN_KV_LATENT,
                                                    .i_layer = i,
                                                    .dtype = dtype,
                                                    .n_rows = QN_PAGE_TOKENS,
                                                    .latent_dim = config->kv_rank,
                                                    .rope_dim = config->rope_dim});
        layout->index_of[i] = -1;
        if (config->is_index_full[i]) {
            layout->index_of[i] =
                add_component(layout, (qn_kv_component){.kind = QN_KV_INDEX_KEY,
                                                        .i_layer = i,
                                                        .dtype = index_dtype,
                                                        .n_rows = QN_PAGE_TOKENS,
                                                        .latent_dim = config->index_dim});
        }
    }
    layout->hidden = -1;
    if (with_mtp) {
        layout->hidden = add_component(layout, (qn_kv_component){.kind = QN_KV_HIDDEN,
                                                                 .i_layer = config->n_layers,
                                                                 .dtype = QN_KV_F32,
                                                                 .n_rows = 1,
                                                                 .latent_dim = config->n_embd});
    }
}

qn_status qn_kv_read(const qn_kv *kv, void *to, const void *from, size_t n_bytes, qn_error *err)
{
    if (kv->place.stream == NULL) {
        memcpy(to, from, n_bytes);
        return QN_OK;
    }
    qn_gpu_download(kv->place.stream, to, from, n_bytes);
    return qn_gpu_wait(kv->place.stream, err);
}

void qn_kv_clear(const qn_kv *kv, void *at, size_t n_bytes)
{
    if (kv->place.stream == NULL) {
        memset(at, 0, n_bytes);
    } else {
        qn_gpu_fill(kv->place.stream, at, 0, n_bytes);
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
/** @file kv.h  What a page of cache holds: one component per layer and kind, by a table. */
#ifndef QN_MODEL_KV_H
#define QN_MODEL_KV_H
#include "quern/status.h"

#include "device/gpu.h"
#include "format/config.h"
#include "kernels/weight.h"

#include <stdbool.h>
#include <stddef.h>

/** What rows of a component are. */
typedef enum qn_kv_kind {
    QN_KV_LATENT,    /**< MLA latent and rope key of a layer. */
    QN_KV_INDEX_KEY, /**< Indexer key of a full layer. */
    QN_KV_HIDDEN,    /**< The trunk's hidden vector after the final norm, of a page's last token. */
} qn_kv_kind;

/** One array [n_pages][n_rows][row_bytes]. */
typedef struct qn_kv_component {
    qn_kv_kind kind;
    uint32_t i_layer; /**< n_layers for the MTP layer and for the hidden vector. */
    qn_kv_dtype dtype;
    uint32_t n_rows; /**< Of a page: QN_PAGE_TOKENS, or 1 of QN_KV_HIDDEN. */
    uint32_t latent_dim, rope_dim, row_bytes;
    size_t page_bytes;   /**< row_bytes * n_rows */
    size_t offset_bytes; /**< Of this component in a page's share: prefix sum of page_bytes. */
} qn_kv_component;

/** The component table of a model: everything one page carries, shared or evicted as a whole. */
typedef struct qn_kv_layout {
    qn_kv_component components[2 * QN_LAYERS_MAX + 1];
    uint32_t n_components;
    size_t page_bytes;                /**< All components of one page. */
    int16_t latent_of[QN_LAYERS_MAX]; /**< Component by layer. */
    int16_t index_of[QN_LAYERS_MAX];  /**< -1 for shared layers. */
    int16_t hidden;                   /**< -1 without the MTP layer. */
} qn_kv_layout;

/**
 * Table for a model and row format.  Index keys are kept in f32 with QN_KV_F32, else in bf16: an
 * 8-bit key would change which positions are attended to.
 * @param with_mtp  whether the MTP layer's rows are part of a page, and with them the hidden vector
 *                  of its last token: MTP row i is made of token i and hidden i - 1, so the first
 * row of the next page needs it when this one comes from a cache
 */
void qn_kv_layout_init(qn_kv_layout *layout, const qn_config *config, qn_kv_dtype dtype,
                       bool with_mtp);

/** Whose memory pages are of: all zero is the host's. */
typedef struct qn_kv_place {
    qn_gpu *gpu;
    qn_gpu_stream *stream; /**< All work on the pages is queued there. */
} qn_kv_place;

/** A pool of pages: component c starts at base + n_pages * components[c].offset_bytes. */
typedef struct qn_kv {
    const qn_kv_layout *layout; /**< Borrowed. */
    uint8_t *base;              /**< n_pages * layout->page_bytes bytes, borrowed. */
    uint32_t n_pages;
    qn_kv_place place; /**< Borrowed. */
} qn_kv;

/**
 * Copy bytes of pages to the host once all that was queued before is done.
 * Returns  QN_OK; QN_E_DEVICE: this or what was queued before failed, and @p to has no meaning
 */
QN_MUST_CHECK qn_status qn_kv_read(const qn_kv *kv, void *to, const void *from, size_t n_bytes,
                                   qn_error *err);
/** Make bytes of pages 0. */
void qn_kv_clear(const qn_kv *kv, void *at, size_t n_bytes);

/** Hidden vector [n_embd] f32 of a page's last token; valid once that is computed.  With MTP only.
 */
static inline float *qn_kv_page_hidden(const qn_kv *kv, int32_t page)
{
    const qn_kv_component *c = &kv->layout->components[kv->layout->hidden];
    return (float *)(void *)(kv->base + (size_t)kv->n_pages * c->offset_bytes +
                             (size_t)page * c->page_bytes);
}

/** One sequence's rows of one component, which has a row for each position. */
static inline qn_kv_view qn_kv_get_view(const qn_kv *kv, int16_t i_component, const int32_t *pages)
{
    const qn_kv_component *c = &kv->layout->components[i_component];
    return (qn_kv_view){
        .base = kv->base + (size_t)kv->n_pages * c->offset_bytes,
        .pages = pages,
        .row_bytes = c->row_bytes,
        .dtype = c->dtype,
        .latent_dim = c->latent_dim,
        .rope_dim = c->rope_dim,
    };
}
#endif

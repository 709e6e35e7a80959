/* SPDX-License-Identifier: Apache-2.0 */
/** @file internal.h  What an open model is made of; shared by the files of this folder. */
#ifndef QN_API_INTERNAL_H
#define QN_API_INTERNAL_H
#include "quern/quern.h"

#include "chat/chat.h"
#include "device/gpu.h"
#include "format/config.h"
#include "kernels/gpu_ops.h"
#include "kernels/kernels.h"
#include "model/glm.h"
#include "tokenizer/tokenizer.h"

enum {
    /** Rows of one forward pass: the weights are read once for so many. */
    QN_CHUNK_TOKENS_MAX = 512,
};

struct qn_model {
    qn_model_info info; /* its strings are static or owned below */
    char *name;         /* owned */
    char *path;         /* owned */
    qn_config config;   /* stop_ids: those in force */
    qn_kernels kernels;
    uint32_t cpu_flags;          /* that kernels are chosen by */
    qn_gpu *gpu;                 /* owned; NULL: the CPU computes, as the next */
    qn_gpu_kernels *gpu_kernels; /* owned */
    char device[32];             /* of info */
    qn_pool *pool;               /* owned; NULL with tokenizer_only, as the next two */
    qn_glm *glm;                 /* owned */
    qn_tokenizer *tokenizer;     /* owned; NULL for dummy weights without one */
    qn_chat_format chat_format;
    qn_compute compute;   /* not AUTO */
    qn_kv_dtype kv_dtype; /* not AUTO */
};

enum { QN_ARCHS_MAX = 2 }; /**< Architectures of GPUs that there are kernels for. */
/** Those of them that this build has, as drivers call them; returns how many. */
size_t qn_list_archs(const char *out[QN_ARCHS_MAX]);

/** Memory that the cache of an engine may take where nothing else is said: a quarter of the RAM, of
 * a GPU what is free now but for a reserve. */
uint64_t qn_model_cache_bytes(const qn_model *model);

/** qn_model_kernels() of these products, where the model itself may not be loaded. */
size_t qn_list_kernels(qn_kernel_choice *out, size_t n_max, const qn_model *model,
                       const qn_glm_product *products, uint32_t n_products, bool has_mtp);
#endif

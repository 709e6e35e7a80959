/* SPDX-License-Identifier: Apache-2.0 */
/** @file source.h  A small checkpoint on disk, for the tests of this folder. */
#ifndef QN_TEST_QUANT_SOURCE_H
#define QN_TEST_QUANT_SOURCE_H
#include "base/assert.h"
#include "base/file.h"
#include "format/checkpoint.h"
#include "quant/quark_config.h"
#include "quant/sources.h"

#include <ftw.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>

/** One tensor of a file: a header entry without its offsets, and bytes that repeat a pattern. */
typedef struct source_tensor {
    const char *name;
    const char *dtype;
    const char *shape; /**< "[2,64]" */
    uint64_t n_bytes;
} source_tensor;

static inline void source_write_text(const char *dir, const char *name, const char *text)
{
    char *const path = qn_path_join(dir, name);
    FILE *const file = fopen(path, "w");
    QN_ASSERT(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0);
    free(path);
}

/** Write DIR/NAME.  Byte i of a tensor depends on i alone; bf16 elements are small numbers. */
static inline void source_write_shard(const char *dir, const char *name,
                                      const source_tensor *tensors, size_t n_tensors)
{
    qn_buf head;
    uint64_t at = 0;
    char *const path = qn_path_join(dir, name);
    FILE *const file = fopen(path, "w");
    qn_buf_init(&head, 1 << 20);
    QN_ASSERT(file != NULL);
    for (size_t i = 0; i < n_tensors; i++) {
        const source_tensor *const t = &tensors[i];
        QN_ASSERT(qn_buf_append_printf(&head, NULL,
                                       "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":"
                                       "[%" PRIu64 ",%" PRIu64 "]}",
                                       i == 0 ? "{" : ",", t->name, t->dtype, t->shape, at,
                                       at + t->n_bytes) == QN_OK);
        at += t->n_bytes;
    }
    QN_ASSERT(qn_buf_append(&head, "}", 1, NULL) == QN_OK);
    const uint64_t length = head.len;
    QN_ASSERT(fwrite(&length, sizeof length, 1, file) == 1);
    QN_ASSERT(fwrite(head.ptr, head.len, 1, file) == 1);
    for (size_t i = 0; i < n_tensors; i++) {
        for (uint64_t k = 0; k < tensors[i].n_bytes; k++) {
            QN_ASSERT(fputc(k % 2 == 0 ? (int)(k * 7 % 256) : 0x3c + (int)(k / 2 % 4), file) >= 0);
        }
    }
    QN_ASSERT(fclose(file) == 0);
    qn_buf_deinit(&head);
    free(path);
}

static inline int source_remove_one(const char *path, const struct stat *info, int kind,
                                    struct FTW *place)
{
    (void)info;
    (void)kind;
    (void)place;
    return remove(path);
}

/** Remove a folder and what it holds. */
static inline void source_remove(const char *dir)
{
    (void)nftw(dir, source_remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/** A new folder, its name owned by the caller (free). */
static inline char *source_make_folder(void)
{
    char *const dir = strdup("/tmp/quern-unit-quant-XXXXXX");
    QN_ASSERT(dir != NULL && mkdtemp(dir) != NULL);
    return dir;
}
#define N_ELEMENTS UINT64_C(12800) /* 200 rows of 64: two blocks of scales */

/** Write a model of one shard. */
static inline void source_write_single(const char *dir)
{
    static const source_tensor tensors[] = {
        {"lm_head.weight", "BF16", "[4,64]", 512},
        {"model.layers.1.mlp.experts.0.up_proj.weight", "BF16", "[200,64]", 2 * N_ELEMENTS},
        {"model.layers.1.self_attn.o_proj.weight", "F8_E4M3", "[2,64]", 128},
        {"model.layers.1.self_attn.o_proj.weight_scale_inv", "F32", "[1,1]", 4},
    };
    source_write_shard(dir, "model.safetensors", tensors, 4);
    source_write_text(dir, "config.json", "{\"num_hidden_layers\": 2}");
    source_write_text(dir, "tokenizer.json", "{}");
}

/** Write two shards, one with FP8 whose scale is in the other, and what else a model has. */
static inline void source_write(const char *dir)
{
    static const source_tensor first[] = {
        {"lm_head.weight", "BF16", "[4,64]", 512},
        {"model.layers.1.mlp.experts.0.up_proj.weight", "BF16", "[200,64]", 2 * N_ELEMENTS},
        {"model.layers.1.mlp.experts.1.up_proj.weight", "F8_E4M3", "[200,64]", N_ELEMENTS},
        {"model.layers.1.mlp.gate.e_score_correction_bias", "F32", "[4]", 16},
    };
    static const source_tensor second[] = {
        {"model.layers.1.mlp.experts.1.up_proj.weight_scale_inv", "F32", "[2,1]", 8},
        {"model.layers.1.self_attn.o_proj.weight", "F8_E4M3", "[2,64]", 128},
        {"model.layers.1.self_attn.o_proj.weight_scale_inv", "F32", "[1,1]", 4},
        {"model.layers.2.mlp.experts.0.up_proj.weight", "BF16", "[1,64]", 128},
    };
    char *const more = qn_path_join(dir, "more");
    source_write_shard(dir, "a.safetensors", first, 4);
    source_write_shard(dir, "b.safetensors", second, 4);
    source_write_text(dir, "config.json", "{\"num_hidden_layers\": 2}");
    source_write_text(dir, "tokenizer.json", "{}");
    QN_ASSERT(mkdir(more, 0777) == 0);
    source_write_text(more, "notes.txt", "notes");
    free(more);
}

/** Names and hashes of all that an output holds, in order; owned by the caller (free). */
static inline char *source_contents(const char *dir)
{
    static const char *const names[] = {"a.safetensors", "b.safetensors",  QN_CONFIG_NAME,
                                        QN_INDEX_NAME,   QN_MANIFEST_NAME, "more/notes.txt",
                                        "tokenizer.json"};
    qn_buf all;
    qn_error err = {0};
    qn_buf_init(&all, 1 << 24);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *const path = qn_path_join(dir, names[i]);
        qn_buf bytes;
        qn_buf_init(&bytes, 1 << 20);
        QN_ASSERT(qn_file_read(&bytes, path, &err) == QN_OK);
        QN_ASSERT(qn_buf_append_printf(&all, &err, "%s %zu %016" PRIx64 "\n", names[i], bytes.len,
                                       qn_str_hash(qn_buf_view(&bytes))) == QN_OK);
        qn_buf_deinit(&bytes);
        free(path);
    }
    return all.ptr;
}
#endif

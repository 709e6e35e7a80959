/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as quern-manifest.json: what is accepted can be read whole, and written as it was. */
#include "base/assert.h"
#include "format/checkpoint.h"
#include "quant/kinds.h"
#include "quant/manifest.h"

/* libFuzzer sets the name. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes); /* NOLINT */

static void check(qn_manifest *manifest)
{
    static qn_kind_stats stats[QN_N_STATS];
    qn_error err = {0};
    qn_buf text;
    qn_manifest again;
    for (size_t i = 0; i < qn_manifest_count(manifest); i++) {
        const qn_manifest_shard shard = qn_manifest_get(manifest, i);
        QN_ASSERT(qn_is_shard_name(shard.file) && strlen(shard.source_head) == 16);
        if (shard.is_done) {
            QN_ASSERT(strlen(shard.xxh128) == QN_SHARD_HASH_BYTES - 1);
            qn_kinds_add_json(stats, shard.kinds);
        }
    }
    qn_buf_init(&text, QN_MANIFEST_BYTES_MAX);
    QN_ASSERT(qn_manifest_append(&text, manifest, &err) == QN_OK);
    QN_ASSERT(qn_manifest_parse(&again, qn_buf_view(&text), "again", &err) == QN_OK);
    QN_ASSERT(json_equal(again.root, manifest->root));
    qn_manifest_close(&again);
    qn_buf_deinit(&text);
    for (size_t i = 0; i < qn_manifest_count(manifest); i++) {
        qn_manifest_clear_done(manifest, i);
        QN_ASSERT(!qn_manifest_get(manifest, i).is_done);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) /* NOLINT */
{
    char *const exact = malloc(n_bytes > 0 ? n_bytes : 1); /* so that an overread shows */
    QN_ASSERT(exact != NULL);
    if (n_bytes > 0) {
        memcpy(exact, data, n_bytes);
    }
    qn_manifest manifest;
    qn_error err = {0};
    if (qn_manifest_parse(&manifest, (qn_str){exact, n_bytes}, "input", &err) == QN_OK) {
        check(&manifest);
        qn_manifest_close(&manifest);
    } else {
        QN_ASSERT(manifest.root == NULL && err.text[0] != '\0');
    }
    free(exact);
    return 0;
}

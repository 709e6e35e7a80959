/* SPDX-License-Identifier: Apache-2.0 */
/* Any config.json, index and shard: there is a report, it is one JSON object, it knows whether
 * there are errors, and config.fixed.json is JSON whose list has the names that were added.  The
 * input is the three files, the first two behind their length in two bytes. */
#include "base/assert.h"
#include "base/file.h"
#include "base/json_doc.h"
#include "base/log.h"
#include "inspect/inspect.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* libFuzzer sets the name. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes); /* NOLINT */

static char g_dir[] = "/tmp/quern-fuzz-XXXXXX";
static const char *const names[] = {"config.json", "model.safetensors.index.json", "a.safetensors",
                                    "config.fixed.json"};
enum { N_PARTS = 3, I_FIXED = N_PARTS, N_FILES };

static void path_of(char *path, size_t path_bytes, int i_file)
{
    (void)snprintf(path, path_bytes, "%s/%s", g_dir, names[i_file]);
}

static void clean_up(void)
{
    char path[128];
    for (int i = 0; i < N_FILES; i++) {
        path_of(path, sizeof path, i);
        (void)unlink(path);
    }
    (void)rmdir(g_dir);
}

/* An empty part is no file. */
static void write_part(int i_file, const uint8_t *bytes, size_t n_bytes)
{
    char path[128];
    path_of(path, sizeof path, i_file);
    (void)unlink(path);
    if (n_bytes > 0) {
        FILE *const file = fopen(path, "wb");
        QN_ASSERT(file != NULL);
        QN_ASSERT(fwrite(bytes, 1, n_bytes, file) == n_bytes);
        QN_ASSERT(fclose(file) == 0);
    }
}

/* Does a list hold the string?  One of two documents, so their texts are compared unescaped. */
static bool holds(const qn_json_node *list, const qn_json_node *string)
{
    const qn_json_node *item = list + 1;
    for (uint32_t i = 0; i < list->n_children; i++, item = qn_json_after(item)) {
        if (item->kind == QN_JSON_STRING && qn_json_string_compare(item, string) == 0) {
            return true;
        }
    }
    return false;
}

/* Each name that was added is in the list, whatever that is called. */
static void check_fixed(const qn_json_node *added)
{
    static const char *const keys[] = {"exclude", "modules_to_not_convert", "ignore"};
    char path[128];
    qn_buf text;
    qn_json_doc doc;
    qn_buf_init(&text, (size_t)64 << 20);
    path_of(path, sizeof path, I_FIXED);
    QN_ASSERT(qn_file_read(&text, path, NULL) == QN_OK);
    QN_ASSERT(qn_json_doc_open(&doc, qn_buf_view(&text), "fixed", NULL) == QN_OK);
    const qn_json_node *const root = qn_json_member(doc.nodes, "quantization_config");
    const qn_json_node *item = added + 1;
    for (uint32_t i = 0; i < added->n_children; i++, item = qn_json_after(item)) {
        bool is_held = false;
        for (size_t i_key = 0; i_key < sizeof keys / sizeof *keys; i_key++) {
            const qn_json_node *const list = qn_json_member(root, keys[i_key]);
            is_held |= list != NULL && list->kind == QN_JSON_ARRAY && holds(list, item);
        }
        QN_ASSERT(is_held);
    }
    qn_json_doc_close(&doc);
    qn_buf_deinit(&text);
    QN_ASSERT(unlink(path) == 0);
}

static void check_report(const char *report)
{
    qn_json_doc doc;
    QN_ASSERT(qn_json_doc_open(&doc, qn_str_of(report), "report", NULL) == QN_OK);
    const qn_json_node *const is_ok = qn_json_member(doc.nodes, "ok");
    const qn_json_node *const n_errors = qn_json_member(doc.nodes, "errors");
    const qn_json_node *const fix = qn_json_member(doc.nodes, "fix");
    const qn_json_node *const path = qn_json_member(fix, "path");
    QN_ASSERT(is_ok != NULL && n_errors != NULL && path != NULL);
    QN_ASSERT((is_ok->kind == QN_JSON_TRUE) == qn_str_equal(n_errors->text, qn_str_of("0")));
    if (path->kind == QN_JSON_STRING) {
        check_fixed(qn_json_member(fix, "added"));
    }
    qn_json_doc_close(&doc);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) /* NOLINT */
{
    static qn_pool *pool;
    if (pool == NULL) {
        QN_ASSERT(mkdtemp(g_dir) != NULL);
        QN_ASSERT(atexit(clean_up) == 0);
        QN_ASSERT(qn_pool_open(&pool, 1, NULL) == QN_OK);
        qn_log_setup(QN_LOG_ERROR, false);
    }
    for (int i = 0; i < N_PARTS; i++) {
        size_t len = n_bytes;
        if (i + 1 < N_PARTS && n_bytes >= 2) {
            len = (size_t)data[0] | (size_t)data[1] << 8;
            data += 2;
            n_bytes -= 2;
            len = len < n_bytes ? len : n_bytes;
        }
        write_part(i, data, len);
        data += len;
        n_bytes -= len;
    }
    char *report = NULL;
    qn_error err = {0};
    const qn_inspect_request request = {
        .dir = g_dir, .verifies = true, .lists_tensors = true, .fixes = true};
    const qn_status status = qn_doctor_inspect(&report, &request, pool, &err);
    QN_ASSERT(status == QN_OK || status == QN_E_NOMEM);
    if (status == QN_OK) {
        check_report(report);
    }
    free(report);
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "eval/fingerprint.h"

#include "base/file.h"
#include "base/try.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <sys/stat.h>

enum { BYTES_MAX = 1 << 30 };

static bool is_weights(const char *name)
{
    static const char ending[] = ".safetensors";
    const size_t n = strlen(name);
    return n >= strlen(ending) && strcmp(name + n - strlen(ending), ending) == 0;
}

/* What answers depend on; a report that lies beside is none of it. */
static int is_of_model(const struct dirent *item)
{
    static const char *const names[] = {"config.json", "generation_config.json", "tokenizer.json",
                                        "chat_template.jinja", "model.safetensors.index.json"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(item->d_name, names[i]) == 0) {
            return 1;
        }
    }
    return is_weights(item->d_name) ? 1 : 0;
}

/* Bytewise, whatever the locale. */
static int compare(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static qn_status add_file(qn_buf *facts, const char *dir, const char *name, qn_error *err)
{
    qn_status status = QN_OK;
    struct stat info;
    char *const path = qn_path_join(dir, name);
    if (path == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "%.250s: no memory", dir);
    }
    if (stat(path, &info) != 0) {
        status = qn_fail(err, QN_E_IO, errno, __func__, "%.250s: %s, a file expected", path,
                         strerror(errno));
        goto fail;
    }
    QN_TRY(status,
           qn_buf_append_printf(facts, err, "%s %" PRIu64 "\n", name, (uint64_t)info.st_size),
           fail);
    if (is_weights(name)) {
        QN_TRY(status,
               qn_buf_append_printf(facts, err, "%" PRIu64 ".%09ld\n",
                                    (uint64_t)info.st_mtim.tv_sec, info.st_mtim.tv_nsec),
               fail);
    } else {
        QN_TRY(status, qn_file_read(facts, path, err), fail);
    }
fail:
    free(path);
    return status;
}

qn_status qn_fingerprint(char out[QN_SHA256_HEX_BYTES], const char *dir, qn_error *err)
{
    qn_status status = QN_OK;
    struct dirent **items = NULL;
    qn_buf facts;
    qn_buf_init(&facts, BYTES_MAX);
    const int n_items = scandir(dir, &items, is_of_model, compare);
    if (n_items < 0) {
        return qn_fail(err, errno == ENOMEM ? QN_E_NOMEM : QN_E_IO, errno, __func__,
                       "%.250s: %s, a folder expected, and memory to list it", dir,
                       strerror(errno));
    }
    for (int i = 0; i < n_items && status == QN_OK; i++) {
        status = add_file(&facts, dir, items[i]->d_name, err);
    }
    if (status == QN_OK) {
        qn_sha256_hex(out, qn_buf_view(&facts));
    }
    for (int i = 0; i < n_items; i++) {
        free(items[i]);
    }
    free(items);
    qn_buf_deinit(&facts);
    return status;
}

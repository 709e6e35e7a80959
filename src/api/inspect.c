/* SPDX-License-Identifier: Apache-2.0 */
#include "inspect/inspect.h"

#include "quern/tools.h"

#include "api/locate.h"
#include "base/file.h"
#include "base/try.h"
#include "format/checkpoint.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

/* A file's folder in *dir, owned; *file its name where it is one shard and not the index. */
static qn_status locate(char **dir, const char **file, const char *name, qn_error *err)
{
    struct stat info;
    *file = NULL;
    if (stat(name, &info) != 0 || S_ISDIR(info.st_mode)) {
        return qn_locate_model(dir, name, err);
    }
    const char *last = NULL;
    const qn_str folder = qn_path_parent(name, &last);
    const bool is_shard = qn_is_shard_name(last);
    if (!is_shard && strcmp(last, QN_INDEX_NAME) != 0) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__,
                       "%.300s: a file, a model's folder, its %s or a *.safetensors expected", name,
                       QN_INDEX_NAME);
    }
    *file = is_shard ? last : NULL;
    *dir = strndup(folder.ptr, folder.len);
    return *dir != NULL ? QN_OK : qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "%s: no memory", name);
}

qn_status qn_inspect(char **report, const char *name, const qn_inspect_options *options,
                     qn_error *err)
{
    static const qn_inspect_options defaults = {0};
    const qn_inspect_options *const o = options != NULL ? options : &defaults;
    qn_status status = QN_OK;
    qn_pool *pool = NULL;
    char *dir = NULL;
    qn_inspect_request request = {.tokenizer_dir = o->tokenizer_dir,
                                  .progress = o->progress,
                                  .progress_context = o->progress_context,
                                  .verifies = o->verifies,
                                  .lists_tensors = o->lists_tensors,
                                  .fixes = o->fixes};
    *report = NULL;
    if (name == NULL) {
        return qn_fail(err, QN_E_INVAL, 0, __func__, "model: NULL, a name expected");
    }
    QN_TRY(status, locate(&dir, &request.file, name, err), fail);
    request.dir = dir;
    QN_TRY(status, qn_pool_open(&pool, o->n_threads, err), fail);
    QN_TRY(status, qn_doctor_inspect(report, &request, pool, err), fail);
fail:
    qn_pool_close(&pool);
    free(dir);
    return status;
}

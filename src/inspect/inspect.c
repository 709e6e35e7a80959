/* SPDX-License-Identifier: Apache-2.0 */
#include "inspect/inspect.h"

#include "base/try.h"
#include "inspect/doctor.h"

#include <errno.h>

/* Which formats the matrices have, as bits 1 << qn_storage. */
static unsigned found_storages(const qn_modules *modules)
{
    unsigned found = 0;
    for (size_t i = 0; i < modules->n_items; i++) {
        found |= 1U << modules->items[i].storage;
    }
    return found;
}

/* Does quantization_config speak of what is there at all?  Only then its list is of interest. */
static bool check_method(qn_doctor *d)
{
    const qn_declared *const said = &d->declared;
    const unsigned found = found_storages(&d->modules);
    const bool has_fp8 = (found & 1U << QN_STORAGE_FP8) != 0;
    const bool has_mxfp4 = (found & 1U << QN_STORAGE_MXFP4) != 0;
    const char *const seen = has_mxfp4 ? "MXFP4" : has_fp8 ? "FP8" : "none that is quantized";
    const bool is_known = (found & 1U << QN_STORAGE_PLAIN) != 0 || has_fp8 || has_mxfp4;
    if (d->foreign.n_items > 0 || d->facts.has_shaped || !is_known ||
        (said->root == NULL && !has_fp8 && !has_mxfp4)) {
        return false;
    }
    if (said->root == NULL) {
        if (d->config_doc.nodes != NULL) {
            qn_problems_add(&d->problems, QN_PROBLEM_QUANT_UNDECLARED, (qn_str){0}, "config.json",
                            "no quantization_config, one expected, as tensors are stored as %s: "
                            "other engines load them as BF16",
                            seen);
        }
        return false;
    }
    const bool is_right =
        (said->is_fp8 && has_fp8 && !has_mxfp4) || (said->is_quark && (has_fp8 || has_mxfp4));
    if (is_right && said->storage == QN_STORAGE_OTHER) {
        qn_declared_report_format(said, has_mxfp4, &d->problems);
        return false;
    }
    if (!is_right && (d->inventory.is_complete || has_fp8 || has_mxfp4)) {
        qn_problems_add(&d->problems, QN_PROBLEM_QUANT_DIFFERS, (qn_str){0}, "config.json",
                        "quantization_config.quant_method: \"%s\", one that fits tensors of which "
                        "%s expected",
                        said->method, has_mxfp4 || has_fp8 ? seen : "none is quantized");
    }
    return is_right;
}

/* Everything that the headers and the config tell. */
static qn_status examine(qn_doctor *d, qn_error *err)
{
    qn_status status = QN_OK;
    const qn_inventory *const inventory = &d->inventory;
    const qn_json_node *const root = d->config_doc.nodes;
    QN_TRY(status, qn_modules_open(&d->modules, inventory, err), fail);
    QN_TRY(status, qn_declared_open(&d->declared, root, &d->problems, err), fail);
    QN_TRY(status, qn_foreign_open(&d->foreign, inventory, &d->declared, err), fail);
    qn_declared_mark(&d->declared, &d->modules);
    qn_foreign_report(&d->foreign, &d->declared, &d->problems);
    if (inventory->contents == QN_CONTENTS_NONE && d->problems.n_of[QN_PROBLEM_FORMAT_GGUF] == 0) {
        qn_problems_add(&d->problems, QN_PROBLEM_WEIGHTS_MISSING, (qn_str){0}, NULL,
                        "no weights, *.safetensors or model.safetensors.index.json expected");
    } else if (d->has_config && inventory->contents != QN_CONTENTS_NONE) {
        QN_TRY(status,
               qn_tensors_check(&d->facts, &d->config, inventory, &d->foreign, &d->declared,
                                &d->problems, err),
               fail);
    }
    if (check_method(d)) {
        QN_TRY(status,
               qn_engines_check(&d->declared, &d->modules, inventory, d->mtp_layer, &d->changes,
                                &d->problems, err),
               fail);
    }
fail:
    return status;
}

static void close_doctor(qn_doctor *d)
{
    qn_name_changes_deinit(&d->changes);
    qn_declared_close(&d->declared);
    qn_foreign_close(&d->foreign);
    qn_modules_close(&d->modules);
    qn_inventory_close(&d->inventory);
    qn_json_doc_close(&d->config_doc);
    qn_buf_deinit(&d->config_text);
    qn_problems_deinit(&d->problems);
    free(d->fixed_path);
}

qn_status qn_doctor_inspect(char **report, const qn_inspect_request *request, qn_pool *pool,
                            qn_error *err)
{
    qn_doctor d = {.request = request, .mtp_layer = -1};
    qn_error mine = {0};
    qn_status status = QN_OK;
    *report = NULL;
    QN_TRY(status,
           qn_inventory_open(&d.inventory, request->dir, request->file, pool, &d.problems, &mine),
           fail);
    QN_TRY(status, qn_doctor_read_config(&d, &mine), fail);
    QN_TRY(status, qn_doctor_read_tokenizer(&d, &mine), fail);
    QN_TRY(status, examine(&d, &mine), fail);
    if (request->verifies) {
        QN_TRY(status, qn_doctor_verify(&d, pool, &mine), fail);
    }
    if (request->fixes) {
        QN_TRY(status, qn_doctor_fix(&d, &mine), fail);
    }
    QN_TRY(status, qn_doctor_report(report, &d, &mine), fail);
fail:
    close_doctor(&d);
    if (err != NULL) {
        *err = status < 0 ? mine : (qn_error){0}; /* what was missing has left its mark */
    }
    return status;
}

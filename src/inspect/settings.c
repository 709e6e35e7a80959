/* SPDX-License-Identifier: Apache-2.0 */
/* config.json, generation_config.json and tokenizer.json. */
#include "base/file.h"
#include "base/try.h"
#include "inspect/doctor.h"
#include "tokenizer/tokenizer.h"

#include <errno.h>
#include <math.h>

enum {
    CONFIG_BYTES_MAX = 16 << 20,
    PADDING_MAX = 1024, /* rows of the embedding without a token: GLM-5.2 has 24 */
};

static const char config_name[] = "config.json";
static const char generation_name[] = "generation_config.json";
static const char tokenizer_name[] = "tokenizer.json";

static qn_status join(char **out, const char *dir, const char *name, qn_error *err)
{
    *out = qn_path_join(dir, name);
    return *out != NULL ? QN_OK : qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "%s: no memory", name);
}

/* A failure as a problem with a file of the model's folder. */
static void report(qn_doctor *d, qn_problem_code code, const char *name, const qn_error *err)
{
    const char *const text = strstr(err->text, name); /* behind the folder's */
    qn_problems_add_error(&d->problems, code, (qn_str){0}, name, text != NULL ? text : err->text);
}

/* Is it the family at all? */
static bool is_family(const qn_json_node *root)
{
    const qn_json_node *const list = qn_json_member(root, "architectures");
    return list != NULL && list->kind == QN_JSON_ARRAY && list->n_children == 1 &&
           qn_json_string_is(list + 1, qn_str_of("GlmMoeDsaForCausalLM")) &&
           qn_json_string_is(qn_json_member(root, "model_type"), qn_str_of("glm_moe_dsa"));
}

/* num_hidden_layers of a config that may be wrong elsewhere. */
static int32_t layers_of(const qn_json_node *root)
{
    const qn_json_node *const node = qn_json_member(root, "num_hidden_layers");
    int32_t n = 0;
    for (size_t i = 0; node != NULL && i < node->text.len; i++) {
        const char digit = node->text.ptr[i];
        if (node->kind != QN_JSON_NUMBER || digit < '0' || digit > '9' || n >= QN_LAYERS_MAX) {
            return -1;
        }
        n = 10 * n + (digit - '0');
    }
    return node != NULL && n < QN_LAYERS_MAX ? n : -1;
}

/* The theta that a model of the family was trained with; 0: either of the two. */
static double theta_of(const qn_config *c)
{
    enum { GLM_5_CONTEXT = 202752, GLM_52_CONTEXT = 1048576 };
    static const double glm_5 = 1e6;
    static const double glm_52 = 8e6;
    bool shares_index = false; /* GLM-5.2 alone does */
    for (uint32_t i = 0; i < c->n_layers; i++) {
        shares_index |= !c->is_index_full[i];
    }
    if (c->n_context_max == GLM_5_CONTEXT) {
        return glm_5;
    }
    if (c->n_context_max == GLM_52_CONTEXT || shares_index) {
        return glm_52;
    }
    return c->rope_theta == glm_5 || c->rope_theta == glm_52 ? 0.0 : glm_52;
}

/* Numbers that load, and compute something else than the model that was trained. */
static void check_numbers(qn_doctor *d)
{
    const qn_config *const c = &d->config;
    const double theta = theta_of(c);
    if (fabsf(c->rms_eps - 1e-5F) > 1e-9F) {
        qn_problems_add(&d->problems, QN_PROBLEM_RMS_EPS, (qn_str){0}, config_name,
                        "rms_norm_eps: %g, 1e-05 expected of every model of the family",
                        (double)c->rms_eps);
    }
    if (theta != 0.0 && c->rope_theta != theta) {
        qn_problems_add(&d->problems, QN_PROBLEM_ROPE_THETA, (qn_str){0}, config_name,
                        "rope_theta: %g, %g expected with this index sharing and "
                        "max_position_embeddings %u: short texts work, long ones do not",
                        c->rope_theta, theta, c->n_context_max);
    }
}

static qn_status check_generation(qn_doctor *d, qn_error *err)
{
    char *path = NULL;
    qn_generation_config generation;
    qn_status status = join(&path, d->request->dir, generation_name, err);
    if (status == QN_OK) {
        status = qn_generation_config_load(&generation, path, d->config.n_vocab, err);
    }
    free(path);
    if (status == QN_OK && generation.n_stop_ids > 0) {
        memcpy(d->config.stop_ids, generation.stop_ids, sizeof d->config.stop_ids);
        d->config.n_stop_ids = generation.n_stop_ids;
    } else if (status < 0 && status != QN_E_NOMEM) {
        report(d, QN_PROBLEM_GENERATION_CONFIG, generation_name, err);
        status = QN_OK;
    }
    return status;
}

qn_status qn_doctor_read_config(qn_doctor *d, qn_error *err)
{
    char *path = NULL;
    qn_status status = QN_OK;
    qn_buf_init(&d->config_text, CONFIG_BYTES_MAX);
    QN_TRY(status, join(&path, d->request->dir, config_name, err), fail);
    qn_problem_code code = QN_PROBLEM_CONFIG_BROKEN;
    status = qn_file_read(&d->config_text, path, err);
    if (status == QN_E_NOT_FOUND) {
        code = QN_PROBLEM_CONFIG_MISSING;
        (void)qn_fail(err, status, ENOENT, __func__, "%s: no such file, the model's expected",
                      config_name);
    }
    const qn_str text = qn_buf_view(&d->config_text);
    if (status == QN_OK) {
        status = qn_json_doc_open(&d->config_doc, text, config_name, err);
    }
    if (status == QN_OK) {
        const bool is_object = d->config_doc.nodes->kind == QN_JSON_OBJECT;
        code = !is_object                        ? QN_PROBLEM_CONFIG_BROKEN
               : !is_family(d->config_doc.nodes) ? QN_PROBLEM_ARCHITECTURE
                                                 : QN_PROBLEM_CONFIG_INVALID;
        d->mtp_layer = layers_of(d->config_doc.nodes);
        status = qn_config_parse(&d->config, text, config_name, err);
    }
    d->has_config = status == QN_OK;
    if (status < 0 && status != QN_E_NOMEM) {
        if ((code != QN_PROBLEM_CONFIG_MISSING || !d->inventory.is_file) &&
            !qn_problems_add_instead(&d->problems, path)) {
            report(d, code, config_name, err);
        }
        status = QN_OK;
    }
    QN_TRY(status, status, fail);
    if (d->has_config) {
        check_numbers(d);
        QN_TRY(status, check_generation(d, err), fail);
    }
fail:
    free(path);
    return status;
}

/* Control tokens of the prompt format, those that end an answer first. */
static const char *const special_tokens[] = {
    "<|endoftext|>",    "<|user|>",    "<|observation|>", "<|system|>",
    "<|assistant|>",    "[gMASK]",     "<sop>",           "<think>",
    "</think>",         "<tool_call>", "</tool_call>",    "<arg_key>",
    "</arg_key>",       "<arg_value>", "</arg_value>",    "<tool_response>",
    "</tool_response>",
};
enum { N_ENDS = 3 };

static bool is_stop(const qn_config *config, int32_t id)
{
    for (uint32_t i = 0; i < config->n_stop_ids; i++) {
        if (config->stop_ids[i] == id) {
            return true;
        }
    }
    return false;
}

static void check_special_tokens(qn_doctor *d, const qn_tokenizer *tokenizer)
{
    for (size_t i = 0; i < sizeof special_tokens / sizeof *special_tokens; i++) {
        const int32_t id = qn_tokenizer_added_id(tokenizer, qn_str_of(special_tokens[i]));
        if (id < 0) {
            qn_problems_add(&d->problems, QN_PROBLEM_SPECIAL_TOKEN, (qn_str){0}, tokenizer_name,
                            "%s: no such token, one expected by the prompt format",
                            special_tokens[i]);
        } else if (i < N_ENDS && d->has_config && !is_stop(&d->config, id)) {
            qn_problems_add(&d->problems, QN_PROBLEM_STOP_IDS, (qn_str){0}, config_name,
                            "eos_token_id: without %d, expected as the id of %s, which ends an "
                            "answer",
                            (int)id, special_tokens[i]);
        }
    }
}

/* Do tokenizer and config speak of the same vocabulary? */
static void check_vocabulary(qn_doctor *d, const qn_tokenizer *tokenizer)
{
    if (d->n_tokens > d->config.n_vocab) {
        qn_problems_add(&d->problems, QN_PROBLEM_TOKENIZER_SIZE, (qn_str){0}, tokenizer_name,
                        "ids up to %u, ids below vocab_size %u of config.json expected",
                        d->n_tokens - 1, d->config.n_vocab);
    }
    if (d->n_tokens + PADDING_MAX < d->config.n_vocab) {
        qn_problems_add(&d->problems, QN_PROBLEM_TOKENIZER_SMALL, (qn_str){0}, tokenizer_name,
                        "ids up to %u, nearly vocab_size %u of config.json expected",
                        d->n_tokens > 0 ? d->n_tokens - 1 : 0, d->config.n_vocab);
    }
    for (uint32_t i = 0; i < d->config.n_stop_ids; i++) {
        if (qn_tokenizer_bytes(tokenizer, d->config.stop_ids[i]).len == 0) {
            qn_problems_add(&d->problems, QN_PROBLEM_STOP_ID, (qn_str){0}, tokenizer_name,
                            "no token of id %d, one expected as eos_token_id names it",
                            (int)d->config.stop_ids[i]);
        }
    }
}

qn_status qn_doctor_read_tokenizer(qn_doctor *d, qn_error *err)
{
    const qn_inspect_request *const request = d->request;
    const bool is_optional = d->inventory.contents != QN_CONTENTS_WEIGHTS;
    char *path = NULL;
    qn_tokenizer *tokenizer = NULL;
    if (d->inventory.is_file && request->tokenizer_dir == NULL) {
        return QN_OK; /* a file alone has none */
    }
    qn_status status =
        join(&path, request->tokenizer_dir != NULL ? request->tokenizer_dir : request->dir,
             tokenizer_name, err);
    if (status == QN_OK) {
        status = qn_tokenizer_open_file(&tokenizer, path, err);
    }
    if (status == QN_OK) {
        d->has_tokenizer = true;
        d->n_tokens = qn_tokenizer_size(tokenizer);
        check_special_tokens(d, tokenizer);
        if (d->has_config) {
            check_vocabulary(d, tokenizer);
        }
    } else if (status == QN_E_NOT_FOUND && (!is_optional || request->tokenizer_dir != NULL)) {
        qn_problems_add(&d->problems, QN_PROBLEM_TOKENIZER_MISSING, (qn_str){0}, tokenizer_name,
                        "no such file, the model's expected");
    } else if (status != QN_E_NOT_FOUND && status != QN_E_NOMEM &&
               !qn_problems_add_instead(&d->problems, path)) {
        report(d, QN_PROBLEM_TOKENIZER_BROKEN, tokenizer_name, err);
    }
    qn_tokenizer_close(&tokenizer);
    free(path);
    return status == QN_E_NOMEM ? status : QN_OK;
}

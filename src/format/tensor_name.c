/* SPDX-License-Identifier: Apache-2.0 */
#include "format/tensor_name.h"

const char *qn_tensor_kind_name(qn_tensor_kind kind)
{
    static const char *const names[QN_N_KINDS] = {
        "embedding", "head",          "norm",          "attention", "indexer", "dense_mlp",
        "router",    "routed_expert", "shared_expert", "mtp_proj",  "other",
    };
    return names[kind];
}

/* Cut @p prefix off the front of *rest; false leaves it as it was. */
static bool skip(qn_str *rest, const char *prefix)
{
    const size_t len = strlen(prefix);
    if (rest->len < len || memcmp(rest->ptr, prefix, len) != 0) {
        return false;
    }
    rest->ptr += len;
    rest->len -= len;
    return true;
}

/* Cut "N." off the front: a number below 10^6 as it is printed; false leaves *rest as it was. */
static bool skip_number(qn_str *rest, int32_t *number)
{
    enum { DIGITS_MAX = 6 };
    int32_t value = 0;
    size_t n = 0;
    while (n < rest->len && n < DIGITS_MAX && rest->ptr[n] >= '0' && rest->ptr[n] <= '9') {
        value = value * 10 + (rest->ptr[n] - '0');
        n++;
    }
    if (n == 0 || n == rest->len || rest->ptr[n] != '.' || (n > 1 && rest->ptr[0] == '0')) {
        return false;
    }
    *number = value;
    rest->ptr += n + 1;
    rest->len -= n + 1;
    return true;
}

/* The last components of the names that a matrix's own tensors have, longest first. */
static void split(qn_tensor_name *out, qn_str name)
{
    static const char quantizer[] = ".weight_quantizer.scale";
    size_t at = name.len;
    if (qn_str_ends(name, quantizer)) {
        at = name.len - strlen(quantizer);
    } else {
        while (at > 0 && name.ptr[at - 1] != '.') {
            at--;
        }
        at = at > 0 ? at - 1 : 0;
    }
    const size_t after = at > 0 ? at + 1 : 0;
    out->module = (qn_str){name.ptr, at};
    out->part = (qn_str){name.ptr + after, name.len - after};
}

static qn_tensor_kind kind_in_mlp(qn_tensor_name *out, qn_str rest)
{
    if (skip(&rest, "experts.")) {
        return skip_number(&rest, &out->expert) ? QN_KIND_ROUTED_EXPERT : QN_KIND_OTHER;
    }
    if (skip(&rest, "shared_experts.")) {
        return QN_KIND_SHARED_EXPERT;
    }
    if (skip(&rest, "gate.")) {
        return QN_KIND_ROUTER;
    }
    return skip(&rest, "gate_proj.") || skip(&rest, "up_proj.") || skip(&rest, "down_proj.")
               ? QN_KIND_DENSE_MLP
               : QN_KIND_OTHER;
}

static qn_tensor_kind kind_in_layer(qn_tensor_name *out, qn_str rest)
{
    if (skip(&rest, "mlp.")) {
        return kind_in_mlp(out, rest);
    }
    if (skip(&rest, "self_attn.indexer.")) {
        return QN_KIND_INDEXER;
    }
    if (skip(&rest, "self_attn.")) {
        return QN_KIND_ATTENTION;
    }
    if (skip(&rest, "embed_tokens.")) { /* copies of the trunk's in the MTP layer */
        return QN_KIND_EMBEDDING;
    }
    if (skip(&rest, "shared_head.head.")) {
        return QN_KIND_HEAD;
    }
    return skip(&rest, "eh_proj.") ? QN_KIND_MTP_PROJ : QN_KIND_OTHER;
}

void qn_tensor_name_parse(qn_tensor_name *out, qn_str name)
{
    *out = (qn_tensor_name){.kind = QN_KIND_OTHER, .layer = -1, .expert = -1};
    split(out, name);
    qn_str rest = name;
    if (qn_str_ends(out->module, "norm")) {
        out->kind = QN_KIND_NORM;
    }
    if (skip(&rest, "lm_head.")) {
        out->kind = QN_KIND_HEAD;
    } else if (skip(&rest, "model.embed_tokens.")) {
        out->kind = QN_KIND_EMBEDDING;
    } else if (skip(&rest, "model.layers.") && skip_number(&rest, &out->layer) &&
               out->kind != QN_KIND_NORM) {
        out->kind = kind_in_layer(out, rest);
    }
}

bool qn_tensor_name_is_linear(qn_str name, uint32_t rank)
{
    static const char suffix[] = ".weight";
    if (rank < 2 || !qn_str_ends(name, suffix)) {
        return false;
    }
    const qn_str module = {name.ptr, name.len - strlen(suffix)};
    return module.len > 0 && !qn_str_ends(module, "norm") && !qn_str_contains(module, "embed");
}

const char *qn_draft_prefix(qn_str rest)
{
    static const char *const roots[] = {"eh_proj", "enorm", "hnorm", "shared_head.norm"};
    for (size_t i = 0; i < sizeof roots / sizeof *roots; i++) {
        if (qn_str_contains(rest, roots[i])) {
            return "model.";
        }
    }
    return "model.decoder.";
}

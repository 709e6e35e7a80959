/* SPDX-License-Identifier: Apache-2.0 */
#include "base/try.h"
#include "inspect/engines.h"

#include <stdio.h>

static const char experts_word[] = ".mlp.experts";

/* "model.layers.N." of the MTP layer; 0: it is not known. */
static size_t mtp_prefix(const qn_matcher *m, char *room, size_t room_bytes)
{
    return m->mtp_layer < 0
               ? 0
               : (size_t)snprintf(room, room_bytes, "model.layers.%d.", (int)m->mtp_layer);
}

/* Length of a name up to the block of routed experts, which is all of it where there is none. */
static size_t container_len(qn_str name)
{
    const char *const at = memmem(name.ptr, name.len, experts_word, strlen(experts_word));
    return at == NULL ? name.len : (size_t)(at - name.ptr) + strlen(experts_word);
}

/* Projections that engines fuse; ATOM asks for the second name. */
static const char *const fused[][2] = {{"q_a_proj", "fused_qkv_a_proj"},
                                       {"kv_a_proj_with_mqa", "fused_qkv_a_proj"},
                                       {"gate_proj", "gate_up_proj"},
                                       {"up_proj", "gate_up_proj"}};

/* A name cut before its last component; "*" ends one too, in a glob. */
static size_t stem_len_of(qn_str name)
{
    size_t len = name.len;
    while (len > 0 && name.ptr[len - 1] != '.' && name.ptr[len - 1] != '*') {
        len--;
    }
    return len;
}

static qn_str fused_name(qn_str last)
{
    for (size_t i = 0; i < sizeof fused / sizeof *fused; i++) {
        if (qn_str_equal(last, qn_str_of(fused[i][0]))) {
            return qn_str_of(fused[i][1]);
        }
    }
    return last;
}

static bool is_sglang(qn_engine engine)
{
    return engine == QN_ENGINE_SGLANG_OLD || engine == QN_ENGINE_SGLANG;
}

/* NAME in @p room with @p prefix in place of its first @p n_cut bytes. */
static qn_str replace_front(char room[QN_MODULE_BYTES_MAX], const char *prefix, qn_str name,
                            size_t n_cut)
{
    const int len = snprintf(room, QN_MODULE_BYTES_MAX, "%s%.*s", prefix, (int)(name.len - n_cut),
                             name.ptr + n_cut);
    return (qn_str){room, len < QN_MODULE_BYTES_MAX ? (size_t)len : 0};
}

/* NAME with a fused projection in the place of its part; empty where it is too long. */
static qn_str fuse(char room[QN_MODULE_BYTES_MAX], qn_str name)
{
    const size_t stem_len = stem_len_of(name);
    const qn_str end = fused_name((qn_str){name.ptr + stem_len, name.len - stem_len});
    const int len = snprintf(room, QN_MODULE_BYTES_MAX, "%.*s%.*s", (int)stem_len, name.ptr,
                             (int)end.len, end.ptr);
    return (qn_str){room, len < QN_MODULE_BYTES_MAX ? (size_t)len : 0};
}

qn_str qn_checkpoint_name(qn_str name, int32_t mtp_layer, char room[QN_MODULE_BYTES_MAX])
{
    static const char decoder[] = "model.decoder.";
    static const char model[] = "model.";
    char prefix[32] = "";
    size_t n_cut = 0;
    if (mtp_layer >= 0 && qn_str_begins(name, decoder)) {
        n_cut = strlen(decoder);
    } else if (mtp_layer >= 0 && qn_str_begins(name, model)) {
        const qn_str rest = {name.ptr + strlen(model), name.len - strlen(model)};
        n_cut = strcmp(qn_draft_prefix(rest), model) == 0 ? strlen(model) : 0;
    }
    if (n_cut > 0) {
        (void)snprintf(prefix, sizeof prefix, "model.layers.%d.", (int)mtp_layer);
    }
    qn_str last = {name.ptr + stem_len_of(name), name.len - stem_len_of(name)};
    if (qn_str_equal(last, qn_str_of("fused_qkv_a_proj_with_mqa"))) { /* as SGLang calls it */
        last = qn_str_of(fused[0][0]);
    }
    for (size_t i = 0; i < sizeof fused / sizeof *fused; i++) {
        last = qn_str_equal(last, qn_str_of(fused[i][1])) ? qn_str_of(fused[i][0]) : last;
    }
    const size_t stem_len = stem_len_of(name);
    const int len =
        stem_len < n_cut || name.len >= QN_MODULE_BYTES_MAX
            ? QN_MODULE_BYTES_MAX
            : snprintf(room, QN_MODULE_BYTES_MAX, "%s%.*s%.*s", prefix, (int)(stem_len - n_cut),
                       name.ptr + n_cut, (int)last.len, last.ptr);
    return (qn_str){room, len < QN_MODULE_BYTES_MAX ? (size_t)len : 0};
}

qn_str qn_matcher_name(const qn_matcher *m, const qn_module *module, char room[QN_MODULE_BYTES_MAX])
{
    char mtp[32];
    const size_t mtp_len = mtp_prefix(m, mtp, sizeof mtp);
    qn_str name = module->name;
    if (name.len >= QN_MODULE_BYTES_MAX) {
        return (qn_str){0};
    }
    if (module->kind == QN_KIND_ROUTED_EXPERT) {
        name.len = container_len(name);
    }
    if (is_sglang(m->engine) && module->layer == m->mtp_layer && mtp_len > 0) {
        const qn_str rest = {name.ptr + mtp_len, name.len - mtp_len};
        return replace_front(room, qn_draft_prefix(rest), name, mtp_len);
    }
    return m->engine == QN_ENGINE_ATOM ? fuse(room, name) : replace_front(room, "", name, 0);
}

qn_str qn_fused_sibling(qn_str name, char room[QN_MODULE_BYTES_MAX])
{
    enum { N = sizeof fused / sizeof *fused };
    const size_t stem_len = stem_len_of(name);
    const qn_str last = {name.ptr + stem_len, name.len - stem_len};
    for (size_t i = 0; i < N; i++) {
        for (size_t j = 0; j < N; j++) {
            if (i != j && strcmp(fused[i][1], fused[j][1]) == 0 &&
                qn_str_equal(last, qn_str_of(fused[i][0]))) {
                const int len = snprintf(room, QN_MODULE_BYTES_MAX, "%.*s%s", (int)stem_len,
                                         name.ptr, fused[j][0]);
                return (qn_str){room, len < QN_MODULE_BYTES_MAX ? (size_t)len : 0};
            }
        }
    }
    return (qn_str){0};
}

/* SGLang's #30265 reads keys of the MTP layer by both names; a later vLLM asks for an expert too.
 * Of ATOM it is not known: either name will do. */
size_t qn_matcher_layer_names(const qn_matcher *m, const qn_module *module, qn_str names[2],
                              char room[QN_MODULE_BYTES_MAX])
{
    names[0] = qn_matcher_name(m, module, room);
    names[1] = module->name;
    if (m->engine == QN_ENGINE_SGLANG && module->kind == QN_KIND_ROUTED_EXPERT) {
        names[1].len = container_len(module->name);
    }
    return m->engine == QN_ENGINE_SGLANG_OLD || m->engine == QN_ENGINE_VLLM_OLD ? 1 : 2;
}

bool qn_matcher_excludes(const qn_matcher *m, const qn_module *module)
{
    char room[QN_MODULE_BYTES_MAX];
    const qn_str name = qn_matcher_name(m, module, room);
    const bool is_block = module->kind == QN_KIND_ROUTED_EXPERT;
    switch (m->engine) {
    case QN_ENGINE_SGLANG_OLD:
    case QN_ENGINE_SGLANG:
    case QN_ENGINE_VLLM_OLD: return qn_exclude_matches(m->exclude, name);
    case QN_ENGINE_VLLM:
        return qn_exclude_matches(m->exclude, name) ||
               (is_block && qn_exclude_has_child(m->exclude, name));
    case QN_ENGINE_ATOM:
        return qn_exclude_covers(m->exclude, name) ||
               (is_block && qn_exclude_has_child(m->exclude, name));
    case QN_N_ENGINES: break;
    }
    return false;
}

/* Names and patterns of a list, @p fuses: with fused projections for their parts. */
static qn_status copy_list(qn_exclude *to, const qn_exclude *from, bool fuses, qn_error *err)
{
    char room[QN_MODULE_BYTES_MAX];
    qn_status status = QN_OK;
    for (size_t i = 0; i < from->n_names + from->n_patterns && status == QN_OK; i++) {
        const qn_str entry =
            i < from->n_names ? from->names[i] : from->patterns[i - from->n_names].text;
        const qn_str other = fuses && !qn_str_begins(entry, "re:") && entry.len < sizeof room
                                 ? fuse(room, entry)
                                 : entry;
        status = qn_exclude_add(to, other.len > 0 ? other : entry, err);
    }
    return status;
}

/* sglang #30265: names of the MTP layer again by the draft's names, and its block of experts where
 * one of them is listed. */
static qn_status add_draft_names(qn_matcher *m, const qn_exclude *list, qn_error *err)
{
    char mtp[32];
    char room[QN_MODULE_BYTES_MAX];
    const size_t mtp_len = mtp_prefix(m, mtp, sizeof mtp);
    bool has_expert = false;
    qn_status status = QN_OK;
    for (size_t i = 0; i < list->n_names && mtp_len > 0; i++) {
        const qn_str name = list->names[i];
        if (!qn_str_begins(name, mtp) || name.len >= QN_MODULE_BYTES_MAX) {
            continue;
        }
        const qn_str rest = {name.ptr + mtp_len, name.len - mtp_len};
        has_expert |= qn_str_begins(rest, "mlp.experts.");
        QN_TRY(
            status,
            qn_exclude_add(&m->own, replace_front(room, qn_draft_prefix(rest), name, mtp_len), err),
            fail);
    }
    if (has_expert) {
        status = qn_exclude_add(&m->own, qn_str_of("model.decoder.mlp.experts"), err);
    }
fail:
    return status;
}

qn_status qn_matcher_open(qn_matcher *out, qn_engine engine, const qn_exclude *exclude,
                          int32_t mtp_layer, qn_error *err)
{
    *out = (qn_matcher){.engine = engine, .mtp_layer = mtp_layer, .exclude = exclude};
    qn_status status = QN_OK;
    if (engine != QN_ENGINE_SGLANG && engine != QN_ENGINE_ATOM) {
        return QN_OK;
    }
    out->exclude = &out->own;
    QN_TRY(status, copy_list(&out->own, exclude, engine == QN_ENGINE_ATOM, err), fail);
    if (engine == QN_ENGINE_SGLANG) {
        QN_TRY(status, add_draft_names(out, exclude, err), fail);
    }
    qn_exclude_seal(&out->own);
fail:
    if (status < 0) {
        qn_matcher_close(out);
    }
    return status;
}

void qn_matcher_close(qn_matcher *matcher)
{
    qn_exclude_deinit(&matcher->own);
    *matcher = (qn_matcher){0};
}

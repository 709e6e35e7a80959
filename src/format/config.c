/* SPDX-License-Identifier: Apache-2.0 */
#include "format/config.h"

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/try.h"

#include <inttypes.h>

enum {
    CONFIG_BYTES_MAX = 16 << 20,
    SHOW_BYTES = 64,
};

/* What the functions below share while one file is read. */
typedef struct reader {
    json_t *root;     /* borrowed */
    const char *what; /* names the file in errors */
    qn_error *err;
} reader;

#define LEN(array) (sizeof(array) / sizeof((array)[0]))

/* Numbers of the model.  The bounds keep every product of three of them and a size below 2^63. */
static const struct {
    const char *key;
    size_t offset; /* of the uint32_t in qn_config */
    uint32_t min;
    uint32_t max;
} number_keys[] = {
    {"num_hidden_layers", offsetof(qn_config, n_layers), 1, QN_LAYERS_MAX - 1},
    {"hidden_size", offsetof(qn_config, n_embd), 1, 1 << 17},
    {"vocab_size", offsetof(qn_config, n_vocab), 1, 1 << 24},
    {"num_attention_heads", offsetof(qn_config, n_heads), 1, 1 << 12},
    {"q_lora_rank", offsetof(qn_config, q_rank), 1, 1 << 16},
    {"kv_lora_rank", offsetof(qn_config, kv_rank), 1, 1 << 16},
    {"qk_nope_head_dim", offsetof(qn_config, nope_dim), 1, 1 << 13},
    {"qk_rope_head_dim", offsetof(qn_config, rope_dim), 2, 1 << 13},
    {"v_head_dim", offsetof(qn_config, v_dim), 1, 1 << 13},
    {"index_n_heads", offsetof(qn_config, n_index_heads), 1, 1 << 12},
    {"index_head_dim", offsetof(qn_config, index_dim), 2, 1 << 13},
    {"index_topk", offsetof(qn_config, index_topk), 1, 1 << 24},
    {"intermediate_size", offsetof(qn_config, n_ff_dense), 1, 1 << 20},
    {"moe_intermediate_size", offsetof(qn_config, n_ff_expert), 1, 1 << 20},
    {"n_routed_experts", offsetof(qn_config, n_experts), 1, QN_EXPERTS_MAX},
    {"num_experts_per_tok", offsetof(qn_config, n_experts_used), 1, QN_EXPERTS_MAX},
    {"n_shared_experts", offsetof(qn_config, n_experts_shared), 1, 64},
    {"max_position_embeddings", offsetof(qn_config, n_context_max), 1, 1 << 27},
};

/* Keys with one value that this engine implements; absent is the same. */
static const struct {
    const char *key;
    json_type type;
    const char *text; /* JSON_STRING */
    int64_t number;   /* JSON_INTEGER */
} fixed_keys[] = {
    {"model_type", JSON_STRING, "glm_moe_dsa", 0},
    {"hidden_act", JSON_STRING, "silu", 0},
    {"scoring_func", JSON_STRING, "sigmoid", 0},
    {"topk_method", JSON_STRING, "noaux_tc", 0},
    {"moe_router_dtype", JSON_STRING, "float32", 0},
    {"n_group", JSON_INTEGER, NULL, 1},
    {"topk_group", JSON_INTEGER, NULL, 1},
    {"index_init_tokens", JSON_INTEGER, NULL, 0},
    {"index_local_tokens", JSON_INTEGER, NULL, 0},
    {"partial_rotary_factor", JSON_INTEGER, NULL, 1},
    {"tie_word_embeddings", JSON_FALSE, "false", 0},
    {"attention_bias", JSON_FALSE, "false", 0},
    {"mlp_bias", JSON_FALSE, "false", 0},
    {"rope_interleave", JSON_TRUE, "true", 0},
    {"indexer_rope_interleave", JSON_TRUE, "true", 0},
};

/* Keys that must repeat another one where they are present. */
static const struct {
    const char *key;
    const char *like;
    size_t offset; /* of the other one in qn_config */
} repeated_keys[] = {
    {"num_key_value_heads", "num_attention_heads", offsetof(qn_config, n_heads)},
    {"num_experts", "n_routed_experts", offsetof(qn_config, n_experts)},
    {"num_local_experts", "n_routed_experts", offsetof(qn_config, n_experts)},
};

/* Read by a function of its own. */
static const char *const other_keys[] = {
    "architectures",
    "dtype",
    "eos_token_id",
    "first_k_dense_replace",
    "index_share_for_mtp_iteration",
    "index_skip_topk_offset",
    "index_topk_freq",
    "index_topk_pattern",
    "indexer_types",
    "mlp_layer_types",
    "moe_layer_freq",
    "norm_topk_prob",
    "num_nextn_predict_layers",
    "pad_token_id",
    "qk_head_dim",
    "quantization_config",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "routed_scaling_factor",
    "torch_dtype",
};

/* Of no consequence for inference.  head_dim is 192 in GLM-5.2 and 64 in GLM-5 for the same heads,
 * and the reference overwrites it; ep_size and pretraining_tp describe the training machine;
 * quern_scale says how MXFP4 scales were chosen. */
static const char *const ignored_keys[] = {
    "_name_or_path", "attention_dropout",    "bos_token_id", "ep_size",
    "head_dim",      "initializer_range",    "layer_types",  "pretraining_tp",
    "quern_scale",   "transformers_version", "use_cache",
};

/* "FILE: key: seen, expected" for a value as it stands in the file. */
static qn_status refuse(const reader *r, const char *key, const json_t *value, const char *expected)
{
    char seen[SHOW_BYTES];
    qn_json_show(seen, sizeof seen, value);
    return qn_fail(r->err, QN_E_FORMAT, 0, "qn_config_load", "%s: %s: %s, %s expected", r->what,
                   key, seen, expected);
}

/* NULL where the key is absent or null: the reference does not tell these apart. */
static const json_t *get(const reader *r, const char *key)
{
    const json_t *const value = json_object_get(r->root, key);
    return json_is_null(value) ? NULL : value;
}

/* An integer that may be absent: then *out stays. */
static qn_status get_optional(const reader *r, uint64_t *out, const char *key, uint64_t min,
                              uint64_t max)
{
    return get(r, key) == NULL ? QN_OK
                               : qn_json_get_u64(out, r->root, key, min, max, r->what, r->err);
}

static uint32_t *number_at(qn_config *config, size_t offset)
{
    return (uint32_t *)(void *)((char *)config + offset);
}

static qn_status read_numbers(const reader *r, qn_config *out)
{
    qn_status status = QN_OK;
    uint64_t number = 0;
    double real = 0.0;
    for (size_t i = 0; i < LEN(number_keys); i++) {
        QN_TRY(status,
               qn_json_get_u64(&number, r->root, number_keys[i].key, number_keys[i].min,
                               number_keys[i].max, r->what, r->err),
               fail);
        *number_at(out, number_keys[i].offset) = (uint32_t)number;
    }
    number = 0;
    QN_TRY(status, get_optional(r, &number, "num_nextn_predict_layers", 0, 1), fail);
    out->n_mtp_layers = (uint32_t)number;
    QN_TRY(status, qn_json_get_f64(&real, r->root, "rms_norm_eps", 1e-12, 0.1, r->what, r->err),
           fail);
    out->rms_eps = (float)real;
    QN_TRY(status,
           qn_json_get_f64(&real, r->root, "routed_scaling_factor", 1e-6, 1e6, r->what, r->err),
           fail);
    out->routed_scale = (float)real;
    QN_TRY(status, qn_json_get_bool(&out->norm_topk, r->root, "norm_topk_prob", r->what, r->err),
           fail);
    if (get(r, "index_share_for_mtp_iteration") != NULL) {
        QN_TRY(status,
               qn_json_get_bool(&out->index_share_for_mtp, r->root, "index_share_for_mtp_iteration",
                                r->what, r->err),
               fail);
    }
fail:
    return status;
}

/* Is this the model that the engine implements? */
static qn_status check_identity(const reader *r)
{
    const char *const name = "GlmMoeDsaForCausalLM";
    const json_t *const list = get(r, "architectures");
    const char *const first = json_string_value(json_array_get(list, 0));
    if (json_array_size(list) != 1 || first == NULL || strcmp(first, name) != 0) {
        const json_t *const seen = json_array_size(list) == 1 ? json_array_get(list, 0) : list;
        return refuse(r, "architectures", seen, "[\"GlmMoeDsaForCausalLM\"]");
    }
    if (get(r, "model_type") == NULL) {
        return refuse(r, "model_type", NULL, "\"glm_moe_dsa\"");
    }
    for (size_t i = 0; i < LEN(fixed_keys); i++) {
        const json_t *const value = get(r, fixed_keys[i].key);
        int64_t number = 0;
        char expected[SHOW_BYTES];
        bool is_right = value == NULL;
        if (fixed_keys[i].type == JSON_STRING) {
            (void)snprintf(expected, sizeof expected, "\"%s\"", fixed_keys[i].text);
            is_right |=
                json_is_string(value) && strcmp(json_string_value(value), fixed_keys[i].text) == 0;
        } else if (fixed_keys[i].type == JSON_INTEGER) {
            (void)snprintf(expected, sizeof expected, "%" PRId64, fixed_keys[i].number);
            is_right |= qn_json_to_integer(&number, value) && number == fixed_keys[i].number;
        } else {
            (void)snprintf(expected, sizeof expected, "%s", fixed_keys[i].text);
            is_right |= value != NULL && json_typeof(value) == fixed_keys[i].type;
        }
        if (!is_right) {
            return refuse(r, fixed_keys[i].key, value, expected);
        }
    }
    return QN_OK;
}

/* What the numbers must be to each other. */
static qn_status check_numbers(const reader *r, qn_config *out)
{
    qn_status status = QN_OK;
    char expected[160];
    uint64_t number = out->nope_dim + out->rope_dim;
    QN_TRY(status, get_optional(r, &number, "qk_head_dim", 1, 1 << 14), fail);
    if (number != out->nope_dim + out->rope_dim) {
        (void)snprintf(expected, sizeof expected,
                       "%u + %u of qk_nope_head_dim and qk_rope_head_dim", out->nope_dim,
                       out->rope_dim);
        return refuse(r, "qk_head_dim", get(r, "qk_head_dim"), expected);
    }
    for (size_t i = 0; i < LEN(repeated_keys); i++) {
        const uint32_t like = *number_at(out, repeated_keys[i].offset);
        number = like;
        QN_TRY(status, get_optional(r, &number, repeated_keys[i].key, 0, UINT32_MAX), fail);
        if (number != like) {
            (void)snprintf(expected, sizeof expected, "%u as %s", like, repeated_keys[i].like);
            return refuse(r, repeated_keys[i].key, get(r, repeated_keys[i].key), expected);
        }
    }
    if (out->rope_dim % 2 != 0) {
        return refuse(r, "qk_rope_head_dim", get(r, "qk_rope_head_dim"), "an even number");
    }
    if (out->index_dim < out->rope_dim) {
        (void)snprintf(expected, sizeof expected, "at least %u, the qk_rope_head_dim,",
                       out->rope_dim);
        return refuse(r, "index_head_dim", get(r, "index_head_dim"), expected);
    }
    if (out->n_experts_used > out->n_experts) {
        (void)snprintf(expected, sizeof expected, "at most %u, the n_routed_experts,",
                       out->n_experts);
        return refuse(r, "num_experts_per_tok", get(r, "num_experts_per_tok"), expected);
    }
fail:
    return status;
}

/* One of the places where theta may stand; it must agree with what *theta holds unless 0. */
static qn_status take_theta(const reader *r, double *theta, const json_t *object, const char *where)
{
    double given = 0.0;
    const qn_status status =
        qn_json_get_f64(&given, object, "rope_theta", 1.0, 1e15, where, r->err);
    if (status < 0) {
        return status;
    }
    if (*theta != 0.0 && *theta != given) {
        return qn_fail(r->err, QN_E_FORMAT, 0, __func__,
                       "%s: rope_theta: %g, %g as in rope_parameters expected", where, given,
                       *theta);
    }
    *theta = given;
    return QN_OK;
}

/* rope_parameters, or rope_scaling as older files name it: only the plain rotation. */
static qn_status read_rope_object(const reader *r, double *theta, const char *name)
{
    json_t *const object = json_object_get(r->root, name);
    if (object == NULL || json_is_null(object)) {
        return QN_OK;
    }
    if (!json_is_object(object)) {
        return refuse(r, name, object, "an object");
    }
    char where[SHOW_BYTES];
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        const char *const text = json_string_value(value);
        (void)snprintf(where, sizeof where, "%s.%.40s", name, key);
        if (json_is_null(value) || strcmp(key, "rope_theta") == 0) {
            continue;
        }
        if (strcmp(key, "rope_type") == 0 || strcmp(key, "type") == 0) {
            if (text == NULL || strcmp(text, "default") != 0) {
                return refuse(r, where, value, "\"default\"");
            }
        } else if (strcmp(key, "partial_rotary_factor") != 0 || json_number_value(value) != 1.0) {
            return refuse(r, where, value, "rope_theta and rope_type alone");
        }
    }
    const json_t *const given = json_object_get(object, "rope_theta");
    if (given == NULL || json_is_null(given)) {
        return QN_OK;
    }
    char what[512];
    (void)snprintf(what, sizeof what, "%s: %s", r->what, name);
    return take_theta(r, theta, object, what);
}

static qn_status read_rope(const reader *r, qn_config *out)
{
    qn_status status = QN_OK;
    double theta = 0.0;
    QN_TRY(status, read_rope_object(r, &theta, "rope_parameters"), fail);
    QN_TRY(status, read_rope_object(r, &theta, "rope_scaling"), fail);
    if (get(r, "rope_theta") != NULL) {
        QN_TRY(status, take_theta(r, &theta, r->root, r->what), fail);
    }
    if (theta == 0.0) {
        return refuse(r, "rope_parameters.rope_theta", NULL, "a number from 1");
    }
    out->rope_theta = theta;
fail:
    return status;
}

/* A source of one flag per layer: a list of two words, or a formula over other keys. */
typedef struct layer_source {
    const char *key;      /* the source is given when this one is */
    const char *words[2]; /* what stands in the list for false and true */
    /* Fills flags[0 .. n_layers-1]; NULL for a list. */
    qn_status (*formula)(const reader *r, bool *flags, uint32_t n_layers);
} layer_source;

/* Spec: layer i is full  <=>  max(i - offset + 1, 0) mod freq == 0. */
static qn_status index_formula(const reader *r, bool *flags, uint32_t n_layers)
{
    qn_status status = QN_OK;
    uint64_t freq = 1;
    uint64_t offset = 2;
    QN_TRY(status, get_optional(r, &freq, "index_topk_freq", 1, QN_LAYERS_MAX), fail);
    QN_TRY(status, get_optional(r, &offset, "index_skip_topk_offset", 0, QN_LAYERS_MAX), fail);
    for (uint64_t i = 0; i < n_layers; i++) {
        flags[i] = i + 1 <= offset || (i + 1 - offset) % freq == 0;
    }
fail:
    return status;
}

static qn_status dense_formula(const reader *r, bool *flags, uint32_t n_layers)
{
    qn_status status = QN_OK;
    uint64_t n_dense = 0;
    uint64_t freq = 1;
    QN_TRY(status, get_optional(r, &n_dense, "first_k_dense_replace", 0, QN_LAYERS_MAX), fail);
    QN_TRY(status, get_optional(r, &freq, "moe_layer_freq", 1, QN_LAYERS_MAX), fail);
    for (uint64_t i = 0; i < n_layers; i++) {
        flags[i] = i < n_dense || i % freq != 0;
    }
fail:
    return status;
}

/* A list of words, or one string of one-letter words. */
static qn_status read_words(const reader *r, const layer_source *source, bool *flags,
                            uint32_t n_layers)
{
    const json_t *const list = get(r, source->key);
    const char *const text = source->words[0][1] == '\0' ? json_string_value(list) : NULL;
    const size_t len = text != NULL ? json_string_length(list) : json_array_size(list);
    if (text == NULL && !json_is_array(list)) {
        return refuse(r, source->key, list, "a list of num_hidden_layers words");
    }
    if (len != n_layers) {
        return qn_fail(r->err, QN_E_FORMAT, 0, __func__,
                       "%s: %s: %zu layers, %u (num_hidden_layers) expected", r->what, source->key,
                       len, n_layers);
    }
    for (uint32_t i = 0; i < n_layers; i++) {
        char letter[2] = {0};
        memcpy(letter, text != NULL ? text + i : "", 1);
        const char *const word = text != NULL ? letter : json_string_value(json_array_get(list, i));
        if (word == NULL ||
            (strcmp(word, source->words[0]) != 0 && strcmp(word, source->words[1]) != 0)) {
            return qn_fail(r->err, QN_E_FORMAT, 0, __func__,
                           "%s: %s[%u]: %.40s, \"%s\" or \"%s\" expected", r->what, source->key, i,
                           word == NULL ? "not a string" : word, source->words[1],
                           source->words[0]);
        }
        flags[i] = strcmp(word, source->words[1]) == 0;
    }
    return QN_OK;
}

/*
 * The flags of the first source that is given; those after it must agree.
 * *given_key names that source, NULL where none is given.
 */
static qn_status resolve(const reader *r, const layer_source *sources, size_t n_sources,
                         bool *flags, uint32_t n_layers, const char **given_key)
{
    *given_key = NULL;
    for (size_t i = 0; i < n_sources; i++) {
        const layer_source *const source = &sources[i];
        bool mine[QN_LAYERS_MAX] = {false};
        if (get(r, source->key) == NULL) {
            continue;
        }
        const qn_status status = source->formula != NULL ? source->formula(r, mine, n_layers)
                                                         : read_words(r, source, mine, n_layers);
        if (status < 0) {
            return status;
        }
        for (uint32_t i_layer = 0; i_layer < n_layers; i_layer++) {
            if (*given_key != NULL && mine[i_layer] != flags[i_layer]) {
                return qn_fail(r->err, QN_E_FORMAT, 0, __func__,
                               "%s: %s: layer %u %s, %s expected by %s", r->what, source->key,
                               i_layer, sources[0].words[mine[i_layer]],
                               sources[0].words[flags[i_layer]], *given_key);
            }
        }
        if (*given_key == NULL) {
            memcpy(flags, mine, sizeof mine);
            *given_key = source->key;
        }
    }
    return QN_OK;
}

static qn_status read_layers(const reader *r, qn_config *out)
{
    static const layer_source dense_sources[] = {
        {.key = "mlp_layer_types", .words = {"sparse", "dense"}},
        {.key = "first_k_dense_replace", .formula = dense_formula},
    };
    static const layer_source index_sources[] = {
        {.key = "indexer_types", .words = {"shared", "full"}},
        {.key = "index_topk_pattern", .words = {"S", "F"}},
        {.key = "index_topk_freq", .formula = index_formula},
    };
    qn_status status = QN_OK;
    const char *key = NULL;
    QN_TRY(status,
           resolve(r, dense_sources, LEN(dense_sources), out->is_dense, out->n_layers, &key), fail);
    if (key == NULL) {
        return refuse(r, "mlp_layer_types", NULL, "a list, or first_k_dense_replace,");
    }
    QN_TRY(status,
           resolve(r, index_sources, LEN(index_sources), out->is_index_full, out->n_layers, &key),
           fail);
    for (uint32_t i = 0; i < out->n_layers && key == NULL; i++) {
        out->is_index_full[i] = true; /* GLM-5 and 5.1 do not share */
    }
    if (!out->is_index_full[0]) {
        return qn_fail(r->err, QN_E_FORMAT, 0, __func__,
                       "%s: %s: layer 0 shared, full expected (it has none to share)", r->what,
                       key);
    }
    for (uint32_t i = 0; i < out->n_mtp_layers; i++) {
        out->is_dense[out->n_layers + i] = false;
        out->is_index_full[out->n_layers + i] = true;
    }
fail:
    return status;
}

static bool is_token_id(const json_t *value, uint32_t n_vocab, int64_t *id)
{
    return qn_json_to_integer(id, value) && *id >= 0 && *id < (int64_t)n_vocab;
}

/* eos_token_id: an id, a list of ids, or absent. */
static qn_status read_stop_ids(const reader *r, uint32_t n_vocab, int32_t *stop_ids,
                               uint32_t *n_stop_ids)
{
    const json_t *const value = get(r, "eos_token_id");
    const bool is_list = json_is_array(value);
    const size_t n = is_list ? json_array_size(value) : value != NULL ? 1 : 0;
    if (n > QN_STOP_IDS_MAX) {
        return qn_fail(r->err, QN_E_FORMAT, 0, __func__,
                       "%s: eos_token_id: %zu ids, at most %d "
                       "expected",
                       r->what, n, QN_STOP_IDS_MAX);
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *const item = is_list ? json_array_get(value, i) : value;
        int64_t id = 0;
        if (!is_token_id(item, n_vocab, &id)) {
            char expected[SHOW_BYTES];
            (void)snprintf(expected, sizeof expected, "an id below vocab_size %u", n_vocab);
            return refuse(r, "eos_token_id", item, expected);
        }
        stop_ids[i] = (int32_t)id;
    }
    *n_stop_ids = (uint32_t)n;
    return QN_OK;
}

static qn_status read_pad_id(const reader *r, qn_config *out)
{
    const json_t *const value = get(r, "pad_token_id");
    int64_t id = -1;
    if (value != NULL && !is_token_id(value, out->n_vocab, &id)) {
        char expected[SHOW_BYTES];
        (void)snprintf(expected, sizeof expected, "an id below vocab_size %u", out->n_vocab);
        return refuse(r, "pad_token_id", value, expected);
    }
    out->pad_id = (int32_t)id;
    return QN_OK;
}

/* dtype, or torch_dtype as older files name it.  Checked only: each tensor has its own. */
static qn_status check_dtype(const reader *r)
{
    static const char *const keys[] = {"dtype", "torch_dtype"};
    const json_t *const first = get(r, keys[0]);
    for (size_t i = 0; i < LEN(keys); i++) {
        const json_t *const value = get(r, keys[i]);
        const char *const text = json_string_value(value);
        if (value != NULL &&
            (text == NULL || (strcmp(text, "bfloat16") != 0 && strcmp(text, "float16") != 0 &&
                              strcmp(text, "float32") != 0))) {
            return refuse(r, keys[i], value, "bfloat16, float16 or float32");
        }
        if (value != NULL && first != NULL && !json_equal(first, value)) {
            char expected[SHOW_BYTES];
            (void)snprintf(expected, sizeof expected, "\"%s\" as dtype", json_string_value(first));
            return refuse(r, keys[i], value, expected);
        }
    }
    return QN_OK;
}

static qn_status read_quantization(const reader *r, qn_config *out)
{
    const json_t *const quant = get(r, "quantization_config");
    if (quant == NULL) {
        return QN_OK;
    }
    const char *const method = json_string_value(json_object_get(quant, "quant_method"));
    if (method == NULL) {
        return refuse(r, "quantization_config.quant_method", json_object_get(quant, "quant_method"),
                      "a string");
    }
    out->quant_declared = strcmp(method, "fp8") == 0     ? QN_QUANT_FP8
                          : strcmp(method, "quark") == 0 ? QN_QUANT_QUARK
                                                         : QN_QUANT_OTHER;
    const json_t *const block = json_object_get(quant, "weight_block_size");
    int64_t rows = 0;
    int64_t columns = 0;
    const bool is_128 = qn_json_to_integer(&rows, json_array_get(block, 0)) && rows == 128 &&
                        qn_json_to_integer(&columns, json_array_get(block, 1)) && columns == 128 &&
                        json_array_size(block) == 2;
    if (out->quant_declared == QN_QUANT_FP8 && block != NULL && !is_128) {
        return refuse(r, "quantization_config.weight_block_size", block, "[128, 128]");
    }
    return QN_OK;
}

static bool is_in(const char *const *keys, size_t n_keys, const char *key)
{
    for (size_t i = 0; i < n_keys; i++) {
        if (strcmp(keys[i], key) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_known(const char *key)
{
    for (size_t i = 0; i < LEN(number_keys); i++) {
        if (strcmp(number_keys[i].key, key) == 0) {
            return true;
        }
    }
    for (size_t i = 0; i < LEN(fixed_keys); i++) {
        if (strcmp(fixed_keys[i].key, key) == 0) {
            return true;
        }
    }
    for (size_t i = 0; i < LEN(repeated_keys); i++) {
        if (strcmp(repeated_keys[i].key, key) == 0) {
            return true;
        }
    }
    return is_in(other_keys, LEN(other_keys), key) || is_in(ignored_keys, LEN(ignored_keys), key);
}

static bool is_known_for_generation(const char *key)
{
    static const char *const keys[] = {
        "_from_model_config",   "bos_token_id",       "do_sample",   "eos_token_id", "min_p",
        "pad_token_id",         "repetition_penalty", "temperature", "top_k",        "top_p",
        "transformers_version",
    };
    return is_in(keys, LEN(keys), key);
}

/* One line for all keys that nothing reads. */
static void note_unknown(const reader *r, bool (*knows)(const char *key))
{
    char line[600] = "";
    size_t len = 0;
    const char *key;
    json_t *value;
    json_object_foreach(r->root, key, value)
    {
        if (!knows(key) && len < sizeof line) {
            const int n = snprintf(line + len, sizeof line - len, "%s%s", len > 0 ? ", " : "", key);
            len += n > 0 ? (size_t)n : 0;
        }
    }
    if (len > 0) {
        qn_log(QN_LOG_INFO, "%s: noted, not used: %s", r->what, line);
    }
}

qn_status qn_config_parse(qn_config *out, qn_str text, const char *what, qn_error *err)
{
    *out = (qn_config){.pad_id = -1};
    json_t *root = NULL;
    qn_status status = qn_json_parse(&root, text, what, err);
    const reader r = {.root = root, .what = what, .err = err};
    qn_config config = *out;
    if (status < 0) {
        return status;
    }
    if (!json_is_object(root)) {
        status = qn_fail(err, QN_E_FORMAT, 0, __func__, "%s: %s, an object expected", what,
                         qn_json_type_name(root));
        goto fail;
    }
    QN_TRY(status, check_identity(&r), fail);
    QN_TRY(status, read_numbers(&r, &config), fail);
    QN_TRY(status, check_numbers(&r, &config), fail);
    QN_TRY(status, read_rope(&r, &config), fail);
    QN_TRY(status, read_layers(&r, &config), fail);
    QN_TRY(status, read_stop_ids(&r, config.n_vocab, config.stop_ids, &config.n_stop_ids), fail);
    QN_TRY(status, read_pad_id(&r, &config), fail);
    QN_TRY(status, check_dtype(&r), fail);
    QN_TRY(status, read_quantization(&r, &config), fail);
    note_unknown(&r, is_known);
    *out = config;
fail:
    json_decref(root);
    return status;
}

qn_status qn_config_load(qn_config *out, const char *path, qn_error *err)
{
    qn_buf text;
    qn_buf_init(&text, CONFIG_BYTES_MAX);
    *out = (qn_config){.pad_id = -1};
    qn_status status = qn_file_read(&text, path, err);
    if (status == QN_OK) {
        status = qn_config_parse(out, qn_buf_view(&text), path, err);
    }
    qn_buf_deinit(&text);
    return status;
}

static qn_status get_real(const reader *r, float *out, const char *key, double min, double max)
{
    double value = 0.0;
    if (get(r, key) == NULL) {
        return QN_OK;
    }
    const qn_status status = qn_json_get_f64(&value, r->root, key, min, max, r->what, r->err);
    if (status == QN_OK) {
        *out = (float)value;
    }
    return status;
}

qn_status qn_generation_config_load(qn_generation_config *out, const char *path, uint32_t n_vocab,
                                    qn_error *err)
{
    *out = (qn_generation_config){
        .temperature = 1.0F, .top_p = 1.0F, .repetition_penalty = 1.0F, .do_sample = true};
    qn_generation_config config = *out;
    json_t *root = NULL;
    qn_status status = qn_json_load(&root, path, CONFIG_BYTES_MAX, err);
    const reader r = {.root = root, .what = path, .err = err};
    uint64_t top_k = 0;
    if (status < 0) {
        return status == QN_E_NOT_FOUND ? QN_OK : status;
    }
    if (!json_is_object(root)) {
        status = qn_fail(err, QN_E_FORMAT, 0, __func__, "%s: %s, an object expected", path,
                         qn_json_type_name(root));
        goto fail;
    }
    QN_TRY(status, get_real(&r, &config.temperature, "temperature", 0.0, 100.0), fail);
    QN_TRY(status, get_real(&r, &config.top_p, "top_p", 1e-6, 1.0), fail);
    QN_TRY(status, get_real(&r, &config.min_p, "min_p", 0.0, 1.0), fail);
    QN_TRY(status, get_real(&r, &config.repetition_penalty, "repetition_penalty", 1e-6, 10.0),
           fail);
    QN_TRY(status, get_optional(&r, &top_k, "top_k", 0, INT32_MAX), fail);
    config.top_k = (uint32_t)top_k;
    if (get(&r, "do_sample") != NULL) {
        QN_TRY(status, qn_json_get_bool(&config.do_sample, root, "do_sample", path, err), fail);
    }
    QN_TRY(status, read_stop_ids(&r, n_vocab, config.stop_ids, &config.n_stop_ids), fail);
    note_unknown(&r, is_known_for_generation);
    *out = config;
fail:
    json_decref(root);
    return status;
}

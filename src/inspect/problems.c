/* SPDX-License-Identifier: Apache-2.0 */
#include "inspect/problems.h"

#include "base/file.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const struct {
    const char *name;
    bool is_error;
} codes[QN_N_PROBLEMS] = {
    [QN_PROBLEM_CONFIG_MISSING] = {"config-missing", true},
    [QN_PROBLEM_CONFIG_BROKEN] = {"config-broken", true},
    [QN_PROBLEM_CONFIG_INVALID] = {"config-invalid", true},
    [QN_PROBLEM_ARCHITECTURE] = {"architecture-unsupported", true},
    [QN_PROBLEM_GENERATION_CONFIG] = {"generation-config-invalid", true},
    [QN_PROBLEM_WEIGHTS_MISSING] = {"weights-missing", true},
    [QN_PROBLEM_FORMAT_GGUF] = {"format-gguf", true},
    [QN_PROBLEM_FORMAT_NVFP4] = {"format-nvfp4", true},
    [QN_PROBLEM_FORMAT_COMPRESSED_TENSORS] = {"format-compressed-tensors", true},
    [QN_PROBLEM_FORMAT_GPTQ] = {"format-gptq", true},
    [QN_PROBLEM_FORMAT_AWQ] = {"format-awq", true},
    [QN_PROBLEM_FORMAT_MXFP6] = {"format-mxfp6", true},
    [QN_PROBLEM_FORMAT_MXFP8] = {"format-mxfp8", true},
    [QN_PROBLEM_FORMAT_GPT_OSS] = {"format-gpt-oss", true},
    [QN_PROBLEM_FORMAT_OTHER] = {"format-other", true},
    [QN_PROBLEM_EXPERTS_FUSED] = {"experts-fused", true},
    [QN_PROBLEM_INDEX_BROKEN] = {"index-broken", true},
    [QN_PROBLEM_INDEX_ENTRY] = {"index-entry-invalid", true},
    [QN_PROBLEM_SHARD_MISSING] = {"shard-missing", true},
    [QN_PROBLEM_SHARD_UNREADABLE] = {"shard-unreadable", true},
    [QN_PROBLEM_NOT_FETCHED] = {"file-not-fetched", true},
    [QN_PROBLEM_SHARD_TRUNCATED] = {"shard-truncated", true},
    [QN_PROBLEM_SHARD_TRAILING] = {"shard-trailing-bytes", true},
    [QN_PROBLEM_HEADER_BROKEN] = {"header-broken", true},
    [QN_PROBLEM_HEADER_ENTRY] = {"header-entry-broken", true},
    [QN_PROBLEM_OFFSETS] = {"offsets-broken", true},
    [QN_PROBLEM_INDEX_TENSOR_MISSING] = {"index-tensor-missing", true},
    [QN_PROBLEM_INDEX_LACKS_TENSOR] = {"index-lacks-tensor", true},
    [QN_PROBLEM_INDEX_WRONG_SHARD] = {"index-wrong-shard", true},
    [QN_PROBLEM_TENSOR_DUPLICATE] = {"tensor-duplicate", true},
    [QN_PROBLEM_TENSOR_UNKNOWN] = {"tensor-unknown", true},
    [QN_PROBLEM_TENSOR_MISSING] = {"tensor-missing", true},
    [QN_PROBLEM_TENSOR_SHAPE] = {"tensor-misshapen", true},
    [QN_PROBLEM_TENSOR_DTYPE] = {"tensor-dtype", true},
    [QN_PROBLEM_PACKING] = {"packing-ratio", true},
    [QN_PROBLEM_SCALE_MISSING] = {"scale-missing", true},
    [QN_PROBLEM_SCALE_SHAPE] = {"scale-misshapen", true},
    [QN_PROBLEM_SCALE_DTYPE] = {"scale-dtype", true},
    [QN_PROBLEM_SCALE_ALONE] = {"scale-without-weight", true},
    [QN_PROBLEM_MTP_UNDECLARED] = {"mtp-undeclared", true},
    [QN_PROBLEM_MTP_INCOMPLETE] = {"mtp-incomplete", true},
    [QN_PROBLEM_WEIGHT_NOT_FINITE] = {"weight-not-finite", true},
    [QN_PROBLEM_SCALE_NAN] = {"scale-nan", true},
    [QN_PROBLEM_SCALE_RANGE] = {"scale-out-of-range", true},
    [QN_PROBLEM_TOKENIZER_MISSING] = {"tokenizer-missing", true},
    [QN_PROBLEM_TOKENIZER_BROKEN] = {"tokenizer-broken", true},
    [QN_PROBLEM_TOKENIZER_SIZE] = {"tokenizer-too-large", true},
    [QN_PROBLEM_STOP_ID] = {"stop-id-without-token", true},
    [QN_PROBLEM_SGLANG] = {"sglang-fails", true},
    [QN_PROBLEM_VLLM] = {"vllm-fails", true},
    [QN_PROBLEM_ATOM] = {"atom-fails", true},
    [QN_PROBLEM_WEIGHTS_ZERO] = {"weights-zero", false},
    [QN_PROBLEM_SPECIAL_TOKEN] = {"special-token-missing", false},
    [QN_PROBLEM_STOP_IDS] = {"stop-ids-unusual", false},
    [QN_PROBLEM_TOKENIZER_SMALL] = {"tokenizer-too-small", false},
    [QN_PROBLEM_MTP_MISSING] = {"mtp-missing", false},
    [QN_PROBLEM_RMS_EPS] = {"rms-eps", false},
    [QN_PROBLEM_ROPE_THETA] = {"rope-theta", false},
    [QN_PROBLEM_SHARD_UNUSED] = {"shard-unused", false},
    [QN_PROBLEM_QUANT_UNDECLARED] = {"quantization-undeclared", false},
    [QN_PROBLEM_QUANT_DIFFERS] = {"quantization-differs", false},
    [QN_PROBLEM_EXCLUDE_BROKEN] = {"exclude-broken", false},
    [QN_PROBLEM_EXCLUDE_NOTHING] = {"exclude-matches-nothing", false},
    [QN_PROBLEM_EXCLUDED_QUANTIZED] = {"quantized-but-excluded", false},
    [QN_PROBLEM_NOT_EXCLUDED] = {"unquantized-not-excluded", false},
    [QN_PROBLEM_SGLANG_KEYS] = {"sglang-config-keys", false},
    [QN_PROBLEM_SGLANG_WEIGHT_ONLY] = {"sglang-weight-only", false},
    [QN_PROBLEM_SGLANG_OLD] = {"sglang-old-fails", false},
    [QN_PROBLEM_VLLM_OLD] = {"vllm-old-fails", false},
    [QN_PROBLEM_SCALE_NAME] = {"vllm-scale-name", false},
    [QN_PROBLEM_FP8_SCALE_NAME] = {"fp8-scale-name", false},
};

const char *qn_problem_name(qn_problem_code code)
{
    return codes[code].name;
}

bool qn_problem_is_error(qn_problem_code code)
{
    return codes[code].is_error;
}

/* A copy, NULL without memory. */
static char *copy(const char *text, size_t len)
{
    char *const to = malloc(len + 1);
    if (to != NULL) {
        memcpy(to, text, len);
        to[len] = '\0';
    }
    return to;
}

/* Room for one more; NULL where it is only counted, or there is no memory. */
static qn_problem *take_place(qn_problems *list, qn_problem_code code)
{
    if (list->n_of[code]++ >= QN_PROBLEMS_KEPT) {
        return NULL;
    }
    const size_t n = list->n_items;
    if ((n & (n - 1)) == 0) { /* full at each power of two */
        qn_problem *const items = realloc(list->items, (n == 0 ? 1 : 2 * n) * sizeof *items);
        if (items == NULL) {
            list->has_lost = true;
            return NULL;
        }
        list->items = items;
    }
    list->items[list->n_items] = (qn_problem){.code = code};
    return &list->items[list->n_items++];
}

static void add(qn_problems *list, qn_problem_code code, qn_str tensor, const char *file,
                const char *message)
{
    qn_problem *const problem = take_place(list, code);
    if (problem == NULL) {
        return;
    }
    problem->tensor = tensor.len > 0 ? copy(tensor.ptr, tensor.len) : NULL;
    problem->file = file != NULL ? copy(file, strlen(file)) : NULL;
    problem->message = copy(message, strlen(message));
    if (problem->file != NULL) {
        qn_text_clean(problem->file);
    }
    list->has_lost |= (tensor.len > 0 && problem->tensor == NULL) ||
                      (file != NULL && problem->file == NULL) || problem->message == NULL;
}

void qn_problems_add(qn_problems *list, qn_problem_code code, qn_str tensor, const char *file,
                     const char *format, ...)
{
    char text[1200];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    qn_text_clean(text);
    add(list, code, tensor, file, text);
}

/* Behind @p prefix and ": " where @p text begins so. */
static const char *skip(const char *text, qn_str prefix)
{
    const bool is_there = prefix.len > 0 && strncmp(text, prefix.ptr, prefix.len) == 0 &&
                          strncmp(text + prefix.len, ": ", 2) == 0;
    return is_there ? text + prefix.len + 2 : text;
}

void qn_problems_add_error(qn_problems *list, qn_problem_code code, qn_str tensor, const char *file,
                           const char *text)
{
    static const char word[] = "tensor ";
    const char *message = file != NULL ? skip(text, qn_str_of(file)) : text;
    if (tensor.len > 0 && strncmp(message, word, strlen(word)) == 0) {
        const char *const behind = skip(message + strlen(word), tensor);
        message = behind != message + strlen(word) ? behind : message;
    }
    add(list, code, tensor, file, message);
}

void qn_problems_move(qn_problems *list, qn_problems *from)
{
    for (size_t i = 0; i < from->n_items; i++) {
        qn_problem *const problem = &from->items[i];
        from->n_of[problem->code]--;
        qn_problem *const to = take_place(list, problem->code);
        if (to != NULL) {
            *to = *problem;
            *problem = (qn_problem){0};
        }
    }
    for (size_t code = 0; code < QN_N_PROBLEMS; code++) { /* those that were counted alone */
        list->n_of[code] += from->n_of[code];
    }
    list->has_lost |= from->has_lost;
    qn_problems_deinit(from);
}

/* By how it begins. */
static const char *stands_instead(qn_str begin)
{
    static const char *const pages[] = {"<!DOCTYPE", "<!doctype", "<html", "<HTML"};
    if (qn_str_begins(begin, "version https://git-lfs")) {
        return "a pointer of Git LFS (git lfs pull fetches what it points to)";
    }
    while (begin.len > 0 && begin.ptr[0] != '\0' && strchr(" \t\r\n", begin.ptr[0]) != NULL) {
        begin = (qn_str){begin.ptr + 1, begin.len - 1};
    }
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++) {
        if (qn_str_begins(begin, pages[i])) {
            return "a web page (HTML)";
        }
    }
    return NULL;
}

bool qn_problems_add_instead(qn_problems *list, const char *path)
{
    char begin[64];
    uint64_t n_bytes = 0;
    int fd = -1;
    const char *file = NULL;
    const char *what = NULL;
    (void)qn_path_parent(path, &file);
    if (qn_file_open(&fd, &n_bytes, path, NULL) == QN_OK) {
        n_bytes = n_bytes < sizeof begin ? n_bytes : sizeof begin;
        if (qn_read_at(fd, begin, n_bytes, 0, path, NULL) == QN_OK) {
            what = stands_instead((qn_str){begin, n_bytes});
        }
        (void)close(fd);
    }
    if (what != NULL) {
        qn_problems_add(list, QN_PROBLEM_NOT_FETCHED, (qn_str){0}, file,
                        "%s, the file itself expected", what);
    }
    return what != NULL;
}

uint64_t qn_problems_count(const qn_problems *list, bool errors)
{
    uint64_t n = 0;
    for (size_t code = 0; code < QN_N_PROBLEMS; code++) {
        n += qn_problem_is_error((qn_problem_code)code) == errors ? list->n_of[code] : 0;
    }
    return n;
}

void qn_problems_deinit(qn_problems *list)
{
    for (size_t i = 0; i < list->n_items; i++) {
        free(list->items[i].tensor);
        free(list->items[i].file);
        free(list->items[i].message);
    }
    free(list->items);
    *list = (qn_problems){0};
}

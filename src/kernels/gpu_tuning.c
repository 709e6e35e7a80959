/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/gpu_tuning.h"

#include "base/assert.h"
#include "base/file.h"
#include "base/try.h"
#include "kernels/gpu_tuning_shipped.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

enum {
    FIELDS = 11,
    TEXT_BYTES_MAX = 4 << 20,
    ROWS_MAX = 1 << 24,
    STRIPS_MAX = 16,
    SPLITS_MAX = 16
};

struct qn_gpu_tuning {
    char *name; /* owned */
    char device[64];
    bool is_untuned;
    uint32_t n_rows;
    qn_gpu_tuning_row *rows; /* owned */
};

static const char *const op_names[QN_GPU_N_TUNED_OPS] = {"matmul", "moe", "attend", "index"};
static const char *const weight_names[] = {"bf16", "fp8", "mxfp4"};
static const char *const cache_names[] = {"bf16", "fp8"};
const char qn_gpu_tuning_head[] = "op,kind,n_out,n_in,pair,groups,rows,variant,strips,splits,us";

qn_gpu_source qn_gpu_tuning_source(const qn_gpu_tuning_row *row)
{
    return strcmp(row->variant, "plain") == 0 || strncmp(row->variant, "portable", 8) == 0
               ? QN_GPU_FALLBACK
               : QN_GPU_TUNED;
}

const char *qn_gpu_tuned_op_name(uint32_t op)
{
    return op_names[op];
}

const char *qn_gpu_tuned_kind_name(uint32_t op, uint32_t kind)
{
    return op < QN_GPU_TUNED_ATTEND ? weight_names[kind] : cache_names[kind];
}

static const char *variant_name(uint32_t op, uint32_t i)
{
    return op < QN_GPU_TUNED_ATTEND    ? qn_gpu_matmul_variants[i].name
           : op == QN_GPU_TUNED_ATTEND ? qn_gpu_attend_variants[i].name
                                       : qn_gpu_index_scores_variants[i].name;
}

static uint32_t count_variants(uint32_t op)
{
    return op < QN_GPU_TUNED_ATTEND    ? qn_gpu_n_matmul_variants
           : op == QN_GPU_TUNED_ATTEND ? qn_gpu_n_attend_variants
                                       : qn_gpu_n_index_scores_variants;
}

/* ---------------------------------------------------------------------------------- one line -- */

/* Where a line is, and its fields. */
typedef struct line {
    const char *name;
    uint32_t number;
    qn_str fields[FIELDS];
} line;

static qn_status refuse(const line *at, const char *field, qn_str seen, const char *expected,
                        qn_error *err)
{
    return qn_fail(err, QN_E_FORMAT, 0, "qn_gpu_tuning_parse",
                   "%s: line %u: %s \"%.*s\", %s expected", at->name, at->number, field,
                   (int)(seen.len < 64 ? seen.len : 64), seen.len > 0 ? seen.ptr : "", expected);
}

static qn_status split(line *at, qn_str text, qn_error *err)
{
    uint32_t n = 0;
    for (const char *from = text.ptr, *end = text.ptr + text.len; n < FIELDS; n++) {
        const char *comma = memchr(from, ',', (size_t)(end - from));
        at->fields[n] = (qn_str){from, (size_t)((comma != NULL ? comma : end) - from)};
        if (comma == NULL) {
            break;
        }
        from = comma + 1;
    }
    return n == FIELDS - 1 ? QN_OK : refuse(at, "fields", text, qn_gpu_tuning_head, err);
}

/* A whole number, of nothing but digits. */
static qn_status read_number(uint32_t *out, const line *at, uint32_t i, const char *field,
                             uint32_t least, uint32_t most, qn_error *err)
{
    char expected[64];
    uint64_t n = 0;
    const qn_str text = at->fields[i];
    bool is_good = text.len > 0 && text.len < 10;
    for (size_t k = 0; is_good && k < text.len; k++) {
        is_good = text.ptr[k] >= '0' && text.ptr[k] <= '9';
        n = n * 10 + (uint64_t)(text.ptr[k] - '0');
    }
    *out = (uint32_t)n;
    if (is_good && n >= least && n <= most) {
        return QN_OK;
    }
    (void)snprintf(expected, sizeof expected, "a whole number in %u .. %u", least, most);
    return refuse(at, field, text, expected, err);
}

static qn_status read_name(uint32_t *out, const line *at, uint32_t i, const char *field,
                           const char *const *names, uint32_t n_names, const char *expected,
                           qn_error *err)
{
    for (*out = 0; *out < n_names; ++*out) {
        if (qn_str_equal(at->fields[i], qn_str_of(names[*out]))) {
            return QN_OK;
        }
    }
    return refuse(at, field, at->fields[i], expected, err);
}

static qn_status read_key(qn_gpu_tuning_key *key, const line *at, qn_error *err)
{
    qn_status status = QN_OK;
    QN_TRY(status,
           read_name(&key->op, at, 0, "op", op_names, QN_GPU_N_TUNED_OPS,
                     "matmul, moe, attend or index", err),
           fail);
    if (key->op < QN_GPU_TUNED_ATTEND) {
        status = read_name(&key->kind, at, 1, "kind", weight_names, 3, "bf16, fp8 or mxfp4", err);
    } else {
        status = read_name(&key->kind, at, 1, "kind", cache_names, 2, "bf16 or fp8", err);
    }
    QN_TRY(status, status, fail);
    QN_TRY(status, read_number(&key->n_out, at, 2, "n_out", 1, 1U << 24, err), fail);
    QN_TRY(status, read_number(&key->n_in, at, 3, "n_in", 1, 1U << 24, err), fail);
    QN_TRY(status, read_number(&key->is_pair, at, 4, "pair", 0, 1, err), fail);
    QN_TRY(status, read_number(&key->n_groups, at, 5, "groups", 1, 65535, err), fail);
fail:
    return status;
}

static bool is_power(uint32_t n)
{
    return n > 0 && (n & (n - 1)) == 0;
}

static qn_status read_variant(qn_gpu_tuning_row *row, const line *at, qn_error *err)
{
    const qn_str name = at->fields[7];
    if (name.len == 0 || name.len >= sizeof row->variant) {
        return refuse(at, "variant", name, "a name of 1 to 31 characters", err);
    }
    memcpy(row->variant, name.ptr, name.len);
    row->i_variant = UINT32_MAX; /* may be one of another version: whoever chooses says so */
    for (uint32_t i = 0; i < count_variants(row->key.op); i++) {
        if (strcmp(variant_name(row->key.op, i), row->variant) == 0) {
            row->i_variant = i;
        }
    }
    return QN_OK;
}

/* Strips, splits and microseconds. */
static qn_status read_rest(qn_gpu_tuning_row *row, const line *at, qn_error *err)
{
    qn_status status = QN_OK;
    char text[32] = "";
    char *end = text;
    QN_TRY(status, read_number(&row->n_strips, at, 8, "strips", 0, STRIPS_MAX, err), fail);
    QN_TRY(status, read_number(&row->n_splits, at, 9, "splits", 0, SPLITS_MAX, err), fail);
    if (row->n_strips != 0 && (!is_power(row->n_strips) || row->n_strips < 2)) {
        return refuse(at, "strips", at->fields[8], "0, 2, 4, 8 or 16", err);
    }
    if ((row->n_strips == 0) != (row->n_splits == 0)) {
        return refuse(at, "splits", at->fields[9], "0 where strips are 0, and only there", err);
    }
    if (at->fields[10].len < sizeof text) {
        memcpy(text, at->fields[10].ptr, at->fields[10].len);
        row->us = strtof(text, &end);
    }
    if (end == text || *end != '\0' || !(row->us > 0.0F && row->us < 1e12F)) {
        return refuse(at, "us", at->fields[10], "microseconds above 0", err);
    }
fail:
    return status;
}

static qn_status read_row(qn_gpu_tuning_row *row, line *at, qn_str text, qn_error *err)
{
    qn_status status = QN_OK;
    *row = (qn_gpu_tuning_row){.line = at->number};
    QN_TRY(status, split(at, text, err), fail);
    QN_TRY(status, read_key(&row->key, at, err), fail);
    QN_TRY(status, read_number(&row->n_rows, at, 6, "rows", 1, ROWS_MAX, err), fail);
    if (!is_power(row->n_rows)) {
        return refuse(at, "rows", at->fields[6], "a power of two", err);
    }
    QN_TRY(status, read_variant(row, at, err), fail);
    QN_TRY(status, read_rest(row, at, err), fail);
fail:
    return status;
}

/* ----------------------------------------------------------------------------------- a table -- */

static int compare_keys(const qn_gpu_tuning_key *a, const qn_gpu_tuning_key *b)
{
    const uint32_t pairs[][2] = {{a->op, b->op},           {a->kind, b->kind},
                                 {a->n_out, b->n_out},     {a->n_in, b->n_in},
                                 {a->is_pair, b->is_pair}, {a->n_groups, b->n_groups}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        if (pairs[i][0] != pairs[i][1]) {
            return pairs[i][0] < pairs[i][1] ? -1 : 1;
        }
    }
    return 0;
}

static int compare_rows(const void *a, const void *b)
{
    const qn_gpu_tuning_row *const x = a;
    const qn_gpu_tuning_row *const y = b;
    const int order = compare_keys(&x->key, &y->key);
    return order != 0 ? order : (x->n_rows > y->n_rows) - (x->n_rows < y->n_rows);
}

/* Of attention and index scores a row's bits may not depend on the rows beside it. */
static bool is_alike(const qn_gpu_tuning_row *a, const qn_gpu_tuning_row *b)
{
    const size_t n = strcspn(a->variant, "/");
    return a->key.op < QN_GPU_TUNED_ATTEND ||
           (n == strcspn(b->variant, "/") && strncmp(a->variant, b->variant, n) == 0);
}

static qn_status check_rows(const qn_gpu_tuning *t, qn_error *err)
{
    for (uint32_t i = 1; i < t->n_rows; i++) {
        const qn_gpu_tuning_row *const a = &t->rows[i - 1];
        const qn_gpu_tuning_row *const b = &t->rows[i];
        const line at = {.name = t->name, .number = a->line > b->line ? a->line : b->line};
        if (compare_rows(a, b) == 0) {
            char rows[16];
            (void)snprintf(rows, sizeof rows, "%" PRIu32, b->n_rows);
            return refuse(&at, "rows", qn_str_of(rows), "a shape and number of rows once", err);
        }
        if (compare_keys(&a->key, &b->key) == 0 && !is_alike(a, b)) {
            return refuse(&at, "variant", qn_str_of(b->variant),
                          "one variant up to \"/\" for all rows of a shape", err);
        }
    }
    return QN_OK;
}

/* What comment lines may say of the table. */
static void read_comment(qn_gpu_tuning *t, qn_str text)
{
    static const char device[] = "# device: ";
    const size_t n = sizeof device - 1;
    if (qn_str_begins(text, device) && text.len - n < sizeof t->device) {
        memcpy(t->device, text.ptr + n, text.len - n);
    }
    t->is_untuned = t->is_untuned || qn_str_begins(text, "# untuned");
}

static qn_status read_lines(qn_gpu_tuning *t, qn_str text, qn_error *err)
{
    line at = {.name = t->name};
    bool has_head = false;
    while (text.len > 0) {
        const char *const end = memchr(text.ptr, '\n', text.len);
        qn_str one = {text.ptr, end != NULL ? (size_t)(end - text.ptr) : text.len};
        const size_t n_taken = one.len + (end != NULL ? 1 : 0);
        text = (qn_str){text.ptr + n_taken, text.len - n_taken};
        one.len -= qn_str_ends(one, "\r") ? 1 : 0;
        at.number++;
        if (one.len == 0 || one.ptr[0] == '#') {
            read_comment(t, one);
        } else if (!has_head) {
            has_head = qn_str_equal(one, qn_str_of(qn_gpu_tuning_head));
            if (!has_head) {
                return refuse(&at, "fields", one, qn_gpu_tuning_head, err);
            }
        } else {
            const qn_status status = read_row(&t->rows[t->n_rows], &at, one, err);
            if (status < 0) {
                return status;
            }
            t->n_rows++;
        }
    }
    return has_head ? QN_OK : refuse(&at, "fields", (qn_str){0}, qn_gpu_tuning_head, err);
}

qn_status qn_gpu_tuning_parse(qn_gpu_tuning **out, qn_str text, const char *name, qn_error *err)
{
    size_t n_lines = 1;
    for (size_t i = 0; i < text.len; i++) {
        n_lines += text.ptr[i] == '\n' ? 1 : 0;
    }
    *out = NULL;
    qn_gpu_tuning *t = calloc(1, sizeof *t);
    if (t != NULL) {
        t->name = strdup(name);
        t->rows = calloc(n_lines, sizeof *t->rows);
    }
    if (t == NULL || t->name == NULL || t->rows == NULL) {
        qn_gpu_tuning_close(&t);
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "%s: no memory", name);
    }
    qn_status status = read_lines(t, text, err);
    if (status == QN_OK) {
        qsort(t->rows, t->n_rows, sizeof *t->rows, compare_rows);
        status = check_rows(t, err);
    }
    if (status < 0) {
        qn_gpu_tuning_close(&t);
    }
    *out = t;
    return status;
}

void qn_gpu_tuning_close(qn_gpu_tuning **tuning)
{
    if (*tuning != NULL) {
        free((*tuning)->name);
        free((*tuning)->rows);
        free(*tuning);
        *tuning = NULL;
    }
}

/* ------------------------------------------------------------------------------- of a device -- */

void qn_gpu_tuning_file(char out[96], const char *device)
{
    (void)snprintf(out, 96, "%s.csv", device);
    for (char *at = out; *at != '\0'; at++) {
        if (*at == ' ' || *at == '/') {
            *at = '_';
        }
    }
}

static qn_status load_file(qn_gpu_tuning **out, const char *path, const qn_gpu_info *device,
                           qn_error *err)
{
    qn_buf text;
    qn_buf_init(&text, TEXT_BYTES_MAX);
    qn_status status = qn_file_read(&text, path, err);
    if (status == QN_OK) {
        status = qn_gpu_tuning_parse(out, qn_buf_view(&text), path, err);
    }
    qn_buf_deinit(&text);
    if (status < 0 || device == NULL) {
        return status;
    }
    QN_ASSERT(*out != NULL);
    if (strcmp((*out)->device, device->name) != 0 && strcmp((*out)->device, device->arch) != 0) {
        status = qn_fail(err, QN_E_FORMAT, 0, "qn_gpu_tuning_load",
                         "%s: a table of device \"%s\", one of \"%s\" expected", path,
                         (*out)->device, device->name);
        qn_gpu_tuning_close(out);
    }
    return status;
}

/* The device's file in a folder, if there is one. */
static qn_status load_from_folder(qn_gpu_tuning **out, const char *folder,
                                  const qn_gpu_info *device, qn_error *err)
{
    char file[96];
    qn_gpu_tuning_file(file, device->name);
    char *const path = qn_path_join(folder, file);
    if (path == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "%s: no memory", folder);
    }
    qn_error absent = {0};
    const qn_status status = load_file(out, path, device, &absent);
    free(path);
    if (status < 0 && status != QN_E_NOT_FOUND && err != NULL) {
        *err = absent;
    }
    return status == QN_E_NOT_FOUND ? QN_OK : status;
}

static qn_status load_shipped(qn_gpu_tuning **out, const qn_gpu_info *device, qn_error *err)
{
    const char *const keys[] = {device->name, device->arch};
    char name[128];
    char file[96];
    for (size_t k = 0; k < 2; k++) {
        qn_gpu_tuning_file(file, keys[k]);
        for (const qn_gpu_tuning_shipped *at = qn_gpu_tunings_shipped; at->file != NULL; at++) {
            if (strcmp(at->file, file) == 0) {
                (void)snprintf(name, sizeof name, "built in: %s", file);
                return qn_gpu_tuning_parse(out, qn_str_of(at->text), name, err);
            }
        }
    }
    return QN_OK;
}

qn_status qn_gpu_tuning_load(qn_gpu_tuning **out, const char *path, const qn_gpu_info *device,
                             qn_error *err)
{
    struct stat about;
    qn_status status = QN_OK;
    *out = NULL;
    const bool is_folder = path != NULL && stat(path, &about) == 0 && S_ISDIR(about.st_mode);
    if (path != NULL && !is_folder) {
        return load_file(out, path, device, err);
    }
    if (device != NULL && is_folder) {
        status = load_from_folder(out, path, device, err);
    }
    return status == QN_OK && device != NULL && *out == NULL ? load_shipped(out, device, err)
                                                             : status;
}

/* --------------------------------------------------------------------------------- questions -- */

const char *qn_gpu_tuning_name(const qn_gpu_tuning *tuning)
{
    return tuning->name;
}

bool qn_gpu_tuning_is_untuned(const qn_gpu_tuning *tuning)
{
    return tuning->is_untuned;
}

const qn_gpu_tuning_row *qn_gpu_tuning_rows(const qn_gpu_tuning *tuning, uint32_t *n)
{
    *n = tuning->n_rows;
    return tuning->rows;
}

const qn_gpu_tuning_row *qn_gpu_tuning_find(const qn_gpu_tuning *tuning,
                                            const qn_gpu_tuning_key *key, uint32_t n_rows)
{
    if (tuning == NULL) {
        return NULL;
    }
    const qn_gpu_tuning_row wanted = {.key = *key, .n_rows = n_rows};
    uint32_t first = 0; /* row that is not before the wanted one */
    uint32_t end = tuning->n_rows;
    while (first < end) {
        const uint32_t middle = (first + end) / 2;
        if (compare_rows(&tuning->rows[middle], &wanted) < 0) {
            first = middle + 1;
        } else {
            end = middle;
        }
    }
    if (first < tuning->n_rows && compare_keys(&tuning->rows[first].key, key) == 0) {
        return &tuning->rows[first];
    }
    const bool is_above = first > 0 && compare_keys(&tuning->rows[first - 1].key, key) == 0;
    return is_above && key->op >= QN_GPU_TUNED_ATTEND ? &tuning->rows[first - 1] : NULL;
}

qn_gpu_tuning_key qn_gpu_matmul_key(const qn_gpu_matmul_shape *shape)
{
    return (qn_gpu_tuning_key){
        .op = shape->is_grouped ? QN_GPU_TUNED_MOE : QN_GPU_TUNED_MATMUL,
        .kind = shape->kind,
        .n_out = shape->n_out,
        .n_in = shape->n_in,
        .is_pair = shape->is_pair != 0,
        .n_groups = shape->n_groups,
    };
}

qn_gpu_tuning_key qn_gpu_attend_key(const qn_gpu_attend_args *args)
{
    return (qn_gpu_tuning_key){.op = QN_GPU_TUNED_ATTEND,
                               .kind = args->kv.dtype,
                               .n_out = args->n_heads,
                               .n_in = args->kv.latent_dim + args->kv.rope_dim,
                               .n_groups = 1};
}

qn_gpu_tuning_key qn_gpu_index_scores_key(const qn_gpu_index_scores_args *args)
{
    return (qn_gpu_tuning_key){.op = QN_GPU_TUNED_INDEX,
                               .kind = QN_GPU_KV_BF16,
                               .n_out = args->n_heads,
                               .n_in = args->keys.latent_dim,
                               .n_groups = 1};
}

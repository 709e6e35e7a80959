/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model on a GPU of this machine beside the CPU:
 *   gpumodel --device cuda[:N] MODEL IDS [OPTION ..]
 *
 * IDS        a file of ids, a golden file (.safetensors) with a tensor "ids", or a number: so many
 *            ids are made up
 * --dummy    MODEL needs no weights
 * --free     sums may go by the number of rows
 * --kv-dtype bf16|fp8
 * --layers N positions that are compared layer by layer (40)
 * --rows N   of a pass when all positions are teacher-forced against the CPU in f32 (256)
 */
#include "base/rng.h"
#include "format/safetensors.h"
#include "gpumodel/compare.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { IDS_MAX = 1 << 20 };

typedef struct options {
    const char *device, *model, *ids;
    qn_kv_dtype kv_dtype;
    uint32_t n_rows, n_layer_positions;
    bool is_dummy, is_free;
} options;

static bool parse(options *o, int argc, char **argv)
{
    *o =
        (options){.device = "cuda", .kv_dtype = QN_KV_BF16, .n_rows = 256, .n_layer_positions = 40};
    for (int i = 1; i < argc; i++) {
        const bool has_value = i + 1 < argc;
        if (has_value && strcmp(argv[i], "--device") == 0) {
            o->device = argv[++i];
        } else if (has_value && strcmp(argv[i], "--kv-dtype") == 0) {
            o->kv_dtype = strcmp(argv[++i], "fp8") == 0 ? QN_KV_FP8 : QN_KV_BF16;
        } else if (has_value && strcmp(argv[i], "--rows") == 0) {
            o->n_rows = (uint32_t)strtoul(argv[++i], NULL, 10);
        } else if (has_value && strcmp(argv[i], "--layers") == 0) {
            o->n_layer_positions = (uint32_t)strtoul(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--dummy") == 0) {
            o->is_dummy = true;
        } else if (strcmp(argv[i], "--free") == 0) {
            o->is_free = true;
        } else if (argv[i][0] != '-' && o->model == NULL) {
            o->model = argv[i];
        } else if (argv[i][0] != '-' && o->ids == NULL) {
            o->ids = argv[i];
        } else {
            return false;
        }
    }
    return o->ids != NULL && o->n_rows > 0;
}

/* Ids of a golden file. */
static uint32_t read_golden(int32_t *ids, const char *path)
{
    qn_safetensors *file = NULL;
    qn_error err = {0};
    uint32_t n = 0;
    if (qn_safetensors_open(&file, path, &err) < 0) {
        (void)fprintf(stderr, "%s\n", err.text);
        return 0;
    }
    for (size_t i = 0; i < qn_safetensors_count(file); i++) {
        const qn_tensor *const tensor = qn_safetensors_get(file, i);
        if (qn_str_equal(tensor->name, qn_str_of("ids")) && tensor->dtype == QN_DTYPE_I32 &&
            tensor->size_bytes <= IDS_MAX * sizeof *ids) {
            n = (uint32_t)(tensor->size_bytes / sizeof *ids);
            memcpy(ids, tensor->data, tensor->size_bytes);
        }
    }
    qn_safetensors_close(&file);
    return n;
}

static uint32_t read_ids(int32_t *ids, const char *path, uint32_t n_vocab)
{
    const size_t len = strlen(path);
    if (strspn(path, "0123456789") == len) {
        const uint32_t n_ids = (uint32_t)strtoul(path, NULL, 10);
        for (uint32_t i = 0; i < n_ids && i < IDS_MAX; i++) {
            ids[i] = (int32_t)(qn_rng_u64(1, 2, i) % n_vocab);
        }
        return n_ids < IDS_MAX ? n_ids : IDS_MAX;
    }
    if (len > 12 && strcmp(path + len - 12, ".safetensors") == 0) {
        return read_golden(ids, path);
    }
    FILE *const file = fopen(path, "r");
    uint32_t n = 0;
    int id = 0;
    while (file != NULL && n < IDS_MAX && fscanf(file, "%d", &id) == 1) {
        ids[n++] = id;
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return n;
}

static int run(const options *o, const gm_device *device, const qn_config *config,
               const int32_t *ids, uint32_t n_ids)
{
    qn_error err = {0};
    gm_case c = {.name = "layers",
                 .config = config,
                 .dir = o->is_dummy ? NULL : o->model,
                 .ids = ids,
                 .kv_dtype = o->kv_dtype,
                 .is_free = o->is_free,
                 .n_positions = n_ids < o->n_layer_positions ? n_ids : o->n_layer_positions,
                 .n_chunk = 16,
                 .layer_bound = 0.02};
    gm_outcome layers;
    gm_teacher teacher;
    const bool is_right = gm_compare(&layers, device, &c);
    (void)printf(
        "layers of %u positions: %s, stream off by %.2g, log-probabilities by %.2g at most "
        "and %.2g in the mean, %u of %u choices others\n",
        c.n_positions, is_right ? "right" : "WRONG", layers.worst_hidden, layers.worst_logprob,
        layers.mean_logprob, layers.n_other_choices, layers.n_choices);
    const bool is_independent = o->is_free || gm_is_independent(device, &c);
    (void)printf("bits beside other rows: %s\n", o->is_free       ? "not looked at"
                                                 : is_independent ? "the same"
                                                                  : "OTHERS");
    c.name = "teacher";
    c.n_positions = n_ids;
    if (gm_teach(&teacher, device, &c, o->n_rows, &err) < 0) {
        (void)fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    (void)printf("%u positions teacher-forced: most likely id agrees %.4f, |log-probability "
                 "difference| mean %.5f, 99.9 %% %.5f, most %.5f, nll %.5f (CPU %.5f), a pass of "
                 "%u rows %.3f ms (CPU %.3f)\n",
                 teacher.n_positions, teacher.agreement, teacher.mean, teacher.p999, teacher.most,
                 teacher.gpu_nll, teacher.cpu_nll, o->n_rows, 1e3 * teacher.gpu_s,
                 1e3 * teacher.cpu_s);
    return is_right && is_independent ? 0 : 1;
}

int main(int argc, char **argv)
{
    options o;
    qn_error err = {0};
    qn_config config;
    gm_device device = {0};
    char path[4096];
    if (!parse(&o, argc, argv)) {
        (void)fprintf(stderr, "gpumodel --device cuda[:N] MODEL IDS [--dummy] [--free] "
                              "[--kv-dtype bf16|fp8] [--rows N] [--layers N]\n");
        return 2;
    }
    (void)snprintf(path, sizeof path, "%s/config.json", o.model);
    int32_t *const ids = calloc(IDS_MAX, sizeof *ids);
    int rc = 1;
    if (ids == NULL || qn_config_load(&config, path, &err) < 0 ||
        gm_device_open(&device, o.device, &err) < 0) {
        (void)fprintf(stderr, "%s\n", err.text);
    } else {
        const uint32_t n_ids = read_ids(ids, o.ids, config.n_vocab);
        if (n_ids < 2) {
            (void)fprintf(stderr, "%s: %u ids, at least 2 expected\n", o.ids, n_ids);
        } else {
            rc = run(&o, &device, &config, ids, n_ids);
        }
    }
    gm_device_close(&device);
    free(ids);
    return rc;
}

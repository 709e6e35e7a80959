/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model on a GPU of this machine beside the CPU:
 *   gpumodel --device cuda[:N] MODEL IDS [OPTION ..]
 *
 * The GPU may be 1.5 times as far from the CPU in f32 as transformers in bf16 is, where a golden
 * file says how far that is, else 3 times as far as the CPU in bf16.
 *
 * IDS        a file of ids, a golden file (.safetensors), or a number: so many ids are made up
 * --dummy    MODEL needs no weights
 * --free     sums may go by the number of rows
 * --kv-dtype bf16|fp8
 * --layers N positions that are compared layer by layer (40)
 * --rows N   of a pass when all positions are teacher-forced against the CPU in f32 (256)
 */
#include "base/assert.h"
#include "base/rng.h"
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

/* So many ids, made up. */
static gm_texts make_ids(uint32_t n_ids, uint32_t n_vocab)
{
    int32_t *const ids = calloc(n_ids + 1, sizeof *ids);
    QN_ASSERT(ids != NULL);
    for (uint32_t i = 0; i < n_ids; i++) {
        ids[i] = (int32_t)(qn_rng_u64(1, 2, i) % n_vocab);
    }
    const gm_texts texts = gm_texts_of(ids, n_ids);
    free(ids);
    return texts;
}

/* Numbers, as text. */
static gm_texts read_ids(const char *path)
{
    int32_t *const ids = calloc(IDS_MAX, sizeof *ids);
    QN_ASSERT(ids != NULL);
    FILE *const file = fopen(path, "r");
    uint32_t n = 0;
    int id = 0;
    while (file != NULL && n < IDS_MAX && fscanf(file, "%d", &id) == 1) {
        ids[n++] = id;
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    const gm_texts texts = gm_texts_of(ids, n);
    free(ids);
    return texts;
}

static qn_status open_texts(gm_texts *out, const char *name, uint32_t n_vocab, qn_error *err)
{
    const size_t len = strlen(name);
    if (len > 12 && strcmp(name + len - 12, ".safetensors") == 0) {
        return gm_texts_load(out, name, err);
    }
    if (strspn(name, "0123456789") == len) {
        const unsigned long n_ids = strtoul(name, NULL, 10);
        *out = make_ids(n_ids < IDS_MAX ? (uint32_t)n_ids : IDS_MAX, n_vocab);
    } else {
        *out = read_ids(name);
    }
    if (out->starts[1] < 2) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__, "%s: %u ids, expected at least 2", name,
                       out->starts[1]);
    }
    return QN_OK;
}

static void print_spread(const char *name, const gm_spread *spread)
{
    (void)printf("%s: most likely id agrees %.4f, |log-probability difference| mean %.5f, 99.9 %% "
                 "%.5f, most %.5f\n",
                 name, spread->agreement, spread->mean, spread->p999, spread->most);
}

static int run(const options *o, const gm_device *device, const qn_config *config,
               const gm_texts *texts)
{
    qn_error err = {0};
    uint32_t n_longest = 0;
    for (uint32_t i = 0; i < texts->n_texts; i++) {
        const uint32_t n = texts->starts[i + 1] - texts->starts[i];
        n_longest = n > n_longest ? n : n_longest;
    }
    const uint32_t n_first = texts->starts[1];
    gm_case c = {.name = "layers",
                 .config = config,
                 .dir = o->is_dummy ? NULL : o->model,
                 .ids = texts->ids,
                 .kv_dtype = o->kv_dtype,
                 .is_free = o->is_free,
                 .n_positions = n_first < o->n_layer_positions ? n_first : o->n_layer_positions,
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
    c.n_positions = n_longest;
    if (gm_teach(&teacher, device, &c, texts, o->n_rows, &err) < 0) {
        (void)fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    (void)printf("%u positions teacher-forced, nll %.5f (CPU %.5f), a pass of at most %u rows "
                 "%.3f ms (CPU %.3f)\n",
                 teacher.n_positions, teacher.gpu_nll, teacher.cpu_nll, o->n_rows,
                 1e3 * teacher.gpu_s, 1e3 * teacher.cpu_s);
    print_spread("GPU and CPU in f32", &teacher.gpu);
    print_spread(texts->bf16_off != NULL ? "transformers in bf16 and f32" : "CPU in bf16 and f32",
                 &teacher.bf16);
    const bool is_near = gm_is_near(&teacher);
    (void)printf("at most %.1f times as far off: %s\n", teacher.bound, is_near ? "yes" : "NO");
    return is_right && is_independent && is_near ? 0 : 1;
}

int main(int argc, char **argv)
{
    options o;
    qn_error err = {0};
    qn_config config;
    gm_device device = {0};
    char path[4096];
    (void)setvbuf(stdout, NULL, _IOLBF, 0); /* what comes after takes minutes */
    if (!parse(&o, argc, argv)) {
        (void)fprintf(stderr, "gpumodel --device cuda[:N] MODEL IDS [--dummy] [--free] "
                              "[--kv-dtype bf16|fp8] [--rows N] [--layers N]\n");
        return 2;
    }
    (void)snprintf(path, sizeof path, "%s/config.json", o.model);
    gm_texts texts = {0};
    int rc = 1;
    if (qn_config_load(&config, path, &err) < 0 || gm_device_open(&device, o.device, &err) < 0 ||
        open_texts(&texts, o.ids, config.n_vocab, &err) < 0) {
        (void)fprintf(stderr, "%s\n", err.text);
    } else {
        rc = run(&o, &device, &config, &texts);
    }
    gm_texts_deinit(&texts);
    gm_device_close(&device);
    return rc;
}

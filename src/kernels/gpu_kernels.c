/* SPDX-License-Identifier: Apache-2.0 */
/* Loads the kernels that a device can run, and launches them. */
#include "base/assert.h"
#include "kernels/gpu/list.h"
#include "kernels/gpu_ops.h"
#include "kernels/gpu_tuning.h"

#include <stdlib.h>
#include <string.h>
#ifdef QN_ZSTD
#include <zstd.h>
#endif

/* What the list says of each kernel. */
static const struct {
    const char *name, *symbol;
    uint32_t n_threads;
} entries[] = {
#define ENTRY(NAME, N_THREADS, ...) {#NAME, "qn_gpu_" #NAME, N_THREADS},
    QN_GPU_KERNELS(ENTRY)
#undef ENTRY
};

struct qn_gpu_kernels {
    qn_gpu *gpu;
    qn_gpu_function functions[QN_GPU_N_KERNELS]; /* NULL: not there */
    qn_gpu_tuning *tuning;                       /* owned; NULL: none */
    size_t n_modules;
    struct {
        qn_gpu_module *module;
        const char *name;
    } modules[]; /* room for every image */
};

/* Targets are an architecture, with the letter of its special features: "sm_90a", "sm_90a ptx". */
static bool serves(const qn_gpu_module_image *image, const char *arch)
{
    const size_t n = strlen(arch);
    return strncmp(image->target, arch, n) == 0 && strchr("a ", image->target[n]) != NULL;
}

static bool is_ptx(const qn_gpu_module_image *image)
{
    return strstr(image->target, " ptx") != NULL;
}

/* Is there another form of it, which the driver compiles? */
static bool has_ptx(const qn_gpu_module_image *images, size_t n, const qn_gpu_module_image *image)
{
    for (size_t i = 0; i < n && !is_ptx(image); i++) {
        if (is_ptx(&images[i]) && strcmp(images[i].name, image->name) == 0) {
            return true;
        }
    }
    return false;
}

/* The bytes of an image and a NUL, which PTX has to end in; owned by the caller. */
static qn_status unpack(char **out, const qn_gpu_module_image *image, qn_error *err)
{
    static const char where[] = "qn_gpu_kernels_open";
    char *raw = malloc(image->size + 1);
    if (raw == NULL) {
        return qn_fail(err, QN_E_NOMEM, 0, where, "%s: no memory for %zu bytes of kernels",
                       image->name, image->size);
    }
    size_t n = image->packed_size;
    if (n == image->size) { /* stored as it is */
        memcpy(raw, image->bytes, n);
    } else {
#ifdef QN_ZSTD
        n = ZSTD_decompress(raw, image->size, image->bytes, image->packed_size);
#endif
    }
    if (n != image->size) {
        free(raw);
        return qn_fail(err, QN_E_FORMAT, 0, where, "%s: kernels that do not unpack to %zu bytes",
                       image->name, image->size);
    }
    raw[n] = '\0';
    *out = raw;
    return QN_OK;
}

static bool is_loaded(const qn_gpu_kernels *kernels, const char *name)
{
    for (size_t i = 0; i < kernels->n_modules; i++) {
        if (strcmp(kernels->modules[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

/* The driver takes an image, or not. */
static qn_status load(qn_gpu_kernels *kernels, const qn_gpu_module_image *image, qn_error *err)
{
    char *raw = NULL;
    qn_gpu_module *module = NULL;
    qn_status status = unpack(&raw, image, err);
    if (status == QN_OK) {
        const size_t n_bytes = image->size + (is_ptx(image) ? 1 : 0);
        status = qn_gpu_module_load(&module, kernels->gpu, raw, n_bytes, image->name, err);
    }
    free(raw);
    if (status != QN_OK) {
        return status;
    }
    kernels->modules[kernels->n_modules].module = module;
    kernels->modules[kernels->n_modules++].name = image->name;
    return QN_OK;
}

/* Finds every kernel in the module that has it. */
static qn_status find_all(qn_gpu_kernels *kernels, qn_error *err)
{
    const qn_gpu_info *const info = qn_gpu_get_info(kernels->gpu);
    for (size_t i = 0; i < QN_GPU_N_KERNELS; i++) {
        qn_status status = QN_E_NOT_FOUND;
        for (size_t k = 0; k < kernels->n_modules && status == QN_E_NOT_FOUND; k++) {
            qn_error seen = {0};
            status = qn_gpu_module_find(&kernels->functions[i], kernels->modules[k].module,
                                        entries[i].symbol, info->shared_bytes, &seen);
            if (status != QN_OK && status != QN_E_NOT_FOUND) {
                return qn_fail(err, status, seen.sys, seen.where, "%s", seen.text);
            }
        }
        if (status != QN_OK && i < QN_GPU_N_PORTABLE) {
            return qn_fail(err, QN_E_DEVICE, 0, "qn_gpu_kernels_open",
                           "%s: no kernel %s in the %zu modules of this build, which every "
                           "architecture has to have",
                           info->arch, entries[i].name, kernels->n_modules);
        }
    }
    return QN_OK;
}

/*
 * A file's binary where there is one that the driver takes, else its PTX, which a driver also
 * compiles that is older than the binary.
 */
static qn_status load_all(qn_gpu_kernels *kernels, const qn_gpu_module_image *images, size_t n,
                          qn_error *err)
{
    const char *arch = qn_gpu_get_info(kernels->gpu)->arch;
    for (int with_ptx = 0; with_ptx < 2; with_ptx++) {
        for (size_t i = 0; i < n; i++) {
            if (!serves(&images[i], arch) || is_ptx(&images[i]) != (with_ptx == 1) ||
                is_loaded(kernels, images[i].name)) {
                continue;
            }
            qn_error seen = {0};
            const qn_status status = load(kernels, &images[i], &seen);
            if (status != QN_OK && (status != QN_E_DEVICE || !has_ptx(images, n, &images[i]))) {
                return qn_fail(err, status, seen.sys, seen.where, "%s", seen.text);
            }
        }
    }
    if (kernels->n_modules == 0) {
        return qn_fail(err, QN_E_DEVICE, 0, "qn_gpu_kernels_open", "%s: %s", arch,
                       n == 0 ? "this build has no GPU kernels, it was made without clang-22"
                              : "this build has no kernels for this architecture");
    }
    return QN_OK;
}

qn_status qn_gpu_kernels_open(qn_gpu_kernels **out, qn_gpu *gpu, const qn_gpu_module_image *modules,
                              size_t n_modules, qn_error *err)
{
    qn_gpu_kernels *kernels = calloc(1, sizeof *kernels + n_modules * sizeof kernels->modules[0]);
    if (kernels == NULL) {
        return qn_fail(err, QN_E_NOMEM, 0, "qn_gpu_kernels_open", "no memory for %zu modules",
                       n_modules);
    }
    kernels->gpu = gpu;
    qn_status status = load_all(kernels, modules, n_modules, err);
    status = status == QN_OK ? find_all(kernels, err) : status;
    if (status != QN_OK) {
        qn_gpu_kernels_close(&kernels);
    }
    *out = kernels;
    return status;
}

void qn_gpu_kernels_close(qn_gpu_kernels **kernels)
{
    if (*kernels == NULL) {
        return;
    }
    while ((*kernels)->n_modules > 0) {
        qn_gpu_module_unload(&(*kernels)->modules[--(*kernels)->n_modules].module);
    }
    qn_gpu_tuning_close(&(*kernels)->tuning);
    free(*kernels);
    *kernels = NULL;
}

void qn_gpu_kernels_tune(qn_gpu_kernels *kernels, qn_gpu_tuning *tuning)
{
    qn_gpu_tuning_close(&kernels->tuning);
    kernels->tuning = tuning;
}

const qn_gpu_tuning *qn_gpu_kernels_tuning(const qn_gpu_kernels *kernels)
{
    return kernels->tuning;
}

bool qn_gpu_kernels_has(const qn_gpu_kernels *kernels, uint32_t i_kernel)
{
    return i_kernel < QN_GPU_N_KERNELS && kernels->functions[i_kernel] != NULL;
}

const qn_gpu_info *qn_gpu_kernels_info(const qn_gpu_kernels *kernels)
{
    return qn_gpu_get_info(kernels->gpu);
}

static void queue(const qn_gpu_ops *ops, uint32_t i_kernel, const uint32_t grid[3],
                  uint32_t shared_bytes, const void *args, size_t args_bytes, bool is_dependent,
                  uint32_t n_cluster)
{
    QN_ASSERT(qn_gpu_kernels_has(ops->kernels, i_kernel));
    qn_gpu_launch(ops->stream, &(qn_gpu_launch_args){.function = ops->kernels->functions[i_kernel],
                                                     .name = entries[i_kernel].name,
                                                     .grid = {grid[0], grid[1], grid[2]},
                                                     .n_threads = entries[i_kernel].n_threads,
                                                     .shared_bytes = shared_bytes,
                                                     .n_cluster = n_cluster,
                                                     .is_dependent = is_dependent,
                                                     .args = args,
                                                     .args_bytes = args_bytes});
}

void qn_gpu_ops_launch(const qn_gpu_ops *ops, uint32_t i_kernel, const uint32_t grid[3],
                       uint32_t shared_bytes, const void *args, size_t args_bytes)
{
    queue(ops, i_kernel, grid, shared_bytes, args, args_bytes, false, 0);
}

void qn_gpu_ops_launch_dependent(const qn_gpu_ops *ops, uint32_t i_kernel, const uint32_t grid[3],
                                 uint32_t n_cluster, uint32_t shared_bytes, const void *args,
                                 size_t args_bytes)
{
    queue(ops, i_kernel, grid, shared_bytes, args, args_bytes, true, n_cluster);
}

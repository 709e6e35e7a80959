/* SPDX-License-Identifier: Apache-2.0 */
#include "device/device.h"

#include "base/cpu.h"
#include "base/str.h"

#include <sys/stat.h>

static const char cpu_only[] = "this version computes on the CPU only";

/* GPUs by the node that their kernel driver makes. */
static const struct {
    const char *name;
    const char *node;
    const char *description;
} gpus[] = {
    {"cuda", "nvidiactl", "NVIDIA driver"},
    {"hip", "kfd", "AMD driver"},
};
enum { N_GPUS = sizeof gpus / sizeof gpus[0] };

static void describe_cpu(qn_device *out)
{
    char model_name[64];
    qn_cpu_model_name(model_name, sizeof model_name);
    *out = (qn_device){
        .memory_bytes = qn_cpu_ram_bytes(), .n_threads = qn_cpu_count(), .is_usable = true};
    (void)snprintf(out->name, sizeof out->name, "cpu");
    (void)snprintf(out->description, sizeof out->description, "%s, %u thread%s", model_name,
                   out->n_threads, out->n_threads == 1 ? "" : "s");
    /* A level needs all those below it, so cutting the highest off one by one lists them. */
    const uint32_t flags = qn_cpu_flags() & ~(uint32_t)QN_CPU_AVXVNNI;
    size_t len = 0;
    for (uint32_t mask = 1; (flags & mask) == mask && mask != 0; mask = mask << 1 | 1) {
        len += (size_t)snprintf(out->features + len, sizeof out->features - len, "%s%s",
                                len > 0 ? " " : "", qn_cpu_level_name(mask));
    }
}

size_t qn_device_list(qn_device *out, size_t n_max, const char *dev_dir)
{
    size_t n = 0;
    if (n < n_max) {
        describe_cpu(&out[n++]);
    }
    for (size_t i = 0; i < N_GPUS && n < n_max; i++) {
        char path[4096];
        struct stat info;
        (void)snprintf(path, sizeof path, "%s/%s", dev_dir, gpus[i].node);
        if (stat(path, &info) != 0) {
            continue;
        }
        qn_device *const gpu = &out[n++];
        *gpu = (qn_device){0};
        (void)snprintf(gpu->name, sizeof gpu->name, "%s", gpus[i].name);
        (void)snprintf(gpu->description, sizeof gpu->description, "%s at %.80s",
                       gpus[i].description, path);
        (void)snprintf(gpu->reason, sizeof gpu->reason, "%s", cpu_only);
    }
    return n;
}

/* Is @p text NAME or NAME:N? */
static bool names_gpu(const char *text, const char *name)
{
    const size_t len = strlen(name);
    if (strncmp(text, name, len) != 0) {
        return false;
    }
    const char *const number = text + len + 1;
    return text[len] == '\0' ||
           (text[len] == ':' && *number != '\0' && strspn(number, "0123456789") == strlen(number));
}

qn_status qn_device_check(const char *text, qn_error *err)
{
    if (text == NULL || strcmp(text, "auto") == 0 || strcmp(text, "cpu") == 0) {
        return QN_OK;
    }
    bool is_known = strcmp(text, "gfxsim") == 0;
    for (size_t i = 0; i < N_GPUS; i++) {
        is_known |= names_gpu(text, gpus[i].name);
    }
    if (is_known) {
        return qn_fail(err, QN_E_DEVICE, 0, __func__, "--device: '%s', auto or cpu expected: %s",
                       text, cpu_only);
    }
    return qn_fail(err, QN_E_INVAL, 0, __func__,
                   "--device: '%s', auto, cpu, cuda[:N], hip[:N] or gfxsim expected", text);
}

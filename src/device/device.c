/* SPDX-License-Identifier: Apache-2.0 */
#include "device/device.h"

#include "base/cpu.h"
#include "base/str.h"
#include "device/gpu_driver.h"

#include <inttypes.h>
#include <unistd.h>

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

/* Is there code for it?  Fills *reason, of the size of qn_device's, where there is none. */
static bool has_code(char reason[192], const char *arch, const char *const *archs, size_t n_archs)
{
    for (size_t i = 0; i < n_archs; i++) {
        if (strcmp(arch, archs[i]) == 0) {
            return true;
        }
    }
    char all[96] = "";
    size_t len = 0;
    for (size_t i = 0; i < n_archs && len < sizeof all; i++) {
        len += (size_t)snprintf(all + len, sizeof all - len, "%s%s", i > 0 ? ", " : "", archs[i]);
    }
    (void)snprintf(reason, 192, "no kernels for %s in this build, it has %s", arch,
                   n_archs > 0 ? all : "none for any GPU");
    return false;
}

static void describe_gpu(qn_device *out, const qn_gpu_driver *driver, uint32_t i_device,
                         const char *const *archs, size_t n_archs)
{
    qn_gpu_info info;
    qn_error err;
    *out = (qn_device){0};
    (void)snprintf(out->name, sizeof out->name, "%s:%" PRIu32, driver->name, i_device);
    (void)snprintf(out->description, sizeof out->description, "%s GPU", driver->vendor);
    if (qn_gpu_describe(&info, driver, i_device, &err) != QN_OK) {
        (void)snprintf(out->reason, sizeof out->reason, "%.190s", err.text);
        return;
    }
    (void)snprintf(out->description, sizeof out->description,
                   "%s, %" PRIu32 " multiprocessors, driver %s", info.name, info.n_sms,
                   info.driver);
    (void)snprintf(out->features, sizeof out->features, "%s", info.arch);
    out->memory_bytes = info.memory_bytes;
    out->is_usable = has_code(out->reason, info.arch, archs, n_archs);
    (void)snprintf(out->kernels, sizeof out->kernels, "%s", out->is_usable ? info.arch : "");
}

size_t qn_device_list_gpus(qn_device *out, size_t n_max, const qn_gpu_driver *driver,
                           const char *dev_dir, const char *const *archs, size_t n_archs)
{
    uint32_t n_devices = 0;
    qn_error err;
    if (n_max == 0) {
        return 0;
    }
    const qn_status status = qn_gpu_count(&n_devices, driver, &err);
    if (status != QN_OK) {
        char path[4096];
        (void)snprintf(path, sizeof path, "%s/%s", dev_dir, driver->node);
        const bool has_node = access(path, F_OK) == 0;
        if (!has_node && status == QN_E_NOT_FOUND) {
            return 0;
        }
        *out = (qn_device){0};
        (void)snprintf(out->name, sizeof out->name, "%s", driver->name);
        (void)snprintf(out->description, sizeof out->description, "%s driver%s%.80s",
                       driver->vendor, has_node ? " at " : "", has_node ? path : "");
        (void)snprintf(out->reason, sizeof out->reason, "%.190s", err.text);
        return 1;
    }
    size_t n = 0;
    for (; n < n_devices && n < n_max; n++) {
        describe_gpu(&out[n], driver, (uint32_t)n, archs, n_archs);
    }
    return n;
}

size_t qn_device_list(qn_device *out, size_t n_max, const char *dev_dir, const char *const *archs,
                      size_t n_archs)
{
    size_t n = 0;
    if (n < n_max) {
        describe_cpu(&out[n++]);
    }
    for (size_t i = 0; i < QN_GPU_N_DRIVERS && n < n_max; i++) {
        n += qn_device_list_gpus(&out[n], n_max - n, qn_gpu_drivers[i], dev_dir, archs, n_archs);
    }
    return n;
}

qn_status qn_device_check_gpu(const qn_gpu_driver *driver, uint32_t i_device, const char *option,
                              const char *const *archs, size_t n_archs, qn_error *err)
{
    qn_gpu_info info;
    qn_error seen;
    char reason[192];
    const qn_status status = qn_gpu_describe(&info, driver, i_device, &seen);
    if (status != QN_OK) {
        return qn_fail(err, status, seen.sys, __func__, "%s: %s", option, seen.text);
    }
    if (!has_code(reason, info.arch, archs, n_archs)) {
        return qn_fail(err, QN_E_DEVICE, 0, __func__, "%s: %s:%" PRIu32 ", %s: %s", option,
                       driver->name, i_device, info.name, reason);
    }
    return QN_OK;
}

qn_status qn_device_check(const char *text, const char *option, const char *const *archs,
                          size_t n_archs, qn_error *err)
{
    const char *const what = option != NULL ? option : "--device";
    if (text == NULL || strcmp(text, "auto") == 0 || strcmp(text, "cpu") == 0) {
        return QN_OK;
    }
    uint32_t i_device = 0;
    const qn_gpu_driver *const driver = qn_gpu_find_driver(&i_device, text);
    if (driver != NULL) {
        return qn_device_check_gpu(driver, i_device, what, archs, n_archs, err);
    }
    if (strcmp(text, "gfxsim") == 0) {
        return qn_fail(err, QN_E_DEVICE, 0, __func__,
                       "%s: 'gfxsim' is not part of this version, auto, cpu, cuda[:N] or "
                       "hip[:N] expected",
                       what);
    }
    return qn_fail(err, QN_E_INVAL, 0, __func__,
                   "%s: '%.64s', auto, cpu, cuda[:N] or hip[:N] expected", what, text);
}

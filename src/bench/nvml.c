/* SPDX-License-Identifier: Apache-2.0 */
#include "nvml.h"

#include "base/assert.h"
#include "base/str.h"

#include <dlfcn.h>
#include <math.h>

#define LIBRARY "libnvidia-ml.so.1"

/* Of NVIDIA's NVML API reference, the functions' own names and types. */
typedef void *device;
typedef struct memory_info {
    unsigned long long total, free, used;
} memory_info;

struct nvml {
    void *handle;
    int (*init)(void);
    int (*shutdown)(void);
    const char *(*error_string)(int);
    int (*driver_version)(char *, unsigned);
    int (*count)(unsigned *);
    int (*handle_by_index)(unsigned, device *);
    int (*name)(device, char *, unsigned);
    int (*memory)(device, memory_info *);
    int (*power_usage)(device, unsigned *);
    int (*total_energy)(device, unsigned long long *);
    bool has_begun;
    size_t n_devices;
    device devices[NVML_DEVICES_MAX];
};

static bool find(const nvml *library, const char *name, void *function)
{
    void *const symbol = dlsym(library->handle, name);
    memcpy(function, &symbol, sizeof symbol); /* ISO C has no cast from data to function */
    return symbol != NULL;
}

static qn_status find_all(nvml *library, qn_error *err)
{
    const struct {
        const char *name;
        void *function;
        bool is_optional;
    } functions[] = {
        {"nvmlInit_v2", &library->init, false},
        {"nvmlShutdown", &library->shutdown, false},
        {"nvmlDeviceGetCount_v2", &library->count, false},
        {"nvmlDeviceGetHandleByIndex_v2", &library->handle_by_index, false},
        {"nvmlDeviceGetPowerUsage", &library->power_usage, false},
        {"nvmlErrorString", &library->error_string, true},
        {"nvmlSystemGetDriverVersion", &library->driver_version, true},
        {"nvmlDeviceGetName", &library->name, true},
        {"nvmlDeviceGetMemoryInfo", &library->memory, true},
        {"nvmlDeviceGetTotalEnergyConsumption", &library->total_energy, true},
    };
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        if (!find(library, functions[i].name, functions[i].function) && !functions[i].is_optional) {
            return qn_fail(err, QN_E_DEVICE, 0, __func__, "NVML: no function %s, expected one",
                           functions[i].name);
        }
    }
    return QN_OK;
}

static const char *reason(const nvml *library, int code)
{
    const char *const text = library->error_string != NULL ? library->error_string(code) : NULL;
    return text != NULL ? text : "an error";
}

static qn_status begin(nvml *library, qn_error *err)
{
    QN_ASSERT(library->init != NULL);
    QN_ASSERT(library->count != NULL);
    QN_ASSERT(library->handle_by_index != NULL);
    unsigned n = 0;
    int code = library->init();
    library->has_begun = code == 0;
    if (code == 0) {
        code = library->count(&n);
    }
    if (code != 0) {
        return qn_fail(err, QN_E_DEVICE, code, __func__,
                       "NVML: %.200s, expected a driver that runs", reason(library, code));
    }
    for (unsigned i = 0; i < n && library->n_devices < NVML_DEVICES_MAX; i++) {
        code = library->handle_by_index(i, &library->devices[library->n_devices]);
        if (code != 0) {
            return qn_fail(err, QN_E_DEVICE, code, __func__,
                           "NVML: device %u: %.200s, a handle expected", i, reason(library, code));
        }
        library->n_devices++;
    }
    if (library->n_devices == 0) {
        return qn_fail(err, QN_E_DEVICE, 0, __func__, "NVML: no device, expected one");
    }
    return QN_OK;
}

qn_status nvml_open(nvml **out, const char *path, qn_error *err)
{
    const char *const file = path != NULL ? path : LIBRARY;
    *out = NULL;
    nvml *library = calloc(1, sizeof *library);
    if (library == NULL) {
        return qn_fail(err, QN_E_NOMEM, 0, __func__, "NVML: no memory");
    }
    library->handle = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    qn_status status = library->handle == NULL
                           ? qn_fail(err, QN_E_DEVICE, 0, __func__,
                                     "NVML: %.200s is not there, expected NVIDIA's driver", file)
                           : find_all(library, err);
    if (status == QN_OK) {
        status = begin(library, err);
    }
    if (status < 0) {
        nvml_close(&library);
    }
    *out = library;
    return status;
}

void nvml_close(nvml **library)
{
    nvml *const at = *library;
    if (at == NULL) {
        return;
    }
    if (at->has_begun) {
        (void)at->shutdown();
    }
    if (at->handle != NULL) {
        (void)dlclose(at->handle);
    }
    free(at);
    *library = NULL;
}

size_t nvml_count(const nvml *library)
{
    return library->n_devices;
}

void nvml_name(char out[NVML_TEXT_BYTES], const nvml *library, size_t i_device)
{
    out[0] = '\0';
    if (library->name == NULL ||
        library->name(library->devices[i_device], out, NVML_TEXT_BYTES) != 0) {
        out[0] = '\0';
    }
    out[NVML_TEXT_BYTES - 1] = '\0';
    qn_text_clean(out);
}

void nvml_driver(char out[NVML_TEXT_BYTES], const nvml *library)
{
    out[0] = '\0';
    if (library->driver_version == NULL || library->driver_version(out, NVML_TEXT_BYTES) != 0) {
        out[0] = '\0';
    }
    out[NVML_TEXT_BYTES - 1] = '\0';
    qn_text_clean(out);
}

uint64_t nvml_memory_bytes(const nvml *library, size_t i_device)
{
    memory_info info = {0};
    if (library->memory == NULL || library->memory(library->devices[i_device], &info) != 0) {
        return 0;
    }
    return info.total;
}

double nvml_power_w(const nvml *library, size_t i_device)
{
    unsigned milliwatts = 0;
    if (library->power_usage(library->devices[i_device], &milliwatts) != 0) {
        return (double)NAN;
    }
    return (double)milliwatts * 1e-3;
}

double nvml_energy_j(const nvml *library, size_t i_device)
{
    unsigned long long millijoules = 0;
    if (library->total_energy == NULL ||
        library->total_energy(library->devices[i_device], &millijoules) != 0) {
        return (double)NAN;
    }
    return (double)millijoules * 1e-3;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* NVIDIA's library of meters with two devices that are not there: tests say what they draw through
 * fake_nvml_set(). */
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>

enum { N_DEVICES = 2, SUCCESS = 0, NOT_SUPPORTED = 3 };

#define EXPORTED __attribute__((visibility("default")))

static struct {
    unsigned milliwatts; /* 0: cannot be read */
    unsigned long long millijoules;
} devices[N_DEVICES];
static int n_open;
static int init_code;
static atomic_int n_reads;

/* Of tests, who find them by name. */
EXPORTED void fake_nvml_set(unsigned i_device, unsigned milliwatts, unsigned long long millijoules);
EXPORTED void fake_nvml_fail(int code);
EXPORTED int fake_nvml_open_count(void);
EXPORTED int fake_nvml_read_count(void);

EXPORTED int nvmlInit_v2(void);                                           /* NOLINT */
EXPORTED int nvmlShutdown(void);                                          /* NOLINT */
EXPORTED const char *nvmlErrorString(int code);                           /* NOLINT */
EXPORTED int nvmlSystemGetDriverVersion(char *out, unsigned n);           /* NOLINT */
EXPORTED int nvmlDeviceGetCount_v2(unsigned *n);                          /* NOLINT */
EXPORTED int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **device);    /* NOLINT */
EXPORTED int nvmlDeviceGetName(void *device, char *out, unsigned n);      /* NOLINT */
EXPORTED int nvmlDeviceGetMemoryInfo(void *device, unsigned long long *); /* NOLINT */
EXPORTED int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts); /* NOLINT */
EXPORTED int nvmlDeviceGetTotalEnergyConsumption(void *device,            /* NOLINT */
                                                 unsigned long long *millijoules);

void fake_nvml_set(unsigned i_device, unsigned milliwatts, unsigned long long millijoules)
{
    devices[i_device].milliwatts = milliwatts;
    devices[i_device].millijoules = millijoules;
}

void fake_nvml_fail(int code)
{
    init_code = code;
}

int fake_nvml_open_count(void)
{
    return n_open;
}

int fake_nvml_read_count(void)
{
    return atomic_load(&n_reads);
}

int nvmlInit_v2(void) /* NOLINT */
{
    n_open += init_code == SUCCESS;
    return init_code;
}

int nvmlShutdown(void) /* NOLINT */
{
    n_open--;
    return SUCCESS;
}

const char *nvmlErrorString(int code) /* NOLINT */
{
    return code == SUCCESS ? "Success" : "Driver Not Loaded";
}

int nvmlSystemGetDriverVersion(char *out, unsigned n) /* NOLINT */
{
    (void)snprintf(out, n, "570.1");
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *n) /* NOLINT */
{
    *n = N_DEVICES;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **device) /* NOLINT */
{
    *device = &devices[i];
    return SUCCESS;
}

int nvmlDeviceGetName(void *device, char *out, unsigned n) /* NOLINT */
{
    (void)device;
    (void)snprintf(out, n, "Fake H200");
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(void *device, unsigned long long *info) /* NOLINT */
{
    (void)device;
    info[0] = 1000;
    info[1] = info[2] = 500;
    return SUCCESS;
}

static size_t place_of(const void *device)
{
    return device == &devices[1];
}

int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) /* NOLINT */
{
    atomic_fetch_add(&n_reads, 1);
    *milliwatts = devices[place_of(device)].milliwatts;
    return *milliwatts > 0 ? SUCCESS : NOT_SUPPORTED;
}

int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *millijoules) /* NOLINT */
{
    *millijoules = devices[place_of(device)].millijoules;
    return SUCCESS;
}

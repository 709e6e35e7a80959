/* SPDX-License-Identifier: Apache-2.0 */
/** @file nvml.h  NVIDIA's library of meters, found at run time: no GPU, no driver, no dependency.
 */
#ifndef QN_BENCH_NVML_H
#define QN_BENCH_NVML_H
#include "quern/status.h"

#include <stddef.h>
#include <stdint.h>

enum { NVML_DEVICES_MAX = 64, NVML_TEXT_BYTES = 96 };

/** The library, loaded.  Opaque. */
typedef struct nvml nvml;

/**
 * Load the library, and begin.
 *
 * @param path  NULL: libnvidia-ml.so.1, where the system has it
 * Returns  QN_OK; QN_E_DEVICE saying what is missing; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status nvml_open(nvml **out, const char *path, qn_error *err);
/** Unload it and set *library to NULL.  Accepts NULL. */
void nvml_close(nvml **library);

/** All devices of the machine, whatever CUDA_VISIBLE_DEVICES says; at most NVML_DEVICES_MAX. */
size_t nvml_count(const nvml *library);
/** "H100 PCIe"; "" where it is not told. */
void nvml_name(char out[NVML_TEXT_BYTES], const nvml *library, size_t i_device);
/** Version of the driver; "" where it is not told. */
void nvml_driver(char out[NVML_TEXT_BYTES], const nvml *library);
/** Of the device; 0 where it is not told. */
uint64_t nvml_memory_bytes(const nvml *library, size_t i_device);
/** Now; NaN where it cannot be read. */
double nvml_power_w(const nvml *library, size_t i_device);
/** Since the driver was loaded; NaN before Volta. */
double nvml_energy_j(const nvml *library, size_t i_device);
#endif

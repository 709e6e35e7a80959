/* SPDX-License-Identifier: Apache-2.0 */
/** @file meter.h  Meters of power in this machine: NVML of GPUs, RAPL of CPUs. */
#ifndef QN_BENCH_METER_H
#define QN_BENCH_METER_H
#include "quern/status.h"

#include <stdbool.h>
#include <stddef.h>

enum { METER_DEVICES_MAX = 64, METER_NAME_BYTES = 128 };

/** Opaque. */
typedef struct power_meter power_meter;

/** What a device says. */
typedef struct meter_reading {
    double w;        /**< Power now; NaN: has none (RAPL), or it cannot be read. */
    double energy_j; /**< Counter since some time; NaN: has none. */
} meter_reading;

/** @param library  NULL: the system's.  QN_E_DEVICE says what is missing; QN_E_NOMEM */
QN_MUST_CHECK qn_status meter_open_nvml(power_meter **out, const char *library, qn_error *err);
/** @param folder  NULL: /sys/class/powercap.  QN_E_DEVICE says what is missing or not allowed;
 * QN_E_NOMEM */
QN_MUST_CHECK qn_status meter_open_rapl(power_meter **out, const char *folder, qn_error *err);
/** Accepts NULL; sets *meter to NULL. */
void meter_close(power_meter **meter);

/** "NVML: 8 x H100": what is measured. */
const char *meter_source(const power_meter *meter);
/** Devices, at most METER_DEVICES_MAX. */
size_t meter_count(const power_meter *meter);
/** "0 H100", "intel-rapl:0 package-0"; borrowed from the meter. */
const char *meter_name(const power_meter *meter, size_t i_device);

/** Does it count energy, so that power follows from it? */
bool meter_counts(const power_meter *meter);

/** One thread at a time: counters that wrap are followed from one call to the next. */
meter_reading meter_read(power_meter *meter, size_t i_device);
#endif

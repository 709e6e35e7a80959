/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file energy.h  Power over a run to energy, by InferenceX's rules: each device by trapezoids,
 * with the run's ends interpolated, then summed; a gap of more than 3 s makes it invalid. Source
 * SemiAnalysisAI/InferenceX, utils/aggregate_power.py
 */
#ifndef QN_BENCH_ENERGY_H
#define QN_BENCH_ENERGY_H
#include "meter.h"
#include "series.h"
#include "watch.h"

/** Between samples, and between them and the ends of the run. */
#define ENERGY_GAP_MAX_S 3.0

/** A device's account.  Begin with energy_device_init(); seconds count from the run's begin. */
typedef struct energy_device {
    char name[METER_NAME_BYTES];
    uint64_t n_samples;
    double last_s, last_w;
    double energy_j;                        /**< Up to last_s. */
    double gap_s;                           /**< The longest. */
    double counter_first_j, counter_last_j; /**< NaN: has no counter. */
} energy_device;

/** Nothing yet; @p name is cut and cleaned. */
void energy_device_init(energy_device *device, const char *name);

/**
 * Power at a moment later than the last.  Moments before the run or after its end serve to
 * interpolate there.
 * @param end_s  of the run; INFINITY while it lasts
 */
void energy_add_power(energy_device *device, double at_s, double w, double end_s);

/** What a counter of energy says; power is what it grew by. */
void energy_add_counter(energy_device *device, double at_s, double counter_j);

/** The run is over: up to its end the last power holds. */
void energy_end(energy_device *device, double end_s);

/** What to make "energy" of. */
typedef struct energy_account {
    const char *source; /**< What was measured; NULL: nothing. */
    const char *why;    /**< "" or what is wrong. */
    const energy_device *devices;
    size_t n_devices;
    double duration_s;
    const series *power; /**< Columns: second, watts of all devices. */
} energy_account;

/** "energy" (docs/bench_result.md): figures are null unless all of it is valid.  NULL: no memory.
 */
json_t *energy_json(const energy_account *account, const bench_work *work);

/**
 * Samples of a file: lines "seconds since 1970, watts[, device]", or as this prints them:
 * nvidia-smi --query-gpu=timestamp,power.draw,index --format=csv,noheader -lms 200.  A first line
 * that does not begin with a digit is a head, '#' begins a note.  What is further from the run than
 * a gap may be is passed over.
 *
 * @param[out] devices  [*n_devices] owned by the caller (free), ended
 * @param begun_s       seconds since 1970 of the run's begin
 * Returns  QN_OK; QN_E_NOT_FOUND, QN_E_IO; QN_E_FORMAT naming file and line; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status energy_read_file(energy_device **devices, size_t *n_devices, series *power,
                                         const char *path, double begun_s, double duration_s,
                                         qn_error *err);
#endif

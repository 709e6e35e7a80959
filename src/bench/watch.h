/* SPDX-License-Identifier: Apache-2.0 */
/** @file watch.h  What a server says of itself while it is measured, and what it draws: a thread
 * that reads /metrics, and one that reads meters of power, so that neither waits for the other. */
#ifndef QN_BENCH_WATCH_H
#define QN_BENCH_WATCH_H
#include "http.h"

/** Which power is read. */
typedef enum bench_power_kind {
    BENCH_POWER_NONE, /**< "energy" is null. */
    BENCH_POWER_AUTO, /**< NVML, else RAPL, of this machine; none where the server is on another. */
    BENCH_POWER_NVML, /**< All devices of this machine, wherever the server seems to be. */
    BENCH_POWER_RAPL,
    BENCH_POWER_FILE, /**< Lines "seconds since 1970, watts[, device]" of a wall meter, or of
                         nvidia-smi (energy.h); read when the run has ended. */
} bench_power_kind;

/** What to watch; all texts are borrowed until bench_watch_close(). */
typedef struct bench_watch_options {
    const bench_target *target;
    const char *metrics_path; /**< "/metrics"; NULL: not read. */
    double metrics_every_s;   /**< 0: 1 */
    bench_power_kind power;
    const char *power_file;
    double power_every_s;     /**< 0: 0.1 */
    const char *nvml_library; /**< NULL: the system's.  Of tests, as is the next. */
    const char *rapl_folder;  /**< NULL: the system's. */
} bench_watch_options;

/** Opaque. */
typedef struct bench_watch bench_watch;

/** Start the threads.  A server without /metrics, a machine without a meter: no error, the result
 * says so.  QN_E_NOMEM; QN_E_IO where no thread can be started. */
QN_MUST_CHECK qn_status bench_watch_open(bench_watch **out, const bench_watch_options *options,
                                         qn_error *err);
/** End the threads, after 5 s at most, and set *watch to NULL.  Accepts NULL. */
void bench_watch_close(bench_watch **watch);

/**
 * A run begins: call it right before the first request.  What the last run left is forgotten.
 * Begin and end read everything once before they return: some milliseconds, or 5 s where the server
 * does not answer; energy is that of begun_ns to the call of the end.
 *
 * @param begun_ns  its second 0, by qn_clock_ns(); 0: when all has been read
 * Thread   begin, end and what follows here: one at a time
 */
void bench_watch_begin(bench_watch *watch, uint64_t begun_ns);
void bench_watch_end(bench_watch *watch);

/** What energy is shared out over. */
typedef struct bench_work {
    uint64_t n_requests, n_input, n_output; /**< Of successful requests. */
} bench_work;

/** "metrics" and "energy" of the run that has ended (docs/bench_result.md); null where they were
 * not asked for.  Owned by the caller; NULL without memory. */
json_t *bench_watch_metrics(const bench_watch *watch);
json_t *bench_watch_energy(bench_watch *watch, const bench_work *work);

/** "server" of a result: engine, version, model, quantization, weights, acceptance and where each
 * was read; null where the server does not tell.  Asks /v1/models, /metrics, /version,
 * /server_info, /get_server_info, /props, /openapi.json, as far as the engine may have them.
 * Returns  QN_OK, also where nobody answers; QN_E_NOMEM */
QN_MUST_CHECK qn_status bench_server_json(json_t **out, const bench_target *target,
                                          const char *model, qn_error *err);
/** "client" of a result: CPU, cores, memory, kernel, GPUs.  NULL without memory. */
json_t *bench_machine_json(void);
#endif

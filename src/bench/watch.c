/* SPDX-License-Identifier: Apache-2.0 */
#include "watch.h"

#include "base/clock.h"
#include "base/try.h"
#include "energy.h"
#include "machine.h"
#include "metrics.h"

#include <math.h>
#include <pthread.h>

/* A page that takes longer is given up: it must not hold up the end of a run. */
#define PAGE_MAX_S 5.0

enum {
    N_THREADS = 2,
    PAGE_BYTES_MAX = 8 << 20, /* to read more would take the client's time */
};

/* Of meters; written under the lock. */
typedef struct power_watch {
    power_meter
        *meter; /* owned; NULL: there is none.  Read by one thread at a time: under read_lock */
    char why[METRICS_WHY_BYTES];
    energy_device devices[METER_DEVICES_MAX];
    series over_time; /* second, watts of all */
} power_watch;

struct bench_watch {
    bench_watch_options options;
    bench_target target; /* with a shorter patience */
    pthread_mutex_t lock, read_lock;
    pthread_cond_t changed;
    pthread_t threads[N_THREADS];
    size_t n_threads;
    bool is_running, is_closing; /* under the lock */
    uint64_t i_run;
    uint64_t begun_ns, ended_ns;
    double begun_wall_s; /* seconds since 1970 */
    metrics_run metrics; /* under the lock */
    power_watch power;
};

static double seconds_of(const bench_watch *watch, uint64_t now_ns)
{
    return now_ns < watch->begun_ns ? -qn_clock_seconds(now_ns, watch->begun_ns)
                                    : qn_clock_seconds(watch->begun_ns, now_ns);
}

/* -------------------------------------------------------------------------------------- metrics */

/* Ask for the page.  False: *why says what came instead. */
static bool read_page(const bench_watch *watch, bench_figures *page, char why[METRICS_WHY_BYTES])
{
    bench_reply reply = {0};
    qn_error err = {0};
    const char *const path = watch->options.metrics_path;
    bool is_good = false;
    if (bench_http(&reply, &watch->target, path, NULL, &err) < 0) {
        (void)snprintf(why, METRICS_WHY_BYTES, "%.300s", err.text);
    } else if (reply.status != 200) {
        (void)snprintf(why, METRICS_WHY_BYTES, "GET %.100s: status %d, expected 200", path,
                       reply.status);
    } else if (reply.body.len > PAGE_BYTES_MAX) {
        (void)snprintf(why, METRICS_WHY_BYTES, "GET %.100s: %zu bytes, expected at most %d", path,
                       reply.body.len, PAGE_BYTES_MAX);
    } else {
        bench_figures_read(page, qn_buf_view(&reply.body));
        is_good = page->engine != BENCH_UNKNOWN;
        if (!is_good) {
            (void)snprintf(why, METRICS_WHY_BYTES,
                           "GET %.100s: %zu samples and %zu other lines, expected names of quern, "
                           "vLLM, SGLang, llama.cpp or ATOM",
                           path, page->n_samples, page->n_broken);
        }
    }
    bench_http_free(&reply);
    return is_good;
}

/* Read a page and note it, unless the run that it was for is over. */
static void watch_page(bench_watch *watch, uint64_t i_run, metrics_moment moment)
{
    bench_figures page;
    char why[METRICS_WHY_BYTES] = "";
    const uint64_t asked_ns = qn_clock_ns();
    const bool is_good = read_page(watch, &page, why);
    (void)pthread_mutex_lock(&watch->lock);
    if (watch->i_run == i_run && (watch->is_running || moment != METRICS_MIDDLE)) {
        const double at_s = moment == METRICS_BEGIN ? 0 : seconds_of(watch, asked_ns);
        metrics_note(&watch->metrics, moment, at_s, is_good ? &page : NULL, why);
    }
    (void)pthread_mutex_unlock(&watch->lock);
}

static void poll_metrics(bench_watch *watch, uint64_t i_run)
{
    watch_page(watch, i_run, METRICS_MIDDLE);
}

/* ---------------------------------------------------------------------------------------- power */

static void read_power(bench_watch *watch, uint64_t i_run, bool is_at_edge, uint64_t at_ns)
{
    power_watch *const power = &watch->power;
    double total_w = 0;
    if (power->meter == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&watch->read_lock);
    meter_reading readings[METER_DEVICES_MAX];
    const size_t n = meter_count(power->meter);
    const uint64_t now_ns = at_ns != 0 ? at_ns : qn_clock_ns();
    for (size_t i = 0; i < n; i++) {
        readings[i] = meter_read(power->meter, i);
    }
    (void)pthread_mutex_lock(&watch->lock);
    const double at_s = seconds_of(watch, now_ns);
    if (watch->i_run == i_run && (watch->is_running || is_at_edge)) {
        for (size_t i = 0; i < n; i++) {
            energy_device *const device = &power->devices[i];
            const bool is_later = device->n_samples == 0 || at_s > device->last_s;
            if (meter_counts(power->meter) && isfinite(readings[i].energy_j) && is_later) {
                energy_add_counter(device, at_s, readings[i].energy_j);
            } else if (isfinite(readings[i].w) && is_later) {
                energy_add_power(device, at_s, readings[i].w, (double)INFINITY);
                device->counter_first_j =
                    device->n_samples == 1 ? readings[i].energy_j : device->counter_first_j;
                device->counter_last_j = readings[i].energy_j;
            }
            total_w += device->last_w;
        }
        series_add(&power->over_time, (double[SERIES_COLUMNS]){at_s, total_w});
    }
    (void)pthread_mutex_unlock(&watch->lock);
    (void)pthread_mutex_unlock(&watch->read_lock);
}

static void poll_power(bench_watch *watch, uint64_t i_run)
{
    read_power(watch, i_run, false, 0);
}

/* Open what was asked for; why there is none is told by the result. */
static qn_status open_power(bench_watch *watch, qn_error *err)
{
    const bench_watch_options *const options = &watch->options;
    power_watch *const power = &watch->power;
    qn_status status = QN_OK;
    qn_error first = {0};
    qn_error second = {0};
    switch (options->power) {
    case BENCH_POWER_NONE:
    case BENCH_POWER_FILE: return QN_OK;
    case BENCH_POWER_NVML:
        status = meter_open_nvml(&power->meter, options->nvml_library, &first);
        break;
    case BENCH_POWER_RAPL:
        status = meter_open_rapl(&power->meter, options->rapl_folder, &first);
        break;
    case BENCH_POWER_AUTO:
        if (!bench_is_here(watch->target.base_url)) {
            (void)snprintf(power->why, METRICS_WHY_BYTES,
                           "the server is on another machine than the meters");
            return QN_OK;
        }
        status = meter_open_nvml(&power->meter, options->nvml_library, &first);
        if (status == QN_E_DEVICE) {
            status = meter_open_rapl(&power->meter, options->rapl_folder, &second);
        }
        break;
    }
    if (status == QN_E_NOMEM) {
        return qn_fail(err, status, 0, __func__, "power: no memory");
    }
    if (status < 0) {
        (void)snprintf(power->why, METRICS_WHY_BYTES, "%.150s%s%.150s", first.text,
                       second.text[0] != '\0' ? "; " : "", second.text);
    }
    return QN_OK;
}

/* -------------------------------------------------------------------------------------- threads */

/* Call @p poll at every multiple of the interval while a run lasts; a moment that is missed is left
 * out, not made up for. */
static void poll_every(bench_watch *watch, double every_s,
                       void (*poll)(bench_watch *watch, uint64_t i_run))
{
    const uint64_t every_ns = (uint64_t)(every_s * 1e9);
    (void)pthread_mutex_lock(&watch->lock);
    while (!watch->is_closing) {
        if (!watch->is_running) {
            (void)pthread_cond_wait(&watch->changed, &watch->lock);
            continue;
        }
        const uint64_t i_run = watch->i_run;
        const uint64_t now_ns = qn_clock_ns();
        const uint64_t since_ns = now_ns > watch->begun_ns ? now_ns - watch->begun_ns : 0;
        const uint64_t due_ns = watch->begun_ns + (since_ns / every_ns + 1) * every_ns;
        const struct timespec due = {.tv_sec = (time_t)(due_ns / 1000000000U),
                                     .tv_nsec = (long)(due_ns % 1000000000U)};
        int waited = 0;
        while (watch->is_running && watch->i_run == i_run && !watch->is_closing && waited == 0) {
            waited = pthread_cond_timedwait(&watch->changed, &watch->lock, &due);
        }
        if (watch->is_running && watch->i_run == i_run && !watch->is_closing) {
            (void)pthread_mutex_unlock(&watch->lock);
            poll(watch, i_run);
            (void)pthread_mutex_lock(&watch->lock);
        }
    }
    (void)pthread_mutex_unlock(&watch->lock);
}

static void *run_metrics(void *context)
{
    bench_watch *const watch = context;
    poll_every(watch, watch->options.metrics_every_s, poll_metrics);
    return NULL;
}

static void *run_power(void *context)
{
    bench_watch *const watch = context;
    poll_every(watch, watch->options.power_every_s, poll_power);
    return NULL;
}

static qn_status start(bench_watch *watch, void *(*body)(void *context), qn_error *err)
{
    const int code = pthread_create(&watch->threads[watch->n_threads], NULL, body, watch);
    if (code != 0) {
        return qn_fail(err, QN_E_IO, code, __func__, "watch: cannot start a thread");
    }
    watch->n_threads++;
    return QN_OK;
}

static void init_locks(bench_watch *watch)
{
    pthread_condattr_t attributes;
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&watch->changed, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    (void)pthread_mutex_init(&watch->lock, NULL);
    (void)pthread_mutex_init(&watch->read_lock, NULL);
}

qn_status bench_watch_open(bench_watch **out, const bench_watch_options *options, qn_error *err)
{
    qn_status status = QN_OK;
    *out = NULL;
    bench_watch *watch = calloc(1, sizeof *watch);
    if (watch == NULL) {
        return qn_fail(err, QN_E_NOMEM, 0, __func__, "watch: no memory");
    }
    init_locks(watch);
    watch->options = *options;
    watch->options.metrics_every_s = options->metrics_every_s > 0 ? options->metrics_every_s : 1;
    watch->options.power_every_s = options->power_every_s > 0 ? options->power_every_s : 0.1;
    watch->target = *options->target;
    if (!(watch->target.timeout_s > 0 && watch->target.timeout_s < PAGE_MAX_S)) {
        watch->target.timeout_s = PAGE_MAX_S;
    }
    metrics_init(&watch->metrics);
    QN_TRY(status, open_power(watch, err), fail);
    if (options->metrics_path != NULL) {
        QN_TRY(status, start(watch, run_metrics, err), fail);
    }
    if (watch->power.meter != NULL) {
        QN_TRY(status, start(watch, run_power, err), fail);
    }
    *out = watch;
    return QN_OK;

fail:
    bench_watch_close(&watch);
    return status;
}

void bench_watch_close(bench_watch **watch)
{
    bench_watch *const at = *watch;
    if (at == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&at->lock);
    at->is_closing = true;
    (void)pthread_cond_broadcast(&at->changed);
    (void)pthread_mutex_unlock(&at->lock);
    for (size_t i = 0; i < at->n_threads; i++) {
        (void)pthread_join(at->threads[i], NULL);
    }
    meter_close(&at->power.meter);
    (void)pthread_cond_destroy(&at->changed);
    (void)pthread_mutex_destroy(&at->lock);
    (void)pthread_mutex_destroy(&at->read_lock);
    free(at);
    *watch = NULL;
}

/* ------------------------------------------------------------------------------------------ run */

void bench_watch_begin(bench_watch *watch, uint64_t begun_ns)
{
    power_watch *const power = &watch->power;
    (void)pthread_mutex_lock(&watch->lock);
    const uint64_t i_run = ++watch->i_run;
    watch->is_running = false;
    metrics_init(&watch->metrics);
    power->over_time = (series){0};
    for (size_t i = 0; power->meter != NULL && i < meter_count(power->meter); i++) {
        energy_device_init(&power->devices[i], meter_name(power->meter, i));
    }
    (void)pthread_mutex_unlock(&watch->lock);
    if (watch->options.metrics_path != NULL) {
        watch_page(watch, i_run, METRICS_BEGIN);
    }
    (void)pthread_mutex_lock(&watch->lock);
    const uint64_t now_ns = qn_clock_ns();
    watch->begun_ns = begun_ns != 0 ? begun_ns : now_ns;
    watch->begun_wall_s = (double)qn_clock_wall_ns() * 1e-9 - seconds_of(watch, now_ns);
    (void)pthread_mutex_unlock(&watch->lock);
    read_power(watch, i_run, true, begun_ns == 0 ? now_ns : 0);
    (void)pthread_mutex_lock(&watch->lock);
    watch->is_running = true;
    (void)pthread_cond_broadcast(&watch->changed);
    (void)pthread_mutex_unlock(&watch->lock);
}

void bench_watch_end(bench_watch *watch)
{
    power_watch *const power = &watch->power;
    (void)pthread_mutex_lock(&watch->lock);
    const uint64_t i_run = watch->i_run;
    watch->is_running = false;
    watch->ended_ns = qn_clock_ns();
    (void)pthread_cond_broadcast(&watch->changed);
    (void)pthread_mutex_unlock(&watch->lock);
    read_power(watch, i_run, true, watch->ended_ns);
    for (size_t i = 0; power->meter != NULL && i < meter_count(power->meter); i++) {
        energy_end(&power->devices[i], seconds_of(watch, watch->ended_ns));
    }
    if (watch->options.metrics_path != NULL) {
        watch_page(watch, i_run, METRICS_END);
    }
}

/* ------------------------------------------------------------------------------------- results */

json_t *bench_watch_metrics(const bench_watch *watch)
{
    return watch->options.metrics_path != NULL ? metrics_json(&watch->metrics) : json_null();
}

json_t *bench_watch_energy(bench_watch *watch, const bench_work *work)
{
    power_watch *const power = &watch->power;
    energy_account account = {
        .source = power->meter != NULL ? meter_source(power->meter) : NULL,
        .why = power->why,
        .devices = power->devices,
        .n_devices = power->meter != NULL ? meter_count(power->meter) : 0,
        .duration_s = seconds_of(watch, watch->ended_ns),
        .power = &power->over_time,
    };
    if (watch->options.power == BENCH_POWER_NONE) {
        return json_null();
    }
    if (watch->options.power != BENCH_POWER_FILE) {
        return energy_json(&account, work);
    }
    energy_device *devices = NULL;
    qn_error err = {0};
    power->over_time = (series){0};
    if (energy_read_file(&devices, &account.n_devices, &power->over_time, watch->options.power_file,
                         watch->begun_wall_s, account.duration_s, &err) == QN_E_NOMEM) {
        return NULL;
    }
    account.source = watch->options.power_file;
    account.why = err.text;
    account.devices = devices;
    json_t *const made = energy_json(&account, work);
    free(devices);
    return made;
}

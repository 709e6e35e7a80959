/* SPDX-License-Identifier: Apache-2.0 */
#include "energy.h"

#include "base/str.h"
#include "put.h"

enum { WHY_BYTES = 320 };

void energy_device_init(energy_device *device, const char *name)
{
    *device = (energy_device){.counter_first_j = (double)NAN, .counter_last_j = (double)NAN};
    (void)snprintf(device->name, sizeof device->name, "%s", name);
    qn_text_clean(device->name);
}

/* A sample was taken: how long was the device not looked at, as far as that was within the run? */
static void note_sample(energy_device *device, double at_s, double end_s)
{
    const double since_s = device->n_samples == 0 ? 0 : device->last_s;
    if (at_s > 0 && since_s < end_s) {
        device->gap_s = fmax(device->gap_s, at_s - since_s);
    }
    device->n_samples++;
    device->last_s = at_s;
}

void energy_add_power(energy_device *device, double at_s, double w, double end_s)
{
    const bool is_first = device->n_samples == 0;
    const double before_s = is_first ? fmin(0, at_s) : device->last_s;
    const double before_w = is_first ? w : device->last_w;
    const double from_s = fmax(before_s, 0);
    const double to_s = fmin(at_s, end_s);
    if (to_s > from_s) {
        const double slope = (w - before_w) / (at_s - before_s);
        const double from_w = before_w + slope * (from_s - before_s);
        const double to_w = before_w + slope * (to_s - before_s);
        device->energy_j += (to_s - from_s) * (from_w + to_w) / 2;
    }
    note_sample(device, at_s, end_s);
    device->last_w = w;
}

void energy_add_counter(energy_device *device, double at_s, double counter_j)
{
    const double grown_j = counter_j - device->counter_last_j; /* NaN: the first */
    if (device->n_samples == 0) {
        device->counter_first_j = counter_j;
    } else {
        device->energy_j += grown_j;
        device->last_w = grown_j / (at_s - device->last_s);
    }
    device->counter_last_j = counter_j;
    note_sample(device, at_s, (double)INFINITY);
}

void energy_end(energy_device *device, double end_s)
{
    const double rest_s = end_s - fmax(device->last_s, 0);
    if (device->n_samples > 0 && rest_s > 0) {
        device->energy_j += rest_s * device->last_w;
    }
    device->gap_s = fmax(device->gap_s, device->n_samples > 0 ? end_s - device->last_s : end_s);
}

/* Why the figures may not be used: "" where they may. */
static void judge(char why[WHY_BYTES], const energy_account *account, double joules)
{
    (void)snprintf(why, WHY_BYTES, "%s", account->why);
    if (why[0] != '\0') {
        return;
    }
    if (account->n_devices == 0) {
        (void)snprintf(why, WHY_BYTES, "no sample of power within the run");
    }
    if (!isfinite(joules)) {
        (void)snprintf(why, WHY_BYTES, "no finite sum of energy");
    }
    if (!(account->duration_s > 0)) {
        (void)snprintf(why, WHY_BYTES, "the run has no duration");
    }
    for (size_t i = 0; i < account->n_devices && why[0] == '\0'; i++) {
        const energy_device *const device = &account->devices[i];
        if (device->n_samples < 2) {
            (void)snprintf(why, WHY_BYTES, "%s: %llu samples, expected 2 or more", device->name,
                           (unsigned long long)device->n_samples);
        } else if (device->gap_s > ENERGY_GAP_MAX_S) {
            (void)snprintf(why, WHY_BYTES, "%s: no sample for %.1f s, expected one every %g s",
                           device->name, device->gap_s, ENERGY_GAP_MAX_S);
        }
    }
}

static json_t *devices_json(const energy_account *account)
{
    bool failed = false;
    json_t *const list = json_array();
    for (size_t i = 0; i < account->n_devices; i++) {
        const energy_device *const device = &account->devices[i];
        json_t *const one = json_object();
        put(one, "name", json_string(device->name), &failed);
        put(one, "energy_j", put_real(device->energy_j), &failed);
        put(one, "avg_power_w", put_real(device->energy_j / account->duration_s), &failed);
        put(one, "counter_energy_j", put_real(device->counter_last_j - device->counter_first_j),
            &failed);
        put(one, "samples", json_integer((json_int_t)device->n_samples), &failed);
        put(one, "max_gap_s", put_real(device->gap_s), &failed);
        put_last(list, one, &failed);
    }
    return put_whole(list, failed);
}

static json_t *series_json(const series *power)
{
    bool failed = false;
    json_t *const made = json_object();
    json_t *const seconds = json_array();
    json_t *const watts = json_array();
    for (size_t i = 0; power != NULL && i < power->n; i++) {
        put_last(seconds, put_real(power->rows[i][0]), &failed);
        put_last(watts, put_real(power->rows[i][1]), &failed);
    }
    put(made, "t_s", seconds, &failed);
    put(made, "w", watts, &failed);
    return put_whole(made, failed);
}

static double per(double joules, uint64_t n)
{
    return n > 0 ? joules / (double)n : (double)NAN;
}

json_t *energy_json(const energy_account *account, const bench_work *work)
{
    char why[WHY_BYTES];
    double joules = 0;
    bool failed = false;
    for (size_t i = 0; i < account->n_devices; i++) {
        joules += account->devices[i].energy_j;
    }
    judge(why, account, joules);
    if (why[0] != '\0') {
        joules = (double)NAN;
    }
    const double w = joules / account->duration_s;
    json_t *const made = json_object();
    put(made, "source", put_text(account->source), &failed);
    put(made, "power_valid", json_boolean(why[0] == '\0'), &failed);
    put(made, "why", put_text(why), &failed);
    put(made, "duration_s", put_real(account->duration_s), &failed);
    put(made, "avg_power_w", put_real(w / (double)account->n_devices), &failed);
    put(made, "avg_total_gpu_power_w", put_real(w), &failed);
    put(made, "total_gpu_energy_j", put_real(joules), &failed);
    put(made, "joules_per_successful_query", put_real(per(joules, work->n_requests)), &failed);
    put(made, "joules_per_input_token", put_real(per(joules, work->n_input)), &failed);
    put(made, "joules_per_output_token", put_real(per(joules, work->n_output)), &failed);
    put(made, "joules_per_total_token", put_real(per(joules, work->n_input + work->n_output)),
        &failed);
    put(made, "series", series_json(account->power), &failed);
    put(made, "devices", devices_json(account), &failed);
    return put_whole(made, failed);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "base/file.h"
#include "base/try.h"
#include "energy.h"

#include <ctype.h>
#include <math.h>
#include <unistd.h>

enum {
    LINE_BYTES = 512,
    SAMPLES_MAX = 1 << 24, /* 8 devices ten times a second for two days */
    GRID_MAX = 1000,       /* points of the curve */
};

typedef struct sample {
    double at_s, w;
    size_t i_device;
} sample;

/* What a file has of a run. */
typedef struct power_file {
    const char *path;
    double begun_s, duration_s;
    energy_device *devices; /* [n_devices] owned */
    size_t n_devices;
    sample *samples; /* [n] owned */
    size_t n, capacity;
} power_file;

static qn_status fail_memory(const power_file *from, qn_error *err)
{
    return qn_fail(err, QN_E_NOMEM, 0, __func__, "%s: no memory", from->path);
}

static qn_status find_device(size_t *i_device, power_file *to, const char *name, qn_error *err)
{
    for (size_t i = 0; i < to->n_devices; i++) {
        if (strcmp(to->devices[i].name, name) == 0) {
            *i_device = i;
            return QN_OK;
        }
    }
    if (to->n_devices == METER_DEVICES_MAX) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__,
                       "%s: device \"%s\" is one too many, expected "
                       "at most %d",
                       to->path, name, METER_DEVICES_MAX);
    }
    energy_device *const grown = realloc(to->devices, (to->n_devices + 1) * sizeof to->devices[0]);
    if (grown == NULL) {
        return fail_memory(to, err);
    }
    to->devices = grown;
    *i_device = to->n_devices++;
    energy_device_init(&to->devices[*i_device], name);
    return QN_OK;
}

static qn_status keep(power_file *to, sample one, qn_error *err)
{
    if (to->n == to->capacity) {
        const size_t capacity = to->capacity == 0 ? 1024 : 2 * to->capacity;
        if (capacity > SAMPLES_MAX) {
            return qn_fail(err, QN_E_FORMAT, 0, __func__,
                           "%s: more samples within the run, at most %d expected", to->path,
                           SAMPLES_MAX);
        }
        sample *const grown = realloc(to->samples, capacity * sizeof one);
        if (grown == NULL) {
            return fail_memory(to, err);
        }
        to->samples = grown;
        to->capacity = capacity;
    }
    to->samples[to->n++] = one;
    return QN_OK;
}

/* A number, and in *at what follows behind white space. */
static bool take_number(char **at, double *value)
{
    char *end = NULL;
    *value = strtod(*at, &end);
    const bool is_number = end != *at && isfinite(*value);
    *at = end + strspn(end, " \t");
    return is_number;
}

/* Seconds since 1970, or a date of this machine's zone as nvidia-smi writes it. */
static bool take_time(char **at, double *seconds)
{
    struct tm parts = {.tm_isdst = -1};
    double fraction = 0;
    char *rest = strptime(*at, "%Y/%m/%d %H:%M:%S", &parts);
    if (rest == NULL) {
        return take_number(at, seconds);
    }
    if (*rest == '.' && !take_number(&rest, &fraction)) {
        return false;
    }
    parts.tm_isdst = -1;
    *seconds = (double)mktime(&parts) + fraction;
    *at = rest + strspn(rest, " \t");
    return true;
}

/* "time, watts[ W][, device]" */
static bool parse_line(char *line, sample *one, char name[METER_NAME_BYTES])
{
    char *at = line + strspn(line, " \t");
    if (!take_time(&at, &one->at_s) || *at != ',') {
        return false;
    }
    at++;
    if (!take_number(&at, &one->w) || one->w < 0) {
        return false;
    }
    at += *at == 'W';
    if (*at != ',' && *at != '\0') {
        return false;
    }
    at += *at == ',';
    at += strspn(at, " \t");
    size_t len = strlen(at);
    while (len > 0 && isspace((unsigned char)at[len - 1])) {
        len--;
    }
    at[len] = '\0';
    (void)snprintf(name, METER_NAME_BYTES, "%s", len > 0 ? at : "power");
    qn_text_clean(name);
    return true;
}

static qn_status read_line(power_file *to, char *line, size_t n_line, qn_error *err)
{
    sample one = {0};
    char name[METER_NAME_BYTES];
    line[strcspn(line, "\r\n")] = '\0';
    const char first = line[strspn(line, " \t")];
    if (first == '\0' || first == '#' || (n_line == 1 && !isdigit((unsigned char)first))) {
        return QN_OK;
    }
    if (!parse_line(line, &one, name)) {
        qn_text_clean(line);
        return qn_fail(err, QN_E_FORMAT, 0, __func__,
                       "%s: line %zu: \"%.80s\", expected \"seconds since 1970, watts[, device]\"",
                       to->path, n_line, line);
    }
    one.at_s -= to->begun_s;
    if (one.at_s < -ENERGY_GAP_MAX_S || one.at_s > to->duration_s + ENERGY_GAP_MAX_S) {
        return QN_OK;
    }
    const qn_status status = find_device(&one.i_device, to, name, err);
    return status < 0 ? status : keep(to, one, err);
}

static qn_status read_lines(power_file *to, FILE *file, qn_error *err)
{
    char line[LINE_BYTES];
    size_t n_line = 0;
    while (fgets(line, sizeof line, file) != NULL) {
        n_line++;
        if (strchr(line, '\n') == NULL) {
            if (feof(file)) {
                break; /* the meter is still writing it */
            }
            return qn_fail(err, QN_E_FORMAT, 0, __func__,
                           "%s: line %zu is longer than %d bytes, expected \"seconds since 1970, "
                           "watts[, device]\"",
                           to->path, n_line, LINE_BYTES - 2);
        }
        const qn_status status = read_line(to, line, n_line, err);
        if (status < 0) {
            return status;
        }
    }
    if (ferror(file)) {
        return qn_fail(err, QN_E_IO, 0, __func__, "%s: not read to its end, a file expected",
                       to->path);
    }
    return QN_OK;
}

static int compare_samples(const void *left, const void *right)
{
    const sample *const a = left;
    const sample *const b = right;
    if (a->i_device != b->i_device) {
        return a->i_device < b->i_device ? -1 : 1;
    }
    return a->at_s < b->at_s ? -1 : a->at_s > b->at_s;
}

/* Readings of one moment become their mean: some meters' clocks are coarser than their pace. */
static void merge_moments(power_file *in)
{
    size_t n = 0;
    for (size_t i = 0; i < in->n;) {
        sample merged = in->samples[i];
        size_t n_same = 1;
        while (i + n_same < in->n && compare_samples(&in->samples[i + n_same], &merged) == 0) {
            merged.w += in->samples[i + n_same++].w;
        }
        i += n_same;
        merged.w /= (double)n_same;
        in->samples[n++] = merged;
    }
    in->n = n;
}

/* Power of one device at the curve's points, between its samples. */
static void add_to_grid(double *grid, size_t n_grid, double step_s, const sample *samples, size_t n)
{
    size_t i = 0;
    for (size_t i_point = 0; i_point < n_grid; i_point++) {
        const double at_s = (double)i_point * step_s;
        while (i + 1 < n && samples[i + 1].at_s <= at_s) {
            i++;
        }
        const sample *const left = &samples[i];
        const sample *const right = &samples[i + 1 < n ? i + 1 : i];
        const double span_s = right->at_s - left->at_s;
        const double share = span_s > 0 ? fmin(fmax((at_s - left->at_s) / span_s, 0), 1) : 0;
        grid[i_point] += left->w + share * (right->w - left->w);
    }
}

static void account_for(power_file *in, series *power)
{
    static const double finest_s = 0.1;
    double grid[GRID_MAX] = {0};
    const double step_s = fmax(in->duration_s / (GRID_MAX - 1), finest_s);
    const size_t n_grid = (size_t)fmax(in->duration_s / step_s, 0) + 1;
    if (in->n == 0) {
        return;
    }
    qsort(in->samples, in->n, sizeof in->samples[0], compare_samples);
    merge_moments(in);
    for (size_t i = 0; i < in->n;) {
        const size_t first = i;
        energy_device *const device = &in->devices[in->samples[i].i_device];
        for (; i < in->n && in->samples[i].i_device == in->samples[first].i_device; i++) {
            energy_add_power(device, in->samples[i].at_s, in->samples[i].w, in->duration_s);
        }
        energy_end(device, in->duration_s);
        add_to_grid(grid, n_grid, step_s, in->samples + first, i - first);
    }
    for (size_t i = 0; i < n_grid; i++) {
        series_add(power, (double[SERIES_COLUMNS]){(double)i * step_s, grid[i]});
    }
}

qn_status energy_read_file(energy_device **devices, size_t *n_devices, series *power,
                           const char *path, double begun_s, double duration_s, qn_error *err)
{
    power_file in = {.path = path, .begun_s = begun_s, .duration_s = duration_s};
    FILE *file = NULL;
    int fd = -1;
    uint64_t size_bytes = 0;
    qn_status status = QN_OK;
    *devices = NULL;
    *n_devices = 0;
    QN_TRY(status, qn_file_open(&fd, &size_bytes, path, err), fail);
    file = fdopen(fd, "r");
    if (file == NULL) {
        (void)close(fd);
        status = fail_memory(&in, err);
        goto fail;
    }
    QN_TRY(status, read_lines(&in, file, err), fail);
    account_for(&in, power);
    *devices = in.devices;
    *n_devices = in.n_devices;
    in.devices = NULL;

fail:
    if (file != NULL) {
        (void)fclose(file);
    }
    free(in.samples);
    free(in.devices);
    return status;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "meter.h"

#include "base/file.h"
#include "base/try.h"
#include "nvml.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <unistd.h>

#define POWERCAP "/sys/class/powercap"

enum { SOURCE_BYTES = 160, PATH_BYTES = 512, VALUE_BYTES = 64 };

/* A domain of RAPL. */
typedef struct domain {
    int fd;            /* of energy_uj */
    uint64_t last_uj;  /* as read */
    uint64_t range_uj; /* it counts up to that, then from 0 */
    double sum_j;
    bool was_read;
} domain;

struct power_meter {
    nvml *library; /* NULL: RAPL */
    size_t n;
    char source[SOURCE_BYTES];
    char names[METER_DEVICES_MAX][METER_NAME_BYTES];
    domain domains[METER_DEVICES_MAX];
};

static power_meter *make(qn_error *err)
{
    power_meter *const made = calloc(1, sizeof *made);
    if (made == NULL) {
        (void)qn_fail(err, QN_E_NOMEM, 0, __func__, "power: no memory");
        return NULL;
    }
    for (size_t i = 0; i < METER_DEVICES_MAX; i++) {
        made->domains[i].fd = -1;
    }
    return made;
}

void meter_close(power_meter **meter)
{
    power_meter *const at = *meter;
    if (at == NULL) {
        return;
    }
    nvml_close(&at->library);
    for (size_t i = 0; i < METER_DEVICES_MAX; i++) {
        if (at->domains[i].fd >= 0) {
            (void)close(at->domains[i].fd);
        }
    }
    free(at);
    *meter = NULL;
}

qn_status meter_open_nvml(power_meter **out, const char *library, qn_error *err)
{
    *out = NULL;
    power_meter *opened = make(err);
    if (opened == NULL) {
        return QN_E_NOMEM;
    }
    const qn_status status = nvml_open(&opened->library, library, err);
    if (status < 0) {
        meter_close(&opened);
        return status;
    }
    char name[NVML_TEXT_BYTES];
    opened->n = nvml_count(opened->library);
    for (size_t i = 0; i < opened->n; i++) {
        nvml_name(name, opened->library, i);
        (void)snprintf(opened->names[i], METER_NAME_BYTES, "%zu %s", i, name);
    }
    nvml_name(name, opened->library, 0);
    (void)snprintf(opened->source, SOURCE_BYTES, "NVML: %zu x %s", opened->n, name);
    *out = opened;
    return QN_OK;
}

/* The number or the word in a file of sysfs; QN_E_DEVICE with the system's reason. */
static qn_status read_text(char out[VALUE_BYTES], const char *folder, const char *domain_name,
                           const char *file, qn_error *err)
{
    char path[PATH_BYTES];
    (void)snprintf(path, sizeof path, "%s/%s/%s", folder, domain_name, file);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    const ssize_t n = fd >= 0 ? read(fd, out, VALUE_BYTES - 1) : -1;
    const int why = errno;
    if (fd >= 0) {
        (void)close(fd);
    }
    if (n < 0) {
        return qn_fail(err, QN_E_DEVICE, why, __func__,
                       "RAPL: %.200s: %s, a file that we may read expected", path, strerror(why));
    }
    out[n] = '\0';
    out[strcspn(out, "\n")] = '\0';
    qn_text_clean(out);
    return QN_OK;
}

static bool read_counter(domain *from)
{
    char text[VALUE_BYTES];
    const ssize_t n = pread(from->fd, text, sizeof text - 1, 0);
    if (n <= 0) {
        return false;
    }
    text[n] = '\0';
    char *end = NULL;
    const uint64_t now_uj = strtoull(text, &end, 10);
    if (end == text) {
        return false;
    }
    if (from->was_read) {
        const uint64_t step_uj = now_uj >= from->last_uj
                                     ? now_uj - from->last_uj
                                     : now_uj + (from->range_uj - from->last_uj);
        from->sum_j += (double)step_uj * 1e-6;
    }
    from->last_uj = now_uj;
    from->was_read = true;
    return true;
}

/* intel-rapl:0 is a package, intel-rapl:0:1 a part of it: memory is not in the package's count, the
 * other parts are.  psys, the whole board, has the packages in it. */
static bool is_counted(const char *domain_name, const char *name)
{
    const char *const colon = strchr(domain_name, ':');
    const bool is_part = colon != NULL && strchr(colon + 1, ':') != NULL;
    return is_part ? strcmp(name, "dram") == 0 : strncmp(name, "package", 7) == 0;
}

static qn_status add_domain(power_meter *to, const char *folder, const char *domain_name,
                            qn_error *err)
{
    char name[VALUE_BYTES];
    char text[VALUE_BYTES];
    char path[PATH_BYTES];
    qn_status status = read_text(name, folder, domain_name, "name", err);
    if (status < 0 || !is_counted(domain_name, name) || to->n == METER_DEVICES_MAX) {
        return status;
    }
    domain *const added = &to->domains[to->n];
    QN_TRY(status, read_text(text, folder, domain_name, "energy_uj", err), fail);
    QN_TRY(status, read_text(text, folder, domain_name, "max_energy_range_uj", err), fail);
    added->range_uj = strtoull(text, NULL, 10);
    (void)snprintf(path, sizeof path, "%s/%s/energy_uj", folder, domain_name);
    added->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (added->fd < 0 || !read_counter(added)) {
        return qn_fail(err, QN_E_DEVICE, errno, __func__,
                       "RAPL: %.200s: nothing to read, a number expected", path);
    }
    (void)snprintf(to->names[to->n++], METER_NAME_BYTES, "%.40s %.60s", domain_name, name);

fail:
    return status;
}

static qn_status add_domains(power_meter *to, const char *folder, qn_error *err)
{
    DIR *const opened = opendir(folder);
    if (opened == NULL) {
        return qn_fail(err, QN_E_DEVICE, errno, __func__,
                       "RAPL: %.200s is not there, expected a CPU that counts its energy", folder);
    }
    qn_status status = QN_OK;
    const char *name = NULL;
    do {
        status = qn_folder_next(&name, opened, folder, err);
        if (status == QN_OK && name != NULL && strncmp(name, "intel-rapl:", 11) == 0) {
            status = add_domain(to, folder, name, err);
        }
    } while (status == QN_OK && name != NULL);
    (void)closedir(opened);
    if (status == QN_OK && to->n == 0) {
        return qn_fail(err, QN_E_DEVICE, 0, __func__,
                       "RAPL: no package in %.200s, expected a CPU that counts its energy", folder);
    }
    return status;
}

qn_status meter_open_rapl(power_meter **out, const char *folder, qn_error *err)
{
    *out = NULL;
    power_meter *opened = make(err);
    if (opened == NULL) {
        return QN_E_NOMEM;
    }
    const qn_status status = add_domains(opened, folder != NULL ? folder : POWERCAP, err);
    if (status < 0) {
        meter_close(&opened);
        return status;
    }
    (void)snprintf(opened->source, SOURCE_BYTES,
                   "RAPL: %zu domains of CPU and memory, with all that runs on them", opened->n);
    *out = opened;
    return QN_OK;
}

const char *meter_source(const power_meter *meter)
{
    return meter->source;
}

size_t meter_count(const power_meter *meter)
{
    return meter->n;
}

const char *meter_name(const power_meter *meter, size_t i_device)
{
    return meter->names[i_device];
}

bool meter_counts(const power_meter *meter)
{
    return meter->library == NULL;
}

meter_reading meter_read(power_meter *meter, size_t i_device)
{
    if (meter->library != NULL) {
        return (meter_reading){nvml_power_w(meter->library, i_device),
                               nvml_energy_j(meter->library, i_device)};
    }
    domain *const at = &meter->domains[i_device];
    return (meter_reading){(double)NAN, read_counter(at) ? at->sum_j : (double)NAN};
}

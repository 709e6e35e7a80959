/* SPDX-License-Identifier: Apache-2.0 */
#include "server/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

static double seconds(const struct timeval *time)
{
    return (double)time->tv_sec + (double)time->tv_usec * 1e-6;
}

/* The first two numbers of /proc/self/statm, in pages: mapped, resident. */
static void read_memory(process_use *use)
{
    char text[128];
    const int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    const ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    if (fd >= 0) {
        (void)close(fd);
    }
    text[n > 0 ? n : 0] = '\0';
    unsigned long long n_mapped = 0;
    unsigned long long n_resident = 0;
    if (sscanf(text, "%llu %llu", &n_mapped, &n_resident) == 2) { /* NOLINT(cert-err34-c): ours */
        const double page_bytes = (double)sysconf(_SC_PAGESIZE);
        use->virtual_bytes = (double)n_mapped * page_bytes;
        use->resident_bytes = (double)n_resident * page_bytes;
    }
}

static void count_descriptors(process_use *use)
{
    DIR *const folder = opendir("/proc/self/fd");
    if (folder == NULL) {
        return;
    }
    double n = 0.0;
    for (const struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        n += entry->d_name[0] != '.' ? 1.0 : 0.0;
    }
    (void)closedir(folder);
    use->n_descriptors = n - 1.0; /* the folder itself */
}

process_use process_get_use(void)
{
    const double unknown = (double)NAN;
    process_use use = {unknown, unknown, unknown, unknown, unknown};
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) == 0) {
        use.cpu_s = seconds(&usage.ru_utime) + seconds(&usage.ru_stime);
    }
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
        use.n_descriptors_max = (double)limit.rlim_cur;
    }
    read_memory(&use);
    count_descriptors(&use);
    return use;
}

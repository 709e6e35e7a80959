/* SPDX-License-Identifier: Apache-2.0 */
#include "machine.h"

#include "base/str.h"
#include "nvml.h"
#include "put.h"
#include "url.h"
#include "watch.h"

#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

enum { LINE_BYTES = 512 };

static bool is_same_address(const struct sockaddr *a, const struct sockaddr *b)
{
    if (a == NULL || b == NULL || a->sa_family != b->sa_family) {
        return false;
    }
    struct sockaddr_in four[2];
    struct sockaddr_in6 six[2];
    switch (a->sa_family) {
    case AF_INET:
        memcpy(&four[0], a, sizeof four[0]);
        memcpy(&four[1], b, sizeof four[1]);
        return four[0].sin_addr.s_addr == four[1].sin_addr.s_addr;
    case AF_INET6:
        memcpy(&six[0], a, sizeof six[0]);
        memcpy(&six[1], b, sizeof six[1]);
        return memcmp(&six[0].sin6_addr, &six[1].sin6_addr, sizeof six[0].sin6_addr) == 0;
    default: return false;
    }
}

/* "0.0.0.0" and "::", by which people reach what listens on all addresses, are here too. */
static bool is_loopback(const struct sockaddr *address)
{
    struct sockaddr_in four;
    struct sockaddr_in6 six;
    switch (address->sa_family) {
    case AF_INET:
        memcpy(&four, address, sizeof four);
        return ntohl(four.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET ||
               four.sin_addr.s_addr == htonl(INADDR_ANY);
    case AF_INET6: memcpy(&six, address, sizeof six); return IN6_IS_ADDR_LOOPBACK(&six.sin6_addr);
    default: return false;
    }
}

bool bench_is_here(const char *url)
{
    bench_url parts;
    struct addrinfo *found = NULL;
    struct ifaddrs *own = NULL;
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    bool is_here = false;
    if (bench_url_open(&parts, url, NULL) != QN_OK) {
        return false;
    }
    const int failed = getaddrinfo(parts.host, NULL, &hints, &found);
    bench_url_close(&parts);
    if (failed != 0) {
        return false;
    }
    if (getifaddrs(&own) != 0) {
        own = NULL;
    }
    for (const struct addrinfo *a = found; a != NULL && !is_here; a = a->ai_next) {
        is_here = is_loopback(a->ai_addr);
        for (const struct ifaddrs *i = own; i != NULL && !is_here; i = i->ifa_next) {
            is_here = is_same_address(a->ai_addr, i->ifa_addr);
        }
    }
    if (own != NULL) {
        freeifaddrs(own);
    }
    freeaddrinfo(found);
    return is_here;
}

/* "model name : AMD EPYC"; "" where there is no such line, as on ARM. */
static void read_cpu(char out[LINE_BYTES])
{
    char line[LINE_BYTES];
    FILE *const file = fopen("/proc/cpuinfo", "re");
    out[0] = '\0';
    while (file != NULL && out[0] == '\0' && fgets(line, sizeof line, file) != NULL) {
        const char *const colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && colon != NULL) {
            line[strcspn(line, "\n")] = '\0';
            (void)snprintf(out, LINE_BYTES, "%s", colon + 1 + strspn(colon + 1, " \t"));
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    qn_text_clean(out);
}

static json_t *gpus_json(void)
{
    bool failed = false;
    nvml *library = NULL;
    json_t *const list = json_array();
    if (nvml_open(&library, NULL, NULL) == QN_OK) {
        char text[NVML_TEXT_BYTES];
        for (size_t i = 0; i < nvml_count(library); i++) {
            json_t *const one = json_object();
            nvml_name(text, library, i);
            put(one, "name", put_text(text), &failed);
            nvml_driver(text, library);
            put(one, "driver", put_text(text), &failed);
            put(one, "memory_bytes", json_integer((json_int_t)nvml_memory_bytes(library, i)),
                &failed);
            put_last(list, one, &failed);
        }
    }
    nvml_close(&library);
    return put_whole(list, failed);
}

json_t *bench_machine_json(void)
{
    char cpu[LINE_BYTES];
    char kernel[LINE_BYTES] = "";
    struct utsname name;
    bool failed = false;
    read_cpu(cpu);
    if (uname(&name) == 0) {
        (void)snprintf(kernel, sizeof kernel, "%s %s %s", name.sysname, name.release, name.machine);
    }
    json_t *const made = json_object();
    put(made, "cpu", put_text(cpu), &failed);
    put(made, "cores", json_integer(sysconf(_SC_NPROCESSORS_ONLN)), &failed);
    put(made, "memory_bytes", json_integer(sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE)),
        &failed);
    put(made, "kernel", put_text(kernel), &failed);
    put(made, "gpus", gpus_json(), &failed);
    return put_whole(made, failed);
}

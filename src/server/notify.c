/* SPDX-License-Identifier: Apache-2.0 */
#include "server/notify.h"

#include "base/env.h"

#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

void server_notify(const char *state)
{
    const char *const path = qn_env_get(QN_ENV_NOTIFY_SOCKET);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const size_t len = path != NULL ? strlen(path) : 0;
    if (len < 2 || len >= sizeof address.sun_path || (path[0] != '/' && path[0] != '@')) {
        return; /* nobody listens, or by a protocol that is not this one */
    }
    memcpy(address.sun_path, path, len);
    socklen_t address_bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
    if (path[0] == '@') { /* an abstract name begins with a NUL and ends with its last byte */
        address.sun_path[0] = '\0';
        address_bytes--;
    }
    const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return;
    }
    /* A service manager that does not read must not hold the server. */
    (void)sendto(fd, state, strlen(state), MSG_NOSIGNAL | MSG_DONTWAIT,
                 (const struct sockaddr *)&address, address_bytes);
    (void)close(fd);
}

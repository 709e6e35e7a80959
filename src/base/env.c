/* SPDX-License-Identifier: Apache-2.0 */
#include "base/env.h"

#include <stdlib.h>

static const char *const names[] = {
    [QN_ENV_HOME] = "HOME",
    [QN_ENV_HF_HOME] = "HF_HOME",
    [QN_ENV_CPU_MASK] = "QN_CPU_MASK",
    [QN_ENV_NOTIFY_SOCKET] = "NOTIFY_SOCKET",
    [QN_ENV_WATCHDOG_USEC] = "WATCHDOG_USEC",
};
enum { N_OF_SERVICE_MANAGER = 2, N_OF_PROGRAM = 2 /* NO_COLOR, TERM */ };
_Static_assert(sizeof names / sizeof names[0] - N_OF_SERVICE_MANAGER + N_OF_PROGRAM <= 5,
               "settings are flags, not environment variables");

const char *qn_env_get(qn_env variable)
{
    const char *const value = getenv(names[variable]);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* A vendor's library that has nothing but its version. */

#define SEEN __attribute__((visibility("default")))

SEEN extern int old_driver_version;
SEEN int cuDriverGetVersion(int *version);
SEEN int hipRuntimeGetVersion(int *version);

int old_driver_version = 0; /* Negative: it cannot tell. */

int cuDriverGetVersion(int *version)
{
    *version = old_driver_version;
    return old_driver_version < 0 ? 3 : 0;
}

int hipRuntimeGetVersion(int *version)
{
    return cuDriverGetVersion(version);
}

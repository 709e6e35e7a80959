/* SPDX-License-Identifier: Apache-2.0 */
#include "device/gpu_library.h"

#include "base/assert.h"
#include "base/str.h"

#include <dlfcn.h>

enum { NAMES_MAX = 4 };

/* As glibc tells it; a library that another one needs is named instead of this one. */
static bool is_missing(const char *why, const char *name)
{
    const size_t len = strlen(name);
    return strncmp(why, name, len) == 0 && why[len] == ':' &&
           strstr(why, "No such file or directory") != NULL;
}

qn_status qn_gpu_library_open(void **out, const char *const *names, size_t n_names, qn_error *err)
{
    QN_ASSERT(n_names > 0);
    QN_ASSERT(n_names <= NAMES_MAX);
    char why[256] = ""; /* of the first that is there and cannot be loaded, else of the last */
    char all[128] = "";
    bool has_one = false;
    for (size_t i = 0; i < n_names; i++) {
        *out = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        if (*out != NULL) {
            return QN_OK;
        }
        const char *const said = dlerror();
        if (said != NULL && !has_one) {
            (void)snprintf(why, sizeof why, "%.200s", said);
            has_one = !is_missing(said, names[i]);
        }
    }
    if (has_one) {
        return qn_fail(err, QN_E_DEVICE, 0, __func__, "the driver's library cannot be loaded (%s)",
                       why);
    }
    for (size_t i = 0; i < n_names; i++) {
        const size_t len = strlen(all);
        (void)snprintf(all + len, sizeof all - len, "%s%s", i > 0 ? " or " : "", names[i]);
    }
    return qn_fail(err, QN_E_NOT_FOUND, 0, __func__, "no library (%s), %s expected", why, all);
}

qn_status qn_gpu_library_find(void *library, const qn_gpu_symbol *symbols, size_t n_symbols,
                              qn_error *err)
{
    for (size_t i = 0; i < n_symbols; i++) {
        void *found = dlsym(library, symbols[i].name);
        if (found == NULL && symbols[i].old_name != NULL) {
            found = dlsym(library, symbols[i].old_name);
        }
        if (found == NULL) {
            return qn_fail(err, QN_E_DEVICE, 0, __func__,
                           "the driver's library has no function %s, expected one",
                           symbols[i].name);
        }
        memcpy(symbols[i].function, &found, sizeof found); /* ISO C has no cast from data */
    }
    return QN_OK;
}

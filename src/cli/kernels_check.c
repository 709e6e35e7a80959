/* SPDX-License-Identifier: Apache-2.0 */
#include "progress.h"
#include "report.h"
#include "server/backend.h"

#include <stdlib.h>
#include <string.h>

enum { NAMED_MAX = 6 }; /* choices of a message */

/* "; moe of mxfp4, 256 x 2048 x 6144, 64 rows: plain", where it is chosen by the number of rows */
static void append_choice(char *text, size_t size, const qn_kernel_choice *c)
{
    const size_t used = strlen(text);
    char groups[16] = "";
    char rows[32] = "";
    if (c->n_groups > 0) {
        (void)snprintf(groups, sizeof groups, "%u x ", c->n_groups);
    }
    if (c->n_rows == UINT32_MAX) {
        (void)snprintf(rows, sizeof rows, ", more rows");
    } else if (c->n_rows > 0) {
        (void)snprintf(rows, sizeof rows, ", %u row%s", c->n_rows, c->n_rows == 1 ? "" : "s");
    }
    (void)snprintf(text + used, size - used, "%s%s of %s, %s%u x %u%s: %s", used > 0 ? "; " : "",
                   c->operation, c->weights, groups, c->n_out, c->n_in, rows, c->variant);
}

/* Fallbacks by name, as many as fit; returns how many there are. */
static size_t name_fallbacks(char *text, size_t size, const qn_kernel_choice *choices, size_t n)
{
    size_t n_found = 0;
    text[0] = '\0';
    for (size_t i = 0; i < n; i++) {
        if (strcmp(choices[i].source, "fallback") == 0 && ++n_found <= NAMED_MAX) {
            append_choice(text, size, &choices[i]);
        }
    }
    if (n_found > NAMED_MAX) {
        const size_t used = strlen(text);
        (void)snprintf(text + used, size - used, "; and %zu more", n_found - NAMED_MAX);
    }
    return n_found;
}

qn_status cli_check_kernels(const qn_model *model, bool is_strict, qn_error *err)
{
    char text[512];
    size_t n = 0;
    qn_kernel_choice *choices = NULL;
    const qn_status status = server_list_kernels(&choices, &n, model, err);
    if (status < 0) {
        return status;
    }
    const size_t n_fallbacks = name_fallbacks(text, sizeof text, choices, n);
    free(choices);
    if (n_fallbacks > 0 && is_strict) {
        return qn_fail(err, QN_E_DEVICE, 0, __func__,
                       "kernels: %zu of %zu are fallbacks (%s), expected kernels made for this "
                       "machine (--strict)",
                       n_fallbacks, n, text);
    }
    if (n_fallbacks > 0) {
        cli_warn("kernels: %zu of %zu are fallbacks (%s), expected kernels made for this machine",
                 n_fallbacks, n, text);
    }
    return QN_OK;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "commands.h"
#include "report.h"

#include <stdio.h>

typedef struct devices_values {
    cli_common common;
    bool as_json;
} devices_values;

static const cli_option options[] = {
    {"json", 0, CLI_FLAG, NULL, offsetof(devices_values, as_json), 0, 0,
     "Print {\"devices\": [...], \"gpu_kernels\": ...}"},
};

enum { DEVICES_MAX = 64 };

static json_t *to_json(const qn_device *d)
{
    return json_pack("{ss, ss, sb, ss, ss, ss, sI, sI}", "name", d->name, "description",
                     d->description, "usable", (int)d->is_usable, "reason", d->reason, "kernels",
                     d->kernels, "features", d->features, "memory_bytes",
                     (json_int_t)d->memory_bytes, "threads", (json_int_t)d->n_threads);
}

static int run(void *values, int n_arguments, char **arguments)
{
    (void)n_arguments;
    (void)arguments;
    const devices_values *v = values;
    qn_device devices[DEVICES_MAX];
    const size_t n = qn_devices(devices, DEVICES_MAX);
    if (v->as_json) {
        json_t *list = json_array();
        for (size_t i = 0; i < n; i++) {
            (void)json_array_append_new(list, to_json(&devices[i]));
        }
        return cli_print_json(
            json_pack("{so, ss}", "devices", list, "gpu_kernels", qn_build_get()->gpu_kernels));
    }
    for (size_t i = 0; i < n; i++) {
        const qn_device *d = &devices[i];
        (void)printf("%-8s %s", d->name, d->description);
        if (d->memory_bytes > 0) { /* of a GPU whose driver fails nothing is known */
            (void)printf(", %.1f GB", (double)d->memory_bytes * 1e-9);
        }
        (void)printf("\n");
        if (d->is_usable) {
            (void)printf("         kernels: %s; present: %s\n", d->kernels, d->features);
        } else {
            (void)printf("         not used: %s\n", d->reason);
        }
    }
    (void)printf("GPU kernels of this build: %s\n", qn_build_get()->gpu_kernels);
    return cli_flush(CLI_DONE);
}

const cli_command cmd_devices = {
    .name = "devices",
    .summary = "List what this machine can compute on",
    .synopsis = "[--json]",
    .description = "Lists the devices of this machine, which kernels would serve a model on each, "
                   "and why a device cannot be used.",
    .examples = "quern devices\nquern devices --json\n",
    .groups = {{"Options", options, sizeof options / sizeof *options, 0}, CLI_COMMON_GROUP},
    .n_groups = 2,
    .n_arguments_max = 0,
    .run = run,
};

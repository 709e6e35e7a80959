/* SPDX-License-Identifier: Apache-2.0 */
/* Checks of kernels/gpu/dummy.c: every byte is that of model/dummy.c. */
#include "gpucheck.h"
#include "model/dummy.h"

/* One case: rows of a matrix. */
typedef struct dummy_case {
    qn_role role;
    qn_weight_kind kind;
    uint32_t n_out, n_in;
    uint32_t first, n; /* rows */
} dummy_case;

static size_t bytes_of(const qn_gpu_dummy_args *args)
{
    return args->n * (args->kind == QN_GPU_DUMMY_BF16 ? 2 : args->kind == QN_GPU_DUMMY_F32 ? 4 : 1);
}

static void compare(gc *run, const char *what, qn_gpu_dummy_args args)
{
    const size_t n_bytes = bytes_of(&args);
    void *const want = gc_host(run, n_bytes);
    void *const got = gc_out(run, n_bytes);
    args.y = want;
    qn_dummy_fill(&args);
    (void)gc_in(run, want, n_bytes); /* nothing is read; what the device has stays as it is */
    args.y = got;
    qn_gpu_dummy(&run->ops, gc_args(run, &args, sizeof args));
    gc_wait(run);
    gc_same(run, what, gc_got(run, got), want, n_bytes);
}

static void dummy_one(gc *run, const dummy_case *c)
{
    static const char *const names[] = {"f32", "bf16", "fp8 block", "fp8 channel", "mxfp4"};
    const qn_tensor_spec spec = {.role = c->role, .n_out = c->n_out, .n_in = c->n_in};
    const qn_dummy matrix = {
        .spec = &spec, .kind = c->kind, .seed = gc_bits(run), .stream = gc_bits(run)};
    const qn_gpu_dummy_args scales = qn_dummy_scales(&matrix, NULL, c->first, c->n);
    gc_begin(run, "%s %u x %u rows %u to %u", names[c->kind], c->n_out, c->n_in, c->first,
             c->first + c->n);
    compare(run, "elements", qn_dummy_elements(&matrix, NULL, c->first, c->n));
    gc_end(run);
    if (scales.n > 0) {
        gc_begin(run, "scales of %s %u x %u rows %u to %u", names[c->kind], c->n_out, c->n_in,
                 c->first, c->first + c->n);
        compare(run, "scales", scales);
        gc_end(run);
    }
}

static void check_dummy(gc *run)
{
    static const qn_role roles[] = {QN_ROLE_MATRIX, QN_ROLE_ROUTER, QN_ROLE_EMBEDDING};
    for (qn_weight_kind kind = QN_WEIGHT_BF16; kind <= QN_WEIGHT_MXFP4; kind++) {
        for (uint32_t i = 0; i < 3; i++) {
            if (roles[i] == QN_ROLE_EMBEDDING && kind != QN_WEIGHT_BF16) {
                continue;
            }
            dummy_one(run, &(dummy_case){roles[i], kind, 40, 96, 0, 40});
            dummy_one(run, &(dummy_case){roles[i], kind, 300, 160, 128, 131});
            if (!run->is_emulated) {
                dummy_one(run, &(dummy_case){roles[i], kind, 2048, 6144, 256, 1280});
            }
        }
    }
    dummy_one(run, &(dummy_case){QN_ROLE_MATRIX, QN_WEIGHT_BF16, 9, 5, 3, 5});
    dummy_one(run, &(dummy_case){QN_ROLE_MATRIX, QN_WEIGHT_FP8_CHANNEL, 9, 5, 0, 9});
    dummy_one(run, &(dummy_case){QN_ROLE_MATRIX, QN_WEIGHT_FP8_BLOCK, 129, 5, 128, 1});
}

static void dummy_wrong_first(void *args)
{
    ((qn_gpu_dummy_args *)args)->first = 0;
}

static void dummy_wrong_counter(void *args)
{
    ((qn_gpu_dummy_args *)args)->counter = 0;
}

static const gc_check checks[] = {
    {"dummy", check_dummy, "exact: the bytes of the CPU's"},
    {NULL, NULL, NULL},
};

static const gc_wrong wrongs[] = {
    {"dummy_wrong_first", "dummy", dummy_wrong_first},
    {"dummy_wrong_counter", "dummy", dummy_wrong_counter},
    {NULL, NULL, NULL},
};

const gc_group gc_dummy = {checks, wrongs, NULL};

/* SPDX-License-Identifier: Apache-2.0 */
/** @file fake_kernels.h  Kernels for sm_90a on the fake driver: all that it is said to have. */
#ifndef QN_TESTS_FAKE_KERNELS_H
#define QN_TESTS_FAKE_KERNELS_H
#include "kernels/gpu_ops.h"
#include "support/fake_gpu.h"
#include "support/unit.h"

static const qn_gpu_module_image fake_image = {
    .name = "all", .target = "sm_90a", .bytes = (const uint8_t *)"x", .packed_size = 1, .size = 1};

/** A driver as it is in the beginning, its device, and kernels; the caller closes both.
 *  @param has  which symbols there are; NULL: all */
static inline qn_gpu_kernels *fake_open_kernels(qn_gpu **gpu, bool (*has)(const char *symbol))
{
    qn_gpu_kernels *kernels = NULL;
    qn_error err = {0};
    fake_gpu_reset();
    fake_gpu.arch = "sm_90";
    fake_gpu.has = has;
    assert_int_equal(qn_gpu_open_driver(gpu, &fake_gpu_driver, 0, &err), QN_OK);
    assert_int_equal(qn_gpu_kernels_open(&kernels, *gpu, &fake_image, 1, &err), QN_OK);
    return kernels;
}
#endif

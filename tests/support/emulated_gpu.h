/* SPDX-License-Identifier: Apache-2.0 */
/** @file emulated_gpu.h  A GPU of the driver for tests whose kernels the emulator runs. */
#ifndef QN_TEST_EMULATED_GPU_H
#define QN_TEST_EMULATED_GPU_H
#include "kernels/gpu_ops.h"

/** Stands for the kernels that are linked in: of such a GPU. */
extern const qn_gpu_module_image emulated_module;

/** Forget what the driver was told and did (fake_gpu_reset()), and open its device. */
QN_MUST_CHECK qn_status emulated_gpu_open(qn_gpu **out, qn_error *err);
#endif

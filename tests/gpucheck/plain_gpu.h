/* SPDX-License-Identifier: Apache-2.0 */
/** @file plain_gpu.h  A GPU whose memory is the host's and whose kernels the emulator runs. */
#ifndef QN_GPUCHECK_PLAIN_GPU_H
#define QN_GPUCHECK_PLAIN_GPU_H
#include "device/gpu.h"

QN_MUST_CHECK qn_status plain_gpu_open(qn_gpu **out);
#endif

/* SPDX-License-Identifier: Apache-2.0 */
/** @file device.h  Which devices this machine has, and which one a --device value means. */
#ifndef QN_DEVICE_DEVICE_H
#define QN_DEVICE_DEVICE_H
#include "quern/quern.h"

/**
 * The CPU, then each kind of GPU whose driver left its node in @p dev_dir; those are listed with
 * the reason why they cannot be used.  The kernels field is left empty: it is not known here.
 *
 * @param[out] out  room for @p n_max entries
 * @param dev_dir   "/dev"
 * Returns  number of entries written
 */
size_t qn_device_list(qn_device *out, size_t n_max, const char *dev_dir);

/**
 * Is @p text, a --device value, a device that can compute?
 *
 * @param text  auto, cpu, cuda[:N], hip[:N] or gfxsim; NULL: auto
 * Returns  QN_OK: the CPU; QN_E_DEVICE for the others; QN_E_INVAL for anything else
 */
QN_MUST_CHECK qn_status qn_device_check(const char *text, qn_error *err);
#endif

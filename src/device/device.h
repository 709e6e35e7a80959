/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file device.h  Which devices this machine has, and which one a --device value means.
 *
 * Which GPUs this build has code for is not known here: callers give the architectures, archs
 * [n_archs], as drivers call them ("sm_90", "gfx950").
 */
#ifndef QN_DEVICE_DEVICE_H
#define QN_DEVICE_DEVICE_H
#include "quern/quern.h"

struct qn_gpu_driver; /* gpu_driver.h */

/**
 * The CPU, whose kernels field is left empty: it is not known here; then all GPUs, each with the
 * reason why it cannot be used where it cannot.  GPUs whose driver fails are one entry, which is
 * there if its library can be loaded, or the kernel's part of the driver left its node in @p
 * dev_dir.
 *
 * @param[out] out  room for @p n_max entries
 * @param dev_dir   "/dev"
 * Returns  number of entries written
 */
size_t qn_device_list(qn_device *out, size_t n_max, const char *dev_dir, const char *const *archs,
                      size_t n_archs);

/** The GPUs of one driver, as qn_device_list() has them. */
size_t qn_device_list_gpus(qn_device *out, size_t n_max, const struct qn_gpu_driver *driver,
                           const char *dev_dir, const char *const *archs, size_t n_archs);

/**
 * Is @p text, a --device value, a device that can compute?  It is not opened.
 *
 * @param text    auto, cpu, cuda[:N] or hip[:N]; NULL: auto, which is the CPU
 * @param option  what errors begin with; NULL: --device
 * Returns  QN_OK; QN_E_DEVICE that says why the GPU cannot; QN_E_INVAL for anything else
 */
QN_MUST_CHECK qn_status qn_device_check(const char *text, const char *option,
                                        const char *const *archs, size_t n_archs, qn_error *err);

/** The same for a device of one driver; @p option is there. */
QN_MUST_CHECK qn_status qn_device_check_gpu(const struct qn_gpu_driver *driver, uint32_t i_device,
                                            const char *option, const char *const *archs,
                                            size_t n_archs, qn_error *err);
#endif

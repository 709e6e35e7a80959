/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/x86/mxfp4_tmpl.h"

/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/x86/dequant_tmpl.h"

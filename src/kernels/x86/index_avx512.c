/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/x86/index_tmpl.h"

/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/kernels.h"

#include <math.h>

double qn_logsumexp_ref(const float *x, size_t n)
{
    float max = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        max = x[i] > max ? x[i] : max; /* false for NaN */
    }
    if (isinf(max)) {
        return (double)max; /* nothing to add up, or Inf whatever the others are */
    }
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) {
        sum += x[i] <= max ? exp((double)x[i] - (double)max) : 0.0;
    }
    return (double)max + log(sum);
}

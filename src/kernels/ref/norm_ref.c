/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/kernels.h"

#include <math.h>

void qn_rmsnorm_ref(float *y, size_t y_stride, const float *x, size_t x_stride, const float *weight,
                    size_t n_rows, size_t n, float eps)
{
    for (size_t t = 0; t < n_rows; t++) {
        const float *from = x + t * x_stride;
        float *to = y + t * y_stride;
        double sum = 0.0;
        for (size_t i = 0; i < n; i++) {
            sum += (double)from[i] * (double)from[i];
        }
        const double scale = 1.0 / sqrt(sum / (double)n + (double)eps);
        for (size_t i = 0; i < n; i++) {
            to[i] = (float)((double)from[i] * scale * (double)weight[i]);
        }
    }
}

void qn_layernorm_ref(float *y, const float *x, const float *weight, const float *bias, size_t n,
                      float eps)
{
    double mean = 0.0;
    for (size_t i = 0; i < n; i++) {
        mean += (double)x[i];
    }
    mean /= (double)n;
    double variance = 0.0;
    for (size_t i = 0; i < n; i++) {
        variance += ((double)x[i] - mean) * ((double)x[i] - mean);
    }
    const double scale = 1.0 / sqrt(variance / (double)n + (double)eps);
    for (size_t i = 0; i < n; i++) {
        y[i] = (float)(((double)x[i] - mean) * scale * (double)weight[i] + (double)bias[i]);
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
/** @file product_shapes.h  GLM-5.2's products, whole and as ranks hold them, and odd ones. */
#ifndef QN_TEST_PRODUCT_SHAPES_H
#define QN_TEST_PRODUCT_SHAPES_H
#include <stdint.h>

/** Outputs, inputs, groups, pair; not of experts. */
static const uint32_t product_shapes[][4] = {
    {16384, 2048, 1, 0}, {6144, 16384, 1, 0}, {2048, 6144, 1, 0}, {154880, 6144, 1, 0},
    {4096, 2048, 1, 0},  {6144, 4096, 1, 0},  {512, 192, 64, 0},  {256, 512, 16, 0},
    {12288, 6144, 1, 1}, {512, 6144, 1, 1},   {32, 6144, 1, 0},   {24, 96, 1, 0},
    {64, 64, 1, 0},      {136, 1088, 3, 1},
};
enum { N_PRODUCT_SHAPES = sizeof product_shapes / sizeof *product_shapes };
#endif

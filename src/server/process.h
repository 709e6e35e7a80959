/* SPDX-License-Identifier: Apache-2.0 */
/** @file process.h  What this process takes of its machine. */
#ifndef QN_SERVER_PROCESS_H
#define QN_SERVER_PROCESS_H

/** Fields are NaN where the system does not say. */
typedef struct process_use {
    double cpu_s;             /**< User and system, since its start. */
    double resident_bytes;    /**< Memory that is there, */
    double virtual_bytes;     /**< and that is mapped. */
    double n_descriptors;     /**< Open now, ... */
    double n_descriptors_max; /**< ... and at most. */
} process_use;

/** Any thread; takes a fraction of a millisecond. */
process_use process_get_use(void);
#endif

/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file env.h  Every environment variable that the library reads, in one table.  At most five, with
 * NO_COLOR, which is the program's.
 */
#ifndef QN_BASE_ENV_H
#define QN_BASE_ENV_H

/** The variables. */
typedef enum qn_env {
    QN_ENV_HOME,     /**< HOME: where ~/.cache is. */
    QN_ENV_HF_HOME,  /**< HF_HOME: the Hugging Face cache, instead of ~/.cache/huggingface. */
    QN_ENV_CPU_MASK, /**< QN_CPU_MASK: as --cpu-mask, which wins. */
} qn_env;

/** Value, borrowed from the environment; NULL where unset or empty. */
const char *qn_env_get(qn_env variable);
#endif

/* SPDX-License-Identifier: Apache-2.0 */
/** @file env.h  Every environment variable that is read, in one table.  At most five. */
#ifndef QN_BASE_ENV_H
#define QN_BASE_ENV_H

/** The variables. */
typedef enum qn_env {
    QN_ENV_HOME,     /**< HOME: where ~/.cache is. */
    QN_ENV_HF_HOME,  /**< HF_HOME: the Hugging Face cache, instead of ~/.cache/huggingface. */
    QN_ENV_NO_COLOR, /**< NO_COLOR: set means no colours (https://no-color.org). */
    QN_ENV_CPU_MASK, /**< QN_CPU_MASK: as --cpu-mask, which wins. */
} qn_env;

/** Value, borrowed from the environment; NULL where unset or empty. */
const char *qn_env_get(qn_env variable);

/** The variable's name, for messages and help. */
const char *qn_env_name(qn_env variable);
#endif

/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file env.h  Every environment variable that library and server read, in one table.  At most five
 * that people set, with the program's NO_COLOR and TERM; a service manager sets the other two.
 */
#ifndef QN_BASE_ENV_H
#define QN_BASE_ENV_H

/** The variables. */
typedef enum qn_env {
    QN_ENV_HOME,          /**< HOME: where ~/.cache is. */
    QN_ENV_HF_HOME,       /**< HF_HOME: the Hugging Face cache, instead of ~/.cache/huggingface. */
    QN_ENV_CPU_MASK,      /**< QN_CPU_MASK: as --cpu-mask, which wins. */
    QN_ENV_NOTIFY_SOCKET, /**< NOTIFY_SOCKET: where the service manager listens. */
    QN_ENV_WATCHDOG_USEC, /**< WATCHDOG_USEC: microseconds within which it expects to hear of us. */
} qn_env;

/** Value, borrowed from the environment; NULL where unset or empty. */
const char *qn_env_get(qn_env variable);
#endif

/* SPDX-License-Identifier: Apache-2.0 */
/** @file commands.h  The commands, one file each. */
#ifndef QN_CLI_COMMANDS_H
#define QN_CLI_COMMANDS_H
#include "options.h"

extern const cli_command cmd_chat;  /**< A conversation. */
extern const cli_command cmd_run;   /**< One answer. */
extern const cli_command cmd_eval;  /**< Right answers, and what they say. */
extern const cli_command cmd_batch; /**< A file of requests. */
extern const cli_command cmd_serve; /**< Answers over HTTP. */

extern const cli_command cmd_bench;         /**< How fast a model or a server is; its kinds: */
extern const cli_command cmd_bench_serve;   /**< any server, */
extern const cli_command cmd_bench_engine;  /**< a model in this process, */
extern const cli_command cmd_bench_compare; /**< two results, */
extern const cli_command cmd_bench_kernels; /**< the kernels of a model, */
extern const cli_command cmd_bench_report;  /**< a result as pages. */

extern const cli_command cmd_tokenize;   /**< Text to ids. */
extern const cli_command cmd_detokenize; /**< Ids to text. */
extern const cli_command cmd_quantize;   /**< A checkpoint to MXFP4. */
extern const cli_command cmd_tune;       /**< Which GPU kernels are fastest. */
extern const cli_command cmd_devices;    /**< What this machine has. */
extern const cli_command cmd_inspect;    /**< What a checkpoint is. */
extern const cli_command cmd_help;       /**< Pages of help. */
#endif

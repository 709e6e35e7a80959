/* SPDX-License-Identifier: Apache-2.0 */
/** @file config_file.h  Options of a command from a JSON file. */
#ifndef QN_CLI_CONFIG_FILE_H
#define QN_CLI_CONFIG_FILE_H
#include "options.h"

#include <jansson.h>

/**
 * Take the options of a file that the command line did not give.  Keys are the long names of
 * options, where '_' is as good as '-'.  A text or number is a value; true gives a flag, false its
 * opposite (--no-NAME) where there is one; a list gives an option several times; an object is a
 * value that is JSON; null is as if the key were not there.
 *
 * @param[out] keep  what the values point to from now on; owned by the caller (json_decref)
 * Returns  QN_OK; QN_E_FORMAT naming the file and the key; the statuses of cli_read_text()
 */
QN_MUST_CHECK qn_status cli_config_apply(json_t **keep, const cli_command *command, void *values,
                                         const char *path, qn_error *err);
#endif

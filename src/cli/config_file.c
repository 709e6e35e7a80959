/* SPDX-License-Identifier: Apache-2.0 */
#include "config_file.h"

#include "report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_BYTES = 64, WHAT_BYTES = 320 };

/* A key on its way. */
typedef struct entry {
    const cli_command *command;
    void *values;
    cli_given line; /* what the command line gave */
    json_t *keep;   /* list of texts that values point to */
    const char *path, *key;
    char what[WHAT_BYTES]; /* "FILE: KEY" */
    qn_error *err;
} entry;

static qn_status refuse(const entry *e, const char *seen, const char *expected)
{
    return qn_fail(e->err, QN_E_FORMAT, 0, __func__, "%s: %s, expected %s", e->what, seen,
                   expected);
}

static bool is_of_line(const entry *e, uint16_t offset)
{
    for (size_t i = 0; i < e->line.n; i++) {
        if (e->line.offsets[i] == offset) {
            return true;
        }
    }
    return false;
}

/* The text that the command line would have. */
static const char *text_of(const entry *e, const json_t *value)
{
    json_t *text = NULL;
    if (json_is_string(value)) {
        return json_string_value(value);
    }
    if (!json_is_boolean(value)) {
        char *const dumped = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
        text = dumped != NULL ? json_string(dumped) : NULL;
        free(dumped);
    }
    const bool is_kept = text != NULL && json_array_append_new(e->keep, text) == 0;
    return is_kept ? json_string_value(text) : NULL;
}

static qn_status take_value(const entry *e, cli_found found, const json_t *value)
{
    char words[CLI_WORDS_BYTES];
    const char *const text = text_of(e, value);
    cli_show_words(words, found.option);
    if (text == NULL) {
        return json_is_boolean(value)
                   ? refuse(e, "true or false", words)
                   : qn_fail(e->err, QN_E_NOMEM, 0, __func__, "%s: no memory to keep it", e->what);
    }
    const qn_status status = cli_take(e->values, found, e->what, text, e->err);
    if (status == QN_E_INVAL) { /* a file is not the usage of a command */
        e->err->status = QN_E_FORMAT;
        return QN_E_FORMAT;
    }
    return status;
}

static qn_status take_flag(const entry *e, cli_found found, const json_t *value)
{
    if (!json_is_boolean(value)) {
        return refuse(e, "no boolean", "true or false");
    }
    if (json_is_true(value)) {
        return cli_take(e->values, found, e->what, NULL, e->err);
    }
    *(bool *)found.field = found.option->kind == CLI_CLEAR; /* the opposite of what it does */
    return QN_OK;
}

static qn_status take_list(const entry *e, cli_found found, const json_t *values)
{
    qn_status status = QN_OK;
    size_t i = 0;
    const json_t *value = NULL;
    json_array_foreach(values, i, value)
    {
        status = status == QN_OK ? take_value(e, found, value) : status;
    }
    return status;
}

static qn_status take_entry(const entry *e, const json_t *value)
{
    static const char *const of_line[] = {"config", "help", "version"};
    char name[NAME_BYTES];
    (void)snprintf(name, sizeof name, "%s", e->key);
    for (char *at = name; *at != '\0'; at++) {
        if (*at == '_') {
            *at = '-';
        }
    }
    for (size_t i = 0; i < sizeof of_line / sizeof *of_line; i++) {
        if (strcmp(name, of_line[i]) == 0) {
            return refuse(e, "in a file", "on the command line");
        }
    }
    const cli_found found = cli_find(e->command, e->values, name, strlen(name));
    if (found.option == NULL) {
        return cli_fail_unknown(e->command, e->what, name, QN_E_FORMAT, e->err);
    }
    if (json_is_null(value) || is_of_line(e, found.offset)) {
        return QN_OK;
    }
    switch (found.option->kind) {
    case CLI_FLAG:
    case CLI_CLEAR: return take_flag(e, found, value);
    case CLI_LIST:
    case CLI_WORDS:
        return json_is_array(value) ? take_list(e, found, value) : take_value(e, found, value);
    default:
        return json_is_array(value) && found.option->kind != CLI_TEXT
                   ? refuse(e, "a list", "a value")
                   : take_value(e, found, value);
    }
}

static qn_status take_entries(json_t *root, entry *e)
{
    qn_status status = QN_OK;
    json_t *value = NULL;
    json_object_foreach(root, e->key, value)
    {
        (void)snprintf(e->what, sizeof e->what, "%s: %.*s", e->path, NAME_BYTES, e->key);
        status = status == QN_OK ? take_entry(e, value) : status;
    }
    return status;
}

qn_status cli_config_apply(json_t **keep, const cli_command *command, void *values,
                           const char *path, qn_error *err)
{
    char *text = NULL;
    size_t len = 0;
    json_error_t why;
    *keep = NULL;
    qn_status status = cli_read_text(&text, &len, path, err);
    if (status < 0) {
        return status;
    }
    json_t *const root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
    json_t *const texts = json_array();
    *keep = json_pack("[o?, o?]", root, texts);
    free(text);
    if (*keep == NULL || texts == NULL) {
        return qn_fail(err, QN_E_NOMEM, 0, __func__, "%s: no memory to read it", path);
    }
    if (root == NULL) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__, "%s:%d: %s, expected JSON", path, why.line,
                       why.text);
    }
    if (!json_is_object(root)) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__, "%s: a list, expected an object of options",
                       path);
    }
    entry e = {
        .command = command,
        .values = values,
        .line = ((const cli_common *)values)->given, /* as it is now */
        .keep = texts,
        .path = path,
        .err = err,
    };
    return take_entries(root, &e);
}

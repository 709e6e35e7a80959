/* SPDX-License-Identifier: Apache-2.0 */
/** @file options.h  Command tables: one list of options serves the parser, --help and man pages. */
#ifndef QN_CLI_OPTIONS_H
#define QN_CLI_OPTIONS_H
#include "quern/quern.h"

/** What an option takes, and the type of the field it fills. */
typedef enum cli_kind {
    CLI_FLAG,   /**< nothing; bool */
    CLI_TEXT,   /**< a string; const char * */
    CLI_COUNT,  /**< a whole number; uint64_t */
    CLI_NUMBER, /**< a number; double */
    CLI_CHOICE, /**< one of the words of metavar, "a|b|c"; int, the word's place */
    CLI_LIST,   /**< a string each time it is given, at most max times; cli_list */
} cli_kind;

enum { CLI_LIST_MAX = 16 };
_Static_assert((int)CLI_LIST_MAX >= (int)QN_STOPS_MAX, "a list holds every stop text");

/** Arguments of an option that may be given several times. */
typedef struct cli_list {
    const char *items[CLI_LIST_MAX];
    size_t n_items;
} cli_list;

/** One option. */
typedef struct cli_option {
    const char *name; /**< Without the dashes. */
    char letter;      /**< 'p' for -p; 0: none. */
    cli_kind kind;
    const char *metavar; /**< What the argument stands for; the words of a choice. */
    size_t offset;       /**< Of the field, from the start of its group's struct. */
    double min, max;     /**< Range of a count or number; max: length of a list. */
    const char *help;    /**< One sentence without a full stop. */
} cli_option;

/** Options that fill one struct inside a command's values. */
typedef struct cli_group {
    const char *title;
    const cli_option *options;
    size_t n_options;
    size_t offset; /**< Of the group's struct in the command's values. */
} cli_group;

enum { CLI_GROUPS_MAX = 6, CLI_VALUES_BYTES_MAX = 1024 };

enum { CLI_N_COMMON_OPTIONS = 6, CLI_N_MODEL_OPTIONS = 9 };
extern const cli_option cli_common_options[CLI_N_COMMON_OPTIONS];
extern const cli_option cli_model_options[CLI_N_MODEL_OPTIONS];

/** The group of every command; cli_common is the first field of all values. */
#define CLI_COMMON_GROUP                                                                           \
    {                                                                                              \
        "General options", cli_common_options, CLI_N_COMMON_OPTIONS, 0                             \
    }

/** Options of every command. */
typedef struct cli_common {
    bool is_quiet;
    bool wants_help;
    bool wants_version;
    int log_level;   /**< qn_log_level */
    int log_as_json; /**< 0 text, 1 json */
    int color;       /**< 0 auto, 1 always, 2 never */
} cli_common;

/** Options of every command that loads a model. */
typedef struct cli_model {
    const char *tokenizer_dir, *device, *cpu_mask, *chat_format;
    uint64_t n_threads;
    int compute, kv_dtype, load_format;
    bool strict;
} cli_model;

/** A command of the program. */
typedef struct cli_command {
    const char *name;
    const char *summary;     /**< One line for the list of commands. */
    const char *synopsis;    /**< After the name. */
    const char *description; /**< Paragraphs separated by blank lines. */
    const char *examples;    /**< Lines of shell. */
    cli_group groups[CLI_GROUPS_MAX];
    size_t n_groups;
    size_t n_arguments_max;
    /** Set values (all zero before) to their defaults. */
    void (*init)(void *values);
    /** Do it; @p arguments are the positional ones.  Returns the exit status. */
    int (*run)(void *values, int n_arguments, char **arguments);
} cli_command;

/** Say that there is no such command, and which one may be meant.  Returns the exit status. */
int cli_unknown_command(const char *name);

/** All commands, ending in a NULL. */
extern const cli_command *const cli_commands[];
/** NULL where there is none. */
const cli_command *cli_command_find(const char *name);

/**
 * Fill @p values from the arguments; positional ones are moved to the front of argv.
 * Returns  QN_OK; QN_E_INVAL with a message that names the option
 */
QN_MUST_CHECK qn_status cli_parse(const cli_command *command, void *values, int argc, char **argv,
                                  int *n_arguments, qn_error *err);

/** Fill the library's options from a command's; progress stays unset. */
void cli_model_fill(qn_model_options *options, const cli_model *from);

/**
 * What @p word was meant to be: the shortest of @p n words that begin with it, else the nearest by
 * edit distance; NULL when none is near.
 */
const char *cli_nearest(const char *word, const char *(*get)(const void *list, size_t i),
                        const void *list, size_t n);
#endif

/* SPDX-License-Identifier: Apache-2.0 */
/** @file options.h  Command tables: one list of options serves the parser, --help and man pages. */
#ifndef QN_CLI_OPTIONS_H
#define QN_CLI_OPTIONS_H
#include "quern/quern.h"

/** What an option takes, and the type of the field it fills. */
typedef enum cli_kind {
    CLI_FLAG,   /**< nothing; bool */
    CLI_CLEAR,  /**< nothing; the bool of a CLI_FLAG, which is false again */
    CLI_TEXT,   /**< a string; const char * */
    CLI_COUNT,  /**< a whole number; uint64_t */
    CLI_NUMBER, /**< a number; double */
    CLI_CHOICE, /**< one of the words of metavar, "a|b/bb|c" (bb is b by another name); int, the
                     word's place */
    CLI_LIST,   /**< a string each time it is given, at most max times; cli_list */
    CLI_WORDS,  /**< likewise; behind the last positional argument it takes several at once */
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
    const char *name; /**< Without the dashes; others that mean the same behind a blank. */
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

enum { CLI_GROUPS_MAX = 9, CLI_VALUES_BYTES_MAX = 2048, CLI_GIVEN_MAX = 128 };

enum { CLI_N_COMMON_OPTIONS = 6, CLI_N_MODEL_OPTIONS = 11 };
extern const cli_option cli_common_options[CLI_N_COMMON_OPTIONS];
extern const cli_option cli_model_options[CLI_N_MODEL_OPTIONS]; /**< --strict is the last. */

/** The group of every command; cli_common is the first field of all values. */
#define CLI_COMMON_GROUP                                                                           \
    {                                                                                              \
        "General options", cli_common_options, CLI_N_COMMON_OPTIONS, 0                             \
    }

/** Fields that were given, by their offsets in a command's values. */
typedef struct cli_given {
    uint16_t offsets[CLI_GIVEN_MAX];
    uint16_t n;
} cli_given;

/** Options of every command. */
typedef struct cli_common {
    cli_given given;
    bool is_quiet;
    bool wants_help;
    bool wants_version;
    int log_level;   /**< qn_log_level */
    int log_as_json; /**< 0 text, 1 json */
    int color;       /**< 0 auto, 1 always, 2 never */
} cli_common;

/** Options of every command that loads a model. */
typedef struct cli_model {
    const char *tokenizer_dir, *device, *tuning, *cpu_mask, *chat_format;
    uint64_t n_threads, dummy_seed;
    int compute, kv_dtype, load_format;
    bool strict, is_deterministic;
} cli_model;

/** Options of other servers that are refused for a reason. */
typedef struct cli_refused {
    const char *names;    /**< As cli_option.name. */
    const char *expected; /**< What to do instead. */
} cli_refused;

/** A command of the program. */
typedef struct cli_command {
    const char *name;        /**< One word, or two of a kind of another command. */
    const char *summary;     /**< One line for the list of commands. */
    const char *synopsis;    /**< After the name. */
    const char *description; /**< Paragraphs separated by blank lines. */
    const char *examples;    /**< Lines of shell. */
    cli_group groups[CLI_GROUPS_MAX];
    size_t n_groups;
    size_t n_arguments_max;
    /** Commands whose names begin with this one's, ending in a NULL; NULL: none. */
    const struct cli_command *const *kinds;
    const cli_refused *refused; /**< [n_refused] NULL: none. */
    size_t n_refused;
    /** Set values (all zero before) to their defaults. */
    void (*init)(void *values);
    /** Do it; @p arguments are the positional ones.  Returns the exit status. */
    int (*run)(void *values, int n_arguments, char **arguments);
} cli_command;

/** All commands of one word, ending in a NULL. */
extern const cli_command *const cli_commands[];
/** The last word of its name. */
const char *cli_command_word(const cli_command *command);
/** In such a list, by its last word; NULL where there is none. */
const cli_command *cli_command_find(const cli_command *const *list, const char *word);

/** Say that a command has no such kind, or where that is NULL, that there is no such command, and
 * which one may be meant.  Returns the exit status. */
int cli_unknown_command(const cli_command *parent, const char *word);

/**
 * Fill @p values from the arguments; positional ones are moved to the front of argv.
 * Returns  QN_OK; QN_E_INVAL with a message that names the option
 */
QN_MUST_CHECK qn_status cli_parse(const cli_command *command, void *values, int argc, char **argv,
                                  int *n_arguments, qn_error *err);

/** An option of a command, and the field that it fills. */
typedef struct cli_found {
    const cli_option *option; /**< NULL: there is none of that name. */
    void *field;
    uint16_t offset; /**< Of the field, in the values. */
} cli_found;

/** By one of its names, [len] without dashes. */
cli_found cli_find(const cli_command *command, void *values, const char *name, size_t len);

/**
 * Fill the field, and note that it was given.
 *
 * @param what  names the option in errors: "--host", or a file and a key
 * @param text  kept as it is; ignored by flags
 * Returns  QN_OK; QN_E_INVAL beginning with @p what
 */
QN_MUST_CHECK qn_status cli_take(void *values, cli_found found, const char *what, const char *text,
                                 qn_error *err);

/** Was the field at this offset of the values given? */
bool cli_is_given(const void *values, size_t offset);

/**
 * Say that there is no such option, and which one may be meant.
 * Returns  @p status
 */
qn_status cli_fail_unknown(const cli_command *command, const char *what, const char *name,
                           qn_status status, qn_error *err);

enum { CLI_COUNTS_MAX = 16 };

/**
 * Whole numbers between commas, each once.
 *
 * @param[in,out] n_out  how many @p out has
 * Returns  QN_OK; QN_E_INVAL naming the option
 */
QN_MUST_CHECK qn_status cli_parse_counts(uint32_t out[CLI_COUNTS_MAX], size_t *n_out,
                                         const char *option, const char *text, unsigned long min,
                                         unsigned long max, qn_error *err);

enum { CLI_WORDS_BYTES = 96 };
/** What an option takes, as help and errors show it: of a choice without the other names of its
 * words.  "" for flags. */
void cli_show_words(char out[CLI_WORDS_BYTES], const cli_option *option);

/** Fill the library's options from a command's; progress stays unset. */
void cli_model_fill(qn_model_options *options, const cli_model *from);

/**
 * What @p word was meant to be: the shortest of @p n words that begin with it, else the nearest by
 * edit distance; NULL when none is near.  Words of the list end at a blank or NUL.
 */
const char *cli_nearest(const char *word, const char *(*get)(const void *list, size_t i),
                        const void *list, size_t n);
#endif

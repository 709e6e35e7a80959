/* SPDX-License-Identifier: Apache-2.0 */
/** @file exclude.h  Lists of modules that are not quantized, matched as each engine matches them.
 */
#ifndef QN_INSPECT_EXCLUDE_H
#define QN_INSPECT_EXCLUDE_H
#include "quern/status.h"

#include "base/str.h"

enum {
    QN_EXCLUDE_PATTERNS_MAX = 256,       /**< Globs and regular expressions that are looked at. */
    QN_EXCLUDE_PATTERN_BYTES_MAX = 1024, /**< Of one; longer ones are plain names. */
};

/** An entry with '*', '?' or '[' in it, or one that begins with "re:". */
typedef struct qn_exclude_pattern {
    qn_str text;      /**< As in the list, owned. */
    void *expression; /**< Owned: compiled, of "re:"; NULL: a glob. */
    void *match;      /**< Owned: room for what it finds. */
    void *limits;     /**< Owned: how long it may look. */
} qn_exclude_pattern;

/** A list of names.  All-zero is empty and open. */
typedef struct qn_exclude {
    qn_str *names; /**< [n_names] owned, as are their bytes; in bytewise order once sealed. */
    size_t n_names;
    qn_exclude_pattern *patterns; /**< [n_patterns] owned. */
    size_t n_patterns;
    size_t n_ignored; /**< Patterns over QN_EXCLUDE_PATTERNS_MAX. */
} qn_exclude;

/**
 * Add an entry (copied).
 * Returns  QN_OK; QN_E_FORMAT for a "re:" that is no regular expression; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_exclude_add(qn_exclude *list, qn_str entry, qn_error *err);
/** All are added: sort, and keep each name once.  More may be added, and sealed again. */
void qn_exclude_seal(qn_exclude *list);
/** Free what is owned; all zero afterwards. */
void qn_exclude_deinit(qn_exclude *list);

/** Does an entry equal @p name? */
bool qn_exclude_equals(const qn_exclude *list, qn_str name);
/** SGLang and vLLM: equal, or "re:" and a match from the start of @p name on (Python's re.match).
 */
bool qn_exclude_matches(const qn_exclude *list, qn_str name);
/** Does an entry name something below @p container, "CONTAINER.x"? */
bool qn_exclude_has_child(const qn_exclude *list, qn_str container);
/**
 * ATOM: equal, a path above @p name, a glob, or "re:" and a match anywhere (Python's re.search).
 */
bool qn_exclude_covers(const qn_exclude *list, qn_str name);
/** Does one pattern, by ATOM's rule, match?  One thread at a time. */
bool qn_exclude_pattern_matches(const qn_exclude_pattern *pattern, qn_str name);

/** Is there a '*', '?' or '[' in it, which is never NULL? */
bool qn_is_glob(qn_str text);
/** Python's fnmatch.fnmatchcase(). */
bool qn_glob_matches(qn_str glob, qn_str text);
#endif

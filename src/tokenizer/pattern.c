/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buf.h"
#include "base/try.h"
#include "tokenizer/internal.h"

enum { PATTERN_BYTES_MAX = 1 << 10, SPELLED_BYTES_MAX = 1 << 18 };

/*
 * A class of characters as Hugging Face's engine (Oniguruma, Unicode 16) has it: what PCRE2 of any
 * version knows of it, and what it lacks or has otherwise, as members of a set.
 */
typedef struct char_class {
    const char *name;    /* in a pattern */
    const char *inverse; /* its complement's name */
    const char *members;
} char_class;

static const char_class classes[] = {
    /* White_Space, spelled out: PCRE2's \s also holds U+180E, which left it with Unicode 6.3. */
    {"\\s", "\\S",
     "\\x{09}-\\x{0d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"
     "\\x{205f}\\x{3000}"},
    /* Letters that came with Unicode 15 to 16. */
    {"\\p{L}", "\\P{L}",
     "\\p{L}\\x{1c89}\\x{1c8a}\\x{a7cb}-\\x{a7cd}\\x{a7da}-\\x{a7dc}\\x{105c0}-\\x{105f3}"
     "\\x{10d4a}-\\x{10d65}\\x{10d6f}-\\x{10d85}\\x{10ec2}-\\x{10ec4}\\x{1123f}\\x{11240}"
     "\\x{11380}-\\x{11389}\\x{1138b}\\x{1138e}\\x{11390}-\\x{113b5}\\x{113b7}\\x{113d1}\\x{113d3}"
     "\\x{11bc0}-\\x{11be0}\\x{11f02}\\x{11f04}-\\x{11f10}\\x{11f12}-\\x{11f33}\\x{1342f}"
     "\\x{13441}-\\x{13446}\\x{13460}-\\x{143fa}\\x{16100}-\\x{1611d}\\x{16d40}-\\x{16d6c}"
     "\\x{18cff}\\x{1b132}\\x{1b155}\\x{1df25}-\\x{1df2a}\\x{1e030}-\\x{1e06d}"
     "\\x{1e4d0}-\\x{1e4eb}\\x{1e5d0}-\\x{1e5ed}\\x{1e5f0}\\x{2b739}\\x{2ebf0}-\\x{2ee5d}"
     "\\x{31350}-\\x{323af}"},
    /* Numbers likewise. */
    {"\\p{N}", "\\P{N}",
     "\\p{N}\\x{10d40}-\\x{10d49}\\x{116d0}-\\x{116e3}\\x{11bf0}-\\x{11bf9}\\x{11f50}-\\x{11f59}"
     "\\x{16130}-\\x{16139}\\x{16d70}-\\x{16d79}\\x{1ccf0}-\\x{1ccf9}\\x{1d2c0}-\\x{1d2d3}"
     "\\x{1e4f0}-\\x{1e4f9}\\x{1e5f1}-\\x{1e5fa}"},
};

static bool starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

/*
 * Append the escape at *at in PCRE2's words and move *at behind it; false for one that the two
 * engines read differently.
 */
static bool spell_escape(qn_buf *out, const char **at, bool in_set, qn_status *status,
                         qn_error *err)
{
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
        const char_class *class = &classes[i];
        const bool is_inverse = starts_with(*at, class->inverse);
        if (!is_inverse && !starts_with(*at, class->name)) {
            continue;
        }
        if (is_inverse && in_set) {
            return false; /* a complement cannot be written as members of a set */
        }
        *status = qn_buf_append_printf(out, err, "%s%s%s",
                                       in_set       ? ""
                                       : is_inverse ? "[^"
                                                    : "[",
                                       class->members, in_set ? "" : "]");
        *at += strlen(class->name);
        return true;
    }
    const char next = (*at)[1];
    if (next == '\0' || strchr("rnt\\/.,*+?|^$()[]{}-'\"#", next) == NULL) {
        return false;
    }
    *status = qn_buf_append(out, *at, 2, err);
    *at += 2;
    return true;
}

/*
 * Is this the rest of a group without regard to case that the two engines read alike?  It holds
 * ASCII alternatives only, and no pair of letters that a single character folds to ("ss" is also
 * U+00DF to one of them).
 */
static bool is_plain_caseless(const char *at)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ'|";
    const size_t len = strspn(at, plain);
    for (size_t i = 0; i + 1 < len; i++) {
        const char first = (char)(at[i] | 0x20); /* lower case */
        const char second = (char)(at[i + 1] | 0x20);
        if ((first == 'f' && strchr("fil", second) != NULL) ||
            (first == 's' && strchr("st", second) != NULL)) {
            return false;
        }
    }
    return at[len] == ')';
}

/* Is what stands here, no escape, read differently by the two engines? */
static bool is_foreign(const char *at, bool in_set)
{
    static const char *const groups[] = {"(?:", "(?=", "(?!", "(?>"};
    switch (*at) {
    case '[': return in_set || at[1] == ']' || starts_with(at, "[^]");
    case '&': return in_set && at[1] == '&';
    case '^':
    case '$': return !in_set;
    case '{': return !in_set && at[1] == ','; /* from none on, to one of them: text to the other */
    case '}': return !in_set && (at[1] == '+' || at[1] == '?');
    case '(':
        for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
            if (in_set || starts_with(at, groups[i])) {
                return false;
            }
        }
        if (starts_with(at, "(?i:")) {
            return !is_plain_caseless(at + strlen("(?i:"));
        }
        return at[1] == '?' || at[1] == '*';
    default: return false;
    }
}

/* Append the pattern in PCRE2's words, or fail at the first construct that cannot be kept. */
static qn_status spell(qn_buf *out, const char *pattern, const char *what, qn_error *err)
{
    qn_status status = QN_OK;
    bool in_set = false;
    for (const char *at = pattern; *at != '\0' && status == QN_OK;) {
        const bool is_escape = *at == '\\';
        const char *const begin = at;
        if (is_escape ? !spell_escape(out, &at, in_set, &status, err) : is_foreign(at, in_set)) {
            return qn_fail(err, QN_E_FORMAT, 0, "qn_tokenizer_open",
                           "%s: pre_tokenizer.Split.pattern: \"%.8s\" at byte %zu, expected only "
                           "sets, groups, repeats and the classes \\s \\p{L} \\p{N}",
                           what, begin, (size_t)(begin - pattern));
        }
        if (!is_escape) {
            in_set = *at == '[' || (in_set && *at != ']');
            status = qn_buf_append(out, at++, 1, err);
        }
    }
    return status;
}

qn_status qn_tokenizer_compile_pattern(pcre2_code **out, qn_str pattern, const char *what,
                                       qn_error *err)
{
    qn_status status = QN_OK;
    int code = 0;
    PCRE2_SIZE at = 0;
    qn_buf spelled;
    if (pattern.len == 0 || pattern.len > PATTERN_BYTES_MAX) {
        return qn_fail(err, QN_E_FORMAT, 0, "qn_tokenizer_open",
                       "%s: pre_tokenizer.Split.pattern: %zu bytes, expected 1 to %d", what,
                       pattern.len, PATTERN_BYTES_MAX);
    }
    qn_buf_init(&spelled, SPELLED_BYTES_MAX);
    QN_TRY(status, spell(&spelled, pattern.ptr, what, err), fail);
    /* UTF-8 is never cut: the text is not checked again between matches. */
    *out = pcre2_compile((PCRE2_SPTR)spelled.ptr, spelled.len,
                         PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &code, &at, NULL);
    if (*out == NULL) {
        char why[128] = "";
        (void)pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        const bool no_memory = code == PCRE2_ERROR_NOMEMORY || code == PCRE2_ERROR_HEAP_FAILED;
        status = qn_fail(err, no_memory ? QN_E_NOMEM : QN_E_FORMAT, code, "qn_tokenizer_open",
                         "%s: pre_tokenizer.Split.pattern: %s in \"%.200s\", expected a regular "
                         "expression",
                         what, why, pattern.ptr);
        goto fail;
    }
    (void)pcre2_jit_compile(*out, PCRE2_JIT_COMPLETE); /* without it matching is slower */
fail:
    qn_buf_deinit(&spelled);
    return status;
}

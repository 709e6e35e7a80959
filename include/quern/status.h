/* SPDX-License-Identifier: Apache-2.0 */
/** @file status.h  Result codes and error details shared by every qn_* function that can fail. */
#ifndef QUERN_STATUS_H
#define QUERN_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
/** The caller may not drop the result. */
#define QN_MUST_CHECK __attribute__((warn_unused_result))
/** Argument @p fmt is a printf format for the arguments from @p args on. */
#define QN_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
/** The symbol is part of the library's interface. */
#define QN_API __attribute__((visibility("default")))
#else
#define QN_MUST_CHECK
#define QN_PRINTF(fmt, args)
#define QN_API
#endif

/** Outcome of an operation.  0 is success; errors are negative and never renumbered. */
typedef enum qn_status {
    QN_OK = 0,           /**< Done. */
    QN_AGAIN = 1,        /**< Not an error: nothing to do now, call again. */
    QN_E_INVAL = -1,     /**< The caller broke a documented precondition. */
    QN_E_NOMEM = -2,     /**< A budget or the system is out of memory. */
    QN_E_IO = -3,        /**< A system call failed; qn_error.sys holds errno. */
    QN_E_FORMAT = -4,    /**< Input bytes are not what the format says. */
    QN_E_DEVICE = -5,    /**< A device, driver or CPU feature is missing or failed. */
    QN_E_NOT_FOUND = -6, /**< A named file, model or tensor does not exist. */
    QN_E_CANCELLED = -7, /**< The caller asked to stop. */
} qn_status;

/** One failure.  The caller owns it; all-zero is a valid empty value. */
typedef struct qn_error {
    qn_status status;  /**< Same value as the function returned. */
    int sys;           /**< errno or a driver's number; 0 when none. */
    const char *where; /**< Static string, the name of the function that failed. */
    char text[600];    /**< One line without a newline: WHAT: SEEN, EXPECTED. */
} qn_error;

/** Short constant name of a status, such as "QN_E_NOMEM".  Never NULL.  Any thread. */
QN_API const char *qn_status_name(qn_status status);

/**
 * Fill @p err (when not NULL) and return @p status, so that a failure is one statement.
 * Control characters of the formatted text are replaced by '?': it stays one printable line.
 */
QN_PRINTF(5, 6)
QN_API qn_status qn_fail(qn_error *err, qn_status status, int sys, const char *where,
                         const char *format, ...);

#ifdef __cplusplus
}
#endif
#endif

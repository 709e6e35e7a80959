/* SPDX-License-Identifier: Apache-2.0 */
#include "quern/status.h"

#include "base/str.h"

#include <stdarg.h>

const char *qn_status_name(qn_status status)
{
    switch (status) {
    case QN_OK: return "QN_OK";
    case QN_AGAIN: return "QN_AGAIN";
    case QN_E_INVAL: return "QN_E_INVAL";
    case QN_E_NOMEM: return "QN_E_NOMEM";
    case QN_E_IO: return "QN_E_IO";
    case QN_E_FORMAT: return "QN_E_FORMAT";
    case QN_E_DEVICE: return "QN_E_DEVICE";
    case QN_E_NOT_FOUND: return "QN_E_NOT_FOUND";
    case QN_E_CANCELLED: return "QN_E_CANCELLED";
    }
    return "QN_E_?";
}

qn_status qn_fail(qn_error *err, qn_status status, int sys, const char *where, const char *format,
                  ...)
{
    if (err != NULL) {
        err->status = status;
        err->sys = sys;
        err->where = where;
        va_list args;
        va_start(args, format);
        (void)vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
        qn_text_clean(err->text);
    }
    return status;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "page_of.h"

#include "base/try.h"
#include "report/pages.h"

#include <errno.h>

enum { TITLE_BYTES = 256 };

/* The page of a format; NULL: there is none. */
static const page *find(const char *format)
{
    static const page *const pages[] = {&page_serve, &page_compare,  &page_engine, &page_kernels,
                                        &page_eval,  &page_quantize, NULL};
    for (size_t i = 0; pages[i] != NULL; i++) {
        if (format != NULL && strcmp(pages[i]->format, format) == 0) {
            return pages[i];
        }
    }
    return NULL;
}

static qn_status make(FILE *file, const json_t *result, bool is_html, qn_error *err)
{
    const char *const format = field_text(result, "format");
    const page *const p = find(format);
    char title[TITLE_BYTES];
    sheet s;
    if (p == NULL) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__,
                       "result: format: %.64s, expected quern-bench-serve/1, -compare/1, "
                       "-engine/1, -kernels/1, quern-eval/1 or quern-quantize/1",
                       format != NULL ? format : "no text");
    }
    qn_status status = fields_check(result, p->fields, p->n_fields, err);
    if (status < 0) {
        return status;
    }
    json_t *const told = page_with_notes(result);
    if (told == NULL) {
        return qn_fail(err, QN_E_NOMEM, 0, __func__, "report: no memory");
    }
    p->title(title, sizeof title, told);
    qn_text_clean(title); /* it may have been cut within a character */
    sheet_open(&s, is_html, title, err);
    p->write(&s, told);
    sheet_end(&s);
    json_decref(told);
    status = s.status;
    if (status == QN_OK &&
        (fwrite(s.out.ptr, 1, s.out.len, file) != s.out.len || fflush(file) != 0)) {
        status = qn_fail(err, QN_E_IO, errno, __func__, "report: %s, expected to be writable",
                         strerror(errno));
    }
    sheet_close(&s);
    return status;
}

qn_status report_html(FILE *file, const json_t *result, qn_error *err)
{
    return make(file, result, true, err);
}

qn_status report_markdown(FILE *file, const json_t *result, qn_error *err)
{
    return make(file, result, false, err);
}

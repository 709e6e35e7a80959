/* SPDX-License-Identifier: Apache-2.0 */
#include "page.h"

#include "bench/put.h"
#include "report.h"
#include "report/page_of.h"

#include <string.h>

bool cli_is_page(const char *path)
{
    const size_t len = strlen(path);
    return len > 5 && strcmp(path + len - 5, ".html") == 0;
}

/* What is written, and what went wrong while it was. */
typedef struct writing {
    const json_t *result;
    cli_page_writer *write;
    qn_status status;
    qn_error err;
} writing;

static bool write_page(FILE *file, void *context)
{
    writing *const w = context;
    w->status = w->write(file, w->result, &w->err);
    return w->status == QN_OK;
}

qn_status cli_write_result(const char *path, cli_page_writer *write, const json_t *result,
                           qn_error *err)
{
    writing w = {.result = result, .write = write};
    const qn_status status = cli_replace_file(path, write_page, &w, err);
    if (w.status < 0 && w.status != QN_E_IO) { /* else the file's error, which names it */
        *err = w.err;
        return w.status;
    }
    return status;
}

qn_status cli_sign(json_t *result, qn_error *err)
{
    char command[4096];
    bool failed = false;
    cli_show_command(command, sizeof command);
    put(result, "date_utc", put_date(0), &failed);
    put(result, "tool", put_tool(), &failed);
    put(result, "command", put_text(command), &failed);
    return failed ? qn_fail(err, QN_E_NOMEM, 0, __func__, "result: no memory") : QN_OK;
}

qn_status cli_write_page(const char *path, json_t *result, qn_error *err)
{
    const qn_status status = cli_sign(result, err);
    return status == QN_OK ? cli_write_result(path, report_html, result, err) : status;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "bench_output.h"

#include "page.h"
#include "report/page_of.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

qn_status bench_output_open(const char *folder, qn_error *err)
{
    struct stat there;
    if ((mkdir(folder, 0777) != 0 && errno != EEXIST) || stat(folder, &there) != 0) {
        return qn_fail(err, QN_E_IO, errno, __func__,
                       "%.256s: %s, expected a folder that can be made", folder, strerror(errno));
    }
    return S_ISDIR(there.st_mode)
               ? QN_OK
               : qn_fail(err, QN_E_IO, 0, __func__, "%.256s: a file, expected a folder", folder);
}

static qn_status write_json(FILE *file, const json_t *result, qn_error *err)
{
    const bool is_written =
        json_dumpf(result, file, JSON_REAL_PRECISION(9) | JSON_INDENT(1)) == 0 &&
        fputc('\n', file) != EOF;
    return is_written ? QN_OK : qn_fail(err, QN_E_IO, errno, __func__, "not written");
}

qn_status bench_output_write(const char *folder, const char *name, const json_t *result,
                             qn_error *err)
{
    const struct {
        const char *name;
        cli_page_writer *write;
    } files[] = {{name, write_json}, {"report.md", report_markdown}, {"report.html", report_html}};
    for (size_t i = name == NULL ? 1 : 0; i < sizeof files / sizeof *files; i++) {
        char path[PATH_MAX];
        if ((size_t)snprintf(path, sizeof path, "%s/%s", folder, files[i].name) >= sizeof path) {
            return qn_fail(err, QN_E_INVAL, 0, __func__, "%.64s..., expected a shorter name",
                           folder);
        }
        const qn_status status = cli_write_result(path, files[i].write, result, err);
        if (status < 0) {
            return status;
        }
    }
    return QN_OK;
}

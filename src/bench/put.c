/* SPDX-License-Identifier: Apache-2.0 */
#include "put.h"

#include "base/clock.h"
#include "base/str.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

json_t *put_text(const char *text)
{
    if (text == NULL || text[0] == '\0') {
        return json_null();
    }
    json_t *value = json_string(text);
    if (value == NULL) { /* no UTF-8, or no memory, which the copy shows */
        char *const copy = strdup(text);
        if (copy != NULL) {
            qn_text_clean(copy);
            value = json_string(copy);
        }
        free(copy);
    }
    return value;
}

bool put_warning(json_t *warnings, const char *format, ...)
{
    char text[400];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    qn_text_clean(text);
    return json_array_append_new(warnings, json_string(text)) == 0;
}

json_t *put_date(uint64_t wall_ns)
{
    char text[QN_CLOCK_ISO_BYTES];
    qn_clock_iso(text, wall_ns > 0 ? wall_ns : qn_clock_wall_ns());
    return json_string(text);
}

json_t *put_tool(void)
{
    const qn_build *const build = qn_build_get();
    return json_pack("{ss, ss, ss}", "version", build->version, "commit", build->commit, "compiler",
                     build->compiler);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "base/sha256.h"
#include "chat/chat.h"

static const char *const format_names[] = {"glm5", "glm5.1", "glm5.2"};

/* The published chat_template.jinja of GLM-5.2 (revision b4734de4). */
static const char glm52_template_sha256[] =
    "172dc74a35e1752df75ecfb2b2cf9326d2852bb1379868ebeec9571654489679";

const char *qn_chat_format_name(qn_chat_format format)
{
    return format_names[format];
}

qn_status qn_chat_format_parse(qn_chat_format *out, const char *name, qn_error *err)
{
    for (size_t i = 0; i < sizeof format_names / sizeof *format_names; i++) {
        if (strcmp(name, format_names[i]) == 0) {
            *out = (qn_chat_format)i;
            return QN_OK;
        }
    }
    return qn_fail(err, QN_E_INVAL, 0, __func__,
                   "--chat-format: \"%s\", expected auto, glm5, glm5.1 or glm5.2", name);
}

qn_chat_format qn_chat_format_choose(qn_str text, bool has_index_share, bool *is_known)
{
    char digest[QN_SHA256_HEX_BYTES];
    *is_known = true;
    if (text.len > 0) {
        qn_sha256_hex(digest, text);
        if (strcmp(digest, glm52_template_sha256) == 0) {
            return QN_CHAT_GLM5_2;
        }
        *is_known = false;
    }
    return has_index_share ? QN_CHAT_GLM5_2 : QN_CHAT_GLM5;
}

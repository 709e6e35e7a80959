/* SPDX-License-Identifier: Apache-2.0 */
/* Let a model go on with a text: example_generate models/glm-nano "Once upon a time" */
#include "quern/quern.h"

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    qn_model *model = NULL;
    qn_session *session = NULL;
    int32_t *ids = NULL;
    size_t n_ids = 0;
    qn_event event;
    qn_error err = {0};
    const char *const name = argc > 1 ? argv[1] : "models/glm-nano";
    const char *const text = argc > 2 ? argv[2] : "Once upon a time";
    qn_status s = qn_model_open(&model, name, NULL, &err);
    s = s ? s : qn_encode(&ids, &n_ids, model, text, strlen(text), QN_CONTROL_MATCH, &err);
    s = s ? s : qn_session_open(&session, model, NULL, &err);
    const qn_request request = {.ids = ids, .n_ids = n_ids, .max_tokens = 100};
    s = s ? s : qn_session_submit(session, &request, &err);
    while (s == QN_OK) {
        s = qn_session_step(session, &err); /* QN_AGAIN: the answer has ended */
        while (qn_session_poll(&event, session)) {
            if (event.kind == QN_EVENT_TEXT) {
                (void)!fwrite(event.text, 1, event.len, stdout);
            } else if (event.kind == QN_EVENT_END) {
                (void)printf("\n[%s]\n", qn_finish_name(event.finish));
            }
        }
    }
    if (s < 0) {
        (void)fprintf(stderr, "%s\n", err.text);
    }
    qn_session_close(&session);
    qn_free(ids);
    qn_model_close(&model);
    return s < 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Let a model go on with a text: example_generate models/glm-nano "Once upon a time" */
#include "quern/quern.h"

#include <stdio.h>
#include <string.h>

static void print(void *stream, qn_output_part part, const char *text, size_t len)
{
    (void)part; /* reasoning and answer alike */
    (void)!fwrite(text, 1, len, stream);
}

int main(int argc, char **argv)
{
    qn_model *model = NULL;
    qn_session *session = NULL;
    qn_output *output = NULL;
    int32_t *ids = NULL, token = 0;
    size_t n_ids = 0;
    qn_error err = {0};
    const char *const name = argc > 1 ? argv[1] : "models/glm-nano";
    const char *const text = argc > 2 ? argv[2] : "Once upon a time";
    qn_status s = qn_model_open(&model, name, NULL, &err);
    s = s ? s : qn_encode(&ids, &n_ids, model, text, strlen(text), QN_CONTROL_MATCH, &err);
    s = s ? s : qn_session_open(&session, model, NULL, &err);
    s = s ? s : qn_output_open(&output, model, ids, n_ids, print, stdout, &err);
    s = s ? s : qn_session_feed(session, ids, n_ids, NULL, NULL, &err);
    for (int i = 0; s == QN_OK && i < 100 && !qn_model_is_stop(model, token); i++) {
        s = qn_session_next(&token, session, &err);
        s = s ? s : qn_output_feed(output, token, &err); /* stop tokens print nothing */
    }
    (void)fprintf(s < 0 ? stderr : stdout, "%s\n", s < 0 ? err.text : "");
    qn_output_close(&output);
    qn_session_close(&session);
    qn_free(ids);
    qn_model_close(&model);
    return s < 0;
}

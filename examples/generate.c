/* SPDX-License-Identifier: Apache-2.0 */
/* The shortest program that lets a model answer: generate MODEL TEXT. */
#include <quern/quern.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print(void *context, qn_output_part part, const char *text, size_t len)
{
    (void)context;
    (void)fwrite(text, 1, len, part == QN_OUTPUT_TEXT ? stdout : stderr);
}

int main(int argc, char **argv)
{
    char messages[4096];
    qn_model *model = NULL;
    qn_session *session = NULL;
    qn_output *output = NULL;
    int32_t *ids = NULL;
    size_t n_ids = 0;
    qn_error err = {0};
    if (argc != 3 || strpbrk(argv[2], "\"\\\n") != NULL) { /* a real program escapes JSON */
        return fprintf(stderr, "usage: generate MODEL TEXT\n"), 2;
    }
    (void)snprintf(messages, sizeof messages, "[{\"role\":\"user\",\"content\":\"%s\"}]", argv[2]);
    if (qn_model_open(&model, argv[1], NULL, &err) == QN_OK &&
        qn_chat_encode(&ids, &n_ids, model, NULL, messages, strlen(messages), &err) == QN_OK &&
        qn_session_open(&session, model, NULL, &err) == QN_OK &&
        qn_output_open(&output, model, ids, n_ids, print, NULL, &err) == QN_OK &&
        qn_session_feed(session, ids, n_ids, NULL, NULL, &err) == QN_OK) {
        for (int32_t token = 0; qn_session_next(&token, session, &err) == QN_OK &&
                                !qn_model_is_stop(model, token) &&
                                qn_output_feed(output, token, &err) == QN_OK;) {
        }
        qn_output_end(output);
    }
    (void)printf("%s\n", err.text);
    qn_output_close(&output);
    qn_session_close(&session);
    qn_model_close(&model);
    qn_free(ids);
    return err.status == QN_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}

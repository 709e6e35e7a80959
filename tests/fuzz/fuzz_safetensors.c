/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a .safetensors file: every tensor that is accepted lies in them. */
#include "base/assert.h"
#include "format/safetensors.h"

/* libFuzzer sets the name. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes); /* NOLINT */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) /* NOLINT */
{
    uint8_t *const exact = malloc(n_bytes > 0 ? n_bytes : 1); /* so that an overread shows */
    QN_ASSERT(exact != NULL);
    if (n_bytes > 0) {
        memcpy(exact, data, n_bytes);
    }
    qn_safetensors *file = NULL;
    qn_error err = {0};
    if (qn_safetensors_open_bytes(&file, exact, n_bytes, "input", &err) == QN_OK) {
        for (size_t i = 0; i < qn_safetensors_count(file); i++) {
            const qn_tensor *const tensor = qn_safetensors_get(file, i);
            QN_ASSERT(tensor->data >= exact);
            QN_ASSERT(tensor->size_bytes <= (size_t)(exact + n_bytes - tensor->data));
        }
    } else {
        QN_ASSERT(file == NULL && err.text[0] != '\0');
    }
    qn_safetensors_close(&file);
    free(exact);
    return 0;
}

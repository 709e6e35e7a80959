/* SPDX-License-Identifier: Apache-2.0 */
/* main() for a fuzz target built without libFuzzer: runs every file, or file of a folder, named. */
#include "base/file.h"

#include <dirent.h>
#include <stdint.h>
#include <sys/stat.h>

/* libFuzzer sets the name. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes); /* NOLINT */

static bool run_file(const char *path)
{
    qn_buf bytes;
    qn_error err = {0};
    qn_buf_init(&bytes, (size_t)1 << 30);
    const bool is_read = qn_file_read(&bytes, path, &err) == QN_OK;
    if (is_read) {
        (void)LLVMFuzzerTestOneInput((const uint8_t *)(bytes.ptr != NULL ? bytes.ptr : ""),
                                     bytes.len);
    } else {
        (void)fprintf(stderr, "replay: error: %s\n", err.text);
    }
    qn_buf_deinit(&bytes);
    return is_read;
}

/* Files run; 0 when one could not be read. */
static size_t run_path(const char *path)
{
    DIR *const folder = opendir(path);
    size_t n_run = 0;
    bool is_good = true;
    if (folder == NULL) {
        return run_file(path) ? 1 : 0;
    }
    for (const struct dirent *item; (item = readdir(folder)) != NULL;) {
        char file[4096];
        struct stat info;
        (void)snprintf(file, sizeof file, "%s/%s", path, item->d_name);
        if (stat(file, &info) == 0 && S_ISREG(info.st_mode)) {
            is_good &= run_file(file);
            n_run++;
        }
    }
    (void)closedir(folder);
    return is_good ? n_run : 0;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const size_t n_run = run_path(argv[i]);
        if (n_run == 0) {
            (void)fprintf(stderr, "replay: error: %s: nothing run, inputs expected\n", argv[i]);
            return 1;
        }
        (void)printf("%s: %zu run\n", argv[i], n_run);
    }
    return argc > 1 ? 0 : 2;
}

/* SPDX-License-Identifier: Apache-2.0 */
/** @file scratch.h  A folder for one test, files in it, and safetensors bytes made of a header. */
#ifndef QN_TEST_FORMAT_SCRATCH_H
#define QN_TEST_FORMAT_SCRATCH_H
#include "base/buf.h"
#include "support/unit.h"

#include <dirent.h>
#include <unistd.h>

/** Make a folder; @p dir is a template such as "/tmp/quern-test-XXXXXX". */
static inline void scratch_make(char *dir)
{
    assert_non_null(mkdtemp(dir));
}

/** Entries of the folder without "." and "..". */
static inline size_t scratch_count(const char *dir)
{
    size_t n = 0;
    DIR *const list = opendir(dir);
    assert_non_null(list);
    while (readdir(list) != NULL) {
        n++;
    }
    (void)closedir(list);
    return n - 2;
}

/** Remove the folder and the files in it. */
static inline void scratch_remove(const char *dir)
{
    DIR *const list = opendir(dir);
    assert_non_null(list);
    for (const struct dirent *item; (item = readdir(list)) != NULL;) {
        char path[512];
        (void)snprintf(path, sizeof path, "%s/%s", dir, item->d_name);
        (void)unlink(path);
    }
    (void)closedir(list);
    assert_int_equal(rmdir(dir), 0);
}

/** Write DIR/NAME. */
static inline void scratch_write(const char *dir, const char *name, const void *bytes,
                                 size_t n_bytes)
{
    char path[512];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *const file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n_bytes, file), n_bytes);
    assert_int_equal(fclose(file), 0);
}

/** Length, header and @p data_bytes bytes 0, 1, 2 ... of a file; owned by the caller (free). */
static inline uint8_t *scratch_safetensors(const char *header, size_t data_bytes, size_t *n_bytes)
{
    const size_t len = strlen(header);
    *n_bytes = 8 + len + data_bytes;
    uint8_t *const bytes = malloc(*n_bytes);
    assert_non_null(bytes);
    for (size_t i = 0; i < 8; i++) {
        bytes[i] = (uint8_t)(len >> 8 * i);
    }
    memcpy(bytes + 8, header, len); /* NOLINT(bugprone-not-null-terminated-result): as the format */
    for (size_t i = 0; i < data_bytes; i++) {
        bytes[8 + len + i] = (uint8_t)i;
    }
    return bytes;
}
#endif

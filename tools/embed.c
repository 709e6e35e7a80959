/* SPDX-License-Identifier: Apache-2.0 */
/* embed OUT.c (NAME TARGET FILE)...: files as the table of kernels/gpu/modules.h; run by the build.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <zstd.h>

static void check(int is_right, const char *what)
{
    if (!is_right) {
        fprintf(stderr, "embed: %s\n", what);
        exit(EXIT_FAILURE);
    }
}

/* Writes a file's bytes as an array; gives their number, and in *size that of the file. */
static size_t write_array(FILE *out, int number, const char *path, size_t *size)
{
    FILE *in = fopen(path, "rb");
    check(in != NULL && fseek(in, 0, SEEK_END) == 0, path);
    const long end = ftell(in);
    check(end > 0 && fseek(in, 0, SEEK_SET) == 0, path);
    *size = (size_t)end;
    const size_t bound = ZSTD_compressBound(*size);
    uint8_t *raw = malloc(*size);
    uint8_t *packed = malloc(bound);
    check(raw != NULL && packed != NULL, "no memory");
    check(fread(raw, 1, *size, in) == *size && fclose(in) == 0, path);
    const size_t n = ZSTD_compress(packed, bound, raw, *size, 19);
    check(!ZSTD_isError(n), path);
    fprintf(out, "static const uint8_t module_%d[] = {", number);
    for (size_t i = 0; i < n; i++) {
        fprintf(out, "%u,%s", packed[i], i % 32 == 31 ? "\n" : "");
    }
    fprintf(out, "};\n");
    free(raw);
    free(packed);
    return n;
}

int main(int argc, char **argv)
{
    check(argc >= 2 && argc % 3 == 2, "usage: embed OUT.c (NAME TARGET FILE)...");
    const int n_modules = (argc - 2) / 3;
    size_t *sizes = calloc((size_t)n_modules + 1, 2 * sizeof *sizes);
    FILE *out = fopen(argv[1], "w");
    check(out != NULL && sizes != NULL, argv[1]);
    fprintf(out, "/* Made by tools/embed.c. */\n#include \"kernels/gpu/modules.h\"\n");
    for (int i = 0; i < n_modules; i++) {
        sizes[2 * i] = write_array(out, i, argv[4 + 3 * i], &sizes[2 * i + 1]);
    }
    fprintf(out, "const qn_gpu_module_image qn_gpu_modules[] = {\n");
    for (int i = 0; i < n_modules; i++) {
        fprintf(out, "    {\"%s\", \"%s\", module_%d, %zu, %zu},\n", argv[2 + 3 * i],
                argv[3 + 3 * i], i, sizes[2 * i], sizes[2 * i + 1]);
    }
    fprintf(out,
            "    {NULL, NULL, NULL, 0, 0},\n};\n"
            "const size_t qn_gpu_n_modules = %d;\n",
            n_modules);
    const int is_written = ferror(out) == 0;
    check(fclose(out) == 0 && is_written, argv[1]);
    free(sizes);
    return 0;
}

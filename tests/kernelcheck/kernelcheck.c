/* SPDX-License-Identifier: Apache-2.0 */
#include "kernelcheck.h"

#include "base/rng.h"

#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SLACK = 0xa5, N_LEVELS = 4, TEXT_MAX = 1 << 16 };

static const char emulated_set[] = "amx-emulated";

#define CHECK(op) #op, check_##op, offsetof(qn_kernels, op)
const kc_check kc_checks[] = {
    {CHECK(dequant_row), 0.0, "exact for f32, bf16, MXFP4; FP8: one f32 rounding of code * scale"},
    {CHECK(pack_strip), 0.0, "exact: bytes are moved"},
    {CHECK(prepare), 0.0, "exact on what weight.h says; a zero has either sign"},
    {CHECK(matmul), 1.0, "|err| <= (n_in + 8) * 2^-24 * sum |x w| + 2^-126 * (sum |x| + n_in)"},
    {CHECK(rmsnorm), 8.0, "within 8 ULP of a sum in f64"},
    {CHECK(layernorm), 8.0,
     "within 8 ULP of max(|y|, |bias|), + n * 2^-53 * max |x| * |weight| / sqrt(var + eps)"},
    {CHECK(rope), 4.0, "|err| <= 4 * 2^-24 * (|a| + |b|)"},
    {CHECK(silu_mul), 8.0, "within 8 ULP, or 1e-36 * |up| where exp(-gate) overflows"},
    {CHECK(axpy), 2.0, "|err| <= 2 * 2^-24 * (|y| + |scale x|)"},
    {CHECK(router), 16.0, "weights within 16 * 2^-24; the choice is exact on the f32 scores"},
    {CHECK(index_scores), 1.0,
     "|err| <= (dim + heads + 8) * 2^-24 * sum |w q k| + 2^-126 * sum |w| (1 + sum |q|)"},
    {CHECK(topk), 0.0, "exact"},
    {CHECK(attend), 1.0, "|err| <= (1e-5 + n_set * 2^-24) * max(1, max |s| / 16) * max |c|"},
    {CHECK(kv_write), 0.0, "bf16 and e4m3 round to nearest even"},
    {CHECK(kv_read), 0.0, "exact for bf16 and f32; FP8: one f32 rounding of code * scale"},
    {CHECK(sample), 1e-6, "the token whose interval of the f64 distribution holds unit +- 1e-6"},
    {CHECK(logsumexp), 1.0, "|err| <= 2e-6 + 2^-52 * |log sum exp(x)|"},
    {CHECK(mxfp4_encode), 0.0, "exact: every set gives the same bytes"},
    {CHECK(mxfp4_measure), 0.0, "exact: every set gives the same bits"},
    {CHECK(to_bf16), 0.0, "exact: nearest even, denormals kept"},
    {NULL, NULL, 0, 0.0, NULL},
};
#undef CHECK

double kc_bound(const char *op)
{
    for (const kc_check *check = kc_checks; check->op != NULL; check++) {
        if (strcmp(check->op, op) == 0) {
            return check->bound;
        }
    }
    abort();
}

/* ---------------------------------------------------------------------------------- random -- */

uint64_t kc_bits(kc *run)
{
    return qn_rng_u64(run->seed, 0, run->counter++);
}

float kc_uniform(kc *run)
{
    return (float)(kc_bits(run) >> 40) * 0x1p-23F - 1.0F;
}

uint32_t kc_below(kc *run, uint32_t n)
{
    return (uint32_t)(kc_bits(run) % n);
}

/* --------------------------------------------------------------------------------- buffers -- */

static uint64_t hash_bytes(const uint8_t *bytes, size_t n)
{
    uint64_t hash = 14695981039346656037ULL;
    for (size_t i = 0; i < n; i++) {
        hash = (hash ^ bytes[i]) * 1099511628211ULL;
    }
    return hash;
}

static uint8_t *guarded(kc *run, size_t n_bytes, bool is_input)
{
    const size_t unit = (size_t)sysconf(_SC_PAGESIZE);
    const size_t inner = (n_bytes + unit - 1) / unit * unit + (n_bytes == 0 ? unit : 0);
    uint8_t *pages =
        mmap(NULL, inner + 2 * unit, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED || run->n_buffers == KC_BUFFERS_MAX ||
        mprotect(pages, unit, PROT_NONE) != 0 ||
        mprotect(pages + unit + inner, unit, PROT_NONE) != 0) {
        (void)fprintf(stderr, "kernelcheck: no memory for a buffer\n");
        abort();
    }
    memset(pages + unit, SLACK, inner);
    uint8_t *data = pages + unit + (run->at_front ? 0 : inner - n_bytes);
    memset(data, 0xff, n_bytes);
    run->buffers[run->n_buffers++] =
        (kc_buffer){pages, data, inner + 2 * unit, n_bytes, 0, is_input};
    return data;
}

float *kc_out(kc *run, size_t n)
{
    return (float *)(void *)guarded(run, n * sizeof(float), false);
}

uint8_t *kc_out_bytes(kc *run, size_t n_bytes)
{
    return guarded(run, n_bytes, false);
}

uint8_t *kc_in_bytes(kc *run, size_t n_bytes)
{
    uint8_t *data = guarded(run, n_bytes, true);
    for (size_t i = 0; i < n_bytes; i++) {
        data[i] = (uint8_t)kc_bits(run);
    }
    return data;
}

float *kc_in(kc *run, size_t n, kc_fill_kind kind)
{
    float *x = (float *)(void *)guarded(run, n * sizeof(float), true);
    const float equal = kc_uniform(run);
    for (size_t i = 0; i < n; i++) {
        const float u = kc_uniform(run);
        switch (kind) {
        case KC_HUGE: x[i] = u * 1e18F; break;
        case KC_TINY: x[i] = u * 1e-40F; break;
        case KC_EQUAL: x[i] = equal; break;
        case KC_ZERO: x[i] = u < 0.0F ? -0.0F : 0.0F; break;
        case KC_LEAST: x[i] = truncf(u * 5.0F) * 0x1p-149F; break;
        default: x[i] = u; break;
        }
    }
    if (kind == KC_OUTLIER && n > 0) {
        x[kc_below(run, (uint32_t)n)] = 1000.0F;
    }
    if ((kind == KC_NAN || kind == KC_INF) && n > 0) {
        const float inf = equal < 0.0F ? -INFINITY : INFINITY;
        x[kc_below(run, (uint32_t)n)] = kind == KC_NAN ? NAN : inf;
    }
    return x;
}

void kc_seal(kc *run)
{
    for (size_t i = 0; i < run->n_buffers; i++) {
        run->buffers[i].hash = hash_bytes(run->buffers[i].data, run->buffers[i].data_bytes);
    }
}

/* ----------------------------------------------------------------------------------- cases -- */

static char g_where[256]; /* the present case, for the signal handler */

static void describe(char *out, size_t out_bytes, const kc *run)
{
    (void)snprintf(out, out_bytes, "FAIL %s [%s] %s, seed %llu, page %s: ", run->op, run->set,
                   run->shape, (unsigned long long)run->seed, run->at_front ? "before" : "behind");
}

/* A kernel touched a guard page: say which one before dying of it. */
static void on_fault(int signal_number)
{
    static const char text[] = "touched memory outside its buffers\n";
    const ssize_t n_written = write(STDOUT_FILENO, g_where, strlen(g_where)) +
                              write(STDOUT_FILENO, text, sizeof text - 1);
    (void)n_written; /* nobody left to tell */
    (void)signal(signal_number, SIG_DFL);
    (void)raise(signal_number);
}

void kc_begin(kc *run, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(run->shape, sizeof run->shape, format, args);
    va_end(args);
    run->case_failed = false;
    describe(g_where, sizeof g_where, run);
}

void kc_fail(kc *run, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (!run->is_quiet && !run->case_failed) {
        (void)fputs(g_where, stdout);
        (void)vprintf(format, args);
        (void)printf("\n");
    }
    va_end(args);
    run->case_failed = true;
    if (run->is_quiet) {
        _exit(KC_CAUGHT); /* a canary lives in a process of its own and has been caught */
    }
}

static bool is_slack(const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] != SLACK) {
            return false;
        }
    }
    return true;
}

void kc_end(kc *run)
{
    const size_t unit = (size_t)sysconf(_SC_PAGESIZE);
    uint64_t digest = 0;
    for (size_t i = 0; i < run->n_buffers; i++) {
        const kc_buffer *b = &run->buffers[i];
        const uint8_t *first = b->pages + unit;
        const size_t n_before = (size_t)(b->data - first);
        const size_t n_after = b->page_bytes - 2 * unit - n_before - b->data_bytes;
        if (!is_slack(first, n_before) || !is_slack(b->data + b->data_bytes, n_after)) {
            kc_fail(run, "buffer %zu: bytes written beside it", i);
        }
        const uint64_t hash = hash_bytes(b->data, b->data_bytes);
        if (b->is_input && hash != b->hash) {
            kc_fail(run, "buffer %zu: an input was changed", i);
        }
        digest = (digest ^ (b->is_input ? 0 : hash)) * 1099511628211ULL;
        (void)munmap(b->pages, b->page_bytes);
    }
    run->n_buffers = 0;
    if (run->i_case == KC_CASES_MAX) {
        abort();
    }
    if (run->at_front && run->digests[run->i_case] != digest) {
        kc_fail(run, "other bits than the same inputs gave at other addresses");
    }
    run->digests[run->i_case++] = digest;
    run->n_failed += run->case_failed ? 1 : 0;
    run->n_passed += run->case_failed ? 0 : 1;
}

double kc_ulp(double x)
{
    const float f = fabsf((float)x);
    return isfinite(f) ? (double)nextafterf(f, INFINITY) - (double)f : 0.0;
}

void kc_close(kc *run, const char *what, const float *got, const double *want, const double *scale,
              size_t n, double bound)
{
    double worst = 0.0;
    size_t i_worst = 0;
    for (size_t i = 0; i < n; i++) {
        const double g = (double)got[i];
        const double w = want[i];
        const double off = fabs(g - w) / scale[i];
        if (isnan(w)                      ? isnan(g)
            : !isfinite((double)(float)w) ? g == (double)(float)w
                                          : fabs(g - w) <= bound * scale[i]) {
            continue;
        }
        if (worst == 0.0 || !(off <= worst)) { /* NaN is worse than any error */
            worst = off;
            i_worst = i;
        }
    }
    if (worst != 0.0) {
        kc_fail(run, "%s[%zu] is %.9g, %.9g expected, %.3g of a bound of %.3g", what, i_worst,
                (double)got[i_worst], want[i_worst], worst, bound);
    }
}

void kc_same(kc *run, const char *what, const void *got, const void *want, size_t n_bytes)
{
    if (n_bytes > 0 && memcmp(got, want, n_bytes) != 0) {
        kc_fail(run, "%s: other bits", what);
    }
}

bool kc_is_exact(float got, double want)
{
    const float rounded = (float)want;
    return isnan(want) ? isnan(got) : got == rounded && !signbit(got) == !signbit(rounded);
}

void kc_untouched(kc *run, const char *what, const float *at, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (qn_f32_bits(at[i]) != 0xffffffffU) {
            kc_fail(run, "%s[%zu] was written", what, i);
        }
    }
}

void kc_run_check(kc *run, void (*check)(kc *run))
{
    const uint64_t counter = run->counter;
    for (int front = 0; front < 2; front++) {
        run->at_front = front == 1;
        run->counter = counter;
        run->i_case = 0;
        check(run);
    }
}

/* ----------------------------------------------------------------- the bounds in the header -- */

/* A file's text, each run of white space and of stars that begin a line as one space. */
static void load_text(char text[TEXT_MAX], const char *path)
{
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        (void)fprintf(stderr, "kernelcheck: cannot read %s\n", path);
        exit(2);
    }
    size_t n = 0;
    bool at_line_start = true;
    for (int c = fgetc(file); c != EOF && n + 1 < TEXT_MAX; c = fgetc(file)) {
        const bool is_blank = c == ' ' || c == '\n' || (c == '*' && at_line_start);
        at_line_start = c == '\n' || (c == ' ' && at_line_start);
        if (!is_blank) {
            text[n++] = (char)c;
        } else if (n > 0 && text[n - 1] != ' ') {
            text[n++] = ' ';
        }
    }
    (void)fclose(file);
    text[n] = '\0';
}

/* Each bound is the one that the declaration of its op promises and that the manual prints. */
static void check_bounds(kc *run)
{
    static char header[TEXT_MAX];
    static char manual[TEXT_MAX];
    load_text(header, QN_SOURCE_DIR "/src/kernels/kernels.h");
    load_text(manual, QN_SOURCE_DIR "/docs/kernels/README.md");
    const char *from = header;
    run->set = "documents";
    for (const kc_check *check = kc_checks; check->op != NULL; check++) {
        char name[64];
        char line[256];
        (void)snprintf(name, sizeof name, " qn_%s_fn(", check->op);
        (void)snprintf(line, sizeof line, " %s %s ", check->op, check->bound_text);
        run->op = check->op;
        run->i_case = 0;
        kc_begin(run, "bound");
        const char *end = strstr(from, name);
        const char *accuracy = NULL;
        for (const char *at = strstr(from, "Accuracy "); at != NULL && end != NULL && at < end;
             at = strstr(at + 1, "Accuracy ")) {
            accuracy = at + strlen("Accuracy "); /* the last one before the declaration's name */
        }
        if (accuracy == NULL ||
            strncmp(accuracy, check->bound_text, strlen(check->bound_text)) != 0) {
            kc_fail(run, "kernels.h promises \"%.60s\", \"%s\" is checked",
                    accuracy == NULL ? "" : accuracy, check->bound_text);
        }
        if (strstr(manual, line) == NULL) {
            kc_fail(run, "docs/kernels/README.md lacks the line \"%s\"", line);
        }
        from = end != NULL ? end : from;
        kc_end(run);
    }
}

/* ------------------------------------------------------------------------------------ main -- */

/* What the command line asks for. */
typedef struct request {
    const char *only_op, *only_set; /* NULL: all */
    bool with_bench;
} request;

/* What a set has and the one below it has not. */
static void run_set(kc *run, const request *asked, const qn_kernels *kernels,
                    const qn_kernels *below, void (*visit)(kc *, const kc_check *, uint32_t),
                    uint32_t cpu_flags)
{
    run->k = kernels;
    for (const kc_check *check = kc_checks; check->op != NULL; check++) {
        const uint8_t *here = (const uint8_t *)kernels + check->at;
        run->op = check->op;
        if ((asked->only_op == NULL || strcmp(asked->only_op, check->op) == 0) &&
            (asked->only_set == NULL || strcmp(asked->only_set, run->set) == 0) &&
            memcmp(here, (const uint8_t *)below + check->at, sizeof(qn_axpy_fn *)) != 0) {
            visit(run, check, cpu_flags);
        }
    }
    run->k = NULL;
}

/* All sets that this CPU offers; a kernel that a set shares with the one below comes once. */
static void run_sets(kc *run, const request *asked, void (*visit)(kc *, const kc_check *, uint32_t))
{
    qn_kernels below = {0};
    for (unsigned level = 0; level <= N_LEVELS; level++) {
        const uint32_t vnni = level > 0 ? qn_cpu_flags() & QN_CPU_AVXVNNI : 0;
        const uint32_t flags = ((1U << level) - 1) | vnni;
        qn_kernels kernels;
        if ((qn_cpu_flags() & flags) != flags) {
            break;
        }
        qn_kernels_init(&kernels, flags);
        run->set = qn_cpu_level_name(flags);
        run_set(run, asked, &kernels, &below, visit, flags);
        below = kernels;
    }
}

static void visit_check(kc *run, const kc_check *check, uint32_t cpu_flags)
{
    (void)cpu_flags;
    kc_run_check(run, check->fn);
}

/* The set of CPUs with tiles where there are none. */
static void check_emulated(kc *run, const request *asked)
{
#ifdef __x86_64__
    const uint32_t flags = QN_CPU_AVX2 | QN_CPU_AVX512 | QN_CPU_AVX512BF16;
    if ((qn_cpu_flags() & flags) == flags) {
        qn_kernels below;
        qn_kernels_init(&below, flags);
        qn_kernels kernels = below;
        kernels.matmul = kc_matmul_amx_emulated;
        run->set = emulated_set;
        run_set(run, asked, &kernels, &below, visit_check, flags);
    }
#else
    (void)run;
    (void)asked;
#endif
}

static void visit_bench(kc *run, const kc_check *check, uint32_t cpu_flags)
{
    (void)check;
    kc_bench(run, cpu_flags);
}

static int usage(FILE *to, int status)
{
    (void)fprintf(
        to, "usage: kernelcheck [--seed N] [--only OP] [--set SET] [--list] [--bench]\n"
            "Holds every kernel set of this CPU against oracles.\n"
            "  --seed N   seed of the inputs, 1 if not given\n"
            "  --only OP  one operation, without the wrong kernels\n"
            "  --set SET  one set: ref, avx2, avx512, avx512bf16, amx or amx-emulated; without\n"
            "             the wrong kernels\n"
            "  --list     print operations and error bounds\n"
            "  --bench    then time what was checked, one thread: a line a shape with the\n"
            "             least and the middle time, rates, and the share of a roof (reading\n"
            "             memory, or the multiplication at hand) of the same run\n");
    return status;
}

static int list(void)
{
    for (const kc_check *check = kc_checks; check->op != NULL; check++) {
        (void)printf("%-14s %s\n", check->op, check->bound_text);
    }
    return 0;
}

static bool is_op(const char *name)
{
    for (const kc_check *check = kc_checks; check->op != NULL; check++) {
        if (strcmp(check->op, name) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_set(const char *name)
{
    for (unsigned level = 0; level <= N_LEVELS; level++) {
        if (strcmp(qn_cpu_level_name((1U << level) - 1), name) == 0) {
            return true;
        }
    }
    return strcmp(name, emulated_set) == 0;
}

int main(int argc, char **argv)
{
    static kc run = {.seed = 1};
    request asked = {0};
    for (int i = 1; i < argc; i++) {
        char *end = NULL;
        if (strcmp(argv[i], "--bench") == 0) {
            asked.with_bench = true;
        } else if (strcmp(argv[i], "--list") == 0) {
            return list();
        } else if (strcmp(argv[i], "--help") == 0) {
            return usage(stdout, 0);
        } else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
            run.seed = strtoull(argv[++i], &end, 10);
            if (end == argv[i] || *end != '\0') {
                return usage(stderr, 2);
            }
        } else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc && is_op(argv[i + 1])) {
            asked.only_op = argv[++i];
        } else if (strcmp(argv[i], "--set") == 0 && i + 1 < argc && is_set(argv[i + 1])) {
            asked.only_set = argv[++i];
        } else {
            return usage(stderr, 2);
        }
    }
    (void)signal(SIGSEGV, on_fault);
    (void)signal(SIGBUS, on_fault);
    check_bounds(&run);
    run_sets(&run, &asked, visit_check);
    check_emulated(&run, &asked);
    const bool is_whole = asked.only_op == NULL && asked.only_set == NULL;
    const unsigned n_missed = is_whole ? kc_canaries(run.seed) : 0;
    if (asked.with_bench) {
        run_sets(&run, &asked, visit_bench);
    }
    (void)printf("%u passed, %u failed\n", run.n_passed, run.n_failed + n_missed);
    return run.n_failed + n_missed == 0 ? 0 : 1;
}

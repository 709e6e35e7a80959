/* SPDX-License-Identifier: Apache-2.0 */
/* The language of GPU kernels on the emulator, and the faults that the emulator must report. */
#include "base/numbers.h"
#include "base/rng.h"
#include "gpuemu/emu.h"
#include "gpuemu/planted.h"
#include "support/unit.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { N_SEEDS = 20, N_RANDOM = 1000000 };

static const uint32_t one[3] = {1, 1, 1};

static uint32_t random_u32(uint64_t stream, uint64_t i)
{
    return (uint32_t)qn_rng_u64(11, stream, i);
}

static void run(const char *kernel, uint32_t n_threads, void *y, const void *x, uint64_t n)
{
    emu_launch(kernel, one, n_threads, 512, &(planted_args){.y = y, .x = x, .n = n});
}

/* Begun before what is in front of it. */
static void run_dependent(const char *kernel, uint32_t n_threads, void *y, const void *x,
                          uint64_t n)
{
    emu_finish(emu_begin(kernel, one, n_threads, 512, &(planted_args){.y = y, .x = x, .n = n}));
}

typedef void (*run_fn)(const char *kernel, uint32_t n_threads, void *y, const void *x, uint64_t n);

/* A kernel in a process of its own: what it says on stderr; the exit status. */
static int run_apart(char said[512], run_fn how, const char *kernel, uint32_t n_threads,
                     uint64_t size)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        static uint32_t x[256], y[256];
        dup2(ends[1], STDERR_FILENO);
        how(kernel, n_threads, y, x, size);
        _exit(0);
    }
    close(ends[1]);
    size_t n = 0;
    for (ssize_t n_read = 1; n_read > 0; n += n_read > 0 ? (size_t)n_read : 0) {
        n_read = read(ends[0], said + n, 511 - n);
    }
    said[n] = '\0';
    close(ends[0]);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WEXITSTATUS(status);
}

static void test_lanes_exchange(void **state)
{
    (void)state;
    uint32_t x[64], y[64][8];
    for (uint32_t i = 0; i < 64; i++) {
        x[i] = random_u32(1, i) % 1000;
    }
    for (uint64_t seed = 0; seed < N_SEEDS; seed++) {
        emu_seed(seed);
        memset(y, 0, sizeof y);
        run("exchange", 64, y, x, 0);
        for (uint32_t i = 0; i < 64; i++) {
            const uint32_t *w = x + i / 32 * 32;
            const uint32_t lane = i % 32;
            uint32_t sum = 0, max = 0, min = 1000;
            for (uint32_t j = 0; j < 32; j++) {
                sum += w[j];
                max = w[j] > max ? w[j] : max;
                min = w[j] < min ? w[j] : min;
            }
            assert_int_equal(y[i][0], w[lane * 7 % 32]);
            assert_int_equal(y[i][1], w[lane ^ 5]);
            assert_int_equal(y[i][2], w[lane < 3 ? lane : lane - 3]);
            assert_int_equal(y[i][3], w[lane > 28 ? lane : lane + 3]);
            assert_int_equal(y[i][4], sum);
            assert_int_equal(y[i][5], max);
            assert_true(qn_f32_from_bits(y[i][6]) == (float)sum);
            assert_true(qn_f32_from_bits(y[i][7]) == -(float)min);
        }
    }
}

static void test_lanes_vote(void **state)
{
    (void)state;
    uint32_t x[48] = {0}, y[48][3];
    x[3] = x[31] = 1;
    for (uint32_t i = 32; i < 48; i++) {
        x[i] = 1;
    }
    emu_seed(0);
    run("votes", 48, y, x, 0);
    for (uint32_t i = 0; i < 48; i++) {
        assert_int_equal(y[i][0], i < 32 ? 0x80000008U : 0xffffU);
        assert_int_equal(y[i][1], 1);
        assert_int_equal(y[i][2], i < 32 ? 0 : 1);
    }
}

static bool is_reversed(const char *kernel, uint64_t seed)
{
    uint32_t x[256], y[256];
    for (uint32_t i = 0; i < 256; i++) {
        x[i] = random_u32(2, i);
    }
    emu_seed(seed);
    run(kernel, 256, y, x, 0);
    bool is_right = true;
    for (uint32_t i = 0; i < 256; i++) {
        is_right = is_right && y[i] == x[255 - i];
    }
    return is_right;
}

static void test_barriers_hold_and_missing_ones_show(void **state)
{
    (void)state;
    uint32_t n_caught = 0;
    for (uint64_t seed = 0; seed < N_SEEDS; seed++) {
        assert_true(is_reversed("reverse", seed));
        n_caught += !is_reversed("unsynced", seed);
    }
    assert_true(n_caught > 0);
}

static bool is_overtaken(uint64_t n, uint64_t seed)
{
    uint32_t x[2][8], y[2][256];
    for (uint32_t i = 0; i < 16; i++) {
        x[i / 8][i % 8] = random_u32(7, i);
    }
    emu_seed(seed);
    run("overtaken", 256, y, x, n);
    bool is_right = true;
    for (uint32_t i = 0; i < 512; i++) {
        is_right = is_right && y[i / 256][i % 256] == x[i / 256][(i / 32 + 1) % 8];
    }
    return !is_right;
}

static void test_a_warp_far_ahead_shows_missing_barriers(void **state)
{
    (void)state;
    uint32_t n_caught = 0;
    for (uint64_t seed = 1; seed <= N_SEEDS; seed++) {
        assert_false(is_overtaken(1, seed));
        n_caught += is_overtaken(0, seed);
    }
    assert_true(n_caught >= N_SEEDS / 4);
}

static void test_divergence_is_reported(void **state)
{
    (void)state;
    char said[512];
    emu_seed(0);
    assert_int_equal(run_apart(said, run, "split", 64, 64), 0);
    assert_int_equal(run_apart(said, run, "split", 64, 32), 1);
    assert_non_null(strstr(said, "kernel split, block 0 0 0: thread 0 waits at a barrier"));
    assert_non_null(strstr(said, "thread 32 waits at a barrier"));
    assert_int_equal(run_apart(said, run, "split", 64, 7), 1);
    assert_non_null(strstr(said, "thread 7 waits at a barrier"));
    assert_int_equal(run_apart(said, run, "left", 64, 40), 1);
    assert_non_null(strstr(said, "thread 32 waits at a shuffle"));
    assert_non_null(strstr(said, "thread 40 has ended"));
    assert_int_equal(run_apart(said, run, "left", 32, 0), 1);
    assert_non_null(strstr(said, "not the block size"));
    assert_int_equal(run_apart(said, run, "none", 32, 0), 1);
    assert_non_null(strstr(said, "not emulated"));
    assert_true(emu_has("left") && !emu_has("none"));
}

static void test_atomics_count_all_threads(void **state)
{
    (void)state;
    uint32_t y[5] = {0};
    const uint32_t grid[3] = {2, 3, 1};
    emu_seed(3);
    emu_launch("counted", grid, 64, 0, &(planted_args){.y = y});
    assert_int_equal(y[0], 2 * 384);
    assert_int_equal(y[1], 263);
    assert_int_equal(y[2], 384 % 5);
    assert_true(qn_f32_from_bits(y[3]) == 192);
    assert_int_equal(y[4], 4);
}

/* y = d + a b with k values of a row of a and a column of b, against sums in double. */
static void check_product(const char *kernel, uint32_t n_k,
                          float (*value)(const void *x, uint32_t i))
{
    uint32_t x[24 * 8];
    float y[16][8], d[16][8];
    for (uint32_t i = 0; i < 24 * 8; i++) { /* bits that make moderate numbers of both formats */
        x[i] = (random_u32(3, i) & 0x87ff87ffU) | 0x38003800U;
    }
    for (uint32_t i = 0; i < 128; i++) {
        y[i / 8][i % 8] = d[i / 8][i % 8] = (float)(random_u32(4, i) % 100) * 0.25F;
    }
    run(kernel, 32, y, x, 0);
    for (uint32_t i = 0; i < 128; i++) {
        double sum = d[i / 8][i % 8];
        double size = fabs(sum);
        for (uint32_t k = 0; k < n_k; k++) {
            const double term =
                (double)value(x, i / 8 * n_k + k) * (double)value(x, (16 + i % 8) * n_k + k);
            sum += term;
            size += fabs(term);
        }
        assert_true(fabs(sum - (double)y[i / 8][i % 8]) <= size * n_k * 0x1p-24);
    }
}

static float bf16_value(const void *x, uint32_t i)
{
    return qn_bf16_to_f32(((const uint16_t *)x)[i]);
}

static float e4m3_value(const void *x, uint32_t i)
{
    return qn_e4m3_to_f32(((const uint8_t *)x)[i]);
}

static void test_warps_multiply(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 4; seed++) {
        emu_seed(seed);
        check_product("product_bf16", 16, bf16_value);
        check_product("product_e4m3", 32, e4m3_value);
    }
}

static void test_matrices_load_transposed(void **state)
{
    (void)state;
    uint16_t x[4][8][8], y[32][4][2];
    for (uint32_t i = 0; i < 256; i++) {
        x[i / 64][i / 8 % 8][i % 8] = (uint16_t)i;
    }
    run("transposed", 32, y, x, 0);
    for (uint32_t i = 0; i < 256; i++) {
        const uint32_t lane = i / 8;
        assert_int_equal(y[lane][i / 2 % 4][i % 2], x[i / 2 % 4][lane % 4 * 2 + i % 2][lane / 4]);
    }
}

static void test_copies_end_in_zeros(void **state)
{
    (void)state;
    _Alignas(16) uint8_t x[64][16], y[64][16];
    memset(x, 0x5a, sizeof x);
    run("copied", 64, y, x, 0);
    for (uint32_t i = 0; i < 64 * 16; i++) {
        const uint32_t n_bytes = (const uint32_t[]){16, 5, 0}[i / 16 % 3];
        assert_int_equal(y[i / 16][i % 16], i % 16 < n_bytes ? 0x5a : 0);
    }
}

static void test_copies_are_not_there_before_a_wait(void **state)
{
    (void)state;
    static const char *const kernels[] = {"unwaited", "uncommitted"};
    for (size_t k = 0; k < sizeof kernels / sizeof *kernels; k++) {
        _Alignas(16) uint8_t x[64 * 16], y[64 * 16];
        memset(x, 0x5a, sizeof x);
        run(kernels[k], 64, y, x, 0);
        for (uint32_t i = 0; i < sizeof y; i++) {
            assert_int_equal(y[i], 0xCD);
        }
    }
}

enum { N_CHAINED = 5 /* blocks: more than begin early */ };

/*
 * Three launches, of which two begin before the one in front of them: x is i, between is i + 1, x
 * is i + 2.
 */
static bool is_chained(enum hasty hasty)
{
    static uint32_t x[1024], between[N_CHAINED * 128];
    const uint32_t grid[3] = {N_CHAINED, 1, 1};
    const planted_args args[] = {{between, x, HASTY_NOTHING}, {x, between, hasty}};
    memset(x, 0xff, sizeof x);
    memset(between, 0xff, sizeof between);
    const uint32_t a = emu_begin("awaited", grid, 64, 256, &args[0]);
    emu_launch("turns", one, 1024, 0, &(planted_args){.y = x});
    const uint32_t b = emu_begin("awaited", grid, 64, 256, &args[1]);
    emu_finish(a);
    emu_finish(b);
    bool is_right = true;
    for (uint32_t i = 0; i < N_CHAINED * 128; i++) {
        const uint32_t t = i % 64;
        const uint32_t numbers = 63 - t + (t ^ 1U) + i / 128; /* of shared memory of both kinds */
        is_right = is_right && x[i] == (i % 128 < 64 ? t + 2 : numbers);
    }
    return is_right;
}

static void test_what_comes_before_earlier_launches_shows(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < N_SEEDS; seed++) {
        emu_seed(seed);
        assert_true(is_chained(HASTY_NOTHING));
        for (enum hasty hasty = HASTY_LOAD; hasty <= HASTY_STORE; hasty++) {
            assert_false(is_chained(hasty));
        }
    }
}

static void test_a_launch_that_does_not_wait_is_reported(void **state)
{
    (void)state;
    char said[512];
    emu_seed(0);
    assert_int_equal(run_apart(said, run_dependent, "awaited", 64, HASTY_NOTHING), 0);
    assert_int_equal(run_apart(said, run_dependent, "awaited", 64, HASTY_END), 1);
    assert_non_null(strstr(said, "kernel awaited: a thread of a dependent launch ends without"));
    assert_int_equal(run_apart(said, run, "awaited", 64, HASTY_END), 0);
    assert_int_equal(run_apart(said, run_dependent, "awaited", 64, HASTY_RELEASE), 1);
    assert_non_null(strstr(said, "kernel awaited: a thread of a dependent launch lets later ones"));
    assert_int_equal(run_apart(said, run, "awaited", 64, HASTY_RELEASE), 0);
}

static void check_number(const uint32_t *y, uint64_t n, uint64_t i, uint32_t x)
{
    const float value = qn_f32_from_bits(x);
    const float e4m3 = qn_e4m3_to_f32((uint8_t)(x >> 8));
    const uint32_t decoded = y[2 * n + i];
    const float scale = qn_e8m0_to_f32((uint8_t)x);
    assert_int_equal(y[i], qn_f32_to_bf16(value));
    assert_int_equal(y[n + i], qn_f32_to_e4m3(value));
    assert_true(decoded == qn_f32_bits(e4m3) || (isnan(e4m3) && isnan(qn_f32_from_bits(decoded))));
    assert_int_equal(y[3 * n + i], qn_f32_bits(qn_e2m1_pairs[x & 0xff][0]));
    assert_int_equal(y[4 * n + i], qn_f32_bits(scale));
    assert_int_equal(y[5 * n + i], (x & 0xffff0000U) | (x & 0xffffU));
}

/* All codes in the low two bytes, random bits, and what rounding and saturation turn on. */
static void test_numbers_are_those_of_base(void **state)
{
    (void)state;
    static const float edges[] = {0,          -0.0F,     448,      449,       464,   1e9F,
                                  INFINITY,   -INFINITY, NAN,      -NAN,      447,   432.1F,
                                  0x1.8p-10F, 0x1p-9F,   0x1p-10F, 0x1.fp-7F, -1.5F, 1e-40F};
    enum { N_EDGES = sizeof edges / sizeof edges[0], N = N_RANDOM + 65536 + N_EDGES };
    uint32_t *x = malloc(7 * (size_t)N * sizeof *x);
    assert_non_null(x);
    for (uint32_t i = 0; i < N; i++) {
        const uint32_t bits = random_u32(5, i);
        /* of every other the exponent is one of e4m3's */
        x[i] = i % 2 == 0 ? bits : (bits & 0x87ffffffU) | 0x38000000U;
        if (i >= N_RANDOM) {
            x[i] = i - N_RANDOM;
        }
        if (i >= N_RANDOM + 65536) {
            x[i] = qn_f32_bits(edges[i - N_RANDOM - 65536]);
        }
    }
    emu_seed(0);
    run("numbers", 256, x + N, x, N);
    for (uint32_t i = 0; i < N; i++) {
        check_number(x + N, N, i, x[i]);
    }
    free(x);
}

static void test_sums_and_conversions_are_those_of_the_cpu(void **state)
{
    (void)state;
    static float x[2][1000];
    _Alignas(16) float y[2] = {0}, wide[256];
    double sums[2] = {0};
    _Alignas(16) uint8_t codes[256];
    _Alignas(16) uint16_t narrow[256];
    for (uint32_t i = 0; i < 2000; i++) {
        x[i / 1000][i % 1000] = (float)(random_u32(6, i) % 1000);
        sums[i / 1000] += (double)x[i / 1000][i % 1000];
    }
    for (uint64_t seed = 0; seed < N_SEEDS; seed++) {
        emu_seed(seed);
        emu_launch("sum_f32", (const uint32_t[]){2, 1, 1}, 256, 0,
                   &(planted_args){.y = (void *)y, .x = (const void *)x[0], .n = 1000});
        assert_true((double)y[0] == sums[0] && (double)y[1] == sums[1]);
    }
    for (uint32_t i = 0; i < 256; i++) {
        codes[i] = (uint8_t)i;
    }
    emu_launch("e4m3_to_f32", one, 256, 0,
               &(planted_args){.y = (void *)wide, .x = (const void *)codes, .n = 256});
    emu_launch("f32_to_bf16", one, 256, 0,
               &(planted_args){.y = (void *)narrow, .x = (const void *)wide, .n = 256});
    for (uint32_t i = 0; i < 256; i++) {
        const float value = qn_e4m3_to_f32((uint8_t)i);
        assert_true(wide[i] == value || (isnan(wide[i]) && isnan(value)));
        assert_int_equal(narrow[i], qn_f32_to_bf16(wide[i]));
    }
}

/* Not a bound: what a shuffle costs, for who wonders where a test's time goes. */
static void test_switches_are_quick(void **state)
{
    (void)state;
    static uint32_t y[1024];
    struct timespec first, last;
    emu_seed(0);
    run("turns", 1024, y, y, 0);
    clock_gettime(CLOCK_MONOTONIC, &first);
    run("turns", 1024, y, y, 1000);
    clock_gettime(CLOCK_MONOTONIC, &last);
    const double ns =
        (double)(last.tv_sec - first.tv_sec) * 1e9 + (double)(last.tv_nsec - first.tv_nsec);
    printf("%.1f ns a thread and shuffle\n", ns / 1024 / 1000);
    assert_int_equal(y[5], 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lanes_exchange),
        cmocka_unit_test(test_lanes_vote),
        cmocka_unit_test(test_barriers_hold_and_missing_ones_show),
        cmocka_unit_test(test_a_warp_far_ahead_shows_missing_barriers),
        cmocka_unit_test(test_divergence_is_reported),
        cmocka_unit_test(test_atomics_count_all_threads),
        cmocka_unit_test(test_warps_multiply),
        cmocka_unit_test(test_matrices_load_transposed),
        cmocka_unit_test(test_copies_end_in_zeros),
        cmocka_unit_test(test_copies_are_not_there_before_a_wait),
        cmocka_unit_test(test_what_comes_before_earlier_launches_shows),
        cmocka_unit_test(test_a_launch_that_does_not_wait_is_reported),
        cmocka_unit_test(test_numbers_are_those_of_base),
        cmocka_unit_test(test_sums_and_conversions_are_those_of_the_cpu),
        cmocka_unit_test(test_switches_are_quick),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

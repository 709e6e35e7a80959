/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file kernelcheck.h  Holds every kernel against an oracle in f64 or exact integers, then times
 * it.
 *
 * A case allocates guarded buffers, calls the kernel, compares, and ends with kc_end(), which also
 * finds changed inputs and bytes written beside a buffer.
 */
#ifndef QN_KERNELCHECK_H
#define QN_KERNELCHECK_H
#include "base/cpu.h"
#include "base/numbers.h"
#include "kernels/kernels.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    KC_BUFFERS_MAX = 32,
    KC_CASES_MAX = 4096,
    KC_CAUGHT = 77, /**< Exit status of a process whose wrong kernel was noticed. */
};

/** One guarded buffer: unreadable pages on both sides, known bytes in the slack between. */
typedef struct kc_buffer {
    uint8_t *pages, *data;
    size_t page_bytes, data_bytes;
    uint64_t hash; /* of an input's bytes */
    bool is_input;
} kc_buffer;

/** A run of checks over one kernel set. */
typedef struct kc {
    const qn_kernels *k;
    const char *set; /**< Name of the kernel set. */
    const char *op;  /**< Being checked. */
    char shape[96];  /**< Of the present case. */
    uint64_t seed, counter;
    bool at_front; /**< Buffers touch the guard page before them, not the one behind. */
    bool is_quiet; /**< A canary: the first failure says nothing and ends the process. */
    unsigned n_passed, n_failed;
    bool case_failed;
    size_t i_case;                  /**< Of this check and placement. */
    uint64_t digests[KC_CASES_MAX]; /**< What each case wrote in the first placement. */
    kc_buffer buffers[KC_BUFFERS_MAX];
    size_t n_buffers;
} kc;

/** Kinds of input. */
typedef enum kc_fill_kind {
    KC_UNIFORM, /**< [-1, 1) */
    KC_HUGE,    /**< around 1e18: squares stay finite */
    KC_TINY,    /**< around 1e-40: denormal */
    KC_OUTLIER, /**< one element 1000 times the others */
    KC_EQUAL,   /**< all the same */
    KC_ZERO,    /**< +0 and -0 */
    KC_LEAST,   /**< up to 4 times the smallest denormal */
    KC_NAN,     /**< one NaN somewhere */
    KC_INF,     /**< one Inf of either sign somewhere */
    KC_N_FILLS,
} kc_fill_kind;

/** Factor in the error bound of an op.  The bound is written once, in kc_checks. */
double kc_bound(const char *op);

/**
 * Run a check with buffers against the page behind them, then with the same inputs against the page
 * before them: what is written must be the same, bit for bit.
 */
void kc_run_check(kc *run, void (*check)(kc *run));

void kc_begin(kc *run, const char *format, ...) __attribute__((format(printf, 2, 3)));
/** Check inputs and slack, release the buffers, count the case. */
void kc_end(kc *run);
void kc_fail(kc *run, const char *format, ...) __attribute__((format(printf, 2, 3)));

uint64_t kc_bits(kc *run);
float kc_uniform(kc *run);
uint32_t kc_below(kc *run, uint32_t n);

/** Guarded output of n floats, all NaN. */
float *kc_out(kc *run, size_t n);
/** Guarded bytes, 0xff. */
uint8_t *kc_out_bytes(kc *run, size_t n_bytes);
/** Guarded input; fill it, then kc_seal() all inputs before the call. */
float *kc_in(kc *run, size_t n, kc_fill_kind kind);
uint8_t *kc_in_bytes(kc *run, size_t n_bytes);
void kc_seal(kc *run);

/** |got - want| <= bound * scale for each; NaN wants NaN, Inf the same Inf. */
void kc_close(kc *run, const char *what, const float *got, const double *want, const double *scale,
              size_t n, double bound);
/** got is want rounded to f32, sign of zero included; NaN wants NaN. */
bool kc_is_exact(float got, double want);
/** Nothing was written to these floats of an output. */
void kc_untouched(kc *run, const char *what, const float *at, size_t n);
/** Size of a unit in the last place of a float near x. */
double kc_ulp(double x);
/** Same bytes. */
void kc_same(kc *run, const char *what, const void *got, const void *want, size_t n_bytes);

/** Random weight of a kind; its bytes lie at an odd address. */
qn_weight kc_weight(kc *run, qn_weight_kind kind, uint32_t n_out, uint32_t n_in);
extern const char *const kc_kind_names[];
extern const char *const kc_act_names[];
/** Element of a weight by the format's definition, in f64: exact. */
double kc_weight_value(const qn_weight *w, uint32_t o, uint32_t k);
/** A strip, byte by byte from its definition in weight.h. */
void kc_pack_strip(uint8_t *to, const qn_weight *w, uint32_t i_strip);
/** Guarded input with all strips of a weight. */
qn_packed kc_packed(kc *run, const qn_weight *w);
/** A prepared row from its definition in weight.h, and the values [n_in] that it stands for. */
void kc_prepare(double *value, uint8_t *to, qn_act act, const float *x, uint32_t n_in);
/** f64 decode of one e4m3 code. */
double kc_e4m3(uint8_t code);
/** f64 decode of a bf16 that may lie at any address. */
double kc_bf16(const uint8_t *at);
/** Nearest bf16 value, ties to even. */
double kc_round_bf16(float x);

void check_dequant_row(kc *run);
void check_pack_strip(kc *run);
void check_prepare(kc *run);
void check_matmul(kc *run);
void check_rmsnorm(kc *run);
void check_layernorm(kc *run);
void check_rope(kc *run);
void check_silu_mul(kc *run);
void check_axpy(kc *run);
void check_router(kc *run);
void check_index_scores(kc *run);
void check_topk(kc *run);
void check_attend(kc *run);
void check_kv_write(kc *run);
void check_kv_read(kc *run);
void check_sample(kc *run);
void check_logsumexp(kc *run);
void check_mxfp4_encode(kc *run);
void check_mxfp4_measure(kc *run);
void check_to_bf16(kc *run);

/** All checks by name, ending in a NULL name. */
typedef struct kc_check {
    const char *op;
    void (*fn)(kc *run);
    size_t at;              /* of the kernel in qn_kernels */
    double bound;           /* the factor that kc_close() applies */
    const char *bound_text; /* beginning of "Accuracy" in kernels.h; main() compares the two */
} kc_check;
extern const kc_check kc_checks[];

/** The products of level amx, on tile registers in plain C (emulated_amx.c); x86-64 alone. */
qn_matmul_fn kc_matmul_amx_emulated;
/** Wrong kernels: returns the number that were not caught. */
unsigned kc_canaries(uint64_t seed);
/** Time the operation run->op of the set at hand, whose CPU bundles are given. */
void kc_bench(const kc *run, uint32_t cpu_flags);
#endif

/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file gpucheck.h  Holds every operation of a GPU (kernels/gpu_ops.h) against the CPU's reference
 * or an oracle, then times it.
 *
 * A case makes buffers on the device, calls the operation, waits by gc_wait(), compares what
 * gc_got() shows, and ends with gc_end().  Between, the harness finds changed inputs, bytes written
 * beside a buffer, and results that the same inputs do not give twice.
 */
#ifndef QN_GPUCHECK_H
#define QN_GPUCHECK_H
#include "base/numbers.h"
#include "kernels/gpu_ops.h"
#include "kernels/kernels.h"

#include <math.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    GC_BUFFERS_MAX = 64, /**< Of one case, on the device. */
    GC_HOST_MAX = 256,   /**< Of one case, on the host. */
    GC_CASES_MAX = 4096, /**< Of one check. */
    GC_MARGIN = 1024,    /**< Bytes of canary words before a buffer, and most behind it. */
    GC_SECONDS_MAX = 20, /**< Of a case or a row on a device, before it counts as hanging. */
};

/** What a buffer is to the operation. */
typedef enum gc_role {
    GC_IN,      /**< May not change. */
    GC_INOUT,   /**< Uploaded, then a result. */
    GC_OUT,     /**< A result; every byte 0xff before, a NaN or -1. */
    GC_SCRATCH, /**< What it holds afterwards is no result of what is checked. */
} gc_role;

/** One buffer on the device. */
typedef struct gc_buffer {
    uint8_t *device; /* margin, n_bytes, margin */
    uint8_t *before; /* all of it as it was uploaded */
    uint8_t *after;  /* and as gc_wait() found it; NULL before that */
    size_t n_bytes;
    gc_role role;
} gc_buffer;

/** A wrong kernel: a right one that is given wrong arguments.  The check of its op must fail. */
typedef struct gc_wrong {
    const char *name;          /**< "rmsnorm_wrong_eps" */
    const char *op;            /**< Name of the check. */
    void (*spoil)(void *args); /**< Changes the arguments that gc_args() gives; nothing that makes
                                    the kernel leave its buffers, which may end the process. */
} gc_wrong;

/** What the harness itself does wrong, to see that it is noticed. */
typedef enum gc_fault {
    GC_FAULT_NONE,
    GC_FAULT_RESULT,   /**< A word of a result is another. */
    GC_FAULT_BESIDE,   /**< A byte behind a buffer is written. */
    GC_FAULT_INPUT,    /**< A byte of an input is written. */
    GC_FAULT_UNSTEADY, /**< The second time a bit of a result is another. */
    GC_N_FAULTS,
} gc_fault;

/** A run of checks on one device. */
typedef struct gc {
    qn_gpu *gpu;
    qn_gpu_stream *stream;
    qn_gpu_kernels *kernels;
    qn_gpu_ops ops;      /**< What operations are called with. */
    qn_kernels ref;      /**< The CPU's reference. */
    bool is_emulated;    /**< Small shapes only: an emulated thread is a million times slower, and
                              one below compute-sanitizer is slow. */
    bool is_verbose;     /**< Name each case before it runs. */
    size_t behind_bytes; /**< Canary words behind a buffer: GC_MARGIN; 0: its end is that of an
                              allocation, so that another tool sees what is read beyond it. */
    const char *op;      /**< Being checked. */
    char shape[96];      /**< Of the present case. */
    uint64_t seed, counter;
    unsigned n_passed, n_failed;
    bool case_failed;
    unsigned i_pass; /* every check runs twice */
    size_t i_case;   /* of this check */
    uint64_t digests[GC_CASES_MAX];
    gc_buffer buffers[GC_BUFFERS_MAX];
    size_t n_buffers;
    void *host[GC_HOST_MAX];
    size_t n_host;
    const gc_wrong *wrong; /* planted; NULL: none */
    gc_fault fault;
    jmp_buf caught; /* where a planted one is noticed */
} gc;

/** Kinds of input. */
typedef enum gc_fill {
    GC_NORMAL,  /**< As activations are: a normal distribution, one in 64 ten times larger. */
    GC_UNIFORM, /**< [-1, 1) */
    GC_HUGE,    /**< Around 1e18: squares stay finite. */
    GC_TINY,    /**< Around 1e-40: denormal. */
    GC_ZERO,    /**< +0 and -0. */
    GC_NAN,     /**< GC_NORMAL with one NaN somewhere. */
    GC_INF,     /**< GC_NORMAL with one Inf of either sign somewhere. */
    GC_N_FILLS,
} gc_fill;

/**
 * What op and shape name begins now: it is printed if the run is verbose; on a device, where it has
 * not come to gc_watch_end() after GC_SECONDS_MAX, it is reported and the process ends.
 */
void gc_watch(gc *run);
void gc_watch_end(void);
/** Begin a case; the text names its shape. */
void gc_begin(gc *run, const char *format, ...) QN_PRINTF(2, 3);
/** Release all that the case has made, and count it. */
void gc_end(gc *run);
void gc_fail(gc *run, const char *format, ...) QN_PRINTF(2, 3);

uint64_t gc_bits(gc *run);
float gc_uniform(gc *run);
uint32_t gc_below(gc *run, uint32_t n);

/** Zeros on the host until gc_end(). */
void *gc_host(gc *run, size_t n_bytes);
float *gc_floats(gc *run, size_t n, gc_fill fill);
uint16_t *gc_bf16s(gc *run, size_t n, gc_fill fill);
/** The values of bf16. */
float *gc_from_bf16(gc *run, const void *bf16, size_t n);
/** n_seqs tables of n_table_pages pages each, all different, in disorder: 0 .. n_seqs *
 * n_table_pages - 1. */
int32_t *gc_page_tables(gc *run, uint32_t n_seqs, uint32_t n_table_pages);

/** A buffer on the device until gc_end(), on a multiple of 256; host is copied at once. */
void *gc_in(gc *run, const void *host, size_t n_bytes);
void *gc_inout(gc *run, const void *host, size_t n_bytes);
void *gc_out(gc *run, size_t n_bytes);
/** As gc_inout(), or as gc_out() where host is NULL. */
void *gc_scratch(gc *run, const void *host, size_t n_bytes);
/**
 * A copy of a struct of arguments, changed where a wrong kernel is planted: what every operation of
 * a check is called with.
 */
void *gc_args(gc *run, const void *args, size_t n_bytes);
/** Wait for what was called, and look for what it should not have done. */
void gc_wait(gc *run);
/** What a buffer of this case held at the last gc_wait(). */
const void *gc_got(gc *run, const void *device);

/** |got - want| <= tolerance for each; NaN wants NaN, Inf the same Inf. */
void gc_close(gc *run, const char *what, const float *got, const double *want,
              const double *tolerance, size_t n);
/** Same bytes. */
void gc_same(gc *run, const char *what, const void *got, const void *want, size_t n_bytes);
/** Nothing was written to these bytes of a GC_OUT. */
void gc_untouched(gc *run, const char *what, const void *got, size_t n_bytes);
/** No NaN, no Inf: all that is promised of the rows of padding. */
void gc_finite(gc *run, const char *what, const float *got, size_t n);
/** Size of a unit in the last place of a float near x. */
double gc_ulp(double x);
/** Half a unit of a bf16 near x: what one rounding may do. */
double gc_half_ulp_bf16(double x);

/** One check. */
typedef struct gc_check {
    const char *op;
    void (*check)(gc *run);
    const char *bound; /**< What is checked, for --list. */
} gc_check;

/** One call that is timed. */
typedef struct gc_bench {
    const char *op;
    const char *shape; /**< "8192 x 6144 f32" */
    double n_bytes;    /**< That a call has to read and write at least. */
    double n_flops;    /**< Of matrix products; 0: none. */
    size_t set_bytes;  /**< Device memory of one set of inputs and outputs. */
    /** Upload what the set at @p set has to hold; it holds zeros. */
    void (*fill)(gc *run, const struct gc_bench *bench, uint8_t *set);
    /** Queue one call on that set. */
    void (*queue)(gc *run, const struct gc_bench *bench, uint8_t *set);
    const void *context; /**< Of fill and queue. */
} gc_bench;

/**
 * Time a call and print its row.  Calls on sets that take turns are captured in one graph; before
 * each launch of it the L2 cache is swept; the median of 40 launches counts, divided by the calls.
 * Returns the microseconds of a call; NAN where another operation was asked for.
 */
double gc_time(gc *run, const gc_bench *bench);
/** gc_bench.fill of a set whose zeros do. */
void gc_fill_nothing(gc *run, const gc_bench *bench, uint8_t *set);
/** Upload to a set. */
void gc_put(gc *run, void *to, const void *host, size_t n_bytes);
/** Measure what the machine can, run all groups' benchmarks, write the rows as JSON where a file
 * is named. */
void gc_bench_all(gc *run, const char *only, const char *json_path);

/** The checks of one file, which gpucheck.c lists. */
typedef struct gc_group {
    const gc_check *checks; /**< Ending in a NULL op. */
    const gc_wrong *wrongs; /**< Ending in a NULL name. */
    void (*bench)(gc *run); /**< Times what was checked; NULL: nothing. */
} gc_group;
extern const gc_group *const gc_groups[]; /**< Ending in NULL. */
extern const gc_group gc_adjust;
extern const gc_group gc_choice;
extern const gc_group gc_rows;
extern const gc_group gc_sample;
extern const gc_group gc_step;
void gc_bench_rows(gc *run);
extern const gc_group gc_attention;
void gc_bench_attention(gc *run);
extern const gc_group gc_pack;
extern const gc_group gc_dummy;
extern const gc_group gc_matmul;
void gc_bench_matmul(gc *run);

/** Open a device by name: "emulated", or a name of qn_gpu_open(). */
QN_MUST_CHECK qn_status gc_open(gc *run, const char *name, qn_error *err);
/** Close it; false where the emulated device saw something done to it that must not be. */
bool gc_close_device(gc *run);
/** Order in which the emulator runs threads from now on. */
void gc_seed_order(uint64_t seed);
#endif

/* SPDX-License-Identifier: Apache-2.0 */
/** @file lang.h  The language of GPU kernels: one source for sm_90a, gfx950 and the emulator. */
#ifndef QN_KERNELS_GPU_LANG_H
#define QN_KERNELS_GPU_LANG_H
/*
 * Kernels are freestanding gnu2x C for clang. Three targets read them: NVPTX (__NVPTX__), AMDGPU
 * (__AMDGPU__) and the CPU (QN_GPU_EMULATED, tests/gpuemu), which has warps of 32 and checks what
 * the others leave undefined.
 *
 * Operations of a warp (shuffles, votes, matrix products) and barriers are for all its lanes at
 * once: no lane may have left or stand elsewhere. Products and sums are never contracted
 * (-ffp-contract=off), so all targets round alike: write qn_fma() where one rounding is meant.
 * Plain '/' and qn_sqrt() round correctly; functions called fast do not.
 */
#if defined(__NVPTX__) || defined(__AMDGPU__)
#include <gpuintrin.h>
#elif defined(QN_GPU_EMULATED) && defined(__x86_64__)
#include "kernels/gpu/lang_emu.h"
#else
#error "GPU kernels are for NVPTX, AMDGPU or the emulator"
#endif
#include "base/minmax.h"
#include "kernels/gpu/args.h"
#include "kernels/gpu/list.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** A function of the device. */
#define QN_DEV static inline __attribute__((always_inline))

/** Before a loop: unroll it n times; clang unrolls eagerly, so n is stated where it matters. */
#define QN_UNROLL(n)   QN_PRAGMA(unroll n)
#define QN_PRAGMA(...) _Pragma(#__VA_ARGS__)

/** Vectors with .x .y .z .w; in memory on a multiple of their size. */
typedef uint32_t u32x2 __attribute__((ext_vector_type(2)));
typedef uint32_t u32x4 __attribute__((ext_vector_type(4)));
typedef float f32x2 __attribute__((ext_vector_type(2)));
typedef float f32x4 __attribute__((ext_vector_type(4)));

/**
 * Defines kernel NAME of list.h: QN_GPU_KERNEL(NAME) { ... args->x ... }, entry qn_gpu_NAME.  The
 * arguments stay where they were passed, and their pointers are known to be global memory.
 */
#define QN_GPU_KERNEL(NAME)                                                                        \
    QN_DEV void qn_gpu_##NAME##_body(const qn_gpu_##NAME##_args *args);                            \
    QN_GPU_ENTRY(NAME)                                                                             \
    QN_DEV void qn_gpu_##NAME##_body(const qn_gpu_##NAME##_args *args)

/* 1. Places: kernels' entries, indices, shared memory. */

#if defined(QN_GPU_EMULATED)
#define QN_SHARED_MEMORY __attribute__((section(QN_EMU_SECTION), aligned(16)))
enum { QN_LANES = QN_EMU_LANES };
#else
#if defined(__NVPTX__)
enum { QN_LANES = 32 };
#define QN_GPU_ATTRIBUTES(NAME) __gpu_kernel
#else
enum { QN_LANES = 64 };
#define QN_GPU_ATTRIBUTES(NAME)                                                                    \
    __gpu_kernel __attribute__((                                                                   \
        amdgpu_flat_work_group_size(QN_GPU_##NAME##_THREADS, QN_GPU_##NAME##_THREADS)))
#endif
#define QN_GPU_ENTRY(NAME)                                                                         \
    QN_GPU_ATTRIBUTES(NAME) void qn_gpu_##NAME(qn_gpu_##NAME##_args args)                          \
    {                                                                                              \
        qn_gpu_##NAME##_body(&args);                                                               \
    }
#define QN_SHARED_MEMORY __gpu_local __attribute__((loader_uninitialized, aligned(16)))
extern __gpu_local uint8_t qn_dynamic_shared_bytes[] __attribute__((aligned(128)));
#endif

/** In a kernel's body: `type *name`, n elements shared by the block, on a multiple of 16. */
#define QN_SHARED(type, name, n)                                                                   \
    static QN_SHARED_MEMORY type name##_shared[n];                                                 \
    type *const name = (type *)name##_shared

/** Memory that the launch asked for beside the static arrays, on a multiple of 128. */
QN_DEV uint8_t *qn_dynamic_shared(void)
{
#if defined(QN_GPU_EMULATED)
    return qn_emu.dynamic_shared;
#else
    return (uint8_t *)qn_dynamic_shared_bytes;
#endif
}

#if defined(QN_GPU_EMULATED)
#define QN_BLOCK(d)  qn_emu.block[#d[0] - 'x']
#define QN_BLOCKS(d) qn_emu.grid[#d[0] - 'x']
#define QN_THREAD()  qn_emu.thread
#else
#define QN_BLOCK(d)  __gpu_block_id_##d()
#define QN_BLOCKS(d) __gpu_num_blocks_##d()
#define QN_THREAD()  __gpu_thread_id_x()
#endif

QN_DEV uint32_t qn_block_x(void)
{
    return QN_BLOCK(x);
}

QN_DEV uint32_t qn_block_y(void)
{
    return QN_BLOCK(y);
}

QN_DEV uint32_t qn_block_z(void)
{
    return QN_BLOCK(z);
}

QN_DEV uint32_t qn_blocks_x(void)
{
    return QN_BLOCKS(x);
}

QN_DEV uint32_t qn_blocks_y(void)
{
    return QN_BLOCKS(y);
}

QN_DEV uint32_t qn_blocks_z(void)
{
    return QN_BLOCKS(z);
}

/** Thread of the block: blocks have one dimension. */
QN_DEV uint32_t qn_thread(void)
{
    return QN_THREAD();
}

QN_DEV uint32_t qn_lane(void)
{
    return QN_THREAD() % QN_LANES;
}

QN_DEV uint32_t qn_warp(void)
{
    return QN_THREAD() / QN_LANES;
}

/**
 * An argument where memory is read instead in other cases.  clang makes one load by either address
 * of the two, and what is quick to read where it was passed would come from memory.
 */
QN_DEV uint32_t qn_argument(uint32_t value)
{
#if defined(__NVPTX__)
    __asm__("" : "+r"(value));
#endif
    return value;
}

/** The value, not known before this place: what follows from it is not computed ahead, and kept. */
QN_DEV uint32_t qn_here(uint32_t value)
{
#if defined(__NVPTX__)
    __asm__ volatile("" : "+r"(value));
#endif
    return value;
}

/* 2. Exchange: barriers, shuffles, votes, sums. */

QN_DEV uint32_t qn_f32_bits(float value)
{
    return __builtin_bit_cast(uint32_t, value);
}

QN_DEV float qn_f32_from_bits(uint32_t bits)
{
    return __builtin_bit_cast(float, bits);
}

/** All threads of the block arrive, and see what the others wrote before. */
QN_DEV void qn_barrier(void)
{
#if defined(QN_GPU_EMULATED)
    qn_emu_barrier();
#else
    __gpu_sync_threads();
#endif
}

/** All lanes of the warp arrive, and see what the others wrote before. */
QN_DEV void qn_warp_barrier(void)
{
#if defined(QN_GPU_EMULATED)
    qn_emu_warp(QN_EMU_WARP_BARRIER, NULL, 0);
#elif defined(__NVPTX__)
    __nvvm_bar_warp_sync(~0U);
#else
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "wavefront");
    __builtin_amdgcn_wave_barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "wavefront");
#endif
}

/**
 * Waits until all launches before this one have ended, and sees what they wrote; all threads of the
 * block, at one place where the emulator runs it.  Of no effect but in a dependent launch
 * (device/gpu.h): there nothing that these write, nor anything that they read and this one writes,
 * may be touched before.
 */
QN_DEV void qn_await_earlier(void)
{
#if defined(QN_GPU_EMULATED)
    qn_emu_await_earlier();
#elif defined(__NVPTX__)
    __asm__ volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/**
 * A dependent launch behind this one may begin once a thread of each block has been here, or has
 * ended; it still waits for the end of this one.  In a kernel that may itself be dependent only
 * after qn_await_earlier(): what is behind begins when all but this launch has ended.
 */
QN_DEV void qn_release_later(void)
{
#if defined(QN_GPU_EMULATED)
    qn_emu_release_later();
#elif defined(__NVPTX__)
    __asm__ volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/** What this thread wrote before is seen on the whole device before what it writes after. */
QN_DEV void qn_fence(void)
{
#if defined(__NVPTX__)
    __asm__ volatile("fence.acq_rel.gpu;" ::: "memory");
#elif defined(__AMDGPU__)
    __builtin_amdgcn_fence(__ATOMIC_ACQ_REL, "agent");
#else
    __atomic_signal_fence(__ATOMIC_ACQ_REL);
#endif
}

/** The value of lane @p lane (modulo QN_LANES). */
QN_DEV uint32_t qn_shuffle_u32(uint32_t value, uint32_t lane)
{
#if defined(QN_GPU_EMULATED)
    return qn_emu_warp(QN_EMU_SHUFFLE, &value, 1)[lane % QN_LANES].words[0];
#elif defined(__NVPTX__)
    return (uint32_t)__nvvm_shfl_sync_idx_i32(~0U, (int)value, (int)lane, 31);
#else
    return (uint32_t)__builtin_amdgcn_ds_bpermute((int)(lane * 4), (int)value);
#endif
}

/** The value of the lane whose number differs in the bits of @p mask. */
QN_DEV uint32_t qn_shuffle_xor_u32(uint32_t value, uint32_t mask)
{
#if defined(__NVPTX__)
    return (uint32_t)__nvvm_shfl_sync_bfly_i32(~0U, (int)value, (int)mask, 31);
#else
    return qn_shuffle_u32(value, qn_lane() ^ mask);
#endif
}

/** The value of the lane @p delta below; lanes without one keep their own. */
QN_DEV uint32_t qn_shuffle_up_u32(uint32_t value, uint32_t delta)
{
    const uint32_t lane = qn_lane();
    return qn_shuffle_u32(value, lane >= delta ? lane - delta : lane);
}

/** The value of the lane @p delta above; lanes without one keep their own. */
QN_DEV uint32_t qn_shuffle_down_u32(uint32_t value, uint32_t delta)
{
    const uint32_t lane = qn_lane();
    return qn_shuffle_u32(value, lane + delta < QN_LANES ? lane + delta : lane);
}

QN_DEV float qn_shuffle_f32(float value, uint32_t lane)
{
    return qn_f32_from_bits(qn_shuffle_u32(qn_f32_bits(value), lane));
}

QN_DEV float qn_shuffle_xor_f32(float value, uint32_t mask)
{
    return qn_f32_from_bits(qn_shuffle_xor_u32(qn_f32_bits(value), mask));
}

QN_DEV float qn_shuffle_up_f32(float value, uint32_t delta)
{
    return qn_f32_from_bits(qn_shuffle_up_u32(qn_f32_bits(value), delta));
}

QN_DEV float qn_shuffle_down_f32(float value, uint32_t delta)
{
    return qn_f32_from_bits(qn_shuffle_down_u32(qn_f32_bits(value), delta));
}

/** Bit i: lane i says yes. */
QN_DEV uint64_t qn_ballot(bool yes)
{
#if defined(QN_GPU_EMULATED)
    const uint32_t word = yes;
    return qn_emu_warp(QN_EMU_BALLOT, &word, 1)[0].words[0];
#elif defined(__NVPTX__)
    return __nvvm_vote_ballot_sync(~0U, yes);
#else
    return __builtin_amdgcn_ballot_w64(yes);
#endif
}

QN_DEV bool qn_any(bool yes)
{
    return qn_ballot(yes) != 0;
}

QN_DEV bool qn_all(bool yes)
{
    return qn_ballot(!yes) == 0;
}

/** Smaller and larger of two; of a NaN and a number the number. */
QN_DEV float qn_min(float a, float b)
{
    return __builtin_fminf(a, b);
}

QN_DEV float qn_max(float a, float b)
{
    return __builtin_fmaxf(a, b);
}

/*
 * Sums and maxima over the warp, for all its lanes: pairs of lanes that are apart by QN_LANES / 2,
 * then by half of that, and so on to 1. All lanes get the same bits.
 */
QN_DEV float qn_warp_sum(float value)
{
    for (uint32_t mask = QN_LANES / 2; mask > 0; mask /= 2) {
        value += qn_shuffle_xor_f32(value, mask);
    }
    return value;
}

QN_DEV float qn_warp_max(float value)
{
    for (uint32_t mask = QN_LANES / 2; mask > 0; mask /= 2) {
        value = qn_max(value, qn_shuffle_xor_f32(value, mask));
    }
    return value;
}

QN_DEV uint32_t qn_warp_sum_u32(uint32_t value)
{
#if defined(__NVPTX__)
    return (uint32_t)__nvvm_redux_sync_add((int)value, -1);
#endif
    for (uint32_t mask = QN_LANES / 2; mask > 0; mask /= 2) {
        value += qn_shuffle_xor_u32(value, mask);
    }
    return value;
}

QN_DEV uint32_t qn_warp_max_u32(uint32_t value)
{
#if defined(__NVPTX__)
    return (uint32_t)__nvvm_redux_sync_umax(value, -1);
#endif
    for (uint32_t mask = QN_LANES / 2; mask > 0; mask /= 2) {
        value = qn_max_u32(value, qn_shuffle_xor_u32(value, mask));
    }
    return value;
}

/** Bit i: lane i has the same value; only its lowest @p n_bits may be set, on all lanes. */
QN_DEV uint64_t qn_same_lanes(uint32_t value, uint32_t n_bits)
{
#if defined(__NVPTX__)
    (void)n_bits;
    return __nvvm_match_any_sync_i32(~0U, value);
#else
    uint64_t same = qn_ballot(true);
    for (uint32_t bit = 0; bit < n_bits; bit++) {
        const bool is_set = (value >> bit & 1U) != 0;
        const uint64_t set = qn_ballot(is_set);
        same &= is_set ? set : ~set;
    }
    return same;
#endif
}

/**
 * Sum over the block, for all its threads, warp after warp: n_threads a multiple of QN_LANES, part
 * shared [n_threads / QN_LANES], free again after the next barrier.
 */
QN_DEV float qn_block_sum(float value, float *part, uint32_t n_threads)
{
    value = qn_warp_sum(value);
    if (qn_lane() == 0) {
        part[qn_warp()] = value;
    }
    qn_barrier();
    float sum = 0;
    for (uint32_t i = 0; i < n_threads / QN_LANES; i++) {
        sum += part[i];
    }
    return sum;
}

/* 3. Memory: atomics, loads and stores of 16 bytes, copies to shared memory. */

/* Atomics order nothing else (qn_fence() does) and give the value from before. */
#define QN_ATOMIC(op, p, value)                                                                    \
    __scoped_atomic_fetch_##op((p), (value), __ATOMIC_RELAXED, __MEMORY_SCOPE_DEVICE)

QN_DEV uint32_t qn_atomic_add(uint32_t *p, uint32_t value)
{
    return QN_ATOMIC(add, p, value);
}

QN_DEV uint32_t qn_atomic_max(uint32_t *p, uint32_t value)
{
    return QN_ATOMIC(max, p, value);
}

QN_DEV float qn_atomic_add_f32(float *p, float value)
{
    return QN_ATOMIC(add, p, value);
}

/** Adds 1, or gives 0 to what was @p last or more: counts blocks, and is ready for the next launch.
 */
QN_DEV uint32_t qn_atomic_inc(uint32_t *p, uint32_t last)
{
#if defined(__NVPTX__)
    return __nvvm_atom_inc_gen_ui(p, last);
#elif defined(__AMDGPU__)
    return __builtin_amdgcn_atomic_inc32(p, last, __ATOMIC_RELAXED, "agent");
#else
    const uint32_t old = *p;
    *p = old >= last ? 0 : old + 1;
    return old;
#endif
}

/** Stores @p value where @p expected is. */
QN_DEV uint32_t qn_atomic_cas(uint32_t *p, uint32_t expected, uint32_t value)
{
#if defined(__NVPTX__) /* clang's own are of the system's scope */
    uint32_t old;
    __asm__ volatile("atom.relaxed.gpu.cas.b32 %0, [%1], %2, %3;"
                     : "=r"(old)
                     : "l"(p), "r"(expected), "r"(value)
                     : "memory");
    return old;
#else
    __scoped_atomic_compare_exchange_n(p, &expected, value, false, __ATOMIC_RELAXED,
                                       __ATOMIC_RELAXED, __MEMORY_SCOPE_DEVICE);
    return expected;
#endif
}

/** What others may write meanwhile, read anew. */
QN_DEV uint32_t qn_atomic_load(const uint32_t *p)
{
#if defined(__NVPTX__)
    uint32_t value;
    __asm__ volatile("ld.relaxed.gpu.u32 %0, [%1];" : "=r"(value) : "l"(p) : "memory");
    return value;
#else
    return __scoped_atomic_load_n(p, __ATOMIC_RELAXED, __MEMORY_SCOPE_DEVICE);
#endif
}

/** 16 bytes; p on a multiple of 16. */
QN_DEV u32x4 qn_load_16(const void *p)
{
    return *(const u32x4 *)p;
}

/** The same from global memory that no one writes during the launch and that is read once. */
QN_DEV u32x4 qn_stream_16(const void *p)
{
#if defined(__NVPTX__)
    u32x4 v;
    __asm__("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
            : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
            : "l"((const __gpu_global void *)p));
    return v;
#else
    return __builtin_nontemporal_load((const u32x4 *)p);
#endif
}

QN_DEV void qn_store_16(void *p, u32x4 value)
{
    *(u32x4 *)p = value;
}

#if defined(__NVPTX__)
/** Address of shared memory as instructions take it. */
QN_DEV uint32_t qn_shared_address(const void *shared)
{
    return (uint32_t)(uintptr_t)(const __gpu_local void *)shared;
}
#endif

/**
 * Begins a copy of 16 bytes from global to shared memory, both on multiples of 16: n_bytes of them
 * (0 .. 16) from @p from, then zeros.  It is there after qn_copy_wait() and a barrier.
 */
QN_DEV void qn_copy_16(void *shared, const void *from, uint32_t n_bytes)
{
#if defined(__NVPTX__)
    __asm__ volatile(
        "cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(qn_shared_address(shared)),
        "l"((const __gpu_global void *)from), "r"(n_bytes)
        : "memory");
#elif defined(QN_GPU_EMULATED)
    qn_emu_copy(shared, from, n_bytes);
#else
    if (n_bytes == 16) {
        qn_store_16(shared, qn_load_16(from));
        return;
    }
    for (uint32_t i = 0; i < 16; i++) {
        ((uint8_t *)shared)[i] = i < n_bytes ? ((const uint8_t *)from)[i] : 0;
    }
#endif
}

/** Ends a group: the thread's copies since the last group. */
QN_DEV void qn_copy_commit(void)
{
#if defined(__NVPTX__)
    __asm__ volatile("cp.async.commit_group;" ::: "memory");
#elif defined(QN_GPU_EMULATED)
    qn_emu_copy_commit();
#endif
}

/** Waits until at most @p n of the thread's latest groups are under way; n is a constant. */
#if defined(__NVPTX__)
#define qn_copy_wait(n) __asm__ volatile("cp.async.wait_group %0;" ::"n"(n) : "memory")
#elif defined(QN_GPU_EMULATED)
#define qn_copy_wait(n) qn_emu_copy_wait(n)
#else
#define qn_copy_wait(n) ((void)(n))
#endif

/* 4. Numbers. */

QN_DEV float qn_fma(float a, float b, float c)
{
    return __builtin_fmaf(a, b, c);
}

QN_DEV float qn_abs(float x)
{
    return __builtin_fabsf(x);
}

/** Correctly rounded. */
QN_DEV float qn_sqrt(float x)
{
    return __builtin_sqrtf(x);
}

/** 2^x within 2 ULP; results below 2^-126 may be zero. */
QN_DEV float qn_fast_exp2(float x)
{
#if defined(__NVPTX__)
    return __nvvm_ex2_approx_f(x);
#elif defined(__AMDGPU__)
    return __builtin_amdgcn_exp2f(x);
#else
    return __builtin_exp2f(x);
#endif
}

/** Logarithm to base 2: 2^-22 of absolute error near 1, else 2 ULP; x at least 2^-126. */
QN_DEV float qn_fast_log2(float x)
{
#if defined(__NVPTX__)
    return __nvvm_lg2_approx_f(x);
#elif defined(__AMDGPU__)
    return __builtin_amdgcn_logf(x);
#else
    return __builtin_log2f(x);
#endif
}

/** 1 / x within 1 ULP; subnormal numbers may count as zero. */
QN_DEV float qn_fast_rcp(float x)
{
#if defined(__NVPTX__)
    return __nvvm_rcp_approx_ftz_f(x);
#elif defined(__AMDGPU__)
    return __builtin_amdgcn_rcpf(x);
#else
    return 1.0F / x;
#endif
}

/** 1 / sqrt(x) within 2 ULP; x at least 2^-126. */
QN_DEV float qn_fast_rsqrt(float x)
{
#if defined(__NVPTX__)
    return __nvvm_rsqrt_approx_f(x);
#elif defined(__AMDGPU__)
    return __builtin_amdgcn_rsqf(x);
#else
    return 1.0F / __builtin_sqrtf(x);
#endif
}

/** Zeros above the highest one; 32 for 0. */
QN_DEV uint32_t qn_clz(uint32_t x)
{
    return (uint32_t)__builtin_clzg(x, 32);
}

/** Number of ones. */
QN_DEV uint32_t qn_popc(uint64_t x)
{
    return (uint32_t)__builtin_popcountll(x);
}

/** Place of the lowest one, from 1; 0 for 0. */
QN_DEV uint32_t qn_ffs(uint64_t x)
{
    return (uint32_t)__builtin_ffsll((long long)x);
}

/* Formats as src/base/numbers.h defines them. */

QN_DEV float qn_bf16_to_f32(uint16_t value)
{
    return qn_f32_from_bits((uint32_t)value << 16);
}

/** Values of a pair: the low half and the high half. */
QN_DEV float qn_bf16_low(uint32_t pair)
{
    return qn_f32_from_bits(pair << 16);
}

QN_DEV float qn_bf16_high(uint32_t pair)
{
    return qn_f32_from_bits(pair & 0xffff0000U);
}

/** A pair, rounded to nearest even; NaN gives some NaN. */
QN_DEV uint32_t qn_f32_to_bf16x2(float low, float high)
{
#if defined(__NVPTX__)
    uint32_t pair;
    __asm__("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#elif defined(__AMDGPU__)
    typedef __bf16 bf16x2 __attribute__((ext_vector_type(2)));
    return __builtin_bit_cast(uint32_t, __builtin_convertvector((f32x2){low, high}, bf16x2));
#else
    const float values[2] = {low, high};
    uint32_t pair = 0;
    for (uint32_t i = 0; i < 2; i++) {
        const uint32_t bits = qn_f32_bits(values[i]);
        const bool is_nan = (bits & 0x7fffffffU) > 0x7f800000U;
        const uint32_t rounded = bits + 0x7fffU + ((bits >> 16) & 1U);
        pair |= (is_nan ? bits >> 16 | 0x40U : rounded >> 16) << 16 * i;
    }
    return pair;
#endif
}

QN_DEV uint16_t qn_f32_to_bf16(float value)
{
    return (uint16_t)qn_f32_to_bf16x2(value, 0);
}

/** Value of a code; 2^120 moves the exponent's bias, and subnormal codes come out right. */
QN_DEV float qn_e4m3_to_f32(uint32_t code)
{
    const uint32_t bits = (code & 0x80U) << 24 | (code & 0x7fU) << 20;
    const float value = qn_f32_from_bits(bits) * 0x1p120F;
    return (code & 0x7fU) == 0x7fU ? qn_f32_from_bits(bits | 0x7fc00000U) : value;
}

/** Values of four codes, the lowest byte's first. */
QN_DEV f32x4 qn_e4m3x4_to_f32(uint32_t codes)
{
#if defined(__NVPTX__)
    f32x4 v;
    __asm__("{ .reg .b16 a, b; .reg .b32 p, q; .reg .b16 c, d, e, f;\n"
            "mov.b32 {a, b}, %4; cvt.rn.f16x2.e4m3x2 p, a; cvt.rn.f16x2.e4m3x2 q, b;\n"
            "mov.b32 {c, d}, p; mov.b32 {e, f}, q; cvt.f32.f16 %0, c; cvt.f32.f16 %1, d;\n"
            "cvt.f32.f16 %2, e; cvt.f32.f16 %3, f; }"
            : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
            : "r"(codes));
    return v;
#elif defined(__AMDGPU__)
    return (f32x4){
        __builtin_amdgcn_cvt_f32_fp8((int)codes, 0), __builtin_amdgcn_cvt_f32_fp8((int)codes, 1),
        __builtin_amdgcn_cvt_f32_fp8((int)codes, 2), __builtin_amdgcn_cvt_f32_fp8((int)codes, 3)};
#else
    return (f32x4){qn_e4m3_to_f32(codes & 0xffU), qn_e4m3_to_f32(codes >> 8 & 0xffU),
                   qn_e4m3_to_f32(codes >> 16 & 0xffU), qn_e4m3_to_f32(codes >> 24)};
#endif
}

/** Code of a value: to nearest even, 448 at most; NaN gives 0x7f with the sign. */
QN_DEV uint32_t qn_f32_to_e4m3(float value)
{
    const uint32_t bits = qn_f32_bits(value);
    const uint32_t sign = bits >> 24 & 0x80U;
#if defined(__NVPTX__)
    uint16_t pair;
    __asm__("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(0.0F), "f"(value));
    return sign | (pair & 0x7fU);
#else
    const uint32_t magnitude = bits & 0x7fffffffU;
    const float subnormal = qn_f32_from_bits(magnitude) + 0x1p14F; /* leaves a unit of 2^-9 */
    const uint32_t even = (magnitude + 0x7ffffU + (magnitude >> 20 & 1U)) >> 20;
    uint32_t code = magnitude < 121U << 23 ? qn_f32_bits(subnormal) - (141U << 23) : even - 960U;
    code = magnitude >= 0x43e00000U ? 0x7eU : code;
    return sign | (magnitude > 0x7f800000U ? 0x7fU : code);
#endif
}

/** Codes of four values, the first in the lowest byte. */
QN_DEV uint32_t qn_f32_to_e4m3x4(f32x4 v)
{
    return qn_f32_to_e4m3(v.x) | qn_f32_to_e4m3(v.y) << 8 | qn_f32_to_e4m3(v.z) << 16 |
           qn_f32_to_e4m3(v.w) << 24;
}

/** Scale of a block: 2^(code - 127); 255 is NaN. */
QN_DEV float qn_e8m0_to_f32(uint32_t code)
{
    const uint32_t bits = code == 0 ? 0x00400000U : code << 23;
    return qn_f32_from_bits(code == 255 ? 0x7fc00000U : bits);
}

/** Value of the low nibble of @p code; 2^126 moves the exponent's bias. */
QN_DEV float qn_e2m1_to_f32(uint32_t code)
{
    return qn_f32_from_bits((code & 8U) << 28 | (code & 7U) << 22) * 0x1p126F;
}

/* 5. Products of matrices by a warp, with the fragments of the PTX ISA. */

#if !defined(__AMDGPU__)
#define QN_HAS_MMA 1

/**
 * d += a * b for one warp, m16 n8 k16, a row-major, b column-major, products of bf16 in f32.
 *
 * Fragments  lane l, g = l / 4, t = l % 4; a word holds two values, the lower k in its low half:
 *            a[0] row g k 2t, a[1] row g + 8 k 2t, a[2] row g k 2t + 8, a[3] row g + 8 k 2t + 8;
 *            b[0] k 2t column g, b[1] k 2t + 8 column g;
 *            d[0] row g column 2t, d[1] column 2t + 1, d[2] and d[3] the same of row g + 8
 * Source     PTX ISA 8.7, "Matrix fragments for mma.m16n8k16"
 */
QN_DEV void qn_mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
#if defined(__NVPTX__)
    __asm__ volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
                     "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    qn_emu_mma(QN_EMU_MMA_BF16, d, a, b);
#endif
}

/** The same with e4m3, m16 n8 k32: k counts fours of bytes, 4t where above stands 2t, 16 for 8. */
QN_DEV void qn_mma_e4m3(float d[4], const uint32_t a[4], const uint32_t b[2])
{
#if defined(__NVPTX__)
    __asm__ volatile("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%0,%1,%2,%3}, "
                     "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    qn_emu_mma(QN_EMU_MMA_E4M3, d, a, b);
#endif
}

/**
 * Four 8 x 8 matrices of 16-bit values from shared memory: lane 8 i + j gives the address of row j
 * of matrix i (16 bytes, on a multiple of 16); lane l gets of each the values 2 (l % 4) and the
 * next of row l / 4 (trans: of column l / 4) in r[i].
 */
QN_DEV void qn_ldmatrix(uint32_t r[4], const void *row)
{
#if defined(__NVPTX__)
    __asm__ volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(qn_shared_address(row))
                     : "memory");
#else
    qn_emu_ldmatrix(QN_EMU_LDMATRIX, r, row);
#endif
}

QN_DEV void qn_ldmatrix_trans(uint32_t r[4], const void *row)
{
#if defined(__NVPTX__)
    __asm__ volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(qn_shared_address(row))
                     : "memory");
#else
    qn_emu_ldmatrix(QN_EMU_LDMATRIX_TRANS, r, row);
#endif
}
#endif
#endif

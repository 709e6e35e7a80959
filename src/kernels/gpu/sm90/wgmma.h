/* SPDX-License-Identifier: Apache-2.0 */
/** @file wgmma.h  What only sm_90a has: products of a warpgroup, barriers in shared memory. */
#ifndef QN_KERNELS_GPU_SM90_WGMMA_H
#define QN_KERNELS_GPU_SM90_WGMMA_H
#include "kernels/gpu/lang.h"

/* 1. Barriers in shared memory (mbarrier): 8 bytes, named by their shared address. */

/** By one thread; the others see it after qn_mbar_init_fence() by that thread and a barrier. */
QN_DEV void qn_mbar_init(uint32_t bar, uint32_t n_arrivals)
{
    __asm__ volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(n_arrivals)
                     : "memory");
}

QN_DEV void qn_mbar_init_fence(void)
{
    __asm__ volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

QN_DEV void qn_mbar_arrive(uint32_t bar)
{
    __asm__ volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}

/** Arrives, and lets the phase wait for so many bytes of qn_copy_box() or qn_send_f32() more. */
QN_DEV void qn_mbar_expect(uint32_t bar, uint32_t n_bytes)
{
    __asm__ volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar),
                     "r"(n_bytes)
                     : "memory");
}

/** Begins a copy of a box of a tensor map (device/gpu.h) of four dimensions to shared memory, on a
 * multiple of 128, of which the barrier gets all bytes; what is beyond the tensor is zero. */
QN_DEV void qn_copy_box(void *shared, uint64_t map, const uint32_t at[4], uint32_t bar)
{
    __asm__ volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile"
                     ".mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, %5}], [%6];" ::"r"(
                         qn_shared_address(shared)),
                     "l"(map), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]), "r"(bar)
                     : "memory");
}

/** Have a tensor map at hand. */
QN_DEV void qn_prefetch_map(uint64_t map)
{
    __asm__ volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

/** Address of kernel NAME's arguments, where they were passed; in the kernel's own body. */
#define QN_ARGUMENTS(NAME)                                                                         \
    ({                                                                                             \
        uint64_t address_;                                                                         \
        __asm__("{ .reg .b64 at; mov.b64 at, qn_gpu_" #NAME "_param_0;\n"                          \
                "cvta.param.u64 %0, at; }"                                                         \
                : "=l"(address_));                                                                 \
        address_;                                                                                  \
    })

/** Wait for the end of a phase: those with even numbers have parity 0. */
QN_DEV void qn_mbar_wait(uint32_t bar, uint32_t parity)
{
    __asm__ volatile("{ .reg .pred done;\n"
                     "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                     "@!done bra again; }" ::"r"(bar),
                     "r"(parity)
                     : "memory");
}

/** What was written to shared memory, as this thread sees it, is seen by its products, and after
 * the next barrier by those of others. */
QN_DEV void qn_fence_async_shared(void)
{
    __asm__ volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/** Barrier @p id (1 .. 15) of n_threads threads, whole warps, of the block. */
QN_DEV void qn_barrier_of(uint32_t id, uint32_t n_threads)
{
    __asm__ volatile("barrier.sync %0, %1;" ::"r"(id), "r"(n_threads) : "memory");
}

/** Arrive once this thread's copies so far (qn_copy_16()) are there; counts as one arrival. */
QN_DEV void qn_copy_arrive(uint32_t bar)
{
    __asm__ volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(bar) : "memory");
}

/** All threads of a cluster that are still there.  Barriers that they made and let be seen
 * (qn_mbar_init_fence()) are there; no other memory is ordered by it. */
QN_DEV void qn_cluster_barrier(void)
{
    __asm__ volatile("barrier.cluster.arrive.relaxed.aligned;\n"
                     "barrier.cluster.wait.acquire.aligned;" ::
                         : "memory");
}

/** Begins to write to block @p rank of the cluster, to the same places of its shared memory that
 * @p shared and @p bar have in this one; the barrier gets 4 bytes. */
QN_DEV void qn_send_f32(float *shared, uint32_t bar, uint32_t rank, float value)
{
    __asm__ volatile(
        "{ .reg .b32 at, tell; mapa.shared::cluster.u32 at, %0, %2;\n"
        "mapa.shared::cluster.u32 tell, %1, %2;\n"
        "st.async.shared::cluster.mbarrier::complete_tx::bytes.f32 [at], %3, [tell]; }" ::"r"(
            qn_shared_address(shared)),
        "r"(bar), "r"(rank), "f"(value)
        : "memory");
}

/** As qn_mbar_wait(), for what qn_send_f32() of other blocks wrote. */
QN_DEV void qn_mbar_wait_cluster(uint32_t bar, uint32_t parity)
{
    __asm__ volatile(
        "{ .reg .pred done;\n"
        "again: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1;\n"
        "@!done bra again; }" ::"r"(bar),
        "r"(parity)
        : "memory");
}

/*
 * 2. Registers of a warpgroup: all its warps, n a constant multiple of 8.  What some give up others
 *    can take; who asks for more than all threads of the block begin with waits for ever.
 */

#define qn_registers_shrink(n)                                                                     \
    __asm__ volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(n) : "memory")
#define qn_registers_grow(n)                                                                       \
    __asm__ volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(n) : "memory")

/* 3. Products (wgmma). They run on their own: registers of theirs are not touched before a wait. */

/** Before the first product, and after other code wrote registers of one. */
QN_DEV void qn_wgmma_fence(void)
{
    __asm__ volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

/** Ends a group: the products since the last one. */
QN_DEV void qn_wgmma_commit(void)
{
    __asm__ volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/** Waits until at most @p n of the latest groups are under way; n is a constant. */
#define qn_wgmma_wait(n) __asm__ volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(n) : "memory")

/**
 * A matrix [rows][64] of bf16 in shared memory on a multiple of 1024 bytes, rows of 128 bytes whose
 * 16-byte chunk c lies at chunk c ^ (row % 8): its columns 0 .. 15; 2 more for the next 16.  It is
 * the descriptor's lower word: at bit 0 the place in 16 bytes, and at bit 16 the leading
 * dimension's bytes likewise, which count only where the matrix is taken transposed.
 * @param shared  qn_shared_address() of the block's own, which is below 2^18
 */
QN_DEV uint32_t qn_wgmma_matrix(uint32_t shared)
{
    return shared >> 4 | 1U << 16;
}

/** The whole descriptor. Source  PTX ISA 8.7, "Matrix descriptor" (128-byte swizzle, 1024 bytes
 * from 8 rows to the next) */
QN_DEV uint64_t qn_wgmma_descriptor(uint32_t matrix)
{
    return (uint64_t)(1024 >> 4 | 1U << 30) << 32 | matrix;
}

/* Operands of the assembly below: so many registers of d. */
#define QN_D4(d, i)  "+f"((d)[i]), "+f"((d)[(i) + 1]), "+f"((d)[(i) + 2]), "+f"((d)[(i) + 3])
#define QN_D16(d, i) QN_D4(d, i), QN_D4(d, (i) + 4), QN_D4(d, (i) + 8), QN_D4(d, (i) + 12)
#define QN_D64(d, i) QN_D16(d, i), QN_D16(d, (i) + 16), QN_D16(d, (i) + 32), QN_D16(d, (i) + 48)
#define QN_NAMES_4   "%0,%1,%2,%3"
#define QN_NAMES_8   QN_NAMES_4 ",%4,%5,%6,%7"
#define QN_NAMES_16  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define QN_NAMES_32  QN_NAMES_16 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define QN_NAMES_48  QN_NAMES_32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#define QN_NAMES_64  QN_NAMES_48 ",%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define QN_NAMES_72  QN_NAMES_64 ",%64,%65,%66,%67,%68,%69,%70,%71"
#define QN_NAMES_128                                                                               \
    QN_NAMES_72 ",%72,%73,%74,%75,%76,%77,%78,%79"                                                 \
                ",%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"                 \
                ",%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111"     \
                ",%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"

/**
 * d += a * b for a warpgroup, m64 n k16, products of bf16 in f32; n is 8, 16, 32, 64, 96, 128 or
 * 144.
 *
 * Fragments  warp w of the four has rows 16 w .. 16 w + 15 of a and d; a as in qn_mma_bf16(), and
 *            d[4 j ..] is its d for columns 8 j .. 8 j + 7
 * @param b   qn_wgmma_matrix() of [n][k]
 * Source     PTX ISA 8.7, "Register fragments for wgmma.mma_async.m64nNk16"
 */
QN_DEV void qn_wgmma_bf16(float *d, const uint32_t a[4], uint32_t b, const uint32_t n)
{
#define QN_WGMMA(n, names, a0, a1, a2, a3, b0)                                                     \
    "wgmma.mma_async.sync.aligned.m64n" n "k16.f32.bf16.bf16 {" names "}, "                        \
    "{" a0 "," a1 "," a2 "," a3 "}, " b0 ", 1, 1, 1, 0;"
#define QN_A "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(qn_wgmma_descriptor(b))
    if (n == 8) {
        __asm__ volatile(QN_WGMMA("8", QN_NAMES_4, "%4", "%5", "%6", "%7", "%8")
                         : QN_D4(d, 0)
                         : QN_A);
    } else if (n == 16) {
        __asm__ volatile(QN_WGMMA("16", QN_NAMES_8, "%8", "%9", "%10", "%11", "%12")
                         : QN_D4(d, 0), QN_D4(d, 4)
                         : QN_A);
    } else if (n == 32) {
        __asm__ volatile(QN_WGMMA("32", QN_NAMES_16, "%16", "%17", "%18", "%19", "%20")
                         : QN_D16(d, 0)
                         : QN_A);
    } else if (n == 64) {
        __asm__ volatile(QN_WGMMA("64", QN_NAMES_32, "%32", "%33", "%34", "%35", "%36")
                         : QN_D16(d, 0), QN_D16(d, 16)
                         : QN_A);
    } else if (n == 96) {
        __asm__ volatile(QN_WGMMA("96", QN_NAMES_48, "%48", "%49", "%50", "%51", "%52")
                         : QN_D16(d, 0), QN_D16(d, 16), QN_D16(d, 32)
                         : QN_A);
    } else if (n == 128) {
        __asm__ volatile(QN_WGMMA("128", QN_NAMES_64, "%64", "%65", "%66", "%67", "%68")
                         : QN_D64(d, 0)
                         : QN_A);
    } else {
        __asm__ volatile(QN_WGMMA("144", QN_NAMES_72, "%72", "%73", "%74", "%75", "%76")
                         : QN_D64(d, 0), QN_D4(d, 64), QN_D4(d, 68)
                         : QN_A);
    }
#undef QN_A
#undef QN_WGMMA
}

/** The same with n 256 and a in shared memory too: qn_wgmma_matrix() of [64][k]. */
QN_DEV void qn_wgmma_bf16_shared(float *d, uint32_t a, uint32_t b)
{
    __asm__ volatile("wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {" QN_NAMES_128 "}, "
                     "%128, %129, 1, 1, 1, 0, 0;"
                     : QN_D64(d, 0), QN_D64(d, 64)
                     : "l"(qn_wgmma_descriptor(a)), "l"(qn_wgmma_descriptor(b)));
}

/**
 * Four 8 x 8 matrices of 16-bit values to shared memory, transposed: lane l has of each, in r[i],
 * the values 2 (l % 4) and the next of column l / 4; lane 8 i + j gives the address of row j of
 * matrix i (16 bytes, on a multiple of 16).
 */
QN_DEV void qn_stmatrix_trans(void *row, const uint32_t r[4])
{
    __asm__ volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(
                         qn_shared_address(row)),
                     "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
                     : "memory");
}
#endif

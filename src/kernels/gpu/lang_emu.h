/* SPDX-License-Identifier: Apache-2.0 */
/** @file lang_emu.h  What lang.h asks of the emulator: its state, and where lanes meet. */
#ifndef QN_KERNELS_GPU_LANG_EMU_H
#define QN_KERNELS_GPU_LANG_EMU_H
#include <stddef.h>
#include <stdint.h>

enum { QN_EMU_LANES = 32, QN_EMU_WORDS = 10 };

/** Where a thread can wait for others. */
typedef enum qn_emu_site {
    QN_EMU_BARRIER,
    QN_EMU_WARP_BARRIER,
    QN_EMU_SHUFFLE,
    QN_EMU_BALLOT,   /**< Gives words[0] of lane 0: the votes. */
    QN_EMU_MMA_BF16, /**< d [4], a [4], b [2]; gives the sum in place of d. */
    QN_EMU_MMA_E4M3,
    QN_EMU_LDMATRIX, /**< Address of a row; gives r [4]. */
    QN_EMU_LDMATRIX_TRANS,
    QN_EMU_AWAIT,
    QN_EMU_SITES
} qn_emu_site;

/** What one lane gives and gets. */
typedef struct qn_emu_slot {
    uint32_t words[QN_EMU_WORDS];
} qn_emu_slot;

/** The thread that runs. */
typedef struct qn_emu_state {
    uint32_t thread;
    uint32_t block[3];
    uint32_t grid[3];
    uint8_t *dynamic_shared;
} qn_emu_state;

/** A kernel as the emulator calls it; its static shared arrays are shared_first .. shared_end. */
typedef struct qn_emu_kernel {
    const char *name;
    void (*run)(const void *args);
    uint32_t n_threads;
    uint8_t *shared_first; /**< NULL: none. */
    uint8_t *shared_end;
    const struct qn_emu_kernel *next;
} qn_emu_kernel;

extern qn_emu_state qn_emu;

/** Makes a kernel known, before main(); borrowed. */
void qn_emu_add(qn_emu_kernel *kernel);

/* Places are told apart by the call's address: no copy of a call for some of the lanes. */
#if defined(__clang__)
#define QN_EMU_MEETING __attribute__((convergent))
#else
#define QN_EMU_MEETING
#endif

/** Waits for the threads of the block. */
QN_EMU_MEETING void qn_emu_barrier(void);

/** Waits for earlier launches, the whole block at one place where one of them has not run yet. */
QN_EMU_MEETING void qn_emu_await_earlier(void);

/** Lets no launch begin, but sees that a dependent one has waited. */
void qn_emu_release_later(void);

/** Waits for the lanes of the warp: gives n words, gets all lanes' until its next call but one. */
QN_EMU_MEETING const qn_emu_slot *qn_emu_warp(qn_emu_site site, const void *words, size_t n);

/**
 * Copies to shared memory as a GPU may make them: the target is 0xCD from the call on, and what
 * lies at @p from when the thread waits for the copy's group gets there then.
 *
 * @param n_bytes  of 16, the rest is zeros; both addresses are on multiples of 16
 */
void qn_emu_copy(void *to, const void *from, uint32_t n_bytes);
void qn_emu_copy_commit(void);
/** All groups of the thread but the latest @p n end. */
void qn_emu_copy_wait(uint32_t n);

#if defined(QN_GPU_EMULATED)
static inline __attribute__((always_inline)) void
qn_emu_mma(qn_emu_site site, float d[4], const uint32_t a[4], const uint32_t b[2])
{
    qn_emu_slot slot;
    __builtin_memcpy(slot.words, d, 16);
    __builtin_memcpy(slot.words + 4, a, 16);
    __builtin_memcpy(slot.words + 8, b, 8);
    const qn_emu_slot *slots = qn_emu_warp(site, slot.words, QN_EMU_WORDS);
    __builtin_memcpy(d, slots[qn_emu.thread % QN_EMU_LANES].words, 16);
}

static inline __attribute__((always_inline)) void qn_emu_ldmatrix(qn_emu_site site, uint32_t r[4],
                                                                  const void *row)
{
    const qn_emu_slot *slots = qn_emu_warp(site, &row, 2);
    __builtin_memcpy(r, slots[qn_emu.thread % QN_EMU_LANES].words, 16);
}

/* Each file's shared arrays have a section of their own (QN_GPU_FILE: its name). */
#define QN_EMU_TEXT(x)      #x
#define QN_EMU_STRING(x)    QN_EMU_TEXT(x)
#define QN_EMU_PASTE(a, b)  a##b
#define QN_EMU_JOIN(a, b)   QN_EMU_PASTE(a, b)
#define QN_EMU_SECTION      QN_EMU_STRING(QN_EMU_JOIN(qn_shared_, QN_GPU_FILE))
#define QN_EMU_SHARED_FIRST QN_EMU_JOIN(__start_qn_shared_, QN_GPU_FILE)
#define QN_EMU_SHARED_END   QN_EMU_JOIN(__stop_qn_shared_, QN_GPU_FILE)
extern uint8_t QN_EMU_SHARED_FIRST[] __attribute__((weak, visibility("hidden")));
extern uint8_t QN_EMU_SHARED_END[] __attribute__((weak, visibility("hidden")));

#define QN_GPU_ENTRY(NAME)                                                                         \
    static void qn_gpu_##NAME##_run(const void *args)                                              \
    {                                                                                              \
        qn_gpu_##NAME##_body(args);                                                                \
    }                                                                                              \
    __attribute__((constructor)) static void qn_gpu_##NAME##_add(void)                             \
    {                                                                                              \
        static qn_emu_kernel kernel = {                                                            \
            #NAME,                                                                                 \
            qn_gpu_##NAME##_run,                                                                   \
            QN_GPU_##NAME##_THREADS,                                                               \
            QN_EMU_SHARED_FIRST,                                                                   \
            QN_EMU_SHARED_END,                                                                     \
            NULL,                                                                                  \
        };                                                                                         \
        qn_emu_add(&kernel);                                                                       \
    }
#endif
#endif

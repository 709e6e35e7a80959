/* SPDX-License-Identifier: Apache-2.0 */
#include "gpuemu/emu.h"

#include "base/numbers.h"
#include "base/rng.h"
#include "kernels/gpu/lang_emu.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    N_LANES = QN_EMU_LANES,
    N_THREADS_MAX = 1024,
    N_WARPS_MAX = N_THREADS_MAX / N_LANES,
    PAGE = 4096,
    STACK_BYTES = 64 << 10,
    SHARED_BYTES_MAX = 228 << 10,
    POISON = 0xCD,
    N_COPIES_MAX = 128, /**< Of a thread, under way. */
    N_EARLY_MAX = 3,    /**< Blocks of a launch that begin before the launch in front of it. */
    N_BEGUN_MAX = 2,    /**< Launches that have begun and have not ended. */
};

typedef enum status { READY, WAITING, ENDED } status;

/** To shared memory, under way. */
typedef struct copy {
    uint8_t *to;
    const uint8_t *from; /**< NULL: it was read when it began, into bytes. */
    uint32_t n_bytes;
    uint32_t group;
    uint8_t bytes[16];
} copy;

typedef struct fiber {
    void *stack_pointer; /**< While it does not run. */
    uint8_t *stack_end;
    const void *place; /**< Return address of the call that waits. */
    qn_emu_site site;
    status status;
    bool has_awaited;
    uint32_t n_groups; /**< Of copies, that were ended. */
    uint32_t n_copies;
    copy copies[N_COPIES_MAX]; /**< In the order in which they began. */
} fiber;

typedef struct warp {
    qn_emu_slot slots[2][N_LANES]; /**< By turns: lanes read one while the next is written. */
    uint32_t turn;
    bool is_ready;
} warp;

/** A block that runs or has to wait, with memory of its own. */
typedef struct block {
    uint64_t i;
    uint8_t *shared_end;    /**< Of dynamic shared memory. */
    uint8_t *static_shared; /**< What its kernel's static arrays hold while it waits. */
    fiber fibers[N_THREADS_MAX];
    warp warps[N_WARPS_MAX];
} block;

typedef struct launch {
    const qn_emu_kernel *kernel;
    const void *args;
    uint32_t grid[3];
    uint32_t n_threads;
    uint32_t n_warps;
    uint32_t shared_bytes;
    uint32_t n_begun; /**< Blocks that wait for the launch in front of it. */
    bool is_dependent;
    bool is_reversed;
} launch;

static struct {
    const qn_emu_kernel *kernels; /**< All, linked. */
    const char *name;             /**< Of the kernel that runs. */
    const launch *launch;
    block *block;
    bool is_early; /**< The launch in front of this one has not run yet. */
    uint64_t seed;
    uint64_t n_random;
    void *scheduler; /**< Its stack pointer while a fiber runs. */
    uint32_t n_begun;
    launch begun[N_BEGUN_MAX];
    block *early[N_BEGUN_MAX][N_EARLY_MAX]; /**< Made when they are needed, and kept. */
    block *other;                           /**< For all other blocks. */
} emu;

static pthread_mutex_t g_mutex = PTHREAD_MUTEX_INITIALIZER; /**< One launch at a time. */

qn_emu_state qn_emu;

static const char *const site_names[QN_EMU_SITES] = {
    "a barrier",
    "a barrier of the warp",
    "a shuffle",
    "a ballot",
    "a product",
    "a product of e4m3",
    "an ldmatrix x4",
    "an ldmatrix x4 trans",
    "the end of earlier launches",
};

/* Keeps what a call must keep on this stack, its pointer in *from, and goes on with stack `to`. */
void emu_switch(void **from, void *to);
__asm__(".text\n"
        ".globl emu_switch\n"
        ".hidden emu_switch\n"
        ".type emu_switch, @function\n"
        "emu_switch:\n"
        "push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
        "mov %rsp, (%rdi)\n"
        "mov %rsi, %rsp\n"
        "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n"
        "ret\n"
        ".size emu_switch, . - emu_switch\n");

_Noreturn static void fail(const char *what)
{
    fprintf(stderr, "gpuemu: kernel %s: %s\n", emu.name, what);
    exit(EXIT_FAILURE);
}

extern const char __executable_start[];

static void print_thread(uint32_t thread)
{
    const fiber *f = &emu.block->fibers[thread];
    if (f->status == ENDED) {
        fprintf(stderr, "thread %u has ended", thread);
        return;
    }
    fprintf(stderr, "thread %u waits at %s (0x%zx)", thread, site_names[f->site],
            (size_t)((const char *)f->place - __executable_start));
}

_Noreturn static void fail_divergent(uint32_t a, uint32_t b)
{
    fprintf(stderr, "gpuemu: kernel %s, block %u %u %u: ", emu.name, qn_emu.block[0],
            qn_emu.block[1], qn_emu.block[2]);
    print_thread(a);
    fprintf(stderr, ", ");
    print_thread(b);
    fprintf(stderr, "\n");
    exit(EXIT_FAILURE);
}

static void *map(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        fail("no memory");
    }
    return p;
}

/* Random bits; 0 with seed 0. */
static uint32_t random_bits(void)
{
    return emu.seed == 0 ? 0 : (uint32_t)qn_rng_u64(emu.seed, 0, emu.n_random++);
}

/* Has the thread that runs still to wait for earlier launches? */
static bool is_unawaited(void)
{
    return emu.launch->is_dependent && !emu.block->fibers[qn_emu.thread].has_awaited;
}

static void fiber_main(void)
{
    emu.launch->kernel->run(emu.launch->args);
    fiber *f = &emu.block->fibers[qn_emu.thread];
    if (is_unawaited()) {
        fail("a thread of a dependent launch ends without having waited for earlier launches");
    }
    f->status = ENDED;
    emu_switch(&f->stack_pointer, emu.scheduler);
}

/* Makes the fiber begin the kernel when it is switched to. */
static void fiber_begin(fiber *f)
{
    if (f->stack_end == NULL) {
        uint8_t *stack = map(PAGE + STACK_BYTES);
        if (mprotect(stack, PAGE, PROT_NONE) != 0) {
            fail("no guard page");
        }
        f->stack_end = stack + PAGE + STACK_BYTES;
    }
    /* Six registers, the address that emu_switch() returns to, none for fiber_main() to return to.
     */
    void *frame[8] = {0};
    void (*const begin)(void) = fiber_main;
    memcpy(&frame[6], &begin, sizeof begin);
    f->stack_pointer = f->stack_end - sizeof frame;
    memcpy(f->stack_pointer, frame, sizeof frame);
    f->status = READY;
    f->has_awaited = false;
    f->n_groups = 0;
    f->n_copies = 0;
}

static void wait_at(qn_emu_site site, const void *place)
{
    fiber *f = &emu.block->fibers[qn_emu.thread];
    f->site = site;
    f->place = place;
    f->status = WAITING;
    emu_switch(&f->stack_pointer, emu.scheduler);
}

void qn_emu_barrier(void)
{
    wait_at(QN_EMU_BARRIER, __builtin_return_address(0));
}

void qn_emu_await_earlier(void)
{
    if (emu.is_early) {
        wait_at(QN_EMU_AWAIT, __builtin_return_address(0));
    }
    emu.block->fibers[qn_emu.thread].has_awaited = true;
}

void qn_emu_release_later(void)
{
    if (is_unawaited()) {
        fail("a thread of a dependent launch lets later ones begin without having waited for "
             "earlier launches");
    }
}

const qn_emu_slot *qn_emu_warp(qn_emu_site site, const void *words, size_t n)
{
    warp *w = &emu.block->warps[qn_emu.thread / N_LANES];
    qn_emu_slot *slots = w->slots[w->turn];
    if (n > 0) {
        memcpy(slots[qn_emu.thread % N_LANES].words, words, n * sizeof(uint32_t));
    }
    wait_at(site, __builtin_return_address(0));
    return slots;
}

void qn_emu_copy(void *to, const void *from, uint32_t n_bytes)
{
    fiber *f = &emu.block->fibers[qn_emu.thread];
    if ((uintptr_t)to % 16 != 0 || (uintptr_t)from % 16 != 0 || n_bytes > 16) {
        fail("a copy that is not 16 bytes on multiples of 16");
    }
    if (f->n_copies == N_COPIES_MAX) {
        fail("too many copies of a thread under way");
    }
    copy *c = &f->copies[f->n_copies++];
    *c = (copy){.to = to, .from = from, .n_bytes = n_bytes, .group = f->n_groups};
    if (emu.is_early) { /* as a GPU may */
        memcpy(c->bytes, from, n_bytes);
        c->from = NULL;
    }
    memset(to, POISON, 16);
}

void qn_emu_copy_commit(void)
{
    emu.block->fibers[qn_emu.thread].n_groups++;
}

void qn_emu_copy_wait(uint32_t n)
{
    fiber *f = &emu.block->fibers[qn_emu.thread];
    uint32_t n_done = 0;
    while (n_done < f->n_copies && f->copies[n_done].group + n < f->n_groups) {
        const copy *c = &f->copies[n_done++];
        memset(c->to, 0, 16);
        memcpy(c->to, c->from != NULL ? c->from : c->bytes, c->n_bytes);
    }
    f->n_copies -= n_done;
    memmove(f->copies, f->copies + n_done, f->n_copies * sizeof *f->copies);
}

/* d += a * b: each sum begins with d and goes on by ascending k. */
static void multiply(qn_emu_slot *slots, bool is_e4m3)
{
    float d[16][8], a[16][32], b[32][8];
    const uint32_t per_word = is_e4m3 ? 4 : 2;
    for (uint32_t lane = 0; lane < N_LANES; lane++) {
        const uint32_t *words = slots[lane].words;
        const uint32_t g = lane / 4, t = lane % 4;
        for (uint32_t i = 0; i < 4; i++) {
            d[g + i / 2 * 8][2 * t + i % 2] = qn_f32_from_bits(words[i]);
        }
        for (uint32_t i = 0; i < 6; i++) {
            for (uint32_t j = 0; j < per_word; j++) {
                const uint32_t part = words[4 + i] >> 32 / per_word * j;
                const float value =
                    is_e4m3 ? qn_e4m3_to_f32((uint8_t)part) : qn_bf16_to_f32((uint16_t)part);
                const uint32_t k = per_word * t + j + 4 * per_word * (i < 4 ? i / 2 : i - 4);
                *(i < 4 ? &a[g + i % 2 * 8][k] : &b[k][g]) = value;
            }
        }
    }
    for (uint32_t row = 0; row < 16; row++) {
        for (uint32_t k = 0; k < 8 * per_word; k++) {
            for (uint32_t column = 0; column < 8; column++) {
                d[row][column] += a[row][k] * b[k][column];
            }
        }
    }
    for (uint32_t lane = 0; lane < N_LANES; lane++) {
        for (uint32_t i = 0; i < 4; i++) {
            slots[lane].words[i] = qn_f32_bits(d[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2]);
        }
    }
}

static void load_matrices(qn_emu_slot *slots, bool is_trans)
{
    uint16_t values[4][8][8];
    for (uint32_t lane = 0; lane < N_LANES; lane++) {
        const void *row;
        memcpy(&row, slots[lane].words, sizeof row);
        if ((uintptr_t)row % 16 != 0) {
            fail("ldmatrix of a row that is not on a multiple of 16");
        }
        memcpy(values[lane / 8][lane % 8], row, 16);
    }
    for (uint32_t lane = 0; lane < N_LANES; lane++) {
        const uint32_t g = lane / 4, t = lane % 4 * 2;
        for (uint32_t i = 0; i < 4; i++) {
            const uint32_t low = is_trans ? values[i][t][g] : values[i][g][t];
            const uint32_t high = is_trans ? values[i][t + 1][g] : values[i][g][t + 1];
            slots[lane].words[i] = low | high << 16;
        }
    }
}

/* All lanes of a warp have come to an operation: what takes all their words. */
static void operate(qn_emu_slot *slots, qn_emu_site site, uint32_t n_lanes)
{
    const bool is_product = site == QN_EMU_MMA_BF16 || site == QN_EMU_MMA_E4M3;
    const bool is_load = site == QN_EMU_LDMATRIX || site == QN_EMU_LDMATRIX_TRANS;
    if ((is_product || is_load) && n_lanes < N_LANES) {
        fail("an operation on matrices by less than a warp");
    }
    if (is_product) {
        multiply(slots, site == QN_EMU_MMA_E4M3);
    } else if (is_load) {
        load_matrices(slots, site == QN_EMU_LDMATRIX_TRANS);
    } else if (site == QN_EMU_BALLOT) {
        uint32_t votes = 0;
        for (uint32_t lane = 0; lane < n_lanes; lane++) {
            votes |= slots[lane].words[0] << lane;
        }
        slots[0].words[0] = votes;
    }
}

/* Runs the lanes of a warp until each waits or has ended. */
static void run_warp(uint32_t i_warp)
{
    warp *w = &emu.block->warps[i_warp];
    const uint32_t first = i_warp * N_LANES;
    const uint32_t n_left = emu.launch->n_threads - first;
    const uint32_t n_lanes = n_left < N_LANES ? n_left : N_LANES;
    const uint32_t order = random_bits(); /* any odd step goes through all lanes */
    for (uint32_t i = 0; i < N_LANES; i++) {
        const uint32_t lane = (i * (order | 1U) + (order >> 16)) % N_LANES;
        if (lane < n_lanes) {
            qn_emu.thread = first + lane;
            emu_switch(&emu.scheduler, emu.block->fibers[first + lane].stack_pointer);
        }
    }
    const fiber *a = &emu.block->fibers[first];
    for (uint32_t lane = 1; lane < n_lanes; lane++) {
        const fiber *b = a + lane;
        if (a->status != b->status ||
            (a->status == WAITING && (a->site != b->site || a->place != b->place))) {
            fail_divergent(first, first + lane);
        }
    }
    w->is_ready = a->status == WAITING && a->site != QN_EMU_BARRIER && a->site != QN_EMU_AWAIT;
    if (w->is_ready) {
        operate(w->slots[w->turn], a->site, n_lanes);
        w->turn ^= 1U;
        memset(w->slots[w->turn], POISON, sizeof w->slots[w->turn]);
    }
}

/* Lets a warp's lanes go on from where the whole block waits. */
static void make_ready(void)
{
    for (uint32_t i = 0; i < emu.launch->n_warps; i++) {
        emu.block->warps[i].is_ready = emu.block->fibers[i * N_LANES].status != ENDED;
    }
}

/* All warps have ended or wait, at one place: the first thread that does; n_threads: none. */
static uint32_t find_waiting(void)
{
    const uint32_t n = emu.launch->n_threads;
    uint32_t first = n;
    for (uint32_t i = 0; i < n; i += N_LANES) {
        const fiber *f = &emu.block->fibers[i];
        if (f->status == ENDED) {
            continue;
        }
        first = first < n ? first : i;
        if (f->place != emu.block->fibers[first].place) {
            fail_divergent(first, i);
        }
    }
    return first;
}

static size_t static_bytes(void)
{
    const qn_emu_kernel *kernel = emu.launch->kernel;
    return kernel->shared_first != NULL ? (size_t)(kernel->shared_end - kernel->shared_first) : 0;
}

static block *block_open(void)
{
    block *b = map(sizeof *b);
    b->shared_end = (uint8_t *)map(SHARED_BYTES_MAX + PAGE) + SHARED_BYTES_MAX;
    b->static_shared = map(SHARED_BYTES_MAX);
    if (mprotect(b->shared_end, PAGE, PROT_NONE) != 0) {
        fail("no guard page");
    }
    return b;
}

/* Makes a block of the launch the one that runs. */
static void block_enter(block *b)
{
    const uint32_t *grid = emu.launch->grid;
    emu.block = b;
    qn_emu.dynamic_shared = b->shared_end - (emu.launch->shared_bytes + 127) / 128 * 128;
    qn_emu.block[0] = (uint32_t)(b->i % grid[0]);
    qn_emu.block[1] = (uint32_t)(b->i / grid[0] % grid[1]);
    qn_emu.block[2] = (uint32_t)(b->i / grid[0] / grid[1]);
    memcpy(qn_emu.grid, grid, sizeof qn_emu.grid);
}

/* The n-th block of the launch's order, before its first instruction. */
static void block_begin(block *b, uint64_t n)
{
    const launch *l = emu.launch;
    const uint64_t n_blocks = (uint64_t)l->grid[0] * l->grid[1] * l->grid[2];
    b->i = l->is_reversed ? n_blocks - 1 - n : n;
    block_enter(b);
    if (static_bytes() > 0) {
        memset(l->kernel->shared_first, POISON, static_bytes());
    }
    memset(qn_emu.dynamic_shared, POISON, (size_t)(b->shared_end - qn_emu.dynamic_shared));
    for (uint32_t i = 0; i < l->n_threads; i++) {
        fiber_begin(&b->fibers[i]);
    }
    for (uint32_t i = 0; i < l->n_warps; i++) {
        memset(b->warps[i].slots, POISON, sizeof b->warps[i].slots);
    }
    make_ready();
}

/* Runs the block to its end, or to where it waits for earlier launches that have not run yet. */
static void block_run(void)
{
    const uint32_t n_warps = emu.launch->n_warps;
    for (;;) {
        /* In half of the intervals between barriers one warp runs as far ahead as it can. */
        const uint32_t ahead = random_bits() % (2 * n_warps);
        for (;;) {
            const uint32_t start = ahead < n_warps ? ahead : random_bits() % n_warps;
            uint32_t i = 0;
            while (i < n_warps && !emu.block->warps[(start + i) % n_warps].is_ready) {
                i++;
            }
            if (i == n_warps) {
                break;
            }
            run_warp((start + i) % n_warps);
        }
        const uint32_t waiting = find_waiting();
        if (waiting == emu.launch->n_threads || emu.block->fibers[waiting].site == QN_EMU_AWAIT) {
            return;
        }
        make_ready();
    }
}

void qn_emu_add(qn_emu_kernel *kernel)
{
    kernel->next = emu.kernels;
    emu.kernels = kernel;
}

static const qn_emu_kernel *find(const char *name)
{
    const qn_emu_kernel *kernel = emu.kernels;
    while (kernel != NULL && strcmp(kernel->name, name) != 0) {
        kernel = kernel->next;
    }
    return kernel;
}

bool emu_has(const char *kernel)
{
    return find(kernel) != NULL;
}

void emu_seed(uint64_t seed)
{
    emu.seed = seed;
    emu.n_random = 0;
}

/* The launch that runs from now on. */
static void enter(const launch *l, const char *name)
{
    emu.name = name;
    emu.launch = l;
    if (emu.other == NULL) {
        emu.other = block_open();
    }
}

static launch make_launch(const char *kernel, const uint32_t grid[3], uint32_t n_threads,
                          uint32_t shared_bytes, const void *args)
{
    emu.name = kernel;
    launch l = {.kernel = find(kernel),
                .args = args,
                .grid = {grid[0], grid[1], grid[2]},
                .n_threads = n_threads,
                .n_warps = (n_threads + N_LANES - 1) / N_LANES,
                .shared_bytes = shared_bytes};
    if (l.kernel == NULL) {
        fail("not emulated");
    }
    if (n_threads != l.kernel->n_threads || n_threads > N_THREADS_MAX) {
        fail("not the block size of the list");
    }
    if (shared_bytes > SHARED_BYTES_MAX) {
        fail("too much shared memory");
    }
    l.is_reversed = random_bits() % 2 == 1;
    return l;
}

/* All blocks from the n-th on. */
static void run_blocks(uint64_t n)
{
    const uint32_t *grid = emu.launch->grid;
    for (; n < (uint64_t)grid[0] * grid[1] * grid[2]; n++) {
        block_begin(emu.other, n);
        block_run();
    }
}

void emu_launch(const char *kernel, const uint32_t grid[3], uint32_t n_threads,
                uint32_t shared_bytes, const void *args)
{
    pthread_mutex_lock(&g_mutex);
    const launch l = make_launch(kernel, grid, n_threads, shared_bytes, args);
    enter(&l, kernel);
    run_blocks(0);
    pthread_mutex_unlock(&g_mutex);
}

uint32_t emu_begin(const char *kernel, const uint32_t grid[3], uint32_t n_threads,
                   uint32_t shared_bytes, const void *args)
{
    pthread_mutex_lock(&g_mutex);
    const uint32_t handle = emu.n_begun++ % N_BEGUN_MAX;
    launch *l = &emu.begun[handle];
    *l = make_launch(kernel, grid, n_threads, shared_bytes, args);
    l->is_dependent = true;
    enter(l, kernel);
    emu.is_early = true;
    const uint64_t n_blocks = (uint64_t)grid[0] * grid[1] * grid[2];
    for (; l->n_begun < N_EARLY_MAX && l->n_begun < n_blocks; l->n_begun++) {
        block **b = &emu.early[handle][l->n_begun];
        *b = *b != NULL ? *b : block_open();
        block_begin(*b, l->n_begun);
        block_run();
        if (static_bytes() > 0) {
            memcpy((*b)->static_shared, l->kernel->shared_first, static_bytes());
        }
    }
    emu.is_early = false;
    pthread_mutex_unlock(&g_mutex);
    return handle;
}

void emu_finish(uint32_t handle)
{
    pthread_mutex_lock(&g_mutex);
    const launch *l = &emu.begun[handle];
    enter(l, l->kernel->name);
    for (uint32_t i = 0; i < l->n_begun; i++) {
        block_enter(emu.early[handle][i]);
        if (static_bytes() > 0) {
            memcpy(l->kernel->shared_first, emu.block->static_shared, static_bytes());
        }
        make_ready();
        block_run();
    }
    run_blocks(l->n_begun);
    pthread_mutex_unlock(&g_mutex);
}

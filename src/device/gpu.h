/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file gpu.h  One GPU of either vendor: memory, streams, events, graphs, modules, launches.
 *
 * Everything goes through a table of driver functions (gpu_driver.h), which is filled from the
 * vendor's library at run time: nothing of CUDA or ROCm is needed to build or to start.
 *
 * What is queued on a stream (copies, fills, launches, events, graphs) returns nothing.  The first
 * failure is kept by the stream, with what was asked; what is queued after it is skipped, and
 * qn_gpu_wait(), qn_gpu_check() or qn_gpu_capture_end() tells of it, once.  A failure that leaves
 * the device's context unusable (a sticky error, a lost device) is QN_E_DEVICE of every later call;
 * a kernel's own failure shows in a later call, which names the last launch before it.
 *
 * Device memory is addressed by pointers that only kernels may follow.  A GPU and what belongs to
 * it are used by one thread at a time.
 */
#ifndef QN_DEVICE_GPU_H
#define QN_DEVICE_GPU_H
#include "quern/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Opaque: a device that is open, with its context. */
typedef struct qn_gpu qn_gpu;
/** Opaque: work in order. */
typedef struct qn_gpu_stream qn_gpu_stream;
/** Opaque: a moment of a stream. */
typedef struct qn_gpu_event qn_gpu_event;
/** Opaque: device code that is loaded. */
typedef struct qn_gpu_module qn_gpu_module;
/** Opaque: captured work of a stream, ready to be launched again. */
typedef struct qn_gpu_graph qn_gpu_graph;
/** A kernel of a module: the driver's handle.  Valid while the module is loaded. */
typedef void *qn_gpu_function;

/** What is known of a device. */
typedef struct qn_gpu_info {
    char name[64];    /**< As the driver calls it: "NVIDIA H100 80GB HBM3". */
    char arch[16];    /**< "sm_90", "gfx950". */
    char driver[32];  /**< Version of the driver's interface: "13.0". */
    uint32_t n_sms;   /**< Multiprocessors, or compute units. */
    uint32_t n_lanes; /**< Of a warp: 32, or 64. */
    uint32_t clock_khz;
    uint64_t memory_bytes;
    uint64_t l2_bytes;
    uint32_t shared_bytes; /**< That a block may have. */
} qn_gpu_info;

/**
 * Open a device.
 *
 * @param name  "cuda", "cuda:N", "hip", "hip:N": N is 0 where it is not said
 * Returns  QN_OK; QN_E_DEVICE that says why there is none: no library (its names), no device, a
 *          driver that is too old (seen and expected version); QN_E_NOMEM; QN_E_INVAL for another
 *          name.  Whether there are kernels for its architecture is not asked
 */
QN_MUST_CHECK qn_status qn_gpu_open(qn_gpu **out, const char *name, qn_error *err);
/**
 * Release it; sets *gpu to NULL; accepts NULL.  All that belongs to it was closed before, which can
 * be done in any state.
 */
void qn_gpu_close(qn_gpu **gpu);
/** Borrowed until it is closed. */
const qn_gpu_info *qn_gpu_get_info(const qn_gpu *gpu);
/** Memory that is free now; 0 where the driver fails. */
uint64_t qn_gpu_free_bytes(qn_gpu *gpu);

/**
 * Device memory on a multiple of 256 bytes; what it holds is not said.  NULL for 0 bytes.
 *
 * @param what  named in errors: "weights"
 * Returns  QN_OK; QN_E_NOMEM that says how many bytes were asked and are free; QN_E_DEVICE
 */
QN_MUST_CHECK qn_status qn_gpu_alloc(void **out, qn_gpu *gpu, size_t n_bytes, const char *what,
                                     qn_error *err);
/** Accepts NULL. */
void qn_gpu_free(qn_gpu *gpu, void *memory);
/**
 * Memory of the host that the device copies from and to at full speed, on pages of its own; NULL
 * for 0 bytes.  QN_E_NOMEM, QN_E_DEVICE.
 */
QN_MUST_CHECK qn_status qn_gpu_alloc_host(void **out, qn_gpu *gpu, size_t n_bytes, const char *what,
                                          qn_error *err);
/** Accepts NULL. */
void qn_gpu_free_host(qn_gpu *gpu, void *memory);

/** QN_E_NOMEM, QN_E_DEVICE. */
QN_MUST_CHECK qn_status qn_gpu_stream_open(qn_gpu_stream **out, qn_gpu *gpu, qn_error *err);
/** Waits for what is queued, drops a capture; sets *stream to NULL; accepts NULL. */
void qn_gpu_stream_close(qn_gpu_stream **stream);
/** Copies; from or to host memory asynchronous only for memory of qn_gpu_alloc_host(). */
void qn_gpu_upload(qn_gpu_stream *stream, void *to, const void *from, size_t n_bytes);
void qn_gpu_download(qn_gpu_stream *stream, void *to, const void *from, size_t n_bytes);
void qn_gpu_copy(qn_gpu_stream *stream, void *to, const void *from, size_t n_bytes);
/** Every byte. */
void qn_gpu_fill(qn_gpu_stream *stream, void *to, uint8_t byte, size_t n_bytes);
/** The first failure of what was queued so far, without waiting; it is forgotten if not sticky. */
QN_MUST_CHECK qn_status qn_gpu_check(qn_gpu_stream *stream, qn_error *err);
/** Wait until all that is queued is done; then as qn_gpu_check().  QN_E_INVAL while it captures. */
QN_MUST_CHECK qn_status qn_gpu_wait(qn_gpu_stream *stream, qn_error *err);

/** QN_E_NOMEM, QN_E_DEVICE. */
QN_MUST_CHECK qn_status qn_gpu_event_open(qn_gpu_event **out, qn_gpu *gpu, qn_error *err);
/** Sets *event to NULL; accepts NULL. */
void qn_gpu_event_close(qn_gpu_event **event);
/** It is reached when what is queued on @p stream so far is done. */
void qn_gpu_event_record(qn_gpu_event *event, qn_gpu_stream *stream);
/** What is queued on @p stream from now on comes after the event. */
void qn_gpu_event_follow(qn_gpu_stream *stream, qn_gpu_event *event);
/** Wait on the host until it is reached.  QN_E_DEVICE. */
QN_MUST_CHECK qn_status qn_gpu_event_wait(qn_gpu_event *event, qn_error *err);
/** Between two events that were reached; NAN where the driver fails. */
double qn_gpu_event_seconds(qn_gpu_event *first, qn_gpu_event *last);

/**
 * Load device code.
 * @param image  PTX ended by a NUL, a cubin, or an AMDGPU code object; copied by the driver
 * @param name   in errors
 * Returns  QN_OK; QN_E_DEVICE with the compiler's log where the driver compiles it; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_gpu_module_load(qn_gpu_module **out, qn_gpu *gpu, const void *image,
                                           size_t n_bytes, const char *name, qn_error *err);
/** Nothing of it runs any more; sets *module to NULL; accepts NULL. */
void qn_gpu_module_unload(qn_gpu_module **module);
/**
 * A kernel by its symbol.
 * @param shared_bytes_max  shared memory that its blocks may have in all: the kernel's own and what
 *                          launches ask for; 0: what the driver allows anyway
 * Returns  QN_OK; QN_E_NOT_FOUND: the module has none of that name; QN_E_DEVICE: a block has not
 *          that much memory, or the driver fails; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_gpu_module_find(qn_gpu_function *out, qn_gpu_module *module,
                                           const char *symbol, uint32_t shared_bytes_max,
                                           qn_error *err);

/** A launch.  Kernels take one struct by value. */
typedef struct qn_gpu_launch_args {
    qn_gpu_function function;
    const char *name; /**< In errors; borrowed for good. */
    uint32_t grid[3]; /**< Blocks; a 0 launches nothing. */
    uint32_t n_threads;
    uint32_t shared_bytes; /**< Dynamic. */
    uint32_t n_cluster;    /**< Blocks of a cluster; 0: none.  NVIDIA only. */
    bool is_dependent;     /**< May start before the kernel in front of it has ended, and waits for
                                it in its own code (programmatic dependent launch); ignored where
                                there is no such thing. */
    const void *args;      /**< Copied. */
    size_t args_bytes;
} qn_gpu_launch_args;

/** Queue it. */
void qn_gpu_launch(qn_gpu_stream *stream, const qn_gpu_launch_args *launch);

enum { QN_GPU_TENSOR_MAP_BYTES = 128, QN_GPU_TENSOR_DIMS_MAX = 5 };

/** Elements of a tensor map. */
typedef enum qn_gpu_element {
    QN_GPU_ELEMENT_U8,
    QN_GPU_ELEMENT_BF16,
    QN_GPU_ELEMENT_F32,
} qn_gpu_element;

/**
 * A box of a tensor that a kernel copies at once; the first dimension is contiguous.  There a copy
 * begins on a multiple of 16 bytes: on others an H200 ends the kernel with an illegal instruction
 * (driver 580, no swizzle).
 */
typedef struct qn_gpu_tensor_map_args {
    void *memory; /**< On a multiple of 16 bytes. */
    qn_gpu_element element;
    uint32_t n_dims;                               /**< 1 to 5. */
    uint64_t dims[QN_GPU_TENSOR_DIMS_MAX];         /**< Elements. */
    uint64_t stride_bytes[QN_GPU_TENSOR_DIMS_MAX]; /**< Multiples of 16; that of dimension 0 is
                                                        not read. */
    uint32_t box[QN_GPU_TENSOR_DIMS_MAX];          /**< Elements. */
    uint32_t swizzle_bytes;                        /**< 0, 32, 64 or 128. */
} qn_gpu_tensor_map_args;

/**
 * What a kernel's bulk copies of boxes go by: in the kernel's arguments, on a multiple of 64 bytes,
 * or in device memory.  Queues nothing; a failure is the stream's.  NVIDIA only.
 */
void qn_gpu_tensor_map(qn_gpu_stream *stream, uint8_t out[QN_GPU_TENSOR_MAP_BYTES],
                       const qn_gpu_tensor_map_args *args);

/**
 * Capture what is queued on @p stream from now on instead of running it; a stream that follows an
 * event of it takes part until an event of its own is followed.  Until the end this thread
 * allocates nothing on a device and waits for none.
 */
void qn_gpu_capture_begin(qn_gpu_stream *stream);
/**
 * End it; nothing of it has run.
 * Returns  QN_OK; the first failure of what was captured or of making it ready: QN_E_DEVICE,
 *          QN_E_NOMEM; QN_E_INVAL without a beginning
 */
QN_MUST_CHECK qn_status qn_gpu_capture_end(qn_gpu_graph **out, qn_gpu_stream *stream,
                                           qn_error *err);
/** Queue all of it. */
void qn_gpu_graph_launch(qn_gpu_stream *stream, qn_gpu_graph *graph);
/** Kernels, copies and fills in it. */
size_t qn_gpu_graph_count(const qn_gpu_graph *graph);
/** What was launched of it is done; sets *graph to NULL; accepts NULL. */
void qn_gpu_graph_close(qn_gpu_graph **graph);
#endif

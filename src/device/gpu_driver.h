/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file gpu_driver.h  What gpu.c needs of a vendor's driver: a table of functions in our terms.
 *
 * cuda.c and hip.c fill it from a library that is loaded at run time, tests fill it with functions
 * of their own.  A function returns the driver's own number, 0 where it did what was asked; that
 * goes into errors as it is, and classify() says what it means.  Handles are the driver's.
 */
#ifndef QN_DEVICE_GPU_DRIVER_H
#define QN_DEVICE_GPU_DRIVER_H
#include "device/gpu.h"

/** What a driver's number means to us. */
typedef enum qn_gpu_code {
    QN_GPU_DONE,
    QN_GPU_REFUSED,    /**< This call alone: a launch that cannot be, an image that is not one. */
    QN_GPU_NO_MEMORY,  /**< Likewise; less may do. */
    QN_GPU_NOT_FOUND,  /**< Likewise: nothing has that name. */
    QN_GPU_NO_DEVICE,  /**< None that this process may use. */
    QN_GPU_OLD_DRIVER, /**< Or one that does not fit its library. */
    QN_GPU_STICKY,     /**< A kernel failed: no call of this process will do again. */
    QN_GPU_LOST,       /**< The hardware failed: no process may use it before a reset. */
} qn_gpu_code;

enum {
    QN_GPU_TEXT_BYTES = 200, /**< Of a driver's text for a number. */
    QN_GPU_LOG_BYTES = 320,  /**< Of a compiler's log that is kept. */
    QN_GPU_IPC_BYTES = 64,
};

/** Nodes of a graph that are work; others have greater numbers. */
typedef enum qn_gpu_node_kind {
    QN_GPU_NODE_KERNEL = 0,
    QN_GPU_NODE_COPY = 1,
    QN_GPU_NODE_FILL = 2,
} qn_gpu_node_kind;

/** A driver.  What is not said is as in gpu.h; sizes are not 0, pointers not NULL. */
typedef struct qn_gpu_driver {
    const char *name;   /**< What --device says before the colon: "cuda". */
    const char *vendor; /**< "NVIDIA". */
    const char *node;   /**< What its kernel driver makes in /dev: "nvidiactl". */

    /**
     * Load the library and find its functions, once; nothing else may be called before.  Any
     * thread.
     * @param[out] version  of its interface: "13.0"
     * Returns  QN_OK; QN_E_NOT_FOUND: no library (the names that were tried); QN_E_DEVICE: one that
     * is too old (seen and expected version), or one that lacks a function
     */
    qn_status (*load)(char version[32], qn_error *err);
    qn_gpu_code (*classify)(int code);
    /** A number's name and what the driver says of it. */
    void (*describe)(char out[QN_GPU_TEXT_BYTES], int code);
    int (*count)(uint32_t *n_devices);
    /** All but the driver's version. */
    int (*info)(qn_gpu_info *out, uint32_t i_device);

    /** The context that a process shares; NULL where the number of the device is all there is. */
    int (*open_context)(void **context, uint32_t i_device);
    int (*close_context)(void *context, uint32_t i_device);
    /** What follows in this thread is meant for it. */
    int (*use)(void *context, uint32_t i_device);
    int (*free_bytes)(uint64_t *out);
    int (*alloc)(void **out, size_t n_bytes);
    int (*free_memory)(void *memory);
    int (*alloc_host)(void **out, size_t n_bytes);
    int (*free_host)(void *memory);

    int (*stream_open)(void **stream);
    int (*stream_close)(void *stream);
    /** Only tells of a failure: work that is under way is none. */
    int (*stream_query)(void *stream);
    int (*stream_wait)(void *stream);
    int (*upload)(void *stream, void *to, const void *from, size_t n_bytes);
    int (*download)(void *stream, void *to, const void *from, size_t n_bytes);
    int (*copy)(void *stream, void *to, const void *from, size_t n_bytes);
    int (*fill)(void *stream, void *to, uint8_t byte, size_t n_bytes);
    int (*launch)(void *stream, const qn_gpu_launch_args *args);

    int (*event_open)(void **event);
    int (*event_close)(void *event);
    int (*event_record)(void *event, void *stream);
    int (*event_follow)(void *stream, void *event);
    int (*event_wait)(void *event);
    int (*event_seconds)(double *out, void *first, void *last);

    /** @param log  what a compiler said, ended by a NUL; empty where there is none */
    int (*module_load)(void **module, const void *image, char log[QN_GPU_LOG_BYTES]);
    int (*module_unload)(void *module);
    int (*module_find)(void **function, void *module, const char *symbol);
    /** Shared memory that its blocks may have in all. */
    int (*allow_shared)(void *function, uint32_t n_bytes);

    /** Calls of other threads that a capture forbids to its own go on. */
    int (*capture_begin)(void *stream);
    /** *graph is NULL where it fails. */
    int (*capture_end)(void **graph, void *stream);
    int (*graph_close)(void *graph);
    /** The first *n nodes, and how many there are; NULL: only that. */
    int (*graph_nodes)(void **nodes, size_t *n, void *graph);
    int (*graph_node_kind)(int *kind, void *node);
    /** Make it ready: an executable graph, which no longer needs the other. */
    int (*graph_ready)(void **exec, void *graph);
    /** Another grid or other arguments for a kernel; the graph of the node is still there. */
    int (*graph_update)(void *exec, void *node, const qn_gpu_launch_args *args);
    int (*graph_launch)(void *exec, void *stream);
    int (*exec_close)(void *exec);

    /** As qn_gpu_tensor_map(); refused on AMD. */
    int (*tensor_map)(uint8_t out[QN_GPU_TENSOR_MAP_BYTES], const qn_gpu_tensor_map_args *args);

    int (*can_access_peer)(bool *out, uint32_t i_device, uint32_t i_peer);
    /** Kernels and copies of the device in use may follow pointers of the peer. */
    int (*enable_peer)(void *peer_context, uint32_t i_peer);
    /** Memory of this process for another one, which opens it by the handle. */
    int (*ipc_export)(uint8_t handle[QN_GPU_IPC_BYTES], void *memory);
    int (*ipc_open)(void **memory, const uint8_t handle[QN_GPU_IPC_BYTES]);
    int (*ipc_close)(void *memory);
} qn_gpu_driver;

/**
 * X(NAME) of each function: a file that has all of these names fills its table by
 * QN_GPU_DRIVER_FUNCTIONS(QN_GPU_DRIVER_FUNCTION), and does not compile where it lacks one.
 */
#define QN_GPU_DRIVER_FUNCTIONS(X)                                                                 \
    X(load), X(classify), X(describe), X(count), X(info), X(open_context), X(close_context),       \
        X(use), X(free_bytes), X(alloc), X(free_memory), X(alloc_host), X(free_host),              \
        X(stream_open), X(stream_close), X(stream_query), X(stream_wait), X(upload), X(download),  \
        X(copy), X(fill), X(launch), X(event_open), X(event_close), X(event_record),               \
        X(event_follow), X(event_wait), X(event_seconds), X(module_load), X(module_unload),        \
        X(module_find), X(allow_shared), X(capture_begin), X(capture_end), X(graph_close),         \
        X(graph_nodes), X(graph_node_kind), X(graph_ready), X(graph_update), X(graph_launch),      \
        X(exec_close), X(tensor_map), X(can_access_peer), X(enable_peer), X(ipc_export),           \
        X(ipc_open), X(ipc_close)
#define QN_GPU_DRIVER_FUNCTION(NAME) .NAME = NAME

extern const qn_gpu_driver qn_gpu_cuda, qn_gpu_hip;

/** Both. */
enum { QN_GPU_N_DRIVERS = 2 };
extern const qn_gpu_driver *const qn_gpu_drivers[QN_GPU_N_DRIVERS];

/** The driver that NAME or NAME:N names, and N, 0 where it is not said; NULL: none. */
const qn_gpu_driver *qn_gpu_find_driver(uint32_t *i_device, const char *name);

/**
 * What devices there are, without opening one.
 * Returns  QN_OK: one at least; QN_E_NOT_FOUND: no library; else as qn_gpu_open() says it
 */
QN_MUST_CHECK qn_status qn_gpu_count(uint32_t *n_devices, const qn_gpu_driver *driver,
                                     qn_error *err);

/** What one of them is.  QN_E_DEVICE: not one of them, or the driver fails. */
QN_MUST_CHECK qn_status qn_gpu_describe(qn_gpu_info *out, const qn_gpu_driver *driver,
                                        uint32_t i_device, qn_error *err);

/** qn_gpu_open() of a device of @p driver, which outlives it. */
QN_MUST_CHECK qn_status qn_gpu_open_driver(qn_gpu **out, const qn_gpu_driver *driver,
                                           uint32_t i_device, qn_error *err);
#endif

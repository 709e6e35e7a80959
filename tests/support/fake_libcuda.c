/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A libcuda.so.1 for tests of the whole program: devices that have memory and compute nothing.
 * Kernels are found and launched, and change nothing.  The environment says what it is:
 *
 *   FAKE_CUDA_VERSION   of the driver, 13000
 *   FAKE_CUDA_ARCH      90
 *   FAKE_CUDA_DEVICES   1
 *   FAKE_CUDA_MEMORY    bytes, of which all are free that were not asked for: 8 GB
 *   FAKE_CUDA_WITHOUT   no kernel whose name has this in it is found
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define EXPORTED __attribute__((visibility("default")))

enum {
    OUT_OF_MEMORY = 2,
    NO_DEVICE = 100,
    NOT_FOUND = 500,
    HEAD_BYTES = 4096, /* in front of memory: how long it is */
};

typedef unsigned long long address;

typedef struct stream {
    int is_capturing;
    size_t n_nodes;
} stream;

static size_t used_bytes;

static long long setting(const char *name, long long otherwise)
{
    const char *const value = getenv(name); /* NOLINT: nobody sets it meanwhile */
    return value != NULL ? strtoll(value, NULL, 10) : otherwise;
}

static size_t all_bytes(void)
{
    return (size_t)setting("FAKE_CUDA_MEMORY", 8000000000LL);
}

/* Counts what is captured; true where it is to be done now. */
static int is_done(void *of)
{
    stream *const s = of;
    s->n_nodes += s->is_capturing != 0;
    return s->is_capturing == 0;
}

/* Functions that have nothing to do. */
#define NOTHING(name)                                                                              \
    EXPORTED int name(void); /* NOLINT */                                                          \
    int name(void)                                                                                 \
    {                                                                                              \
        return 0;                                                                                  \
    }
NOTHING(cuInit)
NOTHING(cuDevicePrimaryCtxRelease_v2)
NOTHING(cuCtxSetCurrent)
NOTHING(cuStreamQuery)
NOTHING(cuStreamSynchronize)
NOTHING(cuStreamWaitEvent)
NOTHING(cuEventDestroy_v2)
NOTHING(cuEventRecord)
NOTHING(cuEventSynchronize)
NOTHING(cuModuleUnload)
NOTHING(cuFuncSetAttribute)
NOTHING(cuGraphExecKernelNodeSetParams_v2)
NOTHING(cuGraphLaunch)
NOTHING(cuGraphExecDestroy)
NOTHING(cuTensorMapEncodeTiled)
NOTHING(cuCtxEnablePeerAccess)
NOTHING(cuIpcGetMemHandle)
NOTHING(cuIpcOpenMemHandle_v2)
NOTHING(cuIpcCloseMemHandle)

/* A function with a declaration in front of it. */
#define FUNCTION(name, ...)                                                                        \
    EXPORTED int name(__VA_ARGS__); /* NOLINT */                                                   \
    int name(__VA_ARGS__)

FUNCTION(cuDriverGetVersion, int *version)
{
    *version = (int)setting("FAKE_CUDA_VERSION", 13000);
    return 0;
}

static const char *name_of(int code)
{
    return code == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY"
           : code == NO_DEVICE   ? "CUDA_ERROR_NO_DEVICE"
           : code == NOT_FOUND   ? "CUDA_ERROR_NOT_FOUND"
                                 : "CUDA_ERROR";
}

FUNCTION(cuGetErrorName, int code, const char **name)
{
    *name = name_of(code);
    return 0;
}

FUNCTION(cuGetErrorString, int code, const char **text)
{
    (void)code;
    *text = "a fake driver";
    return 0;
}

FUNCTION(cuDeviceGetCount, int *n)
{
    *n = (int)setting("FAKE_CUDA_DEVICES", 1);
    return *n > 0 ? 0 : NO_DEVICE;
}

FUNCTION(cuDeviceGet, int *device, int i_device)
{
    *device = i_device;
    return 0;
}

FUNCTION(cuDeviceGetName, char *out, int n_bytes, int device)
{
    (void)device;
    (void)snprintf(out, (size_t)n_bytes, "Fake GPU");
    return 0;
}

FUNCTION(cuDeviceTotalMem_v2, size_t *n_bytes, int device)
{
    (void)device;
    *n_bytes = all_bytes();
    return 0;
}

/* Those of CUdevice_attribute that are asked for, as an H200 has them. */
FUNCTION(cuDeviceGetAttribute, int *value, int id, int device)
{
    (void)device;
    const int arch = (int)setting("FAKE_CUDA_ARCH", 90);
    *value = id == 10   ? 32
             : id == 13 ? 1980000
             : id == 16 ? 132
             : id == 38 ? 60 << 20
             : id == 75 ? arch / 10
             : id == 76 ? arch % 10
             : id == 97 ? 232448
                        : 0;
    return 0;
}

FUNCTION(cuDevicePrimaryCtxRetain, void **context, int device)
{
    static int it;
    (void)device;
    *context = &it;
    return 0;
}

FUNCTION(cuMemGetInfo_v2, size_t *n_free, size_t *n_all)
{
    *n_all = all_bytes();
    *n_free = *n_all - used_bytes;
    return 0;
}

/* Pages that nobody touches take no memory. */
FUNCTION(cuMemAlloc_v2, address *out, size_t n_bytes)
{
    if (n_bytes > all_bytes() - used_bytes) {
        return OUT_OF_MEMORY;
    }
    size_t *const at = mmap(NULL, n_bytes + HEAD_BYTES, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if ((void *)at == MAP_FAILED) {
        return OUT_OF_MEMORY;
    }
    *at = n_bytes;
    used_bytes += n_bytes;
    *out = (address)(uintptr_t)at + HEAD_BYTES;
    return 0;
}

FUNCTION(cuMemFree_v2, address it)
{
    size_t *const at = (size_t *)(uintptr_t)(it - HEAD_BYTES);
    used_bytes -= *at;
    return munmap(at, *at + HEAD_BYTES);
}

FUNCTION(cuMemHostAlloc, void **out, size_t n_bytes, unsigned flags)
{
    (void)flags;
    *out = calloc(1, n_bytes);
    return *out != NULL ? 0 : OUT_OF_MEMORY;
}

FUNCTION(cuMemFreeHost, void *it)
{
    free(it);
    return 0;
}

FUNCTION(cuStreamCreate, void **out, unsigned flags)
{
    (void)flags;
    *out = calloc(1, sizeof(stream));
    return *out != NULL ? 0 : OUT_OF_MEMORY;
}

FUNCTION(cuStreamDestroy_v2, void *it)
{
    free(it);
    return 0;
}

FUNCTION(cuMemcpyHtoDAsync_v2, address to, const void *from, size_t n_bytes, void *on)
{
    if (is_done(on)) {
        memcpy((void *)(uintptr_t)to, from, n_bytes);
    }
    return 0;
}

FUNCTION(cuMemcpyDtoHAsync_v2, void *to, address from, size_t n_bytes, void *on)
{
    if (is_done(on)) {
        memcpy(to, (const void *)(uintptr_t)from, n_bytes);
    }
    return 0;
}

FUNCTION(cuMemcpyDtoDAsync_v2, address to, address from, size_t n_bytes, void *on)
{
    if (is_done(on)) {
        memmove((void *)(uintptr_t)to, (const void *)(uintptr_t)from, n_bytes);
    }
    return 0;
}

/* New memory has zeros, in pages that need not be touched: what is cleared again stays as it is,
 * since nobody reads what no kernel wrote. */
FUNCTION(cuMemsetD8Async, address to, unsigned char byte, size_t n_bytes, void *on)
{
    if (is_done(on) && byte != 0) {
        memset((void *)(uintptr_t)to, byte, n_bytes);
    }
    return 0;
}

typedef struct launch {
    unsigned grid[3], block[3], shared_bytes;
    void *on;
} launch;

FUNCTION(cuLaunchKernelEx, const launch *it, void *function, void **arguments, void **extra)
{
    (void)function, (void)arguments, (void)extra;
    (void)is_done(it->on);
    return 0;
}

FUNCTION(cuEventCreate, void **out, unsigned flags)
{
    static int it;
    (void)flags;
    *out = &it;
    return 0;
}

FUNCTION(cuEventElapsedTime_v2, float *milliseconds, void *first, void *last)
{
    (void)first, (void)last;
    *milliseconds = 0.01F;
    return 0;
}

FUNCTION(cuModuleLoadDataEx, void **out, const void *image, unsigned n, int *options, void **values)
{
    static int it;
    (void)image, (void)n, (void)options, (void)values;
    *out = &it;
    return 0;
}

FUNCTION(cuModuleGetFunction, void **out, void *module, const char *name)
{
    const char *const without = getenv("FAKE_CUDA_WITHOUT"); /* NOLINT: as above */
    *out = module;
    return without != NULL && strstr(name, without) != NULL ? NOT_FOUND : 0;
}

FUNCTION(cuFuncGetAttribute, int *value, int id, void *function)
{
    (void)id, (void)function;
    *value = 0;
    return 0;
}

FUNCTION(cuStreamBeginCapture_v2, void *it, int mode)
{
    (void)mode;
    *(stream *)it = (stream){.is_capturing = 1};
    return 0;
}

FUNCTION(cuStreamEndCapture, void *it, void **graph)
{
    stream *const copy = malloc(sizeof *copy);
    if (copy == NULL) {
        return OUT_OF_MEMORY;
    }
    *copy = *(stream *)it;
    *(stream *)it = (stream){0};
    *graph = copy;
    return 0;
}

FUNCTION(cuGraphDestroy, void *graph)
{
    free(graph);
    return 0;
}

FUNCTION(cuGraphGetNodes, void *graph, void **nodes, size_t *n)
{
    *n = ((stream *)graph)->n_nodes;
    for (size_t i = 0; nodes != NULL && i < *n; i++) {
        nodes[i] = graph;
    }
    return 0;
}

FUNCTION(cuGraphNodeGetType, void *node, int *type)
{
    (void)node;
    *type = 0; /* a kernel */
    return 0;
}

FUNCTION(cuGraphInstantiateWithFlags, void **out, void *graph, address flags)
{
    static int it;
    (void)graph, (void)flags;
    *out = &it;
    return 0;
}

FUNCTION(cuDeviceCanAccessPeer, int *can, int device, int peer)
{
    (void)device, (void)peer;
    *can = 0;
    return 0;
}

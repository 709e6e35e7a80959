/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NVIDIA's driver.  Names, values and layouts are those of the CUDA Driver API reference, 13.0; the
 * functions are looked up by the names that the library has for them, which for some end in a
 * version.
 */
#include "base/assert.h"
#include "base/str.h"
#include "device/gpu_driver.h"
#include "device/gpu_library.h"

#include <pthread.h>

/* PTX ISA 8.7, in which kernels may come, is of CUDA 12.8 (PTX ISA, release notes). */
enum { VERSION_MIN = 12080 };

typedef unsigned long long cu_address;
typedef struct cu_attribute {
    int id;
    int pad;
    union {
        unsigned cluster[3];
        int is_serial;
        char room[64];
    } value;
} cu_attribute;
typedef struct cu_launch {
    unsigned grid[3], block[3], shared_bytes;
    void *stream;
    cu_attribute *attributes;
    unsigned n_attributes;
} cu_launch;
typedef struct cu_kernel_node {
    void *function;
    unsigned grid[3], block[3], shared_bytes;
    void **parameters, **extra;
    void *kernel, *context;
} cu_kernel_node;
typedef struct cu_ipc {
    char bytes[QN_GPU_IPC_BYTES];
} cu_ipc;
_Static_assert(sizeof(cu_attribute) == 72, "CUlaunchAttribute");
_Static_assert(sizeof(cu_launch) == 56, "CUlaunchConfig");
_Static_assert(sizeof(cu_kernel_node) == 72, "CUDA_KERNEL_NODE_PARAMS_v2");

enum {
    ATTRIBUTE_CLUSTER = 4,
    ATTRIBUTE_SERIAL = 6, /* PROGRAMMATIC_STREAM_SERIALIZATION */
    DEVICE_LANES = 10,
    DEVICE_CLOCK_KHZ = 13,
    DEVICE_SMS = 16,
    DEVICE_L2_BYTES = 38,
    DEVICE_MAJOR = 75,
    DEVICE_MINOR = 76,
    DEVICE_SHARED_BYTES = 97, /* MAX_SHARED_MEMORY_PER_BLOCK_OPTIN */
    FUNCTION_OWN_SHARED_BYTES = 1,
    FUNCTION_SHARED_BYTES = 8,
    STREAM_NON_BLOCKING = 1, /* Of its own: the default stream is nobody's. */
    CAPTURE_THREAD_LOCAL = 1,
    HOST_PORTABLE = 1,
    IPC_LAZY_PEER = 1,
    JIT_ERROR_LOG = 5,
    JIT_ERROR_LOG_BYTES = 6,
    NOT_READY = 600,
    PEER_ALREADY_ENABLED = 704,
};

static struct {
    int (*init)(unsigned);
    int (*version)(int *);
    int (*error_name)(int, const char **);
    int (*error_text)(int, const char **);
    int (*count)(int *);
    int (*device)(int *, int);
    int (*device_name)(char *, int, int);
    int (*device_memory)(size_t *, int);
    int (*device_attribute)(int *, int, int);
    int (*retain)(void **, int);
    int (*release)(int);
    int (*set_current)(void *);
    int (*memory)(size_t *, size_t *);
    int (*alloc)(cu_address *, size_t);
    int (*free)(cu_address);
    int (*alloc_host)(void **, size_t, unsigned);
    int (*free_host)(void *);
    int (*stream_create)(void **, unsigned);
    int (*stream_destroy)(void *);
    int (*stream_query)(void *);
    int (*stream_wait)(void *);
    int (*stream_follow)(void *, void *, unsigned);
    int (*upload)(cu_address, const void *, size_t, void *);
    int (*download)(void *, cu_address, size_t, void *);
    int (*copy)(cu_address, cu_address, size_t, void *);
    int (*fill)(cu_address, unsigned char, size_t, void *);
    int (*launch)(const cu_launch *, void *, void **, void **);
    int (*event_create)(void **, unsigned);
    int (*event_destroy)(void *);
    int (*event_record)(void *, void *);
    int (*event_wait)(void *);
    int (*event_elapsed)(float *, void *, void *);
    int (*module_load)(void **, const void *, unsigned, int *, void **);
    int (*module_unload)(void *);
    int (*module_function)(void **, void *, const char *);
    int (*function_get)(int *, int, void *);
    int (*function_set)(void *, int, int);
    int (*capture_begin)(void *, int);
    int (*capture_end)(void *, void **);
    int (*graph_destroy)(void *);
    int (*graph_nodes)(void *, void **, size_t *);
    int (*node_type)(void *, int *);
    int (*graph_instantiate)(void **, void *, unsigned long long);
    int (*graph_set_kernel)(void *, void *, const cu_kernel_node *);
    int (*graph_launch)(void *, void *);
    int (*exec_destroy)(void *);
    int (*tensor_map)(void *, int, unsigned, void *, const uint64_t *, const uint64_t *,
                      const uint32_t *, const uint32_t *, int, int, int, int);
    int (*can_access_peer)(int *, int, int);
    int (*enable_peer)(void *, unsigned);
    int (*ipc_export)(cu_ipc *, cu_address);
    int (*ipc_open)(cu_address *, cu_ipc, unsigned);
    int (*ipc_close)(cu_address);
} cu;

static const qn_gpu_symbol symbols[] = {
    {"cuInit", NULL, &cu.init},
    {"cuGetErrorName", NULL, &cu.error_name},
    {"cuGetErrorString", NULL, &cu.error_text},
    {"cuDeviceGetCount", NULL, &cu.count},
    {"cuDeviceGet", NULL, &cu.device},
    {"cuDeviceGetName", NULL, &cu.device_name},
    {"cuDeviceTotalMem_v2", NULL, &cu.device_memory},
    {"cuDeviceGetAttribute", NULL, &cu.device_attribute},
    {"cuDevicePrimaryCtxRetain", NULL, &cu.retain},
    {"cuDevicePrimaryCtxRelease_v2", NULL, &cu.release},
    {"cuCtxSetCurrent", NULL, &cu.set_current},
    {"cuMemGetInfo_v2", NULL, &cu.memory},
    {"cuMemAlloc_v2", NULL, &cu.alloc},
    {"cuMemFree_v2", NULL, &cu.free},
    {"cuMemHostAlloc", NULL, &cu.alloc_host},
    {"cuMemFreeHost", NULL, &cu.free_host},
    {"cuStreamCreate", NULL, &cu.stream_create},
    {"cuStreamDestroy_v2", NULL, &cu.stream_destroy},
    {"cuStreamQuery", NULL, &cu.stream_query},
    {"cuStreamSynchronize", NULL, &cu.stream_wait},
    {"cuStreamWaitEvent", NULL, &cu.stream_follow},
    {"cuMemcpyHtoDAsync_v2", NULL, &cu.upload},
    {"cuMemcpyDtoHAsync_v2", NULL, &cu.download},
    {"cuMemcpyDtoDAsync_v2", NULL, &cu.copy},
    {"cuMemsetD8Async", NULL, &cu.fill},
    {"cuLaunchKernelEx", NULL, &cu.launch},
    {"cuEventCreate", NULL, &cu.event_create},
    {"cuEventDestroy_v2", NULL, &cu.event_destroy},
    {"cuEventRecord", NULL, &cu.event_record},
    {"cuEventSynchronize", NULL, &cu.event_wait},
    {"cuEventElapsedTime_v2", "cuEventElapsedTime", &cu.event_elapsed},
    {"cuModuleLoadDataEx", NULL, &cu.module_load},
    {"cuModuleUnload", NULL, &cu.module_unload},
    {"cuModuleGetFunction", NULL, &cu.module_function},
    {"cuFuncGetAttribute", NULL, &cu.function_get},
    {"cuFuncSetAttribute", NULL, &cu.function_set},
    {"cuStreamBeginCapture_v2", NULL, &cu.capture_begin},
    {"cuStreamEndCapture", NULL, &cu.capture_end},
    {"cuGraphDestroy", NULL, &cu.graph_destroy},
    {"cuGraphGetNodes", NULL, &cu.graph_nodes},
    {"cuGraphNodeGetType", NULL, &cu.node_type},
    {"cuGraphInstantiateWithFlags", NULL, &cu.graph_instantiate},
    {"cuGraphExecKernelNodeSetParams_v2", NULL, &cu.graph_set_kernel},
    {"cuGraphLaunch", NULL, &cu.graph_launch},
    {"cuGraphExecDestroy", NULL, &cu.exec_destroy},
    {"cuTensorMapEncodeTiled", NULL, &cu.tensor_map},
    {"cuDeviceCanAccessPeer", NULL, &cu.can_access_peer},
    {"cuCtxEnablePeerAccess", NULL, &cu.enable_peer},
    {"cuIpcGetMemHandle", NULL, &cu.ipc_export},
    {"cuIpcOpenMemHandle_v2", NULL, &cu.ipc_open},
    {"cuIpcCloseMemHandle", NULL, &cu.ipc_close},
};

static cu_address address_of(const void *memory)
{
    return (cu_address)(uintptr_t)memory;
}

static void *pointer_of(cu_address address)
{
    return (void *)(uintptr_t)address; /* only kernels follow it */
}

/* The version comes first: a library that is too old also lacks functions. */
static qn_status find_all(int *version, qn_error *err)
{
    static const char *const names[] = {"libcuda.so.1"};
    static const qn_gpu_symbol first = {"cuDriverGetVersion", NULL, &cu.version};
    void *library = NULL;
    qn_status status = qn_gpu_library_open(&library, names, 1, err);
    if (status == QN_OK) {
        status = qn_gpu_library_find(library, &first, 1, err);
    }
    if (status != QN_OK) {
        return status;
    }
    const int code = cu.version(version);
    if (code != 0) {
        return qn_fail(err, QN_E_DEVICE, code, __func__,
                       "cuDriverGetVersion: error %d, a version expected", code);
    }
    if (*version < VERSION_MIN) {
        return qn_fail(err, QN_E_DEVICE, 0, __func__,
                       "the driver is for CUDA %d.%d, one for %d.%d or later expected",
                       *version / 1000, *version % 1000 / 10, VERSION_MIN / 1000,
                       VERSION_MIN % 1000 / 10);
    }
    return qn_gpu_library_find(library, symbols, sizeof symbols / sizeof symbols[0], err);
}

static qn_status load(char text[32], qn_error *err)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static int version;
    static bool is_loaded;
    (void)pthread_mutex_lock(&lock);
    const qn_status status = is_loaded ? QN_OK : find_all(&version, err);
    is_loaded = status == QN_OK;
    (void)snprintf(text, 32, "%d.%d", version / 1000, version % 1000 / 10);
    (void)pthread_mutex_unlock(&lock);
    return status;
}

static qn_gpu_code classify(int code)
{
    switch (code) {
    case 0: return QN_GPU_DONE;
    case 2: return QN_GPU_NO_MEMORY;
    case 500: return QN_GPU_NOT_FOUND;
    case 34:  /* STUB_LIBRARY */
    case 100: /* NO_DEVICE */
    case 101: /* INVALID_DEVICE */
    case 46: /* DEVICE_UNAVAILABLE: another process has it for its own */ return QN_GPU_NO_DEVICE;
    case 36:  /* CALL_REQUIRES_NEWER_DRIVER */
    case 222: /* UNSUPPORTED_PTX_VERSION */
    case 803: /* SYSTEM_DRIVER_MISMATCH */
    case 804: /* COMPAT_NOT_SUPPORTED_ON_DEVICE */ return QN_GPU_OLD_DRIVER;
    case 226: /* CONTAINED */
    case 700: /* ILLEGAL_ADDRESS */
    case 702: /* LAUNCH_TIMEOUT */
    case 709: /* CONTEXT_IS_DESTROYED */
    case 710: /* ASSERT */
    case 714: /* HARDWARE_STACK_ERROR */
    case 715: /* ILLEGAL_INSTRUCTION */
    case 716: /* MISALIGNED_ADDRESS */
    case 717: /* INVALID_ADDRESS_SPACE */
    case 718: /* INVALID_PC */
    case 719: /* LAUNCH_FAILED */
    case 721: /* TENSOR_MEMORY_LEAK */
    case 810: /* MPS_CLIENT_TERMINATED */
    case 911: /* EXTERNAL_DEVICE */ return QN_GPU_STICKY;
    case 214: /* ECC_UNCORRECTABLE */
    case 220: /* NVLINK_UNCORRECTABLE */
    case 999: /* UNKNOWN: what a card gives that fell off its bus */ return QN_GPU_LOST;
    default: return QN_GPU_REFUSED;
    }
}

static void describe(char out[QN_GPU_TEXT_BYTES], int code)
{
    const char *name = NULL;
    const char *text = NULL;
    if (cu.error_name(code, &name) != 0 || cu.error_text(code, &text) != 0 || name == NULL ||
        text == NULL) {
        (void)snprintf(out, QN_GPU_TEXT_BYTES, "CUDA error %d", code);
        return;
    }
    (void)snprintf(out, QN_GPU_TEXT_BYTES, "%s (%s)", name, text);
}

static int count(uint32_t *n_devices)
{
    int n = 0;
    int code = cu.init(0);
    code = code == 0 ? cu.count(&n) : code;
    *n_devices = code == 0 && n > 0 ? (uint32_t)n : 0;
    return code;
}

static int info(qn_gpu_info *out, uint32_t i_device)
{
    int device = 0;
    size_t n_bytes = 0;
    int major = 0, minor = 0, l2_bytes = 0, values[4] = {0};
    const struct {
        int id;
        int *value;
    } wanted[] = {
        {DEVICE_MAJOR, &major},
        {DEVICE_MINOR, &minor},
        {DEVICE_L2_BYTES, &l2_bytes},
        {DEVICE_SMS, &values[0]},
        {DEVICE_LANES, &values[1]},
        {DEVICE_CLOCK_KHZ, &values[2]},
        {DEVICE_SHARED_BYTES, &values[3]},
    };
    int code = cu.device(&device, (int)i_device);
    code = code == 0 ? cu.device_name(out->name, sizeof out->name, device) : code;
    code = code == 0 ? cu.device_memory(&n_bytes, device) : code;
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0] && code == 0; i++) {
        code = cu.device_attribute(wanted[i].value, wanted[i].id, device);
    }
    (void)snprintf(out->arch, sizeof out->arch, "sm_%d%d", major, minor);
    out->n_sms = (uint32_t)values[0];
    out->n_lanes = (uint32_t)values[1];
    out->clock_khz = (uint32_t)values[2];
    out->shared_bytes = (uint32_t)values[3];
    out->l2_bytes = (uint64_t)l2_bytes;
    out->memory_bytes = n_bytes;
    return code;
}

/* The primary context: memory and handles are those of any other library in the process. */
static int open_context(void **context, uint32_t i_device)
{
    int device = 0;
    const int code = cu.device(&device, (int)i_device);
    return code == 0 ? cu.retain(context, device) : code;
}

static int close_context(void *context, uint32_t i_device)
{
    (void)context;
    int device = 0;
    const int code = cu.device(&device, (int)i_device);
    return code == 0 ? cu.release(device) : code;
}

static int use(void *context, uint32_t i_device)
{
    (void)i_device;
    return cu.set_current(context);
}

static int free_bytes(uint64_t *out)
{
    size_t n_free = 0, n_total = 0;
    const int code = cu.memory(&n_free, &n_total);
    *out = code == 0 ? n_free : 0;
    return code;
}

static int alloc(void **out, size_t n_bytes)
{
    cu_address address = 0;
    const int code = cu.alloc(&address, n_bytes);
    *out = pointer_of(address);
    return code;
}

static int free_memory(void *at)
{
    return cu.free(address_of(at));
}

static int alloc_host(void **out, size_t n_bytes)
{
    return cu.alloc_host(out, n_bytes, HOST_PORTABLE);
}

static int free_host(void *at)
{
    return cu.free_host(at);
}

static int stream_open(void **stream)
{
    return cu.stream_create(stream, STREAM_NON_BLOCKING);
}

static int stream_close(void *stream)
{
    return cu.stream_destroy(stream);
}

static int stream_query(void *stream)
{
    const int code = cu.stream_query(stream);
    return code == NOT_READY ? 0 : code;
}

static int stream_wait(void *stream)
{
    return cu.stream_wait(stream);
}

static int upload(void *stream, void *to, const void *from, size_t n_bytes)
{
    return cu.upload(address_of(to), from, n_bytes, stream);
}

static int download(void *stream, void *to, const void *from, size_t n_bytes)
{
    return cu.download(to, address_of(from), n_bytes, stream);
}

static int copy(void *stream, void *to, const void *from, size_t n_bytes)
{
    return cu.copy(address_of(to), address_of(from), n_bytes, stream);
}

static int fill(void *stream, void *to, uint8_t byte, size_t n_bytes)
{
    return cu.fill(address_of(to), byte, n_bytes, stream);
}

/* The driver wants pointers to the parameters, of which there is one, and copies it. */
static void *parameter_of(const qn_gpu_launch_args *args)
{
    void *parameter;
    memcpy(&parameter, &args->args, sizeof parameter);
    return parameter;
}

static int launch(void *stream, const qn_gpu_launch_args *args)
{
    cu_attribute attributes[2] = {0};
    unsigned n = 0;
    if (args->n_cluster > 0) {
        attributes[n].id = ATTRIBUTE_CLUSTER;
        attributes[n].value.cluster[0] = args->n_cluster;
        attributes[n].value.cluster[1] = 1;
        attributes[n++].value.cluster[2] = 1;
    }
    if (args->is_dependent) {
        attributes[n].id = ATTRIBUTE_SERIAL;
        attributes[n++].value.is_serial = 1;
    }
    const cu_launch config = {
        .grid = {args->grid[0], args->grid[1], args->grid[2]},
        .block = {args->n_threads, 1, 1},
        .shared_bytes = args->shared_bytes,
        .stream = stream,
        .attributes = attributes,
        .n_attributes = n,
    };
    void *parameters[] = {parameter_of(args)};
    return cu.launch(&config, args->function, parameters, NULL);
}

static int event_open(void **event)
{
    return cu.event_create(event, 0);
}

static int event_close(void *event)
{
    return cu.event_destroy(event);
}

static int event_record(void *event, void *stream)
{
    return cu.event_record(event, stream);
}

static int event_follow(void *stream, void *event)
{
    return cu.stream_follow(stream, event, 0);
}

static int event_wait(void *event)
{
    return cu.event_wait(event);
}

static int event_seconds(double *out, void *first, void *last)
{
    float milliseconds = 0.0F;
    const int code = cu.event_elapsed(&milliseconds, first, last);
    *out = (double)milliseconds * 1e-3;
    return code;
}

static int module_load(void **module, const void *image, char log[QN_GPU_LOG_BYTES])
{
    int options[] = {JIT_ERROR_LOG, JIT_ERROR_LOG_BYTES};
    void *values[] = {log, (void *)(uintptr_t)QN_GPU_LOG_BYTES}; /* a number in a pointer's room */
    log[0] = '\0';
    const int code = cu.module_load(module, image, 2, options, values);
    log[QN_GPU_LOG_BYTES - 1] = '\0';
    return code;
}

static int module_unload(void *module)
{
    return cu.module_unload(module);
}

static int module_find(void **function, void *module, const char *symbol)
{
    return cu.module_function(function, module, symbol);
}

static int allow_shared(void *function, uint32_t n_bytes)
{
    int n_own = 0;
    const int code = cu.function_get(&n_own, FUNCTION_OWN_SHARED_BYTES, function);
    return code != 0 ? code
                     : cu.function_set(function, FUNCTION_SHARED_BYTES, (int)n_bytes - n_own);
}

static int capture_begin(void *stream)
{
    return cu.capture_begin(stream, CAPTURE_THREAD_LOCAL);
}

static int capture_end(void **graph, void *stream)
{
    *graph = NULL;
    return cu.capture_end(stream, graph);
}

static int graph_close(void *graph)
{
    return cu.graph_destroy(graph);
}

static int graph_nodes(void **nodes, size_t *n, void *graph)
{
    return cu.graph_nodes(graph, nodes, n);
}

/* CUgraphNodeType: kernel, copy and fill come first. */
static int graph_node_kind(int *kind, void *node)
{
    return cu.node_type(node, kind);
}

static int graph_ready(void **exec, void *graph)
{
    return cu.graph_instantiate(exec, graph, 0);
}

static int graph_update(void *exec, void *node, const qn_gpu_launch_args *args)
{
    void *parameters[] = {parameter_of(args)};
    const cu_kernel_node kernel = {
        .function = args->function,
        .grid = {args->grid[0], args->grid[1], args->grid[2]},
        .block = {args->n_threads, 1, 1},
        .shared_bytes = args->shared_bytes,
        .parameters = parameters,
    };
    return cu.graph_set_kernel(exec, node, &kernel);
}

static int graph_launch(void *exec, void *stream)
{
    return cu.graph_launch(exec, stream);
}

static int exec_close(void *exec)
{
    return cu.exec_destroy(exec);
}

static int tensor_map(uint8_t out[QN_GPU_TENSOR_MAP_BYTES], const qn_gpu_tensor_map_args *args)
{
    enum { PROMOTE_256_BYTES = 3 };
    static const int types[] = {
        [QN_GPU_ELEMENT_U8] = 0, [QN_GPU_ELEMENT_BF16] = 9, [QN_GPU_ELEMENT_F32] = 7};
    _Alignas(QN_GPU_TENSOR_MAP_BYTES) uint8_t map[QN_GPU_TENSOR_MAP_BYTES] = {0};
    const uint32_t steps[QN_GPU_TENSOR_DIMS_MAX] = {1, 1, 1, 1, 1};
    int swizzle = 0; /* 0: none; 1, 2, 3: 32, 64, 128 bytes */
    while (swizzle < 3 && args->swizzle_bytes > 16U << swizzle) {
        swizzle++;
    }
    const int code =
        cu.tensor_map(map, types[args->element], args->n_dims, args->memory, args->dims,
                      args->stride_bytes + 1, args->box, steps, 0, swizzle, PROMOTE_256_BYTES, 0);
    memcpy(out, map, sizeof map);
    return code;
}

static int can_access_peer(bool *out, uint32_t i_device, uint32_t i_peer)
{
    int device = 0, peer = 0, can = 0;
    int code = cu.device(&device, (int)i_device);
    code = code == 0 ? cu.device(&peer, (int)i_peer) : code;
    code = code == 0 ? cu.can_access_peer(&can, device, peer) : code;
    *out = can != 0;
    return code;
}

static int enable_peer(void *peer_context, uint32_t i_peer)
{
    (void)i_peer;
    const int code = cu.enable_peer(peer_context, 0);
    return code == PEER_ALREADY_ENABLED ? 0 : code;
}

static int ipc_export(uint8_t handle[QN_GPU_IPC_BYTES], void *at)
{
    cu_ipc ipc = {0};
    const int code = cu.ipc_export(&ipc, address_of(at));
    memcpy(handle, &ipc, sizeof ipc);
    return code;
}

static int ipc_open(void **out, const uint8_t handle[QN_GPU_IPC_BYTES])
{
    cu_ipc ipc;
    memcpy(&ipc, handle, sizeof ipc);
    cu_address address = 0;
    const int code = cu.ipc_open(&address, ipc, IPC_LAZY_PEER);
    *out = pointer_of(address);
    return code;
}

static int ipc_close(void *at)
{
    return cu.ipc_close(address_of(at));
}

const qn_gpu_driver qn_gpu_cuda = {
    .name = "cuda",
    .vendor = "NVIDIA",
    .node = "nvidiactl",
    QN_GPU_DRIVER_FUNCTIONS(QN_GPU_DRIVER_FUNCTION),
};

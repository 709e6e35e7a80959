/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AMD's driver: the HIP runtime of ROCm, by its functions that are like those of CUDA's driver.
 * Names, values and layouts are those of the HIP runtime API reference, 7.1.  Not yet run on a
 * device.
 */
#include "base/assert.h"
#include "base/str.h"
#include "device/gpu_driver.h"
#include "device/gpu_library.h"

#include <pthread.h>

/* 6.0 is the first whose hipDeviceProp_t is the one below. */
enum { VERSION_MIN = 60000000 };

enum {
    DEVICE_CLOCK_KHZ = 5,
    DEVICE_L2_BYTES = 19,
    DEVICE_SMS = 63,
    DEVICE_SHARED_BYTES = 74, /* MaxSharedMemoryPerBlock */
    DEVICE_LANES = 87,
    STREAM_NON_BLOCKING = 1, /* Of its own: the default stream is nobody's. */
    CAPTURE_THREAD_LOCAL = 1,
    HOST_PORTABLE = 1,
    IPC_LAZY_PEER = 1,
    NOT_READY = 600,
    PEER_ALREADY_ENABLED = 704,
    NOT_SUPPORTED = 801,
};

/* hipDeviceProp_tR0600, of which the architecture is wanted: "gfx950:sramecc+:xnack-". */
typedef struct hip_properties {
    char before[1160];
    char arch[256];
    char behind[1472 - 1160 - 256];
} hip_properties;
typedef struct hip_kernel_node {
    uint32_t block[3];
    void **extra;
    void *function;
    uint32_t grid[3];
    void **parameters;
    unsigned shared_bytes;
} hip_kernel_node;
typedef struct hip_ipc {
    char bytes[QN_GPU_IPC_BYTES];
} hip_ipc;
_Static_assert(sizeof(hip_properties) == 1472, "hipDeviceProp_tR0600");
_Static_assert(sizeof(hip_kernel_node) == 64, "hipKernelNodeParams");

static struct {
    int (*init)(unsigned);
    int (*version)(int *);
    const char *(*error_name)(int);
    const char *(*error_text)(int);
    int (*count)(int *);
    int (*properties)(hip_properties *, int);
    int (*device_name)(char *, int, int);
    int (*device_memory)(size_t *, int);
    int (*device_attribute)(int *, int, int);
    int (*set_device)(int);
    int (*memory)(size_t *, size_t *);
    int (*alloc)(void **, size_t);
    int (*free)(void *);
    int (*alloc_host)(void **, size_t, unsigned);
    int (*free_host)(void *);
    int (*stream_create)(void **, unsigned);
    int (*stream_destroy)(void *);
    int (*stream_query)(void *);
    int (*stream_wait)(void *);
    int (*stream_follow)(void *, void *, unsigned);
    int (*upload)(void *, const void *, size_t, void *);
    int (*download)(void *, void *, size_t, void *);
    int (*copy)(void *, void *, size_t, void *);
    int (*fill)(void *, int, size_t, void *);
    int (*launch)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                  void *, void **, void **);
    int (*event_create)(void **, unsigned);
    int (*event_destroy)(void *);
    int (*event_record)(void *, void *);
    int (*event_wait)(void *);
    int (*event_elapsed)(float *, void *, void *);
    int (*module_load)(void **, const void *);
    int (*module_unload)(void *);
    int (*module_function)(void **, void *, const char *);
    int (*capture_begin)(void *, int);
    int (*capture_end)(void *, void **);
    int (*graph_destroy)(void *);
    int (*graph_nodes)(void *, void **, size_t *);
    int (*node_type)(void *, int *);
    int (*graph_instantiate)(void **, void *, unsigned long long);
    int (*graph_set_kernel)(void *, void *, const hip_kernel_node *);
    int (*graph_launch)(void *, void *);
    int (*exec_destroy)(void *);
    int (*can_access_peer)(int *, int, int);
    int (*enable_peer)(int, unsigned);
    int (*ipc_export)(hip_ipc *, void *);
    int (*ipc_open)(void **, hip_ipc, unsigned);
    int (*ipc_close)(void *);
} hip;

static const qn_gpu_symbol symbols[] = {
    {"hipInit", NULL, &hip.init},
    {"hipGetErrorName", NULL, &hip.error_name},
    {"hipGetErrorString", NULL, &hip.error_text},
    {"hipGetDeviceCount", NULL, &hip.count},
    {"hipGetDevicePropertiesR0600", NULL, &hip.properties},
    {"hipDeviceGetName", NULL, &hip.device_name},
    {"hipDeviceTotalMem", NULL, &hip.device_memory},
    {"hipDeviceGetAttribute", NULL, &hip.device_attribute},
    {"hipSetDevice", NULL, &hip.set_device},
    {"hipMemGetInfo", NULL, &hip.memory},
    {"hipMalloc", NULL, &hip.alloc},
    {"hipFree", NULL, &hip.free},
    {"hipHostMalloc", NULL, &hip.alloc_host},
    {"hipHostFree", NULL, &hip.free_host},
    {"hipStreamCreateWithFlags", NULL, &hip.stream_create},
    {"hipStreamDestroy", NULL, &hip.stream_destroy},
    {"hipStreamQuery", NULL, &hip.stream_query},
    {"hipStreamSynchronize", NULL, &hip.stream_wait},
    {"hipStreamWaitEvent", NULL, &hip.stream_follow},
    {"hipMemcpyHtoDAsync", NULL, &hip.upload},
    {"hipMemcpyDtoHAsync", NULL, &hip.download},
    {"hipMemcpyDtoDAsync", NULL, &hip.copy},
    {"hipMemsetAsync", NULL, &hip.fill},
    {"hipModuleLaunchKernel", NULL, &hip.launch},
    {"hipEventCreateWithFlags", NULL, &hip.event_create},
    {"hipEventDestroy", NULL, &hip.event_destroy},
    {"hipEventRecord", NULL, &hip.event_record},
    {"hipEventSynchronize", NULL, &hip.event_wait},
    {"hipEventElapsedTime", NULL, &hip.event_elapsed},
    {"hipModuleLoadData", NULL, &hip.module_load},
    {"hipModuleUnload", NULL, &hip.module_unload},
    {"hipModuleGetFunction", NULL, &hip.module_function},
    {"hipStreamBeginCapture", NULL, &hip.capture_begin},
    {"hipStreamEndCapture", NULL, &hip.capture_end},
    {"hipGraphDestroy", NULL, &hip.graph_destroy},
    {"hipGraphGetNodes", NULL, &hip.graph_nodes},
    {"hipGraphNodeGetType", NULL, &hip.node_type},
    {"hipGraphInstantiateWithFlags", NULL, &hip.graph_instantiate},
    {"hipGraphExecKernelNodeSetParams", NULL, &hip.graph_set_kernel},
    {"hipGraphLaunch", NULL, &hip.graph_launch},
    {"hipGraphExecDestroy", NULL, &hip.exec_destroy},
    {"hipDeviceCanAccessPeer", NULL, &hip.can_access_peer},
    {"hipDeviceEnablePeerAccess", NULL, &hip.enable_peer},
    {"hipIpcGetMemHandle", NULL, &hip.ipc_export},
    {"hipIpcOpenMemHandle", NULL, &hip.ipc_open},
    {"hipIpcCloseMemHandle", NULL, &hip.ipc_close},
};

/* The version comes first: a library that is too old also lacks functions. */
static qn_status find_all(int *version, qn_error *err)
{
    static const char *const names[] = {"libamdhip64.so.7", "libamdhip64.so.6"};
    static const qn_gpu_symbol first = {"hipRuntimeGetVersion", NULL, &hip.version};
    void *library = NULL;
    qn_status status = qn_gpu_library_open(&library, names, 2, err);
    if (status == QN_OK) {
        status = qn_gpu_library_find(library, &first, 1, err);
    }
    if (status != QN_OK) {
        return status;
    }
    const int code = hip.version(version);
    if (code != 0) {
        return qn_fail(err, QN_E_DEVICE, code, __func__,
                       "hipRuntimeGetVersion: error %d, a version expected", code);
    }
    if (*version < VERSION_MIN) {
        return qn_fail(err, QN_E_DEVICE, 0, __func__,
                       "the driver is HIP %d.%d, %d.%d or later expected", *version / 10000000,
                       *version / 100000 % 100, VERSION_MIN / 10000000, VERSION_MIN / 100000 % 100);
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
    (void)snprintf(text, 32, "%d.%d", version / 10000000, version / 100000 % 100);
    (void)pthread_mutex_unlock(&lock);
    return status;
}

static qn_gpu_code classify(int code)
{
    switch (code) {
    case 0: return QN_GPU_DONE;
    case 2: /* OutOfMemory */
    case 1052: /* RuntimeMemory */ return QN_GPU_NO_MEMORY;
    case 500: /* NotFound */ return QN_GPU_NOT_FOUND;
    case 100: /* NoDevice */
    case 101: /* InvalidDevice: what hipInit() gives where there is none */ return QN_GPU_NO_DEVICE;
    case 35: /* InsufficientDriver */ return QN_GPU_OLD_DRIVER;
    case 700: /* IllegalAddress */
    case 702: /* LaunchTimeOut */
    case 709: /* ContextIsDestroyed */
    case 710: /* Assert */
    case 719: /* LaunchFailure */ return QN_GPU_STICKY;
    case 214: /* ECCNotCorrectable */
    case 999: /* Unknown */
    case 1053: /* RuntimeOther */ return QN_GPU_LOST;
    default: return QN_GPU_REFUSED;
    }
}

static void describe(char out[QN_GPU_TEXT_BYTES], int code)
{
    const char *const name = hip.error_name(code);
    const char *const text = hip.error_text(code);
    if (name == NULL || text == NULL) {
        (void)snprintf(out, QN_GPU_TEXT_BYTES, "HIP error %d", code);
        return;
    }
    (void)snprintf(out, QN_GPU_TEXT_BYTES, "%s (%s)", name, text);
}

static int count(uint32_t *n_devices)
{
    int n = 0;
    int code = hip.init(0);
    code = code == 0 ? hip.count(&n) : code;
    *n_devices = code == 0 && n > 0 ? (uint32_t)n : 0;
    return code;
}

static int info(qn_gpu_info *out, uint32_t i_device)
{
    const int device = (int)i_device;
    size_t n_bytes = 0;
    int values[5] = {0};
    static const int wanted[] = {DEVICE_SMS, DEVICE_LANES, DEVICE_CLOCK_KHZ, DEVICE_SHARED_BYTES,
                                 DEVICE_L2_BYTES};
    hip_properties properties = {0};
    int code = hip.properties(&properties, device);
    code = code == 0 ? hip.device_name(out->name, sizeof out->name, device) : code;
    code = code == 0 ? hip.device_memory(&n_bytes, device) : code;
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0] && code == 0; i++) {
        code = hip.device_attribute(&values[i], wanted[i], device);
    }
    const size_t len = strcspn(properties.arch, ":");
    (void)snprintf(out->arch, sizeof out->arch, "%.*s", (int)len, properties.arch);
    out->n_sms = (uint32_t)values[0];
    out->n_lanes = (uint32_t)values[1];
    out->clock_khz = (uint32_t)values[2];
    out->shared_bytes = (uint32_t)values[3];
    out->l2_bytes = (uint64_t)values[4];
    out->memory_bytes = n_bytes;
    return code;
}

/* A device has one context, which its first use makes. */
static int open_context(void **context, uint32_t i_device)
{
    *context = NULL;
    return hip.set_device((int)i_device);
}

static int close_context(void *context, uint32_t i_device)
{
    (void)context;
    (void)i_device;
    return 0;
}

static int use(void *context, uint32_t i_device)
{
    (void)context;
    return hip.set_device((int)i_device);
}

static int free_bytes(uint64_t *out)
{
    size_t n_free = 0, n_total = 0;
    const int code = hip.memory(&n_free, &n_total);
    *out = code == 0 ? n_free : 0;
    return code;
}

static int alloc(void **out, size_t n_bytes)
{
    return hip.alloc(out, n_bytes);
}

static int free_memory(void *at)
{
    return hip.free(at);
}

static int alloc_host(void **out, size_t n_bytes)
{
    return hip.alloc_host(out, n_bytes, HOST_PORTABLE);
}

static int free_host(void *at)
{
    return hip.free_host(at);
}

static int stream_open(void **stream)
{
    return hip.stream_create(stream, STREAM_NON_BLOCKING);
}

static int stream_close(void *stream)
{
    return hip.stream_destroy(stream);
}

static int stream_query(void *stream)
{
    const int code = hip.stream_query(stream);
    return code == NOT_READY ? 0 : code;
}

static int stream_wait(void *stream)
{
    return hip.stream_wait(stream);
}

/* HIP takes sources and arguments, which it only reads, without const. */
static void *unconst(const void *at)
{
    void *pointer;
    memcpy(&pointer, &at, sizeof pointer);
    return pointer;
}

static int upload(void *stream, void *to, const void *from, size_t n_bytes)
{
    return hip.upload(to, from, n_bytes, stream);
}

static int download(void *stream, void *to, const void *from, size_t n_bytes)
{
    return hip.download(to, unconst(from), n_bytes, stream);
}

static int copy(void *stream, void *to, const void *from, size_t n_bytes)
{
    return hip.copy(to, unconst(from), n_bytes, stream);
}

static int fill(void *stream, void *to, uint8_t byte, size_t n_bytes)
{
    return hip.fill(to, byte, n_bytes, stream);
}

/*
 * The arguments as one block of bytes (HIP_LAUNCH_PARAM_BUFFER_POINTER, _SIZE, _END): the struct is
 * all that there is.
 */
static int launch(void *stream, const qn_gpu_launch_args *args)
{
    size_t n_bytes = args->args_bytes;
    void *extra[] = {(void *)1, unconst(args->args), (void *)2, &n_bytes, (void *)3};
    if (args->n_cluster > 0) {
        return NOT_SUPPORTED;
    }
    return hip.launch(args->function, args->grid[0], args->grid[1], args->grid[2], args->n_threads,
                      1, 1, args->shared_bytes, stream, NULL, extra);
}

static int event_open(void **event)
{
    return hip.event_create(event, 0);
}

static int event_close(void *event)
{
    return hip.event_destroy(event);
}

static int event_record(void *event, void *stream)
{
    return hip.event_record(event, stream);
}

static int event_follow(void *stream, void *event)
{
    return hip.stream_follow(stream, event, 0);
}

static int event_wait(void *event)
{
    return hip.event_wait(event);
}

static int event_seconds(double *out, void *first, void *last)
{
    float milliseconds = 0.0F;
    const int code = hip.event_elapsed(&milliseconds, first, last);
    *out = (double)milliseconds * 1e-3;
    return code;
}

static int module_load(void **module, const void *image, char log[QN_GPU_LOG_BYTES])
{
    log[0] = '\0';
    return hip.module_load(module, image);
}

static int module_unload(void *module)
{
    return hip.module_unload(module);
}

static int module_find(void **function, void *module, const char *symbol)
{
    return hip.module_function(function, module, symbol);
}

/* A launch of a module's kernel may ask for all that a block can have. */
static int allow_shared(void *function, uint32_t n_bytes)
{
    (void)function;
    (void)n_bytes;
    return 0;
}

static int capture_begin(void *stream)
{
    return hip.capture_begin(stream, CAPTURE_THREAD_LOCAL);
}

static int capture_end(void **graph, void *stream)
{
    *graph = NULL;
    return hip.capture_end(stream, graph);
}

static int graph_close(void *graph)
{
    return hip.graph_destroy(graph);
}

static int graph_nodes(void **nodes, size_t *n, void *graph)
{
    return hip.graph_nodes(graph, nodes, n);
}

/* hipGraphNodeType: kernel, copy and fill come first. */
static int graph_node_kind(int *kind, void *node)
{
    return hip.node_type(node, kind);
}

static int graph_ready(void **exec, void *graph)
{
    return hip.graph_instantiate(exec, graph, 0);
}

static int graph_update(void *exec, void *node, const qn_gpu_launch_args *args)
{
    void *parameters[] = {unconst(args->args)};
    const hip_kernel_node kernel = {
        .block = {args->n_threads, 1, 1},
        .function = args->function,
        .grid = {args->grid[0], args->grid[1], args->grid[2]},
        .parameters = parameters,
        .shared_bytes = args->shared_bytes,
    };
    return hip.graph_set_kernel(exec, node, &kernel);
}

static int graph_launch(void *exec, void *stream)
{
    return hip.graph_launch(exec, stream);
}

static int exec_close(void *exec)
{
    return hip.exec_destroy(exec);
}

static int tensor_map(uint8_t out[QN_GPU_TENSOR_MAP_BYTES], const qn_gpu_tensor_map_args *args)
{
    (void)out;
    (void)args;
    return NOT_SUPPORTED;
}

static int can_access_peer(bool *out, uint32_t i_device, uint32_t i_peer)
{
    int can = 0;
    const int code = hip.can_access_peer(&can, (int)i_device, (int)i_peer);
    *out = can != 0;
    return code;
}

static int enable_peer(void *peer_context, uint32_t i_peer)
{
    (void)peer_context;
    const int code = hip.enable_peer((int)i_peer, 0);
    return code == PEER_ALREADY_ENABLED ? 0 : code;
}

static int ipc_export(uint8_t handle[QN_GPU_IPC_BYTES], void *at)
{
    hip_ipc ipc = {0};
    const int code = hip.ipc_export(&ipc, at);
    memcpy(handle, &ipc, sizeof ipc);
    return code;
}

static int ipc_open(void **out, const uint8_t handle[QN_GPU_IPC_BYTES])
{
    hip_ipc ipc;
    memcpy(&ipc, handle, sizeof ipc);
    return hip.ipc_open(out, ipc, IPC_LAZY_PEER);
}

static int ipc_close(void *at)
{
    return hip.ipc_close(at);
}

const qn_gpu_driver qn_gpu_hip = {
    .name = "hip",
    .vendor = "AMD",
    .node = "kfd",
    QN_GPU_DRIVER_FUNCTIONS(QN_GPU_DRIVER_FUNCTION),
};

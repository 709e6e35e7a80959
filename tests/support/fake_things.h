/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file fake_things.h  The books of the fake driver (fake_gpu.h): what it has handed out, which
 * call is to fail, what was called, and what was wrong.
 */
#ifndef QN_TEST_FAKE_THINGS_H
#define QN_TEST_FAKE_THINGS_H
#include "support/fake_gpu.h"

/** What the driver hands out.  Handles stay until a reset, so that none is given twice. */
typedef enum thing_kind {
    MEMORY,
    HOST_MEMORY,
    STREAM,
    EVENT,
    MODULE,
    FUNCTION,
    GRAPH,
    EXEC
} thing_kind;
/** By kind, for problems. */
extern const char *const fake_kind_names[];

/** What a node does. */
typedef enum node_op { OP_KERNEL, OP_COPY, OP_FILL, OP_OTHER } node_op;

typedef struct thing thing;

/** Work of a stream, or of a graph. */
typedef struct node {
    struct node *next;
    node_op op;
    const char *call;
    void *to;
    const void *from;
    size_t n_bytes;
    uint8_t byte;
    bool checks_to, checks_from; /* Are they the device's? */
    qn_gpu_launch_args launch;   /* Its args are the bytes below. */
    _Alignas(16) uint8_t args[];
} node;

/** One that was handed out. */
struct thing {
    thing *next;
    thing_kind kind;
    bool is_live;
    void *context;
    /* Memory. */
    uint8_t *at, *pages;
    size_t n_bytes, n_page_bytes;
    /* A stream or an event: the graph that it is captured into; of a graph: its nodes. */
    thing *capture;
    bool is_origin, is_fork;
    uint64_t reached_ns;
    node *first, **last;
    /* An event: the stream whose work is before it. */
    thing *stream;
    /* A function. */
    thing *module;
    uint32_t shared_bytes;
    char name[64];
};

/** All of them, and what is planned. */
typedef struct fake_books {
    thing *things;
    uint64_t used_bytes;
    void *current;
    bool is_open[16];
    int broken; /* The code of all further calls. */
    char call[32];
    size_t n_more;
    int code;
    bool has_failed;
    char *calls;
    size_t n_calls_bytes;
    char problem[256];
} fake_books;
extern fake_books fake_state;

/** Keep the first. */
QN_PRINTF(1, 2) void fake_problem(const char *format, ...);
/** A line of the record. */
QN_PRINTF(1, 2) void fake_note(const char *format, ...);

/** Is it this call's turn to fail?  Its code then, else 0. */
int fake_planned(const char *call, bool is_release);
/** The begin of every call that is not a release: its code where it fails, else 0. */
int fake_begin(const char *call);
/** A handle that may be used, else NULL, and a problem. */
thing *fake_live(const char *call, void *handle, thing_kind kind);
/** A handle of the context in use; a code. */
int fake_make(const char *call, thing **out, thing_kind kind);
/** Release a handle, also of a device that is broken; a code. */
int fake_release(const char *call, void *handle, thing_kind kind);
/** The nodes of a graph. */
void fake_free_nodes(thing *t);
#endif

/* SPDX-License-Identifier: Apache-2.0 */
#include "support/fake_things.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { CALLS_BYTES_MAX = 1 << 20 };

const char *const fake_kind_names[] = {"memory", "host memory", "stream", "event",
                                       "module", "function",    "graph",  "executable graph"};

fake_books fake_state = {.n_more = SIZE_MAX};

#define DEFAULT_WORLD                                                                              \
    {                                                                                              \
        .n_devices = 1, .memory_bytes = (uint64_t)4 << 30, .n_sms = 4, .arch = "emulated",         \
        .keeps_calls = true                                                                        \
    }
fake_gpu_world fake_gpu = DEFAULT_WORLD;

void fake_problem(const char *format, ...)
{
    if (fake_state.problem[0] == '\0') {
        va_list args;
        va_start(args, format);
        (void)vsnprintf(fake_state.problem, sizeof fake_state.problem, format, args);
        va_end(args);
    }
}

void fake_note(const char *format, ...)
{
    if (!fake_gpu.keeps_calls) {
        return;
    }
    if (fake_state.calls == NULL) {
        fake_state.calls = malloc(CALLS_BYTES_MAX);
        if (fake_state.calls == NULL) {
            return;
        }
    }
    const size_t room = CALLS_BYTES_MAX - fake_state.n_calls_bytes;
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(fake_state.calls + fake_state.n_calls_bytes, room, format, args);
    va_end(args);
    if (n > 0 && (size_t)n + 1 < room) { /* what is beyond is not kept */
        fake_state.n_calls_bytes += (size_t)n;
        fake_state.calls[fake_state.n_calls_bytes++] = '\n';
    }
    fake_state.calls[fake_state.n_calls_bytes] = '\0';
}

void fake_gpu_fail(const char *call, size_t n_more, int code)
{
    (void)snprintf(fake_state.call, sizeof fake_state.call, "%s", call);
    fake_state.n_more = n_more;
    fake_state.code = code;
    fake_state.has_failed = false;
}

bool fake_gpu_has_failed(void)
{
    return fake_state.has_failed;
}

const char *fake_gpu_calls(void)
{
    return fake_state.calls != NULL ? fake_state.calls : "";
}

const char *fake_gpu_problem(void)
{
    return fake_state.problem;
}

uint64_t fake_gpu_used_bytes(void)
{
    return fake_state.used_bytes;
}

static int fail_with(int code)
{
    if (code == FAKE_GPU_STICKY || code == FAKE_GPU_LOST) {
        fake_state.broken = code;
    }
    return code;
}

int fake_planned(const char *call, bool is_release)
{
    if (fake_state.n_more == SIZE_MAX || (strcmp(fake_state.call, call) != 0 &&
                                          (is_release || strcmp(fake_state.call, "any") != 0))) {
        return 0;
    }
    if (fake_state.n_more-- > 0) {
        return 0;
    }
    fake_state.n_more = SIZE_MAX;
    fake_state.has_failed = true;
    return fail_with(fake_state.code);
}

int fake_begin(const char *call)
{
    if (fake_state.broken != 0) {
        return fake_state.broken;
    }
    return fake_planned(call, false);
}

static void check_context(const char *call)
{
    if (fake_state.current == NULL) {
        fake_problem("%s: no context in use", call);
    }
}

thing *fake_live(const char *call, void *handle, thing_kind kind)
{
    check_context(call);
    thing *t = fake_state.things;
    while (t != NULL && t != handle) {
        t = t->next;
    }
    if (t == NULL || t->kind != kind) {
        fake_problem("%s: %p is no %s", call, handle, fake_kind_names[kind]);
        return NULL;
    }
    if (!t->is_live) {
        fake_problem("%s: %s %s after its end", call, fake_kind_names[kind], t->name);
        return NULL;
    }
    if (t->context != fake_state.current) {
        fake_problem("%s: %s of another context than the one in use", call, fake_kind_names[kind]);
    }
    return t;
}

int fake_make(const char *call, thing **out, thing_kind kind)
{
    check_context(call);
    fake_note("%s", call);
    const int code = fake_begin(call);
    if (code != 0) {
        return code;
    }
    thing *const t = calloc(1, sizeof *t);
    if (t == NULL) {
        return FAKE_GPU_NO_MEMORY;
    }
    *t = (thing){
        .next = fake_state.things, .kind = kind, .is_live = true, .context = fake_state.current};
    t->last = &t->first;
    fake_state.things = t;
    *out = t;
    return 0;
}

void fake_free_nodes(thing *t)
{
    while (t->first != NULL) {
        node *const next = t->first->next;
        free(t->first);
        t->first = next;
    }
    t->last = &t->first;
}

int fake_release(const char *call, void *handle, thing_kind kind)
{
    fake_note("%s", call);
    thing *const t = fake_live(call, handle, kind);
    if (t == NULL) {
        return FAKE_GPU_INVALID;
    }
    const int code = fake_planned(call, true);
    t->is_live = false;
    fake_free_nodes(t);
    return code != 0 ? code : fake_state.broken;
}

void fake_gpu_reset(void)
{
    while (fake_state.things != NULL) {
        thing *const t = fake_state.things;
        fake_state.things = t->next;
        fake_free_nodes(t);
        if (t->pages != NULL) {
            (void)munmap(t->pages, t->n_page_bytes);
        }
        free(t);
    }
    free(fake_state.calls);
    memset(&fake_state, 0, sizeof fake_state);
    fake_state.n_more = SIZE_MAX;
    fake_gpu = (fake_gpu_world)DEFAULT_WORLD;
}

/* SPDX-License-Identifier: Apache-2.0 */
/** @file crowd.h  Many requests in one engine, and what each was told. */
#ifndef QN_TEST_API_CROWD_H
#define QN_TEST_API_CROWD_H
#include "transcript.h"

enum { CROWD_MAX = 48 };

/** What became of requests, by place. */
typedef struct crowd {
    uint64_t ids[CROWD_MAX];
    transcript said[CROWD_MAX];
    uint32_t ended[CROWD_MAX]; /**< Places in the order of their ends. */
    uint32_t n_ended;
    uint32_t n;
    uint32_t n_steps; /**< That returned QN_OK. */
} crowd;

static inline qn_engine *open_engine(qn_model *model, const qn_engine_options *options)
{
    qn_engine *engine = NULL;
    qn_error err = {0};
    if (qn_engine_open(&engine, model, options, &err) != QN_OK) {
        fail_msg("%s", err.text);
    }
    return engine;
}

/** Queue a request; its place is the number of those before, and its tag what it says. */
static inline uint32_t crowd_submit(crowd *c, qn_engine *engine, const qn_request *request)
{
    qn_error err = {0};
    assert_true(c->n < CROWD_MAX);
    memset(&c->said[c->n], 0, sizeof c->said[0]);
    qn_request tagged = *request;
    tagged.tag = &c->said[c->n];
    if (qn_engine_submit(&c->ids[c->n], engine, &tagged, &err) != QN_OK) {
        fail_msg("%s", err.text);
    }
    assert_int_not_equal(c->ids[c->n], 0);
    return c->n++;
}

/** Take at most @p n_max events of the last step. */
static inline void crowd_poll(crowd *c, qn_engine *engine, uint32_t n_max)
{
    qn_event event;
    uint64_t id = 0;
    for (uint32_t n = 0; n < n_max && qn_engine_poll(&id, &event, engine); n++) {
        uint32_t i = 0;
        while (i < c->n && c->ids[i] != id) {
            i++;
        }
        assert_true(i < c->n);
        assert_ptr_equal(event.tag, &c->said[i]);
        said_event(&c->said[i].said, &event);
        assert_int_equal(event.kind == QN_EVENT_END, event.stats != NULL);
        assert_int_equal(event.finish == QN_FINISH_ERROR, event.error != NULL);
        if (event.stats != NULL) { /* the END */
            c->said[i].stats = *event.stats;
            c->said[i].err = event.error != NULL ? *event.error : (qn_error){0};
            c->ended[c->n_ended++] = i;
        }
    }
}

/** At most @p n_max steps; QN_AGAIN where no request is left. */
static inline qn_status crowd_step(crowd *c, qn_engine *engine, uint32_t n_max)
{
    qn_status status = QN_OK;
    qn_error err = {0};
    for (uint32_t i = 0; i < n_max && status == QN_OK; i++) {
        status = qn_engine_step(engine, &err);
        c->n_steps += status == QN_OK ? 1 : 0;
        crowd_poll(c, engine, UINT32_MAX);
    }
    if (status < 0) {
        fail_msg("%s", err.text);
    }
    return status;
}

/** To the end of all; each has one, and no page is in use then. */
static inline void crowd_finish(crowd *c, qn_engine *engine)
{
    assert_int_equal(crowd_step(c, engine, 100000), QN_AGAIN);
    assert_int_equal(c->n_ended, c->n);
    for (uint32_t i = 0; i < c->n; i++) {
        assert_int_equal(c->said[i].said.n_ends, 1);
    }
    const qn_engine_stats stats = qn_engine_get_stats(engine);
    assert_int_equal(stats.n_running, 0);
    assert_int_equal(stats.n_waiting, 0);
    assert_int_equal(stats.n_pages_used, 0);
}

static inline void crowd_clear(crowd *c)
{
    c->n = c->n_ended = c->n_steps = 0;
}
#endif

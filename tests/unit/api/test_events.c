/* SPDX-License-Identifier: Apache-2.0 */
#include "api/events.h"
#include "support/unit.h"

#include <string.h>

static const qn_events_options options = {.n_events = 8, .n_tokens = 2, .text_bytes = 64};

static void open_events(qn_events *events)
{
    qn_error err = {0};
    if (qn_events_init(events, &options, &err) != QN_OK) {
        fail_msg("%s", err.text);
    }
    events->owner = 7;
}

static void add_text(qn_events *events, const char *text)
{
    qn_events_add(events, &(qn_event){.kind = QN_EVENT_TEXT, .text = text, .len = strlen(text)});
}

/* Found by review: a call whose name found no memory left its arguments in the text before. */
static void test_event_that_found_no_memory_leaves_nothing(void **state)
{
    (void)state;
    static const char name[] = "a_name_for_which_there_is_no_room";
    qn_events events;
    qn_event event;
    uint64_t owner = 0;
    open_events(&events);
    events.text.bytes_max = 32;
    add_text(&events, "before ");
    qn_events_add(&events, &(qn_event){.kind = QN_EVENT_TOOL_CALL,
                                       .text = "{\"a\": 1}",
                                       .len = 8,
                                       .name = name,
                                       .name_len = sizeof name - 1});
    assert_int_equal(events.failure.status, QN_E_NOMEM);
    add_text(&events, "after");
    assert_true(qn_events_poll(&events, &owner, &event));
    assert_int_equal(event.len, 12);
    assert_memory_equal(event.text, "before after", 12);
    assert_false(qn_events_poll(&events, &owner, &event));
    qn_events_deinit(&events);
}

static void test_events_give_back_what_one_step_needed(void **state)
{
    (void)state;
    char text[1001];
    qn_events events;
    qn_event event;
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    open_events(&events);
    const size_t n_bytes = events.text.capacity_bytes;
    add_text(&events, text);
    assert_true(events.text.capacity_bytes > n_bytes);
    assert_true(qn_events_poll(&events, NULL, &event));
    assert_int_equal(event.len, 1000);
    qn_events_begin_step(&events);
    assert_int_equal(events.text.capacity_bytes, n_bytes);
    assert_in_range(qn_events_bytes(&events), n_bytes, SIZE_MAX);
    qn_events_deinit(&events);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_event_that_found_no_memory_leaves_nothing),
        cmocka_unit_test(test_events_give_back_what_one_step_needed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file conversations.h  200 conversations, made of the problems in tests/eval: what users ask,
 * turn by turn, and the messages that the model's own answers become.
 *
 * Conversation i is the same in every run.  Of each eight there are two single questions, two with
 * tools, three of two to five turns and one about a text of 1,000 to 3,000 tokens; half of all
 * think, and half begin with a long system prompt, of which there are four that begin alike.
 */
#ifndef QN_TEST_CONVERSATIONS_H
#define QN_TEST_CONVERSATIONS_H
#include "quern/quern.h"

#include "base/file.h"
#include "base/json_doc.h"
#include "support/unit.h"

#include <stdio.h>
#include <stdlib.h>

enum { N_CONVERSATIONS = 200, CONVERSATION_TURNS_MAX = 5, N_QUESTIONS = 200 };

/** Kinds of problems, one file of tests/eval each. */
enum { TASK_TOOL_CALL, TASK_NEEDLE, TASK_OTHERS, N_TASKS = 8 };

/** A problem as its line has it: JSON, borrowed from the file's text. */
typedef struct question {
    qn_str text;  /**< A string without its quotes. */
    qn_str tools; /**< An array; empty: none. */
} question;

/** All problems. */
typedef struct questions {
    qn_buf files[N_TASKS];
    question of[N_TASKS][N_QUESTIONS];
} questions;

/** What is said in one conversation. */
typedef struct conversation {
    uint32_t number;
    uint32_t n_turns;        /**< Prompts: questions, and results of tools. */
    qn_buf messages;         /**< A JSON array but for its end. */
    qn_chat_options options; /**< Tools are borrowed from the problems. */
} conversation;

/** What the model said in one turn. */
typedef struct said {
    qn_buf reasoning, text;
    qn_buf calls; /**< Elements of "tool_calls", separated by commas. */
    uint32_t n_calls;
} said;

static inline void must(qn_status status, const qn_error *err)
{
    if (status != QN_OK) {
        fail_msg("%s", err->text);
    }
}

static inline void append(qn_buf *out, const char *text)
{
    qn_error err = {0};
    must(qn_buf_append(out, text, strlen(text), &err), &err);
}

static inline void append_quoted(qn_buf *out, const qn_buf *bytes)
{
    qn_error err = {0};
    must(qn_json_quote_append(out, qn_buf_view(bytes), &err), &err);
}

/* One line {"messages": [..., {"role": "user", "content": TEXT}], "tools"?: TOOLS}. */
static inline void question_read(question *out, qn_str line, const char *path)
{
    qn_error err = {0};
    qn_json_doc doc;
    must(qn_json_doc_open(&doc, line, path, &err), &err);
    const qn_json_node *const messages = qn_json_member(doc.nodes, "messages");
    const qn_json_node *const tools = qn_json_member(doc.nodes, "tools");
    assert_non_null(messages);
    const qn_json_node *last = messages + 1;
    for (uint32_t i = 1; i < messages->n_children; i++) {
        last = qn_json_after(last);
    }
    assert_true(qn_json_string_is(qn_json_member(last, "role"), qn_str_of("user")));
    const qn_json_node *const content = qn_json_member(last, "content");
    assert_non_null(content);
    out->text = (qn_str){content->text.ptr + 1, content->text.len - 2};
    out->tools = tools != NULL ? tools->text : (qn_str){0};
    qn_json_doc_close(&doc);
}

/* Read them all, below the folder @p source. */
static inline void questions_open(questions *q, const char *source)
{
    static const char *const names[N_TASKS] = {"tool_call", "needle",      "arithmetic",
                                               "choice",    "code",        "extract",
                                               "transform", "word_problem"};
    qn_error err = {0};
    for (uint32_t i_task = 0; i_task < N_TASKS; i_task++) {
        char path[512];
        qn_buf *const file = &q->files[i_task];
        (void)snprintf(path, sizeof path, "%s/tests/eval/nano_%s.jsonl", source, names[i_task]);
        qn_buf_init(file, 1 << 20);
        must(qn_file_read(file, path, &err), &err);
        const char *at = file->ptr;
        for (uint32_t i = 0; i < N_QUESTIONS; i++) {
            const char *const end = strchr(at, '\n');
            assert_non_null(end);
            question_read(&q->of[i_task][i], (qn_str){at, (size_t)(end - at)}, path);
            at = end + 1;
        }
    }
}

static inline void questions_close(questions *q)
{
    for (uint32_t i = 0; i < N_TASKS; i++) {
        qn_buf_deinit(&q->files[i]);
    }
}

/* Of the eight: 0, 3 single; 1, 5 tools; 2, 4, 6 several turns; 7 a long text. */
static inline bool conversation_has_tools(const conversation *c)
{
    return c->number % 8 == 1 || c->number % 8 == 5;
}

static inline bool conversation_is_long(const conversation *c)
{
    return c->number % 8 == 7;
}

/* Problem that turn @p i_turn asks. */
static inline const question *conversation_question(const conversation *c, const questions *q,
                                                    uint32_t i_turn)
{
    const uint32_t i_task = conversation_has_tools(c)
                                ? (uint32_t)TASK_TOOL_CALL
                                : TASK_OTHERS + (c->number / 2 + i_turn) % (N_TASKS - TASK_OTHERS);
    return &q->of[i_task][(c->number + 37 * i_turn) % N_QUESTIONS];
}

static inline void conversation_open(conversation *c, uint32_t number, const questions *q)
{
    static const char *const shops[] = {"books", "bicycles", "seeds and bulbs", "old maps"};
    *c = (conversation){.number = number, .n_turns = 1};
    qn_buf_init(&c->messages, 1 << 20);
    append(&c->messages, "[");
    c->options.no_thinking = (number / 8 + number) % 2 == 0;
    c->options.keep_thinking = number % 3 == 0;
    c->options.is_effort_high = number % 5 == 0;
    if (conversation_has_tools(c)) {
        const question *const first = conversation_question(c, q, 0);
        c->n_turns = 3;
        c->options.tools_json = first->tools.ptr;
        c->options.tools_len = first->tools.len;
    } else if (conversation_is_long(c)) {
        c->n_turns = 1 + number / 8 % 2;
    } else if (number % 2 == 0 && number % 8 > 0) {
        c->n_turns = 2 + number / 8 % 4;
    }
    if (number % 8 == 0 || (number % 8 >= 3 && number % 8 <= 5)) {
        append(
            &c->messages,
            "{\"role\": \"system\", \"content\": \"You work in a small shop at the harbor. Be "
            "polite and be brief. When a customer asks for a number, give the number and nothing "
            "else. When a customer asks for a program, write it in C and do not explain it. When "
            "a customer asks for JSON, give one object on one line. Never speak of the weather "
            "unless a tool has told you what it is like. Prices are in coins. The shop opens at "
            "8 and closes at 17, and on Sunday it stays closed. If you do not know an answer, "
            "say so. If a customer is angry, stay calm. If a customer asks for the owner, the "
            "owner is Ursula, who lives in Oslo. The shop sells ");
        append(&c->messages, shops[number / 8 % 4]);
        append(&c->messages, ".\"},");
    }
}

static inline void conversation_close(conversation *c)
{
    qn_buf_deinit(&c->messages);
}

/* The texts of several needle problems one after the other, and what one of them asks. */
static inline void conversation_ask_long(conversation *c, const questions *q, uint32_t i_turn)
{
    const size_t n_bytes = 4700 + c->number / 8 * 7 % 13 * 540; /* 1,000 to 3,000 tokens */
    qn_str asked = {0};
    qn_error err = {0};
    size_t n_written = 0;
    for (uint32_t i = 0; n_written < n_bytes; i++) {
        const qn_str text = q->of[TASK_NEEDLE][(c->number + i) % N_QUESTIONS].text;
        const char *const end = memmem(text.ptr, text.len, "\\n\\n", 4);
        assert_non_null(end);
        const size_t len = (size_t)(end - text.ptr);
        if (i_turn == 0) {
            must(qn_buf_append(&c->messages, text.ptr, len + 2, &err), &err);
        }
        if (i == c->number % 4 + i_turn) {
            asked = (qn_str){end + 4, text.len - len - 4};
        }
        n_written += len + 2;
    }
    append(&c->messages, i_turn == 0 ? "\\n" : "");
    must(qn_buf_append(&c->messages, asked.ptr, asked.len, &err), &err);
}

/**
 * Append the message that turn @p i_turn begins with and encode the prompt; a turn that follows
 * tool calls begins with their results, which are there already.
 */
static inline void conversation_prompt(int32_t **ids, size_t *n_ids, conversation *c,
                                       const questions *q, uint32_t i_turn, const qn_model *model)
{
    qn_error err = {0};
    qn_buf *const out = &c->messages;
    if (!qn_str_ends(qn_buf_view(out), "\"role\": \"tool\"},")) {
        append(out, "{\"role\": \"user\", \"content\": \"");
        if (conversation_is_long(c)) {
            conversation_ask_long(c, q, i_turn);
        } else {
            const qn_str text = conversation_question(c, q, i_turn)->text;
            must(qn_buf_append(out, text.ptr, text.len, &err), &err);
        }
        append(out, "\"},");
    }
    out->ptr[out->len - 1] = ']'; /* for a moment, in the place of the comma */
    must(qn_chat_encode(ids, n_ids, model, &c->options, out->ptr, out->len, &err), &err);
    out->ptr[out->len - 1] = ',';
}

static inline void said_open(said *s)
{
    *s = (said){0};
    qn_buf_init(&s->reasoning, 1 << 20);
    qn_buf_init(&s->text, 1 << 20);
    qn_buf_init(&s->calls, 1 << 20);
}

static inline void said_close(said *s)
{
    qn_buf_deinit(&s->reasoning);
    qn_buf_deinit(&s->text);
    qn_buf_deinit(&s->calls);
}

/** Keep what an event says. */
static inline void said_add(said *s, const qn_event *event)
{
    qn_error err = {0};
    if (event->kind == QN_EVENT_REASONING || event->kind == QN_EVENT_TEXT) {
        qn_buf *const out = event->kind == QN_EVENT_TEXT ? &s->text : &s->reasoning;
        must(qn_buf_append(out, event->text, event->len, &err), &err);
    } else if (event->kind == QN_EVENT_TOOL_CALL) {
        must(qn_buf_append_printf(&s->calls, &err,
                                  "%s{\"id\": \"call_%u\", \"type\": \"function\", \"function\": "
                                  "{\"name\": ",
                                  s->n_calls > 0 ? ", " : "", s->n_calls),
             &err);
        must(qn_json_quote_append(&s->calls, (qn_str){event->name, event->name_len}, &err), &err);
        append(&s->calls, ", \"arguments\": ");
        must(qn_buf_append(&s->calls, event->text, event->len, &err), &err);
        append(&s->calls, "}}");
        s->n_calls++;
    }
}

/** Append what the model said as its message, and the results of its calls. */
static inline void conversation_answer(conversation *c, const said *s)
{
    qn_error err = {0};
    qn_buf *const out = &c->messages;
    append(out, "{\"role\": \"assistant\", \"content\": ");
    append_quoted(out, &s->text);
    if (s->reasoning.len > 0) {
        append(out, ", \"reasoning_content\": ");
        append_quoted(out, &s->reasoning);
    }
    if (s->n_calls > 0) {
        append(out, ", \"tool_calls\": [");
        must(qn_buf_append(out, s->calls.ptr, s->calls.len, &err), &err);
        append(out, "]");
    }
    append(out, "},");
    for (uint32_t i = 0; i < s->n_calls; i++) {
        must(qn_buf_append_printf(out, &err,
                                  "{\"content\": \"{\\\"ok\\\": true, \\\"result\\\": %u}\", "
                                  "\"tool_call_id\": \"call_%u\", \"role\": \"tool\"},",
                                  c->number % 40, i),
             &err);
    }
}
#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Bodies of /v1/messages: the conversation and the tools, in OpenAI's form. */
#include "server/anthropic.h"

#include <stdarg.h>
#include <stdio.h>

enum {
    PLACE_BYTES = 96,
    CALLS_MAX = 256,
    NAME_BYTES = 41,
    IGNORED_BYTES_MAX = 1000, /* of names in a header, about */
};

/* Claude Code's first line of a system prompt: another one in every request, and for nobody but
 * Anthropic's accounts.  It would make every prompt a new one to the cache. */
static const char billing_line[] = "x-anthropic-billing-header:";

/* What is being written. */
typedef struct conversation {
    server_exchange *x;
    server_writer w;
    server_error *error;
    const qn_json_node *calls[CALLS_MAX]; /* of the last turn of the assistant: ids */
    size_t n_calls;
    size_t i_message; /* that is read */
    bool has_one;     /* was written */
} conversation;

/* What a block is called in an error. */
typedef struct place {
    char text[PLACE_BYTES];
} place;

QN_PRINTF(1, 2) static place place_of(const char *format, ...)
{
    place out;
    va_list args;
    va_start(args, format);
    (void)vsnprintf(out.text, sizeof out.text, format, args);
    va_end(args);
    return out;
}

static bool is_string(const qn_json_node *node)
{
    return node != NULL && node->kind == QN_JSON_STRING;
}

static bool is_empty(const qn_json_node *node)
{
    return node != NULL && node->kind == QN_JSON_ARRAY && node->n_children == 0;
}

/* What stands between the quotes, as it is written. */
static qn_str inside(const qn_json_node *string)
{
    return (qn_str){.ptr = string->text.ptr + 1, .len = string->text.len - 2};
}

static bool has_type(const qn_json_node *block, const char *type)
{
    return exchange_is_text(qn_json_member(block, "type"), type);
}

static bool is_written(const server_writer *w, server_error *error)
{
    return w->status == QN_OK || exchange_no_memory(error);
}

/* {"role": ROLE, "content": */
static void begin_message(conversation *c, const char *role)
{
    writer_put(&c->w, c->has_one ? ", {\"role\": \"" : "{\"role\": \"");
    writer_put(&c->w, role);
    writer_put(&c->w, "\", \"content\": ");
    c->has_one = true;
}

/* What a key is called in a header. */
static const char *plain_name(const qn_json_node *key, char out[NAME_BYTES])
{
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
    const qn_str text = inside(key);
    (void)snprintf(out, NAME_BYTES, "%.*s", (int)(text.len < NAME_BYTES ? text.len : 0), text.ptr);
    return out[0] != '\0' && out[strspn(out, letters)] == '\0' ? out : "?";
}

/* Keys that nothing here reads are named: hints, and what clients add from time to time. */
static bool ignore_others(server_exchange *x, const qn_json_node *object, const char *const *known,
                          size_t n_known, server_error *error)
{
    const bool is_object = object->kind == QN_JSON_OBJECT;
    const qn_json_node *key = object + 1;
    for (uint32_t i = 0; is_object && i < object->n_children; i++, key = qn_json_after(key + 1)) {
        char name[NAME_BYTES];
        bool is_known = key[1].kind == QN_JSON_NULL || x->ignored.len > IGNORED_BYTES_MAX;
        for (size_t k = 0; !is_known && k < n_known; k++) {
            is_known = exchange_is_text(key, known[k]);
        }
        if (!is_known && !exchange_ignore(x, plain_name(key, name), error)) {
            return false;
        }
    }
    return true;
}

/* ------------------------------------------------------------------------------------- blocks */

/* A type that blocks may have, and the member that makes them so. */
typedef struct block_type {
    const char *type;
    const char *member;
    qn_json_kind kind;
    const char *expected; /* of the member */
} block_type;

static const block_type text_type = {"text", "text", QN_JSON_STRING, "a text"};

static bool check_block(conversation *c, const qn_json_node *block, const block_type *types,
                        size_t n_types, const char *where)
{
    char names[PLACE_BYTES] = "";
    const qn_json_node *const type = qn_json_member(block, "type");
    for (size_t i = 0; i < n_types; i++) {
        if (exchange_is_text(type, types[i].type)) {
            const qn_json_node *const member = qn_json_member(block, types[i].member);
            return (member != NULL && member->kind == types[i].kind) ||
                   exchange_refuse(c->error, place_of("%s.%s", where, types[i].member).text, member,
                                   types[i].expected);
        }
        const size_t len = strlen(names);
        (void)snprintf(names + len, sizeof names - len, "%s%s", i > 0 ? " or " : "", types[i].type);
    }
    const place param = place_of("%s.type", where);
    return is_string(type) ? exchange_refuse_unbuilt(c->error, param.text, type, names)
                           : exchange_refuse(c->error, param.text, type, names);
}

static bool check_blocks(conversation *c, const qn_json_node *content, const block_type *types,
                         size_t n_types, const char *where)
{
    if (content == NULL || content->kind != QN_JSON_ARRAY || content->n_children == 0) {
        (void)exchange_refuse(c->error, where, content, "a text or a list of blocks");
        return false;
    }
    static const char *const known[] = {"type",     "text",      "tool_use_id", "content",
                                        "is_error", "id",        "name",        "input",
                                        "thinking", "signature", "data",        "tool_name"};
    const qn_json_node *block = content + 1;
    for (uint32_t i = 0; i < content->n_children; i++, block = qn_json_after(block)) {
        if (!check_block(c, block, types, n_types, place_of("%s[%u]", where, i).text) ||
            !ignore_others(c->x, block, known, sizeof known / sizeof *known, c->error)) {
            return false;
        }
    }
    return true;
}

/* The blocks of type text as parts; null where there are none. */
static void put_texts(server_writer *w, const qn_json_node *content)
{
    const char *before = "[";
    const qn_json_node *block = content + 1;
    for (uint32_t i = 0; i < content->n_children; i++, block = qn_json_after(block)) {
        if (has_type(block, "text")) {
            writer_put(w, before);
            writer_put(w, "{\"type\": \"text\", \"text\": ");
            writer_put_bytes(w, qn_json_member(block, "text")->text);
            writer_put(w, "}");
            before = ", ";
        }
    }
    writer_put(w, before[0] == '[' ? "null" : "]");
}

static bool has_block(const qn_json_node *content, const char *type)
{
    const qn_json_node *block = content + 1;
    for (uint32_t i = 0; i < content->n_children; i++, block = qn_json_after(block)) {
        if (has_type(block, type)) {
            return true;
        }
    }
    return false;
}

/* A text, or blocks of text. */
static bool put_content(conversation *c, const qn_json_node *content, const char *where)
{
    if (is_string(content)) {
        writer_put_bytes(&c->w, content->text);
        return true;
    }
    if (!check_blocks(c, content, &text_type, 1, where)) {
        return false;
    }
    put_texts(&c->w, content);
    return true;
}

/* ------------------------------------------------------------------------------------- results */

static const qn_json_node *content_of(const qn_json_node *block)
{
    return exchange_member(block, "content");
}

/* Tools that a search found: the prompt's format has them under their names. */
static bool put_references(conversation *c, const qn_json_node *content, const char *where)
{
    static const block_type types[] = {{"tool_reference", "tool_name", QN_JSON_STRING, "a name"}};
    if (!check_blocks(c, content, types, 1, where)) {
        return false;
    }
    const qn_json_node *block = content + 1;
    for (uint32_t i = 0; i < content->n_children; i++, block = qn_json_after(block)) {
        const qn_json_node *const name = qn_json_member(block, "tool_name");
        if (inside(name).len == 0) {
            return exchange_refuse(c->error, place_of("%s[%u].tool_name", where, i).text, name,
                                   "the name of a tool");
        }
        writer_put(&c->w, i == 0 ? "[" : ", ");
        writer_put(&c->w, "{\"type\": \"tool_reference\", \"name\": ");
        writer_put_bytes(&c->w, name->text);
        writer_put(&c->w, "}");
    }
    writer_put(&c->w, "]");
    return true;
}

static bool put_result(conversation *c, const qn_json_node *block, const char *where)
{
    const qn_json_node *const content = content_of(block);
    const qn_json_node *const is_error = exchange_member(block, "is_error");
    const place inner = place_of("%s.content", where);
    if (is_error != NULL && is_error->kind == QN_JSON_TRUE &&
        !exchange_ignore(c->x, "is_error", c->error)) {
        return false;
    }
    begin_message(c, "tool");
    if (content == NULL || is_empty(content)) {
        writer_put(&c->w, "\"\"");
    } else if (content->kind == QN_JSON_ARRAY && has_type(content + 1, "tool_reference")) {
        if (!put_references(c, content, inner.text)) {
            return false;
        }
    } else if (!put_content(c, content, inner.text)) {
        return false;
    }
    writer_put(&c->w, "}");
    return true;
}

/* The call that a result is of; CALLS_MAX: none. */
static size_t find_call(const conversation *c, const qn_json_node *id)
{
    for (size_t i = 0; i < c->n_calls; i++) {
        if (qn_json_string_compare(c->calls[i], id) == 0) {
            return i;
        }
    }
    return CALLS_MAX;
}

/* Results say by an id which call they are of, and the prompt's format by their order: they are
 * written in that of the calls. */
static bool put_results(conversation *c, const qn_json_node *content, const char *where)
{
    const qn_json_node *results[CALLS_MAX] = {NULL};
    uint32_t places[CALLS_MAX] = {0};
    const qn_json_node *block = content + 1;
    for (uint32_t i = 0; i < content->n_children; i++, block = qn_json_after(block)) {
        if (!has_type(block, "tool_result")) {
            continue;
        }
        const qn_json_node *const id = qn_json_member(block, "tool_use_id");
        const size_t i_call = find_call(c, id);
        if (i_call == CALLS_MAX || results[i_call] != NULL) {
            return exchange_refuse(c->error, place_of("%s[%u].tool_use_id", where, i).text, id,
                                   "the id of a tool_use before it that has no other result");
        }
        results[i_call] = block;
        places[i_call] = i;
    }
    for (size_t i = 0; i < c->n_calls; i++) {
        if (results[i] != NULL &&
            !put_result(c, results[i], place_of("%s[%u]", where, places[i]).text)) {
            return false;
        }
    }
    return true;
}

/* ------------------------------------------------------------------------------------- messages */

static bool put_user(conversation *c, const qn_json_node *content, const char *where)
{
    static const block_type types[] = {
        {"text", "text", QN_JSON_STRING, "a text"},
        {"tool_result", "tool_use_id", QN_JSON_STRING, "the id of a tool_use"},
    };
    if (!is_string(content)) {
        if (!check_blocks(c, content, types, 2, where) || !put_results(c, content, where)) {
            return false;
        }
        if (!has_block(content, "text")) {
            return true;
        }
    }
    begin_message(c, "user");
    if (is_string(content)) {
        writer_put_bytes(&c->w, content->text);
    } else {
        put_texts(&c->w, content);
    }
    writer_put(&c->w, "}");
    return true;
}

/* What was thought, in one string.  A block that hides it has it in its signature. */
static void put_thinking(server_writer *w, const qn_json_node *content)
{
    const qn_str mark = qn_str_of(ANTHROPIC_HIDDEN);
    const qn_json_node *block = content + 1;
    writer_put(w, "\"");
    for (uint32_t i = 0; i < content->n_children; i++, block = qn_json_after(block)) {
        const qn_json_node *const signature = qn_json_member(block, "signature");
        if (!has_type(block, "thinking")) {
            continue;
        }
        const qn_str thinking = inside(qn_json_member(block, "thinking"));
        writer_put_bytes(w, thinking);
        if (thinking.len == 0 && is_string(signature) &&
            qn_str_begins(inside(signature), mark.ptr)) {
            const qn_str hidden = inside(signature);
            writer_put_bytes(w, (qn_str){hidden.ptr + mark.len, hidden.len - mark.len});
        }
    }
    writer_put(w, "\"");
}

static bool put_calls(conversation *c, const qn_json_node *content, const char *where)
{
    const qn_json_node *block = content + 1;
    for (uint32_t i = 0; i < content->n_children; i++, block = qn_json_after(block)) {
        const qn_json_node *const id = qn_json_member(block, "id");
        const qn_json_node *const name = qn_json_member(block, "name");
        const place here = place_of("%s[%u]", where, i);
        if (!has_type(block, "tool_use")) {
            continue;
        }
        if (!is_string(id) || find_call(c, id) != CALLS_MAX) {
            return exchange_refuse(c->error, place_of("%s.id", here.text).text, id,
                                   "an id of its own");
        }
        if (!is_string(name) || inside(name).len == 0) {
            return exchange_refuse(c->error, place_of("%s.name", here.text).text, name,
                                   "the name of a tool");
        }
        if (c->n_calls == CALLS_MAX) {
            return exchange_refuse(c->error, here.text, block, "at most 256 calls in a turn");
        }
        writer_put(&c->w, c->n_calls == 0 ? ", \"tool_calls\": [" : ", ");
        writer_put(&c->w, "{\"name\": ");
        writer_put_bytes(&c->w, name->text);
        writer_put(&c->w, ", \"arguments\": ");
        writer_put_bytes(&c->w, qn_json_member(block, "input")->text);
        writer_put(&c->w, "}");
        c->calls[c->n_calls++] = id;
    }
    writer_put(&c->w, c->n_calls > 0 ? "]" : "");
    return true;
}

static bool put_assistant(conversation *c, const qn_json_node *content, const char *where)
{
    static const block_type types[] = {
        {"text", "text", QN_JSON_STRING, "a text"},
        {"thinking", "thinking", QN_JSON_STRING, "a text"},
        {"redacted_thinking", "data", QN_JSON_STRING, "a text"},
        {"tool_use", "input", QN_JSON_OBJECT, "an object"},
    };
    c->n_calls = 0;
    if (!is_string(content) && !is_empty(content) && /* an answer of nothing comes back so */
        !check_blocks(c, content, types, 4, where)) {
        return false;
    }
    begin_message(c, "assistant");
    if (is_string(content)) { /* nothing of it is taken for reasoning */
        writer_put_bytes(&c->w, content->text);
        writer_put(&c->w, ", \"reasoning_content\": \"\"");
    } else {
        put_texts(&c->w, content);
        writer_put(&c->w, ", \"reasoning_content\": ");
        put_thinking(&c->w, content);
        if (!put_calls(c, content, where)) {
            return false;
        }
    }
    writer_put(&c->w, "}");
    return true;
}

static bool put_message(conversation *c, const qn_json_node *message)
{
    static const char *const known[] = {"role", "content"};
    const qn_json_node *const role = qn_json_member(message, "role");
    const qn_json_node *const content = qn_json_member(message, "content");
    const place where = place_of("messages[%zu].content", c->i_message);
    if (!ignore_others(c->x, message, known, sizeof known / sizeof *known, c->error)) {
        return false;
    }
    if (exchange_is_text(role, "user")) {
        return put_user(c, content, where.text);
    }
    if (exchange_is_text(role, "assistant")) {
        return put_assistant(c, content, where.text);
    }
    if (!exchange_is_text(role, "system")) {
        return exchange_refuse(c->error, place_of("messages[%zu].role", c->i_message).text, role,
                               "user, assistant or system");
    }
    begin_message(c, "system");
    const bool is_good = put_content(c, content, where.text);
    writer_put(&c->w, "}");
    return is_good;
}

/* Behind the line that says who pays; all of it where there is no such line. */
static qn_str without_billing(qn_str text)
{
    if (!qn_str_begins(text, billing_line)) {
        return text;
    }
    size_t i = sizeof billing_line - 1;
    while (i + 1 < text.len && (text.ptr[i] != '\\' || text.ptr[i + 1] != 'n')) {
        i += text.ptr[i] == '\\' ? 2 : 1;
    }
    return i + 1 < text.len ? (qn_str){text.ptr + i + 2, text.len - i - 2} : (qn_str){0};
}

static bool put_system(conversation *c, const qn_json_node *system)
{
    if (system == NULL || is_empty(system)) {
        return true;
    }
    const bool is_text = is_string(system);
    const char *before = "{\"role\": \"system\", \"content\": [";
    if (!is_text && !check_blocks(c, system, &text_type, 1, "system")) {
        return false;
    }
    const qn_json_node *block = is_text ? system : system + 1;
    for (uint32_t i = 0; i < (is_text ? 1 : system->n_children); i++) {
        const qn_str all = inside(is_text ? system : qn_json_member(block, "text"));
        const qn_str text = i == 0 ? without_billing(all) : all;
        if (text.len > 0) {
            writer_put(&c->w, before);
            writer_put(&c->w, "{\"type\": \"text\", \"text\": \"");
            writer_put_bytes(&c->w, text);
            writer_put(&c->w, "\"}");
            before = ", ";
            c->has_one = true;
        }
        block = qn_json_after(block);
    }
    writer_put(&c->w, c->has_one ? "]}" : "");
    return true;
}

/* Can an answer go on behind the last message, and must it? */
static bool check_last(const conversation *c, const qn_json_node *message, bool *continues)
{
    const qn_json_node *const content = qn_json_member(message, "content");
    const bool is_text = is_string(content) || has_block(content, "text");
    *continues = exchange_is_text(qn_json_member(message, "role"), "assistant");
    if (!*continues || (c->n_calls == 0 && is_text)) {
        return true;
    }
    *continues = false;
    return c->x->only_counts ||
           exchange_refuse(c->error, place_of("messages[%zu].content", c->i_message).text, content,
                           c->n_calls > 0 ? "a tool_result behind its tool_use"
                                          : "a text that the answer goes on from");
}

bool anthropic_messages(server_exchange *x, qn_buf *out, bool *continues, server_error *error)
{
    qn_error err = {0};
    const qn_json_node *const messages = exchange_member(x->body, "messages");
    conversation c = {.x = x, .w = {.out = out, .err = &err}, .error = error};
    if (messages == NULL || messages->kind != QN_JSON_ARRAY || messages->n_children == 0) {
        return exchange_refuse(error, "messages", messages, "a list of at least one message");
    }
    writer_put(&c.w, "[");
    if (!put_system(&c, exchange_member(x->body, "system"))) {
        return false;
    }
    const qn_json_node *message = messages + 1;
    const qn_json_node *last = message;
    for (uint32_t i = 0; i < messages->n_children; i++, message = qn_json_after(message)) {
        c.i_message = i;
        last = message;
        if (!put_message(&c, message)) {
            return false;
        }
    }
    writer_put(&c.w, "]");
    return check_last(&c, last, continues) && is_written(&c.w, error);
}

/* ---------------------------------------------------------------------------------------- tools */

/* The members of a tool that the model is shown, by their names here and there. */
static void put_tool(server_writer *w, const qn_json_node *tool)
{
    static const char *const members[][2] = {
        {"name", "{\"name\": "},
        {"description", ", \"description\": "},
        {"input_schema", ", \"parameters\": "},
        {"input_examples", ", \"input_examples\": "},
        {"defer_loading", ", \"defer_loading\": "},
    };
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        const qn_json_node *const value = exchange_member(tool, members[i][0]);
        if (value != NULL) {
            writer_put(w, members[i][1]);
            writer_put_bytes(w, value->text);
        }
    }
    writer_put(w, "}");
}

static bool check_member(const qn_json_node *tool, const char *key, unsigned kinds,
                         const char *where, const char *expected, server_error *error)
{
    const qn_json_node *const value = exchange_member(tool, key);
    const unsigned kind = value != NULL ? 1U << value->kind : 1U << QN_JSON_NULL;
    return (kind & kinds) != 0 ||
           exchange_refuse(error, place_of("%s.%s", where, key).text, value, expected);
}

static bool check_tool(server_exchange *x, const qn_json_node *tool, const char *where,
                       server_error *error)
{
    enum { NONE = 1 << QN_JSON_NULL, TRUTH = 1 << QN_JSON_TRUE | 1 << QN_JSON_FALSE };
    static const char *const known[] = {"type",         "name",           "description",
                                        "input_schema", "input_examples", "defer_loading"};
    const qn_json_node *const type = exchange_member(tool, "type");
    const qn_json_node *const name = qn_json_member(tool, "name");
    if (type != NULL && !exchange_is_text(type, "custom")) {
        return exchange_refuse_unbuilt(error, place_of("%s.type", where).text, type,
                                       "custom: tools of the server's own are not built");
    }
    if (!is_string(name) || inside(name).len == 0) {
        return exchange_refuse(error, place_of("%s.name", where).text, name, "the name of a tool");
    }
    return ignore_others(x, tool, known, sizeof known / sizeof *known, error) &&
           check_member(tool, "description", NONE | 1 << QN_JSON_STRING, where, "a text", error) &&
           check_member(tool, "input_schema", 1 << QN_JSON_OBJECT, where,
                        "a JSON schema, an object", error) &&
           check_member(tool, "input_examples", NONE | 1 << QN_JSON_ARRAY, where, "a list",
                        error) &&
           check_member(tool, "defer_loading", NONE | TRUTH, where, "true or false", error);
}

bool anthropic_tools(server_exchange *x, qn_buf *out, server_error *error)
{
    qn_error err = {0};
    server_writer w = {.out = out, .err = &err};
    const qn_json_node *const tools = exchange_member(x->body, "tools");
    if (tools == NULL || is_empty(tools)) {
        return true;
    }
    if (tools->kind != QN_JSON_ARRAY) {
        return exchange_refuse(error, "tools", tools, "a list of tools");
    }
    const qn_json_node *tool = tools + 1;
    for (uint32_t i = 0; i < tools->n_children; i++, tool = qn_json_after(tool)) {
        if (!check_tool(x, tool, place_of("tools[%u]", i).text, error)) {
            return false;
        }
        writer_put(&w, i == 0 ? "[" : ", ");
        put_tool(&w, tool);
    }
    writer_put(&w, "]");
    return is_written(&w, error);
}

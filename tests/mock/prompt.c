/* SPDX-License-Identifier: Apache-2.0 */
#include "base/rng.h"
#include "mock.h"

#include <stdlib.h>

/* Hashes of blocks, each chained with those before it; open addressing, 0 is free. */
static uint64_t *g_blocks;
static size_t g_n_blocks, g_capacity;

void mock_prompt_free(mock_prompt *prompt)
{
    free(prompt->words);
    *prompt = (mock_prompt){0};
}

void mock_prompt_add(mock_prompt *prompt, uint64_t word)
{
    if (prompt->n == prompt->capacity) {
        prompt->capacity = 2 * prompt->capacity + 256;
        prompt->words = mock_grow(prompt->words, prompt->capacity, sizeof *prompt->words);
    }
    prompt->words[prompt->n++] = word;
}

void mock_prompt_add_text(mock_prompt *prompt, const char *text)
{
    static const char blanks[] = " \t\r\n\f\v";
    for (;;) {
        text += strspn(text, blanks);
        const size_t len = strcspn(text, blanks);
        if (len == 0) {
            return;
        }
        mock_prompt_add(prompt, qn_str_hash((qn_str){.ptr = text, .len = len}));
        text += len;
    }
}

static bool add_value(mock_prompt *prompt, const json_t *value)
{
    if (json_is_string(value)) {
        mock_prompt_add_text(prompt, json_string_value(value));
        return true;
    }
    if (!json_is_array(value)) {
        return false;
    }
    if (json_array_size(value) == 1 && !json_is_integer(json_array_get(value, 0))) {
        return add_value(prompt, json_array_get(value, 0));
    }
    size_t i;
    json_t *id;
    json_array_foreach(value, i, id)
    {
        if (!json_is_integer(id)) {
            return false;
        }
        mock_prompt_add(prompt, qn_rng_mix((uint64_t)json_integer_value(id) + 1));
    }
    return true;
}

static void add_role(mock_prompt *prompt, const char *role, uint32_t n_template)
{
    for (uint32_t i = 0; i < n_template; i++) {
        mock_prompt_add(prompt, qn_str_hash(qn_str_of(role)) + i);
    }
}

static bool add_content(mock_prompt *prompt, const json_t *content)
{
    if (json_is_string(content)) {
        mock_prompt_add_text(prompt, json_string_value(content));
        return true;
    }
    size_t i;
    json_t *part;
    json_array_foreach(content, i, part)
    {
        const char *const text = json_string_value(json_object_get(part, "text"));
        if (text == NULL) {
            return false;
        }
        mock_prompt_add_text(prompt, text);
    }
    return json_is_array(content);
}

bool mock_prompt_of(mock_prompt *prompt, const json_t *body, uint32_t n_template)
{
    const json_t *const messages = json_object_get(body, "messages");
    if (messages == NULL) {
        return add_value(prompt, json_object_get(body, "prompt"));
    }
    size_t i;
    json_t *message;
    json_array_foreach(messages, i, message)
    {
        const char *const role = json_string_value(json_object_get(message, "role"));
        if (role == NULL) {
            return false;
        }
        add_role(prompt, role, n_template);
        if (!add_content(prompt, json_object_get(message, "content"))) {
            return false;
        }
    }
    add_role(prompt, "assistant", n_template);
    return json_array_size(messages) > 0;
}

void mock_cache_clear(void)
{
    free(g_blocks);
    g_blocks = NULL;
    g_n_blocks = g_capacity = 0;
}

/* Where that hash is, or would be. */
static uint64_t *find(uint64_t hash)
{
    size_t i = (size_t)hash & (g_capacity - 1);
    while (g_blocks[i] != 0 && g_blocks[i] != hash) {
        i = (i + 1) & (g_capacity - 1);
    }
    return &g_blocks[i];
}

static void add(uint64_t hash)
{
    if (2 * (g_n_blocks + 1) > g_capacity) {
        uint64_t *const old = g_blocks;
        const size_t n_old = g_capacity;
        g_capacity = n_old == 0 ? 1024 : 2 * n_old;
        g_blocks = calloc(g_capacity, sizeof *g_blocks);
        if (g_blocks == NULL) {
            mock_end("memory: none, expected some for the cache");
        }
        for (size_t i = 0; i < n_old; i++) {
            if (old[i] != 0) {
                *find(old[i]) = old[i];
            }
        }
        free(old);
    }
    uint64_t *const place = find(hash);
    g_n_blocks += *place == 0 ? 1 : 0;
    *place = hash;
}

/* The hash of the next block, chained to the one before it; never 0. */
static uint64_t chain(uint64_t hash, const uint64_t *words)
{
    for (size_t i = 0; i < MOCK_BLOCK_WORDS; i++) {
        hash = qn_rng_mix(hash ^ (words[i] + 0x9E3779B97F4A7C15ULL));
    }
    return hash | 1;
}

uint32_t mock_cache_match(const mock_prompt *prompt)
{
    size_t n = 0;
    uint64_t hash = 0;
    while (g_n_blocks > 0 && n + MOCK_BLOCK_WORDS < prompt->n) {
        hash = chain(hash, prompt->words + n);
        if (*find(hash) == 0) {
            break;
        }
        n += MOCK_BLOCK_WORDS;
    }
    return (uint32_t)n;
}

void mock_cache_add(const mock_prompt *prompt)
{
    uint64_t hash = 0;
    for (size_t n = 0; n + MOCK_BLOCK_WORDS <= prompt->n; n += MOCK_BLOCK_WORDS) {
        hash = chain(hash, prompt->words + n);
        add(hash);
    }
}

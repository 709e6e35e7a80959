/* SPDX-License-Identifier: Apache-2.0 */
/* Prompts of files, and prompts made as long and as alike as a trace says. */
#include "base/file.h"
#include "base/json_doc.h"
#include "base/rng.h"
#include "base/try.h"
#include "workload_internal.h"

#include <errno.h>
#include <stdlib.h>

enum { FILE_BYTES_MAX_LOG2 = 33, DRAW_SAMPLE = 4 };

/* What vLLM's bench takes of ShareGPT, in tokens. */
enum { TURN_MIN = 4, PROMPT_MAX = 1024, TOTAL_MAX = 2048 };

/* A block of a trace.  A partial one begins as the whole one does; the first of a prompt has no
 * blank before it. */
typedef struct block {
    uint64_t hash;
    uint32_t n_tokens;
    uint32_t is_first;
} block;

typedef struct file_maker {
    bench_maker *m;
    qn_buf text;
    bench_dataset set;
    block *blocks; /* [n_blocks] owned: of all prompts in a row, then sorted and each once */
    uint64_t n_blocks;
} file_maker;

/* ----------------------------------------------------------------------------------------- traces
 */

/* How a prompt of a trace is put together. */
typedef struct layout {
    uint32_t n_text;   /* tokens but those of the template */
    uint32_t n_blocks; /* the last of them perhaps in part */
    uint32_t n_last;   /* tokens of that */
    uint32_t n_own;    /* behind the blocks */
} layout;

static layout lay_out(const bench_maker *m, const bench_entry *entry)
{
    const uint32_t n_block = bench_make_scaled(BENCH_BLOCK_TOKENS, m->o.scale);
    const uint32_t n_input = bench_make_scaled(entry->n_input, m->o.scale);
    layout l = {.n_text = n_input > m->o.n_template ? n_input - m->o.n_template : 1};
    const uint32_t n_needed = (l.n_text - 1) / n_block + 1;
    l.n_blocks = entry->n_hashes < n_needed ? entry->n_hashes : n_needed;
    const uint64_t room = (uint64_t)l.n_blocks * n_block;
    l.n_own = room < l.n_text ? l.n_text - (uint32_t)room : 0;
    l.n_last =
        room < l.n_text ? n_block : l.n_text - (l.n_blocks > 0 ? l.n_blocks - 1 : 0) * n_block;
    return l;
}

static block block_at(const file_maker *f, const bench_entry *entry, const layout *l, uint32_t i)
{
    const uint32_t n_block = bench_make_scaled(BENCH_BLOCK_TOKENS, f->m->o.scale);
    return (block){.hash = f->set.hashes[entry->first_hash + i],
                   .n_tokens = i + 1 == l->n_blocks ? l->n_last : n_block,
                   .is_first = i == 0};
}

static int compare_blocks(const void *a, const void *b)
{
    const block *const x = a;
    const block *const y = b;
    if (x->hash != y->hash) {
        return x->hash < y->hash ? -1 : 1;
    }
    if (x->n_tokens != y->n_tokens) {
        return x->n_tokens < y->n_tokens ? -1 : 1;
    }
    return (x->is_first > y->is_first) - (x->is_first < y->is_first);
}

/* All blocks of all prompts, each once, in an order to search in. */
static qn_status list_blocks(file_maker *f, uint64_t n_entries)
{
    const bench_maker *const m = f->m;
    f->blocks = calloc(f->set.n_hashes + 1, sizeof *f->blocks);
    m->workload->links = calloc(f->set.n_hashes + 1, sizeof *m->workload->links);
    if (f->blocks == NULL || m->workload->links == NULL) {
        return qn_fail(m->err, QN_E_NOMEM, ENOMEM, __func__, "%s: no memory for its blocks",
                       m->o.file);
    }
    for (uint64_t i = 0; i < n_entries; i++) {
        const bench_entry *const entry = &f->set.entries[i];
        const layout l = lay_out(m, entry);
        for (uint32_t k = 0; entry->form == BENCH_PROMPT_LENGTH && k < l.n_blocks; k++) {
            f->blocks[f->n_blocks++] = block_at(f, entry, &l, k);
        }
    }
    if (f->n_blocks == 0) {
        return QN_OK;
    }
    qsort(f->blocks, f->n_blocks, sizeof *f->blocks, compare_blocks);
    uint64_t n = 1;
    for (uint64_t i = 1; i < f->n_blocks; i++) {
        if (compare_blocks(&f->blocks[i], &f->blocks[n - 1]) != 0) {
            f->blocks[n++] = f->blocks[i];
        }
    }
    f->n_blocks = n;
    return QN_OK;
}

static qn_status make_pieces(file_maker *f, uint64_t n_entries)
{
    bench_maker *const m = f->m;
    qn_status status = QN_OK;
    QN_TRY(status, list_blocks(f, n_entries), fail);
    QN_TRY(status, bench_make_pieces(m, f->n_blocks), fail);
    for (uint64_t i = 0; i < f->n_blocks; i++) {
        bench_piece *const piece = &m->workload->pieces[i];
        piece->n_tokens = f->blocks[i].n_tokens;
        QN_TRY(status,
               bench_exact_append(&piece->text, m->exact, BENCH_TEXT_SHARED, f->blocks[i].hash,
                                  f->blocks[i].is_first == 0, piece->n_tokens, m->err),
               fail);
        QN_TRY(status, bench_make_progress(m, i, f->n_blocks + n_entries), fail);
    }
fail:
    return status;
}

/* What is shared is what an earlier request had at its beginning, too. */
static qn_status make_of_lengths(file_maker *f, bench_item *item, const bench_entry *entry,
                                 uint64_t i)
{
    bench_maker *const m = f->m;
    bench_workload *const w = m->workload;
    const layout l = lay_out(m, entry);
    bool is_shared = true;
    item->form = m->o.sends_ids ? BENCH_PROMPT_IDS : BENCH_PROMPT_TEXT;
    item->first_link = w->n_links;
    item->n_links = l.n_blocks;
    item->n_prompt = l.n_text + m->o.n_template;
    item->n_output = bench_make_scaled(item->n_output, m->o.scale);
    for (uint32_t k = 0; k < l.n_blocks; k++) {
        const block wanted = block_at(f, entry, &l, k);
        const block *const found =
            bsearch(&wanted, f->blocks, f->n_blocks, sizeof wanted, compare_blocks);
        const uint64_t place = (uint64_t)(found - f->blocks);
        bench_piece *const piece = &w->pieces[place];
        w->links[w->n_links++] = (uint32_t)place;
        is_shared = is_shared && piece->is_seen;
        item->n_shared += is_shared ? piece->n_tokens : 0;
        piece->is_seen = true;
    }
    return l.n_own == 0 ? QN_OK
                        : bench_exact_append(&item->own, m->exact, BENCH_TEXT_OWN, i,
                                             l.n_blocks > 0, l.n_own, m->err);
}

/* ---------------------------------------------------------------------------------------- prompts
 */

/* Tokens of a JSON string. */
static qn_status count_string(uint32_t *n, const bench_maker *m, qn_str string)
{
    qn_status status = QN_OK;
    qn_buf text;
    const qn_json_node node = {.text = string, .kind = QN_JSON_STRING};
    qn_buf_init(&text, SIZE_MAX / 2);
    QN_TRY(status, qn_json_string_append(&text, &node, m->err), fail);
    QN_TRY(status, bench_tokens_count(n, m->tokens, text.ptr, text.len, m->err), fail);
fail:
    qn_buf_deinit(&text);
    return status;
}

/* "FILE: line N: FIELD: what is wrong". */
static qn_status refuse(const bench_maker *m, const bench_entry *entry, const char *why)
{
    static const char *const fields[] = {"prompt", "messages", "ids", "input_length"};
    return qn_fail(m->err, QN_E_INVAL, 0, __func__, "%.250s: line %u: %s: %s", m->o.file,
                   entry->line, fields[entry->form], why);
}

static qn_status check_form(const bench_maker *m, const bench_entry *entry)
{
    if (entry->form == BENCH_PROMPT_LENGTH) {
        const uint32_t most = entry->n_input > entry->n_output ? entry->n_input : entry->n_output;
        return most * m->o.scale <= BENCH_LENGTH_MAX
                   ? QN_OK
                   : refuse(m, entry, "scaled, at most 10000000 tokens in and out expected");
    }
    if (m->o.scale != 1.0) {
        return refuse(m, entry, "with a scale, input_length expected: a prompt has its length");
    }
    if (entry->form == BENCH_PROMPT_MESSAGES && m->o.api == BENCH_COMPLETIONS) {
        return refuse(m, entry, "with /v1/completions, a prompt expected");
    }
    if (entry->form == BENCH_PROMPT_IDS && m->o.api == BENCH_CHAT) {
        return refuse(m, entry, "with the chat API, a text or messages expected");
    }
    return QN_OK;
}

/* A prompt as the file has it, without what bodies put around it. */
static qn_status make_of_prompt(const bench_maker *m, bench_item *item, const bench_entry *entry)
{
    const bool is_whole = entry->form == BENCH_PROMPT_MESSAGES;
    const size_t n_bracket = is_whole ? 0 : 1;
    qn_status status = QN_OK;
    item->form = entry->form;
    if (entry->form == BENCH_PROMPT_TEXT) {
        QN_TRY(status, count_string(&item->n_prompt, m, entry->prompt), fail);
        item->n_prompt += m->o.n_template;
    } else if (entry->form == BENCH_PROMPT_IDS) {
        item->n_prompt = entry->n_input;
    }
    QN_TRY(status,
           qn_buf_append(&item->own, entry->prompt.ptr + n_bracket,
                         entry->prompt.len - 2 * n_bracket, m->err),
           fail);
fail:
    return status;
}

static qn_status make_of_entry(file_maker *f, bench_item *item, const bench_entry *entry,
                               uint64_t i)
{
    bench_maker *const m = f->m;
    const bool has_length = entry->form == BENCH_PROMPT_LENGTH;
    qn_status status = QN_OK;
    item->at_s = entry->at_s;
    item->n_output = entry->n_output > 0 ? entry->n_output : m->o.n_output;
    QN_TRY(status, has_length ? make_of_lengths(f, item, entry, i) : make_of_prompt(m, item, entry),
           fail);
    QN_TRY(status, bench_make_end(m, item), fail);
    if (has_length) {
        QN_TRY(status, bench_make_check(m, item, item->n_prompt - m->o.n_template), fail);
    }
fail:
    return status;
}

/* As many as are asked for. */
static qn_status check_number(const bench_maker *m, uint64_t n_found)
{
    return n_found > 0 && (n_found >= m->o.n_requests || m->o.takes_fewer)
               ? QN_OK
               : qn_fail(m->err, QN_E_INVAL, 0, __func__,
                         "%.250s: %llu requests that can be used, %llu expected", m->o.file,
                         (unsigned long long)n_found,
                         (unsigned long long)(m->o.n_requests > 0 ? m->o.n_requests : 1));
}

/* In the order of the file. */
static qn_status make_lines(file_maker *f)
{
    bench_maker *const m = f->m;
    const uint64_t n = f->set.n_entries;
    bool has_lengths = false;
    qn_status status = QN_OK;
    QN_TRY(status, check_number(m, n), fail);
    for (uint64_t i = 0; i < n; i++) {
        QN_TRY(status, check_form(m, &f->set.entries[i]), fail);
        has_lengths = has_lengths || f->set.entries[i].form == BENCH_PROMPT_LENGTH;
    }
    if (has_lengths) {
        QN_TRY(status,
               bench_exact_open(&m->exact, m->tokens, m->o.sends_ids, m->o.seed, m->o.salt,
                                m->o.shared_salt, m->err),
               fail);
        QN_TRY(status, make_pieces(f, n), fail);
    }
    QN_TRY(status, bench_make_items(m, n), fail);
    for (uint64_t i = 0; i < n; i++) {
        QN_TRY(status, make_of_entry(f, &m->workload->items[i], &f->set.entries[i], i), fail);
        QN_TRY(status, bench_make_progress(m, f->n_blocks + i, f->n_blocks + n), fail);
    }
fail:
    return status;
}

/* --------------------------------------------------------------------------------------- ShareGPT
 */

static void shuffle_entries(bench_entry *entries, uint64_t n, uint64_t seed)
{
    for (uint64_t i = 1; i < n; i++) {
        const uint64_t other = qn_rng_u64(seed, DRAW_SAMPLE, i) % (i + 1);
        const bench_entry entry = entries[i];
        entries[i] = entries[other];
        entries[other] = entry;
    }
}

/* Is the conversation of a length that vLLM takes?  Then it is made. */
static qn_status try_conversation(bool *is_taken, file_maker *f, bench_item *item,
                                  const bench_entry *entry)
{
    const bench_maker *const m = f->m;
    uint32_t n_prompt = 0;
    uint32_t n_answer = m->o.n_output;
    qn_status status = QN_OK;
    QN_TRY(status, count_string(&n_prompt, m, entry->prompt), fail);
    if (n_answer == 0) {
        QN_TRY(status, count_string(&n_answer, m, entry->answer), fail);
    }
    *is_taken = n_prompt >= TURN_MIN && n_prompt <= PROMPT_MAX &&
                (n_answer >= TURN_MIN || m->o.n_output > 0) && n_prompt + n_answer <= TOTAL_MAX;
    if (*is_taken) {
        bench_entry sized = *entry;
        sized.n_output = n_answer;
        QN_TRY(status, make_of_entry(f, item, &sized, 0), fail);
    }
fail:
    return status;
}

static qn_status make_sample(file_maker *f)
{
    bench_maker *const m = f->m;
    bench_workload *const w = m->workload;
    const uint64_t n_all = f->set.n_entries;
    const uint64_t n_max = m->o.n_requests > 0 && m->o.n_requests < n_all ? m->o.n_requests : n_all;
    uint64_t n = 0;
    qn_status status = QN_OK;
    QN_TRY(status, check_number(m, n_all), fail);
    QN_TRY(status, check_form(m, &f->set.entries[0]), fail); /* all have one form */
    shuffle_entries(f->set.entries, n_all, m->o.seed);
    QN_TRY(status, bench_make_items(m, n_max), fail);
    w->made.n_skipped = f->set.n_skipped;
    for (uint64_t i = 0; i < n_all && n < n_max; i++) {
        bool is_taken = false;
        QN_TRY(status, try_conversation(&is_taken, f, &w->items[n], &f->set.entries[i]), fail);
        n += is_taken ? 1 : 0;
        w->made.n_skipped += is_taken ? 0 : 1;
        QN_TRY(status, bench_make_progress(m, n, n_max), fail);
    }
    QN_TRY(status, check_number(m, n), fail);
    w->n_items = n;
fail:
    return status;
}

qn_status bench_make_file(bench_maker *maker)
{
    static const bench_file_form forms[] = {[BENCH_SHAREGPT] = BENCH_FILE_SHAREGPT,
                                            [BENCH_CUSTOM] = BENCH_FILE_LINES,
                                            [BENCH_TRACE] = BENCH_FILE_TRACE};
    const bool is_sample = maker->o.kind == BENCH_SHAREGPT;
    file_maker f = {.m = maker};
    qn_status status = QN_OK;
    qn_buf_init(&f.text, (size_t)1 << FILE_BYTES_MAX_LOG2);
    QN_TRY(status, qn_file_read(&f.text, maker->o.file, maker->err), fail);
    QN_TRY(status,
           bench_dataset_read(&f.set, forms[maker->o.kind], qn_buf_view(&f.text), maker->o.file,
                              is_sample ? 0 : maker->o.n_requests, maker->err),
           fail);
    QN_TRY(status, is_sample ? make_sample(&f) : make_lines(&f), fail);
fail:
    bench_dataset_deinit(&f.set);
    qn_buf_deinit(&f.text);
    free(f.blocks);
    return status;
}

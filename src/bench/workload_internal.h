/* SPDX-License-Identifier: Apache-2.0 */
/** @file workload_internal.h  A workload in memory: for the files that make one. */
#ifndef QN_BENCH_WORKLOAD_INTERNAL_H
#define QN_BENCH_WORKLOAD_INTERNAL_H
#include "body.h"
#include "exact.h"
#include "workload.h"

/** Text that prompts share. */
typedef struct bench_piece {
    qn_buf text; /**< As it stands in a body. */
    uint32_t n_tokens;
    bool is_seen; /**< A request made before begins with it; of traces. */
} bench_piece;

/** A request: pieces, then text of its own. */
typedef struct bench_item {
    qn_buf own;          /**< As it stands in a body, with the body's end behind it. */
    size_t own_len;      /**< Without that end. */
    uint64_t first_link; /**< Its pieces: links[first_link .. + n_links] of the workload. */
    uint32_t n_links;
    bench_prompt_form form;
    uint32_t n_prompt, n_shared, n_output; /**< As in a bench_call. */
    double at_s;                           /**< NaN: not said. */
} bench_item;

struct bench_workload {
    bench_bodies bodies;
    bench_piece *pieces; /**< [n_pieces] owned */
    uint64_t n_pieces;
    uint32_t *links; /**< [n_links] owned: places of pieces */
    uint64_t n_links;
    bench_item *items; /**< [n_items] owned; of multi-turn all turns of a conversation in a row */
    uint64_t n_items;
    bench_item *warm; /**< [n_warm] owned */
    uint64_t n_warm;
    uint32_t n_turns; /**< Of a conversation; 1 of others. */
    qn_buf
        *histories; /**< [n_conversations] owned: what was said, without the end; of multi-turn */
    bench_made made;
};

/** What a workload is made with. */
typedef struct bench_maker {
    bench_workload *workload;
    bench_workload_options o; /**< With defaults, scaled. */
    bench_tokens *tokens;
    bench_exact *exact; /**< NULL where the file has all text. */
    bool (*progress)(void *context, double share);
    void *context;
    qn_error *err;
} bench_maker;

/** Room for items, zeroed.  QN_E_NOMEM. */
QN_MUST_CHECK qn_status bench_make_items(bench_maker *maker, uint64_t n_items);

/** Room for pieces, zeroed.  QN_E_NOMEM. */
QN_MUST_CHECK qn_status bench_make_pieces(bench_maker *maker, uint64_t n_pieces);

/** Close item's text, which is whole: the body's end goes behind it, its lengths into the sums. */
QN_MUST_CHECK qn_status bench_make_end(bench_maker *maker, bench_item *item);

/** Are an item's pieces and its own text together what their sum says?  A sample is counted. */
QN_MUST_CHECK qn_status bench_make_check(bench_maker *maker, const bench_item *item,
                                         uint32_t n_tokens);

/** Tell how far it is.  QN_E_CANCELLED. */
QN_MUST_CHECK qn_status bench_make_progress(const bench_maker *maker, uint64_t n_done,
                                            uint64_t n_all);

/** A length by the scale, at least 1 where it is not 0. */
uint32_t bench_make_scaled(double length, double scale);

/** Prompts made of words or ids: wafer, single-stream, random, prefix, multi-turn. */
QN_MUST_CHECK qn_status bench_make_synthetic(bench_maker *maker);

/** Prompts of a file, or made as a trace says. */
QN_MUST_CHECK qn_status bench_make_file(bench_maker *maker);
#endif

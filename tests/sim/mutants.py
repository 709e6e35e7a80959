#!/usr/bin/env python3
"""Canaries of the simulator: bugs planted in the scheduler, each found by the checker named for it.

usage: mutants.py --compiler CC --build DIR [--flags "..."] [NAME ...]

A mutant is a list of (file in src/sched, text that occurs once, replacement).  A copy of the
scheduler with these edits is compiled, its assertions off so that the checkers have to find it, and
run over a few seeds.  It fails where a text is not there once, where the named checker does not
report, or where the unchanged scheduler does not pass.
"""
import argparse
import os
import pathlib
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
SEEDS = ["--seeds", "1..120", "--steps", "300", "--quiet", "--jobs", "2"]
NO_ASSERT = """/* For mutants: conditions are computed and not looked at. */
#ifndef QN_BASE_ASSERT_H
#define QN_BASE_ASSERT_H
#include "base/banned.h"
_Noreturn void qn_assert_failed(const char *condition, const char *file, int line);
#define QN_ASSERT(condition)       ((void)(condition))
#define QN_DEBUG_ASSERT(condition) ((void)0)
#endif
"""

MUTANTS = [
    # (name, checker, edits)
    ("pages_leak", "pages", [
        ("pages.c", "    } else {\n        pages->free[pages->n_free++] = page;", "    } else {")]),
    ("pages_given_twice", "owner", [
        ("pages.c", "pages->free[--pages->n_free]", "pages->free[pages->n_free - 1]")]),
    ("salt_ignored", "content", [
        ("prefix_tree.c", "node->salt[0] == salt[0] &&", "salt != NULL &&"),
        ("prefix_tree.c", "node->salt[1] == salt[1] &&", ""),
        ("prefix_tree.c", "XXH3_64bits_withSeed(salt, 2 * sizeof *salt, tree->seed)",
         "tree->seed")]),
    ("page_before_ignored", "content", [
        ("prefix_tree.c", "node->parent == parent &&", "parent != 0xABCDEF &&"),
        ("prefix_tree.c", "page_bytes, hash);", "page_bytes, tree->seed);")]),
    ("half_of_the_tokens_compared", "content", [
        ("prefix_tree.c", "memcmp(tokens_of(tree, page), tokens, page_bytes)",
         "memcmp(tokens_of(tree, page), tokens, page_bytes / 2)"),
        ("prefix_tree.c", "page_bytes, hash);", "page_bytes / 2, hash);")]),
    ("published_before_complete", "publish", [
        ("result.c", "publish(sched, request, result->n_complete);",
         "publish(sched, request, n_verified);")]),
    ("published_half_full", "publish", [
        ("result.c", "n_full = n_whole / QN_PAGE_TOKENS", "n_full = qn_pages_for(n_whole)")]),
    ("published_behind_a_flush", "publish", [
        ("result.c", " || request->is_flushed", "")]),
    ("newest_evicted", "eviction", [
        ("prefix_tree.c", "const uint32_t page = tree->oldest;",
         "const uint32_t page = tree->newest;")]),
    ("evicted_without_need", "eviction", [
        ("pages.c", "if (pages->n_free > 0) {",
         "if (pages->n_free > 0 && pages->tree.n_unused == 0) {")]),
    ("half_a_prefix", "match", [
        ("sched.c", "request->n_ids - 1, request->asked.salt, hint",
         "(request->n_ids - 1) / 2, request->asked.salt, (qn_prefix_hint){.page = QN_NO_PAGE}")]),
    ("hits_miscounted", "counts", [
        ("plan.c", "n_hit_tokens += request->n_cached;", "n_hit_tokens += request->n_cached + 1;")]),
    ("slot_given_twice", "slots", [
        ("sched.c", "sched->free_slots[sched->n_free_slots++] = request->slot;",
         "sched->free_slots[sched->n_free_slots++] = request->slot / 2;")]),
    ("rows_without_bound", "budget", [
        ("plan.c", "request->n_rows = least(n_rows, sched->n_rows_left);",
         "request->n_rows = n_rows; sched->n_rows_left += n_rows;")]),
    ("drafts_not_asked_for", "budget", [
        ("plan.c", "request->n_drafts = least((uint32_t)request->asked.draft_tokens, limit);",
         "request->n_drafts = limit;")]),
    ("draft_one_too_far", "budget", [
        ("plan.c", "least(n_room - 1, sched->limits.n_draft_max)",
         "least(n_room, sched->limits.n_draft_max)")]),
    ("row_left_out", "positions", [
        ("plan.c", "const uint32_t first = request->n_ordered;",
         "const uint32_t first = request->n_ordered + (request->n_ordered > 64);")]),
    ("no_page_beneath", "positions", [
        ("plan.c", "if (!grow(sched, request, count_worst(request), true)) {",
         "if (!grow(sched, request, count_worst(request) - 1, true)) {")]),
    ("queue_without_bound", "queue", [
        ("sched.c", "sched->n_new_waiting == sched->limits.n_queue || ", "")]),
    ("stop_called_length", "end", [
        ("result.c", "qn_sched_finish(sched, request, QN_SCHED_END_STOP)",
         "qn_sched_finish(sched, request, QN_SCHED_END_LENGTH)")]),
    ("deadline_missed", "end", [
        ("sched.c", "(uint64_t)first->key <= now_us", "(uint64_t)first->key + 100000 <= now_us")]),
    ("failed_sequence_goes_on", "end", [
        ("result.c", "        qn_sched_finish(sched, request, QN_SCHED_END_ERROR);\n        return 0;",
         "        return 0;")]),
    ("tokens_of_before_a_preemption", "tokens", [
        ("result.c", "            request->n_preempted == ordered->n_preempted) {",
         "            request->n_preempted + 1 > 0) {")]),
    ("a_token_left_out", "tokens", [
        ("result.c", "request->asked.ids + request->n_ids, result->tokens,",
         "request->asked.ids + request->n_ids, result->tokens + (result->n_tokens > 2),")]),
    ("priority_ignored", "order", [
        ("order.c", "a->key != b->key ? a->key < b->key : a->number < b->number",
         "a->number < b->number")]),
    ("first_preempted", "order", [
        ("plan.c", "sched_request *const request = running_at(sched, i - 1);",
         "sched_request *const request = running_at(sched, sched->n_running - i);")]),
    ("first_prompt_starves", "starvation", [
        ("plan.c", "plan_chunk(sched, first, n_share);", "plan_chunk(sched, first, n_share / 4);")]),
    ("work_is_thrown_away", "starvation", [  # each step is right, their sum is not
        ("plan.c", "    plan_drawing(sched);\n",
         "    while (sched->n_steps % 3 == 0 && sched->n_running > 0) {\n"
         "        preempt(sched, running_at(sched, sched->n_running - 1));\n    }\n"
         "    plan_drawing(sched);\n")]),
    ("drawing_sequence_rests", "gap", [
        ("plan.c", "if (is_drawing(request) && !is_ending) {",
         "if (is_drawing(request) && !is_ending && (i == 0 || sched->n_steps % 16 != 0)) {")]),
    ("full_group_holds_all", "idle", [
        ("plan.c", ".is_full = true; /* for all that wait behind it there */\n        return true;",
         ".is_full = true;\n        return false;")]),
    ("half_of_the_slots", "idle", [
        ("plan.c", "if (sched->n_free_slots == 0) {",
         "if (sched->n_free_slots <= sched->limits.n_slots / 2) {")]),
    ("memory_of_other_runs", "determinism", [
        ("plan.c", "request->n_drafts = least((uint32_t)request->asked.draft_tokens, limit);",
         "static uint32_t n_calls; request->n_drafts = "
         "++n_calls % 97 == 0 ? 0 : least((uint32_t)request->asked.draft_tokens, limit);")]),
]


class Builder:
    """Compiles the simulator once, and of each mutant the files that it changes."""

    def __init__(self, compiler: str, flags: str, build: pathlib.Path):
        self.build = build
        self.compile = [compiler, "-std=c11", "-D_GNU_SOURCE", "-O1", "-g"]
        self.flags = shlex.split(flags)
        self.include = build / "include"
        (self.include / "base").mkdir(parents=True, exist_ok=True)
        (self.include / "base" / "assert.h").write_text(NO_ASSERT)
        self.objects = {}
        for folder in ("src/base", "tests/sim", "src/sched"):
            for source in sorted((ROOT / folder).glob("*.c")):
                self.objects[source.name if folder == "src/sched" else str(source)] = self.object(
                    source, build, folder == "src/sched")

    def object(self, source: pathlib.Path, folder: pathlib.Path, is_mutable: bool) -> str:
        target = folder / f"{source.parent.name}_{source.stem}.o"
        includes = [f"-I{self.include}"] if is_mutable else []
        includes += [f"-I{ROOT / name}" for name in ("src", "include", "tests")]
        subprocess.run([*self.compile, *self.flags, *includes, "-c", str(source), "-o", str(target)],
                       check=True)
        return str(target)

    def link(self, folder: pathlib.Path, changed: dict) -> pathlib.Path:
        program = folder / "sim"
        objects = [changed.get(name, target) for name, target in self.objects.items()]
        subprocess.run([*self.compile, *objects, "-o", str(program), *self.flags, "-ljansson",
                        "-lpthread", "-lm"], check=True)
        return program


def mutate(builder: Builder, name: str, edits: list) -> pathlib.Path:
    """The simulator with one planted bug."""
    folder = builder.build / name
    folder.mkdir(exist_ok=True)
    texts = {}
    for file, text, replacement in edits:
        source = texts.get(file) or (ROOT / "src/sched" / file).read_text()
        if source.count(text) != 1:
            raise SystemExit(f"mutants.py: error: {name}: {text!r} occurs {source.count(text)} times "
                             f"in src/sched/{file}, once expected")
        texts[file] = source.replace(text, replacement)
    changed = {}
    for file, text in texts.items():
        path = folder / file
        path.write_text(text)
        changed[file] = builder.object(path, folder, True)
    return builder.link(folder, changed)


def run(program: pathlib.Path) -> tuple:
    done = subprocess.run([str(program), *SEEDS], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          text=True, timeout=120)
    return done.returncode, done.stdout


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--compiler", default="gcc")
    parser.add_argument("--flags", default="")
    parser.add_argument("--build", required=True, type=pathlib.Path)
    parser.add_argument("names", nargs="*", help="mutants; all where none is named")
    options = parser.parse_args()
    os.makedirs(options.build, exist_ok=True)
    builder = Builder(options.compiler, options.flags, options.build)
    status, output = run(builder.link(options.build, {}))
    if status != 0:
        print(f"the scheduler as it is does not pass:\n{output}")
        return 1
    n_missed = 0
    for name, checker, edits in MUTANTS:
        if options.names and name not in options.names:
            continue
        try:
            status, output = run(mutate(builder, name, edits))
        except subprocess.TimeoutExpired:
            status, output = 0, "no end after 120 s\n"
        is_found = status == 1 and f"FAILED: {checker}: " in output
        n_missed += not is_found
        print(f"{name}: {'found by' if is_found else 'MISSED by'} {checker}", flush=True)
        if not is_found:
            print(output)
    print(f"{n_missed} missed")
    return n_missed > 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The measuring half of bench/quantize.sh: runs quern, cp and Quark in turns, prints Markdown.

    bench/quantize.py [--threads N] [--rounds N] [--venv FOLDER] LAYER OUT

LAYER is what `bench/models.py layer` made; OUT is made, emptied and removed again and again.  In
each round each cell is measured once, what went first last time going last; every figure is the
median of the rounds.  A copy is `cp -r --reflink=never` and `sync`, so that, as with quern, the
bytes are on the disk when the clock stops.  "Warm" files were read just before; of "cold" ones the
kernel was asked to drop what it has (posix_fadvise).  Progress goes to stderr.
"""
import argparse
import collections
import datetime
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
QUERN = ROOT / "build/release/quern"
KERNELCHECK = ROOT / "build/release/tests/kernelcheck"
QUARK = ROOT / "tools/quark_reference.py"
GLM_BYTES = 1507e9  # of GLM-5.2 in bf16
COPY_GOAL, QUARK_GOAL, MEMCPY_GOAL = 0.70, 50.0, 0.5
RSS_EXTRA = 256e6  # beside two tensors a thread
OTHERS_MOST = 0.05  # of the CPUs' time, above which nothing can be said

sys.path.insert(0, str(ROOT / "tests/support"))
import edge_model  # noqa: E402


def say(text):
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def run(*command):
    """Seconds that a command takes.  An error ends everything."""
    start = time.monotonic()
    done = subprocess.run([str(part) for part in command], stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"quantize: error: {' '.join(map(str, command))}: "
                 f"exit status {done.returncode}, 0 expected\n{done.stderr}")
    return time.monotonic() - start


def size(folder):
    """Bytes of its shards."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def set_cache(folder, is_warm):
    """Read all shards, or ask the kernel to forget them."""
    for path in folder.glob("*.safetensors"):
        with open(path, "rb", buffering=0) as file:
            if is_warm:
                while file.read(1 << 24):
                    pass
            else:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def empty(out):
    """Remove what a run wrote, and wait until the disk is at rest."""
    shutil.rmtree(out, ignore_errors=True)
    os.sync()


def copy(source, out):
    """cp with sync."""
    return run("sh", "-c", 'cp -r --reflink=never "$0" "$1" && sync "$1"/* "$1"', source, out)


def quern(source, out, threads):
    """The command as users run it."""
    return run(QUERN, "quantize", source, out, "--threads", threads, "-q")


def peak_memory(options, threads):
    """Most bytes that quern has in memory, asked of the kernel every few milliseconds: what
    wait4() says of a child counts what its parent had when it forked."""
    empty(options.out)
    peak = 0
    with subprocess.Popen([QUERN, "quantize", options.layer, options.out, "--threads", str(threads),
                           "-q"], stdout=subprocess.DEVNULL) as child:
        while child.poll() is None:
            status = pathlib.Path(f"/proc/{child.pid}/status").read_text(encoding="utf-8")
            found = re.search(r"^Name:\tquern\n(?s:.*)^VmHWM:\s*(\d+) kB", status, re.M)
            peak = max(peak, int(found[1]) * 1024 if found else 0)
            time.sleep(0.005)
    return peak


def quark(source, out, threads, venv):
    """Seconds of Quark without its imports, which take half a minute."""
    done = subprocess.run([sys.executable, "-B", QUARK, "--venv", venv, "--run", source, out,
                           "--threads", str(threads)],
                          capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"quantize: error: {QUARK}: exit status {done.returncode}, 0 expected\n"
                 f"{done.stderr[-2000:]}")
    return float(done.stdout.split()[-1])


def part_of(layer, folder):
    """A folder with the shard that has most experts: what Quark gets through in seconds."""
    folder.mkdir(exist_ok=True)
    shutil.copy(layer / "config.json", folder)
    shard = max(sorted(layer.glob("*.safetensors")), key=lambda path: sum(
        ".experts." in name for name in edge_model.shard_header(path)[0]))
    if not (folder / "model.safetensors").exists():
        os.link(shard, folder / "model.safetensors")
    return folder


def measure(options, part):
    """{cell: [seconds]}: a cell is (folder, program, threads, whether the files are warm); and
    {program: tensors that it made of the part}."""
    cells = [("layer", program, options.threads, is_warm)
             for is_warm in (True, False) for program in ("cp", "quern")]
    cells += [("layer", "quern", 1, True)]
    cells += [("part", "quern", threads, True) for threads in {1, options.threads}]
    if options.venv:
        cells += [("part", "quark", threads, True) for threads in {1, options.threads}]
    found, made = collections.defaultdict(list), {}
    for i_round in range(options.rounds):
        for cell in cells if i_round % 2 == 0 else reversed(cells):
            place, program, threads, is_warm = cell
            say(f"Round {i_round + 1} of {options.rounds}: {program}, {place}, {threads} threads, "
                f"{'warm' if is_warm else 'cold'}")
            source = options.layer if place == "layer" else part
            empty(options.out)
            set_cache(source, is_warm)
            if program == "cp":
                found[cell].append(copy(source, options.out))
            elif program == "quern":
                found[cell].append(quern(source, options.out, threads))
            else:
                found[cell].append(quark(source, options.out, threads, options.venv))
            if place == "part" and program not in made:
                made[program] = edge_model.facts(options.out)[0]
    empty(options.out)
    return found, made


def seconds(runs):
    """Median."""
    return statistics.median(runs)


def spread(runs):
    """The least and the most."""
    return f"{min(runs):.2f} to {max(runs):.2f}"


def verdict(value, goal):
    """A ratio in bold where it misses its goal."""
    text = f"{value:.2f}" if value < 10 else f"{value:.0f}"
    return text if value >= goal else f"**{text}**"


def print_table(options, found, part):
    """Each cell with its ratio to the peer's on the same files in the same state."""
    print("| files | state | program | threads | s (least to most) | GB/s of source | ratio | goal |\n"
          "|---|---|---|---|---|---|---|---|")
    for (place, program, threads, is_warm), runs in found.items():
        n_bytes = size(options.layer if place == "layer" else part)
        ratio = goal = ""
        if program == "quern":
            peer = ("layer", "cp", options.threads, is_warm) if place == "layer" else \
                ("part", "quark", threads, True)
            least = COPY_GOAL if place == "layer" else QUARK_GOAL
            if peer in found:
                share = verdict(seconds(found[peer]) / seconds(runs), least)
                ratio, goal = f"{share} x {peer[1]}", f"{least:g}"
        print(f"| {place}, {n_bytes / 1e9:.2f} GB | {'warm' if is_warm else 'cold'} | {program} | "
              f"{threads if program != 'cp' else ''} | {seconds(runs):.2f} ({spread(runs)}) | "
              f"{n_bytes / 1e9 / seconds(runs):.3f} | {ratio} | {goal} |")


def largest_tensor(layer):
    """Bytes of the largest tensor."""
    sizes = (end - begin for path in layer.glob("*.safetensors")
             for begin, end in re.findall(
                 rb'"data_offsets":\[(\d+),(\d+)\]',
                 path.open("rb").read(1 << 20)) for begin, end in [(int(begin), int(end))])
    return max(sizes)


def print_rest(options, found):
    """Memory, kernel, projection."""
    for threads in sorted({1, options.threads}):
        peak = peak_memory(options, threads)
        bound = 2 * threads * largest_tensor(options.layer) + RSS_EXTRA
        print(f"* peak memory with {threads} threads {peak / 1e6:.0f} MB, bound {bound / 1e6:.0f} MB"
              f"{'' if peak <= bound else ': **over**'}")
    for is_warm in (True, False):
        rate = size(options.layer) / seconds(found[("layer", "quern", options.threads, is_warm)])
        print(f"* projected from the {'warm' if is_warm else 'cold'} rate, not measured: the "
              f"1,507 GB of GLM-5.2 in {GLM_BYTES / rate / 60:.0f} min")
    done = subprocess.run([KERNELCHECK, "--bench", "--only", "mxfp4_encode"], capture_output=True,
                          text=True, check=False)
    for line in done.stdout.splitlines():
        kernel = re.match(r"(\S+) +mxfp4_encode bf16 (\S+) .* ([\d.]+) GB/s.* ([\d.]+) x memcpy", line)
        if kernel:
            goal = f" (goal of the best: {MEMCPY_GOAL:g})" if kernel[2] == "even" else ""
            print(f"* kernel, {kernel[1]}, {kernel[2]}: {kernel[3]} GB/s of bf16, {kernel[4]} x "
                  f"memcpy of the same bytes{goal}")


def print_head(options):
    """Date, machine, commit, command."""
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo", encoding="utf-8")
                if line.startswith("model name")), "unknown CPU")
    commit = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"],
                            capture_output=True, text=True, check=False).stdout.strip()
    print(f"{datetime.date.today()}, {cpu}, {os.cpu_count()} cores; commit {commit}; "
          f"{options.rounds} rounds\n\n    bench/quantize.sh --experts "
          f"{options.layer.name.rpartition('-')[2]} --rounds {options.rounds}\n")


def cpu_times():
    """Seconds of all CPUs, those of them not idle, those that this process and its took."""
    with open("/proc/stat", encoding="utf-8") as file:
        ticks = [int(field) for field in file.readline().split()[1:9]]
    own = os.times()
    unit = os.sysconf("SC_CLK_TCK")
    return sum(ticks) / unit, (sum(ticks) - ticks[3] - ticks[4]) / unit, sum(own[:4])


def main():
    """Head, table, the rest."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--venv", help="with Quark; without it Quark is left out")
    parser.add_argument("layer", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    options = parser.parse_args()
    part = part_of(options.layer, options.layer.parent / f"part-{options.layer.name}")
    start = cpu_times()
    found, made = measure(options, part)
    whole, busy, own = (now - then for now, then in zip(cpu_times(), start))
    others = max(0.0, busy - own) / whole
    print_head(options)
    print(f"* other processes took {others:.1%} of the CPUs meanwhile"
          f"{': **too much, measure again**' if others > OTHERS_MOST else ''}\n")
    print_table(options, found, part)
    print()
    if "quark" in made:
        print("* quern's tensors are", "those" if made["quern"] == made["quark"] else "**not those**",
              "that Quark made, byte for byte")
    print_rest(options, found)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""GPU kernels keep to their budgets: budgets.py list.h PLANS (NAME.log | NAME.gfx950)...

Reads what ptxas -v said and the notes of gfx950's code objects, and what the program PLANS (plans.c) prints: the
shared memory that launches add.  Fails, naming the kernel, on a spill, on more registers than list.h grants, where
registers or shared memory let fewer blocks live on a multiprocessor than list.h or a launch counts on, where
ptxas makes products of a warpgroup wait for each other or finds a fence of theirs missing, and where a kernel
of list.h is not there.  Prints SKIPPED for a target that it cannot look at.
"""
import pathlib
import re
import shutil
import subprocess
import sys

# Shared memory of a multiprocessor and what a block takes beside its own; its registers, of which threads take a
# multiple of 8 (CUDA C Programming Guide, compute capability 9.0; CDNA 4 ISA).
SHARED = {"sm_90a": (228 << 10, 1 << 10), "gfx950": (160 << 10, 0)}
REGISTERS = {"sm_90a": 64 << 10, "gfx950": 128 << 10}
# Folder beside list.h whose kernels a target alone has, and what it takes to look at one.
FOLDERS = {"sm_90a": "sm90", "gfx950": "gfx950"}
NEEDS = {"sm_90a": "a build with ptxas, which decides on registers; tools/ptxas.sh gets it",
         "gfx950": "llvm-readelf-22, of llvm-22"}


def from_ptxas(text: str):
    """Yield (kernel, registers, spilled bytes, shared bytes)."""
    for part in text.split("Compiling entry function ")[1:]:
        def number(pattern, part=part):
            found = re.search(pattern, part)
            return int(found[1]) if found else 0
        spilled = number(r"(\d+) bytes stack frame") + number(r"(\d+) bytes spill stores")
        yield re.match(r"'qn_gpu_(\w+)'", part)[1], number(r"Used (\d+) registers"), spilled, number(r"(\d+) bytes smem")


def from_notes(path: pathlib.Path):
    notes = subprocess.run(["llvm-readelf-22", "--notes", str(path)], capture_output=True, check=True, text=True).stdout
    for part in notes.split("- .agpr_count:")[1:]:
        def number(key, part=part):
            return int(re.search(rf"\.{key}: +(\d+)", part)[1])
        spilled = number("private_segment_fixed_size") + number("vgpr_spill_count") + number("sgpr_spill_count")
        yield re.search(r"\.name: +qn_gpu_(\w+)", part)[1], number("vgpr_count"), spilled, \
            number("group_segment_fixed_size")


def from_plans(program: str):
    """{kernel: [(shared bytes that launches add, blocks, 0: as list.h says)]}"""
    plans = {}
    lines = subprocess.run([program], capture_output=True, check=True, text=True).stdout.splitlines()
    for name, shared, blocks in map(str.split, lines):
        plans.setdefault(name, []).append((int(shared), int(blocks)))
    return plans


def crowding(target: str, n_threads: int, registers: int, shared: int, blocks: int):
    """Yield why a multiprocessor has no room for so many blocks."""
    total, extra = SHARED[target]
    if blocks * (shared + extra) > total:
        yield f"{shared} bytes shared, {total // blocks - extra} at most expected with {blocks} at once"
    taken = blocks * n_threads * ((registers + 7) // 8 * 8)
    if taken > REGISTERS[target]:
        yield f"{taken} registers with {blocks} at once, {REGISTERS[target]} at most expected"


def expected(list_h: pathlib.Path, names, target: str):
    """Names of list.h but those of other targets' folders."""
    others = [folder for of, folder in FOLDERS.items() if of != target]
    sources = [path.read_text() for folder in others for path in sorted(list_h.parent.glob(f"{folder}/*.c"))]
    return set(names) - {name for text in sources for name in re.findall(r"QN_GPU_KERNEL\((\w+)\)", text)}


def main() -> int:
    list_h = pathlib.Path(sys.argv[1])
    rows = re.findall(r"X\((\w+), (\d+), (\d+), (\d+)\)", list_h.read_text())
    budgets = {name: tuple(map(int, numbers)) for name, *numbers in rows}
    plans = from_plans(sys.argv[2])
    errors, seen = [f"{name}: launched, not in list.h" for name in sorted(plans.keys() - budgets.keys())], {}
    for path in map(pathlib.Path, sys.argv[3:]):
        target = "gfx950" if path.suffix == ".gfx950" else "sm_90a"
        if target == "gfx950" and shutil.which("llvm-readelf-22") is None:
            continue
        if target == "sm_90a":
            serialized = re.findall(r"wgmma.* are serialized.*'qn_gpu_(\w+)'", path.read_text())
            errors += [f"{name} ({target}): its wgmma instructions are serialized" for name in serialized]
            fenced = re.findall(r"warpgroup\.arrive is injected.*'qn_gpu_(\w+)'", path.read_text())  # note C7519
            errors += [f"{name} ({target}): ptxas adds a fence before its wgmma instructions" for name in fenced]
        found = from_notes(path) if target == "gfx950" else from_ptxas(path.read_text())
        for name, registers, spilled, shared in found:
            seen.setdefault(target, set()).add(name)
            if name not in budgets:
                errors.append(f"{name} ({target}): not in list.h")
                continue
            n_threads, blocks, registers_max = budgets[name]
            if registers > registers_max:
                errors.append(f"{name} ({target}): {registers} registers, at most {registers_max} expected")
            if spilled:
                errors.append(f"{name} ({target}): {spilled} bytes or registers on the stack, none expected")
            for launch_shared, launch_blocks in [(0, blocks)] + plans.get(name, []):
                errors += [f"{name} ({target}): {why}" for why in crowding(
                    target, n_threads, registers, shared + launch_shared, launch_blocks or blocks)]
    for target, names in seen.items():
        errors += [f"{name} ({target}): not there" for name in sorted(expected(list_h, budgets, target) - names)]
    if errors:
        print("\n".join(errors))
        return 1
    for target, names in seen.items():
        print(f"{target}: {len(names)} kernels keep to their budgets")
    for target in NEEDS:
        if target not in seen:
            print(f"SKIPPED {target}: needs {NEEDS[target]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

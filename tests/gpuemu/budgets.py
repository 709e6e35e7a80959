#!/usr/bin/env python3
"""GPU kernels keep to their budgets: budgets.py list.h (NAME.log | NAME.gfx950)...

Reads what ptxas -v said and the notes of gfx950's code objects.  Fails, naming the kernel, on a spill, on
more registers than list.h grants, where shared memory lets fewer blocks live on a multiprocessor, and where
ptxas makes products of a warpgroup wait for each other or finds a fence of theirs missing.
"""
import pathlib
import re
import subprocess
import sys

# Shared memory of a multiprocessor and what a block takes beside its own (CUDA C Programming Guide, compute
# capability 9.0; CDNA 4 ISA).
SHARED = {"sm_90a": (228 << 10, 1 << 10), "gfx950": (160 << 10, 0)}


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


def main() -> int:
    rows = re.findall(r"X\((\w+), (\d+), (\d+), (\d+)\)", pathlib.Path(sys.argv[1]).read_text())
    budgets = {name: (int(blocks), int(registers)) for name, _, blocks, registers in rows}
    errors, seen = [], 0
    for path in map(pathlib.Path, sys.argv[2:]):
        target = "gfx950" if path.suffix == ".gfx950" else "sm_90a"
        if target == "sm_90a":
            serialized = re.findall(r"wgmma.* are serialized.*'qn_gpu_(\w+)'", path.read_text())
            errors += [f"{name} ({target}): its wgmma instructions are serialized" for name in serialized]
            fenced = re.findall(r"warpgroup\.arrive is injected.*'qn_gpu_(\w+)'", path.read_text())  # note C7519
            errors += [f"{name} ({target}): ptxas adds a fence before its wgmma instructions" for name in fenced]
        found = from_notes(path) if target == "gfx950" else from_ptxas(path.read_text())
        for name, registers, spilled, shared in found:
            seen += 1
            if name not in budgets:
                errors.append(f"{name} ({target}): not in list.h")
                continue
            blocks, registers_max = budgets[name]
            total, extra = SHARED[target]
            if registers > registers_max:
                errors.append(f"{name} ({target}): {registers} registers, at most {registers_max} expected")
            if spilled:
                errors.append(f"{name} ({target}): {spilled} bytes or registers on the stack, none expected")
            if blocks * (shared + extra) > total:
                errors.append(f"{name} ({target}): {shared} bytes shared, {total // blocks - extra} at most expected")
    targets = {"gfx950" if name.endswith(".gfx950") else "sm_90a" for name in sys.argv[2:]}
    without = [target for target in SHARED if target not in targets]
    print("\n".join(errors) or f"{seen} kernels keep to their budgets on {', '.join(sorted(targets))}")
    if without:  # ptxas decides which registers of PTX are which of a multiprocessor
        print(f"not looked at: {', '.join(without)}; tools/ptxas.sh gets what sm_90a needs")
    return 1 if errors or not seen else 0


if __name__ == "__main__":
    sys.exit(main())

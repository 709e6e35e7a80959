#!/usr/bin/env python3
"""House rules that no compiler checks.  Standard library only; reads each file once.

  layers     an #include may only point down the module table (ARCHITECTURE.md)
  size       file <= 1000 lines, function <= 70 lines, GPU kernel <= 200 (old offenders:
             tools/tidy-ratchet.txt)
  width      no line over 100 columns
  heads      SPDX line first; headers say in a @file line what they own
  banned     functions that src/base replaces; getenv outside its two places; the word for unfinished work
  docs       everything declared in include/quern has a comment: functions, types, fields, enum values
  kernels    every kernel type in src/kernels/kernels.h says Shapes, Error and Source,
             and has a check_NAME in tests/kernelcheck
  references a document that any file names by its path from the root, docs/ first, exists
  places     no absolute path of a developer's machine; tree under 55 MiB, golden files under 4 MB
"""
import pathlib
import re
import subprocess
import sys

# module -> modules it may include (itself, base/json.h and the public headers are always allowed)
LAYERS = {
    "src/base": [],
    "src/device": ["src/base"],
    "src/format": ["src/base"],
    "src/tokenizer": ["src/base"],
    "src/sched": ["src/base"],
    "src/chat": ["src/base", "src/tokenizer"],
    "src/kernels": ["src/base", "src/device"],
    "src/model": ["src/base", "src/device", "src/format", "src/kernels"],
    "src/quant": ["src/base", "src/format", "src/kernels"],
    "src/inspect": ["src/base", "src/format", "src/tokenizer", "src/model"],
    "src/engine": ["src/base", "src/device", "src/sched", "src/kernels", "src/model"],
    "src/api": ["src/base", "src/device", "src/format", "src/tokenizer", "src/sched", "src/chat",
                "src/kernels", "src/model", "src/engine", "src/quant", "src/inspect"],
    "src/eval": ["src/base"],
    "src/server": ["src/base"],
    "src/report": ["src/base"],
    "src/bench": ["src/base"],
    "src/cli": ["src/server", "src/bench", "src/report"],
}
BANNED = {
    "strcpy": "memcpy or qn_buf_append", "strcat": "qn_buf_append", "sprintf": "snprintf",
    "vsprintf": "vsnprintf", "strtok": "strcspn", "atoi": "strtoull", "atof": "strtod", "alloca": "an arena",
    "rand": "qn_rng_u64", "gets": "fgets", "gmtime": "gmtime_r", "localtime": "localtime_r",
}
GETENV_PLACES = {"src/base/env.c", "src/cli/report.c"}
FILE_MAX, FUNCTION_MAX, GPU_KERNEL_MAX, WIDTH_MAX = 1000, 70, 200, 100
TREE_BYTES_MAX, GOLDEN_BYTES_MAX = 55 << 20, 4_000_000
SOURCE = {".c", ".h"}
UNFINISHED = "TO" + "DO"
# A document by its path from the root; docs/ in another folder or on a web site is no such path.
DOCUMENT = re.compile(r"(?<![\w.-])(?<![\w.-]/)docs/[\w./-]*\.md\b")
# Where a checkout or a home lies on somebody's machine.
PLACES = re.compile(r"(?<![\w.])/(?:work|root|home)/\w+")


def blank_comments(text: str) -> str:
    """Replace comments and literals by spaces, keeping every newline."""
    pattern = r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\''
    return re.sub(pattern, lambda m: re.sub(r"[^\n]", " ", m.group()), text, flags=re.S)


def functions(code: str):
    """Yield (name, first line, last line) of each function body that starts in column 0."""
    lines = code.split("\n")
    start = name = None
    for number, line in enumerate(lines, 1):
        if line.startswith("{") and number > 1:
            head = " ".join(lines[max(0, number - 8):number - 1])
            found = re.findall(r"(\w+)\s*\(", re.split(r"[;}]", head)[-1])
            start, name = number, found[0] if found else "?"
        elif line.startswith("}") and start:
            yield name, start, number
            start = None


def module_of(path: str):
    return next((m for m in LAYERS if path == m or path.startswith(m + "/")), None)


def check_lines(rel: str, lines: list, errors: list):
    home = module_of(rel)
    for number, line in enumerate(lines, 1):
        if len(line.expandtabs(4)) > WIDTH_MAX and "http" not in line:
            errors.append(f"{rel}:{number}: line is over {WIDTH_MAX} columns")
        included = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
        if not included or not home or included.group(1) == "base/json.h":
            continue
        target = module_of("src/" + included.group(1))
        if target and target != home and target not in LAYERS[home]:
            errors.append(f"{rel}:{number}: {home} must not include {target}")


def check_file(root: pathlib.Path, path: pathlib.Path, ratchet: set, errors: list):
    rel = path.relative_to(root).as_posix()
    text = path.read_text(encoding="utf-8")
    code = blank_comments(text)
    lines = text.split("\n")
    if not lines[0].startswith("/* SPDX-License-Identifier: Apache-2.0 */"):
        errors.append(f"{rel}:1: no SPDX line")
    if path.suffix == ".h" and "@file " + path.name not in text:
        errors.append(f"{rel}:1: no '@file {path.name}  What it owns.'")
    if len(lines) > FILE_MAX and rel not in ratchet:
        errors.append(f"{rel}:1: file has {len(lines)} lines (limit {FILE_MAX})")
    check_lines(rel, lines, errors)
    for name, first, last in functions(code):
        limit = GPU_KERNEL_MAX if name == "QN_GPU_KERNEL" else FUNCTION_MAX
        if last - first + 1 > limit and f"{rel}:{name}" not in ratchet:
            errors.append(f"{rel}:{first}: {name}() has {last - first + 1} lines (limit {limit})")
    for match in re.finditer(r"(?<![\w.>])(" + "|".join(BANNED) + r")\s*\(", code):
        number = code.count("\n", 0, match.start()) + 1
        errors.append(f"{rel}:{number}: {match[1]}() is banned, use {BANNED[match[1]]}")
    if rel.startswith("src/") and rel not in GETENV_PLACES and re.search(r"\bgetenv\s*\(", code):
        errors.append(f"{rel}: getenv() belongs in {' or '.join(sorted(GETENV_PLACES))}")
    if rel.startswith("include/"):
        check_public(rel, text, code, lines, errors)


def has_comment(lines: list, number: int) -> bool:
    """Does line `number` (from 1) end a comment on it, or does one end right above?"""
    if "/**<" in lines[number - 1]:
        return True
    above = number - 2
    while above > 0 and re.match(r"(QN_[A-Z_]+(\(.*\))?\s*)+$", lines[above]):
        above -= 1
    return lines[above].rstrip().endswith("*/")


def check_public(rel: str, text: str, code: str, lines: list, errors: list):
    code_lines = code.split("\n")
    for match in re.finditer(r"^(?:QN_\w+(?:\([^)]*\))? )*[a-z][\w \*]*\bqn_\w+\([^;{]*\);", code, flags=re.M):
        number = code.count("\n", 0, match.start()) + 1
        if not has_comment(lines, number):
            errors.append(f"{rel}:{number}: public function without a comment above it")
    for match in re.finditer(r"^typedef [^\n]*", code, flags=re.M):
        number = code.count("\n", 0, match.start()) + 1
        if not has_comment(lines, number):
            errors.append(f"{rel}:{number}: public type without a comment above it")
    check_members(rel, text, code_lines, lines, errors)


def check_members(rel: str, text: str, code_lines: list, lines: list, errors: list):
    """Each field and enum value has a comment behind it or above it; a count n_x, where one says [n_x]."""
    inside, first = False, None
    for number, line in enumerate(code_lines, 1):
        if re.match(r"(typedef )?(struct|enum)( \w+)? \{", line):
            inside = True
        elif line.startswith("}"):
            inside = False
        elif inside and line.strip():
            first = first or number  # a declaration may take several lines
            if not line.rstrip().endswith((";", ",")) and not code_lines[number].startswith("}"):
                continue
            count = re.search(r"\bn_\w+(?=;)", line)
            is_told = "/**<" in lines[number - 1] or (count and f"[{count[0]}]" in text)
            if not is_told and not ends_comment(lines, first - 1):
                errors.append(f"{rel}:{first}: public field or value without a comment")
            first = None


def ends_comment(lines: list, number: int) -> bool:
    """Does a comment that stands by itself end on line `number` (from 1)?"""
    if not lines[number - 1].rstrip().endswith("*/"):
        return False
    while "/*" not in lines[number - 1]:
        number -= 1
    return lines[number - 1].lstrip().startswith("/**") and "/**<" not in lines[number - 1]


def check_kernels(root: pathlib.Path, errors: list):
    header = root / "src/kernels/kernels.h"
    if not header.exists():
        return
    checks = "\n".join(p.read_text() for p in (root / "tests/kernelcheck").glob("*.c"))
    pattern = r"(/\*\*(?:(?!\*/).)*\*/)?\s*typedef \w+ qn_(\w+)_fn\("
    for match in re.finditer(pattern, header.read_text(), flags=re.S):
        doc, name = match[1] or "", match[2]
        missing = [w for w in ("Shapes", "Error", "Source") if w not in doc]
        if missing:
            errors.append(f"src/kernels/kernels.h: {name}: comment lacks {', '.join(missing)}")
        if f"check_{name}" not in checks:
            errors.append(f"src/kernels/kernels.h: {name}: no check_{name} in tests/kernelcheck")


def tracked(root: pathlib.Path) -> list:
    """Files of the tree: git's, or all outside build folders where there is no git."""
    found = subprocess.run(["git", "-C", str(root), "ls-files", "-co", "--exclude-standard", "-z"],
                           capture_output=True, check=False)
    if found.returncode == 0 and found.stdout:
        return [root / name for name in found.stdout.decode().split("\0") if name and (root / name).is_file()]
    return [p for p in root.rglob("*") if p.is_file() and not {"build", ".git"} & set(p.relative_to(root).parts)]


def check_tree(root: pathlib.Path, errors: list):
    files = tracked(root)
    total = sum(p.stat().st_size for p in files)
    golden = sum(p.stat().st_size for p in files if p.relative_to(root).as_posix().startswith("tests/golden/"))
    if total > TREE_BYTES_MAX:
        errors.append(f"tree: {total} bytes (limit {TREE_BYTES_MAX})")
    if golden > GOLDEN_BYTES_MAX:
        errors.append(f"tests/golden: {golden} bytes (limit {GOLDEN_BYTES_MAX})")
    for path in files:
        rel = path.relative_to(root).as_posix()
        if path.suffix in {".safetensors", ".bin", ".gz", ".png"} or path.stat().st_size > 300_000:
            continue
        is_data = rel.startswith("tests/golden/") and path.suffix not in SOURCE
        if is_data or rel.startswith(("tests/fuzz/corpus/", "models/")):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.split("\n"), 1):
            if PLACES.search(line):
                errors.append(f"{rel}:{number}: an absolute path of somebody's machine")
            for name in DOCUMENT.findall(line):
                if not (root / name).is_file():
                    errors.append(f"{rel}:{number}: {name} does not exist")
            if re.search(rf"\b{UNFINISHED}\b", line) and not rel.endswith(".md"):
                errors.append(f"{rel}:{number}: {UNFINISHED} is banned: finish it, or say what would decide it")


def main() -> int:
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    ratchet_file = root / "tools/tidy-ratchet.txt"
    ratchet = set(ratchet_file.read_text().split()) if ratchet_file.exists() else set()
    errors = []
    for top in ("include", "src", "tests", "examples"):
        for path in sorted((root / top).rglob("*")):
            if path.suffix in SOURCE:
                check_file(root, path, ratchet, errors)
    check_kernels(root, errors)
    check_tree(root, errors)
    print("\n".join(errors) or "tidy: clean")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())

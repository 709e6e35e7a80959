# Sourced by scripts of this folder that make models: where, and each of them once.

# open_folder KEEP [PARENT]: $folder is KEEP, or where that is empty a folder that goes with the script.
open_folder() {
    folder=$1
    if [ -z "$folder" ]; then
        folder=$(mktemp -d ${2:+"$2/models.XXXXXX"})
        trap 'rm -rf "$folder"' EXIT
        trap 'exit 130' INT TERM
    fi
    mkdir -p "$folder"
}

# make NAME COMMAND...: a model that COMMAND writes to the folder named last; never half there.
make() {
    name=$1
    shift
    [ -e "$folder/$name" ] && return
    echo "Making $name" >&2
    rm -rf "$folder/new"
    "$@" "$folder/new" >&2 && mv "$folder/new" "$folder/$name"
}

# make_formats QUERN: glm-nano as $folder/fp8 (needs numpy) and $folder/mxfp4.
make_formats() {
    python=python3
    "$python" -c 'import numpy' 2>/dev/null || python=/usr/bin/python3 # Debian's has Debian's numpy
    make fp8 "$python" -B bench/models.py fp8 models/glm-nano
    make mxfp4 "$1" quantize -q models/glm-nano
}

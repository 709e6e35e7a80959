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

#!/bin/bash
# A stand-in for apptainer and singularity on the demonstration cluster. It isolates nothing: it checks that
# the image exists and runs the command on this machine, with the demonstration's Python first on PATH.
program=${0##*/}
fatal() { printf 'FATAL:   %s\n' "$1" >&2; exit 255; }
case "${1:-}" in
    --version | version) echo "$program version 1.3.0-demo-stand-in"; exit 0 ;;
    exec) shift ;;
    *) fatal "this stand-in knows only: $program exec [options] image command…" ;;
esac
folder=
while [ $# -gt 0 ]; do
    case "$1" in
        --bind | -B | --env | --workdir | -W | --home | -H | --env-file | --overlay)
            [ "$1" = --env ] && export "${2?}"
            shift 2 || fatal "an option lacks its value" ;;
        --pwd | --cwd) folder=${2-}; shift 2 || fatal "an option lacks its value" ;;
        --pwd=* | --cwd=*) folder=${1#*=}; shift ;;
        --env=*) export "${1#--env=}"; shift ;;
        --) shift; break ;;
        -*) shift ;;
        *) break ;;
    esac
done
image=${1-}
[ -n "$image" ] || fatal "no image was named"
shift
[ -e "$image" ] || fatal "could not open image $image: failed to retrieve path for $image: no such file or directory"
[ -f "$image" ] || fatal "could not open image $image: image format not recognized"
[ -r "$image" ] || fatal "could not open image $image: permission denied"
[ $# -gt 0 ] || fatal "no command was named"
printf 'INFO:    stand-in for %s: %s is not a container here; running on this machine\n' "$program" "$image" >&2
[ -z "$folder" ] || cd "$folder" || fatal "cannot change to $folder"
PATH="@VENV@:$PATH"
export PATH APPTAINER_CONTAINER="$image"
exec "$@"

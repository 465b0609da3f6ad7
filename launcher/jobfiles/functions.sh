# Functions for job scripts. The portal puts this file into the session folder; every script begins with
#     session_folder=...
#     . "$session_folder/functions.sh" || exit 70
# From then on everything that is printed goes to the session's log, which the portal shows. Lines that begin with
# "footbridge:" are read by the portal (launcher/joblog.py, where the exit codes are explained too).
# shellcheck shell=bash disable=SC2154 # the script that reads this file sets session_folder

umask 077
exec >>"$session_folder/session.log" 2>&1 </dev/null

_server_pid=
_signals=0
_runtime_folder=

step() { # name: tells the portal how far we are
  printf 'footbridge: step=%s at=%s\n' "$1" "$(date +%s)"
}

fail() { # status, word, subject, sentence: tells why, and ends the job
  printf '%s\n' "$4"
  printf 'footbridge: failed=%s subject=%s\n' "$2" "$3"
  exit "$1"
}

_clean_up() {
  local status=$? was_socket=
  if grep -qs '"socket"' "$session_folder/connection.json"; then was_socket=1; fi
  rm -f -- "$session_folder/connection.json"
  # A job that was killed may be run again by the scheduler; one whose server went by itself will not.
  if [ "$_signals" -eq 0 ]; then rm -f -- "$session_folder/secret"; fi
  if [ -n "$_runtime_folder" ] && [ -n "$was_socket" ]; then
    # Until the portal has heard of the end it may ask at this path. While the folder is there and ours, nobody else can
    # make one of its name and answer. A later job takes it away.
    find "$_runtime_folder" -mindepth 1 -delete
    touch "$_runtime_folder"
  elif [ -n "$_runtime_folder" ]; then
    rm -rf -- "$_runtime_folder"
  fi
  printf 'footbridge: step=ended at=%s\n' "$(date +%s)"
  printf 'The job script ends with status %s.\n' "$status"
}

_pass_on() { # the scheduler wants the end: the server saves what it has to save, and so do its kernels
  _signals=$((_signals + 1))
  if [ -n "$_server_pid" ]; then kill -TERM "$_server_pid" 2>/dev/null; else exit 143; fi
}

trap _clean_up EXIT
trap _pass_on TERM INT HUP

begin() { # before anything else
  rm -f -- "$session_folder/connection.json" # of an earlier run of the same job
  local name
  for name in settings.json secret server_config.py; do
    if [ ! -r "$session_folder/$name" ]; then
      fail 70 files_missing "$name" "The file $name is missing in the session's folder."
    fi
  done
  # Kernels talk through sockets in this folder. It must be local, closed to others, and have a short name: a socket's
  # path has at most 107 bytes.
  local parent=${TMPDIR:-/tmp}
  if [ ${#parent} -gt 40 ] || [ ! -d "$parent" ] || [ ! -w "$parent" ]; then parent=/tmp; fi
  find "$parent" -maxdepth 1 -type d -user "$(id -u)" -name 'fb.????????' -empty -mmin +60 \
    -exec rmdir -- {} + 2>/dev/null || true
  if _runtime_folder=$(mktemp -d "$parent/fb.XXXXXXXX"); then
    export JUPYTER_RUNTIME_DIR=$_runtime_folder
  else
    export JUPYTER_RUNTIME_DIR=$session_folder/runtime
  fi
  FOOTBRIDGE_HOST=$(_execution_host)
  export FOOTBRIDGE_HOST
  # A user's own settings must not decide how the portal's server may be reached.
  unset JUPYTER_TOKEN JUPYTER_TOKEN_FILE JUPYTER_PORT JUPYTER_PORT_RETRIES
  echo "This is $FOOTBRIDGE_HOST."
}

_execution_host() { # the scheduler's name for this computer, else its own
  local host=${SLURMD_NODENAME:-}
  if [ -z "$host" ] && [ -r "${PBS_NODEFILE:-}" ]; then IFS= read -r host <"$PBS_NODEFILE" || true; fi
  printf '%s' "${host:-$(uname -n)}"
}

load_modules() { # names
  local name
  for name in "$@"; do _load_module "$name"; done
}

_define_module() { # batch shells often come without the module command
  local file
  for file in "${LMOD_PKG:-/usr/share/lmod/lmod}/init/bash" "${MODULESHOME:-/usr/share/modules}/init/bash" \
    /etc/profile.d/modules.sh /etc/profile.d/lmod.sh /etc/profile.d/z00_lmod.sh; do
    if [ "$(type -t module)" = function ]; then return 0; fi
    # shellcheck disable=SC1090 # these are the site's own files
    if [ -r "$file" ]; then . "$file"; fi
  done
  [ -n "$(type -t module)" ]
}

_load_module() { # name
  local messages=$session_folder/module.messages status
  set +u # the module system's own scripts use unset variables
  if ! _define_module; then
    fail 71 module_missing "$1" "There is no module command on this computer, so the module $1 cannot be loaded."
  fi
  module load "$1" 2>"$messages"
  status=$?
  set -u
  cat -- "$messages"
  # Old module systems report success whatever happened, so their words count too.
  if [ "$status" -ne 0 ] ||
    grep -Eq 'Unable to locate a modulefile|module\(s\) are unknown|cannot be loaded as requested|:ERROR:' "$messages"; then
    rm -f -- "$messages"
    fail 71 module_missing "$1" "The module $1 could not be loaded."
  fi
  rm -f -- "$messages"
}

use_environment() { # kind, value
  case $1 in
    module) _load_module "$2" ;;
    path) _activate "$2" ;;
  esac
}

_activate() { # path of a conda or virtual environment
  local path=$1 file
  case $path in \~/*) path=$HOME/${path#\~/} ;; esac
  path=${path%/}
  if [ ! -x "$path/bin/python" ] && [ ! -x "$path/bin/python3" ]; then
    fail 72 environment_missing "$1" "There is no conda or virtual environment at $1."
  fi
  unset PYTHONHOME
  export PATH=$path/bin:$PATH
  _environment_folder=$path
  if [ ! -d "$path/conda-meta" ]; then
    export VIRTUAL_ENV=$path
    return
  fi
  export CONDA_PREFIX=$path CONDA_DEFAULT_ENV=$path
  set +u # what packages do on activation is not ours to judge
  for file in "$path"/etc/conda/activate.d/*.sh; do
    # shellcheck disable=SC1090 # they belong to the user's environment
    if [ -r "$file" ]; then . "$file"; fi
  done
  set -u
}

enter_folder() { # absolute, or below the home folder; empty: the home folder
  local folder=$1
  case $folder in /*) ;; *) folder=$HOME/$folder ;; esac
  if ! cd -- "$folder"; then
    fail 77 folder_missing "$1" "The working folder $folder cannot be entered."
  fi
}

run_jupyter() { # commands to try, in this order
  local name command=
  for name in "$@"; do
    # Of an environment that was named we want its own Jupyter, not one that lies elsewhere on the path.
    if [ -n "${_environment_folder:-}" ]; then
      if [ -x "$_environment_folder/bin/$name" ]; then command=$_environment_folder/bin/$name; fi
    else
      command=$(command -v "$name")
    fi
    if [ -n "$command" ]; then break; fi
  done
  if [ -z "$command" ]; then
    fail 75 jupyter_missing "${_environment_folder:-}" "There is no Jupyter in this environment (looked for: $*)."
  fi
  echo "Starting $command"
  _run "$command" "--config=$session_folder/server_config.py"
}

find_container_runtime() { # sets container_runtime
  for container_runtime in apptainer singularity; do
    if command -v "$container_runtime" >/dev/null; then return 0; fi
  done
  fail 74 runtime_missing "$FOOTBRIDGE_HOST" "This computer has neither apptainer nor singularity."
}

run_jupyter_in_container() { # image, number of GPUs, commands to try
  local image=$1 gpus=$2 folder
  shift 2
  if [ ! -r "$image" ]; then
    fail 73 image_missing "$image" "The container image $image is not there, or you may not read it."
  fi
  local -a options=()
  if [ "$gpus" -gt 0 ]; then options+=(--nv); fi
  for folder in "$session_folder" "$JUPYTER_RUNTIME_DIR" "$PWD"; do
    # A comma or a colon would mean something else to --bind. The home folder is there without it.
    case $folder in *[,:]*) ;; *) options+=(--bind "$folder") ;; esac
  done
  echo "Starting $container_runtime with $image"
  # shellcheck disable=SC2016 # this is for the shell inside the container
  _run "$container_runtime" exec "${options[@]}" --pwd "$PWD" "$image" /bin/sh -c '
    config=$1
    shift
    for name in "$@"; do
      if command -v "$name" >/dev/null 2>&1; then exec "$name" "--config=$config"; fi
    done
    echo "There is no Jupyter in this image (looked for: $*)."
    echo "footbridge: failed=jupyter_missing subject="
    exit 75' start "$session_folder/server_config.py" "$@"
}

_spare_imports() { # prints a PYTHONPATH that lets the server start in half the time
  # jsonschema looks for rfc3987_syntax, which builds a parser for more than a second, to check a format that Jupyter
  # never asks for. It is optional: an ImportError is answer enough. server_config.py takes the folder away again.
  local folder=$JUPYTER_RUNTIME_DIR/spared
  if mkdir -p -- "$folder" && echo 'raise ImportError("spared")' >"$folder/rfc3987_syntax.py"; then
    printf '%s' "$folder${PYTHONPATH:+:$PYTHONPATH}"
  else
    printf '%s' "${PYTHONPATH:-}"
  fi
}

_run() { # a command: runs it as a child, passes signals on, ends with its status
  local status seen
  if [ "$_signals" -gt 0 ]; then exit 143; fi
  PYTHONPATH=$(_spare_imports) "$@" &
  _server_pid=$!
  while :; do
    seen=$_signals
    wait "$_server_pid"
    status=$?
    # A signal ends "wait" too; then the server is still at work.
    if [ "$_signals" -eq "$seen" ]; then break; fi
  done
  _server_pid=
  exit "$status"
}

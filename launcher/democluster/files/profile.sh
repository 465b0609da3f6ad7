# The login environment of the demonstration cluster. Read by each home's .bash_profile.
# @ROOT@ and @VENV@ are filled in when the cluster starts.

DEMO_ROOT=@ROOT@
DEMO_VENV_BIN=@VENV@
# The site's default environment has Jupyter; the module puts it first.
PATH="$PATH:$DEMO_ROOT/pbs/bin:$DEMO_ROOT/standins:$DEMO_VENV_BIN"
if [ -n "${DEMO_NODE:-}" ]; then
    # All nodes are this machine: let "hostname" name the node that the scheduler chose.
    PATH="$DEMO_ROOT/node-bin:$PATH"
fi
export PATH

module() {
    local name="${2:-}"
    case "${1:-}" in
        load | add)
            shift
            for name in "$@"; do
                case "$name" in
                    anaconda/5.3.0 | anaconda | python/3.11 | python)
                        case ":${LOADEDMODULES:-}:" in *":$name:"*) continue ;; esac
                        PATH="$DEMO_VENV_BIN:$PATH"
                        LOADEDMODULES="${LOADEDMODULES:+$LOADEDMODULES:}$name"
                        export PATH LOADEDMODULES
                        ;;
                    *)
                        printf "ERROR: Unable to locate a modulefile for '%s'\n" "$name" >&2
                        return 1
                        ;;
                esac
            done
            ;;
        avail | av)
            printf '%s\n' "------------------ $DEMO_ROOT/modulefiles ------------------" "anaconda/5.3.0  python/3.11" >&2
            ;;
        list)
            if [ -z "${LOADEDMODULES:-}" ]; then
                echo 'No Modulefiles Currently Loaded.' >&2
            else
                printf 'Currently Loaded Modulefiles:\n 1) %s\n' "${LOADEDMODULES//:/ 2) }" >&2
            fi
            ;;
        purge)
            unset LOADEDMODULES
            ;;
        *)
            printf "ERROR: Invalid command '%s'\n" "${1:-}" >&2
            return 1
            ;;
    esac
}
export -f module
export DEMO_ROOT DEMO_VENV_BIN

# What people get who ask for no environment of their own.
module load python/3.11

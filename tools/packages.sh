# Sourced by quickstart and check: installs Debian packages that are missing.

# install_packages yes|no PACKAGE...
install_packages() {
    may_install=$1
    shift
    missing=""
    for package in "$@"; do
        case $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) in
        "install ok installed") ;;
        *) missing="$missing $package" ;;
        esac
    done
    [ -n "$missing" ] || return 0
    if [ "$may_install" = no ]; then
        echo "error: packages:$missing are missing, expected them installed" >&2
        exit 4
    fi
    sudo=""
    if [ "$(id -u)" != 0 ]; then
        sudo=sudo
        command -v sudo >/dev/null || {
            echo "error: packages:$missing are missing, expected root or sudo to install them" >&2
            exit 4
        }
    fi
    echo "Installing:$missing"
    log=$(mktemp)
    if ! { $sudo apt-get update -q && $sudo env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends $missing; } >"$log" 2>&1; then
        tail -20 "$log" >&2
        rm -f "$log"
        echo "error: packages: apt-get failed, expected$missing to install" >&2
        exit 4
    fi
    rm -f "$log"
}

#!/bin/bash
# Boot a real systemd over a copy of this machine that is thrown away, and run one command inside.
#
#   tests/boot.sh SCRATCH_DIRECTORY COMMAND [ARGUMENT …]
#
# The machine's own files lie below, read-only; what is written lands in memory. The container has no network but its own
# loopback; its first process is written into the file init. Only the container that was started here is ended. Exit 125 says that this machine refuses it.
set -uo pipefail
scratch=$1
shift
layers=$scratch/layers root=$scratch/root container='' init=''

refuse() {
    echo "refused: $1" >&2
    exit 125
}

end() {
    if [ -n "$container" ]; then
        [ -n "$init" ] && inside systemctl poweroff >/dev/null 2>&1
        timeout 20 tail --pid="$container" -f /dev/null
        kill -9 "$container" 2>/dev/null
        wait "$container" 2>/dev/null
    fi
    umount "$root" 2>/dev/null
    umount "$layers" 2>/dev/null
}

inside() { nsenter --target "$init" --mount --uts --ipc --net --pid --cgroup "$@"; }

# The first process of the container, once its systemd says that everything is up.
booted() {
    init=$(cat "/proc/$container/task/$container/children" 2>/dev/null)
    init=${init%% *}
    [ -n "$init" ] && case $(inside systemctl is-system-running 2>/dev/null) in running | degraded) ;; *) false ;; esac
}

command -v systemd-nspawn >/dev/null || refuse 'systemd-nspawn is missing: apt-get install systemd-container'
[ "$(id -u)" -eq 0 ] || refuse 'only root can start a container'
# Two containers in one control group would end each other's processes, so there is one at a time.
exec 9>/var/tmp/containerstacks-machine.lock
flock --timeout 900 9 || refuse 'another container of these tests is still running'
mkdir -p "$layers" "$root"
trap end EXIT
mount -t tmpfs -o size=2g tmpfs "$layers" 2>/dev/null || refuse 'a file system in memory may not be mounted here'
mkdir "$layers/written" "$layers/work"
mount -t overlay overlay -o "lowerdir=/,upperdir=$layers/written,workdir=$layers/work" "$root" 2>/dev/null ||
    refuse 'an overlay over the root may not be mounted here'
# The container has a /tmp and a /run of its own; a checkout in there is brought along.
checkout=$(cd "$(dirname "$0")/.." && pwd)
case $checkout in /tmp/* | /run/*) along=(--bind-ro="$checkout") ;; *) along=() ;; esac
# The name of the directory tells whose container this is.
systemd-nspawn "${along[@]}" --quiet --directory="$root" --machine="billing-$$" --register=no --keep-unit --private-network --boot \
    --console=read-only systemd.unit=multi-user.target systemd.mask=postgresql.service \
    </dev/null >"$scratch/console.log" 2>&1 &
container=$!
for _ in {1..300}; do
    booted && break
    kill -0 "$container" 2>/dev/null || refuse "systemd-nspawn ended: $(tail -n 3 "$scratch/console.log" | tr '\n' ' ')"
    read -rt 0.1 <> <(:) || true
done
booted || refuse 'systemd did not come up within 30 s'
echo "$init" >"$scratch/init"
inside "$@"

#!/usr/bin/env bash
# The README's first commands as a stranger types them, on a machine that has nothing: a fresh Debian 12 with git (debootstrap, minbase) below
# ${TMPDIR:-/tmp} with a clone of this tree's HEAD at this tree's path, root and no sudo. Of this machine it sees two wheels, the
# compiler's cache, and what its network needs. Wants root, 8 GB of disk and the network, and ends with 77 where there is no making such a
# machine; leaves nothing behind, also when interrupted.
#   tests/bare.sh            the quickstart, then tests/run.sh
#   tests/bare.sh --short    the quickstart up to its first ranking
#   tests/bare.sh --cold     the same without the compiler's cache: what a stranger waits for
#   tests/bare.sh --ci       the quickstart up to its first ranking, then .ci/run --here with ../shared, read-only; 77 also where HEAD is not
#                            the tree
set -euo pipefail
cd "$(dirname "$0")/.."
tree=$PWD

commands=("examples/quickstart.sh" "tests/run.sh")
cache=$(ccache --get-config cache_dir 2>/dev/null || echo "${CCACHE_DIR:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/ccache}")
shared=
case "${1:-}" in
  "") ;;
  --short) commands=("examples/quickstart.sh rank") ;;
  --cold) commands=("examples/quickstart.sh rank") cache= ;;
  --ci)
    commands=("examples/quickstart.sh rank" ".ci/run --here")
    [[ ! -d ../shared ]] || shared=$(realpath ../shared)
    ;;
  *) sed -n '6,10s/^# //p' "$0" >&2; exit 2 ;;
esac

note() { echo "bare: $*"; }
fail() { echo "bare: error: $*" >&2; exit 1; }
cannot() { echo "bare: skipped: $*" >&2; exit 77; }  # says nothing of the tree: this machine makes no fresh one
[[ $(id -u) == 0 ]] || cannot "chroot and mounts need root: sudo tests/bare.sh"
if ! command -v debootstrap >/dev/null; then
  command -v apt-get >/dev/null || cannot "debootstrap is not installed, and there is no apt-get to install it with"
  { apt-get update -q && apt-get install -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 debootstrap; } >/dev/null ||
    cannot "apt-get could not install debootstrap"
fi
unshare --mount --pid --fork true || cannot "unshare --mount is not allowed here"
if [[ -n $(git status --porcelain --untracked-files=no) ]]; then
  [[ ${1:-} != --ci ]] || cannot "changes that are not committed would not be in the clone"
  note "changes that are not committed are not in the clone"
fi

machine=$(mktemp -d)
root=$machine/root
job= download=
clean_up() {
  trap '' INT TERM HUP
  if [[ -n $download ]]; then
    kill "$download" 2>/dev/null || true
    wait "$download" 2>/dev/null || true
  fi
  if [[ -n $job ]]; then
    kill -KILL "$job" 2>/dev/null || true
    wait "$job" 2>/dev/null || true
    sleep 1
  fi
  rm -rf --one-file-system "$machine"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Runs a command that may mount things: its mounts are seen by nobody else and end with its processes, which end with it. So nothing of
# this machine is ever mounted where the folder is removed. In the background, because a signal is then heard at once.
apart() {
  unshare --mount --pid --fork --kill-child -- "$@" &
  job=$!
  local status=0
  wait "$job" || status=$?
  job=
  return "$status"
}

mkdir "$machine/wheels"
wheels=("torch==$(sed -n 's/^whence_torch=//p' scripts/setup.sh)" "$(grep -o 'scikit-learn==[0-9.]*' scripts/digits.sh)")
TMPDIR=$machine python3 -m pip download -q --disable-pip-version-check --no-deps -d "$machine/wheels" --python-version 3.11 --only-binary=:all: \
  "${wheels[@]}" &
download=$!

note "debootstrap in $root"
apart debootstrap --variant=minbase --include=git,ca-certificates bookworm "$root" >"$machine/log" 2>&1 ||
  { tail -n 20 "$machine/log" >&2; cannot "debootstrap failed (its last lines are above)"; }
echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/unsafe-io"  # no package has to outlive a loss of power
git clone -q --bare --no-hardlinks . "$root/srv/whence.git"
git --git-dir="$root/srv/whence.git" update-ref --no-deref HEAD "$(git rev-parse HEAD)"
wait "$download" || fail "pip could not download the wheels ${wheels[*]}"
download=
settings=(HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PIP_FIND_LINKS=/srv/wheels)
if [[ -n ${SSL_CERT_FILE:-} ]]; then  # a machine behind a proxy trusts what a fresh one does not
  cp "$SSL_CERT_FILE" "$root/srv/certificates.crt"
  settings+=(PIP_CERT=/srv/certificates.crt)
fi
for name in http_proxy https_proxy no_proxy; do
  [[ -z ${!name:-} ]] || settings+=("$name=${!name}")
done

cat >"$machine/enter" <<'ENTER'
set -euo pipefail
root=$1 wheels=$2 cache=$3 shared=$4 beside=$5
shift 5
bind() { mkdir -p "$2" && mount --rbind "$1" "$2"; }
mount -t proc proc "$root/proc"
bind /dev "$root/dev"
bind "$wheels" "$root/srv/wheels"
[[ -z $cache ]] || bind "$cache" "$root/root/.cache/ccache"
if [[ -n $shared ]]; then
  bind "$shared" "$root$beside"
  mount -o remount,bind,ro "$root$beside"
fi
exec chroot "$root" env -i "$@"
ENTER
stranger() {  # types a line in the root, from the clone's folder once that is there
  echo
  note "\$ $1"
  local begin=$SECONDS
  apart bash "$machine/enter" "$root" "$machine/wheels" "$cache" "$shared" "${tree%/*}/shared" "${settings[@]}" bash -c "cd '$2' && $1" </dev/null ||
    fail "'$1' failed after $((SECONDS - begin)) s on a bare machine"
  note "$((SECONDS - begin)) s"
}

[[ -z $cache ]] || mkdir -p "$cache"
begin=$SECONDS
stranger "git clone -q /srv/whence.git '$tree'" /
for command in "${commands[@]}"; do
  stranger "$command" "$tree"
done
note "all of it: $((SECONDS - begin)) s"

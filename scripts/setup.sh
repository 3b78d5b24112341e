# Sourced by tests/run.sh, .ci/run and examples/quickstart.sh: installs what is missing to build whence, and nothing else.
#
#   source scripts/setup.sh [PACKAGE]...      the Debian packages named are needed besides those that the build needs
#   WHENCE_TORCH=PATH …                       takes the LibTorch, or the torch of a Python, in that folder, and fetches none
#
# Afterwards cmake (>= 3.25), ctest and ninja are on PATH, cmake/FindLibTorch.cmake finds a LibTorch 2.13, and whence_jobs is how many
# compilations at once fit this machine. System packages come from apt; everything else goes below .deps/ in the source tree. Takes a
# second when there is nothing to install.
whence_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
whence_torch=2.13.0
whence_cmake=3.31.6

# One for each core and each 2 GB of memory.
whence_jobs=$(awk -v cores="$(nproc)" '/^MemAvailable/ { n = int($2 / 2e6) } END { print (n > cores ? cores : n < 1 ? 1 : n) }' /proc/meminfo)

setup_note() { echo "setup: $*"; }
setup_fail() { echo "setup: error: $*" >&2; exit 1; }

setup_packages() {
  if ! command -v dpkg-query >/dev/null; then
    setup_note "not a Debian system: taking these as installed: $*"
    return
  fi
  local package missing=()
  for package in "$@"; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
  done
  if [[ ${#missing[@]} == 0 ]]; then
    return
  fi
  local as_root=()
  if [[ $(id -u) != 0 ]]; then
    command -v sudo >/dev/null || setup_fail "neither root nor sudo; have someone run: apt-get install ${missing[*]}"
    as_root=(sudo)
  fi
  setup_note "installing ${missing[*]}"
  local log
  log=$(mktemp)
  if ! { "${as_root[@]}" apt-get update -q && "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
         apt-get install -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 "${missing[@]}"; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    setup_fail "apt-get could not install ${missing[*]} (its last lines are above)"
  fi
  rm -f "$log"
}

setup_python() {  # the environment that PyPI packages go into
  [[ -x $whence_root/.deps/python/bin/pip ]] || python3 -m venv "$whence_root/.deps/python" ||
    setup_fail "python3 -m venv failed"
}

setup_pip() {
  setup_python
  setup_note "pip install $* (into .deps/python)"
  # torch's 2,285 files of Python, which nothing here imports, would take a quarter of a minute to compile
  "$whence_root/.deps/python/bin/python3" -m pip install -q --disable-pip-version-check --no-compile "$@" || setup_fail "pip install $* failed"
}

new_enough() { [[ $(printf '%s\n3.25\n' "$("$1" --version 2>/dev/null | sed -n '1s/[^0-9]*//p')" | sort -V | head -n 1) == 3.25 ]]; }

setup_cmake() {  # the system's tools go before others on PATH, which may be wrappers of another environment
  local candidate
  for candidate in /usr/bin/cmake "$(command -v cmake || true)" "$whence_root/.deps/python/bin/cmake"; do
    if [[ -x $candidate ]] && new_enough "$candidate"; then
      break
    fi
    candidate=
  done
  if [[ -z $candidate ]]; then
    setup_pip "cmake==$whence_cmake"
    candidate=$whence_root/.deps/python/bin/cmake
  fi
  mkdir -p "$whence_root/.deps/bin"
  ln -sf "$candidate" "${candidate%cmake}ctest" "$whence_root/.deps/bin/"
  if [[ -x /usr/bin/ninja ]]; then
    ln -sf /usr/bin/ninja "$whence_root/.deps/bin/"
  fi
  export PATH=$whence_root/.deps/bin:$PATH
}

setup_torch() {
  local told
  if told=$(cmake -P "$whence_root/cmake/FindLibTorch.cmake" 2>&1); then
    return
  fi
  [[ -z ${WHENCE_TORCH:-} ]] || setup_fail "$(sed -n 's/^ *\(WHENCE_TORCH = .*\)/\1/p' <<<"$told")"
  setup_python
  if told=$("$whence_root/.deps/python/bin/python3" "$whence_root/scripts/torch_size.py" "torch==$whence_torch" 2>/dev/null) && [[ -n $told ]]; then
    setup_note "$told; WHENCE_TORCH=PATH takes a LibTorch or torch $whence_torch that is there, PIP_FIND_LINKS=FOLDER a wheel for CPUs (interrupt to choose)"
  fi
  setup_pip --no-deps "torch==$whence_torch"  # LibTorch is inside the wheel; what Python's torch imports is not needed
  if compgen -G "$whence_root/.deps/python/lib/python3*/site-packages/torch/lib/libtorch_cuda.so" >/dev/null; then
    setup_pip "torch==$whence_torch"          # a CUDA build links to libraries of the other wheels
  fi
  cmake -P "$whence_root/cmake/FindLibTorch.cmake" >/dev/null ||
    setup_fail "no LibTorch found after pip install torch==$whence_torch"
}

export WHENCE_UNITY=${WHENCE_UNITY-ON}  # the files of a room compiled together; OFF compiles file by file

setup_packages g++ cmake ninja-build ccache libeigen3-dev libspectra-dev libboost-program-options-dev libtomlplusplus-dev nlohmann-json3-dev \
  zlib1g-dev libpng-dev libssl-dev libicu-dev libpcre2-dev libsvm-dev python3 python3-venv "$@"
setup_cmake
setup_torch
if command -v ccache >/dev/null; then
  export CMAKE_CXX_COMPILER_LAUNCHER=ccache
  export CCACHE_SLOPPINESS=pch_defines,time_macros  # or it caches nothing that uses a precompiled header
  export CCACHE_COMPILERCHECK=content                # the same compiler installed anew, as in tests/bare.sh, is the same
fi

#!/usr/bin/env bash
# Installs a build of whence below a folder of its own, then configures, builds and runs against it the program that docs/cpp.md shows and
# the last of the numbered ones of examples/.
#   tests/install/run.sh CMAKE BUILD
set -euo pipefail
cmake=$1 build=$2
source_dir=$(cd "$(dirname "$0")" && pwd)
work=$(realpath "$build")/installation  # the same folder each time: ccache knows what is compiled there
rm -rf "$work"
mkdir "$work"
trap 'rm -rf "$work"' EXIT

"$cmake" --install "$build" --prefix "$work/prefix" >"$work/install.log"
if compgen -G "$work/prefix/include/whence/*/detail" >/dev/null; then
  echo "headers of a detail folder were installed"; exit 1
fi

# The lines of the code block that follows the marker.
awk '/<!-- snippet: install -->/ { wanted = 1 } wanted && inside && /^```/ { exit } inside { print } wanted && /^```cpp/ { inside = 1 }' \
  "$source_dir/../../docs/cpp.md" >"$work/main.cpp"
[[ -s $work/main.cpp ]] || { echo "docs/cpp.md has no block of C++ behind <!-- snippet: install -->"; exit 1; }
(cd "$work/prefix/include" && find whence -name '*.h' | sort | sed 's/.*/#include <&>/') >"$work/every_header.cpp"

cp "$source_dir/CMakeLists.txt" "$work/"
"$cmake" -S "$work" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG= -DCMAKE_PREFIX_PATH="$work/prefix"
"$cmake" --build "$work/build"
"$work/prefix/bin/whence" --version  # finds LibTorch by itself
"$cmake" -S "$source_dir/../../examples" -B "$work/numbered" -G Ninja -DCMAKE_PREFIX_PATH="$work/prefix"
"$cmake" --build "$work/numbered" --target 04_own_model  # all four are built and run where the library's tests are
"$source_dir/../examples.sh" "$work/numbered/04_own_model"
if [[ ! -d /usr/share/datasets/fashion-mnist ]]; then
  echo "the program was built, and not run: the package dataset-fashion-mnist is not installed"
  exit
fi
mkdir "$work/examples"
cp "$source_dir/../../examples/quickstart.toml" "$work/examples/"
cd "$work/examples"
"$work/prefix/bin/whence" train quickstart.toml --dtype float64 --quiet
OMP_WAIT_POLICY=passive "$work/build/program" | tee out.txt
[[ $(grep -c '^query ' out.txt) == 3 ]]

# Finds LibTorch by its headers and libraries and makes the target LibTorch::LibTorch.
#
# Torch's own package file is not used: in a CUDA build of torch it demands the CUDA toolkit, which whence does not need. WHENCE_TORCH
# (variable or environment; a libtorch folder, the torch package of a Python, or the folder that either is in) is taken, or nothing is.
# Without it these are looked for, in this order, taking the first of a fitting version: Torch_DIR and CMAKE_PREFIX_PATH (variables, then
# environment; a libtorch folder or the share/cmake inside it), LibTorch_HINT, the torch of the current Python, .deps/python below this
# source tree, where scripts/setup.sh puts one. `cmake -P FindLibTorch.cmake` says what would be taken, and fails if nothing would.
if(CMAKE_SCRIPT_MODE_FILE STREQUAL CMAKE_CURRENT_LIST_FILE)
  cmake_minimum_required(VERSION 3.25)
  set(LibTorch_FIND_VERSION_RANGE 2.13...<2.14)
  set(LibTorch_FIND_VERSION_MIN 2.13)
  set(LibTorch_FIND_VERSION_MAX 2.14)
endif()

# Sets `version` to that of the libtorch below `root`, or to "" if there is none.
function(libtorch_version root version)
  set(line "")
  if(NOT EXISTS ${root}/include/torch/csrc/autograd/autograd.h)
    set(line "")
  elseif(EXISTS ${root}/version.py)
    file(STRINGS ${root}/version.py line REGEX "^__version__")
  elseif(EXISTS ${root}/build-version)
    file(STRINGS ${root}/build-version line LIMIT_COUNT 1)
  endif()
  string(REGEX MATCH "[0-9]+\\.[0-9]+\\.[0-9]+" line "${line}")
  set(${version} "${line}" PARENT_SCOPE)
endfunction()

set(libtorch_roots)
if(NOT CMAKE_SCRIPT_MODE_FILE)  # a build folder keeps it, for when it configures itself again
  set(WHENCE_TORCH "" CACHE PATH "The LibTorch to take; empty: looked for")
  if(DEFINED ENV{WHENCE_TORCH})
    set(WHENCE_TORCH "$ENV{WHENCE_TORCH}" CACHE PATH "" FORCE)
    set(libtorch_from_environment "$ENV{WHENCE_TORCH}" CACHE INTERNAL "")
  elseif(WHENCE_TORCH AND WHENCE_TORCH STREQUAL libtorch_from_environment AND NOT EXISTS "${WHENCE_TORCH}")
    message(STATUS "WHENCE_TORCH was ${WHENCE_TORCH} when this build folder was configured before, and is gone: looking for another")
    set(WHENCE_TORCH "" CACHE PATH "" FORCE)
  endif()
elseif(NOT WHENCE_TORCH)
  set(WHENCE_TORCH "$ENV{WHENCE_TORCH}")
endif()
foreach(directory IN ITEMS ${Torch_DIR} $ENV{Torch_DIR})
  list(APPEND libtorch_roots ${directory}/../../.. ${directory})
endforeach()
string(REPLACE ":" ";" libtorch_prefixes "$ENV{CMAKE_PREFIX_PATH}")
foreach(prefix IN LISTS CMAKE_PREFIX_PATH libtorch_prefixes)
  list(APPEND libtorch_roots ${prefix} ${prefix}/../..)
endforeach()
list(APPEND libtorch_roots ${LibTorch_HINT})
execute_process(  # locates the package without importing it
  COMMAND python3 -c "import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0] if s else '')"
  OUTPUT_VARIABLE libtorch_python_root OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
file(GLOB libtorch_own_root ${CMAKE_CURRENT_LIST_DIR}/../.deps/python/lib/python3*/site-packages/torch)
list(APPEND libtorch_roots ${libtorch_python_root} ${libtorch_own_root})
if(WHENCE_TORCH)
  get_filename_component(libtorch_given "${WHENCE_TORCH}" ABSOLUTE)
  set(libtorch_roots ${libtorch_given} ${libtorch_given}/libtorch ${libtorch_given}/torch)
endif()

set(LibTorch_PREFIX)
set(LibTorch_VERSION)
foreach(root IN LISTS libtorch_roots)
  libtorch_version(${root} libtorch_this_version)
  if(libtorch_this_version STREQUAL "")
    continue()
  endif()
  get_filename_component(root ${root} REALPATH)
  if(LibTorch_FIND_VERSION_RANGE AND (libtorch_this_version VERSION_LESS LibTorch_FIND_VERSION_MIN
      OR NOT libtorch_this_version VERSION_LESS LibTorch_FIND_VERSION_MAX))
    message(STATUS "LibTorch ${libtorch_this_version} at ${root} skipped: ${LibTorch_FIND_VERSION_RANGE} is wanted")
    continue()
  endif()
  set(LibTorch_PREFIX ${root})
  set(LibTorch_VERSION ${libtorch_this_version})
  break()
endforeach()

if(WHENCE_TORCH AND NOT LibTorch_PREFIX)
  message(FATAL_ERROR " WHENCE_TORCH = ${WHENCE_TORCH}, expected a folder with LibTorch ${LibTorch_FIND_VERSION_RANGE}")
endif()

if(CMAKE_SCRIPT_MODE_FILE STREQUAL CMAKE_CURRENT_LIST_FILE)
  if(NOT LibTorch_PREFIX)
    message(FATAL_ERROR "no LibTorch ${LibTorch_FIND_VERSION_RANGE} found")
  endif()
  message(STATUS "LibTorch ${LibTorch_VERSION} at ${LibTorch_PREFIX}")
  return()
endif()

# The cache must not keep libraries of a torch that is no longer the one chosen.
foreach(library IN ITEMS c10 torch_cpu torch torch_cuda)
  unset(LibTorch_${library} CACHE)
  find_library(LibTorch_${library} ${library} HINTS ${LibTorch_PREFIX}/lib NO_DEFAULT_PATH)
  mark_as_advanced(LibTorch_${library})
endforeach()
# torch and this program must share one OpenMP runtime: the libgomp that the wheel ships, where it ships one.
file(GLOB libtorch_gomp ${LibTorch_PREFIX}/lib/libgomp*.so*)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(LibTorch
  REQUIRED_VARS LibTorch_PREFIX LibTorch_c10 LibTorch_torch_cpu LibTorch_torch VERSION_VAR LibTorch_VERSION HANDLE_VERSION_RANGE
  REASON_FAILURE_MESSAGE "set WHENCE_TORCH to the folder of a LibTorch or torch of that version, or run examples/quickstart.sh, which installs one")

if(LibTorch_FOUND AND NOT TARGET LibTorch::LibTorch)
  add_library(LibTorch::LibTorch INTERFACE IMPORTED)
  target_include_directories(LibTorch::LibTorch SYSTEM INTERFACE
    ${LibTorch_PREFIX}/include ${LibTorch_PREFIX}/include/torch/csrc/api/include)
  # libstdc++ before torch, whose wheels export the std::filesystem of the compiler that built them: with a newer compiler's
  # headers it crashes. tests/links.sh looks whose is taken.
  target_link_libraries(LibTorch::LibTorch INTERFACE stdc++ ${LibTorch_torch} ${LibTorch_torch_cpu} ${LibTorch_c10} ${libtorch_gomp})
  target_link_options(LibTorch::LibTorch INTERFACE "LINKER:-rpath,${LibTorch_PREFIX}/lib")
  if(LibTorch_torch_cuda)  # nothing names its symbols: loading it is what registers the device
    target_link_libraries(LibTorch::LibTorch INTERFACE "-Wl,--no-as-needed,${LibTorch_torch_cuda},--as-needed")
  endif()
endif()

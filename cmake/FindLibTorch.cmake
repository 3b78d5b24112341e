# Finds LibTorch by its headers and libraries and makes the target LibTorch::LibTorch.
#
# Torch's own package file is not used: in a CUDA build of torch it demands the CUDA toolkit, which whence does not need. Looked for,
# in this order: Torch_DIR, CMAKE_PREFIX_PATH (a libtorch folder, or the share/cmake inside it), .deps/python below this
# source tree, the torch that the current Python imports.
set(libtorch_roots)
if(Torch_DIR)
  list(APPEND libtorch_roots ${Torch_DIR}/../../..)
endif()
foreach(prefix IN LISTS CMAKE_PREFIX_PATH)
  list(APPEND libtorch_roots ${prefix} ${prefix}/../..)
endforeach()
if(NOT LibTorch_ROOT_FOUND)
  find_path(LibTorch_ROOT_FOUND include/torch/csrc/autograd/autograd.h HINTS ${libtorch_roots} NO_DEFAULT_PATH)
endif()
if(NOT LibTorch_ROOT_FOUND)
  set(libtorch_python python3)
  if(EXISTS ${CMAKE_CURRENT_LIST_DIR}/../.deps/python/bin/python3)
    set(libtorch_python ${CMAKE_CURRENT_LIST_DIR}/../.deps/python/bin/python3)
  endif()
  execute_process(
    COMMAND ${libtorch_python} -c "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
    OUTPUT_VARIABLE libtorch_python_root OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  find_path(LibTorch_ROOT_FOUND include/torch/csrc/autograd/autograd.h HINTS ${libtorch_python_root} NO_DEFAULT_PATH)
endif()

if(LibTorch_ROOT_FOUND)
  if(EXISTS ${LibTorch_ROOT_FOUND}/version.py)
    file(STRINGS ${LibTorch_ROOT_FOUND}/version.py libtorch_version_line REGEX "^__version__")
  elseif(EXISTS ${LibTorch_ROOT_FOUND}/build-version)
    file(STRINGS ${LibTorch_ROOT_FOUND}/build-version libtorch_version_line LIMIT_COUNT 1)
  endif()
  string(REGEX MATCH "[0-9]+\\.[0-9]+\\.[0-9]+" LibTorch_VERSION "${libtorch_version_line}")
endif()
find_library(LibTorch_C10 c10 HINTS ${LibTorch_ROOT_FOUND}/lib NO_DEFAULT_PATH)
find_library(LibTorch_CPU torch_cpu HINTS ${LibTorch_ROOT_FOUND}/lib NO_DEFAULT_PATH)
find_library(LibTorch_TORCH torch HINTS ${LibTorch_ROOT_FOUND}/lib NO_DEFAULT_PATH)
find_library(LibTorch_CUDA torch_cuda HINTS ${LibTorch_ROOT_FOUND}/lib NO_DEFAULT_PATH)
# torch and this program must share one OpenMP runtime: the libgomp that the wheel ships, where it ships one.
file(GLOB libtorch_gomp ${LibTorch_ROOT_FOUND}/lib/libgomp*.so*)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(LibTorch
  REQUIRED_VARS LibTorch_ROOT_FOUND LibTorch_C10 LibTorch_CPU LibTorch_TORCH VERSION_VAR LibTorch_VERSION HANDLE_VERSION_RANGE
  REASON_FAILURE_MESSAGE "set Torch_DIR or CMAKE_PREFIX_PATH, or run tests/run.sh, which installs it")
mark_as_advanced(LibTorch_ROOT_FOUND LibTorch_C10 LibTorch_CPU LibTorch_TORCH LibTorch_CUDA)

if(LibTorch_FOUND AND NOT TARGET LibTorch::LibTorch)
  add_library(LibTorch::LibTorch INTERFACE IMPORTED)
  target_include_directories(LibTorch::LibTorch SYSTEM INTERFACE
    ${LibTorch_ROOT_FOUND}/include ${LibTorch_ROOT_FOUND}/include/torch/csrc/api/include)
  target_link_libraries(LibTorch::LibTorch INTERFACE ${LibTorch_TORCH} ${LibTorch_CPU} ${LibTorch_C10} ${libtorch_gomp})
  target_link_options(LibTorch::LibTorch INTERFACE "LINKER:-rpath,${LibTorch_ROOT_FOUND}/lib")
  if(LibTorch_CUDA)  # nothing names its symbols: loading it is what registers the device
    target_link_options(LibTorch::LibTorch INTERFACE "LINKER:--no-as-needed,${LibTorch_CUDA},--as-needed")
  endif()
endif()

# `cmake --install BUILD --prefix P`: P/include/whence, P/lib/libwhence.a (or .so), P/bin/whence and the CMake package `whence`.
include(CMakePackageConfigHelpers)
set(whence_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/whence)

set_target_properties(whence PROPERTIES
  VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR} INSTALL_RPATH_USE_LINK_PATH ON)
install(TARGETS whence EXPORT whence-targets)
install(DIRECTORY lib/whence DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h" PATTERN detail EXCLUDE)
install(FILES ${PROJECT_BINARY_DIR}/include/whence/version.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/whence)
install(EXPORT whence-targets NAMESPACE whence:: DESTINATION ${whence_package_dir})
if(TARGET whence_tool)
  set_target_properties(whence_tool PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON)  # finds LibTorch where the build found it
  if(BUILD_SHARED_LIBS)
    set_target_properties(whence_tool PROPERTIES INSTALL_RPATH $ORIGIN/../${CMAKE_INSTALL_LIBDIR})
  endif()
  install(TARGETS whence_tool)
endif()

configure_package_config_file(cmake/whence-config.cmake.in ${PROJECT_BINARY_DIR}/whence-config.cmake
  INSTALL_DESTINATION ${whence_package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/whence-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/whence-config.cmake ${PROJECT_BINARY_DIR}/whence-config-version.cmake cmake/FindLibTorch.cmake
  cmake/FindPCRE2.cmake cmake/FindLibSVM.cmake
  DESTINATION ${whence_package_dir})

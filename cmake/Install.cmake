# `cmake --install BUILD --prefix P`: P/include/whence, P/lib/libwhence.a, P/bin/whence and the CMake package `whence`.
include(CMakePackageConfigHelpers)
set(whence_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/whence)

install(TARGETS whence EXPORT whence-targets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY lib/whence DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h" PATTERN detail EXCLUDE)
install(EXPORT whence-targets NAMESPACE whence:: DESTINATION ${whence_package_dir})
if(TARGET whence_tool)
  set_target_properties(whence_tool PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON)  # finds LibTorch where the build found it
  install(TARGETS whence_tool RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()

configure_package_config_file(cmake/whence-config.cmake.in ${PROJECT_BINARY_DIR}/whence-config.cmake
  INSTALL_DESTINATION ${whence_package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/whence-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/whence-config.cmake ${PROJECT_BINARY_DIR}/whence-config-version.cmake cmake/FindLibTorch.cmake
  cmake/FindPCRE2.cmake
  DESTINATION ${whence_package_dir})

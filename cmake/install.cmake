# What `make install` puts down, all of it movable: the command, the library, the headers, the assets
# beside the executable (../share/mica), a CMake package and a pkg-config file.
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/mica)

if(TARGET mica_cli)
  install(TARGETS mica_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT runtime)
endif()
install(DIRECTORY ${PROJECT_SOURCE_DIR}/assets/ DESTINATION ${CMAKE_INSTALL_DATADIR}/mica
        COMPONENT runtime)

# Headers name each other from the root of the source tree ("core/array.h"), users say <mica/mica.h>:
# hence two include directories.
install(DIRECTORY ${PROJECT_SOURCE_DIR}/src/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/mica
        COMPONENT development FILES_MATCHING PATTERN "*.h" PATTERN "*.def")
target_include_directories(mica INTERFACE
  $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>
  $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/mica>)
target_compile_features(mica INTERFACE cxx_std_20)
target_link_libraries(mica PUBLIC fmt::fmt Threads::Threads)

install(TARGETS mica EXPORT mica
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT runtime NAMELINK_COMPONENT development)
install(EXPORT mica NAMESPACE mica:: DESTINATION ${package_dir} COMPONENT development)

configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/mica-config.cmake.in
  ${PROJECT_BINARY_DIR}/generated/mica-config.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/generated/mica-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/generated/mica-config.cmake
              ${PROJECT_BINARY_DIR}/generated/mica-config-version.cmake
        DESTINATION ${package_dir} COMPONENT development)

# The prefix is found from the place of the file, so that a moved or staged tree works unchanged.
file(RELATIVE_PATH MICA_PC_PREFIX /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
string(REGEX REPLACE "/$" "" MICA_PC_PREFIX ${MICA_PC_PREFIX})
configure_file(${PROJECT_SOURCE_DIR}/cmake/mica.pc.in ${PROJECT_BINARY_DIR}/generated/mica.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/generated/mica.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig
        COMPONENT development)

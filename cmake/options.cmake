# Flags that every translation unit shares.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/lib)
set(CMAKE_ARCHIVE_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/lib)
set(CMAKE_CXX_FLAGS_RELEASE "-O3 -DNDEBUG")
# Sanitizer builds: fast enough to run every test, with lines in the stack traces.
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O1 -g1")
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()

# Contraction would make a fused region differ from the same operations run one by one.
add_compile_options(-ffp-contract=off -fno-math-errno -Wall -Wextra -Wno-psabi
                    -Wno-missing-field-initializers)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  add_compile_options(-Wno-restrict)  # GCC 12 warns of overlaps inside std::string's own operators
endif()
# Every header is public, so every symbol is exported; calls inside the library still bind directly.
add_compile_options(-fno-semantic-interposition)
if(MICA_WERROR)
  add_compile_options(-Werror)
endif()
if(MICA_SANITIZE)
  add_compile_options(-fsanitize=${MICA_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${MICA_SANITIZE})
  if(MICA_SANITIZE MATCHES address)
    add_compile_definitions(MICA_ADDRESS_SANITIZER)
  endif()
endif()

if(MICA_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

find_program(MICA_CCACHE ccache)
if(MICA_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${MICA_CCACHE})
endif()
if(NOT CMAKE_CROSSCOMPILING)
  find_program(MICA_MOLD mold)
endif()
if(MICA_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

# Every dependency is a system package; nothing is downloaded or vendored. All that are missing are
# reported together, with the command that installs them.
set(mica_missing "")

# mica_package(debian-package name [argument...]): find_package(name argument...).
macro(mica_package debian name)
  find_package(${name} QUIET ${ARGN})
  if(NOT ${name}_FOUND)
    list(APPEND mica_missing ${debian})
  endif()
endmacro()

# mica_module(debian-package name module): a module of pkg-config, as PkgConfig::name.
macro(mica_module debian name module)
  if(PkgConfig_FOUND)
    pkg_check_modules(${name} QUIET IMPORTED_TARGET ${module})
  endif()
  if(NOT ${name}_FOUND)
    list(APPEND mica_missing ${debian})
  endif()
endmacro()

# Fails if anything is missing; `marks` are those of tools/packages.txt.
function(mica_report_missing marks)
  if(mica_missing)
    list(JOIN mica_missing " " packages)
    message(FATAL_ERROR "Mica is built with these Debian packages, which are missing: ${packages}\n"
                        "Install them with: tools/bootstrap${marks}")
  endif()
endfunction()

find_package(Threads REQUIRED)
mica_package(libfmt-dev fmt)
mica_package(nlohmann-json3-dev nlohmann_json)
mica_package(libsimdjson-dev simdjson)
mica_package(libcli11-dev CLI11)
mica_package(pkg-config PkgConfig)
mica_module(libhwy-dev hwy libhwy)
mica_module(libpcre2-dev pcre2 libpcre2-8)
mica_module(libutf8proc-dev utf8proc libutf8proc)
if(MICA_PYTHON)
  mica_package(python3-dev Python 3.10 COMPONENTS Interpreter Development.Module)
  mica_report_missing(" python")
else()
  mica_report_missing("")
endif()

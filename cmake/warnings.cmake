# Warnings, include paths and sanitizers that every target of ours is built with.
function(qn_flags target)
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wconversion
    -Wdouble-promotion -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition -Wvla -Wundef
    -Wcast-align -Wwrite-strings -Wformat=2 -Wimplicit-fallthrough -Wnull-dereference -fno-common
    -fvisibility=hidden -ffp-contract=off)
  if(QN_WERROR)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
  if(QN_FUZZ) # without it libFuzzer sees no branch of the code that it feeds
    target_compile_options(${target} PRIVATE -fsanitize=fuzzer-no-link)
  endif()
  if(QN_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${QN_SANITIZE} -fno-omit-frame-pointer
      -fno-sanitize-recover=all)
    target_link_options(${target} PUBLIC -fsanitize=${QN_SANITIZE})
  endif()
endfunction()

# A program that looks for its libraries in lib/ beside its folder first.
function(qn_bundled target)
  set_target_properties(${target} PROPERTIES BUILD_RPATH "$ORIGIN/../lib")
  target_link_options(${target} PRIVATE -Wl,--disable-new-dtags)
endfunction()

# Embed files in a source of PROJECT_BINARY_DIR/generated and set VARIABLE to it (cmake/embed.cmake).
function(qn_embed variable output header files table)
  set(source ${PROJECT_BINARY_DIR}/generated/${output})
  string(REPLACE ";" "," list "${files}")
  add_custom_command(OUTPUT ${source}
    DEPENDS ${files} ${PROJECT_SOURCE_DIR}/cmake/embed.cmake
    COMMAND ${CMAKE_COMMAND} -DOUTPUT=${source} -DHEADER=${header} -DFILES=${list}
      -DTABLE=${table} -P ${PROJECT_SOURCE_DIR}/cmake/embed.cmake VERBATIM)
  set(${variable} ${source} PARENT_SCOPE)
endfunction()

# One folder of src/ is one static library that links what the layer table lets it include, so a
# forbidden dependency fails at link time as well as in tools/tidy.py.  PROGRAM: a part of the program
# quern, not of the library.
function(qn_module name)
  cmake_parse_arguments(ARG "PROGRAM" "" "DEPS;LIBS;SOURCES" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/${name}/*.c)
  add_library(qn_${name} STATIC ${sources} ${ARG_SOURCES})
  qn_flags(qn_${name})
  set_target_properties(qn_${name} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  foreach(dep ${ARG_DEPS})
    target_link_libraries(qn_${name} PUBLIC qn_${dep})
  endforeach()
  target_link_libraries(qn_${name} PUBLIC ${ARG_LIBS})
  set_property(GLOBAL APPEND PROPERTY QN_TESTED_MODULES ${name})
  if(NOT ARG_PROGRAM)
    set_property(GLOBAL APPEND PROPERTY QN_MODULES ${name})
  endif()
endfunction()

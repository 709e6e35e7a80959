# GPU kernels: src/kernels/gpu/*.c for all targets, sm90/*.c and gfx950/*.c for one.  Each file is a
# module a target, compressed into the table of src/kernels/gpu/modules.h.
# Sets gpu_table (a source for the library), gpu_state (what is in it, for people), gpu_objects (the
# emulator's kernels), gpu_logs and gpu_code (of ptxas and for gfx950, for tests).
set(QN_GPU AUTO CACHE STRING
  "Build GPU kernels (needs clang-22, lld-22, libzstd): AUTO, ON, OFF or EMULATED: for tests only")
set_property(CACHE QN_GPU PROPERTY STRINGS AUTO ON OFF EMULATED)
find_program(QN_CLANG_GPU clang-22)
find_program(QN_LLD_GPU ld.lld-22)
find_program(QN_PTXAS ptxas HINTS /usr/local/cuda/bin
  ${PROJECT_SOURCE_DIR}/build/ptxas/nvidia/cu13/bin) # made by tools/ptxas.sh
pkg_check_modules(ZSTD IMPORTED_TARGET libzstd)
set(gpu_libs "")
set(gpu_definitions "")
if(ZSTD_FOUND)
  set(gpu_libs PkgConfig::ZSTD)
  set(gpu_definitions QN_ZSTD)
endif()
set(gpu_missing "")
foreach(need QN_CLANG_GPU:clang-22 QN_LLD_GPU:lld-22 ZSTD_FOUND:libzstd-dev)
  string(REPLACE ":" ";" need ${need})
  list(GET need 0 variable)
  if(NOT ${variable})
    list(GET need 1 package)
    list(APPEND gpu_missing ${package})
  endif()
endforeach()
list(JOIN gpu_missing ", " gpu_missing)
set(gpu_table ${PROJECT_BINARY_DIR}/gpu/table.c)
set(gpu_objects "")
set(gpu_logs "")
set(gpu_code "")
if(QN_GPU STREQUAL "ON" AND gpu_missing)
  message(FATAL_ERROR "QN_GPU=ON: ${gpu_missing} missing")
endif()
if(NOT QN_GPU MATCHES "^(AUTO|ON)$" OR gpu_missing)
  set(gpu_state "none: built with QN_GPU=${QN_GPU}")
  if(gpu_missing AND NOT QN_GPU STREQUAL "OFF")
    set(gpu_state "none: built without ${gpu_missing}")
    message(STATUS "GPU kernels are left out: they need ${gpu_missing}")
  endif()
  file(CONFIGURE OUTPUT ${gpu_table} CONTENT "#include \"kernels/gpu/modules.h\"
const qn_gpu_module_image qn_gpu_modules[] = {{NULL, NULL, NULL, 0, 0}};
const size_t qn_gpu_n_modules = 0;
")
  if(NOT QN_GPU STREQUAL "EMULATED" OR gpu_missing)
    return()
  endif()
elseif(QN_PTXAS)
  set(gpu_state "sm_90a, gfx950")
else()
  set(gpu_state "sm_90a (PTX), gfx950")
  message(STATUS "No ptxas: sm_90a kernels are PTX only, and the driver compiles them at load")
endif()

set(gpu_source ${PROJECT_SOURCE_DIR}/src/kernels/gpu)
set(gpu_list ${gpu_source}/list.h)
# Vector-combine splits 16-byte loads in two.
set(gpu_flags -std=gnu2x -Wall -Wextra -Werror -ffp-contract=off -fno-math-errno
  -I${PROJECT_SOURCE_DIR}/src)
set(gpu_device_flags ${gpu_flags} -O3 -ffreestanding -nogpulib -mllvm -disable-vector-combine)
set(gpu_flags_sm90 ${gpu_device_flags} --target=nvptx64-nvidia-cuda -march=sm_90a
  -Xclang -target-feature -Xclang +ptx87 -S)
set(gpu_flags_gfx950 ${gpu_device_flags} --target=amdgcn-amd-amdhsa -mcpu=gfx950
  -munsafe-fp-atomics --ld-path=${QN_LLD_GPU})
set(gpu_flags_emulated ${gpu_flags} -O2 -g -march=x86-64-v3 -fPIE -DQN_GPU_EMULATED)

# gpu_compile(OUTPUT SOURCE FLAG...)
function(gpu_compile output source)
  get_filename_component(folder ${output} DIRECTORY)
  file(MAKE_DIRECTORY ${folder})
  add_custom_command(OUTPUT ${output} DEPENDS ${source} DEPFILE ${output}.d
    COMMAND ${QN_CLANG_GPU} ${ARGN} -MD -MF ${output}.d -MT ${output} -o ${output} ${source}
    VERBATIM)
endfunction()

file(GLOB common CONFIGURE_DEPENDS ${gpu_source}/*.c)
file(GLOB sm90 CONFIGURE_DEPENDS ${gpu_source}/sm90/*.c)
file(GLOB gfx950 CONFIGURE_DEPENDS ${gpu_source}/gfx950/*.c)
set(modules "")
set(files "")
foreach(source ${common} ${sm90})
  file(RELATIVE_PATH name ${gpu_source} ${source})
  string(REGEX REPLACE "\\.c$" "" name ${name})
  set(base ${PROJECT_BINARY_DIR}/gpu/${name})
  if(name MATCHES "^[^/]*$|_mma$") # the others of sm90/ do what only hardware can
    string(MAKE_C_IDENTIFIER ${name} id)
    gpu_compile(${base}.o ${source} ${gpu_flags_emulated} -DQN_GPU_FILE=${id} -c)
    list(APPEND gpu_objects ${base}.o)
  endif()
  if(QN_GPU STREQUAL "EMULATED")
    continue()
  endif()
  gpu_compile(${base}.raw.ptx ${source} ${gpu_flags_sm90})
  add_custom_command(OUTPUT ${base}.ptx DEPENDS ${base}.raw.ptx ${gpu_list} cmake/ptx_bounds.cmake
    COMMAND ${CMAKE_COMMAND} -DPTX=${base}.raw.ptx -DLIST=${gpu_list} -DOUTPUT=${base}.ptx
      -P ${PROJECT_SOURCE_DIR}/cmake/ptx_bounds.cmake VERBATIM)
  list(APPEND modules ${name} "sm_90a ptx" ${base}.ptx)
  list(APPEND files ${base}.ptx)
  if(QN_PTXAS)
    add_custom_command(OUTPUT ${base}.cubin ${base}.log DEPENDS ${base}.ptx
      COMMAND ${QN_PTXAS} -arch=sm_90a -v -o ${base}.cubin ${base}.ptx > ${base}.log 2>&1
        || (cat ${base}.log && false))
    list(APPEND modules ${name} sm_90a ${base}.cubin)
    list(APPEND files ${base}.cubin)
    list(APPEND gpu_logs ${base}.log)
  endif()
endforeach()
# Of this folder's commands, for tests/gpuemu.
add_custom_target(gpuemu_kernels DEPENDS ${gpu_objects})
if(QN_GPU STREQUAL "EMULATED")
  return()
endif()
foreach(source ${common} ${gfx950})
  file(RELATIVE_PATH name ${gpu_source} ${source})
  string(REGEX REPLACE "\\.c$" "" name ${name})
  set(base ${PROJECT_BINARY_DIR}/gpu/${name})
  gpu_compile(${base}.gfx950 ${source} ${gpu_flags_gfx950})
  list(APPEND modules ${name} gfx950 ${base}.gfx950)
  list(APPEND files ${base}.gfx950)
  list(APPEND gpu_code ${base}.gfx950)
endforeach()

add_executable(gpu_embed tools/embed.c)
target_link_libraries(gpu_embed PRIVATE PkgConfig::ZSTD)
add_custom_command(OUTPUT ${gpu_table} DEPENDS gpu_embed ${files}
  COMMAND gpu_embed ${gpu_table} ${modules} VERBATIM)

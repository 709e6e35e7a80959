# Writes each kernel's block size and blocks per multiprocessor into its PTX, which C has no way to
# say: cmake -DPTX=x.ptx -DLIST=list.h -DOUTPUT=y.ptx -P ptx_bounds.cmake
file(READ ${PTX} text)
file(READ ${LIST} list)
string(REGEX MATCHALL "X\\([a-z0-9_]+, [0-9]+, [0-9]+, [0-9]+\\)" rows "${list}")
foreach(row ${rows})
  string(REGEX MATCH "\\(([a-z0-9_]+), ([0-9]+), ([0-9]+)" row "${row}")
  string(REGEX REPLACE "(\\.entry qn_gpu_${CMAKE_MATCH_1}\\([^)]*\\))"
    "\\1\n.reqntid ${CMAKE_MATCH_2}, 1, 1\n.minnctapersm ${CMAKE_MATCH_3}" text "${text}")
endforeach()
string(REGEX MATCHALL "\\.entry " entries "${text}")
string(REGEX MATCHALL "\\.reqntid " bounds "${text}")
list(LENGTH entries n_entries)
list(LENGTH bounds n_bounds)
if(NOT n_entries EQUAL n_bounds)
  message(FATAL_ERROR "${PTX}: ${n_entries} kernels, ${n_bounds} of them in ${LIST}")
endif()
file(WRITE ${OUTPUT} "${text}")

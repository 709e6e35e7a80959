# Files as arrays of a C source: cmake -DOUTPUT=x.c -DFILES=a.json,b.json -P embed.cmake
# gives `const char embedded_a[]`, ended by a NUL.
string(REPLACE "," ";" FILES "${FILES}")
set(text "/* Made by cmake/embed.cmake. */\n#include \"bench/embedded.h\"\n")
foreach(file ${FILES})
  get_filename_component(stem ${file} NAME_WE)
  file(READ ${file} hex HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "'\\\\x\\1'," bytes "${hex}")
  string(APPEND text "const char embedded_${stem}[] = {${bytes}0};\n")
endforeach()
file(WRITE ${OUTPUT} "${text}")

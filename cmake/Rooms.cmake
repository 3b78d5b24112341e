# Where CMAKE_UNITY_BUILD is on, the files of a room are compiled as if they were one (of more than 32 files, 32 at a time): headers are read
# and templates instantiated once for all of them, which takes a third of the time. So what two files of a room have in unnamed namespaces
# must have different names.
function(unite_rooms target)
  set_target_properties(${target} PROPERTIES UNITY_BUILD_MODE GROUP)
  get_target_property(files ${target} SOURCES)
  list(FILTER files INCLUDE REGEX "[.]cpp$")
  foreach(file IN LISTS files)
    string(REGEX REPLACE "(/detail)?/[^/]+$" "" folder ${file})
    get_filename_component(room ${folder} NAME)
    list(LENGTH files_of_${room} before)
    list(APPEND files_of_${room} ${file})
    math(EXPR group "${before} / 32")
    set_source_files_properties(${file} PROPERTIES UNITY_GROUP ${room}_${group})
  endforeach()
endfunction()

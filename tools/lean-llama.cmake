# A lean build of llama-cpp-python: only libllama and ggml, the two libraries that `hermes` loads.
#
# Use it through CMAKE_ARGS (the Makefile does):
#   CMAKE_ARGS="-DCMAKE_PROJECT_llama.cpp_INCLUDE=/path/to/lean-llama.cmake" pip install llama-cpp-python
#
# CMake reads this file right after the vendored llama.cpp says project("llama.cpp"). It leaves out `common` (a library
# for llama.cpp's own programs, which the sdist switches on by force) and `mtmd` (images and sound), and hands the ~150
# small files of src/models to the compiler in groups, because each of them spends most of its compile time on the same
# headers. The code and its flags stay as they are, but for one file: see lean_keep_amx_tile_setup.
#
# -DLEAN_PROGRAMS=ON keeps `common`, for benchmarks/peers.py: all of llama.cpp with the one file mended.

if(NOT LEAN_PROGRAMS)
    set(LLAMA_BUILD_COMMON OFF)
endif()
set(LLAVA_BUILD OFF CACHE BOOL "" FORCE)

function(lean_group_model_files)
    set(source_dir "${CMAKE_CURRENT_SOURCE_DIR}/src")
    get_target_property(core_sources llama SOURCES)
    list(FILTER core_sources EXCLUDE REGEX "models/")
    set_source_files_properties(${core_sources} DIRECTORY "${source_dir}"
        PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
    set_target_properties(llama PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 20)
endfunction()

# GCC before 14 declares that _tile_loadconfig reads 8 of the 64 bytes of its argument, so the optimizer drops the stores
# to the others, and every multiplication on a processor with AMX (Xeon from Sapphire Rapids on) ends in SIGSEGV.
function(lean_keep_amx_tile_setup)
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 14
            AND CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64" AND TARGET ggml-cpu)
        set(header "${CMAKE_CURRENT_BINARY_DIR}/tile_loadconfig.h")
        file(WRITE "${header}" [=[
#include <immintrin.h>
#define _tile_loadconfig(config) __asm__ volatile ("ldtilecfg %0" :: "m" (*(const char (*)[64]) (config)))
]=])
        set_source_files_properties("${CMAKE_CURRENT_SOURCE_DIR}/ggml/src/ggml-cpu/amx/mmq.cpp"
            TARGET_DIRECTORY ggml-cpu PROPERTIES COMPILE_OPTIONS "-include;${header}")
    endif()
endfunction()

# The targets exist only at the end of llama.cpp's own CMakeLists.txt.
cmake_language(DEFER CALL lean_group_model_files)
cmake_language(DEFER CALL lean_keep_amx_tile_setup)

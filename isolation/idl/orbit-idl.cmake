# SPDX-License-Identifier: MIT
#
# find_package(orbit) brings this:
#
#	set(ORBIT_IDL_FLAGS --coroutines)	# or whatever else orbit-idl(1) is to be told
#	orbit_idl(TARGET HEADER...)
#
# generates NAME.orbit.hpp from each NAME.idl.hpp before the target is compiled, and lets it find both. What the
# target's INCLUDE_DIRECTORIES are when this is called is where headers are looked for.

find_program(ORBIT_IDL orbit-idl HINTS "${CMAKE_CURRENT_LIST_DIR}/../../../bin"
	"${CMAKE_CURRENT_LIST_DIR}/../../../../bin")

function(orbit_idl target)
	if(NOT ORBIT_IDL)
		message(FATAL_ERROR "orbit_idl: the command orbit-idl is not there")
	endif()
	get_target_property(directories ${target} INCLUDE_DIRECTORIES)
	set(flags ${ORBIT_IDL_FLAGS})
	if(directories)
		foreach(directory IN LISTS directories)
			list(APPEND flags "-I${directory}")
		endforeach()
	endif()
	set(to "${CMAKE_CURRENT_BINARY_DIR}/orbit-idl")
	file(MAKE_DIRECTORY "${to}")
	foreach(header IN LISTS ARGN)
		get_filename_component(whole "${header}" ABSOLUTE)
		get_filename_component(from "${whole}" DIRECTORY)
		get_filename_component(name "${whole}" NAME)
		string(REGEX REPLACE "\\.idl\\.hpp$" ".orbit.hpp" output "${name}")
		if(output STREQUAL name)
			message(FATAL_ERROR "orbit_idl: ${header} is no NAME.idl.hpp")
		endif()
		add_custom_command(OUTPUT "${to}/${output}.stamp"
			BYPRODUCTS "${to}/${output}"
			COMMAND "${ORBIT_IDL}" ${flags} --deps "${to}/${output}.d" --stamp "${to}/${output}.stamp"
				-o "${to}/${output}" "${whole}"
			DEPENDS "${whole}"
			DEPFILE "${to}/${output}.d"
			COMMENT "Generating ${output}"
			VERBATIM)
		target_sources(${target} PRIVATE "${to}/${output}.stamp")
		target_include_directories(${target} PRIVATE "${to}" "${from}")
	endforeach()
endfunction()

# SPDX-License-Identifier: MIT
#
# To include in a makefile: %.orbit.hpp is made from %.idl.hpp.
#
#	ORBIT_IDL_FLAGS := -Iinclude
#	include /usr/share/orbit/idl/orbit-idl.mk
#	server.o: block.orbit.hpp
#
# What a header includes is looked at, too. What did not change is left as it is, so that nothing else is
# made again: a stamp beside it says when it was looked at.

ORBIT_IDL ?= orbit-idl
ORBIT_IDL_FLAGS ?=

%.orbit.hpp: %.orbit.stamp ;

.PRECIOUS: %.orbit.stamp
%.orbit.stamp: %.idl.hpp
	$(ORBIT_IDL) $(ORBIT_IDL_FLAGS) --deps $*.orbit.d --stamp $@ -o $*.orbit.hpp $<

-include $(wildcard *.orbit.d */*.orbit.d)

# SPDX-License-Identifier: MIT
#
# orbit-idl, for ../../liborbit/Makefile: nothing to build.

idl_here := $(here)../isolation/idl/

.PHONY: install-idl
install: install-idl

install-idl:
	install -d $(addprefix $(DESTDIR)$(PREFIX)/,bin share/man/man1 $(addprefix share/orbit/idl/,orbit_idl light/orbit light/tl)) \
		$(DESTDIR)$(cmakedir)
	install -m 755 $(idl_here)orbit-idl $(DESTDIR)$(PREFIX)/bin
	install -m 644 $(wildcard $(idl_here)orbit_idl/*.py) $(DESTDIR)$(PREFIX)/share/orbit/idl/orbit_idl
	install -m 644 $(filter-out %/orbit %/tl,$(wildcard $(idl_here)light/*)) $(DESTDIR)$(PREFIX)/share/orbit/idl/light
	install -m 644 $(wildcard $(idl_here)light/orbit/*) $(DESTDIR)$(PREFIX)/share/orbit/idl/light/orbit
	install -m 644 $(wildcard $(idl_here)light/tl/*) $(DESTDIR)$(PREFIX)/share/orbit/idl/light/tl
	install -m 644 $(idl_here)orbit-idl.mk $(DESTDIR)$(PREFIX)/share/orbit/idl
	install -m 644 $(idl_here)orbit-idl.cmake $(DESTDIR)$(cmakedir)
	install -m 644 $(here)man/orbit-idl.1 $(DESTDIR)$(PREFIX)/share/man/man1

# SPDX-License-Identifier: MIT
#
# liborbit-compat, for ../Makefile.

compat_here := $(here)compat/
compat_objects := $(addprefix $(BUILD)/compat/,allocator.o calls.o limits.o pools.o scratch.o task.o)
compat_static := $(BUILD)/liborbit-compat.a
compat_shared := $(BUILD)/liborbit-compat.so.$(VERSION)
compat_soname := liborbit-compat.so.$(SOVERSION)

.PHONY: compat check-compat install-compat
all: compat
compat: $(compat_static) $(BUILD)/liborbit-compat.so $(BUILD)/orbit-compat.pc
check: check-compat
install: install-compat

$(BUILD)/compat/%.o: $(compat_here)%.cc $(BUILD)/flags
	@mkdir -p $(@D)
	$(CXX) $(CXXFLAGS) $(flags) -c -o $@ $<

$(compat_static): $(compat_objects)
	rm -f $@
	$(AR) rcs $@ $^

# It finds liborbit.so beside itself, whatever the prefix is.
$(compat_shared): $(compat_objects) $(compat_here)liborbit-compat.map $(BUILD)/liborbit.so
	$(CC) -shared -Wl,-soname,$(compat_soname) -Wl,--version-script=$(compat_here)liborbit-compat.map \
		$(no_undefined) $(if $(SANITIZE),-fsanitize=$(SANITIZE)) -Wl,-rpath,'$$ORIGIN' $(LDFLAGS) \
		-o $@ $(compat_objects) -L$(BUILD) -lorbit -pthread

$(BUILD)/$(compat_soname): $(compat_shared)
	ln -sf $(notdir $<) $@

$(BUILD)/liborbit-compat.so: $(BUILD)/$(compat_soname)
	ln -sf $(notdir $<) $@

$(BUILD)/orbit-compat.pc: $(compat_here)orbit-compat.pc.in FORCE
	@mkdir -p $(BUILD)
	@sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@VERSION@|$(VERSION)|' $< > $@

# Alone, as C and as C++ from the year on in which its macros can be used; under the name by
# which programs include it; and the symbols are those that it declares.
check-compat: $(compat_shared)
	@for language in "$(CC) -x c -std=c11" "$(CXX) -x c++ -std=c++11" "$(CXX) -x c++ -std=c++20"; do \
		echo '#include "orbit.h"' | $$language -Wall -Wextra -pedantic -Wshadow -Wconversion -Werror \
			-I$(INCLUDE) -I$(INCLUDE)/orbit-compat -fsyntax-only - || exit 1; done
	@nm -D --defined-only $(compat_shared) | sed -n 's/.* T orbit_compat_\([a-z_]*\)@.*/\1/p' | sort \
		> $(BUILD)/compat/exported
	@grep -o 'ORBIT_COMPAT_SYMBOL([a-z_]*)' $(INCLUDE)/orbit-compat.h | grep -v '(name)' | \
		sed 's/.*(\(.*\))/\1/' | sort > $(BUILD)/compat/declared
	@diff $(BUILD)/compat/declared $(BUILD)/compat/exported
	@echo "exported symbols and orbit-compat.h agree: $$(wc -l < $(BUILD)/compat/exported) functions"

install-compat: compat
	install -d $(DESTDIR)$(PREFIX)/include/orbit-compat $(DESTDIR)$(LIBDIR)/pkgconfig
	install -m 644 $(INCLUDE)/orbit-compat.h $(DESTDIR)$(PREFIX)/include
	install -m 644 $(INCLUDE)/orbit-compat/orbit.h $(DESTDIR)$(PREFIX)/include/orbit-compat
	install -m 644 $(compat_static) $(DESTDIR)$(LIBDIR)
	install -m 755 $(compat_shared) $(DESTDIR)$(LIBDIR)
	ln -sf $(notdir $(compat_shared)) $(DESTDIR)$(LIBDIR)/$(compat_soname)
	ln -sf $(compat_soname) $(DESTDIR)$(LIBDIR)/liborbit-compat.so
	install -m 644 $(BUILD)/orbit-compat.pc $(DESTDIR)$(LIBDIR)/pkgconfig

-include $(compat_objects:.o=.d)

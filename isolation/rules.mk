# SPDX-License-Identifier: MIT
#
# The domain layer, for ../liborbit/Makefile: a static library of its own, that uses only ../include.

isolation_here := $(here)../isolation/
isolation := $(BUILD)/liborbit-isolation.a
isolation_sources := $(sort $(wildcard $(isolation_here)*.cc $(isolation_here)*/*.cc))
isolation_objects := $(patsubst $(isolation_here)%.cc,$(BUILD)/isolation-objects/%.o,$(isolation_sources))
isolation_flags := -std=c++20 -D_GNU_SOURCE -I$(INCLUDE) -fPIC -MMD -MP $(warnings) \
	$(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer)

.PHONY: install-isolation
all: $(isolation)
install: install-isolation

$(BUILD)/isolation-objects/%.o: $(isolation_here)%.cc $(BUILD)/flags
	@mkdir -p $(@D)
	$(CXX) $(CXXFLAGS) $(isolation_flags) -c -o $@ $<

$(isolation): $(isolation_objects)
	rm -f $@
	$(AR) rcs $@ $^

install-isolation: $(isolation)
	install -d $(DESTDIR)$(LIBDIR)
	install -m 644 $(isolation) $(DESTDIR)$(LIBDIR)

-include $(isolation_objects:.o=.d)

# SPDX-License-Identifier: MIT
#
# orbitctl, for ../Makefile. Its parts are a library too, for the tests.

ctl_here := $(here)orbitctl/
ctl_objects := $(addprefix $(BUILD)/orbitctl-objects/,command.o domains.o fdinfo.o processes.o show.o top.o)
ctl_flags := -std=c++20 -D_GNU_SOURCE -I$(INCLUDE) -DORBITCTL_VERSION='"$(VERSION)"' -MMD -MP $(warnings) \
	$(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer)

.PHONY: ctl install-ctl
all: ctl
ctl: $(BUILD)/orbitctl
install: install-ctl

$(BUILD)/orbitctl-objects/%.o: $(ctl_here)%.cc $(BUILD)/flags
	@mkdir -p $(@D)
	$(CXX) $(CXXFLAGS) $(ctl_flags) -c -o $@ $<

$(BUILD)/orbitctl.a: $(ctl_objects)
	rm -f $@
	$(AR) rcs $@ $^

# With the library in it: a tool to look into what is wrong should run whatever is installed.
$(BUILD)/orbitctl: $(BUILD)/orbitctl-objects/main.o $(BUILD)/orbitctl.a $(BUILD)/liborbit-isolation.a $(static)
	$(CXX) $(CXXFLAGS) $(LDFLAGS) $(if $(SANITIZE),-fsanitize=$(SANITIZE)) -o $@ $^ -pthread

install-ctl: ctl
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 755 $(BUILD)/orbitctl $(DESTDIR)$(PREFIX)/bin
	install -m 644 $(here)man/orbitctl.1 $(DESTDIR)$(PREFIX)/share/man/man1

-include $(ctl_objects:.o=.d) $(BUILD)/orbitctl-objects/main.d

# SPDX-License-Identifier: MIT
#
# The front door; `make` alone tells what there is.

BUILD ?= build
PREFIX ?= /usr/local
DESTDIR ?=
CXXFLAGS ?= -O2 -g
JOBS ?= $(shell nproc)

# Built kernels to use instead of those of the series, for work on the patches.
KERNEL ?=
DEBUG_KERNEL ?=
KCSAN_KERNEL ?=
DISTRO_KERNEL ?=
OFF_KERNEL ?=
DRIVERS_KERNEL ?=

# How long `make stress` takes, without the builds and the census; and of that the rounds. And how many domains it kills
# before that, which takes some minutes.
MINUTES ?= 30
ROUNDS ?= 10000
KILLS ?= 10000

# How often `make test-drivers` kills the driver, and how many packets it has go each way, if not as its tests do by themselves.
DRIVER_KILLS ?=
DRIVER_PACKETS ?=

# How often `make test-models` resets a device under traffic, if not as often as its test does by itself.
MODEL_RESETS ?=

# How long each of the fuzzers of `make fuzz-decoder` and `make fuzz-domains` runs.
FUZZ_MINUTES ?= 10

# libboost-dev is for <orbit/memory.hpp>, python3-clang for orbit-idl, liburcu-dev for isolation/, libpng-dev for an example, libbenchmark-dev,
# libgflags-dev and python3-matplotlib for bench/; three allocators are for tests/conformance; libaio-dev to liburing2 are
# for the server in examples/mysql-deadlock; cmake, pkg-config, abigail-tools, dpkg-dev and debhelper are for what is installed
# and packaged, and its tests.
PACKAGES := gcc g++ make flex bison bc patch perl xz-utils binutils libc6-dev libelf-dev \
	libgtest-dev libexpected-dev libboost-dev liburcu-dev libpng-dev libbenchmark-dev libgflags-dev \
	libjemalloc2 libmimalloc2.0 libtcmalloc-minimal4 \
	libaio-dev libnuma-dev libssl-dev libsystemd-dev zlib1g-dev libpcre2-8-0 liburing2 \
	nlohmann-json3-dev python3 python3-clang python3-matplotlib cmake pkg-config abigail-tools dpkg-dev \
	debhelper busybox-static qemu-system-x86 gdb \
	$(if $(KERNEL_SRC),,linux-source-6.12)

# Every .cc in these directories is one program.
units := $(patsubst %.cc,$(BUILD)/%,$(wildcard tests/unit/*.cc tests/isolation/*.cc))
# These do without the library, and are linked statically.
static := $(patsubst %.cc,$(BUILD)/%,$(wildcard tests/stress/*.cc tests/fuzz/*.cc tests/counted/p11_*.cc))
# What drives devices, in a virtual machine that has them: not for `make test`.
drivers := $(patsubst %.cc,$(BUILD)/%,$(wildcard tests/drivers/*.cc))
driver_examples := $(BUILD)/examples/kv-store $(BUILD)/examples/packet-forwarder
# Other people's drivers on the devices that we give QEMU.
models := $(patsubst %.cc,$(BUILD)/%,$(wildcard tests/models/*.cc))
gtests := $(filter-out $(static),$(units) \
	$(patsubst %.cc,$(BUILD)/%,$(wildcard tests/conformance/*.cc tests/portable/*.cc tests/counted/*.cc)))
# What runs here on the portable backend.
native := $(patsubst %.cc,$(BUILD)/%,$(wildcard tests/conformance/*.cc tests/portable/*.cc))
debugged := $(BUILD)/tests/debugger/debugged
examples := $(patsubst examples/%/,$(BUILD)/examples/%,$(sort $(dir $(wildcard examples/*/*.cc))))
# A folder of bench/ that asks a question has one program of the same name.
benches := $(foreach q,$(notdir $(wildcard bench/*)),$(if $(wildcard bench/$q/$q.cc),$(BUILD)/bench/$q/$q))
# They need devices, and a run of their own.
driver_benches := $(patsubst %.cc,$(BUILD)/%,$(wildcard bench/drivers/*.cc))
# What one of them compares with, if it is there (Debian: apt-get install iceoryx libiceoryx-posh-dev libiceoryx-hoofs-dev).
iceoryx_headers := $(and $(shell command -v iox-roudi),$(wildcard /usr/include/iceoryx/v2*))
benches += $(if $(iceoryx_headers),$(BUILD)/bench/domains/iceoryx)
library := $(BUILD)/liborbit/liborbit.a
compat_library := $(BUILD)/liborbit/liborbit-compat.a
isolation_library := $(BUILD)/liborbit/liborbit-isolation.a
orbitctl_parts := $(BUILD)/liborbit/orbitctl.a
domains_parts := $(orbitctl_parts)
# Programs against the published API, in C and in C++ from 2011 on.
compats := $(addprefix $(BUILD)/,$(basename $(wildcard tests/compat/*.c tests/compat/*.cc)))
# libFuzzer comes with clang, or libclang-rt-dev. Without it there are none.
fuzzers := $(if $(wildcard $(shell clang++ -print-runtime-dir 2>/dev/null)/libclang_rt.fuzzer-*),$(patsubst %.cc,$(BUILD)/%,$(wildcard tests/fuzz-decoder/*.cc tests/fuzz-domains/*.cc)))
decoder_fuzzers := $(filter $(BUILD)/tests/fuzz-decoder/%,$(fuzzers))
domain_fuzzers := $(filter $(BUILD)/tests/fuzz-domains/%,$(fuzzers))

SANITIZE ?=
flags := -std=c++20 -D_GNU_SOURCE -Iinclude -Wall -Wextra -Werror -MMD -MP -pthread \
	$(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer)

.PHONY: help demo demo-drivers test test-debug test-distro test-drivers test-models stress bench bench-check bench-baseline bench-containers bench-drivers kernel boot install deb \
	deps programs units sanitized clean fuzz-decoder fuzz-domains fuzz-models FORCE
.DELETE_ON_ERROR:

help:
	@echo 'make demo      watch an application use orbits, on the patched kernel in a virtual machine'
	@echo 'make demo-drivers  a key-value store on an NVMe controller, whose driver is killed every second'
	@echo 'make test      the tests, here and in virtual machines on the patched kernel'
	@echo 'make test-debug  those of the kernel and the promises on a kernel with all checkers, as after each change of'
	@echo '               the patches (ORBIT_TEST_ALL=1: also what takes minutes there)'
	@echo 'make test-distro  the promises on the kernel of this distribution, with all that it can turn on'
	@echo 'make test-drivers  drivers in domains, on the kernel of this distribution and on the patched one, with devices'
	@echo '               behind an IOMMU; or only on DRIVERS_KERNEL=<directory>'
	@echo '               (DRIVER_KILLS=1000 kills one as often, DRIVER_PACKETS=1000000 go each way)'
	@echo 'make test-models  the drivers of two Linuxes on the network card that isolation/models gives QEMU'
	@echo '               (MODEL_RESETS=100 resets it as often under traffic)'
	@echo 'make stress    stress, fuzz and census for MINUTES=$(MINUTES), on kernels with all checkers; and a storm of'
	@echo '               KILLS=$(KILLS) of domains'
	@echo 'make bench     what orbits cost: counted in a virtual machine, and timed here; tables and plots'
	@echo '               (WAY=counted or timed, QUESTIONS="call ..." for a part of it)'
	@echo 'make bench-check  compare the counted costs with those of bench/baseline.json'
	@echo 'make bench-baseline  take those found now for the baseline'
	@echo 'make bench-containers'
	@echo '               what memory in pools costs, against malloc()'
	@echo 'make bench-drivers  what drivers in domains cost, counted, beside the same linked in and those of Linux'
	@echo 'make fuzz-decoder  what orbits may send, at random, for FUZZ_MINUTES=$(FUZZ_MINUTES) each (needs clang)'
	@echo 'make fuzz-domains  what domains may send or write, likewise'
	@echo 'make fuzz-models  the devices of isolation/models, likewise, under sanitizers'
	@echo 'make boot      a shell on the patched kernel, in a virtual machine with this root directory'
	@echo 'make kernel    build the patched kernel, and print where it is'
	@echo 'make programs  build the library, the examples and the tests'
	@echo 'make install   build and install the library and its headers, and nothing else'
	@echo '               (PREFIX=$(PREFIX) DESTDIR=$(DESTDIR); needs a compiler for C++20)'
	@echo 'make deb       build Debian packages of the library, in $(BUILD)/deb'
	@echo 'make deps      install the Debian packages that all this needs'
	@echo 'make clean     delete $(BUILD)/; `linux-patches/build clean` deletes the kernels'
	@echo
	@echo 'BUILD=<directory> builds there.  KERNEL=<directory>, and DEBUG_, DISTRO_, DRIVERS_, KCSAN_'
	@echo 'and OFF_KERNEL likewise, use kernels that are built already.  Each of these installs and builds'
	@echo 'what it needs.'

# $(call kernel,FLAVOUR,DIRECTORY): where to find a kernel, as a command.
kernel = $(if $(2),echo $(2),linux-patches/build $(1))

demo: deps
	@echo 'demo: compiling the library and the example'
	@$(MAKE) -s $(library) $(filter-out $(driver_examples),$(examples))
	@echo 'demo: getting the patched kernel ready (the first time, 5 to 20 minutes on two cores)'
	@kernel=$$($(call kernel,vm,$(KERNEL))) && \
	echo 'demo: booting it in a virtual machine, to run $(BUILD)/examples/system-map-audit' && echo && \
	tests/vm/run.py exec --kernel "$$kernel" --timeout 600 --file "$$kernel/System.map" -- \
		$(BUILD)/examples/system-map-audit /System.map

test: programs sanitized
	@kernel=$$($(call kernel,vm,$(KERNEL))) && tests/all.py --build $(BUILD) --kernel "$$kernel" \
		$(if $(OFF_KERNEL),--off-kernel "$(OFF_KERNEL)")

test-debug: programs
	@kernel=$$($(call kernel,debug,$(DEBUG_KERNEL))) && tests/all.py --build $(BUILD) --debug-kernel "$$kernel"

test-distro: programs
	@tests/distro.py --build $(BUILD)
	@kernel=$$($(call kernel,distro,$(DISTRO_KERNEL))) && tests/distro.py --build $(BUILD) --kernel "$$kernel"

# Each of the demo's three phases, in seconds.
DEMO_SECONDS ?= 20

demo-drivers: deps
	@$(MAKE) -s -C isolation/models deps
	@$(MAKE) -s -j$(JOBS) $(driver_examples)
	@tests/drivers.py --build $(BUILD) $(if $(DRIVERS_KERNEL),--kernel "$(DRIVERS_KERNEL)") --demo $(DEMO_SECONDS)

test-drivers: driver_options = $(if $(DRIVER_KILLS),--kills $(DRIVER_KILLS)) $(if $(DRIVER_PACKETS),--packets $(DRIVER_PACKETS))
test-drivers: deps
	@$(MAKE) -s -C isolation/models deps
	@$(MAKE) -s -j$(JOBS) $(drivers) $(driver_examples)
	@$(if $(DRIVERS_KERNEL),,tests/drivers.py --build $(BUILD) $(driver_options) &&) \
	kernel=$$($(call kernel,vm,$(or $(DRIVERS_KERNEL),$(KERNEL)))) && tests/drivers.py --build $(BUILD) --kernel "$$kernel" $(driver_options)

test-models: deps
	@$(MAKE) -s -C isolation/models deps
	@$(MAKE) -s -j$(JOBS) $(models)
	@kernel=$$($(call kernel,vm,$(KERNEL))) && tests/models.py --build $(BUILD) --kernel "$$kernel" $(if $(MODEL_RESETS),--resets $(MODEL_RESETS))

fuzz-models: deps
	@$(MAKE) -s -C isolation/models deps
	@tests/models_fuzz.py --minutes $(FUZZ_MINUTES)

stress: programs
	@ORBIT_STORM_KILLS=$(KILLS) $(BUILD)/tests/isolation/storm
	@kernel=$$($(call kernel,vm,$(KERNEL))) && debug=$$($(call kernel,debug,$(DEBUG_KERNEL))) && \
	kcsan=$$($(call kernel,kcsan,$(KCSAN_KERNEL))) && off=$$($(call kernel,off,$(OFF_KERNEL))) && \
	unpatched=$$(linux-patches/build unpatched) && \
	tests/stress.py --build $(BUILD) --minutes $(MINUTES) --rounds $(ROUNDS) --kernel "vm=$$kernel" \
		--kernel "debug=$$debug" --kernel "kcsan=$$kcsan" --off "$$off" --unpatched "$$unpatched"

# The one that Debian's packages are for.
PYTHON ?= /usr/bin/python3
WAY ?= all
QUESTIONS ?=
BENCH_OPTIONS ?=
bench bench-check bench-baseline: deps
	@$(MAKE) -s -j$(JOBS) $(benches)
	@kernel=$$($(call kernel,vm,$(KERNEL))) && \
	$(PYTHON) bench/run.py $(or $(patsubst bench-%,%,$(filter bench-%,$@)),run) $(QUESTIONS) --build $(BUILD) \
		--kernel "$$kernel" --way $(WAY) $(BENCH_OPTIONS)

$(BUILD)/bench/domains/iceoryx: $(BUILD)/%: %.cc
	@mkdir -p $(@D)
	@echo "  CXX  $@"
	@$(CXX) $(CXXFLAGS) $(flags) $(addprefix -isystem ,$(iceoryx_headers)) -o $@ $< -liceoryx_posh -liceoryx_hoofs -liceoryx_platform

bench-containers: $(BUILD)/bench/containers/bench
	@bench/containers/run.py $< --json $(BUILD)/bench/containers/results.json

bench-drivers: deps
	@$(MAKE) -s -C isolation/models deps
	@$(MAKE) -s -j$(JOBS) $(driver_benches)
	@kernel=$$($(call kernel,vm,$(KERNEL))) && bench/drivers/run.py --build $(BUILD) --kernel "$$kernel"

$(BUILD)/bench/%: bench/%.cc $(library) | deps
	@mkdir -p $(@D)
	@echo "  CXX  $@"
	@$(CXX) $(CXXFLAGS) $(flags) $(interfaces) -o $@ $< $(domain_libraries) $(library) $(domain_libraries_after) -lbenchmark -lgflags

fuzz-decoder: $(decoder_fuzzers)
fuzz-domains: $(domain_fuzzers)
fuzz-decoder fuzz-domains:
	@$(if $(fuzzers),,echo '$@: needs clang (Debian: apt-get install clang)' >&2; exit 1)
	@set -e; for fuzzer in $^; do \
		corpus=$$fuzzer.corpus; mkdir -p $$corpus; \
		echo "$$fuzzer, $(FUZZ_MINUTES) minutes"; \
		$$fuzzer -max_total_time=$$(($(FUZZ_MINUTES) * 60)) -max_len=2000 -verbosity=0 \
			-print_final_stats=1 -artifact_prefix=$$corpus- $$corpus; done

kernel: deps
	@$(call kernel,vm,$(KERNEL))

boot: programs
	@kernel=$$($(call kernel,vm,$(KERNEL))) && \
	tests/vm/run.py boot --kernel "$$kernel" --root host --chdir $(CURDIR)

programs: deps
	@$(MAKE) -s -j$(JOBS) $(library) $(filter-out $(driver_examples),$(examples)) $(gtests) $(static) $(debugged) $(compats) $(fuzzers) $(benches)

# The tests that run here again, under sanitizers: whatever one of them finds ends the test.  GCC warns
# that TSan does not know fences; the tests that use them have one thread.  -Og, for with -O1 GCC takes
# twice as long for what UBSan adds.
sanitized: deps
	@$(MAKE) -s -j$(JOBS) units BUILD=$(BUILD)/asan SANITIZE=address,undefined \
		CXXFLAGS='-Og -g1 -fno-sanitize-recover=all'
	@$(MAKE) -s -j$(JOBS) units BUILD=$(BUILD)/tsan SANITIZE=thread CXXFLAGS='-O1 -g1 -Wno-tsan'

units: $(units) $(native)

$(library) $(compat_library) $(isolation_library) $(orbitctl_parts) &: FORCE
	@$(MAKE) --no-print-directory -C liborbit all BUILD=$(abspath $(BUILD))/liborbit CXXFLAGS='$(CXXFLAGS)'

$(addprefix $(BUILD)/tests/,unit/orbitctl conformance/orbitctl portable/orbitctl): $(orbitctl_parts) $(isolation_library)
$(filter $(BUILD)/tests/isolation/%,$(units)) $(drivers): $(isolation_library)

# Where orbit-idl puts what it makes, by the header's place.
generated := $(BUILD)/generated
$(generated)/%.orbit.hpp: %.idl.hpp $(wildcard isolation/idl/orbit_idl/*.py) | deps
	@mkdir -p $(@D)
	@echo "  IDL  $@"
	@isolation/idl/orbit-idl -Iinclude -o $@ $< && touch $@

# Programs with domains.
$(BUILD)/bench/domains/domains: $(isolation_library) $(generated)/bench/domains/device.orbit.hpp
$(BUILD)/tests/conformance/domains: $(orbitctl_parts) $(isolation_library)
$(BUILD)/tests/conformance/domains.o: $(generated)/tests/conformance/domains.orbit.hpp
$(BUILD)/tests/conformance/domains_objects: $(isolation_library)
$(BUILD)/tests/conformance/domains_objects.o: $(generated)/tests/conformance/domains_objects.orbit.hpp
$(BUILD)/examples/echo-domain: $(isolation_library) $(generated)/examples/echo-domain/echo.orbit.hpp
$(BUILD)/examples/image-domain: $(isolation_library) $(generated)/examples/image-domain/decoder.orbit.hpp
$(BUILD)/examples/kv-store: $(isolation_library) $(generated)/examples/kv-store/store.orbit.hpp $(generated)/isolation/nvme/block.orbit.hpp
$(BUILD)/examples/packet-forwarder: $(isolation_library) $(generated)/examples/packet-forwarder/balance.orbit.hpp $(generated)/isolation/ixgbe/net.orbit.hpp
$(driver_benches): $(isolation_library)
$(addprefix $(BUILD)/tests/drivers/,nvme_domain.o nvme_mad.o nvme_removal.o) $(BUILD)/bench/drivers/nvme: $(generated)/isolation/nvme/block.orbit.hpp
$(addprefix $(BUILD)/tests/drivers/,ixgbe_domain.o ixgbe_mad.o ixgbe_queues.o) $(BUILD)/bench/drivers/ixgbe: $(generated)/isolation/ixgbe/net.orbit.hpp
$(BUILD)/tests/drivers/ixgbe_queues.o: $(generated)/tests/drivers/application.orbit.hpp
# What a program is compiled with beyond the rest, by its prerequisites.
interfaces = $(foreach header,$(filter %.orbit.hpp,$^),-I$(dir $(header)) -I$(dir $(header:$(generated)/%=%)))
domain_libraries = $(if $(filter $(isolation_library),$^),$(isolation_library))
domain_libraries_after = $(if $(filter $(isolation_library),$^),-lurcu-bp)
$(BUILD)/examples/image-domain: domain_libraries_after += -lpng -lz
$(BUILD)/examples/kv-store $(BUILD)/tests/isolation/kv_log: domain_libraries_after += -lz

# In two steps, for most of the time goes into compiling, and the library changes often.  -g1: line numbers are enough for a
# backtrace, and the rest takes a third of the compiler's time.
.PRECIOUS: $(BUILD)/tests/%.o
$(BUILD)/tests/%.o: tests/%.cc
	@mkdir -p $(@D)
	@echo "  CXX  $@"
	@$(CXX) $(CXXFLAGS) -g1 $(flags) $(interfaces) -c -o $@ $<

$(BUILD)/tests/%: $(BUILD)/tests/%.o $(library)
	@$(CXX) $(CXXFLAGS) $(flags) -o $@ $< $($(@F)_parts) $(domain_libraries) $(library) \
		$(domain_libraries_after) -lgtest_main -lgtest

# A debugger is to find it as it is written.
$(debugged): $(BUILD)/%: %.cc $(library)
	@mkdir -p $(@D)
	@echo "  CXX  $@"
	@$(CXX) -O0 -g $(flags) -o $@ $< $(library)

compat_flags = $(CXXFLAGS) -D_GNU_SOURCE -Iinclude -Iinclude/orbit-compat -Wall -Wextra -Werror -MMD -MP
compat_libraries := $(compat_library) $(library) -pthread

$(BUILD)/tests/compat/%: tests/compat/%.c $(compat_library)
	@mkdir -p $(@D)
	@echo "  CC   $@"
	@$(CC) -std=c11 $(compat_flags) -o $@ $< $(compat_libraries)

$(BUILD)/tests/compat/%: tests/compat/%.cc $(compat_library)
	@mkdir -p $(@D)
	@echo "  CXX  $@"
	@$(CXX) -std=$(if $(filter %/macros,$@),c++11,c++20) $(compat_flags) -o $@ $< $(compat_libraries)

fuzzed_with := -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all
# Of the library's sources, for the fuzzer to see into it.
fuzzed := $(foreach part,liborbit liborbit/common liborbit/kernel liborbit/portable liborbit/compat,$(wildcard $(part)/*.cc $(part)/*.h))
# This one is of an example's code.
$(filter-out %/deadlocks,$(decoder_fuzzers)): $(fuzzed)
$(filter %/deadlocks,$(decoder_fuzzers)): $(wildcard examples/mysql-deadlock/detector/*.h)
$(decoder_fuzzers): $(BUILD)/%: %.cc $(wildcard tests/fuzz-decoder/*.h include/*.h include/orbit/*.h)
	@mkdir -p $(@D)
	@echo "  CXX  $@"
	@clang++ -std=c++20 -O1 -g -D_GNU_SOURCE -Iinclude -fno-exceptions -fno-rtti -Wall -Wextra -Werror \
		$(fuzzed_with) -o $@ $(filter %.cc,$^) -pthread

# What each of them looks into; `within`: it is part of the program's own text.
fuzz_domains := $(BUILD)/tests/fuzz-domains
$(fuzz_domains)/census: isolation/heap.cc liborbit/orbitctl/domains.cc
$(fuzz_domains)/generated: isolation/heap.cc isolation/passing.cc isolation/ring.cc \
	$(patsubst %.idl.hpp,$(generated)/%.orbit.hpp,$(wildcard tests/isolation/idl/accepted/*.idl.hpp))
$(fuzz_domains)/heap: within := isolation/heap.cc
$(fuzz_domains)/heap: isolation/heap.cc
$(fuzz_domains)/passed: isolation/passing.cc isolation/ring.cc
$(fuzz_domains)/ring: isolation/ring.cc
$(domain_fuzzers): $(BUILD)/%: %.cc $(wildcard tests/fuzz-decoder/*.h isolation/*.h liborbit/orbitctl/*.h include/orbit/*)
	@mkdir -p $(@D)
	@echo "  CXX  $@"
	@clang++ -std=c++20 -O1 -g -D_GNU_SOURCE -Iinclude $(sort $(interfaces)) -Wall -Wextra -Werror \
		$(fuzzed_with) -o $@ $(filter-out $(within),$(filter %.cc,$^)) -pthread

$(static): $(BUILD)/%: %.cc
	@mkdir -p $(@D)
	@echo "  CXX  $@"
	@$(CXX) $(CXXFLAGS) $(flags) -static -o $@ $<

# These have nothing to do with the library.
$(models): $(BUILD)/%: %.cc
	@mkdir -p $(@D)
	@echo "  CXX  $@"
	@$(CXX) $(CXXFLAGS) -g1 $(flags) -o $@ $< -lgtest_main -lgtest

# An example is a directory; all its .cc files are one program.
.SECONDEXPANSION:
$(examples): $(BUILD)/examples/%: $$(wildcard examples/%/*.cc examples/%/*.h) $(library)
	@mkdir -p $(@D)
	@echo "  CXX  $@"
	@$(CXX) $(CXXFLAGS) $(flags) $(interfaces) -o $@ $(filter %.cc,$^) $(domain_libraries) $(library) $(domain_libraries_after)

-include $(addsuffix .d,$(gtests) $(drivers) $(driver_benches) $(models) $(static) $(debugged) $(compats) $(benches))
# With several sources there is only the last one's .d: an example's own headers are named above.
-include $(wildcard $(BUILD)/examples/*.d)

# The library and nothing else: what it takes to build it has to be there.
install:
	@$(MAKE) --no-print-directory -C liborbit all install BUILD=$(abspath $(BUILD))/liborbit \
		PREFIX=$(PREFIX) DESTDIR=$(DESTDIR)

# Built from a copy: nothing of it is left in the source tree.
deb_sources := CHANGELOG.md LICENSE README.md SECURITY.md debian include isolation liborbit
deb: deps
	@rm -rf $(BUILD)/deb && mkdir -p $(BUILD)/deb/orbit && cp -a $(deb_sources) $(BUILD)/deb/orbit
	@cd $(BUILD)/deb/orbit && dpkg-buildpackage -us -uc -b >../log 2>&1 || { tail -30 ../log >&2; exit 1; }
	@ls $(BUILD)/deb/*.deb

deps:
	@scripts/install-packages $(PACKAGES)

clean:
	rm -rf $(BUILD)

# SPDX-License-Identifier: BSD-3-Clause
#
# One Makefile, no recursion. `make help` lists the targets. V=1 shows the commands.
#
# Flavours of the same sources:
#   build/           what is shipped: gcc, -O2, assertions on
#   build/mut/       the simulator with known bugs that can be switched on (CHP_MUTATIONS)
#   build/asan/      address and undefined-behaviour sanitizers, the malloc index instead of rte_hash
#   build/fuzz/      clang's libFuzzer, sanitizers on

VERSION := 0.1.0
COMMIT := $(shell GIT_OPTIONAL_LOCKS=0 git describe --always --dirty --exclude='*' 2>/dev/null || echo none)
CC ?= gcc
CLANG ?= clang
PREFIX ?= /usr/local
DESTDIR ?=
B := build
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-7s %s\n' $(1) $(2))

ARCH := $(shell uname -m)
ARCHFLAGS := $(if $(filter x86_64,$(ARCH)),-march=corei7,-march=armv8-a+crc)
WARN := -Wall -Wextra -Wshadow -Wconversion -Wmissing-prototypes -Wstrict-prototypes -Wvla -Wundef \
	-Wcast-align -Wimplicit-fallthrough
WERROR ?=
BASEFLAGS := $(ARCHFLAGS) -g -fno-strict-aliasing -fno-common -fno-omit-frame-pointer -fstack-protector-strong \
	-Ilib -D_GNU_SOURCE $(WARN) $(WERROR)
CFLAGS ?= -O2
C11 := -std=c11
DPDKFLAGS = -std=gnu11 -isystem /usr/include/dpdk $(filter-out -march=%,$(shell pkg-config --cflags libdpdk)) \
	-DALLOW_EXPERIMENTAL_API
DPDKLIBS = $(shell pkg-config --libs libdpdk)

# Which layer is compiled how. Only these may see DPDK (tools/tidy checks the include lines too).
CHANNEL_DPDK := lib/channel/port.c lib/channel/dma.c lib/channel/device.c
LIB_DPDK := $(wildcard lib/pipeline/*.c) lib/cache/index_rte.c $(CHANNEL_DPDK)
# The table of transports, and what needs a library of its own: in programs that open a channel, and nowhere else.
LIB_TRANSPORT := lib/channel/registry.c lib/channel/rdma.c
# Adapters need the libraries of their datastores. What all adapters share does not.
ADAPTERS := $(filter-out %/engine.c %/request.c %/support.c %/batch.c %/memory.c,$(wildcard lib/datastore/*.c))
LIB_PURE := $(filter-out $(LIB_DPDK) $(LIB_TRANSPORT) $(ADAPTERS),$(wildcard lib/*/*.c))
CORE_PURE := $(filter-out lib/client/% lib/config/% lib/history/% lib/dsi/% lib/datastore/% lib/channel/memory.c,\
	$(LIB_PURE))
# The host's end of a shard; pure too.
DSI_PURE := $(wildcard lib/dsi/*.c) lib/datastore/request.c
# Hosts in the process of their replicas.
LOCAL_HOST := $(DSI_PURE) lib/channel/memory.c lib/datastore/memory.c lib/datastore/support.c lib/datastore/batch.c
LIB_REPLICA := $(LIB_DPDK) $(LIB_TRANSPORT) $(CORE_PURE) $(wildcard lib/config/*.c)

rel = $(patsubst %.c,$(B)/obj/%.o,$(1))
mut = $(patsubst %.c,$(B)/mut/obj/%.o,$(1))
asan = $(patsubst %.c,$(B)/asan/obj/%.o,$(1))
fuzz = $(patsubst %.c,$(B)/fuzz/obj/%.o,$(1))

.PHONY: all
all: deps-present $(B)/chaapar $(B)/chaapar-host $(B)/chaaparctl $(B)/bench $(B)/sim $(B)/example $(B)/libchaapar.a $(B)/libchaapar.so

# ---------------------------------------------------------------- packages

.PHONY: deps deps-present help
deps: ## install the Debian packages that building and testing need (the only target that calls apt)
	$(Q)tools/deps install

deps-present:
	$(Q)tools/deps check

help: ## this list
	$(Q)grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

# ---------------------------------------------------------------- objects

$(B)/obj/lib/client/%.o: lib/client/%.c Makefile
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(C11) $(BASEFLAGS) $(CFLAGS) -fPIC -fvisibility=hidden -DCHP_VERSION='"$(VERSION)"' -MMD -c $< -o $@

$(B)/obj/lib/pipeline/%.o: lib/pipeline/%.c Makefile
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(BASEFLAGS) $(DPDKFLAGS) $(CFLAGS) -DCHP_VERSION='"$(VERSION)"' -MMD -c $< -o $@

$(call rel,lib/cache/index_rte.c $(CHANNEL_DPDK)): $(B)/obj/%.o: %.c Makefile
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(BASEFLAGS) $(DPDKFLAGS) $(CFLAGS) -MMD -c $< -o $@

$(B)/obj/lib/%.o: lib/%.c Makefile
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(C11) $(BASEFLAGS) $(CFLAGS) -fPIC -MMD -c $< -o $@

$(B)/obj/app/chaaparctl/%.o: app/chaaparctl/%.c Makefile
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(C11) $(BASEFLAGS) $(CFLAGS) -DCHP_VERSION='"$(VERSION)"' -MMD -c $< -o $@

# As an application would: it sees the installed header and nothing else of ours.
$(B)/obj/app/example/%.o: app/example/%.c Makefile
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(C11) $(filter-out -Ilib,$(BASEFLAGS)) -Ilib/client $(CFLAGS) -MMD -c $< -o $@

$(B)/obj/app/%.o: app/%.c Makefile
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(BASEFLAGS) $(DPDKFLAGS) $(CFLAGS) -DCHP_VERSION='"$(VERSION)"' -DCHP_COMMIT='"$(COMMIT)"' -MMD -c $< -o $@

# What prints the commit is compiled again when it changes.
$(B)/obj/app/bench/bench.o: $(B)/commit
$(B)/commit: FORCE
	$(Q)mkdir -p $(@D)
	$(Q)echo '$(COMMIT)' | cmp -s - $@ || echo '$(COMMIT)' > $@
.PHONY: FORCE

$(B)/obj/tests/datapath/%.o: tests/datapath/%.c Makefile
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(BASEFLAGS) $(DPDKFLAGS) $(CFLAGS) -DCHP_VERIFY_ENABLED=1 -MMD -c $< -o $@

$(B)/obj/tests/channel/%.o: tests/channel/%.c Makefile
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(BASEFLAGS) $(DPDKFLAGS) $(CFLAGS) -DCHP_VERIFY_ENABLED=1 -MMD -c $< -o $@

$(B)/obj/tests/sim/eal.o $(B)/mut/obj/tests/sim/eal.o: tests/sim/eal.c Makefile
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(BASEFLAGS) $(DPDKFLAGS) $(CFLAGS) -MMD -c $< -o $@

$(B)/obj/%.o: %.c Makefile
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(C11) $(BASEFLAGS) $(CFLAGS) -DCHP_VERIFY_ENABLED=1 -MMD -c $< -o $@

$(B)/mut/obj/lib/cache/index_rte.o: lib/cache/index_rte.c Makefile
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(BASEFLAGS) $(DPDKFLAGS) $(CFLAGS) -MMD -c $< -o $@

$(B)/mut/obj/%.o: %.c Makefile
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(C11) $(BASEFLAGS) $(CFLAGS) -DCHP_MUTATIONS -DCHP_VERIFY_ENABLED=1 -MMD -c $< -o $@

SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all
$(B)/asan/obj/%.o: %.c Makefile
	$(call say,ASAN,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(C11) $(BASEFLAGS) -O1 $(SANITIZE) -DCHP_VERIFY_ENABLED=1 -DCHP_VERSION='"$(VERSION)"' -MMD -c $< -o $@

$(B)/fuzz/obj/%.o: %.c Makefile
	$(call say,FUZZ,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CLANG) $(C11) $(BASEFLAGS) -O1 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all \
		-DCHP_VERIFY_ENABLED=1 -MMD -c $< -o $@

# ---------------------------------------------------------------- programs

PURE_LIBS := -ljansson -lm
# What programs that open channels need.
TRANSPORT_LIBS := -lrdmacm -libverbs
# What the adapters in lib/datastore need.
STORE_LIBS := -lrocksdb -lhiredis -lcurl -ljansson -lpthread
$(B)/chaapar: $(call rel,$(wildcard app/chaapar/*.c) $(LIB_REPLICA))
	$(call say,LD,$@)
	$(Q)$(CC) -o $@ $^ $(DPDKLIBS) $(TRANSPORT_LIBS) $(PURE_LIBS)

# The host's program. Of the pipeline it needs the command line, and how EAL is started.
HOST_SRC := $(wildcard app/chaapar-host/*.c) lib/pipeline/command.c lib/pipeline/eal.c lib/pipeline/error.c \
	lib/cache/index_rte.c \
	$(CHANNEL_DPDK) $(LIB_TRANSPORT) $(CORE_PURE) $(wildcard lib/config/*.c) $(wildcard lib/datastore/*.c) \
	$(wildcard lib/dsi/*.c)
$(B)/chaapar-host: $(call rel,$(HOST_SRC))
	$(call say,LD,$@)
	$(Q)$(CC) -o $@ $^ $(DPDKLIBS) $(TRANSPORT_LIBS) $(PURE_LIBS) $(STORE_LIBS)

# Replicas in one process meet on net_ring ports; the plain list of libraries has no drivers.
NET_RING := -lrte_net_ring
$(B)/bench: $(call rel,$(wildcard app/bench/*.c) app/chaaparctl/zipf.c tests/datapath/ring_net.c tests/datapath/local.c \
		tests/datapath/local_host.c $(LOCAL_HOST) $(LIB_REPLICA))
	$(call say,LD,$@)
	$(Q)$(CC) -o $@ $^ $(NET_RING) $(DPDKLIBS) $(TRANSPORT_LIBS) $(PURE_LIBS)

# The same, of the channel's next version: for the test that two versions refuse each other.
NEXT := lib/dsi/dsi.c lib/wire/host.c lib/core/host.c
$(B)/next/%.o: %.c Makefile
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(C11) $(BASEFLAGS) $(CFLAGS) -DCHP_CHANNEL_VERSION=2u -MMD -c $< -o $@

$(B)/chaapar-host-next: $(call rel,$(filter-out $(NEXT),$(HOST_SRC))) $(NEXT:%.c=$(B)/next/%.o)
	$(call say,LD,$@)
	$(Q)$(CC) -o $@ $^ $(DPDKLIBS) $(TRANSPORT_LIBS) $(PURE_LIBS) $(STORE_LIBS)

CLIENT_OBJ := $(call rel,$(wildcard lib/client/*.c) lib/wire/client.c lib/wire/packet.c lib/base/digest.c \
	lib/base/crc32c.c lib/base/assert.c)
$(B)/chaaparctl: $(call rel,$(wildcard app/chaaparctl/*.c) $(wildcard lib/config/*.c) $(wildcard lib/history/*.c) \
		lib/base/histogram.c lib/base/text.c) $(CLIENT_OBJ)
	$(call say,LD,$@)
	$(Q)$(CC) -o $@ $^ $(PURE_LIBS)

$(B)/libchaapar.a: $(CLIENT_OBJ)
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar rcs $@ $^

# Only chaapar_ symbols leave the library; what it shares with the replica is its own affair.
$(B)/chaapar.map:
	$(Q)mkdir -p $(@D)
	$(Q)echo '{ global: chaapar_*; local: *; };' > $@

$(B)/libchaapar.so: $(CLIENT_OBJ) $(B)/chaapar.map
	$(call say,LD,$@)
	$(Q)$(CC) -shared -Wl,-soname,libchaapar.so.0 -Wl,--version-script=$(B)/chaapar.map -o $@ $(CLIENT_OBJ) $(PURE_LIBS)

$(B)/example: $(call rel,$(wildcard app/example/*.c)) $(B)/libchaapar.a
	$(call say,LD,$@)
	$(Q)$(CC) -o $@ $^ $(PURE_LIBS)

# ---------------------------------------------------------------- simulator

SIM_SRC := $(filter-out tests/sim/eal.c,$(wildcard tests/sim/*.c)) lib/history/linear.c lib/history/history.c
$(B)/sim: $(call rel,$(SIM_SRC) tests/sim/eal.c lib/cache/index_rte.c $(CORE_PURE) $(DSI_PURE))
	$(call say,LD,$@)
	$(Q)$(CC) -o $@ $^ $(DPDKLIBS) $(PURE_LIBS)

$(B)/mut/sim: $(call mut,$(SIM_SRC) tests/sim/eal.c lib/cache/index_rte.c $(CORE_PURE) $(DSI_PURE))
	$(call say,LD,$@)
	$(Q)$(CC) -o $@ $^ $(DPDKLIBS) $(PURE_LIBS)

$(B)/asan/sim: $(call asan,$(SIM_SRC) tests/support/no_eal.c tests/support/index_malloc.c $(CORE_PURE) $(DSI_PURE))
	$(call say,LD,$@)
	$(Q)$(CC) $(SANITIZE) -o $@ $^ $(PURE_LIBS)

# ---------------------------------------------------------------- tests

UNIT := $(patsubst tests/unit/%.c,%,$(wildcard tests/unit/test_*.c))
DATAPATH := $(patsubst tests/datapath/%.c,%,$(wildcard tests/datapath/test_*.c))
CHANNEL := $(patsubst tests/channel/%.c,%,$(wildcard tests/channel/test_*.c))
FUZZERS := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
UNIT_LIB := $(LIB_PURE) app/chaaparctl/zipf.c tests/support/index_malloc.c $(filter-out tests/support/index_malloc.c tests/support/no_eal.c,$(wildcard tests/support/*.c))

# Objects of tests are kept, though only pattern rules name them.
.SECONDARY:

# The client library's test plays the system.
comma := ,
WRAP :=
$(B)/test/test_client $(B)/asan/test/test_client: WRAP := \
	$(patsubst %,-Wl$(comma)--wrap=%,clock_gettime getrandom sendmmsg recvmmsg ppoll)

$(B)/test/%: $(B)/obj/tests/unit/%.o $(call rel,$(UNIT_LIB))
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(WRAP) -o $@ $^ -lcriterion $(PURE_LIBS) -lpthread

$(B)/asan/test/%: $(B)/asan/obj/tests/unit/%.o $(call asan,$(UNIT_LIB))
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(SANITIZE) $(WRAP) -o $@ $^ -lcriterion $(PURE_LIBS) -lpthread

DATAPATH_SUPPORT := $(filter-out $(wildcard tests/datapath/test_*.c),$(wildcard tests/datapath/*.c))
$(B)/datapath/%: $(B)/obj/tests/datapath/%.o $(call rel,$(DATAPATH_SUPPORT) $(LOCAL_HOST) $(LIB_REPLICA))
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -o $@ $^ -lcriterion $(NET_RING) $(DPDKLIBS) $(TRANSPORT_LIBS) $(PURE_LIBS) -lpthread

CHANNEL_SUPPORT := $(filter-out $(wildcard tests/channel/test_*.c),$(wildcard tests/channel/*.c))
$(B)/channel/%: $(B)/obj/tests/channel/%.o $(call rel,$(CHANNEL_SUPPORT) $(LIB_REPLICA) lib/channel/memory.c)
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -o $@ $^ -lcriterion $(NET_RING) $(DPDKLIBS) $(TRANSPORT_LIBS) $(PURE_LIBS) -lpthread

$(B)/fuzz/%: $(B)/fuzz/obj/tests/fuzz/%.o $(call fuzz,$(LIB_PURE) tests/support/index_malloc.c)
	$(call say,LD,$@)
	$(Q)$(CLANG) -fsanitize=fuzzer,address,undefined -o $@ $^ $(PURE_LIBS)

# What is behind a fuzzed shard.
$(B)/fuzz/fuzz_shard $(B)/fuzz/fuzz_zab: $(call fuzz,tests/sim/store.c)

# Frames are the pipeline's, but pure.
$(B)/fuzz/fuzz_frame: $(call fuzz,lib/pipeline/frame.c lib/pipeline/counters.c)

CONFORMANCE := $(wildcard tests/datastore/*.c lib/datastore/*.c lib/wire/*.c lib/base/*.c)
$(B)/conformance: $(call rel,$(CONFORMANCE))
	$(call say,LD,$@)
	$(Q)$(CC) -o $@ $^ $(STORE_LIBS)

$(B)/asan/conformance: $(call asan,$(CONFORMANCE))
	$(call say,LD,$@)
	$(Q)$(CC) $(SANITIZE) -o $@ $^ $(STORE_LIBS)

.PHONY: programs-unit programs-asan programs-datapath programs-channel programs-fuzz programs-datastore programs-e2e
programs-unit: $(UNIT:%=$(B)/test/%)
programs-asan: $(UNIT:%=$(B)/asan/test/%) $(B)/asan/sim
programs-datapath: $(DATAPATH:%=$(B)/datapath/%)
programs-channel: $(CHANNEL:%=$(B)/channel/%)
programs-fuzz: $(FUZZERS:%=$(B)/fuzz/%)
programs-datastore: $(B)/conformance
programs-e2e: $(B)/chaapar $(B)/chaapar-host $(B)/chaaparctl $(B)/chaapar-host-next

.PHONY: test check check-long sim fuzz scenarios mutations
test: deps-present programs-unit ## unit tests only: seconds
	$(Q)tests/check unit

check: ## everything that must pass, about 25 minutes; installs what is missing
	$(Q)tools/deps ensure
	$(Q)tests/check all

check-long: ## all seeds, clang, longer fuzzing and end-to-end runs: about two hours
	$(Q)tools/deps ensure
	$(Q)tests/check long

SEEDS ?= 200
PROTOCOL ?= hermes
REPLICAS ?= 3
sim: deps-present $(B)/sim ## simulate: SEED=n replays one run with a trace, SEEDS=n runs many; REPLICAS=, PROTOCOL=
	$(Q)$(B)/sim --protocol $(PROTOCOL) --replicas $(REPLICAS) $(if $(SEED),--seed $(SEED) --trace,--seeds $(SEEDS))

scenarios: deps-present $(B)/sim ## run the text scenarios in tests/scenarios
	$(Q)$(B)/sim --scenarios tests/scenarios/*.txt

mutations: deps-present $(B)/mut/sim ## prove that the simulator finds every known bug that can be switched on
	$(Q)$(B)/mut/sim --mutations --seeds 1500

.PHONY: check-rdma
check-rdma: deps-present programs-channel all ## the channel over RDMA (soft-RoCE) in a virtual machine: two minutes; part of check-long
	$(Q)tools/check-rdma

FUZZ_S ?= 60
fuzz: deps-present programs-fuzz ## fuzz every parser for FUZZ_S seconds each
	$(Q)FUZZ_S=$(FUZZ_S) tests/check fuzz

# ---------------------------------------------------------------- running, measuring

KEYS ?= 1000000
VALUE_BYTES ?= 32
DURATION_S ?= 5
BENCH_MB ?= 6144
SHARDS ?= 1
PEERS ?= udp
HOST_KEYS ?= 200000
HOST_S ?= 2
.PHONY: demo bench
demo: ## three replicas with hosts, real clients, loss, deaths, a verdict on every answer; installs what is missing; PROTOCOL=
	$(Q)tools/deps ensure
	$(Q)$(MAKE) --no-print-directory -j2 all
	$(Q)tools/demo $(PROTOCOL)

bench: deps-present $(B)/bench ## replicas and a load generator in one process; JSON, a line for each of PROTOCOL and PEERS
	$(Q)for p in $(PROTOCOL); do for e in $(PEERS); do tools/bench $(BENCH_MB) \
		--protocol $$p --replicas $(REPLICAS) --keys $(KEYS) --value-bytes $(VALUE_BYTES) \
		--duration-s $(DURATION_S) --shards $(SHARDS) --peers $$e || exit; done; done

.PHONY: bench-host
bench-host: all $(B)/conformance ## what hosts cost and give: the fast path, misses over vhost, RocksDB's batches, the cache, CPU; JSON, three minutes; ONLY=, SHORT=
	$(Q)tools/bench-host --keys $(HOST_KEYS) --value-bytes $(VALUE_BYTES) --seconds $(HOST_S) $(if $(ONLY),--only $(ONLY)) \
		$(if $(SHORT),--short)

.PHONY: bench-recovery
bench-recovery: all ## a replica dies under load and comes back: JSON, and build/bench-recovery.svg
	$(Q)tools/bench-recovery --keys $(KEYS) --value-bytes $(VALUE_BYTES) --svg $(B)/bench-recovery.svg

SECONDS_A_POINT ?= 1
.PHONY: figures-box
figures-box: all ## what of the second paper's evaluation can be redone: JSON and SVG in build/figures-box; three minutes
	$(Q)tools/figures-box --out $(B)/figures-box --seconds $(SECONDS_A_POINT)

# ---------------------------------------------------------------- care of the sources

.PHONY: tidy format install clean
tidy: ## layering, banned calls, headers that compile alone, line and function lengths
	$(Q)tools/tidy

format: ## clang-format everything
	$(Q)git ls-files '*.c' '*.h' | xargs clang-format -i

install: all ## install to DESTDIR/PREFIX
	install -D -t $(DESTDIR)$(PREFIX)/bin $(B)/chaapar $(B)/chaapar-host $(B)/chaaparctl
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/include lib/client/chaapar.h
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/lib $(B)/libchaapar.a
	install -D $(B)/libchaapar.so $(DESTDIR)$(PREFIX)/lib/libchaapar.so.$(VERSION)
	ln -sf libchaapar.so.$(VERSION) $(DESTDIR)$(PREFIX)/lib/libchaapar.so.0
	ln -sf libchaapar.so.0 $(DESTDIR)$(PREFIX)/lib/libchaapar.so
	mkdir -p $(DESTDIR)$(PREFIX)/lib/pkgconfig
	sed -e 's|@PREFIX@|$(PREFIX)|; s|@VERSION@|$(VERSION)|' lib/client/chaapar.pc.in > \
		$(DESTDIR)$(PREFIX)/lib/pkgconfig/chaapar.pc

clean: ## remove everything built
	rm -rf $(B)

# A header that is gone: what included it is compiled again, and says if it still does.
%.h: ;

-include $(shell find $(B) -name '*.d' -type f 2>/dev/null)

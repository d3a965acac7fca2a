# The doors of the repository; each target says what it does and is cheap to repeat.
# Builds lie in build/<preset> (CMakePresets.json).
JOBS ?= $(shell nproc)
PREFIX ?= /usr/local
PROMPT ?= ROMEO:
ARGS ?=
CASE ?=
export PROMPT JOBS

CONFIGURED = [ -f build/$(1)/build.ninja ] || cmake --preset $(1) $(2) --log-level=NOTICE
BUILD = cmake --build build/$(1) -j $(JOBS)

.PHONY: help run test asan tsan debug fuzz slow bench install format check clean
.DEFAULT_GOAL := run

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*##/  make \1\t/p' Makefile | expand -t 18
	@echo "variables: PROMPT='text' ARGS='options of mica generate' CASE=pattern JOBS=n PREFIX=dir DESTDIR=dir YES=1"

build/release/bin/mica: FORCE
	@echo "==> installing what is missing (tools/packages.txt), building build/release/bin/mica"
	@tools/bootstrap
	@$(call CONFIGURED,release,-DMICA_TESTS=OFF)
	@$(call BUILD,release) --target mica_cli
FORCE:

run: build/release/bin/mica  ## build mica and let the default model write (the default target)
	@echo "==> build/release/bin/mica generate -p \"$$PROMPT\" -n 120 $(ARGS)"
	@build/release/bin/mica generate -p "$$PROMPT" -n 120 $(ARGS)

test:  ## build everything and run the fast ring: C++, guards' and Python tests
	@tools/bootstrap test
	@tools/test release

asan:  ## the fast ring under AddressSanitizer and UndefinedBehaviorSanitizer
	@tools/bootstrap test
	@tools/test asan

tsan:  ## the fast ring under ThreadSanitizer
	@tools/bootstrap test
	@tools/test tsan

debug:  ## an unoptimised build with debug information, in build/debug
	@tools/bootstrap test
	@$(call CONFIGURED,debug)
	@$(call BUILD,debug)

fuzz:  ## run each fuzz target for FUZZ_SECONDS (30) from its corpus
	@tools/bootstrap test fuzz
	@tools/fuzz

slow:  ## the slow ring: 200 random models against transformers (REFERENCE=python), fuzzing
	@tools/bootstrap test fuzz
	@tools/slow

bench:  ## measure Mica beside its peers (CASE=pattern), into bench/results/<machine>.{json,md}
	@tools/bootstrap bench
	@bench/setup
	@cmake --preset release -DMICA_BENCH=ON -DMICA_PYTHON=ON "-DPython_EXECUTABLE=$$(tools/python_env)" --log-level=NOTICE
	@$(call BUILD,release) --target benchmarks mica_python_package mica_cli
	@bench/run $(CASE)

install:  ## install the command, library, headers and assets under PREFIX (DESTDIR honoured)
	@tools/bootstrap
	@$(call CONFIGURED,release,-DMICA_TESTS=OFF)
	@$(call BUILD,release) --target mica mica_cli
	@echo "==> installing under $(DESTDIR)$(PREFIX)"
	@DESTDIR="$(DESTDIR)" cmake --install build/release --prefix "$(PREFIX)" >/dev/null
	@[ -n "$(DESTDIR)" ] || [ "$$(id -u)" != 0 ] || ldconfig

format:  ## format the C++ sources
	@tools/bootstrap dev
	@tools/check_format --fix

check:  ## run every guard: formatting, layers, budgets, paths, workplace
	@tools/bootstrap dev
	@tools/check

clean:  ## remove build/
	rm -rf build

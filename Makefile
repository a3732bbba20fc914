# Every target does the set-up it needs: programs through .ci/setup, Python packages into .venv.
# PYTHON makes .venv, QEMU and BOCHS run the guest, JUNIT is where tests report to; all may be set:
# make test QEMU=/opt/qemu-system-x86_64
# QEMU_RISCV is the QEMU for RISC-V of 64 bits; that for 32 bits lies beside it, with 32 in its name.
# QEMU_ARM64 is the QEMU for arm64, QEMU_POWER that for POWER, QEMU_S390 that for s390x.

PYTHON ?= python3
JOBS ?= 2
export PYTHON
# Tests start hundreds of processes, and pytest rewrites every assertion: each would do again what
# the first one leaves in __pycache__.
unexport PYTHONDONTWRITEBYTECODE

bin := .venv/bin
# One worker more has the two processors while others wait for what has a deadline. Each begins
# with a part of its own, so that a guest is booted once for its tests, and then takes from the
# others.
side_by_side := -n 3 --dist worksteal
MAKEFLAGS += --no-print-directory

.PHONY: help validate test test-hw test-bochs flushes engines guest image-linux lint bench dist clean programs browser

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

validate: .venv/ready ## compare every layout with the machine
	@$(bin)/pagetable validate

test: browser .venv/ready ## run all tests, those on the machine among them; JUnit in build/test.xml
	@$(bin)/pytest $(side_by_side) --junit-xml=$(or $(JUNIT),build/test.xml)

test-hw: .venv/ready ## compare the machine with the reference, all of it; JUnit in build/test-hw.xml
	@$(bin)/pytest -m hw $(side_by_side) --junit-xml=$(or $(JUNIT),build/test-hw.xml) tests/check tests/machine tests/linux tests/flushes

test-bochs: .venv/ready ## the tests that need Bochs; JUnit in build/test-bochs.xml
	@$(bin)/pytest -m hw -k "bochs or shadow_stacks or halves or witnesses" $(side_by_side) --junit-xml=$(or $(JUNIT),build/test-bochs.xml) tests/check tests/machine tests/cli

flushes: .venv/ready ## run Linux under `pagetable flushes`, as it is and without flushes
	@$(bin)/python -m tests.flushes $(RUNS)

engines: ## bring QEMUs and Bochs of other Debian releases, for QEMU=build/engines/qemu-11.1
	@.ci/engines

guest: programs ## build the guest's stub, and the plugin for QEMU; those of other architectures where their gcc is
	@$(MAKE) -s -C guest/x86
	@$(MAKE) -s -C guest/plugin
	@for one in riscv arm64 power s390; do \
		$(MAKE) -q -C guest/$$one || { \
		lacks=$$($(MAKE) -s -C guest/$$one lacks); \
		if [ -n "$$lacks" ]; then echo "$$lacks" >&2; else $(MAKE) -s -C guest/$$one || exit; fi; }; done

image-linux: programs ## make the Linux guest (images/linux), with the kernel of Debian's package
	@$(PYTHON) -m images.linux.build

lint: .venv/ready ## check style and types
	@$(bin)/ruff check
	@$(bin)/mypy

mutants: .venv/ready ## mutate the package and print what its tests miss: a sample, or MODULE=harness/...
	@$(bin)/python -m tests.mutants --jobs $(JOBS) $(MODULE)

bench: .venv/ready ## measure; figures in build/bench.json
	@$(bin)/python -m tests.bench

dist: .venv/ready ## make the sdist and the wheel, in dist/
	@$(bin)/hatchling build -d dist

clean: ## remove what was built, except .venv
	@$(MAKE) -s -C guest/x86 clean
	@$(MAKE) -s -C guest/riscv clean
	@$(MAKE) -s -C guest/arm64 clean
	@$(MAKE) -s -C guest/power clean
	@$(MAKE) -s -C guest/s390 clean
	@$(MAKE) -s -C guest/plugin clean
	@rm -rf build dist

programs:
	@.ci/setup

browser:
	@.ci/setup test

.venv/ready: pyproject.toml | guest
	@echo "installing Python packages into .venv"
	@$(PYTHON) -m venv .venv
	@$(bin)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,dev]'
	@touch $@

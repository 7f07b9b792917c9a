# SPDX-License-Identifier: Apache-2.0
# Every target finds or makes what it needs; see README.rst.

PYTHON ?= python3
TOX := .venv/bin/tox
# One environment runs all that needs Nova.
IN := $(TOX) exec -qq -e nova --

.PHONY: help demo lab lab-moves test test-tool test-client test-tempest \
	test-unit test-releases test-functional test-unpatched test-unwiped \
	test-faults faults bench lint work upstream export series wheel \
	demo-wheel docs cloud cloud-env cloud-up cloud-down clean

help:
	@sed -n 's/^## //p' Makefile

## make demo             move a server's vPMEM data with the real client (DEMO=--help)
demo: work .venv/nova
	$(IN) python -m demo $(DEMO)

## make test             all tests
test: lint test-tool test-client test-tempest test-unit test-releases \
		test-functional test-unpatched test-unwiped
	@echo 'make test: everything passed'

## make test-tool        the patch tool and the stand-ins of the tests
test-tool: .venv/nova
	$(IN) python -m pytest -q tests

## make test-client      the client plugin, in an environment of its own
test-client: $(TOX)
	$(TOX) run -q -e client

## make test-tempest     what the Tempest plugin does without a cloud
test-tempest: $(TOX)
	$(TOX) run -q -e tempest

## make test-unit        our unit tests, and some of Nova's
test-unit: work .venv/nova
	$(IN) tools/stestr unit $$(cat tools/unit-tests)

## make test-releases   our unit tests on the newest of each supported series
test-releases: work .venv/nova
	$(IN) tools/releases

## make test-functional  our functional tests, and Nova's for vPMEM
test-functional: work .venv/nova
	$(IN) tools/stestr functional $$(cat tools/functional-tests)
	# nova-compute can still be run with eventlet, whose pipes differ.
	$(IN) env OS_NOVA_DISABLE_EVENTLET_PATCHING=False tools/stestr \
		functional/libvirt \
		PmemCopyTests.test_resize PmemCopyTests.test_larger \
		test_copy_killed_half_way

## make test-unpatched   show that the fixes' tests fail on an unpatched Nova
test-unpatched: work .venv/nova
	$(IN) tools/unpatched

## make bench            how fast the copy is, against plain pipes (5 to 10 minutes)
bench: work .venv/nova
	$(IN) env PYTHONPATH=work/nova:. python -m bench $(BENCH)

## make test-unwiped     show that the fault matrix fails without the wipe
test-unwiped: work .venv/nova
	$(IN) tools/faults --without-wipe

## make test-faults      a sample of the fault matrix
test-faults: work .venv/nova
	$(IN) tools/stestr functional/libvirt test_pmem_faults.PmemFaultTests

## make faults           the whole fault matrix; the last line is the count
faults: work .venv/nova
	$(IN) tools/faults

## make lint             style, types, and what Nova's style asks of files for it
lint: work .venv/nova
	$(IN) tools/lint

## make lab              guests with real device DAX: the tools, the data path
lab: work .venv/lab
	@tools/packages lab
	$(TOX) exec -qq -e lab -- python -m pytest -q --lab-must-run \
		-n 2 --dist loadfile --no-loadscope-reorder \
		lab/tests tests/stand_ins/test_daxio.py tests/stand_ins/test_ndctl.py

## make cloud            real services on this machine: Tempest, client, faults
cloud: cloud-env
	@tools/cloud run $(CLOUD)

## make cloud-up         bring the cloud up to play with, until make cloud-down
cloud-up: cloud-env
	@tools/cloud up

cloud-down:
	@tools/cloud down

cloud-env: work
	@tools/packages cloud
	@tools/cloud-env

## make lab-moves        whole moves between two guests, with all of Nova
lab-moves: work .venv/nova
	@tools/packages lab
	@tools/packages moves
	$(IN) python -m pytest -q -p no:cacheprovider -p lab.plugin \
		--durations=0 --durations-min=1 --lab-must-run \
		--lab-folder work/lab lab/moves

## make docs             Nova's docs, API reference and notes; these pages
docs: export
	@tools/packages docs
	$(TOX) exec -qq -e docs -- tools/docs

## make work             make or refresh the patched tree in work/nova
work: $(TOX)
	.venv/bin/python -m novapatch work

## make export           commits, patches, a quilt queue, in work/export
export: $(TOX)
	rm -rf work/export
	.venv/bin/python -m novapatch export

## make series           verify the commits one by one (COMMITS=3: only that)
series: export .venv/nova
	$(IN) tools/series $(COMMITS)

## make wheel            an sdist and a wheel of the patched Nova, in work/dist
wheel: export
	PATH="$$PWD/.venv/bin:$$PATH" tools/wheel

## make demo-wheel       install the wheel over the original, and run the demo
demo-wheel: wheel .venv/nova
	$(IN) tools/demo-wheel $(DEMO)

## make upstream         Nova's own tests (UPSTREAM='unit REGEX')
upstream: work .venv/nova
	$(IN) tools/upstream $(UPSTREAM)

## make clean            remove what the targets have made
clean:
	rm -rf .tox .venv work .pytest_cache .hypothesis .stestr

$(TOX): bindep.txt constraints.txt tools/bootstrap tools/packages
	PYTHON=$(PYTHON) tools/bootstrap

.venv/nova: $(TOX) tox.ini setup.cfg constraints.txt | work
	$(TOX) run -q -e nova --notest
	touch $@

.venv/lab: $(TOX) tox.ini constraints.txt
	$(TOX) run -q -e lab --notest
	touch $@

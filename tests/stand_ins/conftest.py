# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

import importlib
import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import bench as benches  # noqa: E402


@pytest.fixture
def bench(request):
    """The place where the tools are: stand-ins, unless PMEM_BENCH says."""
    module, _, name = os.environ.get(
        'PMEM_BENCH', 'bench:StandInBench').partition(':')
    place = getattr(importlib.import_module(module), name)(request)
    yield place
    place.close()


@pytest.fixture
def pmem():
    """The module with Nova's fixture."""
    return benches.load_fixture()


@pytest.fixture
def hosts(pmem):
    """Two hosts with an sshd each and a namespace of 4 MiB each."""
    with pmem.PmemHosts(['127.0.0.1', '127.0.0.2']) as fixture:
        fixture.add_namespace('ns_0', 4 * pmem.MIB, host='host1')
        fixture.add_namespace('ns_1', 4 * pmem.MIB, host='host2')
        yield fixture

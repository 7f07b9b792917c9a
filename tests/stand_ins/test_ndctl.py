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

"""The contract of ``ndctl list -X``, and what Nova makes of its output."""

import json
import os

import pytest


def listed(bench, user='root'):
    result = bench.run('ndctl', 'list', '-X', user=user)
    assert (result.status, result.stderr) == (0, '')
    return json.loads(result.stdout)


def test_without_namespaces_it_prints_nothing(bench):
    result = bench.run('ndctl', 'list', '-X')
    assert (result.status, result.stdout, result.stderr) == (0, b'', '')


def test_one_namespace_is_an_array_too(bench):
    device = bench.device()
    namespace, = listed(bench)
    assert namespace['name'] == device.name
    assert namespace['mode'] == 'devdax'
    assert namespace['size'] == device.size
    assert namespace['daxregion']['devices'][0]['size'] == device.size


def test_all_namespaces_in_whatever_order(bench):
    names = {bench.device().name for _ in range(3)}
    assert {n['name'] for n in listed(bench)} == names


def test_nova_gets_to_the_device_node(bench):
    """Nova puts /dev/ in front of the character device's name."""
    device = bench.device()
    namespace, = listed(bench)
    node = '/dev/' + namespace['daxregion']['devices'][0]['chardev']
    assert os.path.realpath(node) == os.path.realpath(device.path)


@pytest.mark.parametrize('user,seen', [('root', True), ('nova', False)])
def test_only_root_sees_the_alignment(bench, user, seen):
    bench.device()
    namespace, = listed(bench, user)
    assert ('align' in namespace['daxregion']) is seen

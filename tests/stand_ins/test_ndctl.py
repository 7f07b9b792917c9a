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

#: Names that a namespace can have.
ODD_NAMES = ['we"ird', 'a/b', 'two\nlines', '-dash', '\u00fc,' + 'x' * 60]


def listed(bench, user='root'):
    result = bench.run('ndctl', 'list', '-X', user=user)
    assert (result.status, result.stderr) == (0, '')
    return json.loads(result.stdout)


def names(bench):
    return [namespace.get('name') for namespace in listed(bench)]


def nodes(bench):
    """Return the device nodes by name, as Nova finds them.

    Nova puts /dev/ in front of the character device's name.
    """
    return {
        namespace['name']: os.path.normpath(
            '/dev/' + namespace['daxregion']['devices'][0]['chardev'])
        for namespace in listed(bench)}


def shape(value):
    """Return what has no values: the keys, and what is in lists."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shape(each) for each in value]
    return type(value)


def test_without_namespaces_it_prints_nothing(bench):
    bench.only()
    result = bench.run('ndctl', 'list', '-X')
    assert (result.status, result.stdout, result.stderr) == (0, b'', '')


def test_one_namespace_is_an_array_too(bench):
    device, = bench.only('one')
    namespace, = listed(bench)
    assert namespace['name'] == 'one'
    assert namespace['mode'] == 'devdax'
    assert namespace['size'] == device.size
    assert namespace['daxregion']['devices'][0]['size'] == device.size


@pytest.mark.parametrize('user', ['root', 'nova'])
def test_what_is_told_of_a_namespace(bench, user):
    """Only root sees the alignment of the region."""
    bench.only('one')
    region = {'id': int, 'size': int, 'align': int, 'devices': [{
        'chardev': str, 'size': int, 'target_node': int, 'align': int,
        'mode': str}]}
    if user != 'root':
        del region['align']
    assert shape(listed(bench, user)) == [{
        'dev': str, 'mode': str, 'map': str, 'size': int, 'uuid': str,
        'daxregion': region, 'align': int, 'name': str}]


def test_the_numbers_belong_together(bench):
    bench.only('one', 'two')
    for namespace in listed(bench):
        region = namespace['daxregion']
        chardev = os.path.basename(region['devices'][0]['chardev'])
        assert chardev.startswith('dax%d.' % region['id'])
        assert namespace['dev'] == chardev.replace('dax', 'namespace')


def test_all_namespaces_in_whatever_order(bench):
    """It was seen to be that of creation, the reverse, and neither."""
    bench.only('one', 'two', 'three')
    assert sorted(names(bench)) == ['one', 'three', 'two']


def test_nova_gets_to_the_device_nodes(bench):
    devices = bench.only('one', 'two')
    assert nodes(bench) == {
        device.name: device.path for device in devices}


def test_names_may_repeat_or_be_absent(bench):
    bench.only('twice', '', 'twice')
    assert sorted(names(bench), key=str) == [None, 'twice', 'twice']


def test_names_may_be_odd(bench):
    bench.only(*ODD_NAMES)
    assert sorted(names(bench)) == sorted(ODD_NAMES)


def test_a_disabled_namespace_is_left_out(bench):
    one, two = bench.only('one', 'two')
    bench.poke(one, 0, b'still here')
    bench.enable(one, False)
    assert nodes(bench) == {'two': two.path}
    assert bench.mode(one.path) is None
    bench.enable(one)
    assert sorted(names(bench)) == ['one', 'two']
    assert bench.peek(one, 0, 10) == b'still here'


def test_a_name_may_come_back_at_another_node(bench):
    """The others stay where they are: there is a gap."""
    one, two, three = bench.only('one', 'two', 'three')
    bench.remove(two)
    assert nodes(bench) == {'one': one.path, 'three': three.path}
    again = bench.add('two')
    assert again.path != two.path
    assert nodes(bench) == {
        'one': one.path, 'two': again.path, 'three': three.path}


def test_the_long_option_is_the_same(bench):
    bench.only('one')
    assert bench.run('ndctl', 'list', '--device-dax').stdout == bench.run(
        'ndctl', 'list', '-X').stdout

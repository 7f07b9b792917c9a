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

"""The fixture: namespaces, planned faults, sshd, and leaving nothing."""

import errno
import hashlib
import json
import os
import signal
import subprocess

import psutil
import pytest


def daxio(*args, **kwargs):
    return subprocess.run(
        ['daxio', *args], capture_output=True, text=True, timeout=60,
        **kwargs)


def ssh(address, *command, **kwargs):
    return subprocess.run(
        ['ssh', '-o', 'BatchMode=yes', address, *command],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        **kwargs)


@pytest.fixture
def tools(pmem):
    """Two namespaces of 4 MiB without any sshd; the first has data."""
    with pmem.PmemHosts(addresses=()) as fixture:
        fixture.add_namespace('ns_0', 4 * pmem.MIB)
        fixture.add_namespace('ns_1', 4 * pmem.MIB)
        fixture.fill('ns_0', seed=0)
        yield fixture


# Namespaces

@pytest.mark.parametrize('size', [-2 ** 21, 0, 1, 2 ** 20, 2 ** 21 + 1])
def test_odd_sizes_are_refused(tools, size):
    with pytest.raises(ValueError, match='no multiple of 2 MiB'):
        tools.add_namespace('odd', size)


def test_names_are_unique(tools):
    with pytest.raises(ValueError, match='a namespace ns_0 already'):
        tools.add_namespace('ns_0', 2 ** 21)


def test_writing_beyond_the_end_is_refused(tools):
    with pytest.raises(ValueError, match='beyond the end'):
        tools.write('ns_0', tools.size('ns_0'), b'x')
    assert os.path.getsize(tools.path('ns_0')) == tools.size('ns_0')


def test_namespaces_take_no_room_until_filled(tools):
    tools.add_namespace('big', 2 ** 40)
    assert os.stat(tools.path('big')).st_blocks == 0


def test_the_same_seed_gives_the_same_data(tools):
    digest = tools.fill('ns_1', seed=1)
    assert tools.fill('ns_1', seed=1) == digest == tools.digest('ns_1')
    assert tools.fill('ns_1', seed=2) != digest


def test_the_digest_is_of_all_bytes_or_a_part(tools):
    data = tools.read('ns_0', 0, tools.size('ns_0'))
    assert tools.digest('ns_0') == hashlib.sha256(data).hexdigest()
    assert tools.digest('ns_0', 3, 5) == hashlib.sha256(
        data[3:8]).hexdigest()


def test_one_byte_is_enough_not_to_be_zero(tools):
    assert tools.is_zero('ns_1')
    tools.write('ns_1', tools.size('ns_1') - 1, b'\1')
    assert not tools.is_zero('ns_1')
    assert tools.is_zero('ns_1', 0, tools.size('ns_1') - 1)


def test_each_host_gets_its_own_configuration(tools):
    tools.add_namespace('a', 2 ** 21, host='host1', label='BIG')
    tools.add_namespace('b', 2 ** 21, host='host1', label='SMALL')
    tools.add_namespace('c', 2 ** 21, host='host1', label='BIG')
    assert tools.pmem_namespaces('host1') == ['BIG:a|c', 'SMALL:b']
    assert tools.pmem_namespaces('host2') == []


# Hosts

def listed_on(host, *options, **environment):
    """Return what ndctl lists where a host's processes look."""
    if host is not None:
        environment['PMEM_STAND_IN_HOST'] = host
    result = subprocess.run(
        ['ndctl', 'list', '-X', *options], capture_output=True, text=True,
        timeout=60, check=True, env=dict(os.environ, **environment))
    return json.loads(result.stdout) if result.stdout else []


def test_names_are_those_of_a_host(tools):
    for host in ('host1', 'host2'):
        tools.add_namespace(host, 2 ** 21, host=host, listed='mine')
    nodes = set()
    for host in ('host1', 'host2'):
        mine, = [each for each in listed_on(host) if each['name'] == 'mine']
        nodes.add(mine['daxregion']['devices'][0]['chardev'])
        assert tools.pmem_namespaces(host) == ['SMALL:mine']
        assert tools.name_of(host, 'mine') == host
        assert tools.known(host) == 'mine'
    assert len(nodes) == 2
    # One that belongs to no host sees all.
    assert [each['name'] for each in listed_on(None)].count('mine') == 2
    assert listed_on('host3') == [
        each for each in listed_on(None) if each['name'] != 'mine']
    with pytest.raises(ValueError, match='host3 has no namespace mine'):
        tools.name_of('host3', 'mine')


def test_what_is_known_stays_when_it_is_renamed(tools):
    tools.rename('ns_0', 'other')
    assert 'other' in [each['name'] for each in listed_on('host1')]
    assert tools.known('ns_0') == 'ns_0'
    assert tools.pmem_namespaces() == ['SMALL:ns_0|ns_1']


def test_odd_records_are_listed_where_they_are(tools):
    tools.list_odd('host1', {'name': 'odd', 'size': None})
    tools.list_odd('host2', 'nonsense')
    assert {'name': 'odd', 'size': None} in listed_on('host1')
    assert 'nonsense' not in listed_on('host1')
    assert 'nonsense' in listed_on('host2')
    tools.list_nothing_odd()
    assert len(listed_on('host1')) == 2


def test_bad_blocks_are_listed(tools):
    tools.mark_bad('ns_0', 65536, 4096)
    for options, places in ([], None), (['-M'], [
            {'offset': 128, 'length': 8, 'dimms': ['nmem1']}]):
        bad, = [each for each in listed_on(None, *options)
                if each['name'] == 'ns_0']
        assert bad['badblock_count'] == 8
        # Where they are is told to who asks.
        assert bad.get('badblocks') == places
    tools.mark_bad('ns_0', 0, 0)
    assert not [each for each in listed_on(None, '-M')
                if 'badblock_count' in each]


def test_who_has_a_replaced_node_open_keeps_the_old_one(tools):
    with open(tools.path('ns_0'), 'r+b') as old:
        tools.replace_node('ns_0')
        old.write(b'lost')
        old.flush()
        assert tools.read('ns_0', 0, 4) != b'lost'
        assert tools.digest('ns_0', 4) == hashlib.sha256(
            old.read()).hexdigest()


def test_fault_of_one_that_is_to_clear_bad_blocks(tools):
    tools.inject('exit', 'ns_0', side='zero', status=1, repeat=True,
                 clears=True)
    assert daxio('-z', '-o', tools.path('ns_0')).returncode == 1
    assert daxio('-z', '-b', 'no', '-o', tools.path('ns_0')).returncode == 0
    assert tools.is_zero('ns_0')


# Faults

def test_a_namespace_keeps_its_data_under_another_node(tools):
    before, digest = tools.path('ns_0'), tools.digest('ns_0')
    tools.renumber('ns_0')
    assert tools.path('ns_0') != before
    assert tools.digest('ns_0') == digest
    assert daxio('-i', before, '-o', '/dev/null').returncode == 1
    assert daxio('-i', tools.path('ns_0'), '-o', '/dev/null').returncode == 0


def test_ndctl_lists_a_new_name(tools):
    tools.rename('ns_0', 'other')
    assert listed() == ['ns_1', 'other']
    assert tools.names() == ['ns_0', 'ns_1']


def test_a_namespace_goes_and_comes_back(tools):
    digest = tools.digest('ns_0')
    tools.hide('ns_0')
    assert listed() == ['ns_1']
    # The test itself sees it all the time.
    assert tools.digest('ns_0') == digest
    tools.show('ns_0')
    assert listed() == ['ns_0', 'ns_1']
    assert tools.digest('ns_0') == digest


def listed():
    output = subprocess.run(['ndctl', 'list', '-X'], capture_output=True,
                            check=True, timeout=60).stdout
    return sorted(each['name'] for each in json.loads(output))


@pytest.mark.skipif(os.geteuid() != 0, reason='only root gives files away')
def test_nodes_belong_to_who_was_asked_for(pmem, monkeypatch):
    with pmem.PmemHosts(addresses=(), owner=4711) as hosts:
        hosts.add_namespace('ns_0', 4 * pmem.MIB)
        assert not hosts.is_lent('ns_0')
        command = ['-i', hosts.path('ns_0'), '-o', '/dev/null']
        assert daxio(*command).returncode == 0
        # A session is nova's user, who may not open it.
        monkeypatch.setenv('PMEM_STAND_IN_UID', str(pmem.NOVA_UID))
        failed = daxio(*command)
        assert failed.returncode == 1 and 'Permission denied' in failed.stderr
        os.chown(hosts.path('ns_0'), 0, 0)
        assert hosts.is_lent('ns_0')
        assert daxio(*command).returncode == 0


def test_a_fault_needs_a_namespace(tools):
    with pytest.raises(ValueError, match='no namespace nowhere'):
        tools.inject('kill', 'nowhere')


@pytest.mark.parametrize('at', [0, 1, 2 ** 20, 2 ** 21 + 5, 2 ** 22])
def test_killed_at_a_byte(tools, at):
    fault = tools.inject('kill', 'ns_1', at=at)
    result = daxio('-i', tools.path('ns_0'), '-o', tools.path('ns_1'))
    assert (result.returncode, result.stderr) == (-signal.SIGKILL, '')
    assert fault.fired
    assert tools.digest('ns_1', 0, at) == tools.digest('ns_0', 0, at)
    assert tools.is_zero('ns_1', at)


def test_ended_by_another_signal(tools):
    tools.inject('kill', 'ns_1', at=1, signal=int(signal.SIGTERM))
    result = daxio('-i', tools.path('ns_0'), '-o', tools.path('ns_1'))
    assert (result.returncode, result.stderr) == (-signal.SIGTERM, '')


@pytest.mark.parametrize('side,device', [
    ('read', 'ns_0'), ('write', 'ns_1'), ('zero', 'ns_1')])
def test_an_error_on_one_side(tools, side, device):
    tools.inject('exit', device, side=side, at=5, status=3, message='oh\n')
    first = ['-z'] if side == 'zero' else ['-i', tools.path('ns_0')]
    result = daxio(*first, '-o', tools.path('ns_1'))
    assert (result.returncode, result.stderr) == (3, 'oh\n')
    assert tools.is_zero('ns_1', 5)


@pytest.mark.parametrize('side,device', [
    ('write', 'ns_0'), ('read', 'ns_1'), ('zero', 'ns_1')])
def test_the_other_sides_are_spared(tools, side, device):
    fault = tools.inject('kill', device, side=side)
    result = daxio('-i', tools.path('ns_0'), '-o', tools.path('ns_1'))
    assert result.returncode == 0
    assert not fault.fired


def test_a_fault_happens_once_unless_repeated(tools):
    tools.inject('exit', 'ns_1', at=9)
    command = ['-i', tools.path('ns_0'), '-o', tools.path('ns_1')]
    assert [daxio(*command).returncode for _ in range(3)] == [1, 0, 0]
    tools.inject('exit', 'ns_1', at=9, repeat=True)
    assert [daxio(*command).returncode for _ in range(3)] == [1, 1, 1]


def test_a_fault_is_met_only_where_bytes_move(tools):
    fault = tools.inject('kill', 'ns_1', at=100)
    for args in (['-l', '100'], ['-s', '101', '-l', '9']):
        result = daxio(
            '-i', tools.path('ns_0'), '-o', tools.path('ns_1'), *args)
        assert (result.returncode, fault.fired) == (0, False)
    daxio('-i', tools.path('ns_0'), '-o', tools.path('ns_1'), '-l', '101')
    assert fault.fired


@pytest.mark.parametrize('side,device', [('read', 'ns_0'), ('write', 'ns_1')])
@pytest.mark.parametrize('at', [0, 12345, 2 ** 22 - 1])
def test_a_byte_flips_and_nobody_says_so(tools, side, device, at):
    tools.inject('flip', device, side=side, at=at)
    result = daxio('-i', tools.path('ns_0'), '-o', tools.path('ns_1'))
    assert result.returncode == 0
    size = tools.size('ns_0')
    expected = bytearray(tools.read('ns_0', 0, size))
    expected[at] ^= 0xff
    assert tools.read('ns_1', 0, size) == expected


def test_a_short_copy_claims_success(tools):
    tools.inject('short', 'ns_1', at=1000)
    result = daxio('-i', tools.path('ns_0'), '-o', tools.path('ns_1'))
    assert result.returncode == 0
    assert 'copied 1000 bytes' in result.stderr
    assert tools.is_zero('ns_1', 1000)


def start_hanging(tools, at=2 ** 21):
    fault = tools.inject('hang', 'ns_1', at=at)
    process = subprocess.Popen(
        ['daxio', '-i', tools.path('ns_0'), '-o', tools.path('ns_1')],
        stderr=subprocess.DEVNULL)
    assert fault.wait() == process.pid
    return fault, process


def test_a_hanging_copy_can_be_killed_half_way(tools):
    fault, process = start_hanging(tools)
    os.kill(fault.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert tools.digest('ns_1', 0, 2 ** 21) == tools.digest('ns_0', 0, 2 ** 21)
    assert tools.is_zero('ns_1', 2 ** 21)


def test_a_hanging_copy_can_go_on(tools):
    fault, process = start_hanging(tools)
    fault.release()
    assert process.wait() == 0
    assert tools.digest('ns_1') == tools.digest('ns_0')


def test_waiting_for_a_hang_ends(tools):
    fault = tools.inject('hang', 'ns_1')
    with pytest.raises(TimeoutError):
        fault.wait(timeout=0)


def test_ndctl_can_fail(tools):
    tools.inject('exit', tool='ndctl', status=2, message='no bus\n')
    result = subprocess.run(
        ['ndctl', 'list', '-X'], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (
        2, '', 'no bus\n')


def test_calls_are_on_record(tools, pmem, monkeypatch):
    daxio('-V')
    monkeypatch.setenv('PMEM_STAND_IN_UID', str(pmem.NOVA_UID))
    subprocess.run(['ndctl', 'list', '-X'], stdout=subprocess.DEVNULL)
    assert [(c['tool'], c['args'], c['uid']) for c in tools.calls()] == [
        ('daxio', ['-V'], 0), ('ndctl', ['list', '-X'], pmem.NOVA_UID)]
    assert len(tools.calls('daxio')) == 1


# ssh

def test_a_missing_sshd_is_named(pmem, monkeypatch):
    monkeypatch.setattr(pmem.shutil, 'which', lambda *args, **kwargs: None)
    with pytest.raises(pmem.Missing, match='package openssh-'):
        pmem.PmemHosts().setUp()


def test_an_sshd_that_does_not_start_is_quoted(pmem, tmp_path):
    with pytest.raises(Exception, match='no hostkeys available'):
        pmem.Sshd(str(tmp_path), '127.0.0.1', {'A': 'b'}).setUp()


def test_ssh_reaches_each_address(hosts):
    for address in ('127.0.0.1', '127.0.0.2'):
        result = ssh(address, 'echo $SSH_CONNECTION')
        assert (result.returncode, result.stderr) == (0, '')
        assert result.stdout.split()[2:] == [
            address, str(hosts.sshd[address].port)]


def test_sshd_listens_on_loopback_only(hosts):
    for process in psutil.process_iter(['name']):
        if process.info['name'] != 'sshd':
            continue
        for connection in process.net_connections():
            if connection.laddr.port in [
                    s.port for s in hosts.sshd.values()]:
                assert connection.laddr.ip.startswith('127.')


def test_another_address_is_not_reached_with_our_key(hosts):
    result = ssh('127.0.0.3', 'true')
    assert result.returncode == 255


def test_an_exit_status_comes_back(hosts):
    assert ssh('127.0.0.1', 'exit 7').returncode == 7


def test_a_copy_over_ssh(hosts):
    digest = hosts.fill('ns_0')
    subprocess.run(
        ['bash', '-o', 'pipefail', '-c',
         'daxio -i "$0" | ssh 127.0.0.2 daxio -b no -o "$1"',
         hosts.path('ns_0'), hosts.path('ns_1')], check=True, timeout=60)
    assert hosts.digest('ns_1') == digest


def test_a_session_is_not_root(hosts, pmem):
    result = ssh('127.0.0.1', 'daxio', '-z', '-o', hosts.path('ns_0'))
    assert result.returncode == 1
    assert 'failed to clear bad blocks' in result.stderr


def test_a_session_has_the_environment_asked_for(pmem):
    with pmem.PmemHosts(environment={'GREETING': 'hello world'}):
        assert ssh('127.0.0.1', 'echo "$GREETING"').stdout == 'hello world\n'


def test_an_address_can_have_an_environment_of_its_own(pmem):
    with pmem.PmemHosts({'127.0.0.1': {'GREETING': 'one'},
                         '127.0.0.2': {'GREETING': 'two'}}):
        for address, greeting in (('127.0.0.1', 'one'), ('127.0.0.2', 'two')):
            assert ssh(address, 'echo $GREETING').stdout == greeting + '\n'


def test_what_joins_a_socket_is_a_command_of_the_sessions(hosts):
    result = ssh('127.0.0.1', 'nova-pmem-join', hosts.root + '/none')
    assert 'No such file' in result.stderr


def test_when_the_near_daxio_dies_the_far_one_succeeds(hosts):
    """As with the real tools: an exit status proves nothing."""
    hosts.fill('ns_0')
    hosts.inject('kill', 'ns_0', side='read', at=2 ** 20)
    result = subprocess.run(
        ['bash', '-c', 'daxio -i "$0" | ssh 127.0.0.2 daxio -b no -o "$1";'
         'echo ${PIPESTATUS[*]}', hosts.path('ns_0'), hosts.path('ns_1')],
        capture_output=True, text=True, timeout=60)
    assert result.stdout == '137 0\n'
    assert 'copied 1048576 bytes' in result.stderr


# Leaving nothing behind

def test_all_processes_end_with_the_fixture(pmem):
    hosts = pmem.PmemHosts()
    hosts.setUp()
    hosts.add_namespace('ns_0', 2 ** 21)
    hosts.add_namespace('ns_1', 2 ** 21)
    near = hosts.inject('hang', 'ns_0', side='read', at=5)
    far = hosts.inject('hang', 'ns_1', at=5)
    local = subprocess.Popen(['daxio', '-i', hosts.path('ns_0')],
                             stdout=subprocess.DEVNULL)
    session = subprocess.Popen(
        ['bash', '-c', 'yes | ssh 127.0.0.1 daxio -b no -o "$0"',
         hosts.path('ns_1')], stderr=subprocess.DEVNULL)
    pids = [near.wait(), far.wait()]
    hosts.cleanUp()
    assert local.wait(60) == -signal.SIGKILL
    # Its sshd ends first; but on a busy machine ssh is killed before it knows.
    assert session.wait(60) in (255, 128 + signal.SIGKILL)
    for pid in pids:
        if pid != local.pid:
            psutil.wait_procs(
                [psutil.Process(pid)] if psutil.pid_exists(pid) else [], 10)
        with pytest.raises(OSError) as caught:
            os.kill(pid, 0)
        assert caught.value.errno == errno.ESRCH
    assert not os.path.exists(hosts.root)
    assert hosts.root not in os.environ['PATH']

# SPDX-License-Identifier: Apache-2.0
"""What real device DAX does that no stand-in can imitate.

The stand-ins for ``daxio`` and ``ndctl`` list these as what they don't do;
their shared contract is in ``tests/stand_ins``.
"""

import signal

import pytest

MIB = 1024 * 1024

#: Do something with a device in Python, and print the name of the error.
TRY = """
import errno, mmap, os, sys
size = int(sys.argv[2])
device = os.open(sys.argv[1], os.O_RDWR)
try:
    {code}
except OSError as error:
    print(errno.errorcode[error.errno])
"""


def outcome(namespace, code):
    """Return the name of the error that some code has with a device."""
    return namespace.guest.run(
        'python3', '-c', TRY.format(code=code), namespace.node,
        str(namespace.size))


@pytest.fixture(scope='module')
def shared_namespace(lab):
    guest, = lab.shared(1)
    namespace = guest.create_namespace('real', 16 * MIB, nvdimm=1)
    yield namespace
    guest.namespace('real').destroy()  # by now its node may be another one


@pytest.fixture
def namespace(guest, shared_namespace):
    return shared_namespace


@pytest.fixture
def create(guest):
    """Create namespaces that are destroyed with the test."""
    names = []

    def create_one(name):
        names.append(name)
        return guest.create_namespace(name, 16 * MIB, nvdimm=1)

    yield create_one
    for namespace in guest.namespaces():
        if namespace.name in names:
            namespace.destroy()


def test_it_is_a_character_device_of_no_size(namespace):
    shown = namespace.guest.check('stat', '-c', '%F %s', namespace.node)
    assert shown.text == 'character special file 0'
    assert namespace.size == 14 * MIB
    assert namespace.align == 2 * MIB


@pytest.mark.parametrize('code', [
    'os.read(device, 4096)', 'os.write(device, bytes(4096))',
    'os.pread(device, 4096, 0)', 'os.fsync(device)',
    'mmap.mmap(device, size).flush()'])
def test_it_can_not_be_read_written_or_synced(namespace, code):
    assert outcome(namespace, code).text == 'EINVAL'


@pytest.mark.parametrize('command', [
    'cat {0}', 'dd if=/dev/zero of={0} bs=2M count=1', 'dd if={0} bs=2M'])
def test_the_usual_tools_fail(namespace, command):
    result = namespace.guest.shell(command.format(namespace.node))
    assert result.status == 1
    assert 'Invalid argument' in result.stderr
    assert result.stdout == b''


@pytest.mark.parametrize('code,error', [
    ('mmap.mmap(device, 4096)', 'EINVAL'),
    ('mmap.mmap(device, size - 4096)', 'EINVAL'),
    ('mmap.mmap(device, 2 ** 21, offset=4096)', 'EINVAL'),
    ('mmap.mmap(device, 2 ** 21, flags=mmap.MAP_PRIVATE)', 'EINVAL'),
    ('mmap.mmap(device, 2 ** 21, offset=2 ** 21)', ''),
    ('mmap.mmap(device, size)', ''),
    ('mmap.mmap(device, size + 2 ** 21)', '')])
def test_it_is_mapped_in_multiples_of_its_alignment(namespace, code, error):
    assert outcome(namespace, code).text == error


def test_what_is_beyond_its_end_can_be_mapped_and_not_touched(namespace):
    touched = outcome(namespace, 'mmap.mmap(device, size + 2 ** 21)[size]')
    assert touched.status == -signal.SIGBUS


def test_the_kernel_tells_what_memory_is_there(namespace):
    """Asked for it (MADV_POPULATE_READ), and without a SIGBUS."""
    namespace.write(0, b'data')
    done = namespace.guest.check('python3', '-c', '''
import ctypes, mmap, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
size = int(sys.argv[2])
address = libc.mmap(None, ctypes.c_size_t(size + 4194304), mmap.PROT_READ,
                    mmap.MAP_SHARED, os.open(sys.argv[1], os.O_RDONLY), 0)
for start in (0, size - 2097152, size):
    status = libc.madvise(ctypes.c_void_p(address + start),
                          ctypes.c_size_t(2097152), 22)
    print(status and os.strerror(ctypes.get_errno()))
print(ctypes.string_at(address, 4))
''', namespace.node, str(namespace.size))
    assert done.text.splitlines() == ['0', '0', 'Bad address', "b'data'"]


def test_nobody_locks_it(namespace):
    """daxio succeeds on a device that somebody has mapped."""
    guest = namespace.guest
    user = guest.start('python3', '-c', '''
import mmap, os, sys, time
map = mmap.mmap(os.open(sys.argv[1], os.O_RDWR), int(sys.argv[2]))
map[0] = 1
while map[0]:
    time.sleep(0.01)
''', namespace.node, str(namespace.size))
    try:
        while namespace.read(0, 1) != b'\1':
            pass
        assert guest.run('daxio', '-z', '-o', namespace.node).status == 0
        # The process has seen the zero, so it was one memory all the time.
        assert user.wait().status == 0
    finally:
        user.kill()


def test_only_its_owner_gets_at_it(namespace):
    """Another than root can't so much as read it."""
    guest = namespace.guest
    for args in (['-i', namespace.node], ['-b', 'no', '-o', namespace.node]):
        result = guest.run('daxio', *args, user='nova')
        assert (result.status, result.stderr) == (
            1, "daxio: failed to open '%s': Permission denied\n"
            % namespace.node)


def test_a_user_can_not_leave_a_file_in_place_of_a_device(guest):
    result = guest.run('daxio', '-o', '/dev/dax99.9', user='nova')
    assert (result.status, result.stderr) == (
        1, 'daxio: setup_device:336: open: Permission denied\n')
    assert guest.run('test', '-e', '/dev/dax99.9').status == 1


def test_everybody_sees_its_alignment_in_sysfs(namespace):
    folder = '/sys/bus/dax/devices/' + namespace.node.rpartition('/')[2]
    shown = namespace.guest.check(
        'cat', folder + '/size', folder + '/align', user='nova')
    assert shown.text.split() == [str(namespace.size), str(namespace.align)]


def test_a_size_that_is_no_multiple_of_16_mib_is_refused(guest):
    result = guest.run(
        'ndctl', 'create-namespace', '--mode=devdax', '--size=15M')
    assert result.status != 0


def test_bytes_outlive_the_namespace(create):
    """Whoever gets the room next reads what was there."""
    namespace = create('old')
    namespace.write(5 * MIB, b'secret')
    namespace.destroy()
    assert create('new').read(5 * MIB, 6) == b'secret'


def test_what_a_loss_of_power_changes(guest, create):
    """Numbers of devices, but neither names nor data.

    Here the one that was created last gets the place of one destroyed.
    """
    create('first')
    gone = create('gone')
    third = create('third')
    gone.destroy()
    fourth = create('fourth')
    nodes = {'third': third.node, 'fourth': fourth.node}
    for name, node in nodes.items():
        guest.check('daxio', '-o', node, stdin=name.encode())
    guest.kill()
    guest.boot()
    namespaces = {name: guest.namespace(name) for name in nodes}
    assert {n.name: n.node for n in namespaces.values()} != nodes
    for name, namespace in namespaces.items():
        assert namespace.read(0, len(name)) == name.encode()

# SPDX-License-Identifier: Apache-2.0
"""The lab itself: guests do what they are told, and nothing is left."""

import contextlib
import os
import pathlib
import select
import shutil
import signal
import subprocess
import sys
import textwrap

import pytest

from lab import guest as guests
from lab import image as images
from lab import kernel as kernels
from lab import lab as labs

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(lab, request):
    """A folder below that of the run."""
    path = lab.folder / request.node.name
    path.mkdir()
    return path


# Commands

@pytest.mark.parametrize('script,status', [
    ('exit 7', 7), ('kill -9 $$', -signal.SIGKILL)])
def test_a_status_comes_back(guest, script, status):
    assert guest.shell(script).status == status


def test_streams_are_kept_apart_and_bytes_are_bytes(guest):
    data = bytes(range(256)) * 5000
    result = guest.shell('cat; echo said >&2', stdin=data)
    assert (result.stdout, result.stderr) == (data, 'said\n')


def test_a_missing_program_is_named(guest):
    with pytest.raises(guests.GuestError, match='No such file.*missing'):
        guest.run('missing')


def test_a_command_that_has_to_succeed(guest):
    with pytest.raises(guests.GuestError, match='ended with 3: oh'):
        guest.check('bash', '-c', 'echo oh >&2; exit 3')


def test_a_user_is_that_user(guest):
    result = guest.run('bash', '-c', 'id -un; id -g; pwd', user='nova')
    assert result.text.split() == ['nova', '64060', '/home/nova']


def test_a_command_that_takes_too_long_is_ended(guest):
    with pytest.raises(guests.GuestError, match='more than 0.1 seconds'):
        guest.run('sleep', '5678', timeout=0.1)
    assert '5678' not in guest.check('ps').text


def test_commands_run_side_by_side(guest):
    guest.check('mkfifo', '/tmp/fifo')
    reader = guest.start('cat', '/tmp/fifo')
    assert guest.shell('echo hello > /tmp/fifo').status == 0
    assert reader.wait().text == 'hello'


# Files

def test_a_folder_is_copied_with_an_owner(guest, folder):
    (folder / 'a' / '__pycache__').mkdir(parents=True)
    (folder / 'a' / '__pycache__' / 'x.pyc').touch()
    (folder / 'a' / 'program').write_bytes(b'\0\n')
    (folder / 'a' / 'program').chmod(0o750)
    guest.copy(folder / 'a', '/tmp/copied/b', user='nova')
    shown = guest.check(
        'find', '/tmp/copied/b', '-exec', 'stat', '-c', '%n %a %U', '{}', ';')
    assert sorted(shown.text.splitlines()) == [
        '/tmp/copied/b 755 nova', '/tmp/copied/b/program 750 nova']
    assert guest.read('/tmp/copied/b/program') == b'\0\n'


def test_a_missing_file_is_an_error(guest):
    with pytest.raises(guests.GuestError, match='FileNotFoundError'):
        guest.read('/missing')


def test_a_socket_that_is_missing_is_an_error(guest):
    with pytest.raises(guests.GuestError, match='FileNotFoundError'):
        guest.ask('/missing', b'')


def test_a_disk_keeps_what_was_synced(guest):
    guest.check('bash', '-ec', (
        'cd /disk; echo kept > synced; sync synced .; echo lost > written'))
    guest.kill()
    guest.boot()
    assert guest.read('/disk/synced') == b'kept\n'
    with pytest.raises(guests.GuestError, match='FileNotFoundError'):
        guest.read('/disk/written')


# Namespaces

def test_bytes_of_a_namespace(guest):
    namespace = guest.create_namespace('lab_0', 16 << 20)
    try:
        namespace.fill(b'ab')
        namespace.write(5, b'xyz')
        assert namespace.read(4, 6) == b'axyzab'
        assert namespace.read(namespace.size - 1) == b'b'
        assert not namespace.is_zero()
        namespace.fill(b'\0', 0, namespace.size - 1)
        assert namespace.is_zero(0, namespace.size - 1)
        assert not namespace.is_zero()
        with pytest.raises(guests.GuestError, match='ValueError'):
            namespace.read(namespace.size, 1)
    finally:
        namespace.destroy()
    with pytest.raises(LookupError):
        guest.namespace('lab_0')


# Two guests

def test_guests_reach_each_other_as_each_user(guests):
    near, far = guests
    assert near.check('ssh', far.name, 'hostname').text == far.name
    assert far.check(
        'ssh', near.name, 'id -un', user='nova').text == 'nova'


def test_a_cable_can_be_pulled(guests):
    near, far = guests
    try_it = ['ping', '-c', '1', '-W', '1', far.address]
    far.plug(False)
    assert near.run(*try_it).status == 1
    far.plug()
    assert near.run(*try_it).status == 0


# Ends

def test_what_is_asked_of_a_guest_fails_when_it_is_killed(lab, folder):
    guest = guests.Guest('Z', lab.image, folder / 'Z', nvdimms=[])
    guest.power_on()
    call = guest.channel.start('read', path='/etc/passwd')
    guest.kill()
    with pytest.raises(guests.GuestGone):
        call.result(timeout=10)
    with pytest.raises(guests.GuestGone):
        guest.run('true')
    assert not guest.is_running


def test_a_guest_that_does_not_boot_shows_its_console(lab, folder):
    broken = images.Image(lab.image.kernel, lab.image.kernel)  # no initrd
    guest = guests.Guest('Z', broken, folder / 'Z', nvdimms=[])
    with pytest.raises(guests.GuestError, match='(?s)Z does not boot.*panic'):
        guest.boot()
    guest.close()


#: A setpriv that is too late: who wants to be followed is gone.
LATE = """#!/bin/sh
tail --pid=$PPID -f /dev/null
exec %s "$@"
"""


@pytest.mark.parametrize('is_late', [False, True])
def test_a_guest_ends_with_who_started_it(lab, folder, monkeypatch, is_late):
    """However that ends: nothing can be left running."""
    if is_late:
        tool = folder / 'setpriv'
        tool.write_text(LATE % shutil.which('setpriv'))
        tool.chmod(0o755)
        monkeypatch.setenv('PATH', str(folder), prepend=os.pathsep)
    script = textwrap.dedent('''
        import os, pathlib, signal, sys
        from lab import guest, image
        guest = guest.Guest(
            'Z', image.Image(*map(pathlib.Path, sys.argv[1:3])),
            pathlib.Path(sys.argv[3]))
        guest.power_on()
        print(guest.process.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    ''')
    done = subprocess.run(
        [sys.executable, '-c', script, lab.image.kernel, lab.image.initrd,
         folder / 'Z'], cwd=ROOT, stdout=subprocess.PIPE)
    assert done.returncode == -signal.SIGKILL
    with contextlib.suppress(ProcessLookupError):
        # Such a descriptor turns readable when its process has ended.
        process = os.pidfd_open(int(done.stdout))
        try:
            assert select.select([process], [], [], 60)[0]
        finally:
            os.close(process)


# Folders

def test_a_folder_that_a_killed_run_has_left_is_removed(folder):
    """And no other, for there may be other runs at the same time."""
    script = textwrap.dedent('''
        import os, pathlib, signal, sys
        from lab import lab
        kept = lab.Folder(pathlib.Path(sys.argv[1]))
        (kept.path / 'file').touch()
        os.kill(os.getpid(), signal.SIGKILL)
    ''')
    done = subprocess.run([sys.executable, '-c', script, folder], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    left, = folder.iterdir()
    with labs.Folder(folder) as mine, labs.Folder(folder) as yours:
        assert set(folder.iterdir()) == {mine.path, yours.path}
        assert left not in (mine.path, yours.path)
    assert not list(folder.iterdir())


# What is missing

def test_a_missing_program_of_the_host_is_named_with_its_package():
    with pytest.raises(images.Missing, match='missing.*package not-there'):
        images.find('missing', 'not-there')


def test_a_missing_module_is_named(lab):
    with pytest.raises(kernels.KernelError, match='no module missing'):
        kernels.get(lab.folder.parent).modules('missing')


def test_modules_come_after_what_they_need(lab):
    names = list(kernels.get(lab.folder.parent).modules('nd_pmem', 'nfit'))
    assert names.index('libnvdimm') < names.index('nd_pmem')
    assert len(names) == len(set(names))


# The account

def run_pytest(lab, folder, code, *options):
    """Run a test with the plugin, in a process of its own."""
    (folder / 'kernel').symlink_to(lab.folder.parent / 'kernel')
    (folder / 'test_it.py').write_text(code)
    environment = dict(os.environ, PYTHONPATH=str(ROOT), PYTEST_ADDOPTS='')
    return subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-p', 'lab.plugin',
         '-p', 'no:cacheprovider', '--rootdir', folder,
         '--lab-folder', folder, *options, 'test_it.py'],
        cwd=folder, env=environment, capture_output=True, text=True)


def test_a_lab_in_which_nothing_ran_fails(lab, folder):
    done = run_pytest(lab, folder, 'def test_it(): pass', '--lab-must-run')
    assert done.returncode == 1
    *_, passed, last = done.stdout.splitlines()
    assert passed.startswith('1 passed')
    assert last == 'lab: 0 cases ran on real device DAX'


def test_a_lab_in_which_something_was_skipped_fails(lab, folder):
    done = run_pytest(lab, folder, textwrap.dedent('''
        import pytest
        def test_it():
            pytest.skip('for no reason')
    '''), '--lab-must-run')
    assert done.returncode == 1
    assert '; 1 were skipped\n' in done.stdout


def test_logs_are_kept_when_something_fails(lab, folder):
    done = run_pytest(lab, folder, textwrap.dedent('''
        def test_it(lab):
            lab.power_on()
            assert False
    '''))
    assert done.returncode == 1
    run, = folder.glob('run-*')
    assert 'end of %s/A/console.log' % run in done.stdout
    assert sorted(str(path.relative_to(run)) for path in run.rglob('*')) == [
        'A', 'A/console.log', 'A/qemu.log']


def test_nothing_is_kept_when_all_is_well(lab, folder):
    done = run_pytest(lab, folder, 'def test_it(lab): pass')
    assert done.returncode == 0
    assert not list(folder.glob('run-*'))

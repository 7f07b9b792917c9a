# SPDX-License-Identifier: Apache-2.0
"""What the DevStack plugin would do, phase by phase.

DevStack's functions, ``sudo`` and the tools of persistent memory are imitated:
they note how they were called. Paths of the system lead into a temporary
folder.
"""

import json
from pathlib import Path
import shutil
import subprocess

import pytest

PROJECT = Path(__file__).parents[2]
PLUGIN = PROJECT / 'devstack' / 'plugin.sh'

# DevStack sources plugins in a shell with these options.
DEVSTACK = """\
set -o errexit
note() { echo "$*" >>"$ROOT/calls"; }
define_plugin() { :; }
is_service_enabled() { [[ " $ENABLED " == *" $1 "* ]]; }
is_ubuntu() { [[ $DISTRO == ubuntu ]]; }
install_package() { note install_package "$@"; }
setup_develop() { note setup_develop "$@"; }
iniset() { note iniset "$@"; }
die() { shift; echo "$*" >&2; exit 1; }
sudo() { "$@"; }
# The real tools may be installed on the machine that runs this test.
type() { [[ -e $ROOT/bin/$2 ]] && echo "$ROOT/bin/$2"; }
python3() {
    case "$2" in
        venv) note "$@"; mkdir -p "$3/bin"; ln -s "$ROOT/venv-python" \
            "$3/bin/python" ;;
        *) command python3 "$@" ;;
    esac
}
DATA_DIR=$ROOT/data
NOVA_DIR=$ROOT/nova
NOVA_BIN_DIR=$ROOT/nova-bin
NOVA_CONF=$ROOT/nova.conf
TEMPEST_CONFIG=$ROOT/tempest.conf
"""

# The Python of the tool's environment: it notes what it was to run.
VENV_PYTHON = """\
#!/bin/bash
echo "python $*" >>"$ROOT/calls"
"""

# The Python of nova-compute: it says where its modules are.
NOVA_PYTHON = """\
#!/bin/sh
[ "$1" = -c ] && echo "$ROOT/site"
"""

# A tool of persistent memory with one region, and what is made in it.
NDCTL = """\
#!/usr/bin/env python3
import json, os, pathlib, sys
store = pathlib.Path(os.environ['ROOT'], 'namespaces')
found = json.loads(store.read_text()) if store.exists() else []
arguments = dict(word.lstrip('-').partition('=')[::2] for word in sys.argv[1:])
if sys.argv[1] == 'list':
    # As the real one: nothing for none, and no list for one in old versions.
    if found:
        print(json.dumps(found[0] if len(found) == 1 else found))
elif sys.argv[1] == 'create-namespace':
    found.append({'dev': 'namespace0.%d' % len(found), **arguments})
elif sys.argv[1] == 'destroy-namespace':
    found = [each for each in found if each['dev'] != sys.argv[-1]]
store.write_text(json.dumps(found))
"""


class Host:
    """A machine on which DevStack might run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin = root / 'bin'
        for folder in ('bin', 'data', 'nova', 'nova-bin', 'dev', 'site'):
            (root / folder).mkdir()
        self.add('venv-python', VENV_PYTHON, root)
        self.add('nova-python', NOVA_PYTHON, root)
        self.add('nova-compute', f'#!{root}/nova-python\n', root / 'nova-bin')
        # A copy whose paths of the system are those of this test.
        self.plugin = root / 'plugin' / 'devstack'
        self.plugin.mkdir(parents=True)
        for name in ('plugin.sh', 'settings'):
            text = (PLUGIN.parent / name).read_text()
            for path, place in (('/usr/local/bin', self.bin),
                                ('/dev/dax', root / 'dev' / 'dax')):
                text = text.replace(path, str(place))
            (self.plugin / name).write_text(text)

    def add(self, name: str, text: str, folder: Path | None = None) -> None:
        path = (folder or self.bin) / name
        path.write_text(text)
        path.chmod(0o755)

    def run(self, phase: str, local: str = '',
            enabled: str = 'nova n-cpu tempest', distro: str = 'ubuntu',
            ) -> subprocess.CompletedProcess:
        """Run a phase as DevStack does, which has read the settings before.

        :param local: what is in local.conf
        """
        script = (DEVSTACK + local + f'\nsource {self.plugin}/settings\n'
                  f'source {self.plugin}/plugin.sh {phase}\n'
                  'echo "$TEMPEST_PLUGINS"\n')
        return subprocess.run(
            ['bash', '-c', script], capture_output=True, text=True, env={
                'ROOT': str(self.root), 'ENABLED': enabled, 'DISTRO': distro,
                'PATH': f'{self.bin}:/usr/sbin:/usr/bin:/sbin:/bin'})

    def do(self, phase: str, local: str = '', **details: str) -> str:
        """Run a phase that has to succeed, and return what it said."""
        done = self.run(phase, local, **details)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def calls(self) -> list[str]:
        path = self.root / 'calls'
        lines = path.read_text() if path.exists() else ''
        return lines.replace(str(self.root), 'ROOT').splitlines()

    def namespaces(self) -> list[dict]:
        return json.loads((self.root / 'namespaces').read_text())


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


@pytest.mark.skipif(shutil.which('shellcheck') is None,
                    reason='shellcheck is not installed')
def test_shellcheck_finds_nothing():
    subprocess.run(
        ['shellcheck', '-x', 'plugin.sh', 'settings'], cwd=PLUGIN.parent,
        check=True)


def test_tempest_gets_the_plugin(host):
    assert host.do('override_defaults', 'TEMPEST_PLUGINS=/other').split() == [
        '/other', f'{host.root}/plugin/tempest']


@pytest.mark.parametrize('phase', [
    'override_defaults', 'source', 'stack extra'])
def test_nothing_in_other_phases(host, phase):
    host.do(phase)
    assert host.calls() == []


@pytest.mark.parametrize('phase', [
    'stack install', 'stack post-config', 'stack test-config'])
def test_nothing_on_a_node_without_nova(host, phase):
    host.do(phase, enabled='mysql rabbit')
    assert host.calls() == []


class TestPatch:
    def test_applied_after_the_checkout(self, host):
        host.do('stack pre-install')
        host.do('stack install', enabled='nova n-api')
        assert host.calls()[1:] == [
            '-m venv ROOT/data/pmem-copy/venv',
            'python -m pip install pyflakes',
            'python -m novapatch apply ROOT/nova',
            'setup_develop ROOT/nova']

    def test_failure_ends_stack(self, host):
        host.add('venv-python', '#!/bin/sh\n[ "$2" = pip ]\n', host.root)
        host.do('stack pre-install')
        assert host.run('stack install').returncode != 0
        assert not any('setup_develop' in call for call in host.calls())

    def test_undone_if_it_was_applied(self, host):
        host.do('unstack')
        assert host.calls() == []
        (host.root / 'nova' / '.novapatch').mkdir()
        host.do('unstack')
        assert host.calls()[-1] == 'python -m novapatch undo ROOT/nova'

    def test_the_tool_has_these_commands(self):
        text = subprocess.run(
            ['python3', '-m', 'novapatch', '--help'], cwd=PROJECT,
            capture_output=True, text=True, check=True).stdout
        assert 'apply' in text and 'undo' in text


class TestPackages:
    @pytest.mark.parametrize('distro, tools', [
        ('ubuntu', 'ndctl pmdk-tools'), ('fedora', 'ndctl daxio')])
    def test_installed(self, host, distro, tools):
        host.do('stack pre-install', distro=distro)
        assert host.calls() == [f'install_package {tools}']

    def test_not_with_stand_ins(self, host):
        host.do('stack pre-install', 'PMEM_COPY_BACKEND=file')
        assert host.calls() == []

    def test_not_on_a_controller(self, host):
        host.do('stack pre-install', enabled='nova n-api')
        assert host.calls() == []


class TestConfiguration:
    def test_nova(self, host):
        host.do('stack post-config', "PMEM_COPY_NAMESPACES='A:x|y, B:z'")
        assert host.calls() == [
            'iniset ROOT/nova.conf libvirt pmem_namespaces A:x|y, B:z']

    def test_controller(self, host):
        host.do('stack post-config', enabled='nova n-api')
        assert host.calls() == []

    def test_unknown_backend(self, host):
        done = host.run('stack post-config', 'PMEM_COPY_BACKEND=ram')
        assert done.returncode == 1
        assert 'PMEM_COPY_BACKEND is ram' in done.stderr

    def test_tempest(self, host):
        host.do('stack test-config', "PMEM_COPY_NAMESPACES='A:x|y, B:z'")
        assert host.calls() == ['iniset ROOT/tempest.conf pmem_copy labels A']


class TestDax:
    LOCAL = "PMEM_COPY_BACKEND=dax PMEM_COPY_NAMESPACES='A:x|y, B:z'"

    def test_made_if_missing(self, host):
        host.add('ndctl', NDCTL)
        (host.root / 'namespaces').write_text(
            json.dumps([{'dev': 'namespace1.0', 'name': 'y'}]))
        host.do('stack pre-install', self.LOCAL)
        host.do('stack post-config', self.LOCAL + ' PMEM_COPY_SIZE=64')
        assert [each['name'] for each in host.namespaces()] == ['y', 'x', 'z']
        assert host.namespaces()[1] == {
            'dev': 'namespace0.1', 'create-namespace': '', 'mode': 'devdax',
            'align': '2M', 'size': '64M', 'name': 'x'}
        assert host.calls()[-1].endswith('pmem_namespaces A:x|y, B:z')

    def test_not_made_twice(self, host):
        host.add('ndctl', NDCTL)
        host.do('stack pre-install', self.LOCAL)
        host.do('stack post-config', self.LOCAL)
        host.do('stack post-config', self.LOCAL)
        assert len(host.namespaces()) == 3

    def test_only_what_was_made_is_destroyed(self, host):
        host.add('ndctl', NDCTL)
        (host.root / 'namespaces').write_text(
            json.dumps([{'dev': 'namespace1.0', 'name': 'y'}]))
        host.do('stack pre-install', self.LOCAL)
        host.do('stack post-config', self.LOCAL)
        host.do('clean', self.LOCAL)
        assert [each['name'] for each in host.namespaces()] == ['y']
        assert not (host.root / 'data' / 'pmem-copy').exists()

    def test_failure_ends_stack(self, host):
        host.add('ndctl', '#!/bin/sh\n[ $1 = list ]\n')
        host.do('stack pre-install', self.LOCAL)
        assert host.run('stack post-config', self.LOCAL).returncode != 0
        assert not any('iniset' in call for call in host.calls())


class TestFiles:
    LOCAL = ("PMEM_COPY_BACKEND=file PMEM_COPY_NAMESPACES='A:x|y, B:z' "
             'PMEM_COPY_SIZE=16')

    @pytest.fixture
    def made(self, host):
        # The stand-ins are found from the plugin's place.
        (host.plugin.parent / 'nova').symlink_to(PROJECT / 'nova')
        host.do('stack pre-install', self.LOCAL)
        host.do('stack post-config', self.LOCAL)
        return host

    def tool(self, host, *words, data=b''):
        return subprocess.run(
            words, input=data, capture_output=True, check=True,
            env={'PATH': f'{host.bin}:/usr/bin:/bin'}).stdout

    def test_listed(self, made):
        found = json.loads(self.tool(made, 'ndctl', 'list', '-X'))
        assert {each['name']: each['size'] for each in found} == dict.fromkeys(
            'xyz', 16 * 2 ** 20)

    def test_written_and_read(self, made):
        node = str(made.root / 'dev' / 'dax0.1')
        self.tool(made, 'daxio', '-b', 'no', '-o', node, data=b'abc')
        assert self.tool(made, 'daxio', '-i', node, '-l', '4') == b'abc\0'

    def test_copies_take_files(self, made):
        node = made.root / 'dev' / 'dax0.1'
        code = (f'import site; site.addsitedir({str(made.root / "site")!r});'
                'from nova.virt import pmem_device;'
                f'print(pmem_device.size({str(node)!r}))')
        done = subprocess.run(
            ['python3', '-c', code], cwd=PROJECT, capture_output=True,
            text=True, check=True)
        assert int(done.stdout) == 16 * 2 ** 20

    def test_again(self, made):
        made.do('stack post-config', self.LOCAL)
        assert len(json.loads(self.tool(made, 'ndctl', 'list', '-X'))) == 3

    def test_real_tools_are_not_hidden(self, host):
        host.add('daxio', '#!/bin/sh\n')
        done = host.run('stack post-config', self.LOCAL)
        assert done.returncode == 1
        assert 'would hide the real' in done.stderr

    def test_removed(self, made):
        made.do('clean', self.LOCAL)
        assert list(made.bin.iterdir()) == []
        assert list((made.root / 'dev').iterdir()) == []
        assert list((made.root / 'site').iterdir()) == []
        assert not (made.root / 'data' / 'pmem-copy').exists()

    def test_what_others_have_put_there_stays(self, made):
        made.add('ndctl', '#!/bin/sh\n')
        made.do('clean', self.LOCAL)
        assert [path.name for path in made.bin.iterdir()] == ['ndctl']

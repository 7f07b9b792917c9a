# SPDX-License-Identifier: Apache-2.0
"""The guests' kernel: Debian's own, fetched as a package, never installed."""

import dataclasses
import lzma
import pathlib
import re
import shutil
import subprocess
import tempfile

#: The package that stands for the newest kernel for virtual machines.
PACKAGE = 'linux-image-cloud-amd64'


class KernelError(Exception):
    """There is no kernel to be had, or it lacks a module."""


@dataclasses.dataclass(frozen=True)
class Kernel:
    """An unpacked kernel package."""

    root: pathlib.Path

    @property
    def image(self) -> pathlib.Path:
        """The kernel itself."""
        return next((self.root / 'boot').glob('vmlinuz-*'))

    def modules(self, *names: str) -> dict[str, bytes]:
        """Return modules and all that they need, in the order to load them.

        Debian's package has no ``modules.dep``; it is made when the package
        is installed. The modules themselves tell what they need. Those that
        the kernel has built in are left out.

        :raises KernelError: if there is no such module
        """
        files = {_module_name(path): path
                 for path in self.root.glob('lib/modules/*/kernel/**/*.ko*')}
        builtin = {_module_name(pathlib.Path(line)) for line in next(
            self.root.glob('lib/modules/*/modules.builtin')
        ).read_text().splitlines()}
        found: dict[str, bytes] = {}

        def add(name: str) -> None:
            if name in found or name in builtin:
                return
            if name not in files:
                raise KernelError('%s has no module %s' % (self.root, name))
            data = _read_module(files[name])
            for needed in _needs(data):
                add(needed)
            found[name] = data

        for name in names:
            add(name)
        return found


def _module_name(path: pathlib.Path) -> str:
    return path.name.partition('.')[0].replace('-', '_')


def _read_module(path: pathlib.Path) -> bytes:
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == '.xz' else data


def _needs(module: bytes) -> list[str]:
    match = re.search(rb'\0depends=([^\0]*)\0', module)
    return match[1].decode().replace('-', '_').split(',') if (
        match and match[1]) else []


def get(folder: pathlib.Path) -> Kernel:
    """Return the kernel kept in a folder, fetched if there is none.

    One process at a time may ask for it.

    :raises KernelError: if it can't be fetched
    """
    kept = folder / 'kernel'
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix='new-') as new:
            root = pathlib.Path(new) / 'kernel'
            _fetch(pathlib.Path(new), root)
            root.rename(kept)
    return Kernel(kept)


def _fetch(folder: pathlib.Path, root: pathlib.Path) -> None:
    # apt's sandbox user may not be let into our folder; it needs not be:
    # the package is verified all the same.
    _output(['apt-get', '-q', '-o', 'APT::Sandbox::User=', 'download',
             _real_package()], folder)
    package = next(folder.glob('*.deb'))
    _output(['dpkg-deb', '-x', str(package), str(root)], folder)
    for unneeded in ('usr', 'boot/System.map-*'):
        for path in root.glob(unneeded):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _real_package() -> str:
    text = _output(['apt-cache', 'depends', PACKAGE])
    match = re.search(r'Depends: (linux-image-\S+)', text)
    if not match:
        raise KernelError(
            'apt knows no package %s; "apt-get update" may help' % PACKAGE)
    return match[1]


def _output(command: list[str], folder: pathlib.Path | None = None) -> str:
    done = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True,
        text=True)
    if done.returncode:
        raise KernelError('%s: %s' % (' '.join(command), done.stderr.strip()))
    return done.stdout

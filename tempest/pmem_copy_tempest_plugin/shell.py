# SPDX-License-Identifier: Apache-2.0
"""Commands on compute hosts."""

from collections.abc import Mapping
import re
import shlex
import subprocess


class CommandFailed(Exception):
    """A command on a compute host did not do what it was to."""


def fill(text: str, values: Mapping[str, str]) -> str:
    """Replace placeholders such as ``{device}``; other braces stay."""
    return re.sub(r'{(\w+)}', lambda match: values.get(match[1], match[0]),
                  text)


def fill_quoted(command: str, **values: str) -> str:
    """Replace placeholders by values, quoted for a shell."""
    return fill(command, {
        name: shlex.quote(value) for name, value in values.items()})


class HostShell:
    """Runs shell commands on compute hosts, usually by ssh."""

    def __init__(self, command: str, addresses: Mapping[str, str],
                 timeout: float) -> None:
        """Describe how a host is reached.

        :param command: what leads there, as ``ssh root@{address}``. A command
            line for a POSIX shell is put behind it as one argument, or
            quoted where it says ``{script}``.
        :param addresses: where hosts are reached if not by their names
        :param timeout: in seconds, for one command
        """
        self._command = command
        self._addresses = addresses
        self._timeout = timeout

    def run(self, host: str, script: str, data: bytes = b'') -> bytes:
        """Run a command line on a host.

        :param host: the host as Nova calls it
        :param script: for a POSIX shell
        :param data: its standard input
        :returns: its standard output
        :raises CommandFailed: if it ends with another status than 0, or does
            not end in time
        """
        values = {'host': host, 'address': self._addresses.get(host, host),
                  'script': shlex.quote(script)}
        words = [fill(word, values) for word in shlex.split(self._command)]
        if '{script}' not in self._command:
            words.append(script)
        try:
            done = subprocess.run(
                words, input=data, capture_output=True, check=False,
                timeout=self._timeout)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CommandFailed(
                f'on {host}: "{script}": {error}') from error
        if done.returncode:
            said = done.stderr.decode(errors='replace').strip()[-500:]
            raise CommandFailed(
                f'on {host}: "{script}" ended with status {done.returncode}: '
                f'{said!r}')
        return done.stdout

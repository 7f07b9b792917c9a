# SPDX-License-Identifier: Apache-2.0

"""The hooks that cliff calls around the core commands."""

import argparse
from typing import Any

from cliff import hooks
from osc_lib import exceptions

from osc_pmem_copy import microversion
from osc_pmem_copy import outcome
from osc_pmem_copy import request


class _CopyHook(hooks.CommandHook):
    """Add ``--copy-pmem-devices`` to a command that moves a server."""

    #: The server action that the command sends.
    action: str

    def get_parser(
        self, parser: argparse.ArgumentParser
    ) -> argparse.ArgumentParser:
        parser.add_argument(
            '--copy-pmem-devices',
            action='store_true',
            default=False,
            help=(
                "Copy the contents of the server's virtual persistent memory "
                'to the destination; otherwise the server finds it empty '
                'there. With --wait, a copy that fails is an error. '
                '(supported with --os-compute-api-version '
                f'{microversion.NEEDED} or above)'
            ),
        )
        return parser

    def get_epilog(self) -> str:
        return ''

    def before(self, parsed_args: argparse.Namespace) -> argparse.Namespace:
        """Have the command ask for a copy, if that is what the user wants.

        What the option needs is put around ``take_action`` of this one
        command object, and not divided between :meth:`before` and
        :meth:`after`: cliff does not call the latter when the command fails,
        and everything has to be put back then, too.
        """
        if not parsed_args.copy_pmem_devices:
            return parsed_args
        self.refuse(parsed_args)
        command: Any = self.cmd
        compute = command.app.client_manager.compute
        version = microversion.choose(compute)
        take_action = command.take_action

        def move_with_copy(parsed_args: argparse.Namespace) -> None:
            # The command's own way of waiting takes a copy that was rolled
            # back for a success.
            no_wait = argparse.Namespace(**vars(parsed_args))
            no_wait.wait = False
            with request.asking_for_copy(
                compute, self.action, version, look_first=parsed_args.wait
            ) as sent:
                take_action(no_wait)
            if sent.server_id is None:
                raise exceptions.CommandError(
                    f'No {self.action} with --copy-pmem-devices was sent: '
                    f'this release of openstackclient is not supported.'
                )
            if parsed_args.wait:
                _wait(compute, sent, command.app.stdout)

        command.take_action = move_with_copy
        return parsed_args

    def after(self, parsed_args: argparse.Namespace, return_code: int) -> int:
        return return_code

    def refuse(self, parsed_args: argparse.Namespace) -> None:
        """Refuse what can't be combined, before anything is sent.

        :raises: :class:`osc_lib.exceptions.CommandError`
        """
        raise NotImplementedError


class ResizeHook(_CopyHook):
    """The hook of ``openstack server resize``."""

    action = 'resize'

    def refuse(self, parsed_args: argparse.Namespace) -> None:
        for option in ('confirm', 'revert'):
            if getattr(parsed_args, option, False):
                raise exceptions.CommandError(
                    f'--copy-pmem-devices is for starting a resize: it can '
                    f'not be used with --{option}.'
                )
        # The command does nothing, and says nothing, on an empty name.
        if not parsed_args.flavor:
            raise exceptions.CommandError(
                '--copy-pmem-devices is for starting a resize: it needs '
                '--flavor.'
            )


class MigrateHook(_CopyHook):
    """The hook of ``openstack server migrate``."""

    action = 'migrate'

    def refuse(self, parsed_args: argparse.Namespace) -> None:
        if parsed_args.live_migration:
            raise exceptions.CommandError(
                '--copy-pmem-devices is for cold migration: it can not be '
                'used with --live-migration.'
            )


def _wait(compute: Any, sent: request.Sent, stdout: Any) -> None:
    """Wait for the move, showing its progress like the core commands."""
    shown: str | None = None

    def show_progress(progress: int, phase: str) -> None:
        nonlocal shown
        if progress:
            if shown not in (None, phase):
                stdout.write('\n')
            stdout.write(f'\rProgress: {progress}{phase}')
            stdout.flush()
            shown = phase

    try:
        outcome.wait(compute, sent, show_progress)
    finally:
        # The result stands on a line of its own.
        if shown is not None:
            stdout.write('\n')
    stdout.write('Complete\n')

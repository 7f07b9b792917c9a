# SPDX-License-Identifier: Apache-2.0

"""The passes of a copy: some while the guest runs, and one when it is off.

The first pass sends everything, and each later one compares everything and
sends what differs: what the guest has written meanwhile. Only the last one,
with the guest off, proves anything; what an earlier one has read half old and
half new differs then. Its sender connects before the guest is switched off. A
guest that writes faster than the link carries is not waited for.
"""

from collections import abc
import dataclasses
import functools
import typing as ty

from oslo_log import log as logging
from oslo_utils import units

import nova.conf
from nova import exception
from nova.i18n import _
from nova import objects
from nova.virt.libvirt.pmem import reports
from nova.virt.libvirt.pmem import transfer
from nova.virt.pmem_transfer import wire

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

#: Senders that a pass may need at most, in the numbers that they have: the
#: receiver lets later ones take over from earlier ones.
SENDERS = 1000

#: The part of what one pass has sent that the next one may send, or it is not
#: worth another: the guest writes about as fast as we do.
SHRINKS = 0.7


def pays(done: ty.Sequence[transfer.Totals]) -> bool:
    """Say whether another pass would make the one with the guest off shorter.

    :param done: what came of those before
    """
    differed = [each.differed for each in done]
    goal = done[-1].bytes * CONF.libvirt.pmem_copy_running_goal / 100
    return differed[-1] > goal and (
        len(done) == 1 or differed[-1] < differed[-2] * SHRINKS)


def repeat(run_pass: abc.Callable[[int], transfer.Totals],
           most: int) -> list[transfer.Totals]:
    """Run passes as long as that pays, and return what came of each.

    :param run_pass: called with the number of the pass, from 0
    :param most: passes
    """
    done: list[transfer.Totals] = []
    while len(done) < most and (not done or pays(done)):
        done.append(run_pass(len(done)))
    return done


class Running(ty.NamedTuple):
    """What was copied while the guest ran.

    :ivar wire: bytes that were sent
    :ivar sender: of the last pass, which waits for the guest to be off
    """

    passes: int
    wire: int
    sender: transfer.Sender

    def text(self) -> str:
        """Tell users of it."""
        return _('%(passes)d pass(es) while the server ran sent %(wire)d '
                 'MiB') % {'passes': self.passes,
                           'wire': self.wire // units.Mi}


class Passes:
    """The passes of one move, as its source does them."""

    def __init__(self, instance: 'objects.Instance',
                 migration: 'objects.Migration', job: wire.Sending,
                 on_execute: transfer.ProcessHook,
                 on_completion: transfer.ProcessHook,
                 task_state: str) -> None:
        """Prepare them.

        :param on_execute: called with each process that is started
        :param on_completion: called with each process that has ended
        :param task_state: of a server that is still to be copied
        """
        self._instance = instance
        self._migration = migration
        self._job = job
        self._hooks = on_execute, on_completion
        self._is_wanted = functools.partial(
            _is_in, instance, task_state)

    def run_with_guest(self, most: int) -> Running:
        """Copy while the guest runs, as long as that pays; then stay there.

        :param most: passes; with none of them this only connects
        :returns: what came of it, with a sender that is to be closed
        :raises TransferFailed: if a pass can't be done, or the receiver does
            not let us in
        """
        done = repeat(lambda number: self._pass(
            number * SENDERS, 'while the guest runs, pass %d' % (number + 1)),
            most)
        return Running(len(done), sum(each.wire for each in done),
                       self._connect(len(done) * SENDERS))

    def _connect(self, number: int) -> transfer.Sender:
        """Have a sender ready that copies when it is told to."""
        sender = transfer.Sender(
            self._migration.uuid,
            dataclasses.replace(self._job, attempt=number), *self._hooks)
        try:
            sender.wait_until_ready()
        except BaseException:
            sender.close()
            raise
        return sender

    def run_without_guest(self, before: Running | None) -> str:
        """Copy what is missing; prove that everything has arrived.

        :param before: what was copied while the guest ran
        :returns: what users are told of it
        :raises TransferFailed: if it can't be done
        """
        totals = self._pass(
            before.passes * SENDERS if before else 0, 'and found it equal',
            before.sender if before else None)
        last = _('with the server off %(wire)d MiB were sent in %(seconds).1f '
                 'seconds') % {'wire': totals.wire // units.Mi,
                               'seconds': totals.seconds}
        return '%s; %s' % (before.text(), last) if (
            before and before.passes) else last

    def _pass(self, first_sender: int, how: str,
              waiting: transfer.Sender | None = None) -> transfer.Totals:
        with reports.Progress(self._instance, self._is_wanted) as progress:
            totals = transfer.transfer(
                self._migration.uuid,
                dataclasses.replace(self._job, attempt=first_sender),
                *self._hooks, progress, self._is_wanted, waiting)
        LOG.info('Copied %(mib)d MiB of vPMEM data to %(host)s in '
                 '%(seconds).1f seconds %(how)s; %(differed)d MiB differed, '
                 '%(wire)d MiB were sent, %(retries)d attempts failed.',
                 {'mib': totals.bytes // units.Mi,
                  'host': self._migration.dest_compute, 'how': how,
                  'seconds': totals.seconds, 'wire': totals.wire // units.Mi,
                  'differed': totals.differed // units.Mi,
                  'retries': totals.retries}, instance=self._instance)
        return totals


def _is_in(instance: 'objects.Instance', task_state: str) -> bool:
    """Whether a server still is where it was; deleting it ends what works."""
    try:
        current = objects.Instance.get_by_uuid(
            instance._context.elevated(), instance.uuid)
    except exception.NotFound:
        return False
    return current.task_state == task_state

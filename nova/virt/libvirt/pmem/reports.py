# SPDX-License-Identifier: Apache-2.0

"""How a copy shows: in the log, in a server's events, by its progress."""

from collections import abc
import contextlib
import re
import typing as ty

from oslo_log import log as logging
from oslo_utils import timeutils
from oslo_utils import units

from nova import exception
from nova.i18n import _
from nova import objects
from nova.virt.libvirt.pmem import pairing
from nova.virt.libvirt.pmem import transfer

LOG = logging.getLogger(__name__)

#: What users are told, by what is found in the message of a failure. All of
#: it is in the log; a part of it may be a peer's text.
REASONS = (
    (r'nova-pmem-join: .*\[Errno|receiver can not be reached',
     _('the receiver on the destination can not be reached')),
    ('Permission denied', _('ssh to the destination: Permission denied')),
    ('Host key verification failed',
     _('ssh to the destination: Host key verification failed')),
    ('forbids forwarding',
     _('nobody listens on the destination, or its sshd forbids forwarding')),
    ('Connection refused|Connection timed out|No route|Could not resolve|'
     'Connection closed|Connection reset by .* port',
     _('ssh does not reach the destination')),
    ('SIGBUS|damaged', _('memory of a device is damaged')),
    ('daxio', _('a device can not be written or read')),
)


@contextlib.contextmanager
def named_failure(
    instance: 'objects.Instance', migration: 'objects.Migration',
    pairs: list[pairing.DevicePair],
) -> abc.Iterator[None]:
    """Tell operators what has failed, and users why.

    :raises PMEMCopyFailed: with what users may read
    """
    try:
        yield
    except (exception.PMEMNamespaceNotFound, OSError, ValueError,
            transfer.TransferFailed) as error:
        name = getattr(error, 'device', None)
        source, target = next(
            (pair for pair in pairs if pair.source.name == name), pairs[0])
        LOG.error('vPMEM namespace %(source)s was not copied to %(target)s '
                  'on %(host)s (migration %(migration)s): %(error)s. The data '
                  'is intact here, where the server goes on; what was copied '
                  'is wiped there.',
                  {'source': source.name, 'target': target.name,
                   'host': migration.dest_compute,
                   'migration': migration.uuid, 'error': error},
                  instance=instance)
        raise exception.PMEMCopyFailed(reason=_reason(str(error)))


def _reason(message: str) -> str:
    for pattern, reason in REASONS:
        if re.search(pattern, message):
            return reason
    return _('the log of nova-compute on the source has the reason')


class Event:
    """An event of a server, whose details tell also of a success."""

    def __init__(self, instance: 'objects.Instance', name: str,
                 host: str) -> None:
        """Describe it.

        :param host: on which it happens
        """
        self._context = instance._context
        self._where = instance.uuid, name
        self._host = host
        self.details: str | None = None

    def __enter__(self) -> 'Event':
        objects.InstanceActionEvent.event_start(
            self._context, *self._where, want_result=False, host=self._host)
        return self

    def __exit__(self, _kind: ty.Any, error: ty.Any, trace: ty.Any) -> None:
        objects.InstanceActionEvent.event_finish_with_failure(
            self._context, *self._where, exc_val=error or self.details,
            exc_tb=trace, want_result=False)


def tell_downtime(instance: 'objects.Instance', host: str) -> None:
    """Tell how long the guest was off for its data, as it starts.

    It is told by the clocks of two hosts, and for information only.

    :param host: on which it starts
    """
    move = instance.migration_context
    if 'pmem_copy_off_since' not in move or not move.pmem_copy_off_since:
        return
    seconds = timeutils.delta_seconds(
        move.pmem_copy_off_since, timeutils.utcnow(with_timezone=True))
    text = _('the server starts %.1f seconds after it was told to '
             'end') % max(0, seconds)
    LOG.info('vPMEM data has arrived: %s.', text, instance=instance)
    try:
        with Event(instance, 'compute_start_with_pmem', host) as event:
            event.details = text
    except Exception:
        LOG.debug('The event could not be noted.', exc_info=True,
                  instance=instance)


class Progress:
    """Shows how far a copy is: users by the server, operators by the log."""

    #: Seconds between two times that it is saved, and logged.
    SAVE, LOG = 3, 30

    def __init__(self, instance: 'objects.Instance',
                 is_wanted: abc.Callable[[], bool]) -> None:
        """Begin.

        :param is_wanted: asked each time that it is saved
        """
        self._instance = instance
        self._is_wanted = is_wanted
        self._watch = timeutils.StopWatch()
        self._saved = self._logged = 0.0

    def __enter__(self) -> 'Progress':
        self._watch.start()
        self._save(0)
        return self

    def __exit__(self, kind: ty.Any, error: ty.Any, trace: ty.Any) -> None:
        self._save(100 if kind is None else 0)
        if kind is None:
            # However short it was: what comes next is not undone by a delete.
            self._check()

    def __call__(self, done: int, total: int) -> None:
        """Note how far it is.

        :raises TransferFailed: if nobody wants it any more
        """
        elapsed = self._watch.elapsed()
        if elapsed - self._saved >= self.SAVE:
            self._saved = elapsed
            self._check()
            self._save(done * 100 // total)
        if elapsed - self._logged >= self.LOG:
            self._logged = elapsed
            LOG.info('Copied %(done)d of %(total)d MiB of vPMEM data at '
                     '%(rate).1f MiB/s; about %(left)d seconds are left.',
                     {'done': done // units.Mi, 'total': total // units.Mi,
                      'rate': done / units.Mi / elapsed,
                      'left': (total - done) * elapsed / max(1, done)},
                     instance=self._instance)

    def _check(self) -> None:
        try:
            is_wanted = self._is_wanted()
        except Exception:
            # The database may be away for a while; the copy needs none.
            LOG.debug('Whether to go on could not be asked.', exc_info=True,
                      instance=self._instance)
            return
        if not is_wanted:
            raise transfer.TransferFailed(
                _('the server is not to be moved any more'))

    def _save(self, percent: int) -> None:
        if self._instance.progress == percent:
            return
        self._instance.progress = percent
        try:
            self._instance.save()
        except Exception:
            # It is for information only.
            LOG.debug('The progress could not be saved.', exc_info=True,
                      instance=self._instance)

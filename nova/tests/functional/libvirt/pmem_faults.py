# SPDX-License-Identifier: Apache-2.0

"""The fault matrix: what can go wrong, and when.

Each fault says by a rule, with a reason, at which moments it makes no sense;
all other combinations are cases.
"""

import collections
from collections import abc
import contextlib
import os
import threading
import typing as ty

from oslo_log import log as logging
from oslo_serialization import jsonutils
from oslo_utils import uuidutils
import psutil

from nova import exception
from nova.tests.fixtures import pmem_process
from nova.tests.functional.api import client as api_client
from nova.tests.functional.libvirt import pmem_invariant
from nova.tests.functional.libvirt import pmem_moments
from nova.tests.functional.libvirt import pmem_world

LOG = logging.getLogger(__name__)

SOURCE, DESTINATION = HOSTS = pmem_world.HOSTS
OLD, NEW = pmem_world.OLD, pmem_world.NEW
SIZE = pmem_world.SIZE

Moment = pmem_moments.Moment
RECEIVE, HOLD = pmem_moments.RECEIVE, pmem_moments.HOLD


# What

class Fault:
    """Something that goes wrong.

    :ivar tool: what daxio does at a moment at which it is at work, instead of
        hanging: an action of ``PmemHosts.inject`` and its details
    """

    name = ''
    tool: tuple[str, dict[str, ty.Any]] | None = None
    #: Whether the server goes with it.
    deletes = False
    #: Whether a guest on the source ends by it.
    ends_guest = False
    #: Seconds after which a copy that stands still is noticed.
    stall_timeout = 60

    def leaves_out(self, moment: Moment) -> str:
        """Say why this is no case at a moment; nothing if it is one."""
        return ''

    def happen(self, case: 'Case') -> None:
        """Happen. May be called in a thread of the service at work."""

    def then(self, case: 'Case') -> None:
        """Go on at once, in the thread of the test."""

    def later(self, case: 'Case') -> None:
        """Go on when nothing is under way any more."""

    def repair(self, case: 'Case') -> bool:
        """Do what an operator does; say whether there was something."""
        return False


class ToolFault(Fault):
    """daxio ends or lies."""

    def __init__(self, name: str, action: str, **details: ty.Any) -> None:
        self.name = name
        self.tool = (action, details)

    def leaves_out(self, moment: Moment) -> str:
        if not moment.at_tool:
            return 'no daxio runs'
        if self.tool[0] != 'exit' and moment.at == SIZE:
            return 'there is nothing left to move'
        return ''

    def repair(self, case: 'Case') -> bool:
        case.planned.cancel()
        return self.tool[1]['repeat']


def _as_while_writing(moment: Moment) -> str:
    """Leave out what no process of the copy has to do with."""
    if moment.copies and moment.name not in ('writing', 'precopying'):
        return 'the same as while writing'
    return ''


class ProcessKilled(Fault):
    """A process of the copy is killed."""

    _do = staticmethod(psutil.Process.kill)

    def __init__(self, name: str, find: abc.Callable[
            ['Case'], list[psutil.Process]], needs_ssh: bool) -> None:
        self.name = name
        self._find = find
        self._needs_ssh = needs_ssh

    def leaves_out(self, moment: Moment) -> str:
        if not self._needs_ssh:
            return '' if moment.at_tool else 'no such process runs'
        if not moment.waits and not (
                moment.copies and moment.device == NEW):
            return 'no ssh runs'
        return ''

    def happen(self, case: 'Case') -> None:
        found = self._find(case)
        if not found:
            raise pmem_world.NotReached('no such process is there')
        for process in found:
            self._do(process)


class ProcessStopped(ProcessKilled):
    """A process of the copy hangs: nothing moves, and nothing breaks."""

    stall_timeout = 5

    _do = staticmethod(psutil.Process.suspend)

    def leaves_out(self, moment: Moment) -> str:
        return super().leaves_out(moment) or (
            '' if moment.name in ('writing', 'precopying') else
            'the same as while writing')


def _tool(case: 'Case') -> list[psutil.Process]:
    return [psutil.Process(case.hanging.pid)]


def _ssh(case: 'Case') -> list[psutil.Process]:
    return [process for process in case.world.pmem.tools()
            if process.name() == 'ssh']


def _links(case: 'Case') -> list[psutil.Process]:
    return case.world.pmem.sessions()


def _started(module: str) -> abc.Iterator[psutil.Process]:
    """Yield what nova-computes have started: all of them are this process."""
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if 'nova.virt.pmem_transfer.' + module in process.cmdline():
                yield process


def _streams(module: str) -> abc.Iterator[psutil.Process]:
    """Yield the process of each stream, which is a fork."""
    for process in _started(module):
        for child in process.children():
            if child.cmdline() == process.cmdline():
                yield child


def _senders(case: 'Case') -> list[psutil.Process]:
    return list(_started('sender'))


def _receivers(case: 'Case') -> list[psutil.Process]:
    return list(_started('receiver'))


def _sending(case: 'Case') -> list[psutil.Process]:
    return list(_streams('sender'))


def _writing(case: 'Case') -> list[psutil.Process]:
    return list(_streams('receiver'))


class FlippedLater(Fault):
    """A byte of the target changes between writing and reading it back."""

    name = 'byte-changed-after-writing'

    def leaves_out(self, moment: Moment) -> str:
        return '' if moment.name == 'comparing' else (
            'only the comparison looks at it')

    def happen(self, case: 'Case') -> None:
        pmem = case.world.pmem
        last, = pmem.read(NEW, SIZE - 1, 1)
        pmem.write(NEW, SIZE - 1, bytes([last ^ 1]))


class ComputeKilled(Fault):
    """One or both nova-computes die, and are started anew."""

    def __init__(self, name: str, hosts: abc.Sequence[str], late: bool,
                 power: bool = False) -> None:
        """Describe it.

        :param late: whether the other one goes on as far as it can before
        :param power: whether it is the host that dies
        """
        self.name = '%s-%s' % (name, 'late' if late else 'at-once')
        self._hosts = hosts
        self._late = late
        self._power = power
        self.ends_guest = power and SOURCE in hosts

    def leaves_out(self, moment: Moment) -> str:
        if self._late and self._hosts == HOSTS:
            return 'there is nobody who goes on before'
        if self._late and self._power:
            return 'what goes on before does so without a reboot, too'
        if moment.is_step and moment.host not in self._hosts:
            return 'that host has no part in this step'
        if moment.is_step and self._late and moment.name != 'given-back':
            return 'nobody else goes on before'
        return _as_while_writing(moment)

    def happen(self, case: 'Case') -> None:
        for host in self._hosts:
            if self._power:
                case.world.reboot(host)
            else:
                case.world.kill(host)

    def _start(self, case: 'Case') -> None:
        for host in self._hosts:
            case.world.restart(host)

    def then(self, case: 'Case') -> None:
        if not self._late:
            self._start(case)

    def later(self, case: 'Case') -> None:
        if self._late:
            self._start(case)


#: What is to come changes allocations.
ALLOCATING = frozenset((
    'claimed', 'after-the-copy', 'finishing', 'confirming', 'deallocating',
    'wiping-new', 'taken-over', 'deleting-new'))

#: What is to come changes what Cinder knows of a volume.
ATTACHING = frozenset((
    'before-the-copy', 'finishing', 'launched', 'completing-volumes',
    'reverting', 'destroyed', 'allocation-back', 'relaunched',
    'completing-again'))

#: Where a volume that is attached may make a difference.
WITH_VOLUME = ATTACHING | {'disconnected'}


class Away(Fault):
    """Something that the host at work needs can't be reached."""

    def __init__(self, name: str, kinds: abc.Collection[str],
                 error: abc.Callable[[], Exception],
                 times: int | None) -> None:
        self.name = '%s-away-%s' % (
            name, 'for-long' if times is None else 'once')
        self._kinds = kinds
        self._error = error
        self._times = times

    def leaves_out(self, moment: Moment) -> str:
        if moment.at_rest:
            return 'nobody is at work'
        if self._kinds == ('placement',) and moment.name not in ALLOCATING:
            return 'allocations do not change next'
        if self._kinds == ('cinder',) and moment.name not in ATTACHING:
            return 'attachments do not change next'
        return _as_while_writing(moment)

    def happen(self, case: 'Case') -> None:
        case.outage = pmem_process.Outage(
            self._kinds, self._error, self._times)
        case.world.process[case.moment.host].outages.append(case.outage)

    def later(self, case: 'Case') -> None:
        case.world.run_periodic_tasks()
        case.world.wait_until_quiet()
        case.outage.end()
        case.must_fire(case.outage.hits, 'nobody missed it')


class Fails(Fault):
    """The call raises an exception, for whatever reason."""

    name = 'fails'

    def leaves_out(self, moment: Moment) -> str:
        return '' if moment.function else 'no call to fail'

    def happen(self, case: 'Case') -> None:
        raise exception.NovaException('fails as planned')


class DeviceFault(Fault):
    """Something is the matter with a device of either host."""

    def __init__(self, kind: str, device: str) -> None:
        self.kind = kind
        self.device = device
        self.host = SOURCE if device == OLD else DESTINATION
        self.name = '%s-%s' % (
            'source' if device == OLD else 'target', kind)

    def leaves_out(self, moment: Moment) -> str:
        if moment.at_tool:
            return 'daxio has the device open'
        if moment.is_step:
            return 'the same as before the first step'
        if moment.guest_on == self.host:
            return 'a guest has the device open'
        if self.device == OLD and self.kind == 'busy':
            return 'nobody else could have been given it'
        if self.device == OLD and self.kind == 'renamed':
            return 'for who looks for it, it is missing'
        return ''

    def happen(self, case: 'Case') -> None:
        pmem = case.world.pmem
        if self.kind == 'missing':
            pmem.hide(self.device)
        elif self.kind == 'renamed':
            pmem.rename(self.device, pmem.known(self.device) + '_x')
        elif self.kind == 'renumbered':
            pmem.renumber(self.device)
        else:
            case.squatter = case.world.define_stranger(
                self.host, self.device)

    def later(self, case: 'Case') -> None:
        if self.kind == 'renumbered':
            # Without a reboot it is for the operator to see to this: Nova
            # reads the nodes when nova-compute starts.
            case.world.kill(self.host)
            case.world.restart(self.host)

    def repair(self, case: 'Case') -> bool:
        pmem = case.world.pmem
        if self.kind == 'missing':
            pmem.show(self.device)
        elif self.kind == 'renamed':
            pmem.rename(self.device, pmem.known(self.device))
        elif self.kind == 'busy':
            with pmem_process.outside():
                case.squatter.destroy()
                case.squatter.undefine()
        return self.kind != 'renumbered'


#: One moment of each phase.
LEFT_OVER_AT = frozenset((
    'claimed', 'moved-then-confirm', 'returning', 'deleting-new'))


class TicketFault(Fault):
    """Something is the matter with a ticket."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.name = 'ticket-%s' % kind

    def leaves_out(self, moment: Moment) -> str:
        if self.kind == 'left-over':
            return '' if moment.name in LEFT_OVER_AT else (
                'it has nothing to do with the move')
        if not moment.tickets:
            return 'there is none'
        if self.kind == 'missing' and moment.tickets == (HOLD,):
            return 'nobody else knows of what is held'
        if self.kind != 'corrupt' and moment.tickets == (HOLD,):
            return 'nobody reads it before it is closed'
        return _as_while_writing(moment)

    def happen(self, case: 'Case') -> None:
        if self.kind == 'left-over':
            _leave_ticket(case)
            return
        host, __ = case.moment.tickets[0]
        path = case.path = _ticket_path(case)
        with open(path) as file:
            case.ticket = text = file.read()
        if self.kind == 'missing':
            os.unlink(path)
        else:
            with open(path, 'w') as file:
                file.write(self._damaged(text))

    def _damaged(self, text: str) -> str:
        if self.kind == 'corrupt':
            return text[:len(text) // 2]
        fields = jsonutils.loads(text)
        if self.kind == 'stale':
            fields['migration_uuid'] = uuidutils.generate_uuid()
        else:
            fields['host'] = 'host3'
        return jsonutils.dumps(fields)

    def repair(self, case: 'Case') -> bool:
        """Do what the log says.

        That is: wipe what no server uses, and remove the file.
        """
        if self.kind in ('left-over', 'missing'):
            return False
        world = case.world
        host, __ = case.moment.tickets[0]
        name = OLD if host == SOURCE else NEW
        is_open = os.path.exists(case.path)
        if is_open:
            os.unlink(case.path)
        if world.PMEM_OWNER:
            # Who owned the node was in the ticket only.
            os.chown(world.pmem.path(name), *[world.PMEM_OWNER] * 2)
        found = world.show(case.server)
        used = found and (found['OS-EXT-SRV-ATTR:host'] == host or
                          found['status'] == 'VERIFY_RESIZE')
        # What has no ticket any more may be another server's by now.
        if is_open and not used:
            world.pmem.write(name, 0, bytes(SIZE))
        return True


def _ticket_path(case: 'Case') -> str:
    host, kind = case.moment.tickets[0]
    folder = pmem_invariant.ticket_folder(case.world, host)
    names = [name for name in os.listdir(folder) if name.endswith(kind)]
    if len(names) != 1:
        raise pmem_world.NotReached('one %s ticket, not %s' % (kind, names))
    return os.path.join(folder, names[0])


def _leave_ticket(case: 'Case') -> None:
    """Leave dirt and a ticket of a migration that nobody knows any more."""
    name = '%s_free_0' % DESTINATION
    folder = pmem_invariant.ticket_folder(case.world, DESTINATION)
    os.makedirs(folder, exist_ok=True)
    case.world.pmem.fill(name)
    uuid = uuidutils.generate_uuid()
    owner = os.stat(case.world.pmem.path(name))
    with open(os.path.join(folder, uuid + '.receive'), 'w') as file:
        file.write(jsonutils.dumps({
            'host': DESTINATION, 'migration_uuid': uuid,
            'instance_uuid': uuidutils.generate_uuid(), 'version': 1,
            'kind': 'receive', 'targets': [{
                'name': case.world.pmem.known(name), 'size': SIZE,
                'source_size': SIZE,
                'uid': owner.st_uid, 'gid': owner.st_gid}]}))


class WipeFails(Fault):
    """Wiping fails, after something else went wrong if need be."""

    def __init__(self, for_good: bool) -> None:
        self.name = 'wipe-fails-%s' % (
            'until-repaired' if for_good else 'once')
        self._for_good = for_good

    def leaves_out(self, moment: Moment) -> str:
        if moment.side == 'zero':
            return 'a full device is the same'
        if moment.phase != 'move':
            return 'the wipe to come is a moment of its own'
        if moment.guest_on == DESTINATION:
            return 'what has started is not wiped'
        return _as_while_writing(moment)

    def happen(self, case: 'Case') -> None:
        pmem, moment = case.world.pmem, case.moment
        case.planned = [pmem.inject(
            'exit', NEW, side='zero', status=1, message='bad block\n',
            repeat=self._for_good)]
        if moment.copies:
            case.planned.append(pmem.inject(
                'exit', NEW, side='write', status=1, repeat=True))
        if moment.at_tool:
            psutil.Process(case.hanging.pid).kill()
        else:
            raise exception.NovaException('fails as planned')

    def later(self, case: 'Case') -> None:
        case.world.run_periodic_tasks()
        case.world.wait_until_quiet()
        case.must_fire(case.planned[0].fired, 'nothing was wiped')

    def repair(self, case: 'Case') -> bool:
        for planned in case.planned:
            planned.cancel()
        return self._for_good


class Deleted(Fault):
    """The user deletes the server."""

    deletes = True

    def __init__(self, down: str = '') -> None:
        self.name = 'deleted' + (
            '-with-%s-down' % ('source' if down == SOURCE else 'destination')
            if down else '')
        self._down = down

    def leaves_out(self, moment: Moment) -> str:
        if moment.phase == 'delete':
            return 'that is what is under way'
        if moment.is_step and self._down:
            return 'the same as before the first step'
        return _as_while_writing(moment)

    def happen(self, case: 'Case') -> None:
        if self._down:
            case.world.kill(self._down)
            self._force_down(case, True)

    def _force_down(self, case: 'Case', down: bool) -> None:
        service, = case.world.api.get_services(
            binary='nova-compute', host=self._down)
        case.world.api.put_service(service['id'], {'forced_down': down})

    def then(self, case: 'Case') -> None:
        case.delete()

    def later(self, case: 'Case') -> None:
        if self._down:
            case.world.restart(self._down)
            self._force_down(case, False)


FAULTS: tuple[Fault, ...] = (
    ProcessKilled('daxio-killed', _tool, needs_ssh=False),
    ProcessKilled('ssh-killed', _ssh, needs_ssh=True),
    ProcessKilled('link-cut', _links, needs_ssh=True),
    ProcessKilled('sender-killed', _senders, needs_ssh=True),
    ProcessKilled('sending-stream-killed', _sending, needs_ssh=True),
    ProcessKilled('receiver-killed', _receivers, needs_ssh=True),
    ProcessKilled('writing-stream-killed', _writing, needs_ssh=True),
    ProcessStopped('ssh-stopped', _ssh, needs_ssh=True),
    ProcessStopped('sender-stopped', _senders, needs_ssh=True),
    ProcessStopped('sending-stream-stopped', _sending, needs_ssh=True),
    ProcessStopped('writing-stream-stopped', _writing, needs_ssh=True),
    *(ToolFault(name + ('-always' if repeat else '-once'), action,
                repeat=repeat, **details)
      for name, action, details in (
          ('device-full', 'exit', {
              'status': 1, 'message': 'daxio: failed to perform I/O\n'}),
          ('device-short', 'short', {}),
          ('byte-changed', 'flip', {}))
      for repeat in (False, True)),
    FlippedLater(),
    *(ComputeKilled(name, hosts, late, power)
      for name, hosts, power in (
          ('source-killed', (SOURCE,), False),
          ('destination-killed', (DESTINATION,), False),
          ('both-killed', HOSTS, False),
          ('destination-rebooted', (DESTINATION,), True),
          ('source-rebooted', (SOURCE,), True))
      for late in (False, True)),
    *(Away(name, kinds, error, times)
      for name, kinds, error, times in (
          ('database', ('database',), pmem_process.database_is_away, 1),
          ('database', ('database',), pmem_process.database_is_away, None),
          ('bus', ('database', 'bus'), pmem_process.bus_is_away, None),
          ('placement', ('placement',), pmem_process.placement_is_away,
           None),
          ('cinder', ('cinder',), pmem_process.cinder_is_away, 1),
          ('cinder', ('cinder',), pmem_process.cinder_is_away, None))),
    Fails(),
    *(DeviceFault(kind, device)
      for kind in ('missing', 'renamed', 'renumbered', 'busy')
      for device in (OLD, NEW)),
    *(TicketFault(kind) for kind in (
        'missing', 'corrupt', 'stale', 'of-another-host', 'left-over')),
    WipeFails(for_good=False),
    WipeFails(for_good=True),
    Deleted(),
    Deleted(down=SOURCE),
    Deleted(down=DESTINATION),
)


# One case

class DidNotHappen(Exception):
    """A case that shows nothing: its fault never came to pass."""


class Case:
    """One fault at one moment."""

    def __init__(self, fault: Fault, moment: Moment) -> None:
        self.fault = fault
        self.moment = moment
        self.name = '%s.%s' % (fault.name, moment.name)
        self.happened = False
        self.hanging: ty.Any = None

    @property
    def has_volume(self) -> bool:
        return self.moment.name in WITH_VOLUME

    def __str__(self) -> str:
        return self.name

    def must_fire(self, condition: ty.Any, reason: str) -> None:
        if not condition:
            self.happened = False
            raise DidNotHappen('%s: %s' % (self.name, reason))

    def run(self, world: pmem_world.World) -> list[str]:
        """Let it happen, and return what is not as it has to be.

        :raises DidNotHappen: if it can't be brought about
        """
        self.world = world
        world.mark_log()
        LOG.info('Case: %s', self.name)
        world.flags(pmem_copy_running_passes=self.moment.passes,
                    pmem_copy_stall_timeout=self.fault.stall_timeout,
                    group='libvirt')
        self.server = world.take_server(self.has_volume)
        self.snapshot = pmem_invariant.take(world, self.server)
        self.snapshot.is_deleted = self.fault.deletes
        if self.moment.copies and self.moment.guest_on and not (
                self.fault.ends_guest):
            self.snapshot.guest = world.guest_of(SOURCE, self.server)
        try:
            self._go()
        except pmem_world.NotReached as error:
            raise DidNotHappen('%s: %s' % (self.name, error))
        violations = self._come_to_rest()
        return violations or self._end()

    # Going there

    def _go(self) -> None:
        if self.moment.phase != 'move':
            self._move()
        with self._armed() as wait:
            if not self.moment.at_rest:
                self._ask(self.moment.phase)
            wait()
        self.happened = True
        self.fault.then(self)
        if self.hanging:
            self.hanging.release()

    def _ask(self, phase: str) -> None:
        self.world.diary.may_go_back |= phase == 'revert'
        if phase == 'delete':
            self.delete()
        else:
            self.world.act(self.server, *{
                'move': ('migrate', {'copy_pmem_devices': True}),
                'confirm': ('confirmResize',),
                'revert': ('revertResize',)}[phase])

    def delete(self) -> None:
        """Ask for the server to be deleted; it need not be heard.

        The answer may take as long as what it is about to meet.
        """
        self.snapshot.is_deleted = True
        # From now on the world is not quiet, and not only once it has begun.
        self.world.processes.others.begin(self)
        threading.Thread(target=self._delete).start()

    def _delete(self) -> None:
        try:
            self.world.api.delete_server(self.server['id'])
        except api_client.OpenStackApiException as error:
            LOG.info('Case: deleting was answered with %s', error)
        finally:
            self.world.processes.others.end(self)

    def _delete_again(self) -> list[str]:
        """Ask again, as a user does who sees that his server is still there.

        Nova gives up a request to delete when it fails, or when the host that
        has it dies. While the database is away it can't even note that, and
        ignores a second one, also for a server that has never moved: it goes
        on with the first one when nova-compute starts.
        """
        if not self.snapshot.is_deleted or not self.world.show(self.server):
            return []
        LOG.info('Case: the server is deleted again')
        self.delete()
        violations = pmem_invariant.settle(self.world, self.server)
        left = self.world.show(self.server)
        if left and left['OS-EXT-STS:task_state'] == 'deleting':
            self.world.kill(left['OS-EXT-SRV-ATTR:host'])
            self.world.restart(left['OS-EXT-SRV-ATTR:host'])
            violations += pmem_invariant.settle(self.world, self.server)
        return violations

    def _move(self) -> None:
        world = self.world
        self._ask('move')
        world.wait_until_quiet()
        if world.status(self.server) != 'VERIFY_RESIZE':
            raise pmem_world.NotReached('the move itself')
        # A revert gives this up, and nothing else may.
        world.diary.go_on()

    @contextlib.contextmanager
    def _armed(self) -> abc.Iterator[abc.Callable[[], None]]:
        """Prepare the fault; the result waits until it has happened."""
        moment, fault, world = self.moment, self.fault, self.world
        if moment.at_rest:
            yield lambda: fault.happen(self)
        elif not moment.at_tool:
            world.hook(moment.function, moment.when, moment.name)
            if moment.since:
                world.hook(moment.since, 'after', moment.name + '.since')
            hook = world.at(moment.name, lambda: fault.happen(self),
                            moment.host, bool(moment.since))
            yield hook.wait
        elif fault.tool:
            action, details = fault.tool
            self.planned = world.pmem.inject(
                action, moment.device, side=moment.side, at=moment.at,
                **details)
            yield lambda: pmem_world.wait_until(
                lambda: self.planned.fired, 'the fault of daxio')
        else:
            self.hanging = world.pmem.inject(
                'hang', moment.device, side=moment.side, at=moment.at)
            yield self._wait_for_tool

    def _wait_for_tool(self) -> None:
        try:
            self.hanging.wait(pmem_world.PATIENCE)
        except TimeoutError as error:
            raise pmem_world.NotReached(str(error))
        self.fault.happen(self)

    # And back

    def _come_to_rest(self) -> list[str]:
        world, fault = self.world, self.fault
        try:
            world.diary.go_on()
            world.wait_until_quiet()
            world.diary.go_on()
            fault.later(self)
            with Intruders(world) as intruders:
                violations = pmem_invariant.settle(world, self.server)
                if fault.repair(self):
                    violations += pmem_invariant.settle(world, self.server)
                violations += intruders.violations()
        except pmem_world.NotReached as error:
            return [str(error)]
        violations += pmem_invariant.settle(world, self.server)
        violations += self._delete_again()
        if self.moment.at_rest and not fault.deletes:
            violations += pmem_invariant.check(world, self.snapshot)
            if not violations:
                try:
                    self._ask(self.moment.phase)
                except api_client.OpenStackApiException as error:
                    return ['%s is refused: %s' % (self.moment.phase, error)]
                violations += pmem_invariant.settle(world, self.server)
        return violations + pmem_invariant.check(world, self.snapshot)

    def _end(self) -> list[str]:
        """Delete the server, which is to leave nothing behind either.

        But one that is as it was serves for the next case, which then shows
        that it can be moved again.
        """
        if self.snapshot.is_deleted or self.world.keep(self.server):
            return []
        self.delete()
        violations = pmem_invariant.settle(self.world, self.server)
        violations += pmem_invariant.check(self.world, self.snapshot)
        return ['after its end: %s' % text for text in violations]


class Intruders:
    """Other servers that want the namespaces, as soon as they can be had.

    Whatever they get has to be clean, and is theirs.
    """

    def __init__(self, world: pmem_world.World) -> None:
        self._world = world
        self._data: dict[str, str] = {}

    def __enter__(self) -> 'Intruders':
        world = self._world
        self._servers = [world.ask_to_boot(pmem_world.MOVED, host=host)
                         for host in HOSTS]
        world.wait_until_quiet()
        for server in self._servers:
            if world.status(server) == 'ACTIVE':
                for name in world.namespaces_of(server):
                    self._data[name] = world.pmem.fill(name)
        return self

    def violations(self) -> list[str]:
        return ['%s was changed when it was another server\'s' % name
                for name, digest in self._data.items()
                if self._world.pmem.digest(name) != digest]

    def __exit__(self, *args: ty.Any) -> None:
        for server in self._servers:
            self._world.api.delete_server(server['id'])
        self._world.wait_until_quiet()


def cases() -> list[Case]:
    """Return the whole matrix."""
    found = [Case(fault, moment)
             for moment in pmem_moments.MOMENTS for fault in FAULTS
             if not fault.leaves_out(moment)]
    return found + [
        Case(Fails(), moment) for moment in pmem_moments.FINISHING]


def sample(matrix: abc.Iterable[Case]) -> list[Case]:
    """Return a few cases that meet every fault and every moment.

    What few cases meet comes first, together with what few others meet.
    """
    left = list(matrix)
    wanted = set().union(*map(_meets, left))
    chosen = []
    while wanted:
        # How many cases are left for each, not counting what is met twice.
        rest = collections.Counter(
            each for case in left if _meets(case) <= wanted
            for each in _meets(case))
        best = min((case for case in left if _meets(case) & wanted),
                   key=lambda case: (
                       not _meets(case) <= wanted,
                       sorted(rest[each] for each in _meets(case))))
        chosen.append(best)
        wanted -= _meets(best)
    return chosen


def _meets(case: Case) -> set[str]:
    return {'fault ' + case.fault.name, 'moment ' + case.moment.name}


def describe() -> abc.Iterator[str]:
    """Say which cases there are, and why others are none."""
    for case in cases():
        yield case.name
    for moment in pmem_moments.MOMENTS:
        for fault in FAULTS:
            reason = fault.leaves_out(moment)
            if reason:
                yield 'left out: %s.%s: %s' % (
                    fault.name, moment.name, reason)


if __name__ == '__main__':
    print('\n'.join(describe()))

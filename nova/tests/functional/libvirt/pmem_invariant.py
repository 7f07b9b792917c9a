# SPDX-License-Identifier: Apache-2.0

"""What has to hold after a move of vPMEM data, whatever happened to it.

Nothing is lost, nothing leaks, and nothing is left behind. ``check`` looks at
the world from outside (API, placement, bytes, files, processes, guests), not
at what the code under test thinks of itself; the exception is the memory of
the resource trackers, which decide what the next server gets.
"""

from collections import abc
import dataclasses
import os
import typing as ty

from oslo_serialization import jsonutils
import psutil

from nova.tests.functional.libvirt import pmem_base
from nova.tests.functional.libvirt import pmem_world

SOURCE, DESTINATION = HOSTS = pmem_world.HOSTS
OLD, NEW = pmem_world.OLD, pmem_world.NEW

#: States in which a user can use a server, or take it into use.
USABLE = frozenset(('ACTIVE', 'SHUTOFF', 'VERIFY_RESIZE'))

#: States of a migration in which nothing goes on any more.
ENDED = frozenset((
    'error', 'failed', 'confirmed', 'reverted', 'completed', 'cancelled',
    'done'))


@dataclasses.dataclass
class Snapshot:
    """What was there before anything went wrong.

    :ivar server: the server that is moved, or None if it is to be gone
    :ivar others: digests of the namespaces that are none of its business
    :ivar volumes: how many it has attached
    """

    server: dict[str, ty.Any]
    others: dict[str, str]
    volumes: int = 0
    is_deleted: bool = False
    #: The process of the guest, if nothing that happens may end it but a move
    #: that has come to a good end, or the end of its host.
    guest: ty.Any = None


def take(world: pmem_world.World, server: dict[str, ty.Any]) -> Snapshot:
    """Describe a world in which nothing has happened yet."""
    return Snapshot(
        server=server, volumes=len(world.volumes_of(server)),
        others={name: world.pmem.digest(name) for name in world.pmem.names()
                if name not in (OLD, NEW)})


def check(world: pmem_world.World, snapshot: Snapshot) -> list[str]:
    """Return everything that is not as it has to be.

    The world has to be at rest (see :func:`settle`).
    """
    found = _Found(world, snapshot)
    return [text for rule in RULES for text in rule(found)]


class _Found:
    """What is there now; read once, so that the rules agree."""

    def __init__(self, world: pmem_world.World, snapshot: Snapshot) -> None:
        self.world = world
        self.snapshot = snapshot
        self.server = world.show(snapshot.server)
        self.status = self.server and self.server['status']
        self.host = self.server and self.server['OS-EXT-SRV-ATTR:host']
        self.verifies = self.status == 'VERIFY_RESIZE'

    @property
    def namespace(self) -> str | None:
        """The namespace that the server has to have."""
        return {SOURCE: OLD, DESTINATION: NEW}.get(self.host)

    @property
    def taken(self) -> set[str]:
        """All namespaces that are somebody's, or are held for him."""
        names = {'%s_taken_0' % host for host in HOSTS}
        if self.namespace:
            names.add(self.namespace)
        if self.verifies:
            names.update((OLD, NEW))
        return names


def server_is_usable(found: _Found) -> abc.Iterator[str]:
    if found.snapshot.is_deleted:
        if found.server:
            yield 'the server was deleted and is %s, %s' % (
                found.status, found.server['OS-EXT-STS:task_state'])
        return
    if not found.server:
        yield 'the server is gone'
        return
    if found.status not in USABLE:
        yield 'the server is %s' % found.status
    if found.host not in HOSTS:
        yield 'the server is on host %s' % found.host
    if found.server['OS-EXT-STS:task_state'] is not None:
        yield 'the server is left in task %s' % (
            found.server['OS-EXT-STS:task_state'])
    if found.verifies and found.host != DESTINATION:
        yield 'the server waits to be confirmed on %s' % found.host


def guest_runs_once(found: _Found) -> abc.Iterator[str]:
    for host in HOSTS:
        domains = found.world.domains(host, found.snapshot.server)
        running = [each for each in domains if each.isActive()]
        wanted = host == found.host and found.status in (
            'ACTIVE', 'VERIFY_RESIZE')
        if wanted and not running:
            if not _was_off(found):
                yield 'the guest does not run on %s' % host
        if running and not wanted:
            yield 'a guest of the server runs on %s' % host
        if domains and host != found.host and not found.verifies:
            yield 'a guest of the server is defined on %s' % host
        if host == found.host:
            for domain in running:
                used = found.world.nodes_of(domain)
                if used != [found.namespace]:
                    yield 'the guest on %s runs with %s' % (host, used)


def guest_was_not_stopped(found: _Found) -> abc.Iterator[str]:
    """What is found before the guest is off costs no time without it."""
    snapshot = found.snapshot
    if snapshot.guest and found.host == SOURCE and not (
            snapshot.guest is found.world.guest_of(SOURCE, snapshot.server)):
        yield 'the guest was stopped for nothing'


def _was_off(found: _Found) -> bool:
    """Whether a move ended with the guest off because it was before."""
    return (found.verifies and
            found.server['OS-EXT-STS:power_state'] == 4)


def data_is_there(found: _Found) -> abc.Iterator[str]:
    pmem, diary = found.world.pmem, found.world.diary
    if found.namespace and not _has(
            found, found.namespace, diary.on(found.namespace)):
        yield 'the data is not in %s' % found.namespace
    if found.verifies and not _has(found, OLD, diary.on(OLD)):
        yield 'the data to go back to is not in %s' % OLD
    yield from diary.surprises
    for name in (OLD, NEW):
        if name not in found.taken and not pmem.is_zero(name):
            yield '%s is not wiped' % name


def _has(found: _Found, name: str, digest: str) -> bool:
    return found.world.pmem.digest(name) == digest


def others_are_untouched(found: _Found) -> abc.Iterator[str]:
    for name, digest in found.snapshot.others.items():
        if not _has(found, name, digest):
            yield '%s has changed' % name
    for text in found.world.dirty_starts:
        yield text


def bystanders_live(found: _Found) -> abc.Iterator[str]:
    for host, bystander in found.world.bystanders.items():
        server = found.world.show(bystander)
        if server is None:
            yield 'the other server of %s is gone' % host
            continue
        if (server['status'], server['OS-EXT-SRV-ATTR:host']) != (
                'ACTIVE', host):
            yield 'the other server of %s is %s' % (host, server['status'])
        for domain in found.world.domains(host, bystander):
            used = found.world.nodes_of(domain)
            if used != ['%s_taken_0' % host] or not domain.isActive():
                yield 'the other guest of %s is with %s, %s' % (
                    host, used, domain.isActive() and 'on' or 'off')
            elif not found.world.guests.guest_of(domain).lives:
                yield 'the process of the other guest of %s is gone' % host


def allocations_fit(found: _Found) -> abc.Iterator[str]:
    for host in HOSTS:
        wanted = {found.world.bystanders[host]['id']: {'TAKEN'}}
        if found.host == host:
            wanted[found.snapshot.server['id']] = {'MOVED'}
        elif found.verifies:
            wanted[_last_migration(found)['uuid']] = {'MOVED'}
        allocations = found.world._get_allocations_by_provider_uuid(
            found.world.compute_rp_uuids[host])
        actual = {consumer: _labels(allocation['resources'])
                  for consumer, allocation in allocations.items()}
        for consumer in sorted(set(wanted) | set(actual)):
            if wanted.get(consumer) != actual.get(consumer):
                yield '%s has allocated %s on %s, not %s' % (
                    _name(found, consumer), actual.get(consumer), host,
                    wanted.get(consumer))


def _name(found: _Found, uuid: str) -> str:
    if uuid == found.snapshot.server['id']:
        return 'the server'
    if uuid in [each['uuid'] for each in found.world.migrations(
            found.snapshot.server)]:
        return 'its migration'
    return uuid


def _labels(resources: abc.Iterable[str]) -> set[str]:
    return {name[len(pmem_base.PREFIX):] for name in resources
            if name.startswith(pmem_base.PREFIX)}


def nothing_is_reserved(found: _Found) -> abc.Iterator[str]:
    for host in HOSTS:
        inventories = found.world._get_provider_inventory(
            found.world.compute_rp_uuids[host])
        for name, inventory in inventories.items():
            if name.startswith(pmem_base.PREFIX) and (
                    inventory['total'] != 1 or inventory['reserved']):
                yield '%s of %s: total %d, reserved %d' % (
                    name, host, inventory['total'], inventory['reserved'])


def trackers_know(found: _Found) -> abc.Iterator[str]:
    for host in HOSTS:
        wanted = {name for name in found.taken if name.startswith(host)}
        actual = _assigned(found.world, host)
        if wanted != actual:
            yield 'the resource tracker of %s has given away %s, not %s' % (
                host, sorted(actual), sorted(wanted))


def _assigned(world: pmem_world.World, host: str) -> set[str]:
    tracker = world.computes[host].manager.rt
    return {_called(world, host, resource.identifier)
            for classes in tracker.assigned_resources.values()
            for resources in classes.values() for resource in resources}


def _called(world: pmem_world.World, host: str, listed: str) -> str:
    """Return what tests call a namespace of a host."""
    try:
        return world.pmem.name_of(host, listed)
    except ValueError:
        return '%s of %s, which has none' % (listed, host)


def migrations_have_ended(found: _Found) -> abc.Iterator[str]:
    migrations = found.world.migrations(found.snapshot.server)
    for number, migration in enumerate(migrations, start=1):
        ended = ENDED
        if found.verifies and number == len(migrations):
            ended = frozenset(('finished',))
        if migration['status'] not in ended:
            yield 'migration %d of the server is %s' % (
                number, migration['status'])


def _last_migration(found: _Found) -> dict[str, ty.Any]:
    return found.world.migrations(found.snapshot.server)[-1]


def tickets_are_closed(found: _Found) -> abc.Iterator[str]:
    for host in HOSTS:
        held = found.verifies and host == SOURCE
        for name, ticket in tickets(found.world, host):
            try:
                kind = jsonutils.loads(ticket)['kind']
            except Exception:
                kind = 'damaged'
            if held and kind == 'hold':
                held = False
                continue
            yield 'ticket %s is open on %s (%s)' % (name, host, kind)
        if held:
            yield 'nothing holds what the server has on %s' % host


def ticket_folder(world: pmem_world.World, host: str) -> str:
    return os.path.join(world.state_path_of(host), 'pmem-copy')


def tickets(world: pmem_world.World,
            host: str) -> abc.Iterator[tuple[str, str]]:
    """Yield the name and the content of each file among the tickets."""
    try:
        names = sorted(os.listdir(ticket_folder(world, host)))
    except FileNotFoundError:
        return
    for name in names:
        path = os.path.join(ticket_folder(world, host), name)
        if name.startswith('.') or os.path.isdir(path):
            # What a process was writing when it died was never a ticket.
            continue
        try:
            with open(path, errors='replace') as file:
                yield name, file.read()
        except FileNotFoundError:
            continue
        except OSError:
            # A socket.
            yield name, ''


def nodes_are_taken_back(found: _Found) -> abc.Iterator[str]:
    for name in found.world.pmem.names():
        if found.world.pmem.is_lent(name):
            yield 'the node of %s is still lent' % name


def processes_have_ended(found: _Found) -> abc.Iterator[str]:
    for process in left_processes(found.world):
        try:
            yield 'process %d still runs: %s' % (
                process.pid, ' '.join(process.cmdline()))
        except psutil.NoSuchProcess:
            pass


def volumes_follow(found: _Found) -> abc.Iterator[str]:
    hosts = found.world.volumes_of(found.snapshot.server)
    wanted = [found.host] * found.snapshot.volumes if found.server else []
    if hosts != wanted:
        yield 'volumes are attached to %s, not %s' % (hosts, wanted)


def left_processes(world: pmem_world.World) -> list[psutil.Process]:
    return world.pmem.tools() + world.pmem.sessions()


RULES = (
    server_is_usable, guest_runs_once, guest_was_not_stopped, data_is_there,
    others_are_untouched, bystanders_live, allocations_fit,
    nothing_is_reserved, trackers_know, migrations_have_ended,
    tickets_are_closed, nodes_are_taken_back, processes_have_ended,
    volumes_follow,
)


# Coming to rest

#: Each round gives both services the chance to react to what the other one
#: did in the round before. It never took more than five.
ROUNDS = 8


def settle(world: pmem_world.World, server: dict[str, ty.Any]) -> list[str]:
    """Bring the world to rest: all services run and have nothing to do.

    :returns: what keeps it from that, if anything
    """
    try:
        world.wait_until_quiet()
        for host in HOSTS:
            if world.is_down(host):
                world.restart(host)
        seen = None
        for _ in range(ROUNDS):
            world.diary.go_on()
            world.run_periodic_tasks()
            world.wait_until_quiet()
            before, seen = seen, _state(world, server)
            if seen == before:
                break
        else:
            return ['there is no end of changes: %s' % (seen,)]
        pmem_world.wait_until(
            lambda: not left_processes(world), 'an end of processes', 5)
    except pmem_world.NotReached as error:
        return [str(error)]
    return []


def _state(world: pmem_world.World, server: dict[str, ty.Any]) -> ty.Any:
    """Return what periodic tasks may change, as far as it is cheap to get."""
    found = world.show(server)
    return (
        found and {name: found[name] for name in (
            'status', 'OS-EXT-STS:task_state', 'OS-EXT-STS:power_state',
            'OS-EXT-SRV-ATTR:host')},
        [migration['status'] for migration in world.migrations(server)],
        [ticket for host in HOSTS for ticket in tickets(world, host)])

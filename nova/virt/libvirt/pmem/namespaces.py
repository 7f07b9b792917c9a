#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.


"""This host's vPMEM devices: finding, lending, guarding and wiping them."""

import collections
from collections import abc
import contextlib
import os
import select
import signal
import typing as ty

from oslo_log import log as logging
from oslo_serialization import jsonutils

from nova import exception
from nova.i18n import _
from nova import objects
import nova.privsep.libvirt
import nova.privsep.path

if ty.TYPE_CHECKING:
    from nova.virt.libvirt.pmem import tickets

LOG = logging.getLogger(__name__)

#: Devices of this host's namespaces by name, as of now.
Namespaces = abc.Mapping[str, 'objects.LibvirtVPMEMDevice']

#: Seconds to wait for a process that was killed to let go of a device.
KILL_TIMEOUT = 30


def list_namespaces() -> Namespaces:
    """Return the namespaces that this host has now, by name.

    A name that two namespaces have is left out: whoever asks for it must not
    be given one of them by chance. So is a namespace without a name, or
    without a device node.

    :raises GetPMEMNamespacesFailed: if ndctl can't tell
    """
    try:
        output = nova.privsep.libvirt.get_pmem_namespaces()
        # ndctl prints nothing at all if there is none.
        found = jsonutils.loads(output) if output.strip() else []
        devices = [
            objects.LibvirtVPMEMDevice(
                name=namespace['name'], size=namespace['size'],
                devpath='/dev/' + node['chardev'],
                align=namespace['daxregion'].get('align', 0))
            for namespace in found if namespace.get('name')
            for node in namespace['daxregion']['devices']]
    except Exception as error:
        raise exception.GetPMEMNamespacesFailed(reason=error)
    names = collections.Counter(device.name for device in devices)
    twice = sorted(name for name in names if names[name] > 1)
    if twice:
        LOG.warning('These names stand for more than one vPMEM namespace, or '
                    'one with more than one device, and are not used: %s',
                    ', '.join(twice))
    return {device.name: device for device in devices
            if names[device.name] == 1}


def wipe_known(
    devices: abc.Sequence['objects.LibvirtVPMEMDevice'],
) -> None:
    """Zero devices that Nova knows; all of them, even if some fail.

    :raises VPMEMCleanupFailed: after the last one, for those that failed
    """
    wipe_targets(devices, _namespaces_now(devices))


def as_they_are_now(
    devices: abc.Sequence['objects.LibvirtVPMEMDevice'],
) -> list['objects.LibvirtVPMEMDevice']:
    """Return devices with the nodes that they have now.

    What Nova has read when it started may be some other's node by now.

    :raises PMEMNamespaceNotFound: if one is not there any more
    """
    namespaces = _namespaces_now(devices)
    current = []
    for device in devices:
        node = resolve(device, namespaces)
        if node != device.devpath:
            LOG.warning('vPMEM namespace %(name)s was %(old)s and is '
                        '%(new)s now.',
                        {'name': device.name, 'old': device.devpath,
                         'new': node})
            device = device.obj_clone()
            device.devpath = node
        current.append(device)
    return current


def _namespaces_now(
    devices: abc.Sequence['objects.LibvirtVPMEMDevice'],
) -> Namespaces:
    """Return this host's namespaces, or what was known of these."""
    known = {device.name: device for device in devices}
    if not known:
        return known
    try:
        return list_namespaces()
    except exception.GetPMEMNamespacesFailed as error:
        LOG.warning('Taking vPMEM devices for what they were when the '
                    'service started: %s', error)
        return known


def wipe_targets(
    targets: abc.Iterable[
        'tickets.Target | objects.LibvirtVPMEMDevice'],
    namespaces: Namespaces,
) -> None:
    """Zero namespaces, wherever they are now; all, even if some fail.

    :raises VPMEMCleanupFailed: after the last one, for those that failed
    """
    failed = {}
    for target in targets:
        try:
            nova.privsep.libvirt.cleanup_vpmem(resolve(target, namespaces))
        except Exception as error:
            failed[target.name] = error
    if failed:
        raise exception.VPMEMCleanupFailed(
            dev=', '.join(failed),
            error='; '.join(str(error) for error in failed.values()))


def claimed_node(device: 'objects.LibvirtVPMEMDevice',
                 namespaces: Namespaces) -> str:
    """Return the path of a device, if it still is what Nova knows it as.

    :raises ComputeResourcesUnavailable: if not
    """
    found = namespaces.get(device.name)
    known = (device.devpath, device.size)
    if found is None or (found.devpath, found.size) != known:
        raise exception.ComputeResourcesUnavailable(
            reason=_('vPMEM namespace %(name)s was %(known)s and is '
                     '%(found)s; restart nova-compute on its host') %
            {'name': device.name, 'known': describe(device),
             'found': describe(found)})
    return found.devpath


def describe(device: 'objects.LibvirtVPMEMDevice | None') -> str:
    if device is None:
        return _('missing')
    return _('%(path)s of %(size)d bytes') % {
        'path': device.devpath, 'size': device.size}


def resolve(wanted: 'tickets.Target | objects.LibvirtVPMEMDevice',
            namespaces: Namespaces) -> str:
    """Return the node that a namespace has now.

    :raises PMEMNamespaceNotFound: if there is no such namespace, or it is of
        another size and so another one that got its name
    """
    found = namespaces.get(wanted.name)
    if found is None or found.size != wanted.size:
        raise exception.PMEMNamespaceNotFound(
            name=wanted.name, size=wanted.size, found=describe(found))
    return found.devpath


@contextlib.contextmanager
def lent(node: str) -> abc.Iterator[str]:
    """Lend a device node to nova's user, and take it back."""
    owner = os.stat(node)
    nova.privsep.path.chown(node, uid=os.getuid(), gid=os.getgid())
    try:
        yield node
    finally:
        nova.privsep.path.chown(node, uid=owner.st_uid, gid=owner.st_gid)


def take_back(targets: abc.Iterable['tickets.Target'],
              namespaces: Namespaces) -> None:
    """Give device nodes back to who had them before they were lent.

    :raises PMEMNamespaceNotFound: after the others, if one is not there
    """
    missing = None
    for target in targets:
        try:
            node = resolve(target, namespaces)
        except exception.PMEMNamespaceNotFound as error:
            missing = error
            continue
        # libvirt gives nodes to its guests; that is not ours to take back.
        if os.stat(node).st_uid == os.getuid():
            nova.privsep.path.chown(node, uid=target.uid, gid=target.gid)
    if missing is not None:
        raise missing


def end_writers(targets: abc.Iterable['tickets.Target'],
                namespaces: Namespaces, ticket_path: str) -> None:
    """End what ssh left running on devices that have no guest.

    When a connection breaks, a receiver may live on, and write what it has
    got. It has its ticket open, and its ``daxio`` the device, so taking the
    node back does not stop it; and it must not write after a wipe.
    """
    nodes = {os.path.realpath(namespaces[target.name].devpath)
             for target in targets if target.name in namespaces}
    nodes.add(os.path.realpath(ticket_path))
    for pid in _own_processes():
        if _uses(pid, nodes):
            LOG.warning('Killing process %(pid)d, left from a copy: it still '
                        'has one of %(nodes)s open.',
                        {'pid': pid, 'nodes': ', '.join(sorted(nodes))})
            _kill(pid)


def _own_processes() -> abc.Iterator[int]:
    me = os.getuid()
    for name in os.listdir('/proc'):
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError):
                if os.stat('/proc/' + name).st_uid == me:
                    yield int(name)


def _uses(pid: int, nodes: set[str]) -> bool:
    try:
        with open('/proc/%d/maps' % pid) as maps:
            used = {line.split(maxsplit=5)[-1].rstrip('\n') for line in maps}
        descriptors = os.listdir('/proc/%d/fd' % pid)
    except OSError:
        # It has ended in the meantime, which is as good.
        return False
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            used.add(os.readlink('/proc/%d/fd/%s' % (pid, descriptor)))
    return not used.isdisjoint(nodes)


def _kill(pid: int) -> None:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        # A pidfd turns readable when its process has ended.
        if not select.select([handle], [], [], KILL_TIMEOUT)[0]:
            raise exception.PMEMDeviceBusy(pid=pid, seconds=KILL_TIMEOUT)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)

# SPDX-License-Identifier: Apache-2.0

"""This host's vPMEM devices: finding, lending, guarding and wiping them.

A namespace is known by its name, which means something on this host only. Its
device node is looked up at the moment of use, and which device that is says
its number, not its path: both change.
"""

import collections
from collections import abc
import contextlib
import os
import re
import typing as ty

from oslo_log import log as logging
from oslo_serialization import jsonutils

from nova import exception
from nova.i18n import _
from nova import objects
import nova.privsep.libvirt
import nova.privsep.path
import nova.privsep.pmem
from nova.virt.libvirt.pmem import tickets
from nova.virt import pmem_users

LOG = logging.getLogger(__name__)

#: Devices of this host's namespaces by name, as of now.
Namespaces = abc.Mapping[str, 'objects.LibvirtVPMEMDevice']

#: What is asked for: by a ticket, or by what Nova has stored of it.
Wanted: ty.TypeAlias = 'tickets.Target | objects.LibvirtVPMEMDevice'

_NODE = re.compile(r'dax[0-9]+\.[0-9]+')

#: What was said about namespaces that are not used; each is said once.
_said: set[str] = set()


def list_namespaces() -> Namespaces:
    """Return the namespaces that this host has now, by name.

    What is odd is left out, with one warning, and all others work. So is a
    name that two namespaces have: whoever asks for it must not be given one
    of them by chance.

    :raises GetPMEMNamespacesFailed: if ndctl can't tell
    """
    return _listed()[0]


def odd_names() -> set[str]:
    """Return the names of namespaces that are there and can't be used."""
    return _listed()[1]


def usable_and_odd() -> Namespaces:
    """Return the odd namespaces, too, as devices without a node.

    A server may have one of them, and Nova has to know what it has.
    """
    usable, odd = _listed()
    return {**usable, **{name: objects.LibvirtVPMEMDevice(
        name=name, size=0, devpath='', align=0) for name in odd}}


def _listed() -> tuple[Namespaces, set[str]]:
    devices, odd = [], set()
    for entry in _entries():
        try:
            devices.append(_device(entry))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            odd.add(entry['name'])
            _say('The vPMEM namespace %r is not used: %r' %
                 (entry.get('name'), error))
    names = collections.Counter(device.name for device in devices)
    for name in sorted(name for name in names if names[name] > 1):
        _say('The name %r stands for more than one vPMEM namespace, and is '
             'not used.' % name)
        odd.add(name)
    return {device.name: device for device in devices
            if device.name not in odd}, odd


def _entries(with_damage: bool = False) -> list[dict]:
    """Return what ndctl says of namespaces that have a name.

    :param with_damage: whether it tells where bad blocks are, too
    """
    try:
        output = (nova.privsep.pmem.get_damage() if with_damage else
                  nova.privsep.libvirt.get_pmem_namespaces())
        # ndctl prints nothing at all if there is none.
        found = jsonutils.loads(output) if output.strip() else []
        return [entry for entry in found if isinstance(entry, dict) and
                isinstance(entry.get('name'), str) and entry['name']]
    except Exception as error:
        raise exception.GetPMEMNamespacesFailed(reason=error)


def _device(entry: dict) -> 'objects.LibvirtVPMEMDevice':
    node, = entry['daxregion']['devices']
    if node.get('mode', 'devdax') != 'devdax':
        raise ValueError('mode %s' % node['mode'])
    if type(entry['size']) is not int or entry['size'] <= 0:
        raise ValueError('size %r' % (entry['size'],))
    entry['name'].encode()
    return objects.LibvirtVPMEMDevice(
        name=entry['name'], size=entry['size'],
        devpath=node_path(node['chardev']),
        align=entry['daxregion'].get('align', 0))


def node_path(chardev: str) -> str:
    """Return the path of a node, which is in /dev; tests have others."""
    if not _NODE.fullmatch(chardev):
        raise ValueError('device node %r' % chardev)
    return '/dev/' + chardev


def _say(text: str) -> None:
    if text not in _said:
        _said.add(text)
        LOG.warning('%s', text)


def bad_blocks() -> dict[str, str]:
    """Return where each namespace that has bad blocks has its first one."""
    # ndctl counts in sectors.
    return {entry['name']: _(
        '%(count)s bad blocks, the first at byte %(place)d') % {
            'count': entry['badblock_count'],
            'place': entry['badblocks'][0]['offset'] * 512}
        for entry in _entries(with_damage=True)
        if entry.get('badblock_count')}


def as_they_are_now(
    devices: abc.Sequence['objects.LibvirtVPMEMDevice'],
) -> list['objects.LibvirtVPMEMDevice']:
    """Return devices with the nodes that they have now.

    What Nova has read when it started may be some other's node by now.

    :raises PMEMNamespaceNotFound: if one is not there any more
    """
    current, namespaces = [], namespaces_now(devices)
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


def namespaces_now(
        devices: abc.Sequence['objects.LibvirtVPMEMDevice']) -> Namespaces:
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


def describe(device: 'objects.LibvirtVPMEMDevice | None') -> str:
    if device is None:
        return _('missing')
    return _('%(path)s of %(size)d bytes') % {
        'path': device.devpath, 'size': device.size}


def resolve(wanted: Wanted, namespaces: Namespaces) -> str:
    """Return the node that a namespace has now.

    :raises PMEMNamespaceNotFound: if there is no such namespace, or it is of
        another size and so another one that got its name
    """
    found = namespaces.get(wanted.name)
    if found is None or found.size != wanted.size:
        # Tenants may read this, and a path is not for them.
        raise exception.PMEMNamespaceNotFound(
            name=wanted.name, size=wanted.size,
            found=_('missing') if found is None else
            _('one of %d bytes') % found.size)
    return found.devpath


def check_readable(wanted: abc.Iterable[Wanted]) -> None:
    """Check that namespaces are there, and have no bad blocks.

    :raises PMEMNamespaceNotFound: if one is not, see ``resolve``
    :raises PMEMCopyFailed: if one has
    """
    namespaces, damage = list_namespaces(), bad_blocks()
    for each in wanted:
        resolve(each, namespaces)
        if each.name in damage:
            raise exception.PMEMCopyFailed(
                reason=_('namespace %(name)s is damaged: %(damage)s') % {
                    'name': each.name, 'damage': damage[each.name]})


def target(device: 'objects.LibvirtVPMEMDevice', node: str,
           source_size: int) -> tickets.Target:
    """Return what a ticket says of a device that has this node now."""
    try:
        owner = os.stat(node)
        uid, gid = owner.st_uid, owner.st_gid
        number = identity(node)
    except FileNotFoundError:
        uid = gid = 0
        number = ''
    return tickets.Target(
        name=device.name, size=device.size, source_size=source_size,
        uid=uid, gid=gid, device=number)


def identity(node: str) -> str:
    """Return which device a node stands for, until the host boots again.

    :raises OSError: if it can't be found
    """
    with open('/proc/sys/kernel/random/boot_id') as boot:
        return '%s %s' % (boot.read().strip(), ' '.join(
            map(str, pmem_users.key(node))))


def check_same(targets: abc.Iterable[tickets.Target],
               namespaces: Namespaces) -> None:
    """Check that devices are those that were lent to who wrote to them.

    :raises PMEMNamespaceNotFound: if one was replaced meanwhile
    """
    for target in targets:
        node = resolve(target, namespaces)
        now = identity(node)
        # After a boot the same one may have another number.
        if (target.device.split(' ')[0] == now.split(' ')[0] and
                target.device != now):
            raise exception.PMEMNamespaceNotFound(
                name=target.name, size=target.size,
                found=_('another device'))


@contextlib.contextmanager
def lent(node: str) -> abc.Iterator[str]:
    """Lend a device node to nova's user, and take it back.

    Not if it is somebody else's by then: of a guest that was switched off or
    started meanwhile.
    """
    owner = os.stat(node)
    lend(node)
    try:
        yield node
    finally:
        with contextlib.suppress(FileNotFoundError):
            if os.stat(node).st_uid == os.getuid():
                nova.privsep.path.chown(
                    node, uid=owner.st_uid, gid=owner.st_gid)


def lend(node: str) -> None:
    nova.privsep.path.chown(node, uid=os.getuid(), gid=os.getgid())


def take_back(targets: abc.Iterable[tickets.Target],
              namespaces: Namespaces) -> None:
    """Give device nodes back to who had them before they were lent.

    :raises PMEMNamespaceNotFound: after the others, if one is not there
    """
    missing = None
    for target in targets:
        try:
            node = resolve(target, namespaces)
            owner = os.stat(node).st_uid
        except (exception.PMEMNamespaceNotFound, OSError) as error:
            missing = error
            continue
        # libvirt gives nodes to its guests; that is not ours to take back.
        if owner == os.getuid():
            nova.privsep.path.chown(node, uid=target.uid, gid=target.gid)
    if missing is not None:
        raise missing


def claimed_node(device: 'objects.LibvirtVPMEMDevice',
                 namespaces: Namespaces) -> str:
    """Return the node of a device that was claimed.

    :raises ComputeResourcesUnavailable: if it is not what it was then
    """
    found = namespaces.get(device.name)
    if found is None or (found.devpath, found.size) != (
            device.devpath, device.size):
        raise unready(
            'namespace %s was %s and is %s; restart nova-compute' % (
                device.name, describe(device), describe(found)))
    return found.devpath


def unready(details: str) -> Exception:
    """Say to users that a host can't take the data; to operators, why."""
    LOG.warning('The vPMEM namespaces that were claimed for a move are not '
                'ready, and the next host is tried: %s', details)
    return exception.ComputeResourcesUnavailable(
        reason=_('the vPMEM namespaces are not ready'))


def wipe(wanted: abc.Iterable[Wanted], namespaces: Namespaces,
         used: abc.Set[pmem_users.Key]) -> None:
    """Zero namespaces, wherever they are now; all, even if some fail.

    The one place where anything is wiped.

    :param used: keys of the devices that guests are defined with, other than
        the one whose they are
    :raises VPMEMCleanupFailed: after the last one, for those that failed
    """
    failed = []
    for each in wanted:
        try:
            node = resolve(each, namespaces)
            _check_unused(each.name, node, used)
            nova.privsep.libvirt.cleanup_vpmem(node)
        except Exception as error:
            LOG.error('The vPMEM namespace %(name)s could not be wiped: '
                      '%(error)s', {'name': each.name, 'error': error})
            failed.append(each.name)
    if failed:
        # Tenants may read this, and what daxio says is not for them.
        raise exception.VPMEMCleanupFailed(
            dev=', '.join(failed),
            error=_('the log of nova-compute has the reason'))


def _check_unused(name: str, node: str, used: abc.Set[pmem_users.Key]) -> None:
    if pmem_users.keys([node]) & used:
        raise exception.PMEMDeviceBusy(name=name, user=_('a guest'))
    pid = pmem_users.writer(node)
    if pid is not None:
        raise exception.PMEMDeviceBusy(name=name, user=_('process %d') % pid)

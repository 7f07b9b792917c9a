# SPDX-License-Identifier: Apache-2.0
"""The options of ``[pmem_copy]`` in tempest.conf."""

from oslo_config import cfg

from pmem_copy_tempest_plugin import faults

GROUP = cfg.OptGroup(
    name='pmem_copy', title='Moves that copy the data of vPMEM devices')

OPTIONS = [
    cfg.StrOpt('labels', default='', help=(
        'Value of hw:pmem in the flavor that servers are created with: labels '
        "of [libvirt]pmem_namespaces in Nova's configuration, separated by "
        'commas. Without it all tests are skipped.')),
    cfg.StrOpt('resize_labels', default='', help=(
        'Value of hw:pmem in the flavor that servers are resized to: as many '
        'labels, of namespaces at least as large. Default: that of labels.')),
    cfg.StrOpt('probe', default='host', choices=[
        ('host', 'from the compute host, by host_command'),
        ('guest', 'from inside of the guest, by ssh as in [validation]'),
    ], help=(
        'How the tests look at the data of a server. What is left on '
        'namespaces that no server has is only seen with host.')),
    cfg.StrOpt('host_command', default=(
        'ssh -o BatchMode=yes -o ConnectTimeout=10 root@{address}'), help=(
        'What leads to a compute host, with user, key and port if need be. A '
        'command line for a POSIX shell is put behind it as one argument, or '
        'quoted in place of {script}, as in: ssh x@{address} "sudo sh -c '
        '{script}". {address} stands for what host_addresses has, and {host} '
        'for the name of the host.')),
    cfg.DictOpt('host_addresses', default={}, help=(
        'host:address pairs for hosts that are not reached by their names.')),
    cfg.IntOpt('host_timeout', default=120, min=1, help=(
        'Seconds that a command on a host may take.')),
    cfg.StrOpt('describe_command', default=(
        'virsh -c qemu:///system dumpxml {server}'), help=(
        'Prints the libvirt XML of a server on the host that it is on.')),
    cfg.StrOpt('devices_command', default=(
        # oslo.config makes one dollar sign of two.
        'cd /dev; for d in dax*.*; do echo /dev/$$d '
        '$$(cat /sys/bus/dax/devices/$$d/size || stat -Lc %s $$d); done'),
        help=(
            'Prints a line for each namespace of a host, used or not: its '
            'path and its size in bytes. It has no placeholders.')),
    cfg.StrOpt('read_command', default=(
        'daxio -i {device} -k {offset} -l {length}'), help=(
        'Prints a part of a namespace, in bytes.')),
    cfg.StrOpt('write_command', default=(
        'daxio -b no -o {device} -s {offset} -l {length}'), help=(
        'Writes its input to a part of a namespace, in bytes.')),
    cfg.StrOpt('guest_device', default='/dev/pmem{index}', help=(
        'Where a guest has its vPMEM devices, for the probe guest. {index} '
        'counts from 0, in the order of the labels.')),
    cfg.FloatOpt('poll_interval', default=0.3, min=0.05, help=(
        'Seconds between two looks at a server that moves. A state that is '
        'shown for less may go unseen.')),
    cfg.IntOpt('settle_timeout', default=240, min=1, help=(
        'Seconds until a move that failed is back at its source, and until '
        'what it left is wiped.')),
]

for _fault in faults.Fault:
    _name, _effect = _fault.value
    OPTIONS += [
        cfg.StrOpt(f'{_name}_command', default='', help=(
            'A command that is run on the destination of a move before it is '
            f'asked for; until it is undone, {_effect}. {{server}} stands for '
            'the id of the server. Tests that need it are skipped without '
            'it.')),
        cfg.StrOpt(f'{_name}_undo_command', default='true', help=(
            f'Undoes {_name}_command on that host. It may be run more than '
            'once.')),
    ]

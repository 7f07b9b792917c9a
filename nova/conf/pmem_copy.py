# SPDX-License-Identifier: Apache-2.0

"""Options for copying vPMEM data; they go into the group ``[libvirt]``."""

from oslo_config import cfg


def list_opts():
    """Return nothing of its own: ``libvirt`` lists what is below."""
    return {}


OPTS = [
    cfg.StrOpt(
        'pmem_copy_receiver',
        default='nova-pmem-receive',
        help="""
The command that receives vPMEM data on another compute host.

A nova-compute from which a server is moved away, with ``copy_pmem_devices``,
starts this command on the destination over ssh, as its own user. Give a path
if the command is not in that user's ``PATH`` there.

Related options:

* ``[libvirt] pmem_namespaces``
"""),
    cfg.IntOpt(
        'pmem_copy_streams',
        default=4, min=1, max=64,
        help="""
How many ssh connections copy vPMEM data of one server at once.

An ssh connection encrypts on one processor core, so several are needed to fill
a link of more than about 10 Gbit/s. Each stream takes up to 64 MiB of memory
on either host, whatever the size of the devices.

Related options:

* ``[libvirt] pmem_copy_bandwidth`` holds over all streams of a server.
"""),
    cfg.IntOpt(
        'pmem_copy_bandwidth',
        default=0, min=0,
        help="""
The limit for copying vPMEM data of one server, in MiB per second.

It holds for what is sent, over all streams together. 0 means no limit.

Related options:

* ``[libvirt] pmem_copy_max_concurrent``: with several copies at once the host
  sends as many times as much.
"""),
    cfg.IntOpt(
        'pmem_copy_stall_timeout',
        default=60, min=5, max=3600,
        help="""
Seconds after which a connection that makes no progress is given up.

What it was to copy is then tried again over a new one. The guest is off while
its data is copied, so this should not be long; but a device may need its time
to flush what was written.

Related options:

* ``[libvirt] pmem_copy_attempts``
"""),
    cfg.IntOpt(
        'pmem_copy_attempts',
        default=3, min=1, max=100,
        help="""
How often a part of the vPMEM data is tried before the move fails.

A connection that breaks, and a part (some MiB) that does not read back as it
was sent, are tried again; what has arrived by then is not sent anew. When all
attempts are used up the server goes on where it was.
"""),
    cfg.IntOpt(
        'pmem_copy_max_concurrent',
        default=1, min=1,
        help="""
How many servers a host sends the vPMEM data of at once.

Others wait for their turn, and their guests go on running meanwhile. One after
the other they are switched off for a shorter time than all at once, since they
share the link and the memory bandwidth of the host.
"""),
]

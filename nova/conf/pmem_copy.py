# SPDX-License-Identifier: Apache-2.0

"""Options for copying vPMEM data; they go into the group ``[libvirt]``."""

from oslo_config import cfg


def list_opts():
    """Return nothing of its own: ``libvirt`` lists what is below."""
    return {}


OPTS = [
    cfg.StrOpt(
        'pmem_copy_join_command',
        default='',
        help="""
The command that joins its input and output to a socket on another host.

vPMEM data goes to a socket in ``[DEFAULT] state_path`` of the destination, and
ssh forwards it there (``ssh -L``). Where sshd forbids that
(``DisableForwarding``, ``AllowStreamLocalForwarding no``), ssh starts this
command on the destination, with the path of the socket as its only argument.
``nova-pmem-join`` is such a command, and comes with Nova; give its path if it
is not in the ``PATH`` of the user as whom ssh logs in. Empty means that ssh
forwards.
"""),
    cfg.StrOpt(
        'pmem_copy_ciphers',
        default='^aes128-gcm@openssh.com,aes256-gcm@openssh.com',
        help="""
The ciphers with which ssh carries vPMEM data, as its option ``Ciphers``.

The default has both ends use AES-GCM if they have it, which takes a fifth less
of a processor with the instructions for it than ssh's own choice. Empty means
ssh's own choice, and its configuration.
"""),
    cfg.IntOpt(
        'pmem_copy_streams',
        default=8, min=1, max=64,
        help="""
How many ssh connections copy vPMEM data of one server at once.

An ssh connection encrypts on one processor core, which carries 4 to 10 Gbit/s.
Each stream compares and stores on a core of its own, too. The default suits
links of 25 to 100 Gbit/s and hosts of 32 cores and more; with fewer, or a
slower link, 4 are enough. Each stream takes up to 48 MiB of memory on either
host, whatever the size of the devices.

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

What it was to copy is then tried again over a new one. In the last pass the
guest is off meanwhile, so this should not be long; but a device may need its
time to flush what was written.

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
        'pmem_copy_reconnect_timeout',
        default=120, min=0, max=86400,
        help="""
How long to keep reconnecting once all connections are lost, in seconds.

The destination's nova-compute receives the data. If it is started again during
a copy, or the network is away for a while, the copy goes on where it was. In
the last pass the guest is off meanwhile; it goes on where it was when this
time is over. What never reached the destination is not tried for longer than
``pmem_copy_attempts`` says.
"""),
    cfg.IntOpt(
        'pmem_copy_completion_timeout',
        default=800, min=0,
        help="""
Seconds that a pass over vPMEM data may take for each GiB until it is given up.

A device that answers slowly, but just in time, could keep a guest off for
weeks. 800 seconds are what Nova allows live migrations; a copy that is well
does a GiB in 10 seconds on a link of 1 Gbit/s. A copy of less than 1 GiB has
as much time as one of 1 GiB, and the time that ``pmem_copy_bandwidth`` costs
comes on top. 0 means no limit.

Related options:

* ``[libvirt] live_migration_completion_timeout``
"""),
    cfg.IntOpt(
        'pmem_copy_running_passes',
        default=4, min=0, max=20,
        help="""
How many times vPMEM data is copied at most while the guest still runs.

The first pass copies everything, each later one what the guest has written
meanwhile, as long as that becomes clearly less. Then the guest is switched off
for a last pass, which compares everything and copies the rest: so a guest is
off for a sixth to a third of the time that its data takes to copy, and less
on a slow link. The price is that more is read and sent, and that memory errors
in a device that is read may stop the guest, as in a live migration.

0 means that data is copied only when the guest is off, as Nova does it with
disks; so it is for servers that are off anyway, and within a host.

Related options:

* ``[libvirt] pmem_copy_running_goal``
"""),
    cfg.IntOpt(
        'pmem_copy_running_goal',
        default=2, min=0, max=100,
        help="""
How much of its vPMEM data may be left for when the guest is off, in percent.

When a pass while the guest runs has sent no more than that,
another one is not worth it: comparing everything takes longer by then.

Related options:

* ``[libvirt] pmem_copy_running_passes``
"""),
    cfg.IntOpt(
        'pmem_copy_max_concurrent',
        default=1, min=1,
        help="""
How many servers a host sends the vPMEM data of at once.

Others wait for their turn, and their guests go on running meanwhile. One after
the other they are switched off for a shorter time than all at once, since they
share the link and the memory bandwidth of the host. They share the threads for
long tasks, too, with builds, snapshots, what recovers moves, and up to four
wipes: leave some of these, which are as many as the larger of the options
below.

Related options:

* ``[DEFAULT] max_concurrent_builds``
* ``[DEFAULT] max_concurrent_snapshots``
"""),
]

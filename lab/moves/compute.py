# SPDX-License-Identifier: Apache-2.0
"""nova-compute in a guest: Nova's own, from its start on.

Root starts it, as a service manager does; it runs as nova's user. The daemon
of oslo.privsep that does for it what needs root is started here by ``fork``
and not by ``sudo``: it is the same one, and need not import everything once
more, which takes half a minute under emulation.

This is put into the image as it is. ``compute.py USER`` does not return.
"""

import grp
import os
import pwd
import sys

# First: it sees to it that nothing imports eventlet.
import nova.cmd.compute

import nova.compute.manager  # noqa: F401: also for the daemon
import nova.privsep
import nova.virt.libvirt.driver  # noqa: F401
from oslo_privsep import priv_context


def become(name: str) -> None:
    user = pwd.getpwnam(name)
    os.setgroups([group.gr_gid for group in grp.getgrall()
                  if name in group.gr_mem])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    os.environ.update(HOME=user.pw_dir, USER=name, LOGNAME=name)


def main(user: str) -> None:
    sys.argv = ['nova-compute', '--config-file', '/etc/nova/nova.conf']
    # Its options are not read yet; the daemon has no need of any.
    nova.privsep.sys_admin_pctxt.start(priv_context.Method.FORK)
    become(user)
    nova.cmd.compute.main()


if __name__ == '__main__':
    main(*sys.argv[1:])

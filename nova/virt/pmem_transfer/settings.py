# SPDX-License-Identifier: Apache-2.0

"""The two options of Nova's that the receiver has to know.

They are found as every service of Nova finds them, without importing any of
it, which takes seconds.
"""

import os
import socket
import typing as ty


class Settings(ty.NamedTuple):
    """See the options of the same names in ``[DEFAULT]``."""

    host: str
    state_path: str


def load() -> Settings:
    """Read nova-compute's configuration files and environment.

    :raises Exception: of oslo.config's, if they can't be read
    """
    from oslo_config import cfg

    conf = cfg.ConfigOpts()
    # They are declared in nova/conf, which is not to be imported.
    conf.register_opts([  # noqa: N342
        cfg.StrOpt('host', default=socket.gethostname()),
        cfg.StrOpt('pybasedir', default=os.path.abspath(os.path.join(
            os.path.dirname(__file__), *[os.pardir] * 3))),
        cfg.StrOpt('state_path', default='$pybasedir'),
    ])
    # What is in files of nova-compute's own counts as well.
    conf(args=[], project='nova', prog='nova-compute')
    return Settings(conf.host, conf.state_path)

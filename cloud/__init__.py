# SPDX-License-Identifier: Apache-2.0
"""A cloud of real services on one machine; see doc/cloud.rst."""

import pathlib

#: The checkout.
TOP = pathlib.Path(__file__).resolve().parent.parent

#: The environment that the services are installed in, at the same path in
#: each host.
ENV = TOP / '.venv' / 'cloud'

#: What a run leaves: its logs, and until it ends, its hosts.
WORK = TOP / 'work' / 'cloud'

LOGS = WORK / 'logs'
HOSTS = WORK / 'hosts'


class Unable(Exception):
    """The cloud can't be brought up here; the message is one line."""

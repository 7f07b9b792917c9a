# SPDX-License-Identifier: Apache-2.0
"""The whole: a controller, two compute hosts, and what they start with."""

import json
import os
import shutil
import time

from cloud.compute import Compute
from cloud.controller import Controller
from cloud.controller import timed
from cloud.controller import together
from cloud import ENV
from cloud.host import say
from cloud import LOGS
from cloud import seed
from cloud import WORK

#: Where the client finds its credentials.
CLOUDS = WORK / 'clouds.yaml'


class Cloud:
    """All hosts. Made inside of the box.

    :ivar controller: the host of the services
    :ivar computes: the compute hosts
    """

    def __init__(self) -> None:
        self.controller = Controller()
        self.computes = [Compute(1), Compute(2)]

    @property
    def hosts(self) -> list:
        return [self.controller, *self.computes]

    def up(self) -> None:
        """Bring up everything; takes about a minute."""
        begun = time.monotonic()
        shutil.rmtree(LOGS, ignore_errors=True)
        for host in self.hosts:
            host.mount({each.name: each.address for each in self.hosts})
            host.start()
            host.configure()
        together(self._services, self._computes)
        self._join()
        say('the cloud is up after %.0f s' % (time.monotonic() - begun))

    def find(self) -> None:
        """Find all of it, when another process has brought it up."""
        os.environ['OS_CLIENT_CONFIG_FILE'] = str(CLOUDS)
        for host in self.hosts:
            host.find()
        for host in self.computes:
            host.memory.find()

    def _services(self) -> None:
        together(self.controller.start_database, self.controller.start_broker)
        if not self.controller.has_schemas:
            timed(self.controller.create_schemas)
            timed(self.controller.keep_schemas)
        self.controller.start_apis()
        self.controller.await_apis()
        timed(self._seed)
        # They log in when they start.
        self.controller.start_nova()

    def _seed(self) -> None:
        clouds = seed.clouds()
        CLOUDS.write_text(json.dumps(clouds))
        os.environ['OS_CLIENT_CONFIG_FILE'] = str(CLOUDS)
        seed.fill()

    def _computes(self) -> None:
        for host in self.computes:
            host.start_services()

    def _join(self) -> None:
        begun = time.monotonic()
        together(*(host.start_nova for host in self.computes))
        self.controller.discover(len(self.computes))
        say('  nova-computes: %.1f s' % (time.monotonic() - begun))


def environment(user: str = 'admin') -> dict[str, str]:
    """Return the environment of a client.

    :param user: one of those in ``cloud/seed.py``
    """
    return os.environ | {
        'PATH': '%s:%s' % (ENV / 'bin', os.environ['PATH']),
        'OS_CLIENT_CONFIG_FILE': str(CLOUDS), 'OS_CLOUD': user}

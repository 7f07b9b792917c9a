# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Several nova-computes in one process, each with its own configuration.

Nova's configuration is one global object. Here some of its options have
another value on each host: what runs on behalf of a host is marked as such
by a context variable, and looking up an option honours the mark.

The mark is set where a service starts, at each RPC, and for periodic tasks;
it goes along to the threads of Nova's executors.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import contextvars
import functools
import inspect
import os
import subprocess
from typing import Any

import fixtures
import futurist
from nova import rpc
from nova import service
from oslo_config import cfg

#: Values by (group, option); the group is None for [DEFAULT].
Options = Mapping[tuple[str | None, str], Any]

_current: contextvars.ContextVar[str | None] = contextvars.ContextVar(
    'the host that the code runs on', default=None)


def current() -> str | None:
    """Return the name of the host that the code runs on, if on any."""
    return _current.get()


@contextlib.contextmanager
def on(host: str) -> Iterator[None]:
    """Run the body on a host."""
    token = _current.set(host)
    try:
        yield
    finally:
        _current.reset(token)


class _OnHost:
    """An RPC endpoint whose methods run on a host."""

    def __init__(self, host: str, endpoint: Any) -> None:
        self._host = host
        self._endpoint = endpoint

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._endpoint, name)
        if not inspect.isroutine(value):
            return value

        @functools.wraps(value)
        def call(*args: Any, **kwargs: Any) -> Any:
            with on(self._host):
                return value(*args, **kwargs)
        return call


class HostsFixture(fixtures.Fixture):
    """Give hosts their own values of some options."""

    def __init__(self, options: Mapping[str, Options]) -> None:
        super().__init__()
        self.options = options

    def _setUp(self) -> None:
        self._wrap(cfg.ConfigOpts, '_get', self._option)
        self._wrap(rpc, 'get_server', self._server)
        self._wrap(service.Service, 'periodic_tasks', self._periodic_tasks)
        self._wrap(futurist.ThreadPoolExecutor, 'submit', self._submit)
        self._wrap(subprocess.Popen, '__init__', self._start_child)

    def _wrap(
        self, owner: Any, name: str, wrapper: Callable[..., Any],
    ) -> None:
        original = getattr(owner, name)

        @functools.wraps(original)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            return wrapper(original, *args, **kwargs)
        self.useFixture(fixtures.MockPatchObject(owner, name, wrapped))

    def _option(
        self, get: Callable[..., Any], conf: cfg.ConfigOpts, name: str,
        group: Any = None, namespace: Any = None,
    ) -> Any:
        options = self.options.get(current(), {})
        key = (getattr(group, 'name', group), name)
        if key in options:
            return options[key]
        return get(conf, name, group, namespace)

    def _server(
        self, get_server: Callable[..., Any], target: Any,
        endpoints: list[Any], *args: Any, **kwargs: Any,
    ) -> Any:
        if target.server in self.options:
            endpoints = [_OnHost(target.server, e) for e in endpoints]
        return get_server(target, endpoints, *args, **kwargs)

    def _periodic_tasks(
        self, periodic_tasks: Callable[..., Any], self_: service.Service,
        *args: Any, **kwargs: Any,
    ) -> Any:
        if self_.host not in self.options:
            return periodic_tasks(self_, *args, **kwargs)
        with on(self_.host):
            return periodic_tasks(self_, *args, **kwargs)

    @staticmethod
    def _start_child(
        start: Callable[..., Any], popen: subprocess.Popen, *args: Any,
        **kwargs: Any,
    ) -> None:
        """Let tools see the namespaces of the host that calls them."""
        host = current()
        if host is not None:
            environment = kwargs.get('env')
            kwargs['env'] = dict(
                os.environ if environment is None else environment,
                PMEM_STAND_IN_HOST=host)
        start(popen, *args, **kwargs)

    @staticmethod
    def _submit(
        submit: Callable[..., Any], executor: futurist.ThreadPoolExecutor,
        fn: Callable[..., Any], *args: Any, **kwargs: Any,
    ) -> Any:
        return submit(
            executor, contextvars.copy_context().run, fn, *args, **kwargs)

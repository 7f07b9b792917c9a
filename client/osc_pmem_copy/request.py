# SPDX-License-Identifier: Apache-2.0

"""Adding ``copy_pmem_devices`` to the request that a core command sends.

Neither the core commands nor the SDK's ``resize_server`` and
``migrate_server`` take additional attributes, so the field is added where
their request leaves: in the ``request`` method of the compute client, which
is keystoneauth's public interface. What the command does before (finding the
server and the flavor, checking ``--host``) stays the command's own.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import re
from typing import Any

from osc_lib import exceptions

#: The path that server actions are posted to, in the SDK's relative form.
_ACTION_PATH = re.compile(r'/?servers/(?P<server_id>[^/]+)/action')


@dataclasses.dataclass
class Sent:
    """What is known of a request that asked for a copy."""

    #: The server as it was before, or None unless that was wanted.
    before: Any = None
    #: The uuid of the server, or None as long as nothing was sent.
    server_id: str | None = None
    #: Nova files what becomes of the request under this name. None if the
    #: answer did not tell.
    request_id: str | None = None


@contextlib.contextmanager
def asking_for_copy(
    compute: Any, action: str, microversion: str, look_first: bool
) -> Iterator[Sent]:
    """Add ``copy_pmem_devices`` to the requests made within this context.

    The client is shared by all commands of an interactive session, so it is
    put back in every case: a later command must not copy unless it is asked.

    :param compute: the compute client, an SDK proxy
    :param action: ``resize`` or ``migrate``
    :param microversion: what to send the request with
    :param look_first: whether to get the server before it is acted on
    :raises: :class:`osc_lib.exceptions.CommandError` when the command wants
        to post anything else. A release of the client that asks in another
        way must fail here, because a move without the copy loses data.
    """
    sent = Sent()
    send = compute.request
    shadowed = vars(compute).get('request')

    def request(url: str, method: str, *args: Any, **kwargs: Any) -> Any:
        if method != 'POST':
            return send(url, method, *args, **kwargs)

        body: Any = kwargs.get('json')
        server_id = _acted_on(url, body, action)
        if look_first:
            sent.before = compute.get_server(server_id)
        # "migrate" without a host has null for its arguments.
        arguments = {**(body[action] or {}), 'copy_pmem_devices': True}
        kwargs['json'] = {action: arguments}
        kwargs['microversion'] = microversion
        response = send(url, method, *args, **kwargs)
        sent.server_id = server_id
        sent.request_id = response.headers.get('x-openstack-request-id')
        return response

    compute.request = request
    try:
        yield sent
    finally:
        if shadowed is None:
            del compute.request
        else:
            compute.request = shadowed


def _acted_on(url: str, body: Any, action: str) -> str:
    """Return the uuid of the server that a request is about.

    :raises: :class:`osc_lib.exceptions.CommandError` if the request is not
        the action that was expected
    """
    path = _ACTION_PATH.fullmatch(url)
    if path and isinstance(body, dict) and list(body) == [action]:
        return path['server_id']
    raise exceptions.CommandError(
        f'Nothing was sent: this release of openstackclient asks for a '
        f'{action} in a way that --copy-pmem-devices does not know.'
    )

# SPDX-License-Identifier: Apache-2.0

"""Which compute API microversion a request with a copy is sent with."""

from keystoneauth1 import adapter
from keystoneauth1 import discover
from osc_lib import exceptions

#: The first microversion that knows ``copy_pmem_devices``.
NEEDED = '2.105'


def choose(compute: adapter.Adapter) -> str:
    """Return the microversion to ask for a copy with.

    An explicit choice of the user is kept, since they may rely on what else
    it means; otherwise it is the oldest one that can copy, whose meaning is
    known here and does not change when the cloud is upgraded.

    :param compute: the compute client of the command
    :raises: :class:`osc_lib.exceptions.CommandError` when the cloud, or what
        the user asked for, is older than :data:`NEEDED`
    """
    needed = discover.normalize_version_number(NEEDED)
    endpoint = compute.get_endpoint_data()
    offered = endpoint.max_microversion if endpoint is not None else None

    # The cloud comes first: to whoever uses a cloud that can't do it, advice
    # on how to ask for a newer microversion is of no use.
    if not offered or offered < needed:
        most = (
            f'offers {discover.version_to_string(offered)} at most'
            if offered
            else 'offers no microversions'
        )
        raise exceptions.CommandError(
            f'--copy-pmem-devices needs compute API {NEEDED}, but this cloud '
            f'{most}.'
        )

    asked = compute.default_microversion
    if asked is None:
        return NEEDED
    if discover.normalize_version_number(asked) < needed:
        raise exceptions.CommandError(
            f'--copy-pmem-devices needs compute API {NEEDED}, but {asked} was '
            f'asked for (--os-compute-api-version, its environment variable '
            f'or clouds.yaml).'
        )
    return str(asked)

# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import rst_add_rest_parameter
from novapatch.edit import rst_append_section
from novapatch.edit import rst_replace_directive

ACTION = 'Resize Server (resize Action)'
SAMPLES = '../../doc/api_samples/servers'
NEW_SAMPLE = SAMPLES + '/v{{microversion}}/server-action-resize.json'

EDITS = [
    rst_append_section(ACTION, '''
        Before microversion {{microversion}}, a request with the
        ``copy_pmem_devices`` parameter is refused with badRequest(400). From
        then on, a request that sets it to ``true`` is refused with

        * badRequest(400), if the new flavor has fewer virtual persistent
          memory devices than the server,
        * conflict(409), if any ``nova-compute`` service of the cloud is older
          than service version {{service_version}}, the first that can copy.

        The destination is then always in the cell of the server. Hosts whose
        devices are too small for the data are passed over; if no other host is
        left, the server stays where it is, and as it is.

        If the data can't be copied, or the server can't be started on the
        destination, it goes on where it was: its status becomes ``ACTIVE``
        again, or ``SHUTOFF`` if it was stopped, and the status of the
        migration is ``error``. A server that comes back to ``ACTIVE`` was
        therefore not moved; the actions of the server tell the reason.
        '''),
    rst_add_rest_parameter(
        ACTION, after='OS-DCF:diskConfig',
        line='copy_pmem_devices: copy_pmem_devices'),
    rst_replace_directive(
        ACTION, 'literalinclude', 'server-action-resize.json', f'''
        .. literalinclude:: {SAMPLES}/server-action-resize.json
           :language: javascript

        **Example Resize Server (Resize Action) (v{{{{microversion}}}})**

        .. literalinclude:: {NEW_SAMPLE}
           :language: javascript
        '''),
]

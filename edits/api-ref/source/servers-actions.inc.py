# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import rst_add_rest_parameter
from novapatch.edit import rst_append_section
from novapatch.edit import rst_replace_directive

ACTION = 'Resize Server (resize Action)'
SAMPLES = '../../doc/api_samples/servers'
NEW_SAMPLE = SAMPLES + '/v{{microversion}}/server-action-resize.json'

EDITS = [
    rst_append_section(ACTION, '''
        .. include:: copy-pmem-devices.inc

        A request that copies is refused with badRequest(400) if the new
        flavor has fewer virtual persistent memory devices than the server.
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

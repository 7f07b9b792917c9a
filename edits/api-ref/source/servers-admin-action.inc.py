# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import rst_add_rest_parameter
from novapatch.edit import rst_append_section
from novapatch.edit import rst_replace_directive

ACTION = 'Migrate Server (migrate Action)'
SAMPLES = '../../doc/api_samples/os-migrate-server'
NEW_SAMPLE = SAMPLES + '/v{{microversion}}/migrate-server.json'

EDITS = [
    rst_append_section(ACTION, '''
        .. include:: copy-pmem-devices.inc

        A request that copies is refused with badRequest(400) if the requested
        host is in another cell than the server.
        '''),
    rst_add_rest_parameter(
        ACTION, after='host', line='copy_pmem_devices: copy_pmem_devices'),
    rst_replace_directive(
        ACTION, 'literalinclude', 'v2.56/migrate-server.json', f'''
        .. literalinclude:: {SAMPLES}/v2.56/migrate-server.json
           :language: javascript

        **Example Migrate Server (migrate Action) (v{{{{microversion}}}})**

        .. literalinclude:: {NEW_SAMPLE}
           :language: javascript
        '''),
]

# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import yaml_add_key

EDITS = [
    yaml_add_key('copy_pmem_devices', '''
        description: |
          What becomes of the data in the server's virtual persistent memory
          (vPMEM) devices. With ``true``, it is copied to the devices that the
          server gets on the destination, before it starts there. With
          ``false``, the default, it stays behind: the server finds its new
          devices empty, and the old data is erased when the move is confirmed.

          The new flavor needs at least as many vPMEM devices as the server
          has, and every new device has to be at least as large as the one
          whose data it takes. A server without vPMEM devices has nothing to
          copy, and is moved as usual.
        in: body
        required: false
        type: boolean
        min_version: {{microversion}}
        '''),
]

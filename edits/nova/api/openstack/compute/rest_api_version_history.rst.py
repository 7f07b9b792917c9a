# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import rst_append

EDITS = [
    rst_append('''
.. _microversion {{microversion}}:

{{microversion}}
-----

The ``resize`` and ``migrate`` server actions accept the optional
``copy_pmem_devices`` parameter. If it is true, the contents of the server's
virtual persistent memory devices are copied to the destination host; the
default is false, which leaves them behind as before.

The request is refused with HTTP 400 (Bad Request) if the new flavor has fewer
virtual persistent memory devices than the server, or the requested host is in
another cell, and with HTTP 409 (Conflict) as long as not every compute service
is new enough to copy.
'''),
]

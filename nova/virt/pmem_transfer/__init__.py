# SPDX-License-Identifier: Apache-2.0

"""What runs outside of nova-compute when vPMEM data is moved.

Sender and receiver are children of the nova-computes on either side. They
start for every move, so they import little: nothing here may import other
modules of Nova.
"""

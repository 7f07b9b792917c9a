# SPDX-License-Identifier: Apache-2.0

"""What runs outside of nova-compute when vPMEM data is moved.

The sender is a process of nova-compute's, the receiver one of ssh's. Both
start for every move, so they import little: nothing here may import other
modules of Nova.
"""

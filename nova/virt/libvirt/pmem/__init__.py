# SPDX-License-Identifier: Apache-2.0


"""This host's side of a move of vPMEM data.

:mod:`nova.virt.libvirt.pmem_copy` is the door. ``namespaces`` finds, lends,
guards and wipes devices, ``tickets`` notes down what holds whose data,
``settle`` brings what moves have left to an end, ``wipes`` does the part of it
that takes long, ``transfer`` is the sender as nova-compute sees it, and
``pairing`` says which device takes which data. ``check_host`` and
``check_peer`` are for a command: see :mod:`nova.cmd.pmem_copy`.
"""

#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.


"""This host's side of a move of vPMEM data.

:mod:`nova.virt.libvirt.pmem_copy` is the door. ``namespaces`` finds, lends,
guards and wipes devices, ``tickets`` notes down what holds whose data,
``settle`` brings what moves have left to an end, ``transfer`` is the sender
as nova-compute sees it, and ``pairing`` says which device takes which data.
"""

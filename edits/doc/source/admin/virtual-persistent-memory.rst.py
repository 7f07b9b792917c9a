# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import rst_insert_after
from novapatch.edit import rst_replace_directive

EDITS = [
    rst_replace_directive(
        'Configure a flavor', 'note', 'When resizing an instance', '''
        .. note::

          A server that is resized or cold migrated finds its vPMEM devices
          empty afterwards, unless the request asks for the data to be copied:
          see `Moving vPMEM data with a server`_.
        '''),
    rst_insert_after('Configure a flavor', '''
        Moving vPMEM data with a server
        -------------------------------

        From compute API microversion {{microversion}} on, a resize or a cold
        migration can take the data of the server's vPMEM devices along:

        .. code-block:: console

           $ openstack server resize --copy-pmem-devices --flavor bigger vm1
           $ openstack server migrate --copy-pmem-devices vm1
           $ openstack server migrate --copy-pmem-devices --host host-2 vm1

        The option comes with the ``python-openstackclient-pmem-copy`` plugin.
        Other clients send ``copy_pmem_devices`` in the body of the ``resize``
        or ``migrate`` action.

        The data is copied while the server is off, by ``daxio`` through
        ``ssh``; then every target is read back and compared with its source.
        Plan for that time: the server is down for as long as it takes to send
        the devices once, and to read both sides once more.

        **Without the option the data is not moved.** The server starts with
        empty devices, and when the move is confirmed, the data on the source
        host is wiped. Until then, reverting the move brings it back.

        Requirements
        ~~~~~~~~~~~~

        * Every ``nova-compute`` of the deployment has service version
          {{service_version}} or later. Until then, requests to copy are
          refused with HTTP 409, and the answer names the oldest version.
        * The user of the ``nova-compute`` service can log in from each compute
          host to each other by ``ssh`` without a password, as moving local
          disks requires, too. No login as root is needed: the destination
          lends the device nodes to that user while data is copied, and takes
          them back afterwards.
        * ``ndctl``, ``daxio`` and ``sha256sum`` are installed on every compute
          host, on the ``PATH`` that a command run through ``ssh`` has.
        * The destination is in the cell of the server. Data can't be copied
          to another cell.

        Which device takes which data
        ~~~~~~~~~~~~~~~~~~~~~~~~~~~~~

        The devices of a server are in the order of the labels in the
        ``hw:pmem`` property of its flavor; the guest sees them in that order.

        #. First, devices with the same label pair up, in that order.
        #. The devices that are left over pair up by their position.
        #. If the new flavor has more devices than the old one, the rest starts
           empty. If it has fewer, the request is refused.

        For example, from ``hw:pmem=6GB,LARGE`` to ``hw:pmem=LARGE,HUGE`` the
        data of the ``LARGE`` device goes to ``LARGE``, and that of the ``6GB``
        device to ``HUGE``.

        A target has to be at least as large as its source. What counts are the
        sizes of the namespaces and not the labels: a host on which a namespace
        is too small is passed over, before the server is stopped, and the next
        one is tried.

        In a larger target, the data starts at the first byte, as it did. The
        last 2 MiB of a device are the guest's NVDIMM label area. They are
        copied to the end of the target, which is where the guest looks for
        them; what lies in between is zero.

        Confirm, revert, start and reboot
        ~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~

        Until the move is confirmed the source namespaces are only read.

        * Confirming wipes the namespaces of the server on the source host.
        * Reverting wipes those on the destination host, and the server runs on
          the source again, with the data as it was when the move began. What
          the guest has written since is lost.
        * Starting or hard rebooting a server keeps its vPMEM data. (Nova
          34.0.0 as released wipes it.)
        * Deleting, rebuilding or shelve offloading a server wipes it.

        If the copy fails
        ~~~~~~~~~~~~~~~~~

        The server is started again where it was if it was running, and its
        status is ``ACTIVE`` or ``SHUTOFF`` as before. The migration has the
        status ``error``, and ``openstack server event show`` has the reason.
        The destination wipes what it has received the next time its
        ``nova-compute`` updates its resources, which is a minute later by
        default (:oslo.config:option:`update_resources_interval`).

        If the guest fails to start on the destination, the server is in
        ``ERROR`` there, with its data. When the cause is gone, a hard reboot
        starts it. The source namespaces still hold the data as well, and Nova
        counts them as free: once the server runs, wipe them by hand, before
        another server gets them.

        From the claim until the server starts there or the data is wiped, the
        destination keeps a *ticket*, a small file in
        ``$state_path/pmem-copy/`` that names the namespaces. As long as it
        exists, no other server starts on them.

        What the log of ``nova-compute`` says, and what to do:

        ``Copied … MiB of vPMEM namespace … and found them equal.``
          On the source, for each device. Nothing is to be done.

        ``Moving the server away failed, bringing it back: …``
          On the source. The text names the namespaces and what went wrong: a
          command that failed, with its message and host, or a target that
          reads back different. Remove the cause and repeat the request.

        ``The server could not be brought back. …``
          On the source. The server is in ``ERROR``; its disks and its vPMEM
          data are intact on this host. Remove the cause, which the traceback
          shows, reset the state of the server and hard reboot it.

        ``Migration … ended as "error"; wiping the namespaces …``
          On the destination, after a failed copy. Nothing is to be done.

        ``The namespaces … received data … and could not be wiped. …``
          On the destination. They stay out of use, and wiping them is tried
          again with every update of the resources. See that the namespaces
          exist and are healthy (``ndctl list -X``).

        ``Killing process …, left from migration …``
          On the destination. A connection broke and left a ``daxio`` behind
          that could have gone on writing. Nothing is to be done.

        ``The vPMEM ticket … can't be used: …``
          A ticket is damaged, so nobody knows any more which namespaces it
          guarded. Look for those that no server uses, wipe them
          (``daxio -z -o /dev/daxX.Y``), and only then remove the file.

        ``vPMEM namespaces … hold data of migration … not wiped yet.``
          On the destination. Another server was to start on them and was
          refused; if it was being created, another host is tried. Nothing is
          to be done, unless they can't be wiped.

        ``vPMEM namespace … was … and is …; restart nova-compute …``
          The namespaces of that host have changed since its ``nova-compute``
          started, or got other device numbers. Restart ``nova-compute`` there.

        If a host dies during a copy, start its ``nova-compute`` again. A
        destination then wipes what it had received. A source brings its
        servers back, but the migration keeps the status ``migrating``, and so
        the destination keeps the ticket: its namespaces stay out of use until
        the server is deleted, or the migration's status is set to ``error`` in
        the database.
        '''),
]

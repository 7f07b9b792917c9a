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

        Most of the data is copied while the server runs: first all of it, and
        then, a few times, what has changed since. Only then is the server
        switched off, for a last pass that compares everything and copies the
        rest. What can't work, such as a login that is refused, fails the move
        before that, and the server has not been off.

        The data goes through ``ssh`` to a process of the destination's
        ``nova-compute``, which has ``daxio`` write it. Each part is read back
        from the target, and compared, before it counts as copied. Zeros are
        not sent. ``openstack server show`` has the percentage of the present
        pass in ``progress``. ``openstack server event show`` has the events
        ``compute_precopy_pmem_devices`` while the server runs,
        ``compute_copy_pmem_devices`` when it is off, and
        ``compute_start_with_pmem``; their details tell what was sent, and how
        long the server was off. The log of ``nova-compute`` on the source has
        each pass, and the time that is left. A server that is stopped, or
        resized on its host, is copied in one pass.

        Copying a server that runs takes memory bandwidth of both hosts. A
        memory error in what is read may end the guest, as in a live migration.

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
        * ``sshd`` lets that user forward to a unix socket, as it does unless
          ``DisableForwarding``, ``AllowStreamLocalForwarding`` or the option
          ``restrict`` of a key forbid it. Where they do, set
          :oslo.config:option:`libvirt.pmem_copy_join_command` to
          ``nova-pmem-join``, which is installed with Nova.
        * Where ``sshd`` runs in another container than ``nova-compute``, they
          have the same :oslo.config:option:`state_path` in common, under the
          same path, and the user has the same number in both. That path has
          at most 47 bytes.
        * ``ndctl`` and ``daxio`` are installed on every compute host, on the
          ``PATH`` of ``nova-compute`` and of its privsep helper.
        * :oslo.config:option:`service_user.send_service_user_token` is set on
          every compute host. A copy may take longer than the token of its
          request is valid, and what comes after it asks Neutron, Glance and
          Cinder on behalf of the user: without it a move whose token has
          expired is taken back.
        * The destination is in the cell of the server. Data can't be copied
          to another cell: a request that names a host there is refused. A move
          between cells without the option wipes the source, as ever.
        * Whoever asks may copy: by default, whoever may resize or migrate the
          server. The rules are
          ``os_compute_api:servers:resize:copy_pmem_devices`` and
          ``os_compute_api:os-migrate-server:migrate:copy_pmem_devices``.
        * Requests go to ``/v2.1``. The old ``/v2`` endpoint drops the field of
          a ``resize`` without a word, as it does with all unknown fields.

        To check a host, run this command there as nova's user. It changes
        nothing, and says what to fix:

        .. code-block:: console

           $ nova-pmem-copy check --peer HOST

        ``HOST`` is another compute host, by its
        :oslo.config:option:`libvirt.migration_inbound_addr`, and may be left
        out. With ``--json`` it answers as JSON. The exit status is 1 if
        something is wrong.

        Options
        ~~~~~~~

        The settings of the source host apply:

        * :oslo.config:option:`libvirt.pmem_copy_join_command`: see above
        * :oslo.config:option:`libvirt.pmem_copy_ciphers`: AES-GCM first, as it
          takes the least CPU
        * :oslo.config:option:`libvirt.pmem_copy_streams`: ``ssh`` connections
          for one server, each of which encrypts on one core
        * :oslo.config:option:`libvirt.pmem_copy_bandwidth`: a limit for one
          server
        * :oslo.config:option:`libvirt.pmem_copy_running_passes` and
          :oslo.config:option:`libvirt.pmem_copy_running_goal`: how often data
          is copied while the server runs, and when that is enough
        * :oslo.config:option:`libvirt.pmem_copy_stall_timeout` and
          :oslo.config:option:`libvirt.pmem_copy_attempts`: when a connection
          is given up, and how often a part is tried
        * :oslo.config:option:`libvirt.pmem_copy_reconnect_timeout`: how long
          the source goes on trying while the destination's ``nova-compute`` is
          started again
        * :oslo.config:option:`libvirt.pmem_copy_completion_timeout`: when a
          copy that is too slow is given up
        * :oslo.config:option:`libvirt.pmem_copy_max_concurrent`: servers that
          are copied from a host at once; others wait, and run meanwhile

        To stop a copy, end its sender on the source, and the server goes on
        where it was:

        .. code-block:: console

           # pkill -TERM -f 'pmem_transfer.sender UUID_OF_THE_MIGRATION'

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
          Large ones are wiped in the background, after the move is confirmed.
        * **Reverting brings back the data as it was when the move began.**
          What the guest has written since then is lost: its namespaces on the
          destination host are wiped, after the server has left, and nothing
          is copied back.
        * Starting or hard rebooting a server keeps its vPMEM data, also if the
          start fails. (Nova 34.0.0 as released wipes it.)
        * Deleting, rebuilding or shelve offloading a server wipes it.

        A wipe zeroes a namespace and reads it back. It is offered to the
        scheduler again as soon as that is done.

        If the move fails
        ~~~~~~~~~~~~~~~~~

        If the data can't be copied, or the guest can't be started on the
        destination, the server goes on where it was. It is started again if it
        was running, and its status is ``ACTIVE`` or ``SHUTOFF`` as before. The
        migration has the status ``error``, and ``openstack server event show``
        has the reason. It can be moved again. On its way back the server is
        never shown as ``ERROR``. (Without the option, a server that can't be
        started on the destination stays there in ``ERROR``, as ever.)

        A guest that has started on the destination is never taken back without
        being asked: whatever fails after that, the move is finished there.

        A part that does not arrive, or does not read back as it was sent, is
        tried again, and so is a connection that breaks. What has arrived is
        not sent anew. Within a minute the destination begins to wipe what a
        failed copy has left there.

        If ``nova-compute`` of either host, a host, a message, or the database
        is lost in between, the host whose turn it is takes the move up again:
        when all is back, or when it has seen nobody work on it for a minute.
        The server then goes on where it was, or where its guest has started; a
        move that is being confirmed or reverted is finished. What can't be set
        right at once (``resize_migrating``, ``resize_reverting``, or a
        migration in ``confirming``) is tried again each minute. Remove the
        cause that the log shows, and don't reset the state of such a server:
        that ends the attempts.

        If the destination is lost for good after the copy, the data is on the
        source only, in namespaces that are kept for it. Save it from there
        before you delete the server, which wipes them.

        If a wipe fails when a server is deleted, the server is in ``ERROR``.
        See that the namespaces are healthy and delete it again.

        Evacuating, rebuilding or shelve offloading a server does not keep its
        vPMEM data, as ever, and a live migration does. A server that is
        evacuated in the midst of a move starts with empty devices. What the
        source held for it stays there until the server is deleted: save it
        from there.

        Namespaces that are not wiped yet
        ~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~

        A host keeps a *ticket* for them, a file in ``$state_path/pmem-copy/``
        that names them. It is called after the migration, and after what it is
        for: ``receive`` on the destination, from the claim until the guest
        starts there; ``hold`` on the source, from the beginning of the copy
        until the move is confirmed or the server is back. When nobody needs
        the data any more, the ticket says so, and exists until it is wiped.

        As long as it exists, no other server of that host is given these
        namespaces. What could not be wiped is tried again each minute, and
        reported to placement as reserved. Don't change these files while
        ``nova-compute`` runs: it writes them again.

        What has happened, where the data is, and what is to be done is in the
        log of ``nova-compute`` on the host whose turn it is. The events of the
        server have the reason, and nothing of other tenants or of the hosts.
        '''),
]

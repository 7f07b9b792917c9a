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
          to another cell: a request that names a host there is refused. A move
          between cells without the option wipes the source, as ever.
        * Requests go to ``/v2.1``. The old ``/v2`` endpoint drops the field of
          a ``resize`` without a word, as it does with all unknown fields.

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
        * Reverting wipes those on the destination host, and the server runs on
          the source again, with the data as it was when the move began. What
          the guest has written since is lost.
        * Starting or hard rebooting a server keeps its vPMEM data, also if the
          start fails. (Nova 34.0.0 as released wipes it.)
        * Deleting, rebuilding or shelve offloading a server wipes it.

        If the move fails
        ~~~~~~~~~~~~~~~~~

        If the data can't be copied, or the guest can't be started on the
        destination, the server goes on where it was. It is started again if it
        was running, and its status is ``ACTIVE`` or ``SHUTOFF`` as before. The
        migration has the status ``error``, and ``openstack server event show``
        has the reason. It can be moved again. (Without the option, a server
        that can't be started on the destination stays there in ``ERROR``, as
        ever.)

        If the copy failed, the destination wipes what it has received the next
        time its ``nova-compute`` updates its resources, which is a minute
        later by default (:oslo.config:option:`update_resources_interval`). If
        the guest failed to start, it wipes before it sends the server back.

        If a host dies during a copy, start its ``nova-compute`` again. A
        destination then wipes what it had received; the source has noticed
        within a minute, and the server runs there. A source ends the move,
        starts its servers, and the destination wipes with its next update.

        Some failures still leave the server in ``ERROR`` or waiting:

        * On the source, after the copy: volumes, ports or the database can't
          be handed over. The server is in ``ERROR`` on the source, switched
          off, with its data. Hard reboot it when the cause is gone.
        * The destination dies after the copy and before the guest runs there.
          The server keeps its task state, and its data is complete on both
          hosts. When the host is back, reset the state of the server and hard
          reboot it. Once it runs with its data, wipe the namespaces on the
          source by hand.
        * A wipe fails when a move is reverted or a server is deleted. The
          server is in ``ERROR`` on that host, and nobody tries again by
          itself. See that the namespaces are healthy. Then delete the server,
          which wipes them; but after a revert its only data may be on the
          source, in namespaces that Nova now counts as free: save it first.

        Namespaces that are not wiped yet
        ~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~

        A host keeps a *ticket* for them, a small file in
        ``$state_path/pmem-copy/`` that names them: the destination from the
        claim until the server starts there or the data is wiped, and the
        source from the end of the copy until the move is confirmed and the old
        data wiped, or the server is back. As long as it exists, no other
        server is given these namespaces. What could not be wiped is tried
        again with each update of the resources.

        With each update of the resources, what could not be wiped, and what a
        confirmed move has left and is still being wiped, is reported to
        placement as reserved. Until then the scheduler may choose the host for
        another server; the claim fails there, and the next host is tried.

        Wiping a large namespace in the periodic update holds up that update
        until it is done.

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

        ``The server was deleted while it was to move.``
          On the source. Nothing is to be done.

        ``Ending migration …, which this host had begun when it went down; …``
          On the source, when its ``nova-compute`` starts. Nothing is to be
          done.

        ``The allocation of migration … could not be given back …``
          On the source, after the former. The server runs, but placement
          counts it wrongly. ``nova-manage placement audit`` and
          ``nova-manage placement heal_allocations`` mend that.

        ``The server could not be started here; sending it back to …``
          On the destination. The traceback that follows says why. Remove the
          cause and repeat the request.

        ``The server could not be sent back. …``
          On the destination. The server is in ``ERROR``. Its data is on the
          source, and here as well unless the destination had begun to wipe it.
          Remove the cause, which the traceback shows, reset the state of the
          server and hard reboot it. A ticket keeps its old namespaces on the
          source as they are, and from other servers, until the server is
          deleted or moved again; if its data turns out to be there only, copy
          it from there by hand.

        ``Migration … failed after server … had left. Its namespaces …``
          On the source, with every update of its resources, after the former.
          Once the server runs with its data and the old copy is not needed,
          wipe these namespaces (``daxio -z -o /dev/daxX.Y``) and remove the
          file ``$state_path/pmem-copy/<uuid of the migration>.hold``.

        ``Migration … of server …: …. Wiping the namespaces …``
          After a copy that failed (``error``), for a server that was deleted
          (``deleted``), or for what one has left behind (``left``). Nothing is
          to be done.

        ``Wiping the vPMEM data that the server had here goes on …``
          On the source, when a move is confirmed. Nothing is to be done.

        ``The vPMEM data that the server had here is not wiped. …``
          On the source, when a move is confirmed. The namespaces stay out of
          use, and wiping them is tried again. See the next message.

        ``The namespaces … hold data of server … and could not be wiped. …``
          They stay out of use, and wiping them is tried again with every
          update of the resources. See that the namespaces exist and are
          healthy (``ndctl list -X``).

        ``Killing process …, left from a copy: …``
          On the destination. A connection broke and left a ``daxio`` behind
          that could have gone on writing. Nothing is to be done.

        ``The vPMEM ticket … can't be used: …``
          A ticket is damaged, so nobody knows any more which namespaces it
          guarded. Look for those that no server uses, wipe them
          (``daxio -z -o /dev/daxX.Y``), and only then remove the file.

        ``These names stand for more than one vPMEM namespace, …``
          Copies and wipes don't use them, and fail if they need one. Give each
          namespace of the host a name of its own.

        These messages stand in the events of a server:

        ``vPMEM namespaces … hold data of migration … and are not wiped yet.``
          Another server was to start on them and was refused; if it was being
          created, another host is tried. Nothing is to be done, unless they
          can't be wiped.

        ``vPMEM namespaces … are not wiped yet``
          The same, of a destination that was chosen for a move.

        ``vPMEM namespace … was … and is …; restart nova-compute on its host``
          The namespaces of a destination have changed since its
          ``nova-compute`` started, or got other device numbers. Restart
          ``nova-compute`` there.

        ``a guest of this host is defined with …``
          A destination knows another guest, running or not, that has the node
          of a claimed namespace in its definition, maybe from before the nodes
          got other numbers. Hard reboot that guest, or remove its definition
          if Nova does not know it.

        ``vPMEM namespace … of … bytes is not on this host; …``
          A namespace that was to be copied is missing on the source, or has
          another size. The guest was not stopped. Bring the namespace back, or
          give it back its name.
        '''),
]

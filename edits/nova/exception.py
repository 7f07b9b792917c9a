# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import append_file

EDITS = [
    append_file('''


        class PMEMCopyOldCompute(NovaException):
            msg_fmt = _("Copying vPMEM data requires every nova-compute to be "
                        "at service version %(required)d or later; the oldest "
                        "is at %(found)d.")


        class PMEMCopyAcrossCells(Invalid):
            msg_fmt = _("The vPMEM data of server %(instance_uuid)s can't be "
                        "copied to host %(host)s: it is in another cell.")


        class PMEMCopyFewerDevices(Invalid):
            msg_fmt = _("The vPMEM data can't be copied: flavor %(flavor)s "
                        "has %(new)d vPMEM devices and the server has "
                        "%(current)d.")


        class PMEMCopyFailed(NovaException):
            # Events keep 255 characters of it, so the reason comes early.
            msg_fmt = _("vPMEM namespace %(source)s was not copied to "
                        "%(target)s on %(host)s: %(reason)s (instance "
                        "%(instance_uuid)s, migration %(migration_uuid)s)")


        class PMEMNamespaceNotFound(NotFound):
            msg_fmt = _("vPMEM namespace %(name)s of %(size)d bytes is not on "
                        "this host; under that name there is: %(found)s.")


        class PMEMNamespaceDirty(NovaException):
            msg_fmt = _("vPMEM namespaces %(names)s hold data of migration "
                        "%(migration_uuid)s and are not wiped yet.")


        class PMEMDeviceBusy(NovaException):
            msg_fmt = _("Process %(pid)d still has a vPMEM device open, "
                        "%(seconds)d seconds after it was killed.")


        class PMEMTicketNotFound(NotFound):
            msg_fmt = _("No vPMEM ticket is open for migration "
                        "%(migration_uuid)s.")


        class PMEMTicketInvalid(NovaException):
            msg_fmt = _("A vPMEM ticket can't be used: %(reason)s.")


        class PMEMMoveInterrupted(NovaException):
            msg_fmt = _("The move to %(host)s (migration %(migration_uuid)s) "
                        "was interrupted, and nobody works on it any more. "
                        "The server goes on where it was, with its data.")


        class PMEMGuestNotBack(NovaException):
            msg_fmt = _("The guest could not be brought back after its move "
                        "to %(host)s failed (%(error)s): %(reason)s. Its "
                        "disks and vPMEM data are intact; it is tried again.")
        '''),
]

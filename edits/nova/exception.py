# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import append_file

EDITS = [
    append_file('''


        class PMEMCopyOldCompute(NovaException):
            msg_fmt = _("Copying vPMEM data needs service version %(required)d"
                        " of every nova-compute; the oldest has %(found)d.")


        class PMEMCopyAcrossCells(Invalid):
            msg_fmt = _("The vPMEM data of server %(instance_uuid)s can't be "
                        "copied to host %(host)s: it is in another cell.")


        class PMEMCopyFewerDevices(Invalid):
            msg_fmt = _("The vPMEM data can't be copied: flavor %(flavor)s "
                        "has %(new)d vPMEM devices and the server has "
                        "%(current)d.")


        class PMEMCopyFailed(NovaException):
            msg_fmt = _("The vPMEM data was not copied: %(reason)s.")


        class PMEMNamespaceNotFound(NotFound):
            msg_fmt = _("vPMEM namespace %(name)s of %(size)d bytes is not on "
                        "this host; under that name there is: %(found)s.")


        class PMEMDeviceBusy(NovaException):
            msg_fmt = _("vPMEM %(name)s is in use by %(user)s.")


        class PMEMTicketNotFound(NotFound):
            msg_fmt = _("Migration %(migration_uuid)s has no vPMEM ticket.")


        class PMEMTicketInvalid(NovaException):
            msg_fmt = _("A vPMEM ticket can't be used: %(reason)s.")


        class PMEMMoveInterrupted(NovaException):
            msg_fmt = _("The move was interrupted. The server goes on where "
                        "it was, with its data.")


        class PMEMGuestNotBack(NovaException):
            msg_fmt = _("The move failed (%(error)s), and the guest is not "
                        "back yet: its data is intact; it is tried again.")
        '''),
]

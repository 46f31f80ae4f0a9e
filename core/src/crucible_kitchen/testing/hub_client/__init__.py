"""What a hub client promises."""

from __future__ import annotations

from ...ports import HubClient
from .files import Files
from .integrity import Integrity
from .processes import Processes
from .refusals import Refusals
from .snapshots import Snapshots
from .sources import Sources
from .trees import Trees
from .uploads import Uploads


class HubClientConformance(
    Files, Snapshots, Refusals, Integrity, Processes, Uploads, Sources, Trees
):
    """Tests of a hub client. Override the fixture `hub_client`, and as many of the others as the
    hub allows: `files` above all, without which the kit believes the adapter's own downloads.
    Each upload goes below a new folder, which stays, since a hub client cannot delete.
    """

    port = HubClient

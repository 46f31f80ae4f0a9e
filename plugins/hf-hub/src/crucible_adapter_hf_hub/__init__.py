"""Models and data sets of Crucible Kitchen from the Hugging Face Hub.

The adapter is the module `hub_client`. The names of this package are for other packages that fetch
checked files of the Hub, such as crucible-adapter-hf-datasets: a `Hub` resolves the revision of a
`Repo` to a commit and lists its files, a `RepoCache` keeps them, and `CommitFiles` fetches those
that are missing and compares each with the listing. `Call` and `calling` apply the same `Limits` to
requests that a library makes.
"""

from .cache import RepoCache
from .downloads import CommitFiles
from .failures import seconds_to_wait
from .hub import Hub
from .limits import Call, Limits, calling
from .listings import Checker
from .names import Repo, repository

__all__ = [
    "Call",
    "Checker",
    "CommitFiles",
    "Hub",
    "Limits",
    "Repo",
    "RepoCache",
    "calling",
    "repository",
    "seconds_to_wait",
]

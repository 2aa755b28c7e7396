"""The common parts of all stores: addresses, clients, and the reporting of failures.

address        redis://…, postgresql://… of the configuration, parsed and checked (parts, postgres_address). Pure
redis          the client: how it is made, when it leaves a server, the meaning of its errors
redis_cluster  the same commands, sent to the nodes of a cluster
postgres       the same for PostgreSQL, and the migrations of tables
sealing        encryption of entries, with keys of the configuration
watch          the reason why a store fails: in the log, in a metric, in /readyz?verbose
"""

import errno
from collections.abc import Mapping
from typing import Literal, get_args

Reason = Literal[
    "timeout", "connection", "tls", "no_master", "noauth", "wrongpass", "noperm", "database", "readonly", "loading", "moved",
    "no_cluster", "clusterdown", "masterdown", "noreplicas", "misconf", "oom", "busy", "full", "reply", "key",
]  # fmt: skip
"""Why a store failed: the closed set that logs, metrics and /readyz?verbose use."""

REASONS: tuple[Reason, ...] = get_args(Reason)

DOWN: frozenset[Reason] = frozenset(
    ("timeout", "connection", "tls", "no_master", "noauth", "wrongpass", "database", "readonly", "loading", "moved",
     "no_cluster", "clusterdown", "masterdown")
)  # fmt: skip
"""Reasons that affect every call: the next one would fail as well. Others may affect a single call."""

LEAVE: frozenset[Reason] = frozenset(("connection", "readonly", "no_master", "masterdown", "noauth"))
"""Reasons to drop all connections and to look up the server again, by name or by Sentinel, because another
one may be the master now.

A server that requires a password answers a large command on a connection without one, and then closes the
connection; the next call on it would report a lost connection.
"""

PROBLEMS: Mapping[Reason, str] = {
    "timeout": "no answer in time (a server that is far away needs ?timeout= in its address, one without TLS no rediss://)",
    "connection": "the connection was refused or lost",
    "tls": "the TLS handshake failed",
    "no_master": "the sentinels know no master, or do not answer",
    "noauth": "the server wants a password, and the address has none",
    "wrongpass": "the user or the password is wrong",
    "noperm": "the user lacks a permission: for a command or for keys of limits.prefix (ACL), or for a table or the schema",
    "database": "the server has no such database",
    "readonly": "the server is a replica, or takes no writes",
    "loading": "the server is loading its data, starting or stopping",
    "moved": "the server is a node of a cluster and these keys are another node's (a cluster is written redis+cluster://)",
    "no_cluster": "the server is no cluster (redis+cluster:// is for one)",
    "clusterdown": "the cluster does not serve these keys",
    "masterdown": "a replica that has lost its master",
    "noreplicas": "too few replicas for a write (min-replicas-to-write)",
    "misconf": "the server takes no writes because it cannot save (MISCONF)",
    "oom": "the server is out of memory (Redis: maxmemory)",
    "busy": "the server is busy with somebody's script, or has too many connections",
    "full": "there is no room for more",
    "reply": "the server answered with an error, or with what is not ours",
    "key": "what is stored was encrypted with a key that encryption.keys lacks, was changed, or is not encrypted and has to be",
}
"""An explanation of each reason for users."""


ODD_REPLIES = (TypeError, AttributeError, LookupError)
"""The errors that a server causes in a driver, or in who reads its replies, which answers like no server of its kind."""

_OF_FILES: Mapping[int | None, Reason] = {
    errno.ENOSPC: "full", errno.EDQUOT: "full", errno.EROFS: "readonly", errno.EACCES: "noperm", errno.EPERM: "noperm",
    errno.EBUSY: "busy",
}  # fmt: skip


def reason_of_file(error: BaseException) -> Reason:
    """Returns why a store that is a file failed."""
    return _OF_FILES.get(getattr(error, "errno", None), "reply")

"""Chain ids, as in the OCI image specification, section "Layer ChainID"."""

from __future__ import annotations

from collections.abc import Iterable

from castoff.oci.digest import Digest


def chain_ids(diff_ids: Iterable[Digest]) -> tuple[Digest, ...]:
    """Return the chain_id of every layer, bottom first."""
    chain: list[Digest] = []
    for diff_id in diff_ids:
        chain.append(Digest.of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return tuple(chain)

"""A process that writes, reads and evicts entries of a store."""

import sys
from pathlib import Path

from orchestrator.building.store import Store

notes = []
store = Store(Path(sys.argv[1]), bound=200_000, note=notes.append)
for k in range(150):
    name = f"{(k * 7 + int(sys.argv[2])) % 40:064x}"
    found = store.get("table", name)
    assert found in (None, name.encode() * 150)
    store.put("table", name, name.encode() * 150)
assert notes == []

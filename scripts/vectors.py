"""Writes the protocol's test vectors from their makers, or checks that they are what the makers make.

Each protocol/vectors/make_PART.py has a deterministic `make() -> dict`; its result stands in protocol/vectors/PART.json.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).resolve().parent.parent / "protocol" / "vectors"
KEYS = {"description", "valid", "invalid"}


def make(maker: Path) -> str:
    """Runs one maker and returns the file's text.

    Raises:
        ValueError: the result lacks one of the keys that every part has.
    """
    spec = importlib.util.spec_from_file_location(maker.stem, maker)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[maker.stem] = module
    spec.loader.exec_module(module)
    made: dict[str, Any] = module.make()
    if missing := KEYS - made.keys():
        raise ValueError(f"{maker.name}: make() lacks {', '.join(sorted(missing))}")
    return json.dumps(made, indent=1, sort_keys=True) + "\n"


def main() -> int:
    """Writes or compares all parts; exit status 1 if one differs."""
    parser = argparse.ArgumentParser(prog="scripts/vectors", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the files and change nothing")
    check: bool = parser.parse_args().check
    sys.path.insert(0, str(VECTORS))
    sys.dont_write_bytecode = True
    makers = sorted(VECTORS.glob("make_*.py"))
    names = {maker.stem.removeprefix("make_") + ".json" for maker in makers}
    wrong = [f"{path.name}: no make_{path.stem}.py makes it" for path in sorted(VECTORS.glob("*.json")) if path.name not in names]
    for maker in makers:
        path = maker.with_name(maker.stem.removeprefix("make_") + ".json")
        text = make(maker)
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        if check:
            wrong.append(f"{path.name}: {'differs from' if path.exists() else 'missing; see'} {maker.name}; run scripts/vectors")
        else:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.name}")
    print(*wrong, f"{len(makers)} parts, {len(wrong)} wrong", sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

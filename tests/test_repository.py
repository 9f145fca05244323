"""What holds for the repository as a whole: paths, run bits, and pages that list what the code has."""

from __future__ import annotations

import ast
import os
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SKIPPED_FOLDERS = {"__pycache__", "dist", "build"}
TEXT_SUFFIXES = {"", ".cfg", ".ini", ".json", ".md", ".py", ".service", ".sh", ".sql", ".toml", ".txt", ".yaml", ".yml"}

# The codes that programs outside the project may rely on.
STABLE_CODES = """
    not_initialised already_initialised group_not_found user_not_found name_ambiguous not_allowed sql_error sql_refused
    schema_refused invite_invalid invite_expired invite_used_up invite_revoked banned unreachable timeout store_full
    store_corrupt too_large busy needs_upgrade
""".split()


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def repository_files() -> Iterator[Path]:
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name == ".ci" or (name not in SKIPPED_FOLDERS and name[0] != ".")]
        for name in files:
            path = Path(folder, name)
            if path.suffix in TEXT_SUFFIXES and not name.startswith(".venv"):
                yield path


def production_trees() -> Iterator[tuple[Path, ast.Module]]:
    for package in (ROOT / "peersd", ROOT / "protocol" / "peersd_protocol"):
        for path in sorted(package.rglob("*.py")):
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def test_no_file_names_a_path_of_the_machine_it_was_written_on() -> None:
    machine_path = re.compile(r"(?<![\w.$}~/])/(work|root|Users|home/(?!USER\b)\w|tmp/(probe|notes|bash_jobs))(/|\b)")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in repository_files()
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if path != Path(__file__).resolve() and machine_path.search(line)
    ]
    assert found == []


def test_every_script_has_its_run_bit() -> None:
    scripts = [path for path in [*(ROOT / "scripts").iterdir(), ROOT / ".ci" / "run"] if path.is_file() and not path.suffix]
    assert {path.name for path in scripts} >= {"test", "check", "demo", "bench", "vectors", "run"}
    assert [path.name for path in scripts if not os.access(path, os.X_OK)] == []
    assert [path.name for path in scripts if not path.read_text(encoding="utf-8").startswith("#!")] == []


@pytest.fixture(scope="module")
def remedies() -> dict[str, str]:
    """Code → remedy, from the rows of the operations page's table of errors."""
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \|$", read("docs/operations.md"), re.MULTILINE)
    return {code: remedy.strip() for code, _, remedy in rows}


@pytest.mark.parametrize("code", STABLE_CODES)
def test_the_operations_page_has_a_remedy_for_every_stable_code(remedies: dict[str, str], code: str) -> None:
    assert len(remedies[code].split()) >= 3


def test_every_code_that_the_program_raises_is_on_the_operations_page(remedies: dict[str, str]) -> None:
    raised = {
        node.args[0].value
        for _, tree in production_trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", getattr(node.func, "attr", "")) == "PeersdError"
        and node.args
        and isinstance(node.args[0], ast.Constant)
    }
    assert raised - remedies.keys() == set()


def normalised(requirement: str) -> str:
    """The bare name of a requirement line, in the spelling that compares."""
    return re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def run_time_dependencies() -> list[str]:
    return [normalised(line) for line in tomllib.loads(read("pyproject.toml"))["project"]["dependencies"]]


def pins(section: str) -> list[str]:
    """The names pinned under one heading of requirements-dev.txt."""
    body = read("requirements-dev.txt").split(f"# --- {section}\n")[1].split("\n#")[0]
    return [normalised(line) for line in body.split()]


def test_the_pins_name_exactly_the_run_time_dependencies_of_the_package() -> None:
    assert sorted(pins("direct, at run time")) == sorted(run_time_dependencies())


def test_every_direct_dependency_has_its_line_on_the_dependencies_page() -> None:
    listed = {normalised(name) for name in re.findall(r"^\| `?([\w.\-\[\]]+)`? \|", read("docs/dependencies.md"), re.MULTILINE)}
    assert {*run_time_dependencies(), *pins("direct, for development")} - listed == set()


def test_production_imports_only_the_standard_library_and_declared_dependencies() -> None:
    import_names = {"pynacl": "nacl"}
    allowed = {import_names.get(name, name) for name in run_time_dependencies()} | sys.stdlib_module_names
    found = set()
    for path, tree in production_trees():
        if "testing" in path.parts:
            continue  # the test kit may use what is installed for development
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    assert found - allowed - {"peersd", "peersd_protocol"} == set()


def test_every_bound_says_in_a_docstring_where_its_number_came_from() -> None:
    bare: set[str] = set()
    undocumented: set[str] = set()
    last_line = 0
    for node in ast.parse(read("protocol/peersd_protocol/constants.py")).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            if node.lineno != last_line + 1:
                bare |= undocumented
                undocumented = set()
            undocumented.add(node.target.id)  # lines right below each other share the docstring that ends them
            last_line = node.end_lineno or node.lineno
        elif isinstance(node, ast.Expr) and node.lineno == last_line + 1:
            undocumented = set()
    assert bare | undocumented == {"KIB", "MIB"}

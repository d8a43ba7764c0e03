"""The floors of the house: a file imports only from lower floors or from its own room (docs/architecture.md)."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "lmm"
FLOORS = [
    {"motion", "batch", "training", "runs", "command_line", "__init__"},
    {"data", "metrics", "render"},
    {"tokenizers", "evaluators", "writers"},
    {"llm"},
    {"evaluation"},
    {"cli", "commands", "language", "convert", "data_import", "demo"},
    {"__main__"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in FLOOR else "__init__"


def imports(file: Path) -> list[str]:
    out = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            out += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            modules = [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "lmm" else [node.module]
            out += modules
    return [name for name in out if name == "lmm" or name.startswith("lmm.")]


def test_every_room_has_a_floor():
    rooms = {
        p.stem if p.is_file() else p.name
        for p in PACKAGE.iterdir()
        if p.suffix == ".py" or (p / "__init__.py").exists()
    }
    assert rooms == set(FLOOR)


def test_imports_run_down_the_floors():
    for file in PACKAGE.rglob("*.py"):
        room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for module in imports(file):
            other = room_of(module)
            assert other == room or FLOOR[other] < FLOOR[room], f"{file}: {room} must not import {module}"


def test_data_and_tokenizers_never_meet_and_llm_sees_only_the_tokenizer_base():
    for file in (PACKAGE / "tokenizers").rglob("*.py"):
        assert not [m for m in imports(file) if m.startswith("lmm.data")], file
    for file in (PACKAGE / "llm").rglob("*.py"):
        seen = [m for m in imports(file) if m.startswith("lmm.tokenizers")]
        assert set(seen) <= {"lmm.tokenizers.base"}, file


def test_forbidden_names():
    for file in PACKAGE.rglob("*.py"):
        assert file.stem not in {"utils", "util", "common", "misc", "helpers"}, file


def test_no_file_outgrows_its_reader():
    refusals = "each of its refusals names line and remedy"
    reasons = {
        "motion/bvh.py": refusals,
        "motion/asfamc.py": refusals,
        "llm/base.py": "one life, told in order",
        "llm/sampler.py": "all that a model can be asked for, in one list",
    }
    for file in PACKAGE.rglob("*.py"):
        name = str(file.relative_to(PACKAGE))
        assert name in reasons or len(file.read_text().splitlines()) <= 300, name

"""Texts about parts of the body: read, refused by line, packed beside the captions, and handed out with the tokens."""

import hashlib
import json

import pytest
import torch

from lmm.batch import TokenSpec
from lmm.data.sources.humanml3d import HumanML3D
from lmm.data.sources.procedural import Procedural
from lmm.data.store import MotionStore
from lmm.data.tokens import TokenDataModule, write_token_store
from tests.data.test_humanml3d import Flat, make_folder, open_store, small  # noqa: F401 - small is a fixture


def write(folder, *lines):
    text = "".join((line if isinstance(line, str) else json.dumps(line, ensure_ascii=False)) + "\n" for line in lines)
    (folder / "manifest.jsonl").write_text(text, encoding="utf-8")


def texts(clip):
    return {"body": f"{clip} moves.", "left_arm": f"an arm of {clip}: hélas\u2028 é."}


def test_texts_are_packed_beside_the_captions(small, tmp_path):  # noqa: F811
    write(small, {"id": "a03", "hierarchical": texts("a03"), "frames": 7}, "", {"id": "b1", "style": "sad"},
          {"id": "elsewhere", "hierarchical": texts("x")}, {"id": "c3", "hierarchical": texts("c3")})  # fmt: skip
    store = open_store(small, tmp_path / "cache", hierarchical="manifest.jsonl")
    items = {item.id: item for item in map(store.item, range(len(store)))}
    assert len(items) == 18 and store.meta["detailed"] == 2
    assert items["a03"].details == texts("a03") and items["c3"].details == texts("c3")
    assert not any(item.details for name, item in items.items() if name not in ("a03", "c3"))
    assert all(item.captions == [f"first of {name}", f"second of {name}"] for name, item in items.items())


def test_a_stretch_of_a_clip_has_none(tmp_path):
    folder = make_folder(tmp_path / "d", {"a": 120}, {"train": ["a"]}, a="whole#x#0#0\npart#x#0#3\n")
    write(folder, {"id": "a", "hierarchical": texts("a")})
    store = open_store(folder, tmp_path / "cache", hierarchical="manifest.jsonl")
    assert [(i.id, bool(i.details)) for i in map(store.item, range(2))] == [("a", True), ("a__sub1", False)]


def test_stores_packed_before_stay_valid(small, tmp_path):  # noqa: F811
    write(small, {"id": "a03", "hierarchical": texts("a03")})
    digest = hashlib.sha256(b"(40, 200, [])")
    files = [file for sub in (".", "new_joints", "texts") for file in (small / sub).iterdir() if file.is_file()]
    for name in sorted(file.relative_to(small).as_posix() for file in files if file.name != "manifest.jsonl"):
        stat = (small / name).stat()
        digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    assert HumanML3D(str(small)).fingerprint() == digest.hexdigest()
    folder = open_store(small, tmp_path / "cache").folder
    meta = json.loads((folder / "meta.json").read_text())
    assert meta.pop("detailed") == 0
    (folder / "meta.json").write_text(json.dumps(meta))
    assert MotionStore(folder).item(3).details == {}
    data = TokenDataModule(HumanML3D(str(small)), Flat(), str(tokens(tmp_path, MotionStore(folder))))
    data._store = MotionStore(folder)
    assert all(batch.details is None for batch in data.train_dataloader())


def test_fingerprint_follows_the_file(small):  # noqa: F811
    write(small, {"id": "a03", "hierarchical": texts("a03")})
    before = HumanML3D(str(small), hierarchical="manifest.jsonl").fingerprint()
    assert before == HumanML3D(str(small), hierarchical="manifest.jsonl").fingerprint()
    assert before != HumanML3D(str(small)).fingerprint()
    write(small, {"id": "a03", "hierarchical": texts("longer")})
    assert before != HumanML3D(str(small), hierarchical="manifest.jsonl").fingerprint()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"id": "a03"', {"id": "a03"}], r"manifest\.jsonl:1 is not JSON.*repair or delete"),
        ([{"id": "a03", "hierarchical": texts("a")}, "[1]"], r"manifest\.jsonl:2 is not an object with the \"id\""),
        ([{"hierarchical": texts("a")}], r"manifest\.jsonl:1 is not an object with the \"id\""),
        ([{"id": 3}], r"manifest\.jsonl:1 is not an object"),
        ([{"id": "a03", "hierarchical": ["text"]}], r"manifest\.jsonl:1: \"hierarchical\" of a03 is not"),
        (["", {"id": "a03", "hierarchical": {"body": None}}], r"manifest\.jsonl:2: .* of a03 is not \{name: text\}"),
        ([{"id": "a03", "hierarchical": {"body": " "}}], r"manifest\.jsonl has .*none of the 18 clips"),
        ([{"id": "b1"}, {"id": "a03"}, {"id": "b1"}], r"manifest\.jsonl:3 is about b1 again"),
        ([{"id": "a03"}, {"id": "x", "hierarchical": texts("x")}], r"manifest\.jsonl has .*none of the 18 clips"),
        (["caf\udce9"], r"manifest\.jsonl is not utf-8"),
        (None, r"manifest\.jsonl cannot be read.*name a file of the data set"),
    ],
)
def test_bad_lines_are_refused_by_number(small, tmp_path, lines, message):  # noqa: F811
    if lines == ["caf\udce9"]:
        (small / "manifest.jsonl").write_bytes(b"caf\xe9\n")
    elif lines is not None:
        write(small, *lines)
    with pytest.raises(ValueError, match=message):
        open_store(small, tmp_path / "cache", hierarchical="manifest.jsonl")


def tokens(tmp_path, store):
    spec = TokenSpec(32, num_levels=1, num_parts=2, downsample=4, fps=20.0, bit_order="none", fingerprint="f")
    items = [(store.item(i).id, torch.full((int(store.lengths[i]) // 4, 2), i)) for i in range(len(store))]
    write_token_store(tmp_path / "tokens", spec, iter(items), motions=store.key)
    return tmp_path / "tokens"


@pytest.mark.parametrize("num_workers", [0, 2])
def test_token_batches_carry_them(small, tmp_path, num_workers):  # noqa: F811
    write(small, *({"id": name, "hierarchical": texts(name)} for name in ("a03", "b1", "a10")))
    cache = tmp_path / "cache"
    folder = tokens(tmp_path, open_store(small, cache, hierarchical="manifest.jsonl"))
    source = HumanML3D(str(small), hierarchical="manifest.jsonl")
    data = TokenDataModule(source, Flat(), str(folder), batch_size=4, num_workers=num_workers, cache=str(cache))
    data.setup("fit")
    for loader, named in ((data.train_dataloader(), {"a03", "a10"}), (data.val_dataloader(), {"b1"})):
        found = {name: each for batch in loader for name, each in zip(batch.ids, batch.details, strict=True)}
        assert found == {name: texts(name) if name in named else {} for name in found} and named < set(found)


def test_embedded_data_have_them(tmp_path):
    source = Procedural(str(tmp_path / "demo"), 12, hierarchical="manifest.jsonl")
    source.prepare()
    store = MotionStore.open(source, Flat(), tmp_path / "cache")
    for item in map(store.item, range(len(store))):
        assert list(item.details) == ["body", "upper_body", "lower_body"] and item.details["body"] in item.captions


def test_real_data(shared_data):
    source = HumanML3D(str(shared_data / "bandai_humanml"), hierarchical="manifest.jsonl")
    clips = {clip for ids in source.splits().values() for clip in ids}
    details = source._details(sorted(clips))
    assert clips <= set(details)
    assert all("body" in details[clip] and all(details[clip].values()) for clip in clips)
    assert sum(len(details[clip]) == 3 for clip in clips) > len(clips) / 2  # where only the feet move, no upper body

import json
import math
from collections import defaultdict

import pytest
from wandb.proto.wandb_internal_pb2 import Record

from automl_pt import train
from automl_pt.testing import check_tracker
from automl_pt.tracker_events import EpochFinished

#: the file of an offline run is a log in blocks of this size: checksum, length and kind before each piece of a record
BLOCK, START, HEAD = 32768, 7, 7
WHOLE, LAST = 1, 4


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")


def records(path):
    content, place, part = path.read_bytes(), START, b""
    while place + HEAD <= len(content):
        if BLOCK - place % BLOCK < HEAD:
            place += BLOCK - place % BLOCK
        size, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        part += content[place + HEAD : place + HEAD + size]
        place += HEAD + size
        if kind in (WHOLE, LAST):
            record = Record()
            record.ParseFromString(part)
            part = b""
            yield record


def runs(folder):
    """Return what the offline runs of a folder hold, by name: an entry for each command."""
    found = defaultdict(list)
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        run = {"history": [], "summary": {}, "config": {}, "exit": None}
        for record in records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                run |= {"id": record.run.run_id, "name": record.run.display_name, "group": record.run.run_group}
                run["config"] |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            elif kind == "history":
                items = record.history.item
                run["history"].append({(item.key or item.nested_key[0]): json.loads(item.value_json) for item in items})
            elif kind == "summary":
                items = record.summary.update
                run["summary"] |= {(item.key or item.nested_key[0]): json.loads(item.value_json) for item in items}
            elif kind == "exit":
                run["exit"] = record.exit.exit_code
        found[run["name"]].append(run)
    return found


def test_it_keeps_the_contract_and_what_it_was_told_can_be_read_back(tmp_path):
    told = check_tracker("wandb", tmp_path)
    study, first = runs(tmp_path / "study"), runs(tmp_path / "first")["first"]
    second = runs(tmp_path / "zweiter Lauf \N{SNOWMAN}")["zweiter Lauf \N{SNOWMAN}"]
    assert sorted(study) == ["s/result", "s/trial-0", "s/trial-1"]
    assert {run["group"] for parts in study.values() for run in parts} == {"s"}
    kept = {**study, "first": first, "zweiter Lauf \N{SNOWMAN}": second}
    wanted = defaultdict(list)
    for event in told:
        if isinstance(event, EpochFinished):
            wanted[event.run.name].append((event.epoch, event.figures["val_loss"]))
    for name, epochs in wanted.items():
        found = [(entry["epoch"], entry["val_loss"]) for run in kept[name] for entry in run["history"]]
        assert [epoch for epoch, _ in found] == [epoch for epoch, _ in epochs]
        for (_, value), (_, loss) in zip(found, epochs, strict=True):
            assert value == loss or (math.isnan(value) and math.isnan(loss))
    assert len({run["id"] for run in first}) == 1  # resumed, so one run
    assert [run["exit"] for run in first] == [255, 0]
    assert second[0]["exit"] == 1
    assert study["s/trial-0"][0]["summary"]["value"] == 0.25
    assert study["s/trial-0"][0]["config"]["batch_size"] == 8
    assert study["s/trial-1"][0]["summary"]["state"] == "PRUNED"
    assert study["s/result"][0]["summary"]["best_trial"] == 0
    assert study["s/result"][0]["summary"]["test_accuracy"] == 0.9


def test_a_real_run(tmp_path):
    options = {"backbone": "timm/test_resnet", "batch_size": 64, "threads": 1, "trackers": ["wandb"]}
    results = list(train("digits", epochs=1, output=tmp_path / "one", **options))
    [run] = runs(tmp_path / "one")["one"]
    assert [entry["val_loss"] for entry in run["history"]] == [results[0].val_loss]
    assert run["exit"] == 0


def test_without_an_account_one_note_says_what_to_do(tmp_path, monkeypatch):
    from automl_pt.core.errors import PluginError

    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(PluginError, match="WANDB_MODE=offline"):
        check_tracker("wandb", tmp_path)

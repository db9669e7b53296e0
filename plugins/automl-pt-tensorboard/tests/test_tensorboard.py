import math

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from automl_pt import search, train
from automl_pt.testing import check_tracker
from automl_pt.tracker_events import EpochFinished


def read(folder):
    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def scalars(folder, name):
    return [(item.step, item.value) for item in read(folder).Scalars(name)]


def test_it_keeps_the_contract_and_what_it_was_told_can_be_read_back(tmp_path):
    told = check_tracker("tensorboard", tmp_path)
    for event in told:
        if isinstance(event, EpochFinished):
            run = event.run
            folder = tmp_path / "study" / "tensorboard" / f"trial-{run.trial}" if run.study else None
            for name, value in event.figures.items():
                [found] = [
                    item
                    for step, item in scalars(folder or f"{run.directory}/tensorboard", name)
                    if step == event.epoch
                ]
                assert math.isclose(found, value, rel_tol=1e-6) or (math.isnan(found) and math.isnan(value))
    study = read(tmp_path / "study" / "tensorboard" / "study")
    assert "trial 0" in study.Tensors("best/text_summary")[0].tensor_proto.string_val[0].decode()
    assert math.isclose(study.Scalars("test_accuracy")[0].value, 0.9, rel_tol=1e-6)
    hyper = read(tmp_path / "study" / "tensorboard" / "trial-0").PluginTagToContent("hparams")
    assert sorted(hyper) == [
        "_hparams_/experiment",
        "_hparams_/session_end_info",
        "_hparams_/session_start_info",
    ]


def test_a_real_run_with_the_folder_named_by_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOML_PT_TENSORBOARD", str(tmp_path / "logs"))
    options = {"backbone": "timm/test_resnet", "batch_size": 64, "threads": 1, "trackers": ["tensorboard"]}
    results = list(train("digits", epochs=1, output=tmp_path / "one", **options))
    [(step, value)] = scalars(tmp_path / "logs" / "one", "val_loss")
    assert step == 1
    assert math.isclose(value, results[0].val_loss, rel_tol=1e-6)


def test_a_real_search(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = search(
        "digits",
        backbones=["timm/test_resnet"],
        trials=2,
        epochs=1,
        batch_sizes=[64],
        name="s",
        workers=0,
        threads=1,
        trackers=["tensorboard"],
    )
    for trial in result.trials:
        [(step, value)] = scalars(tmp_path / "studies" / "s" / "tensorboard" / f"trial-{trial.number}", "val_loss")
        assert step == 1
        assert math.isclose(value, trial.losses[1], rel_tol=1e-6)

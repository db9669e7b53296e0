from automl_pt.testing import check_backbone, check_dataset, check_tracker


def test_the_backbone_keeps_the_contract():
    check_backbone("example/tiny")


def test_the_dataset_keeps_the_contract():
    check_dataset("example/stripes")


def test_the_tracker_writes_every_epoch_down(tmp_path):
    told = check_tracker("example", tmp_path)
    wanted = [event.epoch for event in told if hasattr(event, "figures") and event.run.name == "first"]
    lines = (tmp_path / "first" / "curve.csv").read_text().splitlines()
    assert [int(line.split(",")[0]) for line in lines] == wanted == [1, 2, 3, 4]

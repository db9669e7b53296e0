from automl_pt.testing import check_backbone, check_dataset


def test_the_backbone_keeps_the_contract():
    check_backbone("example/tiny")


def test_the_dataset_keeps_the_contract():
    check_dataset("example/stripes")

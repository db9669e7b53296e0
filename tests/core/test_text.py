from __future__ import annotations

import pytest

from automl_pt.core.text import counted, without_password


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 trials"), (1, "1 trial"), (2, "2 trials"), (1 / 3, "0.33 trials"), (1000, "1000 trials")],
)
def test_one_is_singular(number: float, text: str) -> None:
    assert counted(number, "trial") == text


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        ("postgresql://ann:S3cret@host:5432/db", "postgresql://ann:***@host:5432/db"),
        ("--storage=mysql+pymysql://ann:S3:cr@et/@host/db", "--storage=mysql+pymysql://ann:***@host/db"),
        ("mysql://host/db?ssl_password=S3cret!&charset=utf8", "mysql://host/db?ssl_password=***&charset=utf8"),
        ("postgresql://ann@host/db", "postgresql://ann@host/db"),
        ("sqlite:///study.db", "sqlite:///study.db"),
        ("photos: ann@home?password=none", "photos: ann@home?password=none"),
    ],
)
def test_a_password_in_an_argument_is_hidden(argument: str, shown: str) -> None:
    assert without_password(argument) == shown

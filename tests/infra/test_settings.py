import pytest
from pydantic import ValidationError

from infra.packaging import ROOT
from infra.settings import LOG_DAYS, StackSettings


def test_everything_has_a_default_and_a_description(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IMAGECLUST_GPU", raising=False)
    assert StackSettings().gpu is False
    assert all(field.description for field in StackSettings.model_fields.values())


def test_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGECLUST_GPU", "true")
    monkeypatch.setenv("IMAGECLUST_LOG_DAYS", "7")
    settings = StackSettings()
    assert (settings.gpu, settings.log_days) == (True, 7)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("IMAGECLUST_LOG_DAYS", "8", "must be one of 1, 3, 5"),
        ("IMAGECLUST_CLUSTER_MEMORY_MB", "20480", "less than or equal to 10240"),
        ("IMAGECLUST_STACK_NAME", "My Stack", "should match pattern"),
        ("IMAGECLUST_QUIET_SECONDS", "soon", "valid integer"),
    ],
)
def test_a_wrong_value_is_refused(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match=message):
        StackSettings()


def test_log_days_are_the_cdks() -> None:
    from aws_cdk.aws_logs import RetentionDays

    assert all(hasattr(RetentionDays, name) for name in LOG_DAYS.values())


def test_the_page_lists_every_setting() -> None:
    page = (ROOT / "docs" / "deploy.md").read_text("utf-8")
    for name, field in StackSettings.model_fields.items():
        default = field.default
        shown = str(int(default)) if isinstance(default, bool) else str(default) or " "
        row = f"| `IMAGECLUST_{name.upper()}` | `{shown}` | {field.description} |\n"
        assert row in page
    assert page.count("| `IMAGECLUST_") == len(StackSettings.model_fields)

import pytest
from pydantic import ValidationError

from infra import app
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
        ("IMAGECLUST_STACK_NAME", "My Stack", "use 3 to 32 lower-case letters"),
        ("IMAGECLUST_RESULTS_DAYS", "1", "greater than or equal to 5"),
        ("IMAGECLUST_ALARMS", "yes", "must be 'on', an e-mail address"),
        ("IMAGECLUST_ALARMS", "arn:aws:sqs:eu-west-1:111122223333:q", "must be 'on'"),
        ("IMAGECLUST_TITLE_MODEL", "/home/me/models", "is no id of a Bedrock model"),
        ("IMAGECLUST_MORE_MODELS", "amazon.nova-micro-v1:0,Claude", "'Claude' is no id"),
        ("IMAGECLUST_QUIET_SECONDS", "soon", "valid integer"),
    ],
)
def test_a_wrong_value_is_refused(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match=message):
        StackSettings()


@pytest.mark.parametrize(
    "value", ["", "on", "ops@example.org", "arn:aws:sns:eu-west-1:111122223333:pages"]
)
def test_whom_alarms_may_tell(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGECLUST_ALARMS", value)
    assert StackSettings().alarms == value


def test_wrong_settings_are_told_in_lines_and_not_in_a_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("IMAGECLUST_LOG_DAYS", "8")
    monkeypatch.setenv("IMAGECLUST_QUITE_SECONDS", "5")
    monkeypatch.setenv("IMAGECLUST_MODELS", "/home/me/models")  # the command line's
    with pytest.raises(SystemExit) as stopped:
        app.main()
    assert str(stopped.value).splitlines() == [
        "IMAGECLUST_LOG_DAYS='8': must be one of 1, 3, 5, 7, 14, 30, 60, 90, 180, 365, 731",
        "IMAGECLUST_QUITE_SECONDS is no setting; do you mean IMAGECLUST_QUIET_SECONDS?",
    ]


def test_a_misspelt_setting_alone_stops_the_synth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGECLUST_GPUS", "1")
    with pytest.raises(SystemExit, match="IMAGECLUST_GPUS is no setting; do you mean"):
        app.main()


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

import pytest
from imageclust.steps.record_failure import Failure, _advice


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        ("Runtime.OutOfMemory", "IMAGECLUST_CLUSTER_MEMORY_MB"),
        ("Runtime.ExitError", "'sample'"),
        ("Lambda.TooManyRequestsException", "IMAGECLUST_MAP_CONCURRENCY"),
        ("Sandbox.Timedout", "goes on from there"),
        ("StoreUnavailable", "in some minutes"),
        ("KeyError", "read its log"),
    ],
)
def test_advice_says_what_to_do(error: str, advice: str) -> None:
    failure = Failure("r", "c", "ClusterImages", error, "", {})
    assert advice in _advice(failure, "FAILED")

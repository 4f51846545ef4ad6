"""The names Tidegate writes on objects, and their codecs."""

from __future__ import annotations

import pytest

from tidegate.model import Malformed
from tidegate.model.names import (
    DrainRecord,
    DrainResult,
    Ending,
    decode_drain,
    decode_result,
    encode_drain,
    encode_result,
    fence_install,
    fence_name,
)


def test_a_result_is_read_back_as_written():
    result = DrainResult(Ending.TIMED_OUT, "node-2 pending", ("node-2",), 41, 18.25)
    assert decode_result(encode_result(result)) == result
    assert encode_result(result) == {
        "tidegate.dev/drain-result": '{"result":"timed-out","reason":"node-2 pending","stragglers":["node-2"],'
        '"epoch":41,"seconds":18.25}'
    }


def test_a_record_is_read_back_as_written():
    record = DrainRecord(
        "t0k", "FENCED", "label", "2026-11-21T10:00:00Z", "", "k3f9/41", {"app": "echo"}, True, ("demo/echo",)
    )
    assert decode_drain(encode_drain(record)) == record


def test_a_pod_without_them_has_neither():
    assert decode_drain({}) is None
    assert decode_result({"other": "annotation"}) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"result":"fine"}', '{"result":"verified","epoch":"7"}'])
def test_a_result_nobody_of_us_wrote_is_malformed(text):
    with pytest.raises(Malformed, match=r"annotation tidegate\.dev/drain-result"):
        decode_result({"tidegate.dev/drain-result": text})


def test_a_newer_version_may_add_fields():
    text = '{"token":"t","state":"CUT","later":1}'
    assert decode_drain({"tidegate.dev/drain": text}) == DrainRecord("t", "CUT")


def test_the_fence_is_known_by_its_name():
    assert fence_install(fence_name("k3f9")) == "k3f9"
    assert fence_install("tidegate-fence-") is None
    assert fence_install("echo") is None


def test_a_result_prints_as_a_user_reads_it():
    assert str(DrainResult(Ending.VERIFIED)) == "verified"
    assert str(DrainResult(Ending.BYPASSED, "the agent was silent")) == "bypassed: the agent was silent"

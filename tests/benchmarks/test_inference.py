"""OpenVINO against ONNX Runtime and torch on the shipped model: times to read, and the same outputs."""

import pytest

from tests.benchmarks.inference import (
    SHIPPED,
    add_peers,
    largest_differences,
    measure,
    openvino_engines,
    phantom,
    print_table,
)
from training.phantoms import TEST_SEED

pytestmark = pytest.mark.benchmark

TOLERANCE = {"OpenVINO f32": 1e-4, "OpenVINO bf16": 0.2}
"""Largest difference of any logit from ONNX Runtime in float32."""


@pytest.mark.timeout(600)
def test_openvino_says_the_same_as_onnx_runtime(capsys: pytest.CaptureFixture[str]) -> None:
    contract, engines = openvino_engines(SHIPPED, threads=2)
    chosen = next(iter(engines))
    add_peers(engines, SHIPPED, threads=2)
    exams = [phantom(TEST_SEED + index, contract) for index in range(4)]
    differences = largest_differences(engines, exams)
    seconds = measure(engines, exams, rounds=9)
    with capsys.disabled():
        print_table(contract.outputs, seconds, differences, chosen)
    for name, tolerance in TOLERANCE.items():
        for output, difference in differences.get(name, {}).items():
            assert "logit" not in output or difference < tolerance, (name, output)

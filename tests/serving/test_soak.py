"""The server under load, and against a fuzzer that reads its OpenAPI description. `pytest -m slow tests/serving`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from serving_clients import running

from i2l_meshnet.prediction.predictor import MeshPredictor
from i2l_meshnet.serving.jobs import JobQueue
from i2l_meshnet.serving.limits import Limits
from i2l_meshnet.serving.runner import JobRunner

pytestmark = pytest.mark.slow
SECONDS = os.environ.get("I2L_MESHNET_SOAK_SECONDS", "180")
SOAK = Path(__file__).parents[2] / "scripts" / "soak_server.py"
FUZZER = shutil.which(os.environ.get("SCHEMATHESIS", "schemathesis"))


@pytest.mark.skipif(sys.platform != "linux", reason="memory and open files are read from /proc")
def test_four_clients_with_good_and_bad_pictures() -> None:
    """`make soak` runs this for an hour."""
    found = subprocess.run([sys.executable, SOAK, "--seconds", SECONDS], capture_output=True, text=True)
    print(found.stdout)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.skipif(FUZZER is None, reason="schemathesis is not installed")
def test_the_openapi_description_is_fuzzed_without_a_500(predictor: MeshPredictor, tmp_path: Path) -> None:
    limits = Limits(keep_seconds=5.0, max_upload=1.0)
    with running(JobQueue(JobRunner(predictor, limits), tmp_path, limits), limits) as address:
        command = [FUZZER or "", "run", f"{address}/openapi.json", "--checks", CHECKS, "--max-examples", "200"]
        found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    print(found.stdout[-3000:])
    assert found.returncode == 0, found.stdout


CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"

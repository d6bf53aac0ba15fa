"""Nothing leaves the machine: no name is looked up, no connection opened, nothing queued for sending."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from recorded import command_in_namespace

from i2l_meshnet.skeletons import COCO

ROOT = Path(__file__).parents[2]
PHOTO = ROOT / "examples" / "standing_phone.jpg"
QUEUES = {".cache": "ONNX Runtime", "intel": "OpenVINO", "Library": "ONNX Runtime on macOS"}
"""What the libraries' telemetry makes in the home folder."""
SECONDS = 25
"""ONNX Runtime starts to send 11 to 14 s after it is imported."""

COMMANDS = {
    "predict": ["predict", str(PHOTO), "--out", "out", "--no-detect"],
    "train": ["train", "tiny", "--out", "out", "--end-epoch", "1", "--pictures", "4", "--workers", "0"],
    "evaluate": [
        *("evaluate", "--data", "coco-keypoints", "--out", "out"),
        *("--annotations", "people.json", "--images", "images"),
    ],
}
RUN = """
import sys, time
from i2l_meshnet.cli import main

assert main(sys.argv[2:]) == 0
time.sleep(float(sys.argv[1]))
"""
SERVE = """
import os, signal, sys, threading, time, urllib.error, urllib.request
from i2l_meshnet.cli import main

def visit():
    with open(sys.argv[2], 'rb') as photo:
        body = b'--x\\r\\nContent-Disposition: form-data; name="photo"; filename="a"\\r\\n\\r\\n' + photo.read()
    headers = {'Content-Type': 'multipart/form-data; boundary=x'}
    request = urllib.request.Request('http://127.0.0.1:8000/predict', body + b'\\r\\n--x--\\r\\n', headers)
    for _ in range(600):
        try:
            print(urllib.request.urlopen(request).status)
            break
        except urllib.error.URLError:
            time.sleep(0.1)
    time.sleep(float(sys.argv[1]))
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=visit).start()
try:
    main(['serve'])
except SystemExit as end:
    assert end.code == 128 + signal.SIGTERM
"""


def run_recorded(tmp_path: Path, code: str, *arguments: str) -> list[str]:
    """Runs Python code with an empty home; returns the destinations of its packets."""
    home = tmp_path / "home"
    home.mkdir()
    environment = {k: v for k, v in os.environ.items() if k not in ("ORT_DISABLE_TELEMETRY", "CI", "XDG_CACHE_HOME")}
    environment |= {"HOME": str(home), "OMP_NUM_THREADS": "1", "NUMBA_CACHE_DIR": str(tmp_path / "numba")}
    command = command_in_namespace([sys.executable, "-c", code, *arguments])
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    left = {name: list((home / name).rglob("*")) for name in QUEUES if (home / name).exists()}
    assert [path for paths in left.values() for path in paths if path.is_file()] == []
    return json.loads(done.stdout.splitlines()[-1])


def test_a_lookup_and_a_connection_are_recorded(tmp_path: Path) -> None:
    """The recorder itself: a name that is looked up and an address that is called are both seen."""
    code = (
        "import socket\n"
        "for call in (lambda: socket.create_connection(('192.0.2.1', 443), 1),"
        " lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 53))):\n"
        "    try: call()\n"
        "    except OSError: pass\n"
    )
    assert run_recorded(tmp_path, code) == ["127.0.0.1 port 53", "192.0.2.1 port 443"]


def test_importing_the_libraries_sends_and_queues_nothing(tmp_path: Path) -> None:
    """Both libraries start their telemetry when they are imported; OpenVINO sends at once."""
    code = (
        "import time\n"
        "from i2l_meshnet.errors import InputError\n"
        "from i2l_meshnet.runtimes import import_openvino\n"
        "try: import_openvino()\n"
        "except InputError: pass\n"
        "time.sleep(1)\n"
    )
    assert run_recorded(tmp_path, code) == []


@pytest.mark.slow
@pytest.mark.parametrize("command", ["predict", "serve", "train", "evaluate"])
def test_a_command_sends_and_queues_nothing(tmp_path: Path, command: str) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "1.jpg").write_bytes(PHOTO.read_bytes())
    person = {
        "id": 7,
        "image_id": 1,
        "category_id": 1,
        "iscrowd": 0,
        "num_keypoints": 17,
        "bbox": [200, 100, 500, 1200],
        "keypoints": [value for index in range(17) for value in (300 + 20 * index, 150 + 60 * index, 2)],
    }
    names = [name.replace("L_", "left_").replace("R_", "right_").lower() for name in COCO.joints[:-1]]
    category = {"id": 1, "name": "person", "keypoints": names, "skeleton": []}
    image = {"id": 1, "file_name": "1.jpg", "width": 939, "height": 1400}
    (tmp_path / "people.json").write_text(
        json.dumps({"images": [image], "annotations": [person], "categories": [category]})
    )
    if command == "serve":
        assert run_recorded(tmp_path, SERVE, str(SECONDS), str(PHOTO)) == []
    else:
        assert run_recorded(tmp_path, RUN, str(SECONDS), *COMMANDS[command]) == []


def test_the_libraries_are_imported_in_one_place() -> None:
    """A module that imported them itself could do so before their telemetry is off."""
    imports = re.compile(r"^\s*(import|from) (onnxruntime|openvino)\b", re.MULTILINE)
    sources = (ROOT / "src").rglob("*.py")
    found = {path.name for path in sources if imports.search(path.read_text(encoding="utf-8"))}
    assert found == {"runtimes.py"}

"""No data leaves the machine: no name is looked up, no connection is opened and nothing is queued for sending.

The code runs in a network namespace of its own. As a script inside such a namespace, this file routes every address
to the loopback device and records each packet for another machine.
"""

import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PHOTO = ROOT / "examples" / "standing_phone.jpg"
ALL_PROTOCOLS = 3
IPV4, IPV6 = 0x0800, 0x86DD
NAME_SERVERS = 53
SYN, ACK = 0x02, 0x10
ROUTES = ("link set lo up", "route add local default dev lo", "-6 route add local default dev lo")
TELEMETRY_FOLDERS = (".cache", "intel", "Library")
"""Folders that the telemetry of ONNX Runtime and OpenVINO creates in the home folder."""
SECONDS = 25
"""ONNX Runtime starts to send 11 to 14 s after it is imported."""

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


def destination(packet: bytes, kind: int) -> str | None:
    """Where a packet goes that opens a connection or asks a question, except to this machine's own services."""
    if kind == IPV4 and len(packet) >= 28:
        length, protocol, address = (packet[0] & 15) * 4, packet[9], ip_address(packet[16:20])
    elif kind == IPV6 and len(packet) >= 48:
        length, protocol, address = 40, packet[6], ip_address(packet[24:40])
    else:
        return None
    is_question = protocol == socket.IPPROTO_UDP
    is_opening = protocol == socket.IPPROTO_TCP and packet[length + 13] & (SYN | ACK) == SYN
    (port,) = struct.unpack(">H", packet[length + 2 : length + 4])
    is_foreign = not address.is_loopback or port == NAME_SERVERS
    return f"{address} port {port}" if (is_question or is_opening) and is_foreign else None


def record(command: Sequence[str]) -> int:
    """Run a command. The last line of the output is a JSON list of its packets' destinations."""
    for route in ROUTES:
        subprocess.run(["ip", *route.split()], check=route != ROUTES[-1], capture_output=True)
    found: set[str] = set()
    sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ALL_PROTOCOLS))
    sniffer.bind(("lo", 0))

    def listen() -> None:
        while True:
            packet, address = sniffer.recvfrom(200)
            if where := destination(packet, address[1]):
                found.add(where)

    threading.Thread(target=listen, daemon=True).start()
    code = subprocess.run(command, check=False).returncode
    print("\n" + json.dumps(sorted(found)), flush=True)
    return code


def run_recorded(tmp_path: Path, code: str, *arguments: str) -> list[str]:
    """Run Python code with an empty home folder. Returns the destinations of its packets."""
    if None in (shutil.which("unshare"), shutil.which("ip")):
        pytest.skip("unshare (util-linux) or ip (iproute2) is missing")
    inside = ["unshare", "--net", "--map-root-user"]
    if subprocess.run([*inside, "ip", *ROUTES[0].split()], capture_output=True, check=False).returncode:
        pytest.skip("network namespaces are not allowed here")
    home = tmp_path / "home"
    home.mkdir()
    environment = {k: v for k, v in os.environ.items() if k not in ("ORT_DISABLE_TELEMETRY", "CI", "XDG_CACHE_HOME")}
    environment |= {"HOME": str(home), "OMP_NUM_THREADS": "1", "NUMBA_CACHE_DIR": str(tmp_path / "numba")}
    command = [*inside, sys.executable, __file__, sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [path for name in TELEMETRY_FOLDERS for path in (home / name).rglob("*") if path.is_file()] == []
    return json.loads(done.stdout.splitlines()[-1])


def test_a_lookup_and_a_connection_are_recorded(tmp_path: Path) -> None:
    """Test the recorder itself."""
    code = (
        "import socket\n"
        "for call in (lambda: socket.create_connection(('192.0.2.1', 443), 1),"
        " lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 53))):\n"
        "    try: call()\n"
        "    except OSError: pass\n"
    )
    assert run_recorded(tmp_path, code) == ["127.0.0.1 port 53", "192.0.2.1 port 443"]


def test_importing_the_libraries_sends_and_queues_nothing(tmp_path: Path) -> None:
    """Both libraries start their telemetry when they are imported; OpenVINO sends immediately."""
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
@pytest.mark.parametrize(
    "command",
    [
        ["predict", str(PHOTO), "--out", "out", "--no-detect"],
        ["train", "tiny", "--out", "out", "--end-epoch", "1", "--pictures", "4", "--workers", "0"],
        ["serve"],
    ],
    ids=lambda command: command[0],
)
def test_a_command_sends_and_queues_nothing(tmp_path: Path, command: list[str]) -> None:
    code, arguments = (SERVE, [str(PHOTO)]) if command == ["serve"] else (RUN, command)
    assert run_recorded(tmp_path, code, str(SECONDS), *arguments) == []


def test_the_libraries_are_imported_in_one_place() -> None:
    """Only there is their telemetry switched off first."""
    imports = re.compile(r"^\s*(import|from) (onnxruntime|openvino)\b", re.MULTILINE)
    sources = (ROOT / "src").rglob("*.py")
    found = {path.name for path in sources if imports.search(path.read_text(encoding="utf-8"))}
    assert found == {"runtimes.py"}


if __name__ == "__main__":
    sys.exit(record(sys.argv[1:]))

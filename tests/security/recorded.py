"""Runs a command in a network namespace of its own and records every packet that is for another machine.

As a script it must be started inside such a namespace: every address in the world is then routed to the loopback
device, where a raw socket sees all packets, so that even a connection to an unknown address is recorded.
"""

import json
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from ipaddress import ip_address

import pytest

ALL_PROTOCOLS = 3
IPV4, IPV6 = 0x0800, 0x86DD
NAME_SERVERS = 53
SYN, ACK = 0x02, 0x10
ROUTES = ("link set lo up", "route add local default dev lo", "-6 route add local default dev lo")


def command_in_namespace(command: Sequence[str]) -> list[str]:
    """A command line that runs `command` and prints as its last line where it sent packets; skips where it cannot."""
    tools = [shutil.which(name) for name in ("unshare", "ip")]
    if None in tools:
        pytest.skip("unshare (util-linux) or ip (iproute2) is missing")
    inside = ["unshare", "--net", "--map-root-user"]
    tried = subprocess.run([*inside, "ip", *ROUTES[0].split()], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip("network namespaces are not allowed here")
    return [*inside, sys.executable, __file__, *command]


def destination(packet: bytes, kind: int) -> str | None:
    """Where a packet goes that opens a connection or asks something, unless to this machine's own services."""
    if kind == IPV4 and len(packet) >= 28:
        length, protocol, address = (packet[0] & 15) * 4, packet[9], ip_address(packet[16:20])
    elif kind == IPV6 and len(packet) >= 48:
        length, protocol, address = 40, packet[6], ip_address(packet[24:40])
    else:
        return None
    if protocol not in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
        return None
    if protocol == socket.IPPROTO_TCP and packet[length + 13] & (SYN | ACK) != SYN:
        return None
    (port,) = struct.unpack(">H", packet[length + 2 : length + 4])
    return f"{address} port {port}" if not address.is_loopback or port == NAME_SERVERS else None


def main(command: Sequence[str]) -> int:
    """Runs the command; the last line of the output is a JSON list of the destinations."""
    for route in ROUTES:
        subprocess.run(["ip", *route.split()], check=route != ROUTES[-1], capture_output=True)
    found: set[str] = set()
    sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ALL_PROTOCOLS))
    sniffer.bind(("lo", 0))

    def record() -> None:
        while True:
            packet, place = sniffer.recvfrom(200)
            where = destination(packet, place[1])
            if where is not None:
                found.add(where)

    threading.Thread(target=record, daemon=True).start()
    code = subprocess.run(command, check=False).returncode
    print("\n" + json.dumps(sorted(found)), flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

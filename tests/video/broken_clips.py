"""Clips whose packets cannot be decoded."""

import struct


def avi(packets: list[bytes], side: int = 64) -> bytes:
    """An AVI file of Motion JPEG with these packets."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)

    count = len(packets)
    main = struct.pack("<14I", 40_000, 0, 0, 0x10, count, 0, 1, 0, side, side, 0, 0, 0, 0)
    stream = b"vidsMJPG" + struct.pack("<IHHIIIIIIIIHHHH", 0, 0, 0, 0, 1, 25, 0, count, 0, 0, 0, 0, 0, side, side)
    picture = struct.pack("<IiiHH4sIiiII", 40, side, side, 1, 24, b"MJPG", side * side * 3, 0, 0, 0, 0)
    streams = chunk(b"LIST", b"strl" + chunk(b"strh", stream) + chunk(b"strf", picture))
    header = chunk(b"LIST", b"hdrl" + chunk(b"avih", main) + streams)
    data = chunk(b"LIST", b"movi" + b"".join(chunk(b"00dc", packet) for packet in packets))
    return chunk(b"RIFF", b"AVI " + header + data)

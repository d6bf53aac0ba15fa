"""The devices that options name: one device, or a list of device numbers."""

import torch

from i2l_meshnet.errors import InputError


def choose_device(name: str) -> torch.device:
    """The device for "auto" (CUDA if available), "cpu", "cuda" or "cuda:N", the CUDA device of number N.

    Raise InputError if it is not available.
    """
    kind, colon, number = name.partition(":")
    argument = "gpu" if colon else "device"
    if kind not in ("auto", "cpu", "cuda") or (colon and not (kind == "cuda" and number.isdecimal())):
        raise InputError(f"unknown device {name!r}; choose auto, cpu, cuda or a CUDA device such as cuda:0", argument)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "cuda" and not count:
        message = "no CUDA device is available; choose cpu, or install a CUDA build of PyTorch"
        raise InputError(message, argument)
    if colon and int(number) >= count:
        raise InputError(f"there is no CUDA device {number}: the numbers are 0 to {count - 1}", argument)
    return torch.device(name if colon else "cuda" if count and kind != "cpu" else "cpu")


def named_device(device: str, gpu: int | None) -> str:
    """The name, for `choose_device`, of the options `device` and `gpu`: the number of a CUDA device, or None.

    Raise InputError if they contradict each other.
    """
    if gpu is None:
        return device
    if device == "cpu":
        raise InputError("it names a CUDA device, but the device is cpu: leave one of them out", argument="gpu")
    return f"cuda:{gpu}"


def device_numbers(text: str) -> list[int] | None:
    """The numbers in a list such as "0-3" or "0,2"; None for an empty text.

    Raise InputError if it is not a list of different devices.
    """
    if not text:
        return None
    numbers: list[int] = []
    for part in text.split(","):
        start, dash, end = part.strip().partition("-")
        if not start.isdecimal() or (dash and not end.isdecimal()):
            raise InputError(f"{text!r} is not a list of devices such as 0-3 or 0,2", argument="gpu")
        numbers += range(int(start), int(end if dash else start) + 1)
    if not numbers or len(set(numbers)) != len(numbers):
        raise InputError(f"{text!r} names no device, or a device twice", argument="gpu")
    return numbers

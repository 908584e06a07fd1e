"""The decoding process: reads jobs from its standard input, answers on its standard output.

Started by :class:`~imageclust.images.pool.DecodePool` as a fresh interpreter, never a fork, so it
inherits no lock, thread or open file. It guards itself:

- memory: the data segment may grow by the limit of one picture; beyond it the codec's allocation
  fails and the picture is ``too-large``;
- time: timers kill the process from within, even inside a codec's endless loop, and even when the
  parent is gone; processor time counts, so that a busy machine rejects nothing, and a multiple of
  it on the clock for a file system that hangs;
- it writes no file and leaves no core; what codecs print goes nowhere.
"""

import contextlib
import io
import os
import resource
import signal
from pathlib import Path

import cv2

from imageclust.errors import RejectedImage
from imageclust.images.decode import DecodeLimits
from imageclust.images.messages import (
    Block,
    Message,
    options_from_json,
    processed_to_message,
    receive,
    send,
)
from imageclust.images.process import ProcessOptions, process

_SLACK_MB = 128
_CLOCK_FACTOR = 6


def main() -> None:
    """Serve jobs until the standard input ends."""
    jobs, answers = _private_streams()
    settings, _ = receive(jobs)
    options = options_from_json(settings)
    _guard(options.limits)
    send(answers, {"ready": True}, [])
    # The parent closes our input when it is done with us, or dies.
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            job, blocks = receive(jobs)
            source = bytes(blocks[0]) if blocks else Path(os.fsdecode(bytes.fromhex(job["path"])))
            _set_timers(options.limits.seconds)
            message, raw = _answer(source, options)
            _set_timers(0)
            send(answers, message, raw)


def _answer(source: bytes | Path, options: ProcessOptions) -> tuple[Message, list[Block]]:
    try:
        return processed_to_message(process(source, options=options))
    except RejectedImage as rejected:
        return {"rejected": [rejected.kind, rejected.reason]}, []
    except MemoryError:
        reason = "Decoding this picture needs more memory than one is given."
        return {"rejected": ["too-large", reason]}, []


def _private_streams() -> tuple[io.BufferedReader, io.BufferedWriter]:
    """Our pipes under other numbers, so that nothing a codec prints can get into them."""
    jobs, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    os.close(nowhere)
    return jobs, answers


def _guard(limits: DecodeLimits) -> None:
    # An interrupt from the terminal is the parent's to handle; it ends us by closing our input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for timer in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(timer, signal.SIG_DFL)
    cv2.setNumThreads(1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    used = _data_bytes()
    if used is not None:
        allowed = used + (limits.memory_mb + _SLACK_MB) * 2**20
        resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))


def _set_timers(seconds: float) -> None:
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, seconds * _CLOCK_FACTOR)


def _data_bytes() -> int | None:
    """Size of our data segment now; None where the system does not tell (then no limit is set)."""
    try:
        with open("/proc/self/status", encoding="ascii") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData"))
    except (OSError, StopIteration):
        return None

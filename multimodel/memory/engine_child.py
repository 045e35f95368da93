"""llama.cpp's own accounting, in a process of its own: a damaged header can end it.

Run as a file, so that it starts with nothing but llama_cpp. A line of JSON comes in:
`{"path": ..., "model": {...}, "contexts": [{...}]}`, fields of llama_model_params and llama_context_params; a line
goes out for each context: `{"log": [...]}`, what llama.cpp said of sizes, or `{"error": ...}`. The last model is kept.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from threading import Timer
from typing import Any

import llama_cpp as native

IDLE = 120.0  # seconds without a question, after which it ends
DATA = 8 << 30  # bytes it may allocate
ERROR = 4  # llama.cpp's level of a message

_sizes: list[str] = []
_errors: list[str] = []


def _keep(level: int, text: bytes, data: ctypes.c_void_p) -> None:
    line = text.decode("utf-8", "replace").strip()[:300]
    if level == ERROR:
        _errors.append(line)
    elif "size = " in line:
        _sizes.append(line)


_keep_for_c = native.llama_log_callback(_keep)


class Models:
    """The model last asked for, without weights."""

    def __init__(self) -> None:
        self._key = ""
        self._handle: Any = None

    def get(self, path: str, fields: dict[str, Any]) -> Any:
        """The handle of a model; None where llama.cpp refuses it."""
        key = json.dumps([path, fields])
        if key != self._key:
            if self._handle:
                native.llama_model_free(self._handle)
            params = _filled(native.llama_model_default_params(), fields)
            self._handle, self._key = native.llama_model_load_from_file(path.encode(), params), key
        return self._handle


def accounted(model: Any, fields: dict[str, Any]) -> dict[str, Any]:
    """What llama.cpp says while it makes a context."""
    _forget()
    context = native.llama_init_from_model(model, _filled(native.llama_context_default_params(), fields))
    if not context:
        return {"error": _reason()}
    native.llama_free(context)
    return {"log": list(_sizes)}


def _forget() -> None:
    _sizes.clear()
    _errors.clear()


def _reason() -> str:
    return _errors[0] if _errors else "llama.cpp gives no reason"


def _filled(params: Any, fields: dict[str, Any]) -> Any:
    for name, value in fields.items():
        setattr(params, name, value)
    return params


def _limit() -> None:
    """No core file, no more memory than an accounting can need."""
    if sys.platform != "win32":
        import resource  # noqa: PLC0415  # Windows has none

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_DATA, (DATA, DATA))


def main() -> None:
    """Answer until the input ends, or nobody has asked for a while."""
    _limit()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what native code prints is no answer
    native.llama_backend_init()
    native.llama_log_set(_keep_for_c, ctypes.c_void_p(0))
    models = Models()
    idle = Timer(IDLE, os._exit, (0,))
    idle.daemon = True
    idle.start()
    for line in sys.stdin:
        idle.cancel()
        asked = json.loads(line)
        _forget()
        model = models.get(asked["path"], asked["model"])
        refused = {"error": _reason()}
        for fields in asked["contexts"]:
            answers.write(json.dumps(accounted(model, fields) if model else refused) + "\n")
            answers.flush()
        idle = Timer(IDLE, os._exit, (0,))
        idle.daemon = True
        idle.start()


if __name__ == "__main__":
    main()

"""Stands in for SGLang's kernels, which exist for CUDA and AMX only: every name can be imported,
and whoever calls one is told. A Llama on the ``torch_native`` attention backend calls none."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from types import ModuleType
from typing import Any, NoReturn

__version__ = "0.4.10"


class _Absent:
    """Any attribute of it exists and is as absent."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __getattr__(self, name: str) -> _Absent:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Absent(f"{self.__name__}.{name}")

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError(f"sgl_kernel.{self.__name__} is not on this machine")


def __getattr__(name: str) -> _Absent:
    if name.startswith("__"):
        raise AttributeError(name)
    return _Absent(name)


class _Modules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds every ``sgl_kernel.x.y``."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if not fullname.startswith("sgl_kernel."):
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: Any) -> ModuleType:
        module = ModuleType(spec.name)
        module.__dict__.update(__path__=[], __getattr__=__getattr__)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""


sys.meta_path.append(_Modules())

"""Without PyTorch."""

import importlib
import sys

from raises import raises


def test_the_training_module_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "teddytok_rs.torch", raising=False)
    with raises("torch_extra", "pip install 'teddytok-rs[torch]'"):
        importlib.import_module("teddytok_rs.torch")

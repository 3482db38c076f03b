"""``python -m teddytok_rs`` is ``teddytok``."""

from .cli import main

main()

"""``python -m teddytok_rs`` is ``teddytok``."""

from .cli.main import main

main()

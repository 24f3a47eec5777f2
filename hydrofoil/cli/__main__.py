"""`python -m hydrofoil.cli` is `python -m hydrofoil`."""

from hydrofoil.cli.main import main

main()

"""`python -m hydrofoil`: the command line, where no script is on the path."""

from hydrofoil.cli.main import main

main()

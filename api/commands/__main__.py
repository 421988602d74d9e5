"""`python -m api.commands` is `firstcome`."""

from api.commands import main

main(prog_name="firstcome")

"""`python -m presque` is `presque`."""

from presque.cli.main import main

main()

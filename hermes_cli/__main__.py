"""`python -m hermes_cli` is `hermes`."""

from hermes_cli.cli import main

if __name__ == "__main__":
    main()

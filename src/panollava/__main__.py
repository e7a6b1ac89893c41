"""`python -m panollava`: the command line."""

from panollava.cli.main import main

if __name__ == "__main__":
    main()

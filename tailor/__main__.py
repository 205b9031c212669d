"""`python -m tailor`."""

from tailor.cli.main import main

if __name__ == "__main__":
    main()

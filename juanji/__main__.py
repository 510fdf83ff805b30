"""`python -m juanji` is the command `juanji`."""

from juanji.cli import main

if __name__ == "__main__":
    main()

"""`python -m charlm`, the same as the command `charlm`."""

from charlm.cli import main

if __name__ == "__main__":
    main()

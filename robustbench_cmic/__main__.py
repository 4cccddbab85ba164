"""`python -m robustbench_cmic`: the command line."""

from robustbench_cmic.cli import main

if __name__ == "__main__":
    main()

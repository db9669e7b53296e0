"""`python -m automl_pt` is `automl-pt`."""

from automl_pt.cli import main

if __name__ == "__main__":
    main()

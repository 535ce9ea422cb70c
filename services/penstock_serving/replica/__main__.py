"""`python -m penstock_serving.replica`: a replica's server process."""

import sys

from penstock_serving.replica.process import main

if __name__ == "__main__":
    sys.exit(main())

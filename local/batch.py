"""The batch job on this machine: the container's command line over the local adapters."""

import sys

from imageclust import batch
from imageclust.wiring import use

from local.home import find_home, open_services

if __name__ == "__main__":
    use(open_services(find_home(None)))
    sys.exit(batch.main())

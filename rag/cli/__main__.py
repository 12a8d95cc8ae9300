"""`python -m rag.cli`, for when the scripts folder is not on the path."""

from __future__ import annotations

import sys

from rag.cli import main

sys.exit(main())

"""``python -m nvisa``."""

from nvisa.cli import main

raise SystemExit(main())

"""``python -m nvisa``."""

from nvisa.commands.cli import main

raise SystemExit(main())

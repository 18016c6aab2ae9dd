"""What a command answers to the shell."""

__all__ = ["DIVERGED", "DONE", "FAULT", "INTERRUPTED", "TERMINATED", "TEXT", "WRONG_INPUT"]

DONE, FAULT, WRONG_INPUT, DIVERGED, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 130, 143
TEXT = (
    "exit codes: 0 done; 1 a fault of nvisa's; 2 wrong usage or input; 3 training diverged; 130 interrupted; "
    "143 terminated"
)

"""LIFE: the command, configuration, logging and the processes that bill and serve."""

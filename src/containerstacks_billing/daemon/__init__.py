"""The billing daemon: schedule, heartbeat, shutdown, watchdog, and the built-in billing of the application side."""

"""Plan prices: dated versions, announced changes, and corrections of the past."""

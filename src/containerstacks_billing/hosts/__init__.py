"""Host applications: which one a database belongs to, and what it bills that billing would not."""

"""Pages for people who are signed in: customers, runs, decisions, prices, events and the last verification."""

"""The application side over HTTP: one router per subject, put together in application.py."""

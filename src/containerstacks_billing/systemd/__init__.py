"""systemd units: rendering, installation, inspection and control."""

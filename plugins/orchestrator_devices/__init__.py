"""Devices: this host and boards over ssh."""

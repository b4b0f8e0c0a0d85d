"""The web app: `app.py` puts it together, every tab has a file of its own (widgets, one pipeline call, widgets)."""

"""The panel: its state, its layout, what it shows and how that is drawn."""

"""Pictures in files: reading them, feeding them to the method, and scoring whole folders without a database."""

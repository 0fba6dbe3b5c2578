"""Alembic's migrations: versions/ in order, run by node.database.upgrade."""

"""The node's truth: tables (schema), opening and migrating (engine), and the questions asked of them.

The questions stand in `instances`, `exams`, `readings` and `deliveries`; all are safe from several processes at once.
Errors of the database come out as OutOfResourcesError (away, locked, full) or NodeError.
"""

from node.database.engine import Database, open_database, upgrade

__all__ = ["Database", "open_database", "upgrade"]

"""Alembic runs this file. The connection, with its transaction already begun, comes from node.database.upgrade."""

from alembic import context

from node.database.schema import Table

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
context.run_migrations()

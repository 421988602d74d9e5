"""PostgreSQL: tables, migrations, the worker and the history reads."""

"""The tables of the active learning database: one repository class per table holds all SQL on it.

Each repository works on an open connection, so that one transaction of `Database` can span several tables.
"""

"""The tables of the active learning database, one repository per table: all SQL on a table stands in its
module.

Each repository works on an open connection, so that one transaction of `Database` can span several tables.
"""

-- Makes the catalog's tables say what the catalog says; what left it is retired.
select tallybook.apply_catalog(%(catalog)s::jsonb)

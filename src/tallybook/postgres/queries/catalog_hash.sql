-- The hash of the catalog that booking decides from; no row: none was applied.
select hash from tallybook.catalog_state

-- Nothing was written; the picture can go.
commit

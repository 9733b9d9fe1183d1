module countersign/stockreader

go 1.26.0

// Not an old one: sumdb/tlog of v0.17.0 (seen) takes some full tiles without comparing them with their parent.
require golang.org/x/mod v0.42.0

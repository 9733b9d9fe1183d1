-- Offline records, terminal batches, store-and-forward.

SELECT 1;

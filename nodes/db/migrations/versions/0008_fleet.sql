-- The terminal fleet.

SELECT 1;

-- Answer signatures, settlement.

SELECT 1;

-- A claim that was refused is replaced by the next one: its promise may be another.
GRANT UPDATE (merge_deadline, signature) ON claim_orders TO countersign_app;

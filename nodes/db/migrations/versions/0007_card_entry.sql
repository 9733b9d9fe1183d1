-- Chip, stripe, contactless, QR, orders, webhooks.

SELECT 1;

"""The dialects that ship with the gateway: one JSON file each (gateway.iso8583.dialect)."""

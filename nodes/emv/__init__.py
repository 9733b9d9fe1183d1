"""EMV as data: BER-TLV, what DE55 carries, payment QR codes. Pure; keys are in nodes/crypto/emv."""

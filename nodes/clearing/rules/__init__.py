"""What closes and cases decide by; pure."""

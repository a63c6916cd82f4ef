"""Food-delivery service: complaints about orders, and vouchers."""

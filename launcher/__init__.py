"""The product: interactive sessions on clusters."""

"""What the tools call: complexity and attention maps."""

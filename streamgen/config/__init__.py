"""Settings: what they are (`schema`) and how a TOML file becomes one (`load`)."""

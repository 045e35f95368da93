"""One file a backend; `registry.BACKENDS` names them and imports each on first use."""

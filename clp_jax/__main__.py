"""``python -m clp_jax`` is ``clp-jax``."""

from clp_jax.cli import main

if __name__ == "__main__":
    main()

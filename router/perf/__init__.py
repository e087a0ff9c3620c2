"""What the hardware can do: seconds and tokens for every backend of a mixed fleet.

Start with ``build.py`` (a backend's speed, KV capacity and limits in one call each), then
``roofline.py`` (the iteration-time model itself) and ``catalog.py`` (GPUs and models, every figure
with its source in ``gpus.toml`` and ``models.toml``). ``feasible.py`` says what cannot run and
what would; ``length.py`` forecasts output lengths; ``fit.py`` and ``accuracy.py`` compare the
model with measurements.
"""

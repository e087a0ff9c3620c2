"""Reads the engines, learns each backend's real speed, feeds policy and planner.

Start with ``engine_metrics.py`` (six engines, three generations of names), ``scraper.py`` and
``feedback.py`` (what live traffic teaches). Then, by what they do:

- signals: ``exposition``, ``adapters``, ``sglang_loads``, ``orca``, ``hit_window``,
  ``http_get``, ``signals_report``;
- learning: ``sightings`` (what one request tells) over ``lives``, ``log_filter`` (how it is
  believed), ``learner`` (one backend), ``kin`` (equals stand in for each other),
  ``calibration``, ``drift``; ``learning`` puts them together;
- keeping over a restart: ``learned``, ``speeds``, ``learned_file``;
- watching: ``metric_table`` (every metric), ``metrics``, ``metric_sources``, ``router_sources``,
  ``metric_text``, ``histogram``, ``accuracy``, ``slo_window``, ``sliding``, ``label_cap``;
- metering: ``metering`` (whose energy and money it was), ``power``;
- telling: ``recorder``, ``record_rows``, ``tracing`` (OpenTelemetry), ``json_log``.
"""

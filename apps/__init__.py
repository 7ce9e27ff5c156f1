"""The app that people use in a browser, and the service for pipelines, in one process: `restore-bridge app`.

`service/` holds the jobs (queue, store, workers), `web/` the HTTP interface, `studio/` the pages; `server` puts them
together. In a wheel this package is `restore_bridge.apps`.
"""

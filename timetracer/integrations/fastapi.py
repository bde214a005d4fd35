"""FastAPI: the same as Starlette, on which it stands.

    app = auto_setup(FastAPI())
"""

from __future__ import annotations

from timetracer.integrations.starlette import TimeTracerMiddleware, auto_setup

__all__ = ["TimeTracerMiddleware", "auto_setup"]

"""DRF's view set as the control plane uses it."""

from __future__ import annotations

from rest_framework import viewsets


class ViewSet(viewsets.ViewSet):
    """DRF's own, without the methods that it would name in `Allow` although no path has them."""

    http_method_names = [method for method in viewsets.ViewSet.http_method_names if method not in {"options", "trace"}]

"""The MONAI Label app: the only package that imports monailabel."""

from segmed.server.monailabel_imports import install as _install

_install()  # before any module here, or MONAI Label's own start command, imports MONAI Label
